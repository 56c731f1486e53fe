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
//! increase in byte order, sizes of names and targets before memory is allocated, [`levels_max`],
//! no bytes behind the top node. Names are bytes, not text. **Not** checked: the sizes of files and
//! of the nar (the caller knows NarSize), and where symlinks point.

mod difference;
mod error;
mod event;
mod input;
mod name;
mod nesting;
mod read;
#[cfg(test)]
mod tests;
mod wire;
mod write;

pub(crate) use difference::{
    DifferenceKind, EntryDifference, NarDifferences, UncomparableNar, differences,
};
pub use error::NarError;
pub use event::NarEvent;
pub use name::{EntryName, MAX_NAME_BYTES, MAX_TARGET_BYTES, SymlinkTarget};
pub use nesting::levels_max;
pub use read::{NarContents, NarReader};
pub use write::NarWriter;
pub(crate) use write::{file_header, file_trailer};
