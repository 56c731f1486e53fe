//! Why a stream is no nar: one variant for each rule that a hostile server may break.

use std::io;

use super::EntryName;

/// Why a stream is no nar. Offsets count from the first byte of the nar.
#[derive(Debug, thiserror::Error)]
pub enum NarError {
    /// The stream itself failed.
    #[error("reading the nar")]
    Io(#[source] io::Error),
    /// The stream ends inside the nar.
    #[error("the nar ends early, at byte {offset}")]
    Truncated {
        /// How much there was.
        offset: u64,
    },
    /// Something else stands where the grammar wants one of certain strings.
    #[error("not a nar at byte {offset}: expected {expected}")]
    Unexpected {
        /// Where the wrong string, or the run of fixed strings that has it, begins.
        offset: u64,
        /// What the grammar wants there.
        expected: &'static str,
    },
    /// Padding is not zero: the same tree would have two hashes.
    #[error("padding that is not zero at byte {offset}")]
    Padding {
        /// Where the padding begins.
        offset: u64,
    },
    /// A name or symlink target is longer than any file system takes.
    #[error("{what} of {len} bytes is too long, at byte {offset}")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// Its length as claimed.
        len: u64,
        /// Where its length stands.
        offset: u64,
    },
    /// The name of an entry could lead out of its directory, or name nothing.
    #[error("`{}` cannot name an entry, at byte {offset}", .name.escape_ascii())]
    Name {
        /// The name.
        name: Vec<u8>,
        /// Where its length stands.
        offset: u64,
    },
    /// An entry does not come behind the one before it: they are out of order, or it is there twice.
    #[error("entry `{name}` is out of order or there twice, at byte {offset}")]
    Order {
        /// The name.
        name: EntryName,
        /// Where its length stands.
        offset: u64,
    },
    /// A symlink target is empty or has a NUL in it.
    #[error("`{}` cannot be a symlink target, at byte {offset}", .target.escape_ascii())]
    Target {
        /// The target.
        target: Vec<u8>,
        /// Where its length stands.
        offset: u64,
    },
    /// Directories inside each other beyond [`super::MAX_DEPTH`].
    #[error("directories inside each other too deeply, at byte {offset}")]
    TooDeep {
        /// Where the innermost begins.
        offset: u64,
    },
    /// Bytes stand behind the top node.
    #[error("bytes behind the end of the nar, which is at byte {offset}")]
    TrailingBytes {
        /// Where the nar ends.
        offset: u64,
    },
    /// The reader was used after it had reported an error.
    #[error("the nar was given up before")]
    GivenUp,
}

impl From<io::Error> for NarError {
    /// Takes back a [`NarError`] that went through [`io::Error`], as those of [`super::NarContents`] do.
    fn from(error: io::Error) -> Self {
        error.downcast().unwrap_or_else(Self::Io)
    }
}

impl From<NarError> for io::Error {
    /// Keeps the kind: an early end is one, anything malformed is invalid data.
    fn from(error: NarError) -> Self {
        match error {
            NarError::Io(error) => error,
            NarError::Truncated { .. } => Self::new(io::ErrorKind::UnexpectedEof, error),
            malformed => Self::new(io::ErrorKind::InvalidData, malformed),
        }
    }
}
