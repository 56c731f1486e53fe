//! What surrounds the data of xz blocks (The .xz File Format 1.2, sections 2 to 4).
//!
//! Checked here is what belongs to a stream as a whole: its header, index, footer and the padding
//! behind it. The content of a block, its header included, is checked by the decoder.

use std::io::{self, BufRead};

use flate2::Crc;
use sha2::{Digest, Sha256};

const MAGIC: &[u8] = b"\xfd7zXZ\0";
const FOOTER_MAGIC: [u8; 2] = *b"YZ";
/// The length of a check in bytes, by the number of its method.
const CHECK_BYTES: [u64; 16] = [0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64];

/// The header of a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamHeader(pub(super) [u8; 12]);

/// The sizes that the header of a block declares, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct XzBlock {
    /// The block without its padding, as in an index.
    pub(super) unpadded: u64,
    /// The decoded content.
    pub(super) content: u64,
    /// The dictionary, if LZMA2 is the only filter.
    pub(super) dictionary: Option<u64>,
}

impl XzBlock {
    /// The block with its padding, in bytes.
    pub(super) fn length(&self) -> u64 {
        self.unpadded.next_multiple_of(4)
    }
}

/// The records that the index of the blocks so far has to contain, in constant memory.
#[derive(Default)]
pub(super) struct XzIndexRecords {
    count: u64,
    digest: Sha256,
}

impl XzIndexRecords {
    /// Adds the record of the next block.
    pub(super) fn push(&mut self, block: &XzBlock) {
        self.push_record(block.unpadded, block.content);
    }

    fn push_record(&mut self, unpadded: u64, content: u64) {
        self.count += 1;
        self.digest.update(unpadded.to_le_bytes());
        self.digest.update(content.to_le_bytes());
    }
}

/// Reads the header of the next stream and the padding before it; `None` at the input's end.
pub(super) fn next_stream(
    input: &mut dyn BufRead,
    is_first: bool,
) -> io::Result<Option<StreamHeader>> {
    let mut padding = 0u64;
    loop {
        match input.fill_buf()?.first() {
            Some(0) if !is_first => padding += 1,
            None if !is_first && padding.is_multiple_of(4) => return Ok(None),
            Some(_) if padding.is_multiple_of(4) => break,
            _ => return Err(corrupt("bytes follow the end of the compressed stream")),
        }
        input.consume(1);
    }

    let mut header = [0; 12];
    input.read_exact(&mut header)?;
    let flags = [header[6], header[7]];
    let is_right = header.starts_with(MAGIC) && header[8..] == crc32(&flags);
    if !is_right || flags[0] != 0 || flags[1] & 0xf0 != 0 {
        return Err(corrupt("not an xz stream header"));
    }

    Ok(Some(StreamHeader(header)))
}

/// Reads the header of a block; `None` if it lacks a size or is malformed.
pub(super) fn block(stream: &StreamHeader, header: &[u8]) -> Option<XzBlock> {
    let (&flags, mut rest) = header.get(1..)?.split_first()?;
    if flags & 0xfc != 0xc0 {
        return None;
    }

    let (compressed, content) = (number(&mut rest)?, number(&mut rest)?);
    let dictionary = dictionary(flags, rest);
    let check = CHECK_BYTES[usize::from(stream.0[7] & 0xf)];
    // A number has at most 63 bits; the limit below rules out an overflow.
    let unpadded = (header.len() as u64).checked_add(compressed)?;

    (compressed < 1 << 62).then_some(XzBlock {
        unpadded: unpadded + check,
        content,
        dictionary,
    })
}

/// The dictionary size of a block in bytes, if LZMA2 is its only filter.
pub(super) fn dictionary(block_flags: u8, filters: &[u8]) -> Option<u64> {
    let &[0x21, 1, bits, ..] = filters else {
        return None;
    };
    let mantissa = 2 | u64::from(bits & 1);
    (block_flags & 3 == 0 && bits < 40).then(|| mantissa << (bits / 2 + 11))
}

/// Reads a variable-length number from the front of `bytes` (section 1.2).
pub(super) fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in 0..9 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * shift);
        if byte & 0x80 == 0 {
            return (byte != 0 || shift == 0).then_some(value);
        }
    }

    None
}

/// The index and the footer of a stream that consists of `block` alone.
pub(super) fn tail(stream: &StreamHeader, block: &XzBlock) -> Vec<u8> {
    let mut tail = vec![0, 1];
    for mut value in [block.unpadded, block.content] {
        while value >= 0x80 {
            tail.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        tail.push(value.to_le_bytes()[0]);
    }

    tail.resize(tail.len().next_multiple_of(4), 0);
    tail.extend(crc32(&tail));
    let footer = footer(stream, tail.len() as u64);
    tail.extend(footer);

    tail
}

fn footer(stream: &StreamHeader, index_bytes: u64) -> [u8; 12] {
    let mut footer = [0; 12];
    // The format has no larger index: a longer one does not match this footer.
    let size = u32::try_from(index_bytes / 4 - 1).unwrap_or(u32::MAX);
    footer[4..8].copy_from_slice(&size.to_le_bytes());
    footer[8..10].copy_from_slice(&stream.0[6..8]);
    let crc = crc32(&footer[4..10]);
    footer[..4].copy_from_slice(&crc);
    footer[10..].copy_from_slice(&FOOTER_MAGIC);

    footer
}

fn crc32(bytes: &[u8]) -> [u8; 4] {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum().to_le_bytes()
}

/// Reads the index, whose first byte, zero, has been read, and the footer.
pub(super) fn check_index(
    input: &mut dyn BufRead,
    stream: &StreamHeader,
    records: XzIndexRecords,
) -> io::Result<()> {
    let mut index = IndexReader {
        input,
        crc: Crc::new(),
        length: 0,
    };
    index.crc.update(&[0]);
    index.length += 1;
    let (count, mut found) = (index.number()?, XzIndexRecords::default());
    if count != records.count {
        return Err(corrupt(
            "the index has a different number of records than there are blocks",
        ));
    }

    for _ in 0..count {
        let unpadded = index.number()?;
        found.push_record(unpadded, index.number()?);
    }

    if found.digest.finalize() != records.digest.finalize() {
        return Err(corrupt("the index does not match the blocks"));
    }

    while !index.length.is_multiple_of(4) {
        if index.byte()? != 0 {
            return Err(corrupt("the padding of the index is not zero"));
        }
    }

    let sum = index.crc.sum().to_le_bytes();
    let length = index.length + 4;
    let mut rest = [0; 16];
    input.read_exact(&mut rest)?;
    if rest[..4] != sum || rest[4..] != footer(stream, length) {
        return Err(corrupt("the index or the footer of the stream is damaged"));
    }

    Ok(())
}

struct IndexReader<'a> {
    input: &'a mut dyn BufRead,
    crc: Crc,
    length: u64,
}

impl IndexReader<'_> {
    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.input.read_exact(&mut byte)?;
        self.crc.update(&byte);
        self.length += 1;
        Ok(byte[0])
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut bytes = Vec::with_capacity(9);
        while bytes.len() < 9 && bytes.last().is_none_or(|last| last & 0x80 != 0) {
            bytes.push(self.byte()?);
        }
        number(&mut &bytes[..]).ok_or_else(|| corrupt("a malformed number in the index"))
    }
}

pub(super) fn corrupt(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
