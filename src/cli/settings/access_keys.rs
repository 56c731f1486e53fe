//! Where the access keys for the bucket of a server are: found as the AWS tools find them.
//!
//! In this order: variables, web identity, shared files, the service for containers, and the metadata
//! service of the machine. A profile that the URL names comes before all of these. The files of keys are read
//! here, before the process is confined; those of tokens are read whenever a service is asked, since others
//! renew them.
//!
//! The metadata service is only asked for buckets at Amazon, unless a variable names it: elsewhere its keys
//! are of no use.

use std::path::PathBuf;

use url::Url;

use crate::cli::env::Environment;
use crate::cli::output::shown_path;
use crate::format::aws_profile::{AwsFileKind, AwsProfile};
use crate::format::s3_location::{S3Location, amazon_domain, is_region};
use crate::format::secret::Secret;
use crate::http::{
    AccessKey, AccessKeySource, ContainerToken, WebIdentity, is_usable_key, unix_time,
};

use super::secret_file::{is_absent, read_secret};

/// The source of the access keys for the bucket at `location`. An error says what cannot be used.
pub(super) fn find(
    location: &S3Location,
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Result<AccessKeySource, String> {
    if let Some(name) = &location.profile {
        return of_named_profile(name, environment, warnings);
    }
    if let Some(source) = of_variables(environment)? {
        return Ok(source);
    }
    if let Some(file) = environment.path(WEB_IDENTITY_TOKEN_FILE) {
        let role = environment.text("AWS_ROLE_ARN");
        let role = role.ok_or_else(|| format!("{WEB_IDENTITY_TOKEN_FILE} needs AWS_ROLE_ARN"))?;
        let session = environment.text("AWS_ROLE_SESSION_NAME");
        return web_identity(file, role, session, None, environment);
    }
    let named = environment.first_text(&["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]);
    if let Some((_, name)) = named {
        return of_named_profile(name, environment, warnings);
    }
    if let Some(profile) = read_profile(DEFAULT_PROFILE, environment, warnings) {
        if let Some(source) = of_profile(&profile, environment)? {
            return Ok(source);
        }
        // A public bucket can be read all the same.
        let unsupported = unsupported(DEFAULT_PROFILE, &profile);
        warnings.extend(unsupported.filter(|warning| !warnings.contains(warning)));
    }
    if let Some(source) = of_container(environment)? {
        return Ok(source);
    }
    of_machine(location, environment)
}

fn of_variables(environment: &Environment) -> Result<Option<AccessKeySource>, String> {
    let [id, secret, token] = [KEY_ID, SECRET_KEY, "AWS_SESSION_TOKEN"]
        .map(|name| environment.text(name).filter(|value| !value.is_empty()));
    match (id, secret) {
        (None, None) => Ok(None),
        (Some(id), Some(secret)) => {
            let expires = environment.text("AWS_CREDENTIAL_EXPIRATION");
            let expires = expires.and_then(unix_time);
            fixed(id, Secret::new(secret), token.map(Secret::new), expires).map(Some)
        }
        (Some(_), None) => Err(format!("{KEY_ID} needs {SECRET_KEY}")),
        (None, Some(_)) => Err(format!("{SECRET_KEY} needs {KEY_ID}")),
    }
}

fn of_named_profile(
    name: &str,
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Result<AccessKeySource, String> {
    let shown = name.escape_debug();
    let profile = read_profile(name, environment, warnings).ok_or_else(|| {
        let [credentials, config] = shared_files(environment);
        let files = [credentials, config].into_iter().flatten();
        let files: Vec<String> = files.map(|(path, _)| shown_path(&path)).collect();
        format!("there is no profile `{shown}` in {}", files.join(" or "))
    })?;
    let source = of_profile(&profile, environment)?;
    source.ok_or_else(|| {
        let unsupported = unsupported(name, &profile);
        unsupported.unwrap_or_else(|| format!("profile `{shown}` has no aws_access_key_id"))
    })
}

/// What the profile says, if it has keys or a supported way to get them.
fn of_profile(
    profile: &AwsProfile,
    environment: &Environment,
) -> Result<Option<AccessKeySource>, String> {
    if let (Some(file), Some(role)) = (
        text(profile, "web_identity_token_file"),
        text(profile, "role_arn"),
    ) {
        let session = text(profile, "role_session_name");
        let region = text(profile, "region");
        let source = web_identity(PathBuf::from(file), role, session, region, environment);
        return source.map(Some);
    }
    // The keys beside a role may take that role and need not be able to do anything else.
    if profile.get("role_arn").is_some() {
        return Ok(None);
    }
    let (id, secret) = (
        text(profile, "aws_access_key_id"),
        profile.get("aws_secret_access_key"),
    );
    match (id, secret) {
        (Some(id), Some(secret)) => {
            let token = profile.get("aws_session_token").cloned();
            fixed(id, secret.clone(), token, None).map(Some)
        }
        _ => Ok(None),
    }
}

fn text<'a>(profile: &'a AwsProfile, key: &str) -> Option<&'a str> {
    profile.get(key).map(Secret::expose)
}

/// Whether a service may be at `url`.
fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host()
}

/// That a profile gets its keys in a way that is not supported, if it does.
fn unsupported(name: &str, profile: &AwsProfile) -> Option<String> {
    const KEYS: [&str; 7] = [
        "role_arn",
        "source_profile",
        "credential_source",
        "credential_process",
        "sso_session",
        "sso_start_url",
        "login_session",
    ];
    let key = KEYS.into_iter().find(|key| profile.get(key).is_some())?;
    let shown = name.escape_debug();
    Some(format!(
        "profile `{shown}` gets its keys with `{key}`, which is not supported; `aws configure \
         export-credentials --profile {shown} --format env` prints them for the environment"
    ))
}

/// The profile `name` in the shared files, of which that of credentials comes first.
fn read_profile(
    name: &str,
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Option<AwsProfile> {
    let mut found: Option<AwsProfile> = None;
    for (path, kind) in shared_files(environment).into_iter().flatten() {
        let text = match read_secret(&path) {
            Ok(text) => text,
            Err(error) if is_absent(&error) => continue,
            Err(error) => {
                warnings.push(format!("{} is ignored: {error}", shown_path(&path)));
                continue;
            }
        };
        let Some(profile) = AwsProfile::parse(text.expose(), kind, name) else {
            continue;
        };
        match &mut found {
            Some(first) => first.add(profile),
            None => found = Some(profile),
        }
    }
    found
}

fn shared_files(environment: &Environment) -> [Option<(PathBuf, AwsFileKind)>; 2] {
    let home = environment.path("HOME").map(|home| home.join(".aws"));
    let places = [
        (
            "AWS_SHARED_CREDENTIALS_FILE",
            "credentials",
            AwsFileKind::Credentials,
        ),
        ("AWS_CONFIG_FILE", "config", AwsFileKind::Config),
    ];
    places.map(|(variable, name, kind)| {
        let named = environment.path(variable);
        let path = named.or_else(|| Some(home.as_ref()?.join(name)))?;
        Some((path, kind))
    })
}

fn fixed(
    id: &str,
    secret: Secret,
    token: Option<Secret>,
    expires: Option<u64>,
) -> Result<AccessKeySource, String> {
    let key = AccessKey {
        id: id.to_owned(),
        secret,
        session_token: token,
        expires,
    };
    if is_usable_key(&key) {
        Ok(AccessKeySource::Fixed(key))
    } else {
        Err("the access key has characters that no access key has".to_owned())
    }
}

fn web_identity(
    token_file: PathBuf,
    role: &str,
    session: Option<&str>,
    region: Option<&str>,
    environment: &Environment,
) -> Result<AccessKeySource, String> {
    const ENDPOINT: &str = "AWS_ENDPOINT_URL_STS";
    let named = environment.first_text(&["AWS_REGION", "AWS_DEFAULT_REGION"]);
    let region = named.map(|(_, region)| region).or(region);
    let usual = token_service(region.filter(|it| is_region(it)), role);
    let endpoint = Url::parse(environment.text(ENDPOINT).unwrap_or(&usual));
    let endpoint = endpoint.ok().filter(is_web);
    let endpoint = endpoint.ok_or_else(|| format!("{ENDPOINT} is not an http or https URL"))?;
    Ok(AccessKeySource::WebIdentity(WebIdentity {
        endpoint,
        token_file,
        role: role.to_owned(),
        session_name: session.unwrap_or("subst").to_owned(),
    }))
}

/// The token service in `region`, else the one for `role`. The region of the bucket has no say: a client of guix-daemon
/// may have chosen it.
fn token_service(region: Option<&str>, role: &str) -> String {
    let usual = match role.split(':').nth(1) {
        Some("aws-cn") => Some("cn-north-1"),
        Some("aws-us-gov") => Some("us-gov-west-1"),
        _ => None,
    };
    match region.or(usual) {
        Some(region) => format!("https://sts.{region}.{}/", amazon_domain(region)),
        None => "https://sts.amazonaws.com/".to_owned(),
    }
}

fn of_container(environment: &Environment) -> Result<Option<AccessKeySource>, String> {
    const RELATIVE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
    const FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    let url = match (environment.text(RELATIVE), environment.text(FULL)) {
        (Some(path), _) if path.starts_with('/') => {
            Url::parse(&format!("http://{CONTAINER_HOST}{path}")).ok()
        }
        (Some(_), _) => return Err(format!("{RELATIVE} is not a path")),
        (None, Some(url)) => Url::parse(url).ok(),
        (None, None) => return Ok(None),
    };
    let url = url
        .filter(is_local_or_https)
        .ok_or_else(|| format!("{FULL} is neither an https URL nor one of this machine"))?;
    let token = environment.text("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    let token = match (
        environment.path("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
        token,
    ) {
        (Some(path), _) => ContainerToken::File(path),
        (None, Some(token)) => ContainerToken::Fixed(Secret::new(token)),
        (None, None) => ContainerToken::Absent,
    };
    Ok(Some(AccessKeySource::Container { url, token }))
}

/// Whether the keys that `url` provides cannot be read on the way.
fn is_local_or_https(url: &Url) -> bool {
    const LOCAL: [&str; 4] = [
        CONTAINER_HOST,
        "169.254.170.23",
        "[fd00:ec2::23]",
        "localhost",
    ];
    let host = url.host_str().unwrap_or_default();
    let is_loopback = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        _ => false,
    };
    match url.scheme() {
        "https" => true,
        "http" => is_loopback || LOCAL.contains(&host),
        _ => false,
    }
}

fn of_machine(location: &S3Location, environment: &Environment) -> Result<AccessKeySource, String> {
    const ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
    let named = environment.text(ENDPOINT);
    let is_disabled = environment
        .text("AWS_EC2_METADATA_DISABLED")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if is_disabled || (named.is_none() && !location.is_at_amazon) {
        return Ok(AccessKeySource::Anonymous);
    }
    let endpoint = Url::parse(named.unwrap_or("http://169.254.169.254/"));
    let endpoint = endpoint.ok().filter(is_web);
    let endpoint = endpoint.ok_or_else(|| format!("{ENDPOINT} is not an http or https URL"))?;
    Ok(AccessKeySource::InstanceMetadata { endpoint })
}

const DEFAULT_PROFILE: &str = "default";
const KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET_KEY: &str = "AWS_SECRET_ACCESS_KEY";
const WEB_IDENTITY_TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
const CONTAINER_HOST: &str = "169.254.170.2";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::server_url::ServerUrl;

    /// The source for the bucket at `url`, with `config` as the shared file of profiles, and the warnings.
    fn found(
        url: &str,
        config: &str,
        variables: &[(&'static str, &str)],
    ) -> (Result<AccessKeySource, String>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        std::fs::write(&file, config).unwrap();
        let (home, file) = (dir.path().to_str().unwrap(), file.to_str().unwrap());
        let own = [("HOME", home), ("AWS_CONFIG_FILE", file)];
        let environment = Environment::with(own.into_iter().chain(variables.iter().copied()));
        let server = ServerUrl::parse(url).unwrap();
        let mut warnings = Vec::new();
        let source = find(server.bucket().unwrap(), &environment, &mut warnings);
        (source, warnings)
    }

    #[test]
    fn an_access_key_is_taken_from_one_place_with_its_session_token() {
        const PAIR: &str = "aws_access_key_id=A\naws_secret_access_key=s\n";
        const OTHER_PAIR: &str = "aws_access_key_id=B\naws_secret_access_key=t\n";
        const TOKEN: &str = "aws_session_token=T\n";
        let (first_with_token, other_with_token) =
            (format!("{PAIR}{TOKEN}"), format!("{OTHER_PAIR}{TOKEN}"));
        let variables = [(KEY_ID, "V"), (SECRET_KEY, "v")];
        let token_variable = [("AWS_SESSION_TOKEN", "E")];
        for (credentials, config, variables, expected) in [
            (PAIR, TOKEN, &[][..], Some(("A", None))),
            (PAIR, &other_with_token, &[], Some(("A", None))),
            (&first_with_token, OTHER_PAIR, &[], Some(("A", Some("T")))),
            (TOKEN, OTHER_PAIR, &[], Some(("B", None))),
            ("", &other_with_token, &[], Some(("B", Some("T")))),
            ("aws_access_key_id=A\n", OTHER_PAIR, &[], Some(("B", None))),
            (
                "aws_access_key_id=A\n",
                "aws_secret_access_key=t",
                &[],
                None,
            ),
            (&first_with_token, "", &variables, Some(("V", None))),
            (PAIR, "", &token_variable, Some(("A", None))),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("credentials");
            std::fs::write(&file, format!("[default]\n{credentials}")).unwrap();
            let file = ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap());
            let variables: Vec<_> = variables.iter().copied().chain([file]).collect();
            let config = format!("[default]\nregion=x\n{config}");
            let source = found("s3://b?endpoint=http://h", &config, &variables).0;
            let found = match source.unwrap() {
                AccessKeySource::Fixed(key) => {
                    let token = key.session_token.map(|token| token.expose().to_owned());
                    Some((key.id, token))
                }
                _ => None,
            };
            let expected = expected.map(|(id, token)| (id.to_owned(), token.map(str::to_owned)));
            assert_eq!(found, expected, "{credentials:?} {config:?} {variables:?}");
        }
    }

    /// Where the token service is for a role, with these variables.
    fn token_service_of(role: &str, variables: &[(&'static str, &str)]) -> String {
        let of_role = [(WEB_IDENTITY_TOKEN_FILE, "/t"), ("AWS_ROLE_ARN", role)];
        let variables: Vec<_> = of_role.iter().chain(variables).copied().collect();
        let url = "s3://b?region=eu-west-9";
        match found(url, "", &variables).0 {
            Ok(AccessKeySource::WebIdentity(identity)) => identity.endpoint.into(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_token_service_is_that_of_the_user_and_not_of_the_bucket() {
        let role = "arn:aws:iam::1:role/x";
        let china = "arn:aws-cn:iam::1:role/x";
        for (role, variables, expected) in [
            (role, vec![], "https://sts.amazonaws.com/"),
            (
                role,
                vec![("AWS_REGION", "eu-west-1")],
                "https://sts.eu-west-1.amazonaws.com/",
            ),
            (
                china,
                vec![("AWS_REGION", "cn-northwest-1")],
                "https://sts.cn-northwest-1.amazonaws.com.cn/",
            ),
            (china, vec![], "https://sts.cn-north-1.amazonaws.com.cn/"),
        ] {
            assert_eq!(token_service_of(role, &variables), expected, "{role}");
        }
    }

    #[test]
    fn what_a_profile_has_that_is_not_supported_is_said() {
        let keys = "aws_access_key_id=A\naws_secret_access_key=s\n";
        for (setting, name) in [
            ("sso_session=x", "sso_session"),
            ("credential_process=/bin/x", "credential_process"),
            ("role_arn=arn:x\nsource_profile=y", "role_arn"),
        ] {
            // Of the role, the keys beside it are not those to sign with.
            let keys = if name == "role_arn" { keys } else { "" };
            let config = format!("[default]\n{setting}\n{keys}[profile p]\n{setting}\n{keys}");
            let (source, _) = found("s3://b?profile=p", &config, &[]);
            let expected =
                format!("profile `p` gets its keys with `{name}`, which is not supported");
            assert!(source.unwrap_err().starts_with(&expected), "{name}");

            let (source, warnings) = found("s3://b?endpoint=http://h", &config, &[]);
            assert_eq!(source, Ok(AccessKeySource::Anonymous), "{name}");
            let expected = format!("profile `default` gets its keys with `{name}`");
            assert!(warnings[0].starts_with(&expected), "{warnings:?}");
        }
        let (_, warnings) = found("s3://b?endpoint=http://h", "[default]\nregion=x", &[]);
        assert_eq!(warnings, [""; 0]);
    }
}
