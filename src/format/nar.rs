//! The nar format: one file tree as a stream of bytes, with exactly one spelling for each tree.
//!
//! A nar is a sequence of strings. Each is its length as 64 bits, little-endian, then its bytes,
//! then zeros up to a multiple of eight:
//!
//! ```text
//! nar       = "nix-archive-1" node
//! node      = "(" "type" body ")"
//! body      = "regular" [ "executable" "" ] "contents" BYTES
//!           | "symlink" "target" BYTES
//!           | "directory" { "entry" "(" "name" BYTES "node" node ")" }
//! ```
//!
//! Wherever the grammar leaves no choice, the strings that follow each other are fixed; reader
//! and writer treat such a run as one constant:
//!
//! ```text
//! nar       = "nix-archive-1 ( type" body
//! body      = "regular" ( "contents" | "executable" "" "contents" ) BYTES ")"
//!           | "symlink" "target" BYTES ")"
//!           | "directory" { "entry" "( name" BYTES "node ( type" body ")" } ")"
//! ```
//!
//! Checked here: exact strings, zero padding, names that are one plain path component and strictly
//! increase in byte order, sizes of names and targets before memory is allocated, [`MAX_DEPTH`],
//! no bytes behind the top node. Names are bytes, not text. **Not** checked: the sizes of files and
//! of the nar (the caller knows NarSize), and where symlinks point.

mod error;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

pub use error::NarError;
pub use read::{NarContents, NarReader};
pub use write::NarWriter;
pub(crate) use write::{file_header, file_trailer};

/// The longest name of a directory entry in bytes, the limit of Linux file systems.
pub const MAX_NAME_BYTES: usize = 255;

/// The longest target of a symlink in bytes, the limit of Linux.
pub const MAX_TARGET_BYTES: usize = 4095;

/// How deep directories may be nested. Nix's limit is 64, Guix has none; a path of this depth is
/// too long for a single system call.
pub const MAX_DEPTH: usize = 4096;

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

/// One step of reading a nar. Only the top node has no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NarEvent {
    /// A directory begins; its entries follow, then its end.
    Directory {
        /// Its name in the enclosing directory.
        name: Option<EntryName>,
    },
    /// The innermost directory ends.
    DirectoryEnd,
    /// A regular file; [`NarReader::contents`] reads its bytes.
    File {
        /// Its name in the enclosing directory.
        name: Option<EntryName>,
        /// Whether it may be executed.
        executable: bool,
        /// The size of the contents in bytes, as declared: do not allocate memory by it.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Its name in the enclosing directory.
        name: Option<EntryName>,
        /// Where it points.
        target: SymlinkTarget,
    },
}

/// The open directories and the last name in each, in one flat buffer, so that an entry costs no
/// allocation.
#[derive(Default)]
struct OpenDirectories {
    names: Vec<u8>,
    /// Where in `names` each directory's last name begins; it ends where the next begins.
    starts: Vec<usize>,
}

impl OpenDirectories {
    fn depth(&self) -> usize {
        self.starts.len()
    }

    fn open(&mut self) {
        self.starts.push(self.names.len());
    }

    fn close(&mut self) {
        if let Some(start) = self.starts.pop() {
            self.names.truncate(start);
        }
    }

    /// Makes `name` the last one of the innermost directory; whether it sorts behind the previous one.
    #[must_use]
    fn advance(&mut self, name: &[u8]) -> bool {
        let start = self.starts.last().copied().unwrap_or(0);
        // No name is empty, so the first one always sorts behind the empty slice.
        let is_behind = self.names[start..] < *name;
        self.names.truncate(start);
        self.names.extend_from_slice(name);
        is_behind
    }
}

/// The number of padding bytes behind a string of `len` bytes.
const fn padding(len: u64) -> usize {
    (len.wrapping_neg() % 8) as usize
}

/// The encoding of `strings`, one after another, with lengths and padding.
const fn fuse<const N: usize>(strings: &[&[u8]]) -> [u8; N] {
    let mut fused = [0; N];
    let (mut at, mut next) = (0, 0);
    while next < strings.len() {
        let string = strings[next];
        let length = (string.len() as u64).to_le_bytes();
        let mut byte = 0;
        while byte < 8 {
            fused[at + byte] = length[byte];
            byte += 1;
        }
        at += 8;
        byte = 0;
        while byte < string.len() {
            fused[at + byte] = string[byte];
            byte += 1;
        }
        at += string.len() + padding(string.len() as u64);
        next += 1;
    }
    assert!(at == N, "the length does not fit the strings");
    fused
}

const fn fused_len(strings: &[&[u8]]) -> usize {
    let (mut len, mut next) = (0, 0);
    while next < strings.len() {
        len += 8 + strings[next].len() + padding(strings[next].len() as u64);
        next += 1;
    }
    len
}

/// The encoding of the given strings in a nar, as constant bytes.
macro_rules! fused {
    ($($string:literal),+) => {
        const {
            const STRINGS: &[&[u8]] = &[$($string),+];
            &$crate::format::nar::fuse::<{ $crate::format::nar::fused_len(STRINGS) }>(STRINGS)
        }
    };
}
use fused;
