//! A queue from the runtime to a caller's thread that is bounded in bytes.
//!
//! The runtime's side never blocks a thread and the caller's side never enters the runtime. A sender reserves
//! the size of a value before it queues it, and the reservation ends when the value is taken
//! out. So a server whose data is not consumed stops being read, instead of filling the memory.
//! A single value larger than the queue takes all of it.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A value in the queue, with its reserved bytes.
#[derive(Debug)]
pub(crate) struct Queued<T> {
    value: T,
    _reserved: Option<Reserved>,
}

/// Space for one value; freed when the value is taken out.
#[derive(Debug)]
pub(super) struct Reserved {
    _permit: OwnedSemaphorePermit,
}

/// The runtime's side of the queue.
#[derive(Debug)]
pub(super) struct QueueSender<T> {
    values: Sender<Queued<T>>,
    free: Arc<Semaphore>,
    capacity_bytes: u32,
}

impl<T> Queued<T> {
    /// Takes the value out; its bytes no longer count.
    #[must_use]
    pub(crate) fn into_inner(self) -> T {
        self.value
    }
}

impl<T> QueueSender<T> {
    /// Waits until there is space for `bytes`.
    pub(super) async fn reserve(&self, bytes: usize) -> Reserved {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.free)
            .acquire_many_owned(bytes.min(self.capacity_bytes))
            .await;
        Reserved {
            _permit: permit.expect("the semaphore is never closed"),
        }
    }

    /// Queues `value` at once. For values of a few bytes whose number is bounded otherwise.
    pub(super) fn send(&self, value: T) {
        // A caller that is gone does not need the value.
        let _ = self.values.send(Queued {
            value,
            _reserved: None,
        });
    }

    /// Queues `value` in the space that was reserved for it. Whether the caller is still there.
    pub(super) fn send_reserved(&self, reserved: Reserved, value: T) -> bool {
        let queued = Queued {
            value,
            _reserved: Some(reserved),
        };
        self.values.send(queued).is_ok()
    }
}

// Derived, it would require `T: Clone`.
impl<T> Clone for QueueSender<T> {
    fn clone(&self) -> Self {
        Self {
            values: self.values.clone(),
            free: Arc::clone(&self.free),
            capacity_bytes: self.capacity_bytes,
        }
    }
}

/// A queue for values of up to `capacity_bytes` in all.
pub(super) fn byte_queue<T>(capacity_bytes: u32) -> (QueueSender<T>, Receiver<Queued<T>>) {
    let (values, receiver) = crossbeam_channel::unbounded();
    let free = Arc::new(Semaphore::new(capacity_bytes as usize));
    let sender = QueueSender {
        values,
        free,
        capacity_bytes,
    };
    (sender, receiver)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn values_wait_for_space() {
        let (sender, receiver) = byte_queue(100);
        let mut sent = 0;
        while let Some(reserved) = sender.reserve(10).now_or_never() {
            assert!(sender.send_reserved(reserved, "ten bytes."));
            sent += 1;
        }
        assert_eq!(sent, 10);

        assert_eq!(receiver.recv().unwrap().into_inner(), "ten bytes.");
        assert!(sender.reserve(10).now_or_never().is_some());
        assert!(sender.reserve(1000).now_or_never().is_none());
        receiver.try_iter().for_each(drop);
        assert!(
            sender.reserve(1000).now_or_never().is_some(),
            "alone it fits"
        );
    }
}
