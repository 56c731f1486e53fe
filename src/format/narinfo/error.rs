//! Why a text is not a narinfo: one variant for each rule.

use crate::format::hash::HashError;
use crate::format::store_path::StorePathError;

/// Why a text is not a narinfo. Quoted text is escaped and cut: it is untrusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NarInfoError {
    /// The text is longer than [`super::MAX_BYTES`].
    #[error("a narinfo of {0} bytes is too long")]
    TooLong(usize),
    /// A line is not `Key: value`: most likely this is not a narinfo at all.
    #[error("line {number} is not a field: `{}`", .text.escape_debug())]
    Line {
        /// Counted from 1.
        number: usize,
        /// The beginning of the line.
        text: String,
    },
    /// A required field is missing.
    #[error("there is no {0} field")]
    Missing(&'static str),
    /// A field that must be unique occurs twice.
    #[error("there is more than one {0} field")]
    Duplicate(&'static str),
    /// `StorePath` is not an item of the store directory in use.
    #[error("the StorePath field is invalid")]
    StorePath(#[source] StorePathError),
    /// A reference is not the base name of a store item.
    #[error("the References field is invalid")]
    Reference(#[source] StorePathError),
    /// `NarHash` is not a SHA-256 hash.
    #[error("the NarHash field is invalid")]
    NarHash(#[source] HashError),
    /// `NarSize` is not a plain decimal number.
    #[error("NarSize is not a number of bytes: `{}`", .0.escape_debug())]
    NarSize(String),
}
