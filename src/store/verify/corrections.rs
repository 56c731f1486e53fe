//! Gives files, directories and symlinks of a store their canonical modes and times again, in place. What
//! belongs to another user is replaced instead: that user may have it open.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};

use crate::no_follow::open_directory;
use crate::store::canonical;

use super::attributes::{StoreOwners, expected_mode};

/// Corrects all of the tree `base`, below the store directory at `store_path`, which is open as `store`.
///
/// # Errors
/// What could not be corrected first, and why.
pub(in crate::store) fn correct_tree(
    store: BorrowedFd<'_>,
    store_path: &Path,
    base: &str,
    owners: StoreOwners,
) -> Result<(), (PathBuf, io::Error)> {
    let top = store_path.join(base);
    let corrected = correct(store, &c_string(base.as_bytes()), owners);
    let kind = corrected.map_err(|error| (top.clone(), error))?;
    let mut directories = Vec::from_iter((kind == FileType::Directory).then_some(top));

    while let Some(path) = directories.pop() {
        let below = correct_entries(store_path, &path, owners)?;
        directories.extend(below);
    }
    Ok(())
}

/// Corrects the entries of the directory `path`; those that are directories.
fn correct_entries(
    store_path: &Path,
    path: &Path,
    owners: StoreOwners,
) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let directory = open_directory(store_path, path).map_err(|error| (path.to_owned(), error))?;
    let entries = Dir::read_from(&directory).map_err(|error| (path.to_owned(), error.into()))?;
    let mut directories = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| (path.to_owned(), error.into()))?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }

        let below = path.join(OsStr::from_bytes(name.to_bytes()));
        match correct(directory.as_fd(), name, owners) {
            Ok(FileType::Directory) => directories.push(below),
            Ok(_) => {}
            Err(error) => return Err((below, error)),
        }
    }
    Ok(directories)
}

/// Corrects the entry `name` of a directory; the kind of it.
pub(in crate::store) fn correct(
    directory: BorrowedFd<'_>,
    name: &CStr,
    owners: StoreOwners,
) -> io::Result<FileType> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if owners.wrong_attributes(&stat).is_empty() {
        return Ok(kind);
    }

    match expected_mode(&stat) {
        None => canonical::settle_symlink(directory, name)?,
        Some(mode) => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            canonical::settle(openat(directory, name, flags, Mode::empty())?, mode)?;
        }
    }
    Ok(kind)
}

/// `name` for system calls; the names of items and of entries have no NUL.
pub(in crate::store) fn c_string(name: &[u8]) -> CString {
    CString::new(name).unwrap_or_default()
}
