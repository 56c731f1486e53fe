//! What proves to servers who the user is: the files that `[[server]]` tables name, netrc, and the
//! user names and passwords in URLs.
//!
//! All files are read here, before the process is confined and connects to servers. An error never
//! quotes what is in them. A file that this user may not read is left out with a warning: settings of
//! the system may name files for root. What is at a usual place need not be there.
//!
//! Entries of netrc name hosts only, so they are not used for servers that others have chosen: those
//! discovered in the local network, and of guix-daemon's client only those whose host is certain. Nor are
//! access keys: a client has them used at Amazon alone, and cannot choose a profile. What a `[[server]]` table
//! names is not chosen by others, whoever lists it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use crate::cli::env::Environment;
use crate::cli::nix_conf::NixConf;
use crate::cli::output::shown_path;
use crate::cli::system_clock::since_epoch;
use crate::format::netrc::{DefaultEntry, Netrc};
use crate::format::secret::Secret;
use crate::format::server_url::ServerUrl;
use crate::format::store_path::Dialect;
use crate::http::{
    AccessKeySource, AccessKeys, BucketSigner, ClientIdentity, Credentials, ServerCredentials,
};
use crate::store::Layout;

use super::access_keys;
use super::error::SettingsError;
use super::findings::SettingsFindings;
use super::origin::Origin;
use super::secret_file::{is_absent, read_secret};
use super::server_table::ServerTable;
use super::table::SettingsLayer;

/// Loads the credentials for `servers`, which the user or guix-daemon's client named, and for those
/// of the `[[server]]` tables. What cannot be loaded is an error among the findings.
pub(super) fn load(
    chosen: &SettingsLayer,
    servers: &[ServerUrl],
    layout: &Layout,
    nix_conf: &NixConf,
    environment: &Environment,
    findings: &mut SettingsFindings,
) -> Credentials {
    let mut all: Vec<ServerCredentials> = Vec::new();
    if let Some(setting) = &chosen.server {
        for table in &setting.value {
            let loaded = of_table(table, &setting.origin, servers, &mut findings.warnings);
            all.extend(findings.value(loaded));
        }
    }
    for server in servers {
        if !all.iter().any(|it| it.is_for_user_of(server)) {
            all.push(ServerCredentials::new(server.clone()));
        }
    }

    let netrc = read_netrc(
        chosen,
        layout,
        nix_conf,
        environment,
        &mut findings.warnings,
    );
    let netrc = findings.value(netrc).unwrap_or_default();
    let urls = chosen.substitute_urls.as_ref();
    let origin = urls.map_or(&Origin::Option("--substitute-urls"), |urls| &urls.origin);
    let is_client = matches!(origin, Origin::DaemonClient(_));
    for server in servers.iter().filter(|server| may_have_password(server)) {
        let own = all.iter_mut().find(|it| it.is_for_user_of(server));
        if let Some(own) = own
            && (!is_client || has_certain_host(server))
        {
            add_password(own, server, &netrc, is_client);
        }
    }

    let tables = chosen.server.iter().flat_map(|setting| &setting.value);
    let owned: Vec<&ServerUrl> = tables.map(|table| &table.url.0).collect();
    add_signers(
        &mut all,
        servers,
        |server| !is_client || owned.contains(&server) || client_may_use_keys(server),
        origin,
        environment,
        findings,
    );

    // Those without credentials as well: nothing that is below their URLs is another server's.
    let mut credentials = Credentials::default();
    all.into_iter().for_each(|server| credentials.add(server));
    credentials
}

