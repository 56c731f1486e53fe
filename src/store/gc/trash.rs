//! The directory `trash` of a store: what is moved there is gone from the store at once, and is deleted
//! when other processes may use the store again. guix-daemon's collector has one of the same name.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, RenameFlags};
use rustix::fs::{renameat, renameat_with, statat, unlinkat};
use rustix::io::{self, Errno};

use crate::store::directory::create_directory;
use crate::store::error::{StoreError, on};
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
    directory: OwnedFd,
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
        Ok(Self {
            store: Arc::clone(store),
            directory: create_directory(layout, &path)?,
            path,
            next: 0,
            freed_bytes: 0,
        })
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
        let freed = moved.map_err(on(&path, |path, source| StoreError::Remove {
            path,
            source,
        }))?;
        self.freed_bytes += freed;
        Ok(())
    }

    fn try_take(&mut self, name: &CStr) -> io::Result<()> {
        let stat = statat(&self.store, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            // Moving a directory changes its `..`, so it has to be writable itself.
            drop(open_writable(self.store.as_fd(), name)?);
        }
        loop {
            let target = self.next.to_string();
            self.next += 1;
            match rename_to_free_name(&self.store, name, &self.directory, &target) {
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
    ) -> Result<Emptied, StoreError> {
        let mut names: Vec<CString> = Vec::new();
        for entry in Dir::read_from(&self.directory).map_err(unreadable(&self.path))? {
            let entry = entry.map_err(unreadable(&self.path))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }

        let total = names.len();
        let mut emptied = Emptied {
            freed_bytes: self.freed_bytes,
            ..Emptied::default()
        };
        for (done, name) in names.iter().enumerate() {
            if observer.is_canceled() {
                emptied.is_interrupted = true;
                return Ok(emptied);
            }
            progress(GcProgress {
                done,
                total,
                freed_bytes: emptied.freed_bytes,
            });
            match remove_tree_counted(self.directory.as_fd(), name) {
                Ok(bytes) => emptied.freed_bytes += bytes,
                Err(error) => {
                    let path = self.path.join(name.to_string_lossy().as_ref());
                    let failure = on(&path, |path, source| StoreError::Remove { path, source });
                    emptied.failures.push(failure(error));
                }
            }
        }

        match unlinkat(&self.store, TRASH, AtFlags::REMOVEDIR) {
            // What could not be deleted is in it.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(emptied),
            Err(error) => Err(on(&self.path, |path, source| StoreError::Remove {
                path,
                source,
            })(error)),
        }
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
