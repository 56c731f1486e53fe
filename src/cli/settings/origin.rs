//! Where a setting was set, so that an error can name the place.

use std::fmt;
use std::path::PathBuf;

/// Where a setting was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A command-line option.
    Option(&'static str),
    /// An environment variable.
    Environment(&'static str),
    /// An option of guix-daemon, which its administrator sets.
    Daemon(&'static str),
    /// An option of a client of guix-daemon, which any user of the machine may have started.
    DaemonClient(&'static str),
    /// A settings file.
    File {
        /// The file.
        path: PathBuf,
        /// The line of the setting.
        line: usize,
        /// The name of the setting.
        key: &'static str,
    },
    /// The table of settings, for the setting of this name.
    Default(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(name) | Self::Environment(name) => f.write_str(name),
            Self::Daemon(name) => write!(f, "guix-daemon: {name}"),
            Self::DaemonClient(name) => write!(f, "client of guix-daemon: {name}"),
            Self::File { path, line, key } => write!(f, "{}:{line}: {key}", path.display()),
            Self::Default(name) => write!(f, "default of {name}"),
        }
    }
}

/// A value and where it was set.
#[derive(Debug, Clone)]
pub(super) struct Setting<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
}