/// What a `[[server]]` table names. The user name and password may be in the URL of the table, or in
/// that of the list of servers.
fn of_table(
    table: &ServerTable,
    origin: &Origin,
    servers: &[ServerUrl],
    warnings: &mut Vec<String>,
) -> Result<ServerCredentials, SettingsError> {
    let url = &table.url.0;
    let listed = servers
        .iter()
        .find(|server| server.as_str() == url.as_str() && !server.base().username().is_empty());
    let mut files = TableFiles {
        url,
        origin,
        warnings,
    };
    let mut credentials = ServerCredentials::new(listed.unwrap_or(url).clone());

    if let Some((path, text)) = files.read("token-file", table.token_file.as_deref())? {
        let token = text.expose().trim();
        let is_word = !token.is_empty() && !token.contains(char::is_whitespace);
        let added = is_word && credentials.add_token(&Secret::new(token)).is_ok();
        if !added {
            let reason = "it has to contain a token and nothing else; `header-file` is for whole \
                          header fields";
            return Err(files.error("token-file", &path, reason));
        }
    }

    if let Some((path, text)) = files.read("header-file", table.header_file.as_deref())? {
        let added = add_fields(&mut credentials, &text);
        added.map_err(|reason| files.error("header-file", &path, &reason))?;
    }

    if let Some(certificate) = &table.client_cert_file {
        let key = table.client_key_file.as_deref().unwrap_or(certificate);
        let certificate = files.read("client-cert-file", Some(certificate))?;
        let key = files.read("client-key-file", Some(key))?;
        if let (Some((path, certificate)), Some((_, key))) = (certificate, key) {
            let identity = ClientIdentity::from_pem(&certificate, &key).map_err(|error| {
                let reason = crate::substitute::chain(&error);
                files.error("client-cert-file", &path, &reason)
            })?;
            credentials.set_identity(identity);
        }
    } else if table.client_key_file.is_some() {
        let message = format!("client-key-file of {url} needs a client-cert-file");
        return Err(SettingsError::value(origin, message));
    }
    Ok(credentials)
}

/// Adds the header fields in `text`, one on each line; an error names the line.
fn add_fields(credentials: &mut ServerCredentials, text: &Secret) -> Result<(), String> {
    for (index, line) in text.expose().lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let number = index + 1;
        let Some((name, value)) = line.split_once(':') else {
            return Err(format!("line {number} is not `NAME: VALUE`"));
        };
        let added = credentials.add_field(name, &Secret::new(value.trim()));
        added.map_err(|error| format!("line {number}: {error}"))?;
    }
    Ok(())
}

/// Reads the files that a `[[server]]` table names.
struct TableFiles<'a> {
    url: &'a ServerUrl,
    origin: &'a Origin,
    warnings: &'a mut Vec<String>,
}

impl TableFiles<'_> {
    /// The file that `setting` names, and its content. `None` if it
    /// names none, or one that this user may not read.
    fn read(
        &mut self,
        setting: &str,
        path: Option<&Path>,
    ) -> Result<Option<(PathBuf, Secret)>, SettingsError> {
        let Some(path) = path else { return Ok(None) };
        match read_secret(path) {
            Ok(text) => Ok(Some((path.to_owned(), text))),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let (url, path) = (self.url, shown_path(path));
                self.warnings.push(format!(
                    "the {setting} of {url} is not used: this user may not read {path}"
                ));
                Ok(None)
            }
            Err(error) => Err(self.error(setting, path, &error.to_string())),
        }
    }

    fn error(&self, setting: &str, path: &Path, reason: &str) -> SettingsError {
        let (url, path) = (self.url, shown_path(path));
        SettingsError::value(self.origin, format!("{setting} of {url}: {path}: {reason}"))
    }
}

