//! The header of a zstd frame (RFC 8878, 3.1.1.1 and 3.1.2).

/// Begins a frame.
const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
/// Begins a skippable frame; its lowest four bits may have any value.
const SKIPPABLE_MAGIC: u32 = 0x184d_2a50;

/// What the next bytes of a stream begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ZstdHeader {
    /// A frame.
    Frame(FrameHeader),
    /// A skippable frame of this many bytes, its header included.
    Skippable(u64),
    /// Undecided before this many bytes are available.
    Need(usize),
    /// Neither kind of frame.
    Other,
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// The length of the header, in bytes.
    pub(super) length: usize,
    /// The window size, in bytes.
    pub(super) window: u64,
    /// The decoded size in bytes, if it is declared.
    pub(super) content: Option<u64>,
    /// Whether a checksum of four bytes follows the last block.
    pub(super) has_checksum: bool,
    /// Whether the frame needs a dictionary or uses a reserved feature.
    pub(super) is_special: bool,
}

/// Reads the header that `bytes` begins with.
pub(super) fn header(bytes: &[u8]) -> ZstdHeader {
    let Some((magic, rest)) = bytes.split_first_chunk::<4>() else {
        return ZstdHeader::Need(5);
    };
    if u32::from_le_bytes(*magic) & !0xf == SKIPPABLE_MAGIC {
        return match rest.first_chunk() {
            Some(size) => ZstdHeader::Skippable(8 + u64::from(u32::from_le_bytes(*size))),
            None => ZstdHeader::Need(8),
        };
    }
    let Some(&descriptor) = rest.first() else {
        return ZstdHeader::Need(5);
    };
    if *magic != MAGIC {
        return ZstdHeader::Other;
    }

    let is_single_segment = descriptor & 0x20 != 0;
    let dictionary_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size_bytes = match descriptor >> 6 {
        0 => usize::from(is_single_segment),
        bits => 1 << bits,
    };
    let at = 5 + usize::from(!is_single_segment) + dictionary_bytes;
    let length = at + size_bytes;
    let Some(field) = bytes.get(at..length) else {
        return ZstdHeader::Need(length);
    };

    let mut size = [0; 8];
    size[..size_bytes].copy_from_slice(field);
    let offset = if size_bytes == 2 { 256 } else { 0 };
    let content = (size_bytes > 0).then(|| u64::from_le_bytes(size).saturating_add(offset));
    let window = match content {
        Some(content) if is_single_segment => content,
        _ => {
            let base = 1u64 << (10 + (bytes[5] >> 3));
            base + base / 8 * u64::from(bytes[5] & 7)
        }
    };
    let is_special = dictionary_bytes > 0 || descriptor & 8 != 0;

    ZstdHeader::Frame(FrameHeader {
        length,
        window,
        content,
        has_checksum: descriptor & 4 != 0,
        is_special,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: &[u8]) -> FrameHeader {
        match header(bytes) {
            ZstdHeader::Frame(frame) => frame,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sizes_are_those_that_the_library_sees() {
        for length in [
            0,
            1,
            255,
            256,
            257,
            65_535,
            65_536 + 255,
            65_536 + 256,
            3_000_000,
        ] {
            let packed = zstd::bulk::compress(&vec![7; length], 3).unwrap();
            let found = frame(&packed);
            assert_eq!(found.content, Some(length as u64));
            assert!(!found.is_special && !found.has_checksum);
            for short in 0..found.length {
                let need = header(&packed[..short]);
                assert!(matches!(need, ZstdHeader::Need(n) if n > short && n <= found.length));
            }
        }
        let mut streamed = zstd::Encoder::new(Vec::new(), 3).unwrap();
        streamed.include_checksum(true).unwrap();
        std::io::Write::write_all(&mut streamed, &[7; 300_000]).unwrap();
        let found = frame(&streamed.finish().unwrap());
        assert_eq!((found.content, found.has_checksum), (None, true));
    }

    #[test]
    fn what_else_there_is() {
        let skippable = b"\x5f\x2a\x4d\x18\x04\0\0\0skip";
        assert_eq!(header(skippable), ZstdHeader::Skippable(12));
        assert_eq!(header(&skippable[..7]), ZstdHeader::Need(8));
        assert_eq!(header(b"nothing"), ZstdHeader::Other);
        assert!(
            frame(b"\x28\xb5\x2f\xfd\x01\x58\x00").is_special,
            "a dictionary"
        );
        assert!(
            frame(b"\x28\xb5\x2f\xfd\x08\x58").is_special,
            "the reserved bit"
        );
    }
}
