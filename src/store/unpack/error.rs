//! Why a nar does not become a tree.

use std::io;
use std::path::PathBuf;

use crate::format::hash::NarHash;
use crate::format::nar;
use crate::store::error::StoreError;

/// Why a nar could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// The nar is malformed, or its bytes could not be had.
    #[error("reading the nar")]
    Nar(#[from] nar::NarError),
    /// A file, directory or link of the tree could not be made, or not be read again.
    #[error("{action} {}", path.display())]
    Write {
        /// What was tried.
        action: &'static str,
        /// On which entry of the tree.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file could not be deduplicated.
    #[error(transparent)]
    Deduplicate(#[from] StoreError),
    /// Files of the tree are missing, because the thread that was to write them has panicked.
    #[error("writing files: a thread has panicked")]
    Panicked,
}

/// Why a complete tree is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Its bytes are not those that were signed.
    #[error(transparent)]
    Mismatch(#[from] NarMismatch),
    /// It could not be read again.
    #[error("reading {}", path.display())]
    Read {
        /// The temporary name of the tree.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
}

/// The bytes are not those that the signed narinfo describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NarMismatch {
    /// Another hash.
    #[error("the nar's hash is {found}, but {expected} is what was signed")]
    Hash {
        /// Signed.
        expected: NarHash,
        /// Received.
        found: NarHash,
    },
    /// The store path does not prove the content, as its content address says.
    #[error("the content does not have the hash of its content address")]
    ContentAddress,
    /// Another size.
    #[error("the nar has {found} bytes, but its narinfo says {expected}")]
    Size {
        /// Promised by the narinfo.
        expected: u64,
        /// Received.
        found: u64,
    },
}
