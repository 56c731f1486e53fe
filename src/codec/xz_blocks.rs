//! xz, block by block (The .xz File Format 1.2).
//!
//! `xz -T` and Nix with `parallel-compression` cut a nar into blocks of 24 MiB, each declaring its
//! length; those can be decoded in parallel. liblzma does the decoding: it gets each block as a
//! stream of one block, with an index made here. What surrounds the blocks, above all the real
//! index, is checked by [`super::xz_container`]. The benchmark `xz_blocks_mib_cores` is 1.71 times
//! faster with two cores than with one.
//!
//! A stream whose first block does not declare its length, as plain `xz` and Nix write it by
//! default, is passed to liblzma from its header to the end of the input. A stream that begins
//! with blocks of declared length and continues with others is refused; no program is known to
//! write one. liblzma's own decoder with threads is not used: it keeps its memory until the end of
//! the nar, while here it is released piece by piece when other nars need it.

use std::io::{self, BufRead};

use liblzma::stream::{Action, CONCATENATED, Error, Status, Stream};

use super::ahead::{PieceFormat, PieceScanner, PieceSizes, ScanStep};
use super::budget::MemoryShare;
use super::decode::MEMORY_LIMIT_BYTES;
use super::memory::LZMA_BYTES;
use super::xz_container::{
    StreamHeader, XzBlock, XzIndexRecords, block, check_index, corrupt, next_stream, tail,
};

/// A block with more content is decoded as it arrives.
const CONTENT_BYTES_MAX: u64 = 32 << 20;

/// The blocks of a nar.
pub(super) struct XzBlocks {
    memory: LzmaMemory,
    state: XzBlocksState,
    /// What the index of the current stream has to contain.
    records: XzIndexRecords,
}

enum XzBlocksState {
    /// Before the first stream.
    Start,
    /// Before a block or the index of a stream; whether it is the first block of the stream.
    Between(StreamHeader, bool),
    /// In a block.
    InBlock(StreamHeader, OpenBlock),
    /// In what is passed to liblzma until the input ends.
    Rest(Stream),
    /// At the end of the input.
    End,
}

/// A block that is being decoded.
struct OpenBlock {
    block: XzBlock,
    decoder: Stream,
    /// Bytes of the block that have not been read.
    left: u64,
    /// The index and footer that liblzma gets behind the block, instead of the stream's own.
    tail: Vec<u8>,
}

/// The memory for liblzma, which stops where it needs more.
struct LzmaMemory(MemoryShare);

impl LzmaMemory {
    /// A decoder within what there is.
    fn decoder(&self, flags: u32) -> Result<Stream, Error> {
        Stream::new_stream_decoder(self.0.bytes(), flags)
    }

    /// When `decoder` has stopped for want of memory, gives it what it needs, up to the limit.
    fn supply(
        &mut self,
        decoder: &mut Stream,
        status: Result<Status, Error>,
    ) -> Result<Status, Error> {
        let mut limit = decoder.memlimit();
        while status == Err(Error::MemLimit) && limit < MEMORY_LIMIT_BYTES {
            limit = MEMORY_LIMIT_BYTES.min(limit + LZMA_BYTES);
            // Less than it needs is refused.
            if decoder.set_memlimit(limit).is_ok() {
                self.0.require(limit);
                return Ok(Status::Ok);
            }
        }
        status
    }

    /// Passes headers to `decoder`; they produce no output.
    fn feed(&mut self, decoder: &mut Stream, parts: &[&[u8]]) -> io::Result<()> {
        for part in parts {
            let status = decoder.process(part, &mut [], Action::Run);
            self.supply(decoder, status)?;
        }
        Ok(())
    }
}

impl XzBlocks {
    /// Decodes a stream of xz within `share`.
    pub(super) fn new(share: MemoryShare) -> Self {
        Self {
            memory: LzmaMemory(share),
            state: XzBlocksState::Start,
            records: XzIndexRecords::default(),
        }
    }

    /// Decodes the members of lzip within `share`.
    pub(super) fn lzip(share: MemoryShare) -> io::Result<Self> {
        let decoder = Stream::new_lzip_decoder(share.bytes(), CONCATENATED)?;
        Ok(Self {
            state: XzBlocksState::Rest(decoder),
            ..Self::new(share)
        })
    }

