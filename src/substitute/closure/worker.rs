//! A worker of a fetch: unpacks one item after another at its temporary name.
//!
//! When this machine has too few threads or file descriptors for what a worker needs besides
//! itself, the worker ends, so that those that are left have more. The last one stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, Scope};

use crossbeam_channel::{Receiver, Sender};

use crate::store::{Checked, ItemLock};
use crate::substitute::closure::fetch::ClosureFetch;
use crate::substitute::closure::plan::PlannedItem;
use crate::substitute::install::item::{self, AllowedBuilds, UnpackFailure};
use crate::substitute::install::{ItemError, UnpackRequest};
use crate::sync::catch_panic;

/// An item for a worker, and its place.
pub(super) struct UnpackTask {
    pub(super) index: usize,
    pub(super) item: Arc<PlannedItem>,
}

/// The result of a worker's attempt at an item.
pub(super) enum WorkerResult {
    /// The tree, and the right to register it.
    Ready(Box<(Checked, ItemLock)>),
    /// It is valid: another process was faster.
    Valid,
    /// Another process is installing it; try again later.
    Busy,
    /// It cannot be had as planned.
    Failed(UnpackFailure),
}

/// A thread that unpacks items.
pub(super) struct Worker<'a> {
    pub(super) fetch: &'a ClosureFetch,
    /// How many workers there are.
    pub(super) workers: &'a AtomicUsize,
}

impl<'a> Worker<'a> {
    /// Starts the thread, which works until there is nothing more `to_do`.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(super) fn start<'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
        number: usize,
        to_do: Receiver<UnpackTask>,
        finished: Sender<(UnpackTask, WorkerResult)>,
    ) -> std::io::Result<()>
    where
        'a: 'scope,
    {
        let workers = self.workers;
        let thread = Builder::new().name(format!("fetch-{number}"));
        thread.spawn_scoped(scope, move || self.run(&to_do, &finished))?;
        workers.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn run(&self, to_do: &Receiver<UnpackTask>, finished: &Sender<(UnpackTask, WorkerResult)>) {
        for task in to_do {
            let result = catch_panic(|| self.unpack(&task.item)).unwrap_or_else(|| {
                let error = ItemError::ThreadEnded("unpacks items");
                WorkerResult::Failed(error.into())
            });
            let is_shortage =
                matches!(&result, WorkerResult::Failed(failure) if failure.error.is_shortage());
            if finished.send((task, result)).is_err() || (is_shortage && self.may_end()) {
                break;
            }
        }
    }

    /// Counts this worker out, unless it is the last one.
    fn may_end(&self) -> bool {
        self.workers
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |workers| {
                (workers > 1).then(|| workers - 1)
            })
            .is_ok()
    }

    fn unpack(&self, item: &PlannedItem) -> WorkerResult {
        self.try_unpack(item).unwrap_or_else(WorkerResult::Failed)
    }

    fn try_unpack(&self, item: &PlannedItem) -> Result<WorkerResult, UnpackFailure> {
        let store = &self.fetch.store;
        let lock = match self.fetch.items_ahead.take_lock(&item.path) {
            Some(lock) => Some(lock),
            None => store.try_lock(&item.path).map_err(ItemError::from)?,
        };
        let Some(lock) = lock else {
            return Ok(WorkerResult::Busy);
        };

        if store.is_complete(&item.path).map_err(ItemError::from)? {
            return Ok(WorkerResult::Valid);
        }
        let destination = store.clear_temporary(&lock).map_err(ItemError::from)?;
        let request = UnpackRequest {
            item: &item.path,
            authorized: &item.authorized,
            sources: &item.sources,
            destination: &destination,
            links: Some(store.links()),
            progress: &*self.fetch.progress,
        };

        let ClosureFetch {
            installer,
            resolver,
            ..
        } = self.fetch;
        let checked = item::unpack(
            installer,
            resolver,
            &request,
            AllowedBuilds::UntilOtherReferences,
        )?;
        Ok(WorkerResult::Ready(Box::new((checked, lock))))
    }
}
