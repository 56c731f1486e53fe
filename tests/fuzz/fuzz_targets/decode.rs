//! Any bytes as a compressed nar: decoding ahead on several threads gives what the serial
//! decoder gives, and both take it or neither does.

#![no_main]

use std::io::{BufReader, Read};

use libfuzzer_sys::fuzz_target;
use subst::codec::decode::decoder;
use subst::codec::decoders::{DecoderMemory, Decoders};
use subst::format::compression::Compression;

/// More is not read, as `NarSize` would have it.
const SIZE_MAX: u64 = 1 << 20;

fn read(reader: &mut dyn Read) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(SIZE_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (chunk, stream) = input;
    let memory = DecoderMemory { streams_bytes: 28 << 20, all_bytes: 56 << 20 };
    let decoders = Decoders::new(memory, 4);
    for method in [Compression::Zstd, Compression::Xz] {
        let chunks = |length| BufReader::with_capacity(length, stream);
        let length = usize::from(chunk) + 1;
        let serial = read(&mut *decoder(method, stream).expect("there is memory"));
        // The zstd library takes a block that repeats a byte no times in one piece, and refuses it in
        // chunks, or the other way around. No encoder writes such a block.
        let mut in_chunks = [1, length].into_iter().map(|length| {
            read(&mut *decoder(method, chunks(length)).expect("there is memory"))
        });
        if in_chunks.any(|read| read != serial) {
            continue;
        }
        let ahead = decoders.decode(method, chunks(length), read).expect("a slice can be read");
        assert!(serial == ahead, "{method}");
    }
});
