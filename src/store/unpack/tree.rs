//! What the threads that write one tree share: its first failure, and how much is unfinished.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use crate::no_follow::Owner;
use crate::sync::{lock, wait};

use super::created_modes::CreatedModes;
use super::error::UnpackError;
use super::tree_deduplication::TreeDeduplication;

pub(super) struct Tree {
    pub(super) created_modes: CreatedModes,
    /// `None` when its files are not deduplicated.
    pub(super) deduplication: Option<TreeDeduplication>,
    failed: AtomicBool,
    batches: Mutex<BatchProgress>,
    changed: Condvar,
}

/// A batch that the tree waits for. When a writer panics, it is dropped without having been ended,
/// and has failed: its files are missing.
pub(super) struct Pending {
    tree: Arc<Tree>,
    result: Result<(), UnpackError>,
}

impl Pending {
    /// The batch is done.
    pub(super) fn end(mut self, result: Result<(), UnpackError>) {
        self.result = result;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let result = std::mem::replace(&mut self.result, Ok(()));
        let mut batches = self.tree.lock();
        batches.pending -= 1;
        if let Err(error) = result {
            self.tree.failed.store(true, Ordering::Relaxed);
            batches.failure.get_or_insert(error);
        }
        drop(batches);
        self.tree.changed.notify_all();
    }
}

#[derive(Default)]
struct BatchProgress {
    pending: usize,
    failure: Option<UnpackError>,
}

impl Tree {
    pub(super) fn new(deduplication: Option<TreeDeduplication>, owner: Option<Owner>) -> Self {
        Self {
            created_modes: CreatedModes::owned_by(owner),
            deduplication,
            failed: AtomicBool::new(false),
            batches: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Whether a part of the tree has failed already, so that more work is useless.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// The first failure of a writer, as soon as there is one.
    pub(super) fn check(&self) -> Result<(), UnpackError> {
        if !self.has_failed() {
            return Ok(());
        }
        self.lock().failure.take().map_or(Ok(()), Err)
    }

    /// One more batch is to be waited for.
    pub(super) fn begin_batch(self: &Arc<Self>) -> Pending {
        self.lock().pending += 1;
        Pending {
            tree: Arc::clone(self),
            result: Err(UnpackError::Panicked),
        }
    }

    /// Waits until all batches are written.
    pub(super) fn wait(&self) -> Result<(), UnpackError> {
        let mut batches = self.lock();
        while batches.pending > 0 {
            batches = wait(&self.changed, batches);
        }
        batches.failure.take().map_or(Ok(()), Err)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BatchProgress> {
        lock(&self.batches)
    }
}
