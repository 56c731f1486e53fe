//! The local store: which items are valid, and bringing new ones in.
//!
//! Everything here is shared with guix-daemon (or Nix) while it runs: its database, its locks,
//! its temp roots, its `.links`. The order that is safe for making an item:
//!
//! 1. [`Store::add_temp_roots`]: from now on the collector leaves it alone;
//! 2. [`Store::lock`]: nobody else makes it;
//! 3. [`Store::is_complete`] again: somebody may just have made it;
//! 4. write it at [`Layout::temporary`], verify it, make it [canonical];
//! 5. [`Store::publish_item`]: give it its name;
//! 6. [`Store::register`]: make it valid; then drop the lock.
//!
//! What is in the store directory without being registered is garbage, and whoever holds the
//! lock of its path may delete it. Nothing here judges content: that is for the caller.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::fs::{AtFlags, fstatvfs, renameat, statat};
use rustix::io::Errno;

use crate::format::store_path::StorePath;
use crate::sync::lock;

pub(crate) mod canonical;
mod closure;
mod connection;
mod db;
mod deduplicate;
mod derivation;
mod directory;
mod error;
mod layout;
mod links_directory;
mod lock;
mod open;
mod order;
mod remove;
mod rename;
mod schema;
pub(crate) mod staging;
mod temp_root;
pub(crate) mod unpack;
mod writable;

pub(crate) use closure::Closure;
pub(crate) use db::Registration;
pub(crate) use deduplicate::{
    DEDUPLICATE_MIN_BYTES, EntryOutcome, Fingerprint, LinkOutcome, Links,
};
pub(crate) use error::{Remedy, StoreError};
pub(crate) use layout::Layout;
pub(crate) use lock::ItemLock;
pub(crate) use remove::{remove_tree, remove_tree_at};
pub(crate) use writable::make_store_writable;

use db::Database;
use error::on;
use lock::LockKind;
use temp_root::TempRoots;

/// What a store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenMode {
    /// To read and write, making whatever is missing: an embedded store on first use.
    Create,
    /// To read and write a store that exists: the system's.
    Existing,
    /// To ask what is valid, without the right to write anything, locks included.
    ReadOnly,
}

/// An open store, usable from several threads.
#[derive(Debug)]
pub(crate) struct Store {
    layout: Layout,
    lock_kind: LockKind,
    mode: OpenMode,
    database: Mutex<Database>,
    temp_roots: Mutex<Option<TempRoots>>,
    links: Arc<Links>,
    /// Held shared: no other program changes the database's schema while we are here.
    _big_lock: Option<File>,
}

impl Store {
    /// Opens the store at `layout`.
    ///
    /// # Errors
    /// It is missing, of an unknown schema, or not ours to open.
    pub(crate) fn open(layout: Layout, mode: OpenMode) -> Result<Self, StoreError> {
        let lock_kind = LockKind::of(layout.store_dir().dialect());
        let (big_lock, database) = match mode {
            OpenMode::ReadOnly => (None, open::read_only(&layout)?),
            OpenMode::Existing => open::existing(&layout, lock_kind)?,
            OpenMode::Create => open::or_create(&layout, lock_kind)?,
        };
        let store = File::open(layout.store()).map_err(on(layout.store(), |path, source| {
            StoreError::Open { path, source }
        }))?;
        Ok(Self {
            lock_kind,
            mode,
            database: Mutex::new(database),
            temp_roots: Mutex::new(None),
            links: Arc::new(Links::new(store.into())),
            _big_lock: big_lock,
            layout,
        })
    }

