//! What loading the settings finds out besides their values: errors, warnings, and which settings
//! files there are.
//!
//! Loading goes on after an error, so that all of them are found at once.

use std::path::PathBuf;

use super::error::SettingsError;
use super::origin::Origin;

/// What was found while settings were loaded.
#[derive(Debug, Default)]
pub(crate) struct SettingsFindings {
    /// Values and files that cannot be used, each once.
    pub(crate) errors: Vec<SettingsError>,
    /// What was ignored or is not safe.
    pub(crate) warnings: Vec<String>,
    /// The settings files, the first one has precedence.
    pub(crate) files: Vec<SettingsFile>,
    /// Where settings were that guix-daemon's helper does not use.
    pub(crate) left_to_daemon: Vec<Origin>,
}

/// A settings file and what became of it.
#[derive(Debug)]
pub(crate) struct SettingsFile {
    /// Its name.
    pub(crate) path: PathBuf,
    /// What became of it.
    pub(crate) state: SettingsFileState,
}

/// What became of a settings file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SettingsFileState {
    /// It was read.
    Read,
    /// There is none, or it is in a closed directory of another user.
    Absent,
    /// Other users may change it.
    Ignored,
    /// It is there and cannot be read, or is not TOML.
    Invalid,
}

impl SettingsFileState {
    /// Its name in output.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Absent => "absent",
            Self::Ignored => "ignored",
            Self::Invalid => "invalid",
        }
    }
}

impl SettingsFindings {
    /// The value of `result`; an error is kept.
    pub(super) fn value<T>(&mut self, result: Result<T, SettingsError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.add_error(error);
                None
            }
        }
    }

    /// Keeps `error`, unless the same one is known already.
    pub(super) fn add_error(&mut self, error: SettingsError) {
        let text = error.to_string();
        if !self.errors.iter().any(|known| known.to_string() == text) {
            self.errors.push(error);
        }
    }

    /// One line about the settings that guix-daemon's helper does not use; `None` without any.
    #[must_use]
    pub(crate) fn left_to_daemon_warning(&self) -> Option<String> {
        let origins: Vec<String> = self.left_to_daemon.iter().map(Origin::to_string).collect();
        let verb = match origins.len() {
            0 => return None,
            1 => "is",
            _ => "are",
        };
        let origins = origins.join(", ");
        Some(format!(
            "{origins} {verb} ignored: as the helper of guix-daemon, subst serves the daemon's store"
        ))
    }
}
