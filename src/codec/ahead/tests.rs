//! Whatever the input is made of, decoding ahead and the serial decoders agree: on the bytes, and
//! on whether it is valid.

use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{PieceFormat, PieceReader, PieceScanner, PieceSizes, ScanStep};
use crate::codec::decode::decoder;
use crate::codec::decoders::{DecoderMemory, Decoders};
use crate::codec::xz_container::{StreamHeader, XzBlock, block, tail};
use crate::format::compression::Compression;

const SKIPPABLE: &[u8] = b"\x53\x2a\x4d\x18\x05\0\0\0skip!";

fn decoders() -> Decoders {
    Decoders::new(
        DecoderMemory {
            streams_bytes: 32 << 20,
            all_bytes: 64 << 20,
        },
        4,
    )
}

/// What came before the end or an error, and which of them it was.
type Outcome = (Vec<u8>, Result<(), String>);

fn read_all(reader: &mut dyn Read) -> Outcome {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 777]);
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return (bytes, Ok(())),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) => return (bytes, Err(error.to_string())),
        }
    }
}

fn ahead(decoders: &Decoders, method: Compression, stream: &[u8], chunk: usize) -> Outcome {
    let input = BufReader::with_capacity(chunk, stream);
    let outcome = decoders.decode(method, input, read_all).unwrap();
    // A task that has begun ends, whether or not a reader waits for it.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !decoders.ahead.budget.is_unused() {
        assert!(Instant::now() < deadline, "memory is not given back");
        std::thread::yield_now();
    }
    outcome
}

/// Both ways of decoding say the same; whether the stream is valid.
#[track_caller]
fn agree(decoders: &Decoders, method: Compression, stream: &[u8], chunk: usize) -> bool {
    let (bytes, ended) = read_all(&mut *decoder(method, stream).unwrap());
    let (found, found_end) = ahead(decoders, method, stream, chunk);
    assert_eq!(
        ended.is_ok(),
        found_end.is_ok(),
        "{method}: {ended:?}, {found_end:?}"
    );
    assert!(
        bytes.starts_with(&found) || found.starts_with(&bytes),
        "{method}: other bytes"
    );
    assert!(ended.is_err() || bytes == found, "{method}: other bytes");
    ended.is_ok()
}

fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let word = (random.u32(..50)).to_le_bytes();
        bytes.extend(std::iter::repeat_n(word, random.usize(1..9)).flatten());
    }
    bytes.truncate(length);
    bytes
}

fn frame(content: &[u8], has_size: bool, has_checksum: bool) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(has_checksum).unwrap();
    encoder.include_contentsize(has_size).unwrap();
    if has_size {
        encoder
            .set_pledged_src_size(Some(content.len() as u64))
            .unwrap();
    }
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Frames that say what they are, each large enough for a piece.
fn frames(count: u64, length: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|seed| frame(&content(length, seed), true, true))
        .collect()
}

fn xz(content: &[u8], block: u64, threads: u32) -> Vec<u8> {
    let mut stream = liblzma::stream::MtStreamBuilder::new();
    let stream = stream
        .preset(0)
        .threads(threads)
        .block_size(block)
        .encoder()
        .unwrap();
    let mut packed = Vec::new();
    liblzma::read::XzEncoder::new_stream(content, stream)
        .read_to_end(&mut packed)
        .unwrap();
    packed
}

/// A stream for each method that is cut in pieces.
fn streams() -> [(Compression, Vec<u8>); 2] {
    let frames = frames(6, 1500);
    let zstd = [&frames[0], SKIPPABLE, &frames[1..].concat(), SKIPPABLE].concat();
    [
        (Compression::Zstd, zstd),
        (Compression::Xz, xz(&content(6 * 1500, 1), 1500, 1)),
    ]
}

#[derive(Debug, Clone)]
struct Part {
    length: usize,
    has_size: bool,
    has_checksum: bool,
    skippable: bool,
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let part = (
        0usize..6000,
        prop::bool::weighted(0.8),
        any::<bool>(),
        prop::bool::weighted(0.2),
    );
    let part = part.prop_map(|(length, has_size, has_checksum, skippable)| Part {
        length,
        has_size,
        has_checksum,
        skippable,
    });
    prop::collection::vec(part, 0..12)
}

