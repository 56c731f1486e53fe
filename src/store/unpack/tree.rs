//! What everybody at work on one tree shares: the first failure, and how much is unfinished.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use crate::format::nar::EntryName;
use crate::sync::{lock, wait};

use super::created_modes::CreatedModes;
use super::directory::Directory;
use super::error::UnpackError;
use super::sharing::Sharing;

pub(super) struct Tree {
    pub(super) created_modes: CreatedModes,
    /// `None` when its files are not deduplicated.
    pub(super) sharing: Option<Sharing>,
    /// Whether the entry at the destination was created by this process: see
    /// [`Tree::note_created_in`].
    pub(super) top_is_ours: Arc<AtomicBool>,
    outside: PathBuf,
    failed: AtomicBool,
    progress: Mutex<Progress>,
    changed: Condvar,
}

/// A batch that is waited for. Dropped without having been ended, by a writer that panics, it has
/// failed: its files are not there.
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
        let mut progress = self.tree.lock();
        progress.batches_pending -= 1;
        if let Err(error) = result {
            self.tree.failed.store(true, Ordering::Relaxed);
            progress.failure.get_or_insert(error);
        }
        drop(progress);
        self.tree.changed.notify_all();
    }
}

#[derive(Default)]
struct Progress {
    batches_pending: usize,
    failure: Option<UnpackError>,
}

impl Tree {
    pub(super) fn new(sharing: Option<Sharing>, outside: &Path) -> Self {
        Self {
            created_modes: CreatedModes::default(),
            sharing,
            top_is_ours: Arc::default(),
            outside: outside.to_owned(),
            failed: AtomicBool::new(false),
            progress: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// The error that `action` on the entry `name` of `parent` failed with `source`.
    pub(super) fn error(
        &self,
        action: &'static str,
        parent: &Directory,
        name: &EntryName,
        source: impl Into<std::io::Error>,
    ) -> UnpackError {
        let path = self.outside.join(parent.path()).join(name.as_os_str());
        UnpackError::Write {
            action,
            path,
            source: source.into(),
        }
    }

    /// An entry of `parent` was created. In the directory that the tree is put into, that is the
    /// top of the tree: from now on a failure has to remove it.
    pub(super) fn note_created_in(&self, parent: &Directory) {
        if parent.is_outside() {
            self.top_is_ours.store(true, Ordering::Relaxed);
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
        self.lock().batches_pending += 1;
        Pending {
            tree: Arc::clone(self),
            result: Err(UnpackError::Panicked),
        }
    }

    /// Waits until no writer is at work any more.
    pub(super) fn wait(&self) -> Result<(), UnpackError> {
        let mut progress = self.lock();
        while progress.batches_pending > 0 {
            progress = wait(&self.changed, progress);
        }
        progress.failure.take().map_or(Ok(()), Err)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Progress> {
        lock(&self.progress)
    }
}