    /// Begins the block that `input` is at; does nothing at an index.
    fn begin_block(
        &mut self,
        input: &mut dyn BufRead,
        stream: StreamHeader,
        is_first: bool,
    ) -> io::Result<()> {
        let Some(&size) = input.fill_buf()?.first() else {
            return Err(truncated());
        };
        if size == 0 {
            return Ok(());
        }

        let mut header = vec![0; header_bytes(size)];
        input.read_exact(&mut header)?;
        self.state = match block(&stream, &header) {
            Some(block) => {
                let mut decoder = self.memory.decoder(0)?;
                self.memory.feed(&mut decoder, &[&stream.0, &header])?;
                let left = block.length() - header.len() as u64;
                let tail = tail(&stream, &block);
                XzBlocksState::InBlock(
                    stream,
                    OpenBlock {
                        block,
                        decoder,
                        left,
                        tail,
                    },
                )
            }
            None if is_first => {
                let mut decoder = self.memory.decoder(CONCATENATED)?;
                self.memory.feed(&mut decoder, &[&stream.0, &header])?;
                XzBlocksState::Rest(decoder)
            }
            None => {
                return Err(corrupt(
                    "a block of unknown length behind one of known length",
                ));
            }
        };

        Ok(())
    }
}

impl PieceFormat for XzBlocks {
    type Scanner = XzBlockScanner;
    /// xz is ten times slower than everything else that is done with a nar.
    const CORES_BESIDES: usize = 0;

    fn stream(&mut self, input: &mut dyn BufRead, buffer: &mut [u8]) -> io::Result<usize> {
        if let XzBlocksState::Start = self.state
            && let Some(stream) = next_stream(input, true)?
        {
            self.state = XzBlocksState::Between(stream, true);
        }
        if let XzBlocksState::Between(stream, is_first) = self.state {
            self.begin_block(input, stream, is_first)?;
        }

        match &mut self.state {
            XzBlocksState::InBlock(stream, inside) => {
                let count = inside.read(input, buffer)?;
                if count == 0 {
                    self.records.push(&inside.block);
                    self.state = XzBlocksState::Between(*stream, false);
                }
                Ok(count)
            }
            XzBlocksState::Rest(decoder) => {
                let count = read_rest(decoder, &mut self.memory, input, buffer)?;
                if count == 0 {
                    self.state = XzBlocksState::End;
                }
                Ok(count)
            }
            XzBlocksState::Start | XzBlocksState::Between(..) | XzBlocksState::End => Ok(0),
        }
    }

    fn is_at_end(&mut self, input: &mut dyn BufRead) -> io::Result<bool> {
        while let XzBlocksState::Between(stream, _) = self.state {
            match input.fill_buf()?.first() {
                Some(0) => input.consume(1),
                Some(_) => return Ok(false),
                None => return Err(truncated()),
            }
            check_index(input, &stream, std::mem::take(&mut self.records))?;
            let next = next_stream(input, false)?;
            self.state = next.map_or(XzBlocksState::End, |stream| {
                XzBlocksState::Between(stream, true)
            });
        }
        match self.state {
            XzBlocksState::End if !input.fill_buf()?.is_empty() => {
                Err(corrupt("bytes follow the end of the compressed stream"))
            }
            XzBlocksState::End => Ok(true),
            _ => Ok(false),
        }
    }

    fn scanner(&self) -> XzBlockScanner {
        let stream = match self.state {
            XzBlocksState::Between(stream, _) | XzBlocksState::InBlock(stream, _) => Some(stream),
            XzBlocksState::Start | XzBlocksState::Rest(_) | XzBlocksState::End => None,
        };
        XzBlockScanner {
            stream,
            block: None,
        }
    }

    fn decode(scanner: &XzBlockScanner, piece: &[u8], content: &mut Vec<u8>) -> bool {
        let (Some(stream), Some(block)) = (&scanner.stream, &scanner.block) else {
            return false;
        };
        let Ok(mut decoder) = Stream::new_stream_decoder(MEMORY_LIMIT_BYTES, 0) else {
            return false;
        };

        let mut status = Ok(Status::Ok);
        for part in [&stream.0[..], piece, &tail(stream, block)] {
            status = decoder.process_vec(part, content, Action::Run);
        }

        status == Ok(Status::StreamEnd) && content.len() as u64 == block.content
    }

