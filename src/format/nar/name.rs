//! The names of directory entries and the targets of symlinks: bytes that have been checked.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// The longest name of a directory entry in bytes, the limit of Linux file systems.
pub const MAX_NAME_BYTES: usize = 255;

/// The longest target of a symlink in bytes, the limit of Linux.
pub const MAX_TARGET_BYTES: usize = 4095;

/// The name of a directory entry: not empty, not `.` or `..`, without `/` and NUL.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryName(Box<[u8]>);

impl EntryName {
    /// An entry name; `None` if `bytes` are not a valid one.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let is_plain = !matches!(bytes, b"" | b"." | b"..")
            && bytes.len() <= MAX_NAME_BYTES
            && memchr::memchr2(b'/', 0, bytes).is_none();
        is_plain.then(|| Self(bytes.into()))
    }
}

/// The target of a symlink: not empty, without NUL; it may point anywhere.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SymlinkTarget(Box<[u8]>);

impl SymlinkTarget {
    /// A symlink target; `None` if `bytes` are not a valid one.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let is_possible = !bytes.is_empty()
            && bytes.len() <= MAX_TARGET_BYTES
            && memchr::memchr(0, bytes).is_none();
        is_possible.then(|| Self(bytes.into()))
    }
}

macro_rules! checked_bytes {
    ($name:ident) => {
        impl $name {
            /// The bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// The bytes as an argument for system calls.
            #[must_use]
            pub fn as_os_str(&self) -> &OsStr {
                OsStr::from_bytes(&self.0)
            }
        }

        /// Escaped, since it is untrusted.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0.escape_ascii())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}
checked_bytes!(EntryName);
checked_bytes!(SymlinkTarget);
