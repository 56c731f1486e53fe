//! Registers published items on a thread of its own, one batch after another.
//!
//! A batch waits for the disk, so meanwhile workers go on, and what they finish is the next batch:
//! the slower the disk, the larger the batches. The kernel starts to write what the next
//! one needs while this one is waited for, so that little is left to wait for in the end.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::store::{Published, RefusedItem, Store};
use crate::substitute::clock::Clock;
use crate::substitute::install::ItemError;
use crate::sync::{Threads, catch_panic};

/// Items to be registered together, by their places in the plan.
pub(super) struct RegistrationBatch {
    pub(super) indices: Vec<usize>,
    pub(super) items: Vec<Published>,
}

/// What came of a batch: the items that could not be registered, or why none could.
pub(super) struct RegistrationResult {
    pub(super) indices: Vec<usize>,
    pub(super) result: Result<Vec<RefusedItem>, ItemError>,
}

/// The thread's queue and its results. Dropping it waits for the batch under way.
pub(super) struct Registrar {
    batches: Sender<RegistrationBatch>,
    results: Receiver<RegistrationResult>,
    is_busy: bool,
    /// Behind the queue: fields are dropped in this order, and the thread ends with the queue.
    _thread: Threads,
}

impl Registrar {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(super) fn start(store: &Arc<Store>, clock: Clock) -> std::io::Result<Self> {
        let (batches, queue) = bounded::<RegistrationBatch>(1);
        let (finished, results) = unbounded();

        let thread = Threads::start("registrar", 1, {
            let store = Arc::clone(store);
            move || register_all(&store, clock, &queue, &finished)
        })?;
        Ok(Self {
            batches,
            results,
            is_busy: false,
            _thread: thread,
        })
    }

    /// Whether it works on a batch; then it takes no other.
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Starts to register a batch.
    pub(super) fn register(&mut self, batch: RegistrationBatch) {
        self.is_busy = true;
        self.batches
            .send(batch)
            .expect("the thread lives as long as its queue");
    }

    /// Where the result of the batch arrives, for [`Registrar::finished`].
    pub(super) fn results(&self) -> &Receiver<RegistrationResult> {
        &self.results
    }

    /// Notes that the result has arrived.
    pub(super) fn finished(&mut self) {
        self.is_busy = false;
    }
}

fn register_all(
    store: &Store,
    clock: Clock,
    queue: &Receiver<RegistrationBatch>,
    finished: &Sender<RegistrationResult>,
) {
    for RegistrationBatch { indices, items } in queue {
        let registered = catch_panic(|| store.register(items, clock.unix_seconds()));
        let result = match registered {
            Some(result) => result.map_err(ItemError::from),
            None => Err(ItemError::ThreadEnded("registers items")),
        };
        if finished
            .send(RegistrationResult { indices, result })
            .is_err()
        {
            break;
        }
    }
}
