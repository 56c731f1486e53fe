//! Readers that can hand on their bytes without a copy.

use std::io::{self, BufRead};

use bytes::Bytes;

/// A reader whose bytes lie in shared buffers, so that they can be handed on without a copy.
pub trait SharedRead: BufRead {
    /// The next bytes at hand, at most `max`; none at the end.
    ///
    /// # Errors
    /// As for reading.
    fn next_bytes(&mut self, max: usize) -> io::Result<Bytes>;
}

impl SharedRead for &[u8] {
    fn next_bytes(&mut self, max: usize) -> io::Result<Bytes> {
        let (bytes, rest) = self.split_at(max.min(self.len()));
        *self = rest;
        Ok(Bytes::copy_from_slice(bytes))
    }
}

impl<R: SharedRead + ?Sized> SharedRead for &mut R {
    fn next_bytes(&mut self, max: usize) -> io::Result<Bytes> {
        (**self).next_bytes(max)
    }
}