    fn passed(&mut self, scanner: &XzBlockScanner) {
        if let Some(block) = &scanner.block {
            self.records.push(block);
        }
    }
}

impl OpenBlock {
    fn read(&mut self, input: &mut dyn BufRead, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let before = (self.decoder.total_in(), self.decoder.total_out());
            let status = if self.left > 0 {
                let available = input.fill_buf()?;
                if available.is_empty() {
                    return Err(truncated());
                }

                let part = available
                    .len()
                    .min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.decoder
                    .process(&available[..part], buffer, Action::Run)
            } else {
                self.decoder.process(&self.tail, buffer, Action::Run)
            };

            let taken = self.decoder.total_in() - before.0;
            let bytes = usize::try_from(taken).unwrap_or(usize::MAX);
            if self.left > 0 {
                input.consume(bytes);
                self.left -= taken;
            } else {
                self.tail.drain(..bytes);
            }
            let is_at_end = status? == Status::StreamEnd;
            let given = self.decoder.total_out() - before.1;
            if given > 0 || is_at_end && self.left == 0 {
                return Ok(usize::try_from(given).unwrap_or(usize::MAX));
            }

            if is_at_end || taken == 0 {
                return Err(corrupt("corrupt xz block"));
            }
        }
    }
}

/// Reads a stream without declared lengths; `Ok(0)` at its end.
fn read_rest(
    decoder: &mut Stream,
    memory: &mut LzmaMemory,
    input: &mut dyn BufRead,
    buffer: &mut [u8],
) -> io::Result<usize> {
    loop {
        let available = input.fill_buf()?;
        let before = (decoder.total_in(), decoder.total_out());
        let action = if available.is_empty() {
            Action::Finish
        } else {
            Action::Run
        };

        let is_all = available.is_empty();
        let status = decoder.process(available, buffer, action);
        let taken = decoder.total_in() - before.0;
        input.consume(usize::try_from(taken).unwrap_or(usize::MAX));
        let is_at_end = memory.supply(decoder, status)? == Status::StreamEnd;
        let given = decoder.total_out() - before.1;
        if given > 0 || is_at_end {
            return Ok(usize::try_from(given).unwrap_or(usize::MAX));
        }
        if is_all {
            return Err(truncated());
        }

        if taken == 0 {
            return Err(corrupt("corrupt xz stream"));
        }
    }
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "premature eof")
}

/// Scans one block.
pub(super) struct XzBlockScanner {
    /// The stream it is in; `None` where blocks do not declare their lengths.
    stream: Option<StreamHeader>,
    block: Option<XzBlock>,
}

impl PieceScanner for XzBlockScanner {
    fn next(&mut self, bytes: &[u8], _is_all: bool) -> ScanStep {
        if let Some(block) = self.block {
            let length = usize::try_from(block.length()).unwrap_or(usize::MAX);
            return if bytes.len() < length {
                ScanStep::Need(length)
            } else {
                ScanStep::End(length)
            };
        }
        let Some(stream) = self.stream else {
            return ScanStep::NotSeparable;
        };

        match bytes.first() {
            None => ScanStep::Need(1),
            // The index.
            Some(0) => ScanStep::NotSeparable,
            Some(&size) if bytes.len() < header_bytes(size) => ScanStep::Need(header_bytes(size)),
            Some(&size) => self
                .begin(&stream, &bytes[..header_bytes(size)])
                .unwrap_or(ScanStep::NotSeparable),
        }
    }
}

fn header_bytes(size: u8) -> usize {
    (usize::from(size) + 1) * 4
}

impl XzBlockScanner {
    /// Reads the header of a block; `None` unless it may be decoded apart from the others.
    fn begin(&mut self, stream: &StreamHeader, header: &[u8]) -> Option<ScanStep> {
        let block = block(stream, header)?;
        let decoder = block.dictionary?.checked_add(LZMA_BYTES)?;
        let is_fit = block.content <= CONTENT_BYTES_MAX
            && block.length() <= CONTENT_BYTES_MAX
            && decoder <= MEMORY_LIMIT_BYTES;
        self.block = is_fit.then_some(block);

        is_fit.then_some(ScanStep::Sizes(PieceSizes {
            compressed: usize::try_from(block.length()).ok()?,
            content: usize::try_from(block.content).ok()?,
            decoder: usize::try_from(decoder).ok()?,
        }))
    }
}
