//! The threads that write small files, shared by all trees that are being unpacked.
//!
//! The queue is short, its own buffers come back, and the chunks that files lie in are of a
//! bounded pool: that bounds the memory of everything on its way to disk, and a reader that is
//! faster than the disk waits. The buffer that came back last is used next, so that there are no
//! more of them than are full at the same time, and it is still in the processor's cache.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::store::sync_mode::SyncMode;
use crate::sync::{Threads, lock};

use super::reserve::Reserve;
use super::write_ahead::{WriteAhead, WrittenBytes};

/// Work for one writer. It returns the buffer that it has emptied, if it had one, for other work.
type WriterJob = Box<dyn FnOnce() -> Option<Vec<u8>> + Send>;

/// Batches waiting per writer.
const QUEUE_PER_WRITER: usize = 4;
/// Buffers that are kept for later; others are freed.
const SPARE_BUFFERS: usize = 16;

/// Writer threads and the queue in front of them.
pub(crate) struct WriterPool {
    queue: Sender<WriterJob>,
    buffers: Arc<Buffers>,
    reserve: Arc<Reserve>,
    written: WrittenBytes,
    /// Behind the queue: fields are dropped in this order, and the threads end with the queue.
    _threads: Threads,
}

/// Buffers that are not in use.
#[derive(Default)]
struct Buffers(Mutex<Vec<Vec<u8>>>);

impl WriterPool {
    /// Starts `writers` threads, or as many as there are to have.
    ///
    /// # Errors
    /// The system has not even one, or too few file descriptors.
    pub(crate) fn new(writers: usize) -> std::io::Result<Self> {
        let (queue, jobs) = bounded::<WriterJob>(writers.max(1) * QUEUE_PER_WRITER);
        let buffers = Arc::<Buffers>::default();

        let threads = Threads::start("writer", writers, {
            let buffers = Arc::clone(&buffers);
            move || write_all(&jobs, &buffers)
        })?;

        Ok(Self {
            queue,
            buffers,
            reserve: Arc::new(Reserve::new()?),
            written: Arc::default(),
            _threads: threads,
        })
    }

    /// Queues `job`; waits while the queue is full.
    pub(super) fn run(&self, job: impl FnOnce() -> Option<Vec<u8>> + Send + 'static) {
        self.queue
            .send(Box::new(job))
            .expect("writers live as long as the queue");
    }

    /// Counts bytes that are written to files of trees.
    pub(super) fn count_written(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Has the kernel write to the disk what is unpacked into `destination`'s directory, from now on,
    /// if `sync` waits for that in the end.
    pub(crate) fn write_ahead(&self, sync: SyncMode, destination: &Arc<OwnedFd>) -> WriteAhead {
        WriteAhead::start(sync, destination, &self.written)
    }

    /// An empty buffer, used before if there is one.
    pub(super) fn buffer(&self) -> Vec<u8> {
        self.buffers.take()
    }

    /// What trees are removed with.
    pub(super) fn reserve(&self) -> &Arc<Reserve> {
        &self.reserve
    }
}

impl Buffers {
    fn take(&self) -> Vec<u8> {
        lock(&self.0).pop().unwrap_or_default()
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut free = lock(&self.0);
        if free.len() < SPARE_BUFFERS {
            free.push(buffer);
        }
    }
}

/// Does all `jobs`. One that panics fails only its own tree: the jobs behind it belong to trees that
/// wait for them, and only writers take them out of the queue.
fn write_all(jobs: &Receiver<WriterJob>, buffers: &Buffers) {
    for job in jobs {
        // Its tree, which a job shares with others, has recorded the failure while unwinding.
        if let Ok(Some(buffer)) = catch_unwind(AssertUnwindSafe(job)) {
            buffers.give_back(buffer);
        }
    }
}
