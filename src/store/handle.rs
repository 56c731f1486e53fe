//! An open store: what its database records, locks and temp roots, and the steps by which an item
//! becomes valid.
//!
//! Usable from several threads. A store that was opened for reading only refuses everything else.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tracing::debug;

use crate::format::nar::EntryName;
use crate::format::store_path::StorePath;
use crate::sync::lock;

use super::closure::Closure;
use super::db::{Database, RefusedItem};
use super::deduplicate::Links;
use super::derivation;
use super::directory::{FreeSpace, free_space, open_directory};
use super::error::{StoreError, on};
use super::item_lock::{ItemLock, TriedItem};
use super::layout::Layout;
use super::leftovers::Leftovers;
use super::lock_file::LockFile;
use super::lock_holder;
use super::lock_kind::{LockKind, LockMode};
use super::open;
use super::order;
use super::published::Published;
use super::registration::Registration;
use super::remains::{EMPTY_NAR_BYTES_MAX, Remains, remains_of};
use super::remove::remove_tree_at;
use super::sync_mode::SyncMode;
use super::temp_root::TempRoots;
use super::unpack::{Checked, Destination, WriteAhead, WriterPool};
use super::wait::{StoreObserver, WaitReport};

/// What a store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenMode {
    /// To read and write, making whatever is missing: an embedded store on first use.
    Create(SyncMode),
    /// To read and write a store that exists: the system's.
    Existing(SyncMode),
    /// To look up what is valid, without the right to write anything, locks included.
    ReadOnly,
}

/// An open store, usable from several threads.
#[derive(Debug)]
pub struct Store {
    layout: Layout,
    pub(super) lock_kind: LockKind,
    mode: OpenMode,
    database: Mutex<Database>,
    /// `None` in a store that was opened for reading only.
    temp_roots: Option<Mutex<TempRoots>>,
    links: Arc<Links>,
    pub(super) observer: Arc<dyn StoreObserver>,
    /// The time since every item that was tried is locked by other processes.
    busy: Mutex<Option<WaitReport>>,
    /// Whether it was reported that files are copied, because they cannot be linked.
    is_copying: AtomicBool,
    /// Held shared: no other program changes the database's schema meanwhile.
    _big_lock: Option<LockFile>,
}

impl Store {
    /// Opens the store at `layout`. `observer` learns of every wait for another process.
    ///
    /// # Errors
    /// It is missing, of an unknown schema, or may not be opened; or the user interrupts.
    pub(crate) fn open(
        layout: Layout,
        mode: OpenMode,
        observer: Arc<dyn StoreObserver>,
    ) -> Result<Self, StoreError> {
        lock_holder::prepare();
        let lock_kind = LockKind::of(layout.store_dir().dialect());
        let (big_lock, mut database) = match mode {
            OpenMode::ReadOnly => (None, open::read_only(&layout, lock_kind, &observer)?),
            OpenMode::Existing(sync) => open::existing(&layout, lock_kind, sync, &observer)?,
            OpenMode::Create(sync) => open::or_create(&layout, lock_kind, sync, &observer)?,
        };
        let temp_roots = match mode {
            OpenMode::ReadOnly => None,
            OpenMode::Existing(_) | OpenMode::Create(_) => {
                Some(TempRoots::open(&layout, lock_kind, &observer)?)
            }
        };
        let links = Links::new(Arc::new(open_directory(&layout, layout.store())?));
        if let Some(temp_roots) = &temp_roots {
            let mut leftovers = Leftovers {
                layout: &layout,
                kind: lock_kind,
                links: &links,
                database: &mut database,
                temp_roots: temp_roots.directory(),
            };
            leftovers.remove();
        }

        Ok(Self {
            lock_kind,
            mode,
            database: Mutex::new(database),
            temp_roots: temp_roots.map(Mutex::new),
            links: Arc::new(links),
            observer,
            busy: Mutex::new(None),
            is_copying: AtomicBool::new(false),
            _big_lock: big_lock,
            layout,
        })
    }

    /// Where everything is.
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

