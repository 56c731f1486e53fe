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
        let share = self.ahead.budget.stream(needed);
        let blocks = match compression {
            Compression::Zstd => {
                let mut context = self.ahead.contexts.take();
                let frames = ZstdFrames::new(&mut context, share)?;
                let consumed = consume(&mut PieceReader::new(input, frames, self.ahead.clone()));
                self.ahead.contexts.keep(context);
                return Ok(consumed);
            }
            Compression::Xz => XzBlocks::new(share),
            Compression::Lzip => XzBlocks::lzip(share)?,
            // Their streams do not consist of pieces that can be told apart in advance.
            Compression::None
            | Compression::Lz4
            | Compression::Gzip
            | Compression::Brotli
            | Compression::Bzip2 => return Ok(consume(&mut *decoder(compression, input)?)),
        };

        Ok(consume(&mut PieceReader::new(
            input,
            blocks,
            self.ahead.clone(),
        )))
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

    /// The zstd library takes a block that is larger than the maximum (RFC 8878, 3.1.1.2.4) if it decodes the frame in
    /// one piece.
    #[test]
    fn a_frame_that_is_refused_as_it_arrives_is_not_decoded_ahead() {
        const INPUT: &[u8] =
            include_bytes!("../../tests/fuzz/corpus/decode/zstd-block-larger-than-its-maximum");
        let stream = &INPUT[1..];
        let read = |reader: &mut dyn Read| io::copy(&mut reader.take(1 << 20), &mut io::sink());
        let serial = read(&mut *decoder(Compression::Zstd, stream).unwrap());
        serial.unwrap_err();
        let decoders = Decoders::new(memory(28 << 20), 4);
        let ahead = decoders.decode(Compression::Zstd, stream, read);
        ahead.unwrap().unwrap_err();
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

    /// The bytes in use while the reader of a nar is at each byte of it.
    fn most_used(compression: Compression, stream: &[u8], streams_bytes: u64) -> (u64, Vec<u8>) {
        let decoders = Decoders::new(memory(streams_bytes), 1);
        let (mut most, mut bytes) = (0, Vec::new());
        let read = |reader: &mut dyn Read| -> io::Result<()> {
            let mut byte = [0];
            while reader.read(&mut byte)? > 0 {
                bytes.push(byte[0]);
                most = most.max(decoders.ahead.budget.used_by_streams());
            }
            Ok(())
        };
        // The later headers do not arrive in one piece.
        let input = io::BufReader::with_capacity(33, stream);
        decoders.decode(compression, input, read).unwrap().unwrap();
        assert!(decoders.ahead.budget.is_unused());
        (most, bytes)
    }

    #[test]
    fn a_later_frame_block_or_member_takes_what_it_needs() {
        const MIB: u64 = 1 << 20;
        let zstd = |window_log| {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(window_log).unwrap();
            io::Write::write_all(&mut encoder, &[5; 100]).unwrap();
            encoder.finish().unwrap()
        };
        let xz = |mebibytes: u32, has_lengths| {
            let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
            options.dict_size(mebibytes << 20);
            let mut filters = liblzma::stream::Filters::new();
            filters.lzma2(&options);
            let mut stream = liblzma::stream::MtStreamBuilder::new();
            stream.filters(filters);
            let check = liblzma::stream::Check::Crc32;
            let encoder = match has_lengths {
                // Only this one declares the lengths of blocks.
                true => stream.threads(1).check(check).encoder(),
                false => {
                    let mut filters = liblzma::stream::Filters::new();
                    filters.lzma2(&options);
                    liblzma::stream::Stream::new_stream_encoder(&filters, check)
                }
            };
            let mut packed = Vec::new();
            liblzma::read::XzEncoder::new_stream(&[5; 100][..], encoder.unwrap())
                .read_to_end(&mut packed)
                .unwrap();
            packed
        };
        let lzip = |size: u8| {
            let mut member = crate::codec::decode::tests::lzip_of(&[5; 100]);
            member[5] = size;
            member
        };
        for (method, small, large) in [
            (Compression::Zstd, zstd(20), zstd(25)),
            (Compression::Xz, xz(1, true), xz(32, true)),
            (Compression::Xz, xz(1, false), xz(32, false)),
            (Compression::Lzip, lzip(20), lzip(25)),
        ] {
            let (first, bytes) = most_used(method, &small, 100 * MIB);
            assert_eq!(bytes, [5; 100]);
            assert!((MIB..2 * MIB).contains(&first), "{method}: {first}");

            let stream = [small, large].concat();
            let (most, bytes) = most_used(method, &stream, 100 * MIB);
            assert_eq!(bytes, [5; 200]);
            assert!((32 * MIB..33 * MIB).contains(&most), "{method}: {most}");
            let (most, _) = most_used(method, &stream, 30 * MIB);
            assert_eq!(most, 20 * MIB, "{method}: the largest share");
        }
    }

    #[test]
    fn the_estimate_of_the_first_block_is_enough() {
        let xz = liblzma::encode_all(&[5; 100][..], 6).unwrap();
        let lzip = crate::codec::decode::tests::lzip_of(&[5; 100]);
        for (method, stream) in [(Compression::Xz, xz), (Compression::Lzip, lzip)] {
            let (most, _) = most_used(method, &stream, 100 << 20);
            assert_eq!(most, needed_bytes(method, &stream), "{method}");
        }
    }
}
