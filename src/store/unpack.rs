//! A nar becomes a tree on disk, at a temporary name, in canonical form.
//!
//! One thread reads the nar and makes directories and symlinks; files up to
//! `SMALL_FILE_MAX_BYTES` are handed in batches to the [`WriterPool`], larger ones are
//! written as they stream by. Everything happens relative to directory descriptors, with
//! `O_EXCL` and `O_NOFOLLOW`, so that no name in a nar can reach outside the tree.
//!
//! A file costs four system calls (open with its final mode, write, set times, close; the first
//! ones are also checked to have that mode, see `created_modes`), a
//! file that `.links` already holds costs two (link, check). A directory gets its final mode
//! and time when its last entry is in place: the thread that finishes that entry closes it.
//!
//! Unpacking does not decide whether the bytes are the right ones: see [`Unpacked::check`]. What is
//! not known to be right is not added to `.links`: see `tree_deduplication`.

mod batch;
mod created_modes;
mod crowding;
mod destination;
mod directory;
mod error;
mod hashed;
mod large_file;
mod pool;
mod reserve;
mod stages;
mod temporary_tree;
mod top_entry;
mod tree;
mod tree_deduplication;
mod unpacker;
mod write_ahead;

#[cfg(test)]
mod tests;

pub use error::CheckError;
pub use stages::{Checked, Unpacked};

pub(crate) use destination::{Destination, open_directory};
pub(crate) use error::{NarMismatch, UnpackError};
pub(crate) use hashed::Chunks;
pub(crate) use pool::WriterPool;
pub(crate) use unpacker::unpack;
pub(crate) use write_ahead::WriteAhead;
