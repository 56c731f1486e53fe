//! Decoders that are reused, and share the memory and the threads set aside for them.
//!
//! A decoder's window is the largest allocation of a transfer: a nar whose decoder does not fit in
//! the budget waits until others have been decoded.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use crate::format::compression::Compression;

use super::ahead::{DecodeAhead, DecodeWorkers, PieceReader};
pub use super::budget::DecoderMemory;
use super::budget::MemoryBudget;
use super::decode::decoder;
use super::memory::needed_bytes;
use super::xz_blocks::XzBlocks;
use super::zstd_frames::ZstdFrames;

/// Decodes many nars within one memory budget.
pub struct Decoders {
    pub(super) ahead: DecodeAhead,
}

impl Decoders {
    /// Decoders that together take at most `memory` and keep up to `cores` cores busy, the calling
    /// thread included, where a nar consists of pieces. Threads are started when they are needed.
    #[must_use]
    pub fn new(memory: DecoderMemory, cores: usize) -> Self {
        // The thread that reads keeps one core busy.
        let workers = Arc::new(DecodeWorkers::new(cores.saturating_sub(1)));
        let budget = MemoryBudget::new(memory);
        Self {
            ahead: DecodeAhead {
                workers,
                budget,
                contexts: Arc::default(),
            },
        }
    }

    /// Calls `consume` with a reader of the decoded bytes of `input`, and returns its result. Waits
    /// until the budget has memory for the decoder.
    ///
    /// # Errors
    /// The input's first bytes cannot be read, or the decoder cannot be created. Malformed,
    /// truncated or trailing input is an error of the reader that `consume` is given.
    pub fn decode<T>(
        &self,
        compression: Compression,
        mut input: impl BufRead + Send,
        consume: impl FnOnce(&mut dyn Read) -> T,
    ) -> io::Result<T> {
        let needed = needed_bytes(compression, input.fill_buf()?);
        let _share = self.ahead.budget.stream(needed);
        match compression {
            Compression::Zstd => {}
            Compression::Xz => {
                let blocks = XzBlocks::default();
                return Ok(consume(&mut PieceReader::new(
                    input,
                    blocks,
                    self.ahead.clone(),
                )));
            }
            // Their streams do not consist of pieces that can be told apart in advance.
            Compression::None
            | Compression::Lz4
            | Compression::Gzip
            | Compression::Brotli
            | Compression::Lzip
            | Compression::Bzip2 => return Ok(consume(&mut *decoder(compression, input)?)),
        }

        let mut context = self.ahead.contexts.take();
        let frames = ZstdFrames::new(&mut context)?;
        let consumed = consume(&mut PieceReader::new(input, frames, self.ahead.clone()));
        self.ahead.contexts.keep(context);

        Ok(consumed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn memory(bytes: u64) -> DecoderMemory {
        DecoderMemory {
            streams_bytes: bytes,
            all_bytes: bytes,
        }
    }

    #[test]
    fn a_context_is_fit_for_use_after_a_broken_stream() {
        let decoders = Decoders::new(memory(1 << 20), 1);
        let good = zstd::encode_all(&[5; 100_000][..], 3).unwrap();
        for _ in 0..3 {
            let broken = &good[..good.len() - 3];
            let read = decoders.decode(Compression::Zstd, broken, |reader| {
                io::copy(reader, &mut io::sink())
            });
            assert!(read.unwrap().is_err());
            let mut bytes = Vec::new();
            let read = |reader: &mut dyn Read| reader.read_to_end(&mut bytes);
            decoders
                .decode(Compression::Zstd, &good[..], read)
                .unwrap()
                .unwrap();
            assert_eq!(bytes, [5; 100_000]);
        }
        assert_eq!(decoders.ahead.contexts.count(), 1);
    }

    #[test]
    fn no_more_run_than_fit_and_a_huge_one_runs_alone() {
        let decoders = Decoders::new(memory(20 << 20), 2);
        let running = AtomicUsize::new(0);
        // Unknown input counts 16 MiB, so each of these fills the budget alone.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let decoded = decoders.decode(Compression::Zstd, &b"unknown"[..], |_| {
                        assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        running.fetch_sub(1, Ordering::SeqCst);
                    });
                    decoded.unwrap();
                });
            }
        });
        assert!(decoders.ahead.budget.is_unused());
    }
}