proptest! {
    #[test]
    fn zstd_frames_of_all_kinds(parts in parts(), chunk in 1usize..3000) {
        let mut stream = Vec::new();
        for (part, seed) in parts.iter().zip(0..) {
            let content = content(part.length, seed);
            stream.extend(frame(&content, part.has_size, part.has_checksum));
            stream.extend(if part.skippable { SKIPPABLE } else { &[] });
        }
        // Nothing at all is not a stream.
        let is_right = !parts.is_empty();
        prop_assert_eq!(agree(&decoders(), Compression::Zstd, &stream, chunk), is_right);
    }

    #[test]
    fn xz_blocks_and_streams_of_all_kinds(
        parts in prop::collection::vec((0usize..9000, 1u64..5000, any::<bool>(), 0usize..9), 1..4),
        chunk in 1usize..3000,
    ) {
        let (mut stream, mut is_right) = (Vec::new(), true);
        for ((length, block, is_plain, padding), seed) in parts.into_iter().zip(0..) {
            let content = content(length, seed);
            stream.extend(match is_plain {
                true => liblzma::encode_all(&content[..], 0).unwrap(),
                false => xz(&content, block.max(length as u64 / 20), 1),
            });
            stream.resize(stream.len() + padding, 0);
            is_right &= padding % 4 == 0;
        }
        prop_assert_eq!(agree(&decoders(), Compression::Xz, &stream, chunk), is_right);
    }

    #[test]
    fn damaged_bytes(position in any::<prop::sample::Index>(), bit in 0u8..8, chunk in 1usize..3000) {
        let decoders = decoders();
        for (method, mut stream) in streams() {
            let position = position.index(stream.len());
            stream[position] ^= 1 << bit;
            agree(&decoders, method, &stream, chunk);
        }
    }
}

#[test]
fn every_truncation() {
    let decoders = decoders();
    for (method, stream) in streams() {
        let mut valid = 0;
        for length in 0..stream.len() {
            valid += usize::from(agree(&decoders, method, &stream[..length], 1000));
        }
        // The first seven of eight frames are a stream, too; of xz only the whole is valid.
        let boundaries = if method == Compression::Zstd { 7 } else { 0 };
        assert_eq!(valid, boundaries, "{method}");
    }
}

#[test]
fn a_flipped_bit_of_content_is_an_error() {
    let decoders = decoders();
    for (method, stream) in streams() {
        for tenth in 1..9 {
            let mut stream = stream.clone();
            let middle = stream.len() * tenth / 10;
            stream[middle] ^= 4;
            let right = read_all(&mut *decoder(method, &stream[..]).unwrap());
            let found = ahead(&decoders, method, &stream, 4096);
            assert!(
                right.1.is_ok() && found == right || found.1.is_err(),
                "{method} {tenth}"
            );
        }
    }
}

#[test]
fn bytes_behind_the_end_are_an_error() {
    let decoders = decoders();
    for (method, stream) in streams() {
        for more in [&b"more"[..], &[0], &[0; 3], b"\x28", b"\xfd7z"] {
            let stream = [&stream, more].concat();
            assert!(!agree(&decoders, method, &stream, 500), "{method} {more:?}");
        }
    }
}

/// The third frame says one byte more, one less, or 2^60 bytes.
#[test]
fn a_frame_that_is_not_as_large_as_it_says() {
    let decoders = decoders();
    let mut frames = frames(6, 1500);
    // Descriptor: one segment, a checksum, a size of two bytes, of which 256 are taken off.
    assert_eq!(
        (frames[2][4], &frames[2][5..7]),
        (0x64, &(1500u16 - 256).to_le_bytes()[..])
    );
    let right = frames[2].clone();
    for size in [1500 - 256 + 1, 1500 - 256 - 1, 0, u16::MAX] {
        frames[2][5..7].copy_from_slice(&size.to_le_bytes());
        assert!(
            !agree(&decoders, Compression::Zstd, &frames.concat(), 500),
            "{size}"
        );
    }
    let mut huge = right;
    huge[4] = 0xe4;
    huge.splice(5..7, (1u64 << 60).to_le_bytes());
    frames[2] = huge;
    assert!(!agree(&decoders, Compression::Zstd, &frames.concat(), 500));
}

