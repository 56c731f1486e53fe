//! What is ready is published and registered, references first, as many items at a time as can be.

use std::collections::HashSet;

use crate::format::narinfo::NarInfo;
use crate::format::store_path::{StorePath, StorePathRef};
use crate::store::unpack::Checked;
use crate::store::{ItemLock, Registration};
use crate::substitute::closure::coordinator::{Coordinator, PlannedItemState};
use crate::substitute::install::ItemError;

impl Coordinator<'_> {
    /// Registers everything whose references are valid or registered with it.
    pub(super) fn register_ready(&mut self) {
        let (mut batch, mut in_batch) = (Vec::new(), HashSet::new());
        // What was planned again has references behind it: not everything is found at once.
        while self.add_ready(&mut batch, &mut in_batch) {}
        let mut published = Vec::new();
        for index in batch {
            let PlannedItemState::Ready(tree) =
                std::mem::replace(&mut self.states[index], PlannedItemState::Working(1))
            else {
                continue;
            };
            if let Err(error) = self.fetch.store.publish_item(&self.items[index].path) {
                self.fail(index, error.into());
                continue;
            }
            let (checked, lock) = *tree;
            published.push(Published {
                index,
                checked,
                lock,
            });
        }
        self.register(published);
    }

    /// Adds to `batch` what is ready and has all its references, those in `batch` included;
    /// whether there was anything.
    fn add_ready(&self, batch: &mut Vec<usize>, in_batch: &mut HashSet<usize>) -> bool {
        let before = batch.len();
        for (index, item) in self.items.iter().enumerate() {
            let is_there = |need: &usize| {
                matches!(self.states[*need], PlannedItemState::Valid) || in_batch.contains(need)
            };
            let is_ready = matches!(self.states[index], PlannedItemState::Ready(_));
            if is_ready && !in_batch.contains(&index) && item.needs.iter().all(is_there) {
                in_batch.insert(index);
                batch.push(index);
            }
        }
        batch.len() > before
    }

    fn register(&mut self, published: Vec<Published>) {
        if published.is_empty() {
            return;
        }
        // A batch with an item that could not be given its name must not have its referrers.
        let (published, orphaned): (Vec<_>, Vec<_>) = published
            .into_iter()
            .partition(|item| !matches!(self.states[item.index], PlannedItemState::Failed));
        for item in orphaned {
            // Garbage, so the next attempt removes what cannot be removed now.
            let _ = self
                .fetch
                .store
                .remove_invalid(&self.items[item.index].path);
        }
        let registration = |item: &Published| {
            registration(
                &self.items[item.index].path,
                item.checked.authorized().narinfo(),
            )
        };
        let batch: Vec<Registration> = published.iter().map(registration).collect();
        let now = self.fetch.clock.unix_seconds();
        match self.fetch.store.register(&batch, now) {
            Ok(()) => {
                for Published {
                    index,
                    checked,
                    lock,
                } in published
                {
                    checked.keep();
                    drop(lock);
                    self.becomes_valid(index);
                }
            }
            Err(error) => {
                let mut error = Some(error);
                for item in published {
                    // Not registered, so garbage: remove it while the lock is still ours.
                    let removed = self
                        .fetch
                        .store
                        .remove_invalid(&self.items[item.index].path);
                    let error = error.take().or(removed.err());
                    self.fail(
                        item.index,
                        error.map_or(ItemError::NotTried, ItemError::from),
                    );
                }
            }
        }
    }
}

/// An item that has its name in the store and is not registered yet.
struct Published {
    index: usize,
    /// Dropped before the lock: it removes what it added to `.links` unless it was registered.
    checked: Checked,
    lock: ItemLock,
}

fn registration(path: &StorePath, narinfo: &NarInfo) -> Registration {
    Registration {
        path: path.clone(),
        nar_hash: narinfo.nar_hash(),
        nar_size: narinfo.nar_size(),
        deriver: narinfo.deriver().map(StorePathRef::to_path),
        references: narinfo.references().map(StorePathRef::to_path).collect(),
        signatures: narinfo.nix_signatures().map(str::to_owned).collect(),
        ca: narinfo.ca().map(str::to_owned),
    }
}
