//! The contents of one file of a nar, as a reader that ends where they do.

use std::io::{self, BufRead, Read};

use bytes::Bytes;

use super::{NarReader, NarReaderState, at_most};
use crate::format::nar::NarError;

/// Reads the contents of one file, and not a byte more. If the stream ends before the contents do,
/// reading fails with an error that `?` converts back to a [`NarError`].
pub struct NarContents<'r, R> {
    pub(super) reader: &'r mut NarReader<R>,
}

impl<R> NarContents<'_, R> {
    fn remaining(&self) -> u64 {
        match self.reader.state {
            NarReaderState::InContents { remaining, .. } => remaining,
            _ => 0,
        }
    }

    fn advance(&mut self, bytes: usize) {
        if let NarReaderState::InContents { remaining, .. } = &mut self.reader.state {
            *remaining -= bytes as u64;
            self.reader.offset += bytes as u64;
        }
    }

    /// The underlying stream.
    #[must_use]
    pub(crate) fn inner(&self) -> &R {
        &self.reader.inner
    }

    /// The next bytes, which `take` reads from the stream, at most as many as its second argument;
    /// empty at the end of the contents.
    ///
    /// # Errors
    /// The stream fails or ends early.
    pub(crate) fn next_bytes_by(
        &mut self,
        take: impl FnOnce(&mut R, usize) -> io::Result<Bytes>,
    ) -> io::Result<Bytes> {
        let wanted = at_most(usize::MAX, self.remaining());
        if wanted == 0 {
            return Ok(Bytes::new());
        }

        let bytes = take(&mut self.reader.inner, wanted)?;
        if bytes.is_empty() {
            return Err(NarError::Truncated {
                offset: self.reader.offset,
            }
            .into());
        }

        self.advance(bytes.len());
        Ok(bytes)
    }
}

impl<R: BufRead> Read for NarContents<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = at_most(buffer.len(), self.remaining());
        if wanted == 0 {
            return Ok(0);
        }

        let read = self.reader.inner.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(NarError::Truncated {
                offset: self.reader.offset,
            }
            .into());
        }

        self.advance(read);
        Ok(read)
    }
}
