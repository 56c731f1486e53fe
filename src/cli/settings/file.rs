//! Settings files: TOML, the user's over the system's.
//!
//! Only what is not there counts as absent. A file that cannot be read is an error, as is one that is not TOML.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::cli::env::{self, Environment};
use crate::cli::file_trust::{self, FileSelection};

use super::error::SettingsError;
use super::file_table::FileTable;
use super::findings::{SettingsFile, SettingsFileState, SettingsFindings};
use super::table::SettingsLayer;

/// The system's settings.
const SYSTEM_FILE: &str = "/etc/subst/config.toml";

/// The settings of the settings files: the one that was named, or the user's over the system's.
pub(super) fn load(
    named: Option<&Path>,
    environment: &Environment,
    findings: &mut SettingsFindings,
) -> SettingsLayer {
    let named = named
        .map(Path::to_owned)
        .or_else(|| environment.path(env::SUBST_CONFIG));
    if let Some(path) = named {
        return read_file(path, SettingsPlace::Named, environment, findings);
    }

    let user = environment
        .config_home()
        .map(|home| (home.join("subst/config.toml"), SettingsPlace::User));
    let system = (PathBuf::from(SYSTEM_FILE), SettingsPlace::System);
    user.into_iter()
        .chain([system])
        .fold(SettingsLayer::default(), |layer, (path, place)| {
            layer.or(read_file(path, place, environment, findings))
        })
}

/// Where a settings file is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SettingsPlace {
    /// Where an option or a variable says: it has to exist.
    Named,
    /// In the user's configuration directory, which may be that of another user, such as after `sudo -u`.
    User,
    /// In the system's.
    System,
}

impl SettingsPlace {
    fn selection(self) -> FileSelection {
        match self {
            Self::Named => FileSelection::Explicit,
            Self::User | Self::System => FileSelection::Implicit,
        }
    }
}

/// The settings of the file `path`. What became of it is among the findings. A file that is there and cannot
/// be read is an error: without its settings, other servers and keys would be used.
fn read_file(
    path: PathBuf,
    place: SettingsPlace,
    environment: &Environment,
    findings: &mut SettingsFindings,
) -> SettingsLayer {
    let (layer, state) = if place != SettingsPlace::Named && is_absent(&path, place) {
        // A usual place without a file is not worth a warning, whoever may write there.
        (None, SettingsFileState::Absent)
    } else if !is_used(&path, place.selection(), &mut findings.warnings) {
        if has_policy(&path) {
            findings.add_error(SettingsError::UnsafePolicy(path.clone()));
        }
        (None, SettingsFileState::Ignored)
    } else {
        match read(&path, environment, findings) {
            Ok(layer) => (Some(layer), SettingsFileState::Read),
            Err(error) => {
                findings.add_error(error);
                (None, SettingsFileState::Invalid)
            }
        }
    };

    findings.files.push(SettingsFile { path, state });
    layer.unwrap_or_default()
}

/// Whether there is no file `path`, not even a symlink. What is in a closed directory of another user is
/// not this user's.
fn is_absent(path: &Path, place: SettingsPlace) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    let Err(error) = path.symlink_metadata() else {
        return false;
    };
    match error.kind() {
        NotFound | NotADirectory => true,
        PermissionDenied => place == SettingsPlace::User && is_below_closed_directory(path),
        _ => false,
    }
}

