//! Requests nars before workers take the items: while items are looked up, and while workers are busy.
//!
//! Each item is locked before its nar is requested, as before any other download, so that several
//! processes do not download the same. A worker takes the lock over.
//!
//! Two processes must not wait for each other. A lock that is held ahead of time is always that of an item which
//! a worker will take, and no worker waits for another process: when its item is locked elsewhere, it takes the
//! next one. An unpacked item waits for its references only, and no item is among the references of its
//! references. So the locks of items that turn out not to be part of the plan, or that cannot be had, are
//! released at once.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use crate::format::store_path::StorePath;
use crate::store::{ItemLock, Store};
use crate::substitute::download::read_ahead::{FetchPhase, ReadAhead};
use crate::substitute::install::Installer;
use crate::substitute::item_lookup::{Authority, ItemLookup, NarSource};
use crate::substitute::lookup::LookupObserver;
use crate::sync::lock;

/// Items found by a lookup that wait until there is room, at most: the plan has them soon.
const FOUND_ITEMS: usize = 256;

/// Items whose nars are requested ahead of time.
pub(crate) struct ItemsAhead {
    store: Arc<Store>,
    installer: Arc<Installer>,
    read_ahead: Arc<ReadAhead>,
    locks: Mutex<HashMap<StorePath, ItemLock>>,
    /// Items that a lookup has found, and whose nars were not requested yet.
    found: Mutex<VecDeque<(StorePath, Vec<NarSource>)>>,
}

impl ItemsAhead {
    /// For a fetch into `store` by `installer`, which takes its nars from `read_ahead`.
    #[must_use]
    pub(crate) fn new(
        store: Arc<Store>,
        installer: Arc<Installer>,
        read_ahead: Arc<ReadAhead>,
    ) -> Self {
        Self {
            store,
            installer,
            read_ahead,
            locks: Mutex::default(),
            found: Mutex::default(),
        }
    }

    /// Requests nars while items are still looked up: the plan will probably have them. When it does
    /// not, since something is missing, they are thrown away.
    #[must_use]
    pub(crate) fn observer(self: &Arc<Self>) -> LookupObserver {
        let items_ahead = Arc::clone(self);
        Arc::new(move |found| items_ahead.item_found(found))
    }

    fn item_found(&self, item: &ItemLookup) {
        let mut found = lock(&self.found);
        let authority = item.authority.as_ref();
        let is_authorized = authority.and_then(Authority::verified_this_run).is_some();
        if is_authorized && found.len() < FOUND_ITEMS {
            found.push_back((item.path.clone(), item.sources.clone()));
        }

        while self.read_ahead.has_room(FetchPhase::Lookup)
            && let Some((item, sources)) = found.pop_front()
        {
            self.start(&item, &sources);
        }
    }

    /// Whether more nars may be requested while items are unpacked.
    #[must_use]
    pub(super) fn has_room(&self) -> bool {
        self.read_ahead.has_room(FetchPhase::Unpacking)
    }

    /// Requests the item's nar, if it may be requested ahead of time and no other process installs it.
    pub(super) fn start(&self, item: &StorePath, sources: &[NarSource]) {
        if !ReadAhead::may_be_for(sources) || self.has_started(item) {
            return;
        }
        let download = self.installer.expected_download(item, sources);
        let Some((candidate, rate_demand)) = download.filter(|(it, _)| ReadAhead::is_for(it))
        else {
            return;
        };
        // A failure is reported by the worker that tries the same.
        let Ok(Some(item_lock)) = self.store.try_lock(item) else {
            return;
        };
        if self
            .store
            .is_complete(item)
            .is_ok_and(|is_complete| !is_complete)
        {
            lock(&self.locks).insert(item.clone(), item_lock);
            if !self.read_ahead.start(item, candidate, rate_demand) {
                lock(&self.locks).remove(item);
            }
        }
    }

    /// Whether the nar of `item` was requested, and no worker has taken it yet.
    #[must_use]
    pub(super) fn has_started(&self, item: &StorePath) -> bool {
        self.read_ahead.has_started(item)
    }

    /// The lock of an item whose nar was requested, for the worker that takes the item.
    #[must_use]
    pub(super) fn take_lock(&self, item: &StorePath) -> Option<ItemLock> {
        lock(&self.locks).remove(item)
    }

    /// Ends the downloads of all items but those of the `planned` ones, and releases their locks.
    pub(super) fn keep_only(&self, planned: &HashSet<&StorePath>) {
        lock(&self.found).retain(|(item, _)| planned.contains(item));
        self.read_ahead.keep_only(planned);
        lock(&self.locks).retain(|item, _| planned.contains(item));
    }

    /// Ends the download of `item`, and releases its lock.
    pub(super) fn discard(&self, item: &StorePath) {
        self.read_ahead.discard(item);
        lock(&self.locks).remove(item);
    }

    /// Ends all downloads that no worker has taken.
    pub(super) fn clear(&self) {
        lock(&self.found).clear();
        self.read_ahead.clear();
        lock(&self.locks).clear();
    }
}
