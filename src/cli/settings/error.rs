//! Why the settings of a run cannot be used.

use std::path::PathBuf;

use crate::cli::output::shown_path;

use super::origin::Origin;

/// A setting or a settings file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// A value is invalid.
    #[error("{origin}: {message}")]
    Value {
        /// Where it was set.
        origin: Origin,
        /// What is wrong with it.
        message: String,
    },
    /// A variable with our prefix is not known; which, and what was probably meant.
    #[error("{0}")]
    UnknownVariable(String),
    /// A settings file cannot be read.
    #[error("cannot read the settings file {}", shown_path(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A settings file is not TOML.
    #[error("{}:{line}:{column}: invalid TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A settings file has a setting that does not exist.
    #[error("{}:{line}: unknown setting `{name}`; {advice}", path.display())]
    UnknownSetting {
        /// The file.
        path: PathBuf,
        /// The line of the setting.
        line: usize,
        /// The name of the setting.
        name: String,
        /// Which settings there are.
        advice: String,
    },
}

impl SettingsError {
    /// The value that was set at `origin` is invalid.
    pub(super) fn value(origin: &Origin, message: impl ToString) -> Self {
        Self::Value {
            origin: origin.clone(),
            message: message.to_string(),
        }
    }
}
