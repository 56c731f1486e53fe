//! Requests nars before workers take the items: while items are looked up, and while workers are busy.
//!
//! Each item is locked before its nar is requested, as before any other download, so that several
//! processes do not download the same. A worker takes the lock over; or else the plan, with the tree of what was
//! unpacked meanwhile (`early`).
//!
//! Two processes must not wait for each other. A lock that is held ahead of time is always that of an item which
//! a worker will take, and no worker waits for another process: when its item is locked elsewhere, it takes the
//! next one. An unpacked item waits for its references only, and no item is among the references of its
//! references. So the locks of items that turn out not to be part of the plan, or that cannot be had, are
//! released at once.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::format::store_path::StorePath;
use crate::store::{ItemLock, Store};
use crate::substitute::closure::early_trees::EarlyTrees;
use crate::substitute::download::read_ahead::{FetchPhase, ReadAhead};
use crate::substitute::install::Installer;
use crate::substitute::item_lookup::{Authority, ItemLookup, NarSource};
use crate::substitute::lookup::LookupObserver;
use crate::sync::lock;
use crate::trust::verdict::AuthorizedNarInfo;

/// Items found by a lookup that wait until there is room, at most: the plan has them soon.
const FOUND_ITEMS: usize = 256;

/// Items whose nars are requested ahead of time.
pub(crate) struct ItemsAhead {
    pub(super) store: Arc<Store>,
    pub(super) installer: Arc<Installer>,
    pub(super) read_ahead: Arc<ReadAhead>,
    /// Those whose nars were requested and not taken yet.
    pub(super) items: Mutex<HashMap<StorePath, HeldItem>>,
    /// Items that a lookup has found, and whose nars were not requested yet.
    found: Mutex<VecDeque<FoundItem>>,
    /// Held by the thread that requests them: it counts what is requested.
    requesting: Mutex<()>,
    /// Has a message after something was found.
    pub(super) has_found: (Sender<()>, Receiver<()>),
    /// How many items may be unpacked at the same time.
    pub(super) jobs: usize,
    /// What was unpacked before there was a plan.
    pub(super) early: Mutex<EarlyTrees>,
}

/// An item that has an authorized narinfo.
struct FoundItem {
    path: StorePath,
    authorized: Arc<AuthorizedNarInfo>,
    sources: Vec<NarSource>,
}

/// An item whose nar was requested, and its lock.
pub(super) struct HeldItem {
    pub(super) lock: ItemLock,
    pub(super) authorized: Arc<AuthorizedNarInfo>,
    pub(super) sources: Vec<NarSource>,
}

impl HeldItem {
    pub(super) fn nar_size(&self) -> u64 {
        self.authorized.narinfo().nar_size()
    }
}

impl ItemsAhead {
    /// For a fetch into `store` by `installer`, which takes its nars from `read_ahead` and unpacks up to `jobs` items at
    /// the same time.
    #[must_use]
    pub(crate) fn new(
        store: Arc<Store>,
        installer: Arc<Installer>,
        read_ahead: Arc<ReadAhead>,
        jobs: usize,
    ) -> Self {
        Self {
            store,
            installer,
            read_ahead,
            items: Mutex::default(),
            found: Mutex::default(),
            requesting: Mutex::default(),
            has_found: bounded(1),
            jobs,
            early: Mutex::default(),
        }
    }

    /// Notes items while others are still looked up, so that their nars are requested: the plan will probably
    /// have them. When it does not, since something is missing, they are thrown away.
    #[must_use]
    pub(crate) fn observer(self: &Arc<Self>) -> LookupObserver {
        let items_ahead = Arc::clone(self);
        Arc::new(move |found| items_ahead.item_found(found))
    }

    fn item_found(&self, item: &ItemLookup) {
        let authority = item.authority.as_ref();
        let Some(authorized) = authority.and_then(Authority::verified_this_run) else {
            return;
        };
        let mut found = lock(&self.found);
        if found.len() < FOUND_ITEMS {
            found.push_back(FoundItem {
                path: item.path.clone(),
                authorized: Arc::clone(authorized),
                sources: item.sources.clone(),
            });
            drop(found);
            // One message is enough.
            let _ = self.has_found.0.try_send(());
        }
    }

    /// Requests the nars of items that were found, as long as there is room, unless another thread does.
    pub(super) fn request_found(&self) {
        let Ok(_turn) = self.requesting.try_lock() else {
            return;
        };
        while !self.installer.cancel.is_canceled() && self.read_ahead.has_room(FetchPhase::Lookup) {
            let Some(found) = lock(&self.found).pop_front() else {
                break;
            };
            self.start(&found.path, &found.authorized, &found.sources);
        }
    }

    /// Whether more nars may be requested while items are unpacked.
    #[must_use]
    pub(super) fn has_room(&self) -> bool {
        self.read_ahead.has_room(FetchPhase::Unpacking)
    }

    /// Requests the item's nar, if it may be requested ahead of time and no other process installs it.
    pub(super) fn start(
        &self,
        item: &StorePath,
        authorized: &Arc<AuthorizedNarInfo>,
        sources: &[NarSource],
    ) {
        let is_under_way = self.has_started(item) || lock(&self.early).contains(item);
        if is_under_way || !ReadAhead::may_be_for(sources) {
            return;
        }
        let download = self.installer.expected_download(item, sources);
        let Some((candidate, rate_demand)) = download.filter(|(it, _)| ReadAhead::is_for(it))
        else {
            return;
        };
        // A failure is reported by the worker that tries the same.
        let Ok(Some(lock_of_item)) = self.store.try_lock(item) else {
            return;
        };
        if self
            .store
            .is_complete(item)
            .is_ok_and(|is_complete| !is_complete)
        {
            let held = HeldItem {
                lock: lock_of_item,
                authorized: Arc::clone(authorized),
                sources: sources.to_vec(),
            };
            lock(&self.items).insert(item.clone(), held);
            if !self.read_ahead.start(item, candidate, rate_demand) {
                lock(&self.items).remove(item);
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
        lock(&self.items).remove(item).map(|held| held.lock)
    }

    /// Ends the downloads of all items but those of the `planned` ones, removes their trees, and releases their locks.
    pub(super) fn keep_only(&self, planned: &HashSet<&StorePath>) {
        lock(&self.found).retain(|found| planned.contains(&found.path));
        self.read_ahead.keep_only(planned);
        lock(&self.items).retain(|item, _| planned.contains(item));
        lock(&self.early).keep_only(planned);
    }

    /// Ends the download of `item`, removes its tree, and releases its lock.
    pub(super) fn discard(&self, item: &StorePath) {
        self.read_ahead.discard(item);
        lock(&self.items).remove(item);
        lock(&self.early).discard(item);
    }

    /// Ends all downloads that no worker has taken, and removes all trees.
    pub(super) fn clear(&self) {
        lock(&self.found).clear();
        self.read_ahead.clear();
        lock(&self.items).clear();
        *lock(&self.early) = EarlyTrees::default();
    }
}
