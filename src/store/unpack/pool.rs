//! The threads that write small files, shared by all trees that are being unpacked.
//!
//! The queue is short, its own buffers come back, and the chunks that files lie in are of a
//! bounded pool: that bounds the memory of everything on its way to disk, and a reader that is
//! faster than the disk waits. The buffer that came back last is used next, so that there are no
//! more of them than are full at the same time, and it is still in the processor's cache.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::batch::Job;
use super::reserve::Reserve;

/// Batches waiting per writer.
const QUEUE_PER_WRITER: usize = 4;
/// Buffers that are kept for later; others are freed.
const SPARE_BUFFERS: usize = 16;

/// Writer threads and the queue in front of them.
pub(crate) struct WriterPool {
    queue: Option<Sender<Job>>,
    buffers: Arc<Buffers>,
    writers: Vec<JoinHandle<()>>,
    reserve: Arc<Reserve>,
}

/// Buffers that nobody uses at the moment.
#[derive(Default)]
struct Buffers(Mutex<Vec<Vec<u8>>>);

impl WriterPool {
    /// Starts `writers` threads, or as many as there are to have.
    ///
    /// # Errors
    /// The system has not even one.
    pub(crate) fn new(writers: usize) -> std::io::Result<Self> {
        let writers = writers.max(1);
        let (queue, jobs) = bounded::<Job>(writers * QUEUE_PER_WRITER);
        let buffers = Arc::<Buffers>::default();
        let start = |number| {
            let (jobs, buffers) = (jobs.clone(), Arc::clone(&buffers));
            std::thread::Builder::new()
                .name(format!("writer-{number}"))
                .spawn(move || write_all(&jobs, &buffers))
        };
        let mut started = Vec::new();
        for number in 0..writers {
            match start(number) {
                Ok(writer) => started.push(writer),
                Err(error) if started.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        let reserve = Arc::new(Reserve::new());
        Ok(Self {
            queue: Some(queue),
            buffers,
            writers: started,
            reserve,
        })
    }

    /// Queues a batch; waits while the queue is full.
    pub(super) fn write(&self, job: Job) {
        let queue = self
            .queue
            .as_ref()
            .expect("the queue is closed only by drop");
        queue.send(job).expect("writers live as long as the queue");
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
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_default()
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < SPARE_BUFFERS {
            free.push(buffer);
        }
    }
}

impl Drop for WriterPool {
    fn drop(&mut self) {
        self.queue = None;
        for writer in self.writers.drain(..) {
            // Nothing in there panics any more.
            let _ = writer.join();
        }
    }
}

/// Does all `jobs`. One that panics fails for its tree alone: what others have put into the queue
/// behind it is waited for too, and nobody but a writer takes it out again.
fn write_all(jobs: &Receiver<Job>, buffers: &Buffers) {
    for job in jobs {
        // What a job shares with others, its tree, has been told of the failure.
        if let Ok(Some(buffer)) = catch_unwind(AssertUnwindSafe(|| job.run())) {
            buffers.give_back(buffer);
        }
    }
}