    /// Those of `items` of which nothing is in the store directory, or only an empty directory or
    /// file: a valid one was deleted behind the database's back, or a backup was restored in part.
    /// What the trees contain is not looked at.
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
        let item = self.layout.item(path);
        let remains = remains_of(self.links.store().as_fd(), path.base())
            .map_err(on(&item, |path, source| StoreError::Read { path, source }))?;
        Ok(match remains {
            Remains::Nothing => false,
            Remains::Content => true,
            Remains::Empty => self.database().nar_size(path)? <= EMPTY_NAR_BYTES_MAX,
        })
    }

    /// Keeps the collector off `paths`, and off unfinished work under their temporary names,
    /// until the store is dropped. Waits for the end of a collection that is under way.
    ///
    /// # Errors
    /// The roots cannot be announced: nothing may be relied on then.
    pub(crate) fn add_temp_roots(&self, paths: &[StorePath]) -> Result<(), StoreError> {
        match &self.temp_roots {
            Some(roots) => lock(roots).add(&self.layout, paths),
            None => self.refuse_if_read_only(),
        }
    }

    /// The lock of `path`, or `None` when another process or thread holds it. A caller that has
    /// nothing else to do tries again after a while; who holds it is reported then.
    ///
    /// # Errors
    /// The lock file cannot be used.
    pub(crate) fn try_lock(&self, path: &StorePath) -> Result<Option<ItemLock>, StoreError> {
        self.refuse_if_read_only()?;
        match ItemLock::try_acquire(self.lock_kind, &self.layout, self.links.store(), path)? {
            TriedItem::Acquired(acquired) => {
                *lock(&self.busy) = None;
                Ok(Some(acquired))
            }
            TriedItem::Busy(file) => {
                lock(&self.busy)
                    .get_or_insert_with(WaitReport::begin)
                    .make_if_due(&*self.observer, file.path(), || {
                        file.holder(LockMode::Exclusive)
                    });
                Ok(None)
            }
        }
    }

    /// Where the item of `lock` is unpacked: beside its place, at a name that temp roots cover too.
    /// What an earlier attempt left there is removed.
    ///
    /// # Errors
    /// [`StoreError::Remove`], [`StoreError::Read`].
    pub(crate) fn clear_temporary(&self, lock: &ItemLock) -> Result<Destination, StoreError> {
        let name = Layout::temporary_name(lock.item());
        self.remove_entry(&name)?;
        let path = self.layout.store();
        let destination = self.destination(&name).for_owner();
        destination.map_err(on(path, |path, source| StoreError::Read { path, source }))
    }

    /// Renames a verified tree to its place in the store, where it replaces what an earlier attempt
    /// left. Under `lock`, the item was found not to be [complete](Store::is_complete).
    ///
    /// # Errors
    /// [`StoreError::NotLocked`]: `lock` is that of another item. [`StoreError::Remove`] or
    /// [`StoreError::Rename`]. The tree is removed, then the lock released.
    pub fn publish(&self, checked: Checked, lock: ItemLock) -> Result<Published, StoreError> {
        let mut published = Published::new(checked, lock);
        let item = published.item().to_path();
        if !published.is_locked_by(&self.layout.lock_file(&item)) {
            return Err(StoreError::NotLocked(self.layout.item(&item)));
        }

        self.remove_entry(item.base())?;
        published.rename_to(self.destination(item.base()))?;

        debug!(item = item.base(), "published");
        Ok(published)
    }

    /// Makes the items of `batch` valid, in one transaction, and releases their locks; before that,
    /// waits until they are on the disk, if the store was opened with such a [`SyncMode`]. Their
    /// order does not matter. `now` is in Unix seconds. What was recorded of them before, when
    /// their trees had been lost, is replaced.
    ///
    /// Gives the items that do not become valid because of themselves, references first: a reference is
    /// neither valid nor becomes it with the batch, a derivation cannot be read, or the database refuses the
    /// row. Their trees are removed before their locks are released.
    ///
    /// # Errors
    /// References run in a circle, or the database fails. Then no item of the batch is valid, and all
    /// their trees are removed before their locks are released.
    pub fn register(
        &self,
        batch: Vec<Published>,
        now: u64,
    ) -> Result<Vec<RefusedItem>, StoreError> {
        let registrations: Vec<Registration> = batch
            .iter()
            .map(|item| Registration::of(item.narinfo()))
            .collect();

        self.report_missing_hard_links();
        // The rows must not be on the disk before the items are.
        self.sync_items()?;
        let refused = self.write_registrations(&registrations, now)?;

        debug!(items = batch.len() - refused.len(), "registered");
        for (item, registration) in batch.into_iter().zip(registrations) {
            if refused.iter().all(|(path, _)| *path != registration.path) {
                item.keep();
            }
        }
        Ok(refused)
    }

    /// Waits until what was written to the store is on the disk, if it was opened with such a
    /// [`SyncMode`].
    pub(super) fn sync_items(&self) -> Result<(), StoreError> {
        let synced = self.writing()?.sync_items(self.links.store());
        synced.map_err(on(self.layout.store(), |path, source| StoreError::Sync {
            path,
            source,
        }))
    }

    /// Reports once that files are not deduplicated.
    fn report_missing_hard_links(&self) {
        if self.links.take_no_hard_links() && !self.is_copying.swap(true, Ordering::Relaxed) {
            let store = self.layout.store().display();
            let text = format!(
                "equal files are not shared: {store} is on a file system without hard links"
            );
            self.observer.note(&text);
        }
    }

    /// Writes `batch` to the database, in one transaction; gives what cannot be registered of it.
    pub(super) fn write_registrations(
        &self,
        batch: &[Registration],
        now: u64,
    ) -> Result<Vec<RefusedItem>, StoreError> {
        self.refuse_if_read_only()?;
        let ordered = order::references_first(batch, self.layout.store_dir())?;

        let mut outputs = HashMap::new();
        for item in &ordered {
            if item.path.is_derivation() {
                outputs.insert(&item.path, derivation::outputs(&self.layout, &item.path));
            }
        }

        self.database().write_registrations(&ordered, outputs, now)
    }

    /// The entry `name` of the store directory.
    pub(super) fn destination(&self, name: &str) -> Destination {
        let name = EntryName::new(name.as_bytes()).expect("a store path's name is an entry name");
        let store = Arc::clone(self.links.store());
        Destination::new(store, self.layout.store().to_owned(), name)
    }

    fn remove_entry(&self, name: &str) -> Result<(), StoreError> {
        let path = self.layout.store().join(name);
        remove_tree_at(self.links.store().as_fd(), name).map_err(on(&path, |path, source| {
            StoreError::Remove { path, source }
        }))
    }

    /// Has the kernel write to the disk what `pool` writes to items, from now on, if the store was
    /// opened with a [`SyncMode`] that waits for them.
    pub(crate) fn write_ahead(&self, pool: &WriterPool) -> WriteAhead {
        let sync = self.writing().unwrap_or(SyncMode::None);
        pool.write_ahead(sync, self.links.store())
    }

    /// The deduplicated files.
    #[must_use]
    pub(crate) fn links(&self) -> &Arc<Links> {
        &self.links
    }

    /// What can still be written to the file system of the store.
    ///
    /// # Errors
    /// The file system does not say.
    pub(crate) fn free_space(&self) -> Result<FreeSpace, StoreError> {
        free_space(self.links.store()).map_err(on(self.layout.store(), |path, source| {
            StoreError::Read { path, source }
        }))
    }

    pub(super) fn database(&self) -> MutexGuard<'_, Database> {
        // A panic under the lock has rolled its transaction back.
        lock(&self.database)
    }

    pub(super) fn refuse_if_read_only(&self) -> Result<(), StoreError> {
        self.writing().map(drop)
    }

    /// What writing waits for.
    pub(super) fn writing(&self) -> Result<SyncMode, StoreError> {
        match self.mode {
            OpenMode::ReadOnly => Err(StoreError::ReadOnly(self.layout.store().to_owned())),
            OpenMode::Create(sync) | OpenMode::Existing(sync) => Ok(sync),
        }
    }
}
