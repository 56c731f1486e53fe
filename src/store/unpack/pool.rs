//! The threads that write small files, shared by all trees that are being unpacked.
//!
//! The queue is short and its buffers come back: that bounds the memory of everything on its
//! way to disk, and a reader that is faster than the disk waits.

use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::batch::Batch;

/// Batches waiting per writer.
const QUEUE_PER_WRITER: usize = 4;

/// Whether files come out of `open` with the mode that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CreatedModes {
    /// Yes: the umask takes nothing away from 0555.
    Exact,
    /// No: the mode has to be set again.
    Masked,
}

/// Writer threads and the queue in front of them.
pub struct WriterPool {
    queue: Option<Sender<Batch>>,
    buffers: Receiver<Vec<u8>>,
    writers: Vec<JoinHandle<()>>,
    created_modes: CreatedModes,
}

impl WriterPool {
    /// Starts `writers` threads.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn new(writers: usize) -> std::io::Result<Self> {
        let writers = writers.max(1);
        let (queue, batches) = bounded::<Batch>(writers * QUEUE_PER_WRITER);
        let (back, buffers) = bounded(writers * (QUEUE_PER_WRITER + 1));
        let start = |number| {
            let (batches, back) = (batches.clone(), back.clone());
            std::thread::Builder::new()
                .name(format!("writer-{number}"))
                .spawn(move || write_all(&batches, &back))
        };
        let writers = (0..writers).map(start).collect::<Result<_, _>>()?;
        Ok(Self { queue: Some(queue), buffers, writers, created_modes: created_modes() })
    }

    /// Queues a batch; waits while the queue is full.
    pub(super) fn write(&self, batch: Batch) {
        let queue = self.queue.as_ref().expect("the queue is closed only by drop");
        if let Err(unsent) = queue.send(batch) {
            // Every writer has died of a panic; do its work here rather than lose the batch.
            unsent.into_inner().write();
        }
    }

    /// An empty buffer, used before if there is one.
    pub(super) fn buffer(&self) -> Vec<u8> {
        self.buffers.try_recv().unwrap_or_default()
    }

    pub(super) fn created_modes(&self) -> CreatedModes {
        self.created_modes
    }
}

impl Drop for WriterPool {
    fn drop(&mut self) {
        self.queue = None;
        for writer in self.writers.drain(..) {
            // A panic was already reported by the thread itself.
            let _ = writer.join();
        }
    }
}

fn write_all(batches: &Receiver<Batch>, back: &Sender<Vec<u8>>) {
    for batch in batches {
        // With enough spare buffers this one is simply freed.
        let _ = back.try_send(batch.write());
    }
}

/// The umask can only be read by changing it, or from here.
fn created_modes() -> CreatedModes {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    match umask.and_then(|digits| u32::from_str_radix(digits.trim(), 8).ok()) {
        Some(mask) if mask & 0o555 == 0 => CreatedModes::Exact,
        _ => CreatedModes::Masked,
    }
}
