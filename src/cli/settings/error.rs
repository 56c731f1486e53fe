//! Why the settings of a run cannot be used.

use std::io;
use std::path::{Path, PathBuf};

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
    #[error("cannot read the settings file {}{}", shown_path(path), link_note(target.as_deref()))]
    Read {
        /// The file.
        path: PathBuf,
        /// What it names, if it is a symlink to nothing.
        target: Option<PathBuf>,
        /// Why.
        source: io::Error,
    },
    /// A settings file with a policy is not safe, so that the policy cannot be relied on.
    #[error(
        "{}: other users may change this file, so its policy of trust cannot be relied on; take their \
         permissions away, or remove the policy",
        shown_path(.0)
    )]
    UnsafePolicy(PathBuf),
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
    /// What the user can do, if the error does not say it.
    #[must_use]
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Read {
                target: Some(_), ..
            } => Some("remove the symlink, or restore what it names"),
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("let this user read it, or name another settings file with --config")
            }
            _ => None,
        }
    }

    /// The value that was set at `origin` is invalid.
    pub(super) fn value(origin: &Origin, message: impl ToString) -> Self {
        Self::Value {
            origin: origin.clone(),
            message: message.to_string(),
        }
    }
}

/// What a message says of a symlink to the missing file `target`.
fn link_note(target: Option<&Path>) -> String {
    target.map_or_else(String::new, |target| {
        format!(", a symlink to {}", shown_path(target))
    })
}
