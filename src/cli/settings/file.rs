//! Settings files: TOML, the user's over the system's.

use std::path::{Path, PathBuf};

use crate::cli::env::{self, Environment};
use crate::cli::file_trust::{self, FileSelection};
use crate::cli::suggestion;
use crate::format::credentials::without_credentials;

use super::error::SettingsError;
use super::table::{SETTINGS, SettingsLayer};

/// The system's settings.
const SYSTEM_FILE: &str = "/etc/subst/config.toml";

/// The settings of the settings files: the one that was named, or the user's over the system's.
pub(super) fn load(
    named: Option<&Path>,
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Result<SettingsLayer, SettingsError> {
    let named = named
        .map(Path::to_owned)
        .or_else(|| environment.path(env::SUBST_CONFIG));
    if let Some(path) = named {
        is_used(&path, FileSelection::Explicit, warnings);
        return read(&path);
    }

    let user = environment
        .config_home()
        .map(|home| home.join("subst/config.toml"));
    let mut layer = SettingsLayer::default();
    for path in user.into_iter().chain([PathBuf::from(SYSTEM_FILE)]) {
        if !is_used(&path, FileSelection::Implicit, warnings) {
            continue;
        }
        match read(&path) {
            Ok(lower) => layer = layer.or(lower),
            Err(SettingsError::Read { source, .. }) if is_absent(&source) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(layer)
}

/// Whether the file is read: not if other users may change it, unless it was named explicitly.
fn is_used(path: &Path, selection: FileSelection, warnings: &mut Vec<String>) -> bool {
    // What cannot be looked at cannot be read either, and reading it says why.
    let Ok(Err(fault)) = file_trust::check(path, None) else {
        return true;
    };
    warnings.push(file_trust::warning(
        "settings file",
        path,
        &fault,
        selection,
    ));
    selection == FileSelection::Explicit
}

/// A user need not have a settings file, nor a home directory that can be read.
fn is_absent(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied)
}

fn read(path: &Path) -> Result<SettingsLayer, SettingsError> {
    let text = std::fs::read_to_string(path).map_err(|source| SettingsError::Read {
        path: path.to_owned(),
        source,
    })?;
    let table = parse(&text).map_err(|message| SettingsError::Syntax {
        path: path.to_owned(),
        // The parser quotes the line, which may have the password of a server in it.
        message: without_credentials(&message).into_owned(),
    })?;
    SettingsLayer::from_file(table, path)
}

/// The settings in `text`. An unknown name is an error: a misspelled setting that is ignored is worse
/// than none.
fn parse(text: &str) -> Result<toml::Table, String> {
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| error.to_string())?;
    let keys = SETTINGS.iter().map(|(row, _)| row.key);
    let Some(unknown) = table
        .keys()
        .find(|key| !keys.clone().any(|known| known == *key))
    else {
        return Ok(table);
    };

    Err(match suggestion::closest(unknown, "", keys.clone()) {
        Some(intended) => format!("unknown setting `{unknown}`; did you mean `{intended}`?"),
        None => format!(
            "unknown setting `{unknown}`; the settings are {}",
            keys.collect::<Vec<_>>().join(", ")
        ),
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
        let layer = read(file(text).path()).unwrap();
        assert_eq!(layer.substitute_urls.unwrap().value.0, "http://a http://b");
        assert_eq!(layer.trusted_public_keys.unwrap().value.0, "k1 k2");
    }

    #[test]
    fn servers_have_tables_of_their_own() {
        let text = "jobs = 2\n[[server]]\nurl = \"http://a\"\nstall-timeout = 1.5\n";
        let tables = read(file(text).path()).unwrap().server.unwrap().value;
        let stall_timeout = tables[0].stall_timeout.map(|timeout| timeout.0.as_millis());
        assert_eq!(
            (tables[0].url.as_str(), stall_timeout),
            ("http://a", Some(1500))
        );
        assert!(
            read(file("[[server]]\nstall-timeout = 1").path()).is_err(),
            "a table without a URL"
        );
    }

    #[test]
    fn a_misspelled_setting_is_an_error_that_names_the_file_and_a_similar_setting() {
        let file = file("substitute-url = \"http://a\"");
        let error = read(file.path()).unwrap_err().to_string();
        let expected = format!(
            "{}: unknown setting `substitute-url`; did you mean `substitute-urls`?",
            file.path().display()
        );
        assert_eq!(error, expected);
    }

    #[test]
    fn an_invalid_value_is_an_error_that_names_the_file_and_the_setting() {
        for text in [
            "jobs = 0",
            "jobs = \"2\"",
            "discover = \"yes\"",
            "root = 1",
            "connect-timeout = 0",
        ] {
            let file = file(text);
            let error = read(file.path()).unwrap_err().to_string();
            let place = format!(
                "{}: {}: ",
                file.path().display(),
                text.split(' ').next().unwrap()
            );
            assert!(error.starts_with(&place), "{error}");
        }
    }
}
