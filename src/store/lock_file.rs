//! Files that are locked: `big-lock`, `gc.lock`, those of temp roots, and `ITEM.lock`.
//!
//! The owner of a lock may remove the file while others wait for it. So after it is locked, a file is
//! looked at again: it is *stale* when a byte was written to it, the last act of its owner, or when
//! it has no name any more.
//!
//! A lock that is held elsewhere is tried again after a pause, instead of being waited for in the
//! kernel: an interrupt ends the wait, and after a while the user learns who holds the lock.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{BorrowedFd, IntoRawFd as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Stat, fstat, statat, unlinkat};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

use crate::no_follow::{open_file, open_file_to_write, open_or_create_file_for_owner};

use super::error::{StoreError, on};
use super::lock_holder::LockHolder;
use super::lock_kind::{LockKind, LockMode, Tried, is_stale};
use super::wait::{LockWait, StoreObserver};

/// An open lock file, locked or not. Closing it unlocks it.
#[derive(Debug)]
pub(super) struct LockFile {
    kind: LockKind,
    file: File,
    path: PathBuf,
}

impl LockFile {
    /// Opens the lock file `path`, which is in `directory`, making it if need be; private to its
    /// owner, and never through a link.
    pub(super) fn open(
        kind: LockKind,
        directory: BorrowedFd<'_>,
        path: PathBuf,
    ) -> Result<Self, StoreError> {
        match open_or_create_file_for_owner(directory, path.file_name().unwrap_or_default()) {
            Ok(file) => Ok(Self { kind, file, path }),
            Err(source) => Err(StoreError::Open { path, source }),
        }
    }

    /// Opens the lock file `path`, which is in `directory`, as [`open`](Self::open) does, if it is there.
    pub(super) fn open_existing(
        kind: LockKind,
        directory: BorrowedFd<'_>,
        path: PathBuf,
    ) -> Result<Option<Self>, StoreError> {
        let opened = open_file_to_write(directory, path.file_name().unwrap_or_default());
        Self::if_there(kind, opened, path)
    }

    /// Opens the lock file `path`, which is in `directory`, if it is there: for a lock that others share,
    /// where nothing may be written.
    pub(super) fn open_to_read(
        kind: LockKind,
        directory: BorrowedFd<'_>,
        path: PathBuf,
    ) -> Result<Option<Self>, StoreError> {
        let opened = open_file(directory, path.file_name().unwrap_or_default());
        Self::if_there(kind, opened, path)
    }

    fn if_there(
        kind: LockKind,
        opened: io::Result<File>,
        path: PathBuf,
    ) -> Result<Option<Self>, StoreError> {
        match opened {
            Ok(file) => Ok(Some(Self { kind, file, path })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Open { path, source }),
        }
    }

    /// The file, to write to it.
    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the lock, or changes the mode of the one held, if that is possible at once.
    pub(super) fn try_lock(&self, mode: LockMode) -> Result<Tried, StoreError> {
        self.reported(self.kind.try_lock(&self.file, mode))
    }

    /// Takes the lock, or changes the mode of the one held, however long that takes.
    pub(super) fn lock(
        &self,
        mode: LockMode,
        observer: &dyn StoreObserver,
    ) -> Result<(), StoreError> {
        if self.try_lock(mode)? == Tried::Acquired {
            return Ok(());
        }

        let mut wait = LockWait::new(observer, &self.path);
        while self.try_lock(mode)? == Tried::Busy {
            wait.pause(|| self.holder(mode))?;
        }
        Ok(())
    }

    /// Gives the lock up, if it is held.
    pub(super) fn unlock(&self) -> Result<(), StoreError> {
        self.reported(self.kind.unlock(&self.file))
    }

    /// Who keeps it from being locked in `mode`.
    pub(super) fn holder(&self, mode: LockMode) -> Option<LockHolder> {
        LockHolder::of_file(&self.file, self.kind, mode)
    }

    /// Whether the owner before us has given this file up, so that a lock on it means nothing.
    pub(super) fn is_stale(&self) -> Result<bool, StoreError> {
        self.reported(is_stale(&self.file))
    }

    /// Removes the file, which is in `directory` and locked, for good. The byte tells those who wait
    /// for this very file that it has lost its name; it is unlinked first, so that no other process
    /// begins to wait for it. Should either fail, the file stays behind unlocked, which is harmless. A
    /// file that has another name is no lock there, and is not written to.
    pub(super) fn remove(&mut self, directory: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let name = self.path.file_name().unwrap_or_default();
        unlinkat(directory, name, AtFlags::empty())?;
        if self.file.metadata().is_ok_and(|file| file.nlink() == 0) {
            let _ = self.file.write_all(b"d");
        }
        Ok(())
    }

    /// [Removes](Self::remove) the file if it still has its name, which another process may have given to a
    /// file of its own.
    pub(super) fn remove_if_named(&mut self, directory: BorrowedFd<'_>) -> Result<(), StoreError> {
        let name = self.path.file_name().unwrap_or_default();
        let named = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            named => named,
        };

        let removed = match named.and_then(|named| Ok((named, fstat(&self.file)?))) {
            Ok((named, opened)) if is_same_file(&named, &opened) => self.remove(directory),
            compared => compared.map(|_| ()),
        };
        self.reported(removed.map_err(io::Error::from))
    }

    /// Leaves the lock to this process and to the programs that it executes: they inherit a descriptor, whose
    /// number is higher than those that shell scripts use.
    pub(super) fn leave_to_programs(self) -> Result<(), StoreError> {
        const LOWEST_DESCRIPTOR: i32 = 100;
        let inherited = fcntl_dupfd_cloexec(&self.file, LOWEST_DESCRIPTOR)
            .and_then(|file| fcntl_setfd(&file, FdFlags::empty()).map(|()| file));
        let inherited = self.reported(inherited.map_err(io::Error::from))?;
        // It stays open for the program.
        let _ = inherited.into_raw_fd();
        Ok(())
    }

    fn reported<T>(&self, result: io::Result<T>) -> Result<T, StoreError> {
        result.map_err(on(&self.path, |path, source| StoreError::Lock {
            path,
            source,
        }))
    }
}

fn is_same_file(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn only_a_file_that_still_has_its_name_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let opened = File::open(directory.path()).unwrap();
        let path = directory.path().join("4294967");
        let open_lock = || LockFile::open(LockKind::Record, opened.as_fd(), path.clone()).unwrap();

        // Another process removes the file of a dead one, and makes its own.
        let mut earlier = open_lock();
        std::fs::remove_file(&path).unwrap();
        let mut named = open_lock();
        earlier.remove_if_named(opened.as_fd()).unwrap();
        assert_eq!(
            path.metadata().unwrap().len(),
            0,
            "it has its name and no mark"
        );

        named.remove_if_named(opened.as_fd()).unwrap();
        assert!(!path.exists() && named.is_stale().unwrap());
        earlier.remove_if_named(opened.as_fd()).unwrap();
    }
}