/// An index that is right in itself, but not that of the blocks before it.
#[test]
fn the_index_of_other_blocks() {
    let decoders = decoders();
    let stream = xz(&content(3000, 1), 1500, 1);
    let header = StreamHeader(stream[..12].try_into().unwrap());
    let first = block(&header, &stream[12..12 + 4 * (usize::from(stream[12]) + 1)]).unwrap();
    let end = 12 + usize::try_from(first.length()).unwrap();
    let with = |block: &XzBlock| [&stream[..end], &tail(&header, block)].concat();
    assert!(agree(&decoders, Compression::Xz, &with(&first), 500));
    for other in [
        XzBlock {
            content: first.content + 1,
            ..first
        },
        XzBlock {
            unpadded: first.unpadded - 1,
            ..first
        },
    ] {
        assert!(!agree(&decoders, Compression::Xz, &with(&other), 500));
    }
    let twice = [&stream[..end], &stream[12..end], &tail(&header, &first)].concat();
    assert!(!agree(&decoders, Compression::Xz, &twice, 500));
}

/// What a worker cannot decode, the serial decoder is asked about, and all that follows.
#[test]
fn errors_are_those_of_the_serial_decoder() {
    let decoders = decoders();
    let mut frames = frames(9, 1500);
    let at = frames[4].len() - 1;
    frames[4][at] ^= 1;
    let stream = frames.concat();
    let serial = read_all(&mut *decoder(Compression::Zstd, &stream[..]).unwrap());
    let found = ahead(&decoders, Compression::Zstd, &stream, 1 << 20);
    assert!(
        found.0.len() >= 4 * 1500 && found.1 == serial.1,
        "{:?}",
        found.1
    );
}

fn large(method: Compression) -> (Vec<u8>, Vec<u8>) {
    let content = content(12 << 20, 3);
    let stream = match method {
        Compression::Zstd => content
            .chunks(1 << 20)
            .flat_map(|c| frame(c, true, true))
            .collect(),
        _ => xz(&content, 1 << 20, 2),
    };
    (content, stream)
}

#[test]
fn several_threads_take_part() {
    for method in [Compression::Zstd, Compression::Xz] {
        let (content, stream) = large(method);
        let decoders = decoders();
        assert_eq!(decoders.ahead.workers.started(), 0);
        assert!(
            ahead(&decoders, method, &stream, 64 << 10) == (content, Ok(())),
            "{method}"
        );
        assert!(
            (1..=3).contains(&decoders.ahead.workers.started()),
            "{method}"
        );
    }
}

/// Found by fuzzing: the library treats such blocks in a stream otherwise than in one piece.
#[test]
fn zstd_blocks_that_repeat_a_byte_no_times_are_not_decoded_apart() {
    let found = include_bytes!("../../../tests/fuzz/corpus/decode/empty-block-between-frames");
    // The first byte is the size of the chunks.
    let stream = &found[1..];
    let read = |reader: &mut dyn Read| {
        let mut bytes = Vec::new();
        reader
            .take(1 << 20)
            .read_to_end(&mut bytes)
            .map(|_| bytes)
            .ok()
    };
    let serial = read(&mut *decoder(Compression::Zstd, stream).unwrap());
    let input = BufReader::with_capacity(33, stream);
    assert_eq!(
        decoders().decode(Compression::Zstd, input, read).unwrap(),
        serial
    );
}

#[test]
fn one_core_or_a_single_piece_starts_no_thread() {
    for method in [Compression::Zstd, Compression::Xz] {
        let (content, stream) = large(method);
        let memory = DecoderMemory {
            streams_bytes: 32 << 20,
            all_bytes: 64 << 20,
        };
        let alone = Decoders::new(memory, 1);
        assert!(ahead(&alone, method, &stream, 64 << 10) == (content.clone(), Ok(())));
        let single = match method {
            Compression::Zstd => frame(&content, true, true),
            _ => xz(&content, 64 << 20, 1),
        };
        let decoders = decoders();
        assert!(ahead(&decoders, method, &single, 64 << 10) == (content, Ok(())));
        assert_eq!(
            alone.ahead.workers.started() + decoders.ahead.workers.started(),
            0,
            "{method}"
        );
    }
}

