//! Brotli (RFC 7932), one stream that ends where the input does.
//!
//! The window is at most 16 MiB: the streams with larger ones, which are not part of the RFC, are
//! refused.

use std::io::{self, BufRead, Read};

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

/// What a decoder needs besides its window: codes and context maps, of which there may be 256.
const TABLES_BYTES: u64 = 4 << 20;

/// Reads the decoded bytes of the brotli stream in `R`.
pub(super) struct BrotliReader<R> {
    input: R,
    state: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    is_at_end: bool,
}

impl<R: BufRead> BrotliReader<R> {
    pub(super) fn new(input: R) -> Self {
        let [bytes, words, codes] = [(); 3].map(|()| StandardAlloc::default());
        Self {
            input,
            state: BrotliState::new_strict(bytes, words, codes),
            is_at_end: false,
        }
    }
}

impl<R: BufRead> Read for BrotliReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.is_at_end && !buffer.is_empty() {
            let available = self.input.fill_buf()?;
            let is_input_at_end = available.is_empty();
            let (mut left, mut taken) = (available.len(), 0);
            let (mut room, mut given, mut total) = (buffer.len(), 0, 0);
            let result = BrotliDecompressStream(
                &mut left,
                &mut taken,
                available,
                &mut room,
                &mut given,
                buffer,
                &mut total,
                &mut self.state,
            );
            self.input.consume(taken);

            match result {
                BrotliResult::ResultSuccess => self.is_at_end = true,
                BrotliResult::ResultFailure => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "corrupt brotli stream",
                    ));
                }
                BrotliResult::NeedsMoreInput if is_input_at_end && given == 0 => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "incomplete brotli stream",
                    ));
                }
                BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
            }
            if given > 0 {
                return Ok(given);
            }
        }

        if !buffer.is_empty() && !self.input.fill_buf()?.is_empty() {
            let text = "bytes follow the end of the compressed stream";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(0)
    }
}

/// The bytes of memory that decoding a stream that begins with `head` takes, from its first bits
/// (section 9.1).
pub(super) fn needed_bytes(head: &[u8]) -> Option<u64> {
    let first = *head.first()?;
    let bits = match (first & 1, first >> 1 & 7, first >> 4 & 7) {
        (0, ..) => 16,
        (_, 0, 0) => 17,
        (_, 0, 1) => return None,
        (_, 0, more) => 8 + more,
        (_, more, _) => 17 + more,
    };
    Some((1 << bits) + TABLES_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_read_as_the_format_describes_it() {
        for (first, bits) in [
            (0x00, 16),
            (0x01, 17),
            (0x03, 18),
            (0x0f, 24),
            (0x21, 10),
            (0x71, 15),
        ] {
            assert_eq!(
                needed_bytes(&[first]),
                Some((1 << bits) + TABLES_BYTES),
                "{first:#x}"
            );
        }
        // Reserved, and used by streams with large windows.
        assert_eq!(needed_bytes(&[0x11]), None);
        assert_eq!(needed_bytes(&[]), None);
    }

    #[test]
    fn a_large_window_is_refused() {
        let mut decoded = Vec::new();
        let large = BrotliReader::new(&[0x11, 30, 3][..]).read_to_end(&mut decoded);
        assert_eq!(large.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
