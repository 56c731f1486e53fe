//! Settings files: TOML, the user's over the system's.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cli::env::{self, Environment};
use crate::cli::file_trust::{self, Choice};
use crate::format::credentials::without_credentials;

use super::SettingsError;
use super::layers::{Origin, Partial, Setting};

/// The system's settings.
const SYSTEM_FILE: &str = "/etc/subst/config.toml";

/// A settings file as it is written. Unknown names are errors: a misspelled setting that is
/// ignored is worse than none.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SettingsFile {
    root: Option<PathBuf>,
    store_dir: Option<String>,
    substitute_urls: Option<Words>,
    acl: Option<PathBuf>,
    trusted_public_keys: Option<Words>,
    jobs: Option<usize>,
    progress: Option<String>,
    insecure_tls: Option<bool>,
    discover: Option<bool>,
    connect_timeout: Option<f64>,
    stall_timeout: Option<f64>,
    connections: Option<usize>,
    read_ahead: Option<usize>,
    retry_time: Option<Time>,
    server: Option<Vec<ServerTable>>,
}

/// What a file says of one server: `[[server]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ServerTable {
    pub(super) url: String,
    pub(super) connect_timeout: Option<f64>,
    pub(super) stall_timeout: Option<f64>,
}

/// A list, as one blank-separated text or as an array.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Words {
    Text(String),
    Array(Vec<String>),
}

/// A duration, as a text with a unit or as a number of seconds.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Time {
    Text(String),
    Seconds(f64),
}

impl Time {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Seconds(seconds) => seconds.to_string(),
        }
    }
}

impl Words {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Array(words) => words.join(" "),
        }
    }
}

/// What the settings files say: the one that was named, or the user's over the system's.
pub(super) fn load(
    named: Option<&Path>,
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Result<Partial, SettingsError> {
    let named = named
        .map(Path::to_owned)
        .or_else(|| environment.path(env::SUBST_CONFIG));
    if let Some(path) = named {
        is_used(&path, Choice::Explicit, warnings);
        return read(&path);
    }
    let mut partial = Partial::default();
    let user = environment
        .config_home()
        .map(|home| home.join("subst/config.toml"));
    for path in user.into_iter().chain([PathBuf::from(SYSTEM_FILE)]) {
        if !is_used(&path, Choice::Implicit, warnings) {
            continue;
        }
        match read(&path) {
            Ok(lower) => partial = partial.or(lower),
            Err(SettingsError::Read { source, .. }) if is_absent(&source) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(partial)
}

/// Whether the file is read: not if others may decide what it says, unless somebody named it.
fn is_used(path: &Path, choice: Choice, warnings: &mut Vec<String>) -> bool {
    // What cannot be looked at cannot be read either, and reading it says why.
    let Ok(Err(fault)) = file_trust::check(path, None) else {
        return true;
    };
    warnings.push(file_trust::warning("settings file", path, &fault, choice));
    choice == Choice::Explicit
}

/// Nobody has to have a settings file, nor a home that can be looked into.
fn is_absent(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied)
}

fn read(path: &Path) -> Result<Partial, SettingsError> {
    let text = std::fs::read_to_string(path).map_err(|source| SettingsError::Read {
        path: path.to_owned(),
        source,
    })?;
    // The parser quotes the line, which may have the password of a server in it.
    let syntax = |message: String| SettingsError::Syntax {
        path: path.to_owned(),
        message: without_credentials(&message).into_owned(),
    };
    let file: SettingsFile = toml::from_str(&text).map_err(|error| syntax(error.to_string()))?;
    let progress = match &file.progress {
        None => None,
        Some(name) => Some(
            <crate::cli::args::ProgressMode as clap::ValueEnum>::from_str(name, false)
                .map_err(|message| syntax(format!("progress: {message}")))?,
        ),
    };
    let origin = |name| Origin::File(path.to_owned(), name);
    fn set<T>(value: Option<T>, origin: Origin) -> Option<Setting<T>> {
        value.map(|value| Setting { value, origin })
    }
    Ok(Partial {
        root: set(file.root, origin("root")),
        store_dir: set(file.store_dir, origin("store-dir")),
        substitute_urls: set(
            file.substitute_urls.map(Words::text),
            origin("substitute-urls"),
        ),
        acl: set(file.acl, origin("acl")),
        trusted_public_keys: set(
            file.trusted_public_keys.map(Words::text),
            origin("trusted-public-keys"),
        ),
        jobs: set(file.jobs, origin("jobs")),
        progress: set(progress, origin("progress")),
        insecure_tls: set(file.insecure_tls, origin("insecure-tls")),
        discover: set(file.discover, origin("discover")),
        connect_timeout: set(file.connect_timeout, origin("connect-timeout")),
        stall_timeout: set(file.stall_timeout, origin("stall-timeout")),
        connections: set(file.connections, origin("connections")),
        read_ahead: set(file.read_ahead, origin("read-ahead")),
        retry_time: set(file.retry_time.map(Time::text), origin("retry-time")),
        server: set(file.server, origin("server")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn reads_lists_in_both_forms() {
        let text =
            "substitute-urls = [\"http://a\", \"http://b\"]\ntrusted-public-keys = \"k1 k2\"";
        let partial = read(file(text).path()).unwrap();
        assert_eq!(partial.substitute_urls.unwrap().value, "http://a http://b");
        assert_eq!(partial.trusted_public_keys.unwrap().value, "k1 k2");
    }

    #[test]
    fn servers_have_tables_of_their_own() {
        let text = "jobs = 2\n[[server]]\nurl = \"http://a\"\nstall-timeout = 1.5\n";
        let tables = read(file(text).path()).unwrap().server.unwrap().value;
        assert_eq!(
            (tables[0].url.as_str(), tables[0].stall_timeout),
            ("http://a", Some(1.5))
        );
        assert!(
            read(file("[[server]]\nstall-timeout = 1").path()).is_err(),
            "whose?"
        );
    }

    #[test]
    fn a_misspelled_setting_is_an_error_that_names_the_file() {
        let file = file("substitute-url = \"http://a\"");
        let error = read(file.path()).unwrap_err().to_string();
        assert!(error.contains("substitute-url"), "{error}");
        assert!(
            error.contains(&file.path().display().to_string()),
            "{error}"
        );
    }
}
