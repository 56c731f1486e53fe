//! Buffers for decoded bytes: a fixed number of them, used over and over.
//!
//! That number is the memory budget of everything that is decoded and not yet consumed, of all
//! transfers together. A decoder that needs a buffer waits for one. That wait ends, because there
//! are more than two for each transfer: while all threads wait for each other, a decoder holds on
//! to the one that it fills, and a reader whose queue is empty to one that its last files lie in.
//! What lies in the queue of a reader that is gone comes free when its decoder, which no longer
//! waits then, ends.

use std::convert::Infallible;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded, select};

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
        let count = (budget_bytes / BUFFER_BYTES).max(2 * transfers + SPARE_BUFFERS);
        let (back, free) = bounded(count);
        for _ in 0..count {
            // Cannot fail: the channel holds as many as there are.
            let _ = back.send(Vec::new());
        }
        Self { free, back }
    }

    /// A buffer to fill; waits until there is one, or until `reader` is disconnected.
    pub(super) fn take(&self, reader: &Receiver<Infallible>) -> Option<Buffer> {
        let mut bytes = select! {
            // The pool holds a sender itself, so the channel cannot be closed.
            recv(self.free) -> bytes => bytes.unwrap_or_default(),
            recv(reader) -> _ => return None,
        };

        bytes.resize(BUFFER_BYTES, 0);
        Some(Buffer {
            bytes,
            filled: 0,
            back: self.back.clone(),
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoder_whose_reader_is_gone_does_not_wait_for_a_buffer() {
        let pool = BufferPool::new(0, 0);
        let (presence, reader) = bounded(0);
        let taken: Vec<_> = (0..SPARE_BUFFERS)
            .map(|_| pool.take(&reader).expect("one is free"))
            .collect();
        let waiting = std::thread::spawn({
            let (pool, reader) = (pool.clone(), reader.clone());
            move || pool.take(&reader).is_none()
        });
        drop(presence);
        assert!(waiting.join().unwrap());
        drop(taken);
        let (_presence, reader) = bounded(0);
        assert!(pool.take(&reader).is_some(), "they have come back");
    }
}