/// Whether the deepest directory above `path` that can be looked at belongs to another user.
fn is_below_closed_directory(path: &Path) -> bool {
    let user = rustix::process::geteuid().as_raw();
    let mut seen = path.ancestors().filter_map(|above| above.metadata().ok());
    seen.next().is_some_and(|closed| closed.uid() != user)
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

/// Whether the file demands more than one signature, or may do that, since it cannot be read: to ignore
/// that would be to require less than the user wants.
fn has_policy(path: &Path) -> bool {
    let Ok(text) = std::fs::read(path) else {
        return true;
    };
    FileTable::parse(path, &text).map_or(true, |mut file| {
        POLICY_KEYS.iter().any(|key| file.take(key).is_some())
    })
}

const POLICY_KEYS: [&str; 2] = ["trust", "need-signatures"];

fn read(
    path: &Path,
    environment: &Environment,
    findings: &mut SettingsFindings,
) -> Result<SettingsLayer, SettingsError> {
    let text = std::fs::read(path).map_err(|source| SettingsError::Read {
        path: path.to_owned(),
        target: dangling_target(path),
        source,
    })?;
    let mut file = FileTable::parse(path, &text)?;
    file.home = environment.path("HOME");
    Ok(SettingsLayer::from_file(file, findings))
}

/// What the symlink `path` names, if nothing is there.
fn dangling_target(path: &Path) -> Option<PathBuf> {
    let target = path.read_link().ok()?;
    (!path.exists()).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    /// The settings in a file with this text.
    #[track_caller]
    fn settings(text: &str) -> SettingsLayer {
        let mut findings = SettingsFindings::default();
        let layer = read(file(text).path(), &Environment::default(), &mut findings).unwrap();
        assert!(findings.errors.is_empty(), "{findings:?}");
        layer
    }

    /// The errors in a file with this text, without its name.
    fn errors(text: &str) -> Vec<String> {
        let (file, mut findings) = (file(text), SettingsFindings::default());
        if let Err(error) = read(file.path(), &Environment::default(), &mut findings) {
            findings.add_error(error);
        }
        let errors = findings.errors.iter().map(ToString::to_string);
        let path = file.path().display().to_string();
        errors
            .map(|error| error.strip_prefix(&path).unwrap().to_owned())
            .collect()
    }

    #[test]
    fn reads_lists_in_both_forms() {
        let layer = settings(
            "substitute-urls = [\"http://a\", \"http://b\"]\ntrusted-public-keys = \"k1 k2\"",
        );
        assert_eq!(layer.substitute_urls.unwrap().value.0, "http://a http://b");
        assert_eq!(layer.trusted_public_keys.unwrap().value.0, "k1 k2");
    }

    #[test]
    fn servers_have_tables_of_their_own() {
        let text = "jobs = 2\n[[server]]\nurl = \"http://a\"\nstall-timeout = 1.5\n";
        let tables = settings(text).server.unwrap().value;
        let stall_timeout = tables[0].stall_timeout.map(|timeout| timeout.0.as_millis());
        assert_eq!(
            (tables[0].url.0.as_str(), stall_timeout),
            ("http://a", Some(1500))
        );
        let without_url = errors("[[server]]\nstall-timeout = 1");
        assert_eq!(without_url.len(), 1, "{without_url:?}");
    }

    #[test]
    fn a_misspelled_setting_is_an_error_that_names_the_line_and_a_similar_setting() {
        let expected = ":2: unknown setting `substitute-url`; did you mean `substitute-urls`?";
        assert_eq!(
            errors("jobs = 2\nsubstitute-url = \"http://a\""),
            [expected]
        );
    }

    #[test]
    fn an_invalid_value_is_an_error_that_names_the_line_and_the_setting() {
        for text in [
            "jobs = 0",
            "jobs = \"2\"",
            "discover = \"yes\"",
            "root = 1",
            "connect-timeout = 0",
        ] {
            let errors = errors(&format!("\n{text}"));
            let place = format!(":2: {}: ", text.split(' ').next().unwrap());
            assert!(
                errors.len() == 1 && errors[0].starts_with(&place),
                "{errors:?}"
            );
        }
    }

    #[test]
    fn every_error_of_a_file_is_reported() {
        let errors = errors("jobs = 0\nacl = 1\nroots = \"/a\"\n[subst]\njobs = 3\n");
        let starts = [
            ":2: acl: ",
            ":1: jobs: ",
            ":3: unknown setting `roots`",
            ":4: unknown",
        ];
        assert_eq!(errors.len(), starts.len(), "{errors:?}");
        for (error, start) in errors.iter().zip(starts) {
            assert!(error.starts_with(start), "{errors:?}");
        }
    }

    #[test]
    fn text_that_is_not_toml_is_an_error_without_passwords() {
        let errors = errors("substitute-urls = \"http://me:Sesame@a\" x");
        assert!(
            errors.len() == 1 && errors[0].starts_with(":1:40: ") && !errors[0].contains("Sesame"),
            "{errors:?}"
        );
    }

    #[test]
    fn text_that_is_not_utf_8_is_an_error_that_names_the_place() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"jobs = 2\nroot = \"\xff\"\n").unwrap();
        let error = read(
            file.path(),
            &Environment::default(),
            &mut SettingsFindings::default(),
        )
        .unwrap_err();
        let expected = format!(
            "{}:2:9: invalid TOML: the text is not UTF-8",
            file.path().display()
        );
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn an_empty_value_is_an_error_unless_it_is_a_list() {
        for key in [
            "root",
            "store-dir",
            "acl",
            "netrc-file",
            "jobs",
            "connect-timeout",
            "limit-rate",
            "sync",
        ] {
            let expected = format!(":1: {key}: the value is empty");
            assert_eq!(errors(&format!("{key} = \" \"")), [expected]);
        }
        let layer = settings("substitute-urls = []\ntrusted-public-keys = \"\"");
        assert_eq!(layer.substitute_urls.unwrap().value.0, "");
        assert_eq!(layer.trusted_public_keys.unwrap().value.0, "");
    }
}
