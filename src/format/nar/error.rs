//! Why a stream is not a nar: one variant for each rule of the format.

use std::io;

use super::name::EntryName;

/// Why a stream is not a nar. Offsets are in bytes from the beginning of the nar.
#[derive(Debug, thiserror::Error)]
pub enum NarError {
    /// The stream itself failed.
    #[error("reading the nar")]
    Io(#[source] io::Error),
    /// The stream ends inside the nar.
    #[error("the nar ends early, at byte {offset}")]
    Truncated {
        /// The length of the stream.
        offset: u64,
    },
    /// The stream has other bytes than the grammar requires.
    #[error("not a nar at byte {offset}: expected {expected}")]
    Unexpected {
        /// Where the wrong string, or the run of fixed strings that has it, begins.
        offset: u64,
        /// What the grammar requires there.
        expected: &'static str,
    },
    /// Padding is not zero: the same tree would have two hashes.
    #[error("padding that is not zero at byte {offset}")]
    Padding {
        /// Where the padding begins.
        offset: u64,
    },
    /// A name or symlink target is longer than file systems allow.
    #[error("{what} of {len} bytes is too long, at byte {offset}")]
    TooLong {
        /// Whether it is a name or a target.
        what: &'static str,
        /// Its declared length in bytes.
        len: u64,
        /// The offset of its length.
        offset: u64,
    },
    /// The name of an entry is empty or could lead out of its directory.
    #[error("`{}` cannot name an entry, at byte {offset}", .name.escape_ascii())]
    Name {
        /// The name.
        name: Vec<u8>,
        /// The offset of its length.
        offset: u64,
    },
    /// An entry does not sort behind the previous one: it is out of order or repeated.
    #[error("entry `{name}` is out of order or repeated, at byte {offset}")]
    Order {
        /// The name.
        name: EntryName,
        /// The offset of its length.
        offset: u64,
    },
    /// A symlink target is empty or contains a NUL.
    #[error("`{}` cannot be a symlink target, at byte {offset}", .target.escape_ascii())]
    Target {
        /// The target.
        target: Vec<u8>,
        /// The offset of its length.
        offset: u64,
    },
    /// The tree has more levels than [`super::levels_max`] allows.
    #[error("the tree has more than {levels_max} levels, at byte {offset}")]
    TooDeep {
        /// How many are allowed.
        levels_max: usize,
        /// Where the first node on a deeper level begins.
        offset: u64,
    },
    /// Bytes follow the top node.
    #[error("bytes follow the end of the nar at byte {offset}")]
    TrailingBytes {
        /// Where the nar ends.
        offset: u64,
    },
    /// The reader was used after it had returned an error.
    #[error("the nar reader has failed before")]
    ReaderFailed,
}

impl From<io::Error> for NarError {
    /// Unwraps a [`NarError`] inside an [`io::Error`], as [`super::NarContents`] returns it.
    fn from(error: io::Error) -> Self {
        error.downcast().unwrap_or_else(Self::Io)
    }
}

impl From<NarError> for io::Error {
    /// Keeps the kind: a truncated nar is `UnexpectedEof`, a malformed one `InvalidData`.
    fn from(error: NarError) -> Self {
        match error {
            NarError::Io(error) => error,
            NarError::Truncated { .. } => Self::new(io::ErrorKind::UnexpectedEof, error),
            malformed => Self::new(io::ErrorKind::InvalidData, malformed),
        }
    }
}
