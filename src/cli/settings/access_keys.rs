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
use crate::format::s3_location::{S3Location, is_region};
use crate::format::secret::Secret;
use crate::http::{AccessKey, AccessKeySource, ContainerToken, WebIdentity, is_usable_key};

use super::secret_file::{is_absent, read_secret};

/// The source of the access keys for the bucket at `location`. An error says what cannot be used.
pub(super) fn find(
    location: &S3Location,
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Result<AccessKeySource, String> {
    if let Some(name) = &location.profile {
        return of_named_profile(name, location, environment, warnings);
    }
    if let Some(source) = of_variables(environment)? {
        return Ok(source);
    }
    if let Some(file) = environment.path(WEB_IDENTITY_TOKEN_FILE) {
        let role = environment.text("AWS_ROLE_ARN");
        let role = role.ok_or_else(|| format!("{WEB_IDENTITY_TOKEN_FILE} needs AWS_ROLE_ARN"))?;
        let session = environment.text("AWS_ROLE_SESSION_NAME");
        return web_identity(file, role, session, location, environment);
    }
    let named = environment.first_text(&["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]);
    if let Some((_, name)) = named {
        return of_named_profile(name, location, environment, warnings);
    }
    if let Some(profile) = read_profile(DEFAULT_PROFILE, environment, warnings)
        && let Some(source) = of_profile(&profile, location, environment)?
    {
        return Ok(source);
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
            fixed(id, Secret::new(secret), token.map(Secret::new)).map(Some)
        }
        (Some(_), None) => Err(format!("{KEY_ID} needs {SECRET_KEY}")),
        (None, Some(_)) => Err(format!("{SECRET_KEY} needs {KEY_ID}")),
    }
}

fn of_named_profile(
    name: &str,
    location: &S3Location,
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
    let source = of_profile(&profile, location, environment)?;
    source.ok_or_else(|| match unsupported(&profile) {
        Some(key) => format!(
            "profile `{shown}` gets its keys with `{key}`, which is not supported; `aws configure \
             export-credentials --profile {shown} --format env` prints them for the environment"
        ),
        None => format!("profile `{shown}` has no aws_access_key_id"),
    })
}

/// What the profile says, if it has keys or a way to get them.
fn of_profile(
    profile: &AwsProfile,
    location: &S3Location,
    environment: &Environment,
) -> Result<Option<AccessKeySource>, String> {
    if let (Some(file), Some(role)) = (
        text(profile, "web_identity_token_file"),
        text(profile, "role_arn"),
    ) {
        let session = text(profile, "role_session_name");
        let source = web_identity(PathBuf::from(file), role, session, location, environment);
        return source.map(Some);
    }
    let (id, secret) = (
        text(profile, "aws_access_key_id"),
        profile.get("aws_secret_access_key"),
    );
    match (id, secret) {
        (Some(id), Some(secret)) => {
            let token = profile.get("aws_session_token").cloned();
            fixed(id, secret.clone(), token).map(Some)
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

/// The setting by which a profile gets its keys in a way that is not supported.
fn unsupported(profile: &AwsProfile) -> Option<&'static str> {
    const KEYS: [&str; 5] = [
        "credential_process",
        "sso_session",
        "sso_start_url",
        "source_profile",
        "credential_source",
    ];
    KEYS.into_iter().find(|key| profile.get(key).is_some())
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

fn fixed(id: &str, secret: Secret, token: Option<Secret>) -> Result<AccessKeySource, String> {
    let key = AccessKey {
        id: id.to_owned(),
        secret,
        session_token: token,
        expires: None,
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
    location: &S3Location,
    environment: &Environment,
) -> Result<AccessKeySource, String> {
    const ENDPOINT: &str = "AWS_ENDPOINT_URL_STS";
    let region = environment.first_text(&["AWS_REGION", "AWS_DEFAULT_REGION"]);
    let region = region.map(|(_, region)| region).filter(|it| is_region(it));
    let region = region.or(location.is_at_amazon.then_some(location.region.as_str()));
    let usual = match region {
        Some(region) => format!("https://sts.{region}.amazonaws.com/"),
        None => "https://sts.amazonaws.com/".to_owned(),
    };
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
