//! What could not be done with the files of a mirror.

use std::io;
use std::path::PathBuf;

/// What could not be done with the files of a mirror.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    /// Another process writes to it.
    #[error("another process is writing to the mirror {}", .0.display())]
    Locked(PathBuf),
    /// A system call failed.
    #[error("cannot {action} {} in the mirror", .file.escape_debug())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file, relative to the mirror.
        file: String,
        /// Why.
        source: io::Error,
    },
}

impl TargetError {
    pub(super) fn of(action: &'static str, file: impl ToString) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_string();
        move |source| Self::File {
            action,
            file,
            source,
        }
    }
}