/// The entries of netrc: of the file that a setting names, else of those at the usual places.
fn read_netrc(
    chosen: &SettingsLayer,
    layout: &Layout,
    nix_conf: &NixConf,
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Result<Vec<Netrc>, SettingsError> {
    if let Some(setting) = &chosen.netrc_file {
        let path = &setting.value;
        return match read_secret(path) {
            Ok(text) => Ok(vec![Netrc::parse(text.expose())]),
            Err(error) => {
                let (path, is_in_file) = (
                    shown_path(path),
                    matches!(setting.origin, Origin::File { .. }),
                );
                if error.kind() == io::ErrorKind::PermissionDenied && is_in_file {
                    let text = "the netrc-file is not used: this user may not read";
                    warnings.push(format!("{text} {path}"));
                    return Ok(Vec::new());
                }
                let message = format!("cannot read {path}: {error}");
                Err(SettingsError::value(&setting.origin, message))
            }
        };
    }

    let of_nix = (layout.store_dir().dialect() == Dialect::Nix).then(|| {
        let named = nix_conf.netrc_file.as_ref().map(|file| file.path.clone());
        named.unwrap_or_else(|| layout.config().join("netrc"))
    });
    let of_user = environment.path("HOME").map(|home| home.join(".netrc"));
    let mut found = Vec::new();
    for path in of_nix.into_iter().chain(of_user) {
        match read_secret(&path) {
            Ok(text) => found.push(Netrc::parse(text.expose())),
            Err(error) if is_absent(&error) => {}
            Err(error) => {
                let path = shown_path(&path);
                warnings.push(format!("{path} is ignored: {error}"));
            }
        }
    }
    Ok(found)
}

/// Whether requests to `server` may have a user name and a password.
fn may_have_password(server: &ServerUrl) -> bool {
    !server.is_file() && server.bucket().is_none()
}

/// Adds what signs the requests to those of the `servers` that are buckets. `trusted` says of which ones the keys of
/// this user may be used; `origin`, where the servers are listed.
fn add_signers(
    all: &mut [ServerCredentials],
    servers: &[ServerUrl],
    trusted: impl Fn(&ServerUrl) -> bool,
    origin: &Origin,
    environment: &Environment,
    findings: &mut SettingsFindings,
) {
    let mut keys = Vec::new();
    for server in servers {
        let warnings = &mut findings.warnings;
        let signer = bucket_signer(server, trusted(server), environment, &mut keys, warnings);
        let signer =
            signer.map_err(|fault| SettingsError::value(origin, format!("{server}: {fault}")));
        let own = all.iter_mut().find(|it| it.is_for(server));
        if let (Some(own), Some(Some(signer))) = (own, findings.value(signer)) {
            own.set_signer(signer);
        }
    }
}

/// Adds what signs the requests to the bucket `server`, which the option `origin` names besides the servers.
pub(super) fn add_bucket(
    credentials: &mut Credentials,
    server: &ServerUrl,
    origin: &Origin,
    environment: &Environment,
    findings: &mut SettingsFindings,
) {
    let mut all = [ServerCredentials::new(server.clone())];
    let servers = std::slice::from_ref(server);
    add_signers(&mut all, servers, |_| true, origin, environment, findings);
    all.into_iter().for_each(|server| credentials.add(server));
}

/// Whether requests to `server` may be signed with keys of this user although the client of guix-daemon lists it:
/// not where the client wants them to be sent, nor with the profile that it likes.
fn client_may_use_keys(server: &ServerUrl) -> bool {
    server
        .bucket()
        .is_some_and(|bucket| bucket.is_at_amazon && bucket.profile.is_none())
        && has_certain_host(server)
}

/// What signs the requests to `server`, if it is a bucket. Servers with the same source of access keys share
/// them in `keys`.
fn bucket_signer(
    server: &ServerUrl,
    is_trusted: bool,
    environment: &Environment,
    keys: &mut Vec<Arc<AccessKeys>>,
    warnings: &mut Vec<String>,
) -> Result<Option<BucketSigner>, String> {
    let Some(location) = server.bucket() else {
        return Ok(None);
    };
    let source = if is_trusted {
        access_keys::find(location, environment, warnings)?
    } else {
        AccessKeySource::Anonymous
    };

    let known = keys.iter().find(|keys| *keys.source() == source);
    let shared = known.cloned().unwrap_or_else(|| {
        let new = Arc::new(AccessKeys::new(source));
        keys.push(Arc::clone(&new));
        new
    });
    let (server, location) = (server.clone(), location.clone());
    Ok(Some(BucketSigner::new(
        server,
        location,
        shared,
        since_epoch,
    )))
}

/// Adds the password for the host of `server` and the user name in its URL, if netrc has one.
fn add_password(
    credentials: &mut ServerCredentials,
    server: &ServerUrl,
    netrc: &[Netrc],
    is_client: bool,
) {
    let host = server.base().host_str().unwrap_or_default();
    let host = host.trim_matches(['[', ']']);
    let default = if is_client {
        DefaultEntry::Ignored
    } else {
        DefaultEntry::Used
    };
    let user = credentials.user().unwrap_or(server.base().username());
    let login = percent_decode_str(user).decode_utf8_lossy().into_owned();
    let mut found = netrc
        .iter()
        .filter_map(|netrc| netrc.entry(host, &login, default));
    if let Some(entry) = found.next() {
        credentials.add_password(&entry.login, &entry.password);
    }
}

/// Whether only the host itself can be behind the URL: its certificate is verified, and the port is
/// not one that any user of the host may listen on.
fn has_certain_host(server: &ServerUrl) -> bool {
    server.base().scheme() == "https" && server.base().port().is_none()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tempfile::TempDir;
    use url::Url;

    use super::*;
    use crate::cli::nix_conf::NixConfFile;
    use crate::cli::settings::file_table::FileTable;
    use crate::cli::settings::origin::Setting;
    use crate::cli::settings::value::{SettingValue as _, WordList};
    use crate::format::store_path::StoreDir;

    /// A home and an embedded store, with files of the same names in both.
    struct Places {
        dir: TempDir,
        findings: SettingsFindings,
    }

    impl Places {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            Self {
                dir,
                findings: SettingsFindings::default(),
            }
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        }

        /// What is sent to each of `urls`, which the settings name as `origin` says.
        fn sent<const N: usize>(
            &mut self,
            store_dir: &str,
            nix_conf: &NixConf,
            origin: Origin,
            urls: [&str; N],
        ) -> [Option<String>; N] {
            let chosen = SettingsLayer {
                substitute_urls: Some(Setting {
                    value: WordList::from_text(&urls.join(" ")).unwrap(),
                    origin,
                }),
                ..SettingsLayer::default()
            };
            self.sent_with(chosen, store_dir, nix_conf, urls)
        }

        fn sent_with<const N: usize>(
            &mut self,
            chosen: SettingsLayer,
            store_dir: &str,
            nix_conf: &NixConf,
            urls: [&str; N],
        ) -> [Option<String>; N] {
            let servers = urls.map(|url| ServerUrl::parse(url).unwrap());
            let (root, home) = (self.dir.path(), self.dir.path().join("home"));
            let layout = Layout::embedded(root, StoreDir::parse(store_dir).unwrap());
            let environment = Environment::with([("HOME", home.to_str().unwrap())]);
            let findings = &mut self.findings;
            let credentials = load(&chosen, &servers, &layout, nix_conf, &environment, findings);
            assert!(findings.errors.is_empty(), "{findings:?}");
            urls.map(|url| {
                let fields = credentials.fields(&Url::parse(url).unwrap());
                let value = fields.get("authorization")?.to_str().unwrap();
                Some(value.to_owned())
            })
        }
    }

    const OPTION: Origin = Origin::Option("--substitute-urls");
    const CLIENT: Origin = Origin::DaemonClient("substitute-urls");
    const ADMINISTRATOR: Origin = Origin::Daemon("substitute-urls");

    fn basic(base64: &str) -> Option<String> {
        Some(format!("Basic {base64}"))
    }

    #[test]
    fn nix_has_places_of_its_own_that_come_first() {
        let mut places = Places::new();
        places.write(
            "home/.netrc",
            "machine a password home\nmachine b password home",
        );
        places.write("etc/nix/netrc", "machine a password nix");
        let named = places.write("named", "machine a password named");
        let none = NixConf::default();
        let nix_conf = NixConf {
            netrc_file: Some(NixConfFile {
                path: named,
                named_by: String::new(),
            }),
            ..NixConf::default()
        };
        let urls = ["https://a", "http://b:1/x"];
        let [home, nix, named] = ["OmhvbWU=", "Om5peA==", "Om5hbWVk"].map(basic);
        let sent = places.sent("/gnu/store", &nix_conf, OPTION, urls);
        assert_eq!(sent, [home.clone(), home.clone()]);
        let sent = places.sent("/nix/store", &none, OPTION, urls);
        assert_eq!(sent, [nix, home.clone()]);
        let sent = places.sent("/nix/store", &nix_conf, OPTION, urls);
        assert_eq!(sent, [named, home]);
        assert_eq!(places.findings.warnings, [""; 0]);
    }

    #[test]
    fn a_client_of_guix_daemon_cannot_have_passwords_sent_to_itself() {
        let mut places = Places::new();
        places.write(
            "home/.netrc",
            "machine a password home\ndefault password home",
        );
        let urls = ["https://a/x", "http://a", "https://a:8443", "https://b"];
        let home = basic("OmhvbWU=");
        let none = NixConf::default();
        let by_option = places.sent("/gnu/store", &none, OPTION, urls);
        assert_eq!(by_option, [&home; 4].map(Clone::clone));
        let by_administrator = places.sent("/gnu/store", &none, ADMINISTRATOR, urls);
        assert_eq!(by_administrator, by_option);
        let by_client = places.sent("/gnu/store", &none, CLIENT, urls);
        assert_eq!(by_client, [home, None, None, None]);
    }

    #[test]
    fn a_client_of_guix_daemon_has_requests_signed_at_amazon_alone() {
        for (url, is_certain) in [
            ("s3://b?region=eu-west-1", true),
            ("s3://b?profile=work", false),
            ("s3://b?scheme=http", false),
            ("s3://b?endpoint=https://evil.example", false),
            ("s3://b?endpoint=https://s3.us-east-1.amazonaws.com", false),
        ] {
            let server = ServerUrl::parse(url).unwrap();
            assert_eq!(client_may_use_keys(&server), is_certain, "{url}");
        }
    }

    #[test]
    fn the_user_name_in_a_url_comes_before_netrc() {
        let mut places = Places::new();
        places.write("home/.netrc", "machine a password home");
        let urls = ["https://me:pw@a"];
        let sent = places.sent("/gnu/store", &NixConf::default(), OPTION, urls);
        assert_eq!(sent, [basic("bWU6cHc=")]);
    }

    #[test]
    fn a_user_name_alone_in_a_url_takes_its_password_from_netrc() {
        let mut places = Places::new();
        let netrc = "machine a login you password no machine a login m@e password pw";
        places.write("home/.netrc", netrc);
        let urls = ["https://m%40e@a", "https://you@b", "https://me@a:1"];
        let sent = places.sent("/gnu/store", &NixConf::default(), OPTION, urls);
        // The last ones have empty passwords.
        assert_eq!(sent, ["bUBlOnB3", "eW91Og==", "bWU6"].map(basic));
    }

    #[test]
    fn users_of_one_server_have_their_own_passwords() {
        let mut places = Places::new();
        let netrc = "machine a login you password no machine a login me password pw";
        places.write("home/.netrc", netrc);
        let nix_conf = NixConf::default();
        let urls = ["https://me@a", "https://you@a", "https://other:x@a"];
        let sent = places.sent("/gnu/store", &nix_conf, OPTION, urls);
        assert_eq!(sent, ["bWU6cHc=", "eW91Om5v", "b3RoZXI6eA=="].map(basic));

        let table = "[[server]]\nurl = \"https://me@a\"";
        let settings = places.dir.path().join("config.toml");
        let table = FileTable::parse(&settings, table.as_bytes()).unwrap();
        let chosen = SettingsLayer::from_file(table, &mut places.findings);
        let sent = places.sent_with(chosen, "/gnu/store", &nix_conf, ["https://a"]);
        assert_eq!(sent, ["bWU6cHc="].map(basic));
    }

    #[test]
    fn a_file_of_the_system_that_only_root_may_read_is_a_warning() {
        let mut places = Places::new();
        let token = places.write("token", "Sesame");
        let mode = std::fs::Permissions::from_mode(0o000);
        std::fs::set_permissions(&token, mode).unwrap();
        let table = "[[server]]\nurl = \"https://a\"\ntoken-file = \"token\"";
        let settings = places.dir.path().join("config.toml");
        let table = FileTable::parse(&settings, table.as_bytes()).unwrap();
        let chosen = SettingsLayer::from_file(table, &mut places.findings);
        let sent = places.sent_with(chosen, "/gnu/store", &NixConf::default(), ["https://a"]);
        if rustix::process::geteuid().is_root() {
            assert_eq!(sent, [Some("Bearer Sesame".to_owned())]);
        } else {
            let warning = format!(
                "the token-file of https://a is not used: this user may not read {}",
                token.display()
            );
            assert_eq!((sent, places.findings.warnings), ([None], vec![warning]));
        }
    }
}
