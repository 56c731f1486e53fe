//! Unpacks nars that have arrived while other items are looked up.
//!
//! A closure takes as many round trips to look up as it has levels of references. Over a fast line small nars
//! arrive meanwhile, and the processor would be idle. What is unpacked then stays at its temporary name until there is a
//! plan, which takes it only by the very narinfo that it was verified against.
//!
//! Only nars that are in memory as a whole are unpacked, and only small ones: no thread waits for a
//! server, and a plan hardly waits for these threads. They fill a small part of the free space at most, because it is not known yet
//! whether everything fits.

use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError, bounded, select};

use crate::store::{Checked, ItemLock};
use crate::substitute::closure::ahead::{HeldItem, ItemsAhead};
use crate::substitute::closure::early_trees::EarlyTree;
use crate::substitute::closure::plan::PlannedItem;
use crate::substitute::download::read_ahead::ArrivedNar;
use crate::substitute::install::{HeldEvents, UnpackRequest};
use crate::sync::{catch_panic, lock};

/// Threads, at most, on a machine with many cores: a line brings no more in this time.
const THREADS_MAX: usize = 4;
/// How often a thread looks at what has arrived.
const INTERVAL: Duration = Duration::from_millis(3);

impl ItemsAhead {
    /// Requests and unpacks what is found while `plan` looks items up.
    pub(super) fn unpack_during<T>(&self, plan: impl FnOnce() -> T) -> T {
        let (done, is_done) = bounded::<()>(0);
        let threads = self.installer.cores.min(self.jobs).clamp(1, THREADS_MAX);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let is_done = is_done.clone();
                let thread = Builder::new().name("early".to_owned());
                // Without a thread to spare, the workers do it later.
                drop(thread.spawn_scoped(scope, move || {
                    catch_panic(|| self.request_and_unpack(&is_done))
                }));
            }
            let planned = plan();
            drop(done);
            planned
        })
    }

    fn request_and_unpack(&self, is_done: &Receiver<()>) {
        while is_done.try_recv() == Err(TryRecvError::Empty) {
            self.request_found();
            if self.unpack_next() {
                continue;
            }
            select! {
                recv(is_done) -> _ => break,
                recv(self.has_found.1) -> _ => {}
                default(INTERVAL) => {}
            }
        }
    }

    /// Unpacks an item whose nar has arrived; whether there was one.
    fn unpack_next(&self) -> bool {
        let Some((arrived, item)) = self.take_arrived() else {
            return false;
        };
        let path = arrived.item.clone();
        let tree = self.unpack(arrived, item);
        let mut early = lock(&self.early);
        early.unpacking.remove(&path);
        early.trees.extend(tree.map(|tree| (path, tree)));
        true
    }

    /// Takes an item whose nar has arrived, if it may be unpacked now, and counts its bytes.
    fn take_arrived(&self) -> Option<(ArrivedNar, HeldItem)> {
        if self.installer.cancel.is_canceled() {
            return None;
        }
        let free = self.store.free_space().ok()?.bytes;
        let mut early = lock(&self.early);
        let room = early.room(free);

        let mut items = lock(&self.items);
        let arrived = self
            .read_ahead
            .take_arrived(|path| items.get(path).is_some_and(|it| it.nar_size() <= room))?;
        let item = items.remove(&arrived.item)?;
        early
            .unpacking
            .insert(arrived.item.clone(), item.nar_size());
        Some((arrived, item))
    }

    fn unpack(&self, arrived: ArrivedNar, item: HeldItem) -> Option<EarlyTree> {
        let path = arrived.item.clone();
        // A failure is reported by the worker that tries the same.
        let destination = self.store.clear_temporary(&item.lock).ok()?;
        let events = HeldEvents::default();
        let request = UnpackRequest {
            item: &path,
            authorized: &item.authorized,
            sources: &item.sources,
            destination: &destination,
            links: Some(self.store.links()),
            progress: &events,
        };
        let checked = self.installer.unpack_arrived(&request, arrived)?;
        Some(EarlyTree {
            checked,
            lock: item.lock,
            events,
        })
    }

    /// Whether the tree of `item` is unpacked already, of the narinfo that was planned.
    pub(super) fn has_unpacked(&self, item: &PlannedItem) -> bool {
        let early = lock(&self.early);
        let tree = early.trees.get(&item.path);
        tree.is_some_and(|tree| Arc::ptr_eq(tree.checked.authorized(), &item.authorized))
    }

    /// The tree of `item` and its lock, if it [is unpacked](Self::has_unpacked); how it was downloaded is
    /// reported now. The tree of another narinfo is removed.
    pub(super) fn take_unpacked(&self, item: &PlannedItem) -> Option<(Checked, ItemLock)> {
        let is_planned = self.has_unpacked(item);
        let tree = lock(&self.early).trees.remove(&item.path)?;
        if !is_planned {
            return None;
        }
        tree.events.report(&item.path, &*self.installer.progress);
        Some((tree.checked, tree.lock))
    }
}
