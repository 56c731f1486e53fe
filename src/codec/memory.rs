//! How much memory a decoder will ask for, read from the beginning of its input.
//!
//! An estimate for sharing a budget, not a limit: limits are the decoders' own. What cannot be
//! told from the first bytes counts as much.

use crate::format::compression::Compression;

/// What a decoder may need when its input does not tell.
const UNKNOWN_BYTES: u64 = 16 << 20;

/// Bytes that decoding a stream that begins with `head` takes.
#[must_use]
pub fn needed_bytes(compression: Compression, head: &[u8]) -> u64 {
    match compression {
        Compression::None => 0,
        Compression::Gzip => 64 << 10,
        Compression::Bzip2 => 4 << 20,
        Compression::Zstd => zstd_window(head).map_or(UNKNOWN_BYTES, |window| window + (512 << 10)),
        Compression::Lzip => lzip_dictionary(head).map_or(UNKNOWN_BYTES, |size| size + (64 << 10)),
        Compression::Xz => xz_dictionary(head).map_or(UNKNOWN_BYTES, |size| size + (64 << 10)),
    }
}

/// The window of the first zstd frame (RFC 8878, 3.1.1.1).
fn zstd_window(head: &[u8]) -> Option<u64> {
    let rest = head.strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd])?;
    let (&descriptor, rest) = rest.split_first()?;
    let is_single_segment = descriptor & 0x20 != 0;
    if !is_single_segment {
        let window = *rest.first()?;
        let base = 1u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // The window is the content, whose size stands behind the dictionary's number.
    let dictionary_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size_bytes = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let field = rest.get(dictionary_bytes..dictionary_bytes + size_bytes)?;
    let mut bytes = [0; 8];
    bytes[..size_bytes].copy_from_slice(field);
    let offset = if size_bytes == 2 { 256 } else { 0 };
    Some(u64::from_le_bytes(bytes).saturating_add(offset))
}

/// The dictionary of the first lzip member.
fn lzip_dictionary(head: &[u8]) -> Option<u64> {
    let &[version, size, ..] = head.strip_prefix(b"LZIP")? else { return None };
    let base = 1u64 << (size & 0x1f);
    (version == 1).then(|| base - base / 16 * u64::from(size >> 5))
}

/// The dictionary of the first xz block, when LZMA2 is its only filter and no sizes stand
/// before it, as `xz` and Nix write it.
fn xz_dictionary(head: &[u8]) -> Option<u64> {
    let rest = head.strip_prefix(b"\xfd7zXZ\0")?.get(6..)?;
    let &[_header_size, 0, 0x21, 1, bits, ..] = rest else { return None };
    let mantissa = 2 | u64::from(bits & 1);
    (bits < 40).then(|| mantissa << (bits / 2 + 11))
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
        assert_eq!(lzip_dictionary(b"LZIP\x01\xd6..."), Some((4 << 20) - 6 * (256 << 10)));
        let xz = liblzma::encode_all(&[7; 100][..], 6).unwrap();
        assert_eq!(xz_dictionary(&xz), Some(8 << 20));
    }

    #[test]
    fn what_is_cut_or_unknown_counts_as_much() {
        for method in [Compression::Zstd, Compression::Lzip, Compression::Xz] {
            for head in [&b""[..], b"LZI", b"\xfd7zXZ\0\0", b"\x28\xb5\x2f\xfd", b"garbage"] {
                assert_eq!(needed_bytes(method, head), UNKNOWN_BYTES, "{method} {head:?}");
            }
        }
    }
}
