//! The lock of one item, `ITEM.lock`: no other process or thread adds or deletes the item.
//!
//! All locks of this folder. The kind is that of the store's [`LockKind`], except for the last one:
//!
//! | lock | mode | held from | to | released by |
//! |---|---|---|---|---|
//! | `big-lock` | shared | opening the store to write | its end | dropping `Store` |
//! | `big-lock` | exclusive | making a database | the database is complete | `open::or_create` |
//! | `gc.lock` (Guix) | shared | making the file of temp roots | that file is locked | `TempRoots` |
//! | `gc.lock` (Nix) | shared | adding temp roots, if no collector runs | they are added | `TempRoots` |
//! | `gc.lock` | shared | making a root | it has its name | `GcRootLinks` |
//! | `gc.lock` | exclusive | a collection begins | what is deleted has left the store | `Collector` |
//! | `gc.lock` | shared | after that | its files are deleted | `Collector` |
//! | `temproots/PID` of others | shared (Guix) | a collection reads them | what is deleted has left the store | `TempRootFiles` |
//! | `temproots/PID` | shared (Guix), exclusive (Nix) | the first temp root | the store's end | dropping `TempRoots` |
//! | `ITEM.lock` | exclusive | [`Store::try_lock`] | the item is registered, or removed | dropping [`ItemLock`] |
//! | SQLite's | write | the start of a transaction | its end | `Database` |
//! | `.NAME.subst-RANDOM.lock` | exclusive `flock` | `OutputStaging::begin` | the tree has its name, or is removed | dropping `OutputStaging` |
//!
//! [`Store::try_lock`]: super::handle::Store::try_lock

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use tracing::debug;

use crate::format::store_path::StorePath;

use super::error::StoreError;
use super::layout::Layout;
use super::lock_file::LockFile;
use super::lock_kind::{LockKind, LockMode, Tried};

/// The lock of one item. Released when dropped.
#[derive(Debug)]
pub struct ItemLock {
    file: LockFile,
    /// The store directory, where the file is.
    store: Arc<OwnedFd>,
    item: StorePath,
}

/// What came of trying to lock an item.
pub(super) enum TriedItem {
    /// It is locked.
    Acquired(ItemLock),
    /// The lock is held elsewhere.
    Busy(LockFile),
}

impl ItemLock {
    /// Tries to lock `item`, whose store directory is open as `store`.
    pub(super) fn try_acquire(
        kind: LockKind,
        layout: &Layout,
        store: &Arc<OwnedFd>,
        item: &StorePath,
    ) -> Result<TriedItem, StoreError> {
        loop {
            let mut file = LockFile::open(kind, store.as_fd(), layout.lock_file(item))?;
            if file.try_lock(LockMode::Exclusive)? == Tried::Busy {
                debug!(item = item.base(), "another process holds the lock");
                return Ok(TriedItem::Busy(file));
            }
            if file.is_stale()? {
                // Something other than a process that gave it up has written to it, so that it would be
                // opened again and again.
                file.remove_if_named(store.as_fd())?;
                continue;
            }
            return Ok(TriedItem::Acquired(Self {
                file,
                store: Arc::clone(store),
                item: item.clone(),
            }));
        }
    }

    /// The item that is locked.
    pub(super) fn item(&self) -> &StorePath {
        &self.item
    }

    /// The lock file.
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }
}

impl Drop for ItemLock {
    fn drop(&mut self) {
        // A file that stays behind is harmless: it is not locked.
        let _ = self.file.remove(self.store.as_fd());
    }
}
