//! The directory `trash` of a store: what is moved there is gone from the store at once, and is deleted
//! when other processes may use the store again. guix-daemon's collector has one of the same name.

use std::ffi::CStr;
use std::io::ErrorKind;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, RenameFlags};
use rustix::fs::{renameat, renameat_with, statat, unlinkat};
use rustix::io::{self, Errno};

use crate::store::directory::{create_directory, names_in, open_directory};
use crate::store::error::{Remedy, StoreError, not_removed, on};
use crate::store::layout::Layout;
use crate::store::remove::{open_writable, remove_tree_counted};
use crate::store::wait::StoreObserver;

use super::report::GcProgress;

/// The name of the directory inside the store.
pub(super) const TRASH: &str = "trash";

/// The open directory.
#[derive(Debug)]
pub(super) struct Trash {
    store: Arc<OwnedFd>,
    /// `None` where there is no room for it: what would be moved here is deleted at once.
    directory: Option<OwnedFd>,
    path: PathBuf,
    /// The next name to try.
    next: u64,
    /// Bytes of what could not be moved, and was deleted at once.
    freed_bytes: u64,
}

/// What came of emptying it.
#[derive(Debug, Default)]
pub(super) struct Emptied {
    pub(super) freed_bytes: u64,
    /// What could not be deleted.
    pub(super) failures: Vec<StoreError>,
    pub(super) is_interrupted: bool,
}

impl Trash {
    /// Opens the directory of the store at `layout`, after making it if it is missing. This fails before
    /// anything is deleted if the store may not be changed.
    pub(super) fn open(layout: &Layout, store: &Arc<OwnedFd>) -> Result<Self, StoreError> {
        let path = layout.store().join(TRASH);
        let directory = match create_directory(layout, &path) {
            Err(error) if error.remedy() == Some(Remedy::Space) => None,
            created => Some(created?),
        };
        Ok(Self::with(store, path, directory))
    }

    /// Opens the directory if it is there, to empty it.
    pub(super) fn open_existing(layout: &Layout, store: &Arc<OwnedFd>) -> Result<Self, StoreError> {
        let path = layout.store().join(TRASH);
        let directory = match open_directory(layout, &path) {
            Err(StoreError::Open { source, .. }) if source.kind() == ErrorKind::NotFound => None,
            opened => Some(opened?),
        };
        Ok(Self::with(store, path, directory))
    }

    fn with(store: &Arc<OwnedFd>, path: PathBuf, directory: Option<OwnedFd>) -> Self {
        Self {
            store: Arc::clone(store),
            directory,
            path,
            next: 0,
            freed_bytes: 0,
        }
    }

    /// Moves the entry `name` of the store directory here. It is no error when it is absent.
    pub(super) fn take(&mut self, name: &CStr) -> Result<(), StoreError> {
        let moved = match self.try_take(name) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // A lower layer of an overlay cannot be moved; a full disk has no room for one more name.
            Err(Errno::XDEV | Errno::NOSPC | Errno::DQUOT) => {
                remove_tree_counted(self.store.as_fd(), name)
            }
            Err(error) => Err(error),
        };
        let path = self.path.with_file_name(name.to_string_lossy().as_ref());
        self.freed_bytes += moved.map_err(not_removed(&path))?;
        Ok(())
    }

    fn try_take(&mut self, name: &CStr) -> io::Result<()> {
        let Some(directory) = &self.directory else {
            return Err(Errno::NOSPC);
        };
        let stat = statat(&self.store, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            // Moving a directory changes its `..`, so it has to be writable itself.
            drop(open_writable(self.store.as_fd(), name)?);
        }
        loop {
            let target = self.next.to_string();
            self.next += 1;
            match rename_to_free_name(&self.store, name, directory, &target) {
                // Left by a collector that was killed.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::ISDIR | Errno::NOTDIR) => {}
                renamed => return renamed,
            }
        }
    }

    /// Deletes everything here, and the directory.
    pub(super) fn empty(
        self,
        observer: &dyn StoreObserver,
        progress: &mut dyn FnMut(GcProgress),
    ) -> Emptied {
        let mut emptied = Emptied {
            freed_bytes: self.freed_bytes,
            ..Emptied::default()
        };
        let Some(directory) = &self.directory else {
            return emptied;
        };
        let names = match names_in(directory) {
            Ok(names) => names,
            Err(error) => {
                emptied.failures.push(unreadable(&self.path)(error));
                return emptied;
            }
        };

        let total = names.len();
        for (done, name) in names.iter().enumerate() {
            if observer.is_canceled() {
                emptied.is_interrupted = true;
                return emptied;
            }
            progress(GcProgress {
                done,
                total,
                freed_bytes: emptied.freed_bytes,
            });
            match remove_tree_counted(directory.as_fd(), name) {
                Ok(bytes) => emptied.freed_bytes += bytes,
                Err(error) => {
                    let path = self.path.join(name.to_string_lossy().as_ref());
                    emptied.failures.push(not_removed(&path)(error));
                }
            }
        }

        match unlinkat(&self.store, TRASH, AtFlags::REMOVEDIR) {
            // What could not be deleted is in it.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => emptied.failures.push(not_removed(&self.path)(error)),
        }
        emptied
    }
}

fn unreadable(path: &Path) -> impl FnOnce(Errno) -> StoreError {
    on(path, |path, source| StoreError::Read { path, source })
}

/// Renames without replacing anything, if the file system can; else no directory that is not empty.
fn rename_to_free_name(
    from: &OwnedFd,
    name: &CStr,
    directory: &OwnedFd,
    target: &str,
) -> io::Result<()> {
    match renameat_with(from, name, directory, target, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => renameat(from, name, directory, target),
        renamed => renamed,
    }
}
