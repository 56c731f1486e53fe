//! The directories of a store, opened without following links of other users; and the space where
//! they are.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::fstatvfs;
use rustix::io;

use crate::no_follow;

use super::error::{StoreError, on};
use super::layout::Layout;

/// Opens `directory`, one of those of `layout`.
pub(super) fn open_directory(layout: &Layout, directory: &Path) -> Result<OwnedFd, StoreError> {
    no_follow::open_directory(layout.base_of(directory), directory).map_err(on(
        directory,
        |path, source| StoreError::Open { path, source },
    ))
}

/// Opens `directory`, one of those of `layout`, after making it if it is missing.
pub(super) fn create_directory(layout: &Layout, directory: &Path) -> Result<OwnedFd, StoreError> {
    no_follow::create_directory(layout.base_of(directory), directory).map_err(on(
        directory,
        |path, source| StoreError::CreateDirectory { path, source },
    ))
}

/// How many bytes can still be written to the file system of `directory`.
pub(super) fn free_bytes(directory: impl AsFd) -> io::Result<u64> {
    let stat = fstatvfs(directory)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
