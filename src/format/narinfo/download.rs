//! One of the downloads that a narinfo offers.

use super::span::Span;
use crate::format::compression::{Compression, UnknownCompression};
use crate::format::hash::{FileHash, HashForm};

/// One way to download the nar. No signature covers any of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// How the nar is compressed; an unknown method with an empty name if Guix's dialect names
    /// none.
    pub compression: Result<Compression, UnknownCompression>,
    /// The size of the compressed file in bytes, if given.
    pub file_size: Option<u64>,
    /// The hash of the compressed file, if given.
    pub file_hash: Option<FileHash>,
    pub(super) file_hash_form: HashForm,
    pub(super) url: Span,
}

impl Download {
    /// The name of its compression method, if that is known.
    #[must_use]
    pub fn method(&self) -> Option<&'static str> {
        self.compression.as_ref().ok().map(|method| method.name())
    }
}
