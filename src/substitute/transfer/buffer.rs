//! Buffers for decoded bytes: a fixed number of them, used over and over.
//!
//! That number is the memory budget of everything that is decoded and not yet consumed, of all
//! transfers together. Who needs a buffer waits for one. Who consumes never needs one, and holds on
//! to one at the most while it waits for more, so with more buffers than transfers the wait ends.

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};

/// Bytes in a buffer.
pub(super) const BUFFER_BYTES: usize = 256 << 10;

/// The buffers of a run.
#[derive(Clone)]
pub(super) struct BufferPool {
    free: Receiver<Vec<u8>>,
    back: Sender<Vec<u8>>,
}

/// A buffer that goes back to its pool.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    filled: usize,
    back: Sender<Vec<u8>>,
}

impl BufferPool {
    /// Buffers for `budget_bytes` in all, or as many as `transfers` need. They are allocated when
    /// first used.
    #[must_use]
    pub(super) fn new(budget_bytes: usize, transfers: usize) -> Self {
        let count = (budget_bytes / BUFFER_BYTES).max(transfers + SPARE_BUFFERS);
        let (back, free) = bounded(count);
        for _ in 0..count {
            // Cannot fail: the channel holds as many as there are.
            let _ = back.send(Vec::new());
        }
        Self { free, back }
    }

    /// A buffer to fill; waits until there is one.
    pub(super) fn take(&self) -> Buffer {
        // The pool holds a sender itself, so the channel cannot be closed.
        let mut bytes = self.free.recv().unwrap_or_default();
        bytes.resize(BUFFER_BYTES, 0);
        Buffer { bytes, filled: 0, back: self.back.clone() }
    }
}

impl Buffer {
    /// The part that is still to be filled.
    pub(super) fn unfilled(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    /// `count` more bytes have been filled.
    pub(super) fn advance(&mut self, count: usize) {
        self.filled += count;
    }

    /// The filled bytes; the buffer goes back when the last slice of them is dropped.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Fails only when the pool is gone, and then the memory is simply freed.
        let _ = self.back.try_send(std::mem::take(&mut self.bytes));
    }
}

/// Fewer would let a decoder and its consumer work in turns instead of side by side.
const SPARE_BUFFERS: usize = 8;
