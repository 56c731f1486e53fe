//! How much memory a decoder will need, estimated from the beginning of its input.
//!
//! What cannot be read from the first bytes is estimated high. Where a later frame, block or member
//! needs more, decoders of zstd, xz and lzip ask the budget for it then; the others never do.

use crate::format::compression::Compression;

use super::brotli;
use super::lz4;
use super::xz_container::{dictionary, number};
use super::zstd_header::{ZstdHeader, header};

/// The estimate when the input does not declare its window.
const UNKNOWN_BYTES: u64 = 16 << 20;
/// What liblzma needs besides its dictionary.
pub(super) const LZMA_BYTES: u64 = 128 << 10;

/// The bytes of memory that decoding a stream that begins with `head` takes.
pub(super) fn needed_bytes(compression: Compression, head: &[u8]) -> u64 {
    match compression {
        Compression::None => 0,
        Compression::Gzip => 64 << 10,
        Compression::Lz4 => lz4::NEEDED_BYTES,
        Compression::Brotli => brotli::needed_bytes(head).unwrap_or(UNKNOWN_BYTES),
        Compression::Bzip2 => 4 << 20,
        Compression::Zstd => zstd_window(head).map_or(UNKNOWN_BYTES, zstd_bytes),
        Compression::Lzip => lzip_dictionary(head).map_or(UNKNOWN_BYTES, |size| size + LZMA_BYTES),
        Compression::Xz => xz_dictionary(head).map_or(UNKNOWN_BYTES, |size| size + LZMA_BYTES),
    }
}

/// The bytes of memory that a zstd frame with this window takes.
pub(super) fn zstd_bytes(window: u64) -> u64 {
    window.saturating_add(512 << 10)
}

/// The window of the first zstd frame.
fn zstd_window(head: &[u8]) -> Option<u64> {
    match header(head) {
        ZstdHeader::Frame(frame) => Some(frame.window),
        _ => None,
    }
}

/// The dictionary of the first lzip member.
fn lzip_dictionary(head: &[u8]) -> Option<u64> {
    let &[version, size, ..] = head.strip_prefix(b"LZIP")? else {
        return None;
    };
    let base = 1u64 << (size & 0x1f);
    (version == 1).then(|| base - base / 16 * u64::from(size >> 5))
}

/// The dictionary of the first xz block, when LZMA2 is its only filter.
fn xz_dictionary(head: &[u8]) -> Option<u64> {
    let rest = head.strip_prefix(b"\xfd7zXZ\0")?.get(6..)?;
    let &[_header_size, flags, ref fields @ ..] = rest else {
        return None;
    };

    let mut filters = fields;
    for is_there in [flags & 0x40 != 0, flags & 0x80 != 0] {
        if is_there {
            number(&mut filters)?;
        }
    }

    dictionary(flags, filters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_tools_write() {
        let streamed = {
            use std::io::Write as _;
            let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
            encoder.window_log(22).unwrap();
            encoder.write_all(&[7; 100]).unwrap();
            encoder.finish().unwrap()
        };
        assert_eq!(zstd_window(&streamed), Some(4 << 20));
        let whole = zstd::bulk::compress(&[7; 1000], 3).unwrap();
        assert_eq!(zstd_window(&whole), Some(1000));
        assert_eq!(lzip_dictionary(b"LZIP\x01\x14..."), Some(1 << 20));
        assert_eq!(
            lzip_dictionary(b"LZIP\x01\xd6..."),
            Some((4 << 20) - 6 * (256 << 10))
        );
        let xz = liblzma::encode_all(&[7; 100][..], 6).unwrap();
        assert_eq!(xz_dictionary(&xz), Some(8 << 20));
        let mut blocks = liblzma::stream::MtStreamBuilder::new();
        let blocks = blocks.preset(6).threads(1).encoder().unwrap();
        let mut encoder = liblzma::read::XzEncoder::new_stream(&[7; 100][..], blocks);
        let mut xz = Vec::new();
        std::io::Read::read_to_end(&mut encoder, &mut xz).unwrap();
        assert_eq!(xz[13], 0xc0, "the header says both sizes");
        assert_eq!(xz_dictionary(&xz), Some(8 << 20));
    }

    #[test]
    fn what_is_cut_or_unknown_counts_as_much() {
        for method in [Compression::Zstd, Compression::Lzip, Compression::Xz] {
            for head in [
                &b""[..],
                b"LZI",
                b"\xfd7zXZ\0\0",
                b"\x28\xb5\x2f\xfd",
                b"garbage",
            ] {
                assert_eq!(
                    needed_bytes(method, head),
                    UNKNOWN_BYTES,
                    "{method} {head:?}"
                );
            }
        }
    }
}
