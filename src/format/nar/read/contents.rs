//! The contents of one file of a nar, as a reader that ends where they do.

use std::io::{self, BufRead, Read};

use bytes::Bytes;

use super::{NarReader, State, at_most};
use crate::format::nar::NarError;

/// The contents of one file, and not a byte more. The end of the stream before the end of the
/// contents is an error, which goes back into a [`NarError`] by `?`.
pub struct NarContents<'r, R> {
    pub(super) reader: &'r mut NarReader<R>,
}

impl<R> NarContents<'_, R> {
    fn remaining(&self) -> u64 {
        match self.reader.state {
            State::InContents { remaining, .. } => remaining,
            _ => 0,
        }
    }

    fn advance(&mut self, bytes: usize) {
        if let State::InContents { remaining, .. } = &mut self.reader.state {
            *remaining -= bytes as u64;
            self.reader.offset += bytes as u64;
        }
    }

    /// The stream they are read from.
    #[must_use]
    pub fn inner(&self) -> &R {
        &self.reader.inner
    }

    /// The next bytes, taken from the stream by `take`, which gives as many as it is told at the
    /// most; none at the end of the contents.
    ///
    /// # Errors
    /// As for reading.
    pub fn next_bytes_by(
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
