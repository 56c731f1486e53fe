//! The compressed bytes of a nar on their way to the decoder: not more than its size can take, and
//! none after an interrupt.
//!
//! A decoder may take any amount of input that stands for nothing: empty frames, members and
//! streams, padding, frames to be skipped. So both are checked here, wherever it reads.

use std::io::{self, BufRead, Read};
use std::sync::{Arc, OnceLock};

use crate::substitute::cancel::Cancel;
use crate::substitute::download::errors::TransferError;

/// What a compression method may add to bytes that cannot be compressed: an eighth of them,
const OVERHEAD_PART: u64 = 8;
/// and this many bytes.
const OVERHEAD_BYTES: u64 = 1 << 20;

/// The most bytes that a nar of `nar_size` bytes takes when it is compressed.
pub(super) fn compressed_bytes_max(nar_size: u64) -> u64 {
    nar_size
        .saturating_add(nar_size / OVERHEAD_PART)
        .saturating_add(OVERHEAD_BYTES)
}

/// Input for a decoder.
pub(super) struct DecoderInput<R> {
    inner: R,
    left: u64,
    limit: u64,
    cancel: Cancel,
    stopped: StopReason,
}

/// Why the input ended early, if it did.
#[derive(Clone, Default)]
pub(super) struct StopReason(Arc<OnceLock<TransferError>>);

impl StopReason {
    pub(super) fn error(&self) -> Option<TransferError> {
        self.0.get().cloned()
    }
}

impl<R> DecoderInput<R> {
    /// Gives what `inner` gives for a nar of `nar_size` bytes.
    pub(super) fn new(inner: R, nar_size: u64, cancel: Cancel, stopped: StopReason) -> Self {
        let limit = compressed_bytes_max(nar_size);
        Self {
            inner,
            left: limit,
            limit,
            cancel,
            stopped,
        }
    }

    fn stop(&self, error: TransferError) -> io::Error {
        let text = error.to_string();
        // Only the first counts: what follows is its consequence.
        let _ = self.stopped.0.set(error);
        io::Error::other(text)
    }
}

impl<R: BufRead> BufRead for DecoderInput<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.cancel.is_canceled() {
            return Err(self.stop(TransferError::Canceled));
        }
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        if left == 0 && !self.inner.fill_buf()?.is_empty() {
            return Err(self.stop(TransferError::TooMuchInput(self.limit)));
        }

        let available = self.inner.fill_buf()?;
        Ok(&available[..available.len().min(left)])
    }

    fn consume(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count as u64);
        self.inner.consume(count);
    }
}

impl<R: BufRead> Read for DecoderInput<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;
    use crate::codec::decoders::{DecoderMemory, Decoders};
    use crate::format::compression::Compression;

    /// Gives the same bytes again and again, and stops a little later when it is to.
    struct Endless {
        unit: Vec<u8>,
        at: usize,
        cancel: Option<(u64, Cancel)>,
    }

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let rest = &self.unit[self.at..];
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            self.at = (self.at + count) % self.unit.len();
            if let Some((left, cancel)) = &mut self.cancel {
                *left = left.saturating_sub(count as u64);
                if *left == 0 {
                    cancel.cancel();
                }
            }
            Ok(count)
        }
    }

    /// Pieces that stand for no bytes.
    fn empty_pieces() -> Vec<(Compression, Vec<u8>)> {
        let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        let xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
        let skippable = [&b"\x50\x2a\x4d\x18\x00\x01\0\0"[..], &[7; 256]].concat();
        vec![
            (Compression::Zstd, zstd::encode_all(&b""[..], 1).unwrap()),
            (Compression::Zstd, skippable),
            (Compression::Gzip, gzip.finish().unwrap()),
            (Compression::Bzip2, bzip2.finish().unwrap()),
            (Compression::Xz, xz.finish().unwrap()),
        ]
    }

    fn decode(method: Compression, input: impl BufRead + Send) -> bool {
        let memory = DecoderMemory {
            streams_bytes: 64 << 20,
            all_bytes: 64 << 20,
        };
        Decoders::new(memory, 4)
            .decode(method, input, |reader| io::copy(reader, &mut io::sink()))
            .is_ok_and(|copied| copied.is_ok())
    }

    #[test]
    fn empty_pieces_without_end_are_given_up() {
        for (method, unit) in empty_pieces() {
            let stopped = StopReason::default();
            let endless = BufReader::new(Endless {
                unit,
                at: 0,
                cancel: None,
            });
            let input = DecoderInput::new(endless, 1000, Cancel::default(), stopped.clone());
            assert!(!decode(method, input), "{method}");
            let limit = 1000 + 125 + (1 << 20);
            let is_limit =
                matches!(stopped.error(), Some(TransferError::TooMuchInput(n)) if n == limit);
            assert!(is_limit, "{method}: {:?}", stopped.error());
        }
    }

    #[test]
    fn empty_pieces_end_when_the_user_wants_to_stop() {
        for (method, unit) in empty_pieces() {
            let (stopped, cancel) = (StopReason::default(), Cancel::default());
            let endless = Endless {
                unit,
                at: 0,
                cancel: Some((1 << 20, cancel.clone())),
            };
            let input =
                DecoderInput::new(BufReader::new(endless), u64::MAX, cancel, stopped.clone());
            assert!(!decode(method, input), "{method}");
            assert!(
                matches!(stopped.error(), Some(TransferError::Canceled)),
                "{method}"
            );
        }
    }

    #[test]
    fn what_a_nar_can_take_is_let_through() {
        let cancel = Cancel::default();
        let bytes = vec![7; 125 + 1000 + (1 << 20)];
        let mut whole = Vec::new();
        DecoderInput::new(&bytes[..], 1000, cancel, StopReason::default())
            .read_to_end(&mut whole)
            .unwrap();
        assert_eq!(whole, bytes);
    }
}
