//! What can go wrong with the cache. To a lookup, none of it is a reason to stop: by the time it is
//! reported the cache has already gone over to memory.

use std::io;
use std::path::PathBuf;

use crate::format::error_text::chain;

/// Why the cache does not keep what it learns, or not what it had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    /// The directory or the file cannot be used; this run caches in memory only.
    #[error("the lookup cache {} cannot be used", path.display())]
    Unusable {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A statement failed on the file; from here on this run caches in memory only.
    #[error("{action} in the lookup cache {} failed", path.display())]
    Failed {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The file was no sound database, and has been replaced by a new one.
    #[error("the lookup cache {} was damaged; it was set aside and a new one created", path.display())]
    Rebuilt {
        /// The file.
        path: PathBuf,
        /// What was wrong with it.
        source: rusqlite::Error,
    },
    /// A statement failed in memory.
    #[error("{action} in memory failed")]
    Memory {
        /// What was being done.
        action: &'static str,
        /// Why.
        source: rusqlite::Error,
    },
}

impl CacheError {
    /// The error with its cause and what it means, for a run that goes on.
    #[must_use]
    pub(crate) fn warning(&self) -> String {
        let consequence = match self {
            Self::Unusable { .. } | Self::Failed { .. } => {
                "; from now on answers are cached for this run only"
            }
            Self::Rebuilt { .. } | Self::Memory { .. } => "",
        };
        format!("{}{consequence}", chain(self))
    }
}
