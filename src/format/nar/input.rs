//! The strings of a nar, read from a stream whose position is counted for errors.

use std::io::{self, BufRead};

use super::error::NarError;
use super::wire::{Keyword, padding};

/// A stream of bytes, and how many of them have been read.
pub(super) struct NarInput<R> {
    pub(super) stream: R,
    pub(super) offset: u64,
}

impl<R: BufRead> NarInput<R> {
    /// Reads a string that is shorter than `buffer`, whose size is a multiple of eight.
    pub(super) fn string<'b>(
        &mut self,
        buffer: &'b mut [u8],
        what: &'static str,
    ) -> Result<&'b [u8], NarError> {
        let offset = self.offset;
        let len = self.length()?;
        let fits = usize::try_from(len).ok().filter(|&len| len < buffer.len());
        let Some(size) = fits else {
            return Err(NarError::TooLong { what, len, offset });
        };

        let padded = &mut buffer[..size + padding(len)];
        self.exact(padded)?;
        let (string, zeros) = padded.split_at(size);
        if zeros.iter().any(|&byte| byte != 0) {
            return Err(NarError::Padding {
                offset: self.offset - zeros.len() as u64,
            });
        }

        Ok(string)
    }

    /// Reads one of the strings between which the grammar leaves a choice.
    pub(super) fn keyword(&mut self) -> Result<Option<Keyword>, NarError> {
        let mut bytes = [0; 16];
        let len = self.length()?;
        let padded = match len {
            1..=8 => 8,
            9..=16 => 16,
            _ => return Ok(None),
        };
        self.exact(&mut bytes[..padded])?;

        Ok(Keyword::parse(len, bytes))
    }

    pub(super) fn length(&mut self) -> Result<u64, NarError> {
        let mut bytes = [0; 8];
        self.exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Reads the bytes `expected`; an error names the offset at which they should begin.
    pub(super) fn fixed(
        &mut self,
        mut expected: &[u8],
        what: &'static str,
    ) -> Result<(), NarError> {
        let offset = self.offset;
        while !expected.is_empty() {
            let available = self.fill()?;
            let step = available.len().min(expected.len());
            let (now, later) = expected.split_at(step);
            if available[..step] != *now {
                return Err(NarError::Unexpected {
                    offset,
                    expected: what,
                });
            }

            self.consume(step);
            expected = later;
        }

        Ok(())
    }

    pub(super) fn exact(&mut self, mut wanted: &mut [u8]) -> Result<(), NarError> {
        while !wanted.is_empty() {
            let available = self.fill()?;
            let step = available.len().min(wanted.len());
            let (now, later) = wanted.split_at_mut(step);
            now.copy_from_slice(&available[..step]);
            self.consume(step);
            wanted = later;
        }
        Ok(())
    }

    /// The buffered bytes, at least one. Calls `fill_buf` twice because a borrow cannot leave a loop
    /// that continues after an interrupt; the second call returns what the first one buffered.
    pub(super) fn fill(&mut self) -> Result<&[u8], NarError> {
        loop {
            match self.stream.fill_buf() {
                Ok([]) => {
                    return Err(NarError::Truncated {
                        offset: self.offset,
                    });
                }
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.stream.fill_buf()?)
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        self.stream.consume(bytes);
        self.offset += bytes as u64;
    }
}