    /// Where everything lies.
    #[must_use]
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Those of `paths` that are valid, at one moment.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) fn valid_among(
        &self,
        paths: &[StorePath],
    ) -> Result<HashSet<StorePath>, StoreError> {
        self.database().valid_among(paths)
    }

    /// Whether `path` is valid.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) fn is_valid(&self, path: &StorePath) -> Result<bool, StoreError> {
        Ok(!self.valid_among(std::slice::from_ref(path))?.is_empty())
    }

    /// Whether `path` is valid and its tree is in place.
    ///
    /// # Errors
    /// The database or the store directory cannot be read.
    pub(crate) fn is_complete(&self, path: &StorePath) -> Result<bool, StoreError> {
        Ok(self.is_valid(path)? && self.has_tree(path)?)
    }

    /// The valid items among `roots` and everything they refer to, at one moment.
    ///
    /// # Errors
    /// The database cannot be read, or holds what is no store path.
    pub(crate) fn closure(&self, roots: &[StorePath]) -> Result<Closure, StoreError> {
        self.database().closure(roots)
    }

    /// Those of `items` of which nothing is in the store directory: a valid one was deleted
    /// behind the database's back, or a backup was restored in part. What the trees contain is
    /// not looked at.
    ///
    /// # Errors
    /// The store directory cannot be read.
    pub(crate) fn missing_trees(
        &self,
        items: &[StorePath],
    ) -> Result<HashSet<StorePath>, StoreError> {
        let mut missing = HashSet::new();
        for item in items {
            if !self.has_tree(item)? {
                missing.insert(item.clone());
            }
        }
        Ok(missing)
    }

    fn has_tree(&self, path: &StorePath) -> Result<bool, StoreError> {
        match statat(self.links.store(), path.base(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => {
                let path = self.layout.item(path);
                Err(StoreError::Read {
                    path,
                    source: error.into(),
                })
            }
        }
    }

    /// What the valid item `path` refers to, in the order of names; `None` when it is not valid.
    ///
    /// # Errors
    /// The database cannot be read, or holds what is no store path.
    #[cfg(test)]
    pub(crate) fn references(
        &self,
        path: &StorePath,
    ) -> Result<Option<Vec<StorePath>>, StoreError> {
        self.database().references(path)
    }

    /// All that is recorded of the valid item `path`; `None` when it is not valid.
    ///
    /// # Errors
    /// The database cannot be read, or holds values that it cannot hold.
    #[cfg(test)]
    pub(crate) fn path_info(&self, path: &StorePath) -> Result<Option<db::PathInfo>, StoreError> {
        self.database().path_info(path)
    }

    /// Keeps the collector off `paths`, and off unfinished work under their temporary names,
    /// until the store is dropped. Waits for the end of a collection that is under way.
    ///
    /// # Errors
    /// The roots cannot be announced: nothing may be relied on then.
    pub(crate) fn add_temp_roots(&self, paths: &[StorePath]) -> Result<(), StoreError> {
        self.refuse_if_read_only()?;
        let mut roots = lock(&self.temp_roots);
        let roots = match &mut *roots {
            Some(roots) => roots,
            none => none.insert(TempRoots::create(&self.layout, self.lock_kind)?),
        };
        roots.add(&self.layout, paths)
    }

    /// The right to make `path`. While somebody else has it, `waiting` is told for how long
    /// by now, and decides whether to go on waiting.
    ///
    /// Who takes several locks takes them in the order of the paths, or two processes could
    /// wait for each other for good.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when `waiting` gave up; or the lock file cannot be used.
    #[cfg(test)]
    pub(crate) fn lock(
        &self,
        path: &StorePath,
        waiting: &mut dyn FnMut(std::time::Duration) -> std::ops::ControlFlow<()>,
    ) -> Result<ItemLock, StoreError> {
        self.refuse_if_read_only()?;
        ItemLock::acquire(self.lock_kind, &self.layout.lock_file(path), waiting)
    }

    /// The right to make `path`, or `None` when somebody else has it.
    ///
    /// # Errors
    /// The lock file cannot be used.
    pub(crate) fn try_lock(&self, path: &StorePath) -> Result<Option<ItemLock>, StoreError> {
        self.refuse_if_read_only()?;
        ItemLock::try_acquire(self.lock_kind, &self.layout.lock_file(path))
    }

    /// Gives the finished tree at [`Layout::temporary`] the name of `path`, in the place of
    /// whatever an earlier attempt left there. Hold the lock of `path`, and have made sure under
    /// it that `path` is not [complete](Store::is_complete).
    ///
    /// # Errors
    /// [`StoreError::Remove`] or [`StoreError::Rename`].
    pub(crate) fn publish_item(&self, path: &StorePath) -> Result<(), StoreError> {
        self.refuse_if_read_only()?;
        let to = self.layout.item(path);
        remove_tree_at(self.links.store(), path.base())
            .map_err(on(&to, |path, source| StoreError::Remove { path, source }))?;
        let temporary = Layout::temporary_name(path);
        renameat(
            self.links.store(),
            &temporary,
            self.links.store(),
            path.base(),
        )
        .map_err(|source| StoreError::Rename {
            from: self.layout.temporary(path),
            to,
            source: source.into(),
        })
    }

    /// Deletes what stands at the place of `path` without being valid. Hold the lock of `path`.
    ///
    /// # Errors
    /// [`StoreError::Remove`].
    pub(crate) fn remove_invalid(&self, path: &StorePath) -> Result<(), StoreError> {
        self.refuse_if_read_only()?;
        let item = self.layout.item(path);
        remove_tree_at(self.links.store(), path.base()).map_err(on(&item, |path, source| {
            StoreError::Remove { path, source }
        }))
    }

    /// Deletes what an earlier attempt left at [`Layout::temporary`]. Hold the lock of `path`.
    ///
    /// # Errors
    /// [`StoreError::Remove`].
    pub(crate) fn remove_temporary(&self, path: &StorePath) -> Result<(), StoreError> {
        self.refuse_if_read_only()?;
        let temporary = self.layout.temporary(path);
        remove_tree_at(self.links.store(), Layout::temporary_name(path)).map_err(on(
            &temporary,
            |path, source| StoreError::Remove { path, source },
        ))
    }

    /// Makes every item of `batch` valid, in one transaction, or none. They are in place, under
    /// lock, and verified. Their order does not matter. `now` is in Unix seconds. What was
    /// recorded of them before, when their trees had been lost, is replaced.
    ///
    /// # Errors
    /// A reference is neither valid nor in the batch, references run in a circle, a derivation
    /// cannot be read, or the database fails.
    pub(crate) fn register(&self, batch: &[Registration], now: u64) -> Result<(), StoreError> {
        self.refuse_if_read_only()?;
        let ordered = order::references_first(batch, self.layout.store_dir())?;
        let mut outputs = HashMap::new();
        for item in &ordered {
            if item.path.name().ends_with(derivation::SUFFIX) {
                outputs.insert(&item.path, derivation::outputs(&self.layout, &item.path)?);
            }
        }
        self.database().register(&ordered, &outputs, now)
    }

    /// The deduplicated files.
    #[must_use]
    pub(crate) fn links(&self) -> &Arc<Links> {
        &self.links
    }

    /// How many bytes can still be written to the file system of the store.
    ///
    /// # Errors
    /// The file system does not say.
    pub(crate) fn free_bytes(&self) -> Result<u64, StoreError> {
        free_bytes(self.links.store().as_fd()).map_err(on(self.layout.store(), |path, source| {
            StoreError::Read { path, source }
        }))
    }

    fn database(&self) -> MutexGuard<'_, Database> {
        // A panic under the lock has rolled its transaction back.
        lock(&self.database)
    }

    fn refuse_if_read_only(&self) -> Result<(), StoreError> {
        match self.mode {
            OpenMode::ReadOnly => Err(StoreError::ReadOnly(self.layout.store().to_owned())),
            OpenMode::Create | OpenMode::Existing => Ok(()),
        }
    }
}

/// How many bytes can still be written to the file system of `directory`.
fn free_bytes(directory: BorrowedFd<'_>) -> rustix::io::Result<u64> {
    let stat = fstatvfs(directory)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests;