#[test]
fn a_reader_that_stops_leaves_no_threads_and_no_memory_behind() {
    for method in [Compression::Zstd, Compression::Xz] {
        let (_, stream) = large(method);
        for stop in [1, 1 << 20, 3 << 20, (5 << 20) + 12_345] {
            let decoders = decoders();
            let alive = decoders.ahead.workers.alive();
            let budget = std::sync::Arc::clone(&decoders.ahead.budget);
            let read = |reader: &mut dyn Read| reader.read_exact(&mut vec![0; stop]);
            decoders.decode(method, &stream[..], read).unwrap().unwrap();
            drop(decoders);
            assert!(alive.upgrade().is_none(), "{method}: a thread is left");
            assert!(budget.is_unused(), "{method}: memory is left");
        }
    }
}

/// With no memory for it, or with another nar at the same time, nothing is decoded ahead.
#[test]
fn without_memory_it_is_serial() {
    for method in [Compression::Zstd, Compression::Xz] {
        let (content, stream) = large(method);
        let tight = DecoderMemory {
            streams_bytes: 32 << 20,
            all_bytes: 1 << 20,
        };
        let tight = Decoders::new(tight, 4);
        assert!(ahead(&tight, method, &stream, 64 << 10) == (content.clone(), Ok(())));
        let busy = decoders();
        let other = frame(b"other", true, true);
        let both = busy.decode(Compression::Zstd, &other[..], |other| {
            let found = busy.decode(method, &stream[..], read_all).unwrap();
            assert_eq!(read_all(other), (b"other".to_vec(), Ok(())));
            found
        });
        assert!(both.unwrap() == (content, Ok(())));
        assert_eq!(
            tight.ahead.workers.started() + busy.ahead.workers.started(),
            0,
            "{method}"
        );
    }
}

/// Pieces of a length and that number of bytes, which no worker can decode.
struct Toy(usize);

struct ToyWalk(bool);

impl PieceScanner for ToyWalk {
    fn next(&mut self, bytes: &[u8], is_all: bool) -> ScanStep {
        if !std::mem::replace(&mut self.0, true) {
            return ScanStep::Sizes(PieceSizes {
                compressed: 256,
                content: 255,
                decoder: 0,
            });
        }
        match bytes.first().map(|&length| usize::from(length) + 1) {
            Some(length) if bytes.len() >= length => ScanStep::End(length),
            _ if is_all => ScanStep::NotSeparable,
            length => ScanStep::Need(length.unwrap_or(1)),
        }
    }
}

impl PieceFormat for Toy {
    type Scanner = ToyWalk;
    const CORES_BESIDES: usize = 0;

    fn stream(&mut self, input: &mut dyn BufRead, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            let mut length = [0];
            input.read_exact(&mut length)?;
            self.0 = usize::from(length[0]) + 1;
        }
        let wanted = buffer.len().min(self.0 - 1);
        let count = input.read(&mut buffer[..wanted])?;
        self.0 -= count.max(usize::from(self.0 == 1));
        Ok(count)
    }

    fn is_at_end(&mut self, input: &mut dyn BufRead) -> io::Result<bool> {
        Ok(input.fill_buf()?.is_empty())
    }

    fn scanner(&self) -> ToyWalk {
        ToyWalk(false)
    }

    fn decode(_: &ToyWalk, _: &[u8], _: &mut Vec<u8>) -> bool {
        false
    }

    fn passed(&mut self, _: &ToyWalk) {
        panic!("no piece can be decoded so");
    }
}

/// Where a worker fails and the serial decoder does not, the nar is what the latter says.
#[test]
fn what_workers_cannot_decode_is_decoded_in_order() {
    let pieces = || (1..=99u8).map(|length| vec![length; usize::from(length)]);
    let stream = pieces()
        .flat_map(|p| [vec![p[0]], p].concat())
        .collect::<Vec<_>>();
    let decoders = decoders();
    let mut reader = PieceReader::new(&stream[..], Toy(0), decoders.ahead.clone());
    assert_eq!(
        read_all(&mut reader),
        (pieces().collect::<Vec<_>>().concat(), Ok(()))
    );
}

/// An input that breaks off with an error of its own is not taken for an end.
#[test]
fn an_error_of_the_input_is_passed_on() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the line is cut"))
        }
    }
    let decoders = decoders();
    for (method, stream) in streams() {
        for length in [stream.len() / 3, stream.len() / 2, stream.len()] {
            let input = BufReader::new(stream[..length].chain(Broken));
            let found = decoders.decode(method, input, read_all).unwrap();
            assert_eq!(
                found.1,
                Err("the line is cut".to_owned()),
                "{method} {length}"
            );
        }
    }
}
