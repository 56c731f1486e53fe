//! The directories of a store, opened without following links of other users; the names in them, and the
//! space where they are.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Dir, fstatvfs};
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

/// The names in `directory`, without `.` and `..`.
pub(super) fn names_in(directory: impl AsFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// What can still be written to a file system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FreeSpace {
    /// Bytes in free blocks.
    pub(crate) bytes: u64,
    /// Files, directories and symlinks that can be created; `None` where there is no limit.
    pub(crate) entries: Option<u64>,
    /// Bytes of a block, which is the least that a file takes.
    pub(crate) block_bytes: u64,
}

/// What can still be written to the file system of `directory`.
pub(super) fn free_space(directory: impl AsFd) -> io::Result<FreeSpace> {
    let stat = fstatvfs(directory)?;
    Ok(FreeSpace {
        bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        // Some file systems create entries as needed, and report that they have none.
        entries: (stat.f_files > 0).then_some(stat.f_favail),
        block_bytes: stat.f_frsize,
    })
}
