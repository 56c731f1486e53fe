//! xz, block by block (The .xz File Format 1.2).
//!
//! `xz -T` and Nix with `parallel-compression` cut a nar in blocks of 24 MiB, each saying how
//! long it is; those can be decoded side by side. liblzma does the decoding: a block is given to
//! it as a stream of one block, with an index made here. What stands around the blocks, the
//! real index above all, is checked by [`super::xz_container`].
//!
//! A stream whose first block does not say how long it is, as those of plain `xz` and of Nix's
//! default, is liblzma's from its header to the end of the input. A stream that begins with
//! blocks that say it and goes on with others is refused; nobody is known to make such.
//! liblzma's own decoder with threads is not used: it keeps its memory until the nar's end, while
//! here it is given back piece by piece when others need it.

use std::io::{self, BufRead};

use liblzma::stream::{Action, CONCATENATED, Status, Stream};

use super::ahead::{Format, Sizes, Step, Walk};
use super::decode::MEMORY_LIMIT_BYTES;
use super::xz_container::{
    Block, Records, StreamHeader, block, check_index, corrupt, next_stream, tail,
};

/// A block with more content is decoded as it arrives.
const CONTENT_BYTES_MAX: u64 = 32 << 20;
/// What liblzma needs for a block besides the dictionary.
const DECODER_BYTES: u64 = 64 << 10;

/// The blocks of a nar.
#[derive(Default)]
pub(super) struct XzBlocks {
    state: State,
    /// What the index of the current stream has to say.
    records: Records,
}

#[derive(Default)]
enum State {
    /// Before the first stream.
    #[default]
    Start,
    /// Before a block or the index of a stream; whether it is the stream's first.
    Between(StreamHeader, bool),
    /// In a block.
    Inside(StreamHeader, Inside),
    /// In what is liblzma's until the input ends.
    Rest(Stream),
    /// At the end of the input.
    End,
}

/// A block under way.
struct Inside {
    block: Block,
    decoder: Stream,
    /// Bytes of the block still to come,
    left: u64,
    /// and what comes behind it instead of the rest of the stream.
    tail: Vec<u8>,
}

impl XzBlocks {
    /// Goes into the block that begins here; at an index nothing happens.
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
                let mut decoder = Stream::new_stream_decoder(MEMORY_LIMIT_BYTES, 0)?;
                feed(&mut decoder, &[&stream.0, &header])?;
                let left = block.length() - header.len() as u64;
                let tail = tail(&stream, &block);
                State::Inside(
                    stream,
                    Inside {
                        block,
                        decoder,
                        left,
                        tail,
                    },
                )
            }
            None if is_first => {
                let mut decoder = Stream::new_stream_decoder(MEMORY_LIMIT_BYTES, CONCATENATED)?;
                feed(&mut decoder, &[&stream.0, &header])?;
                State::Rest(decoder)
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

impl Format for XzBlocks {
    type Walk = BlockWalk;
    /// xz is ten times slower than all else that is done with a nar.
    const CORES_BESIDES: usize = 0;

    fn stream(&mut self, input: &mut dyn BufRead, buffer: &mut [u8]) -> io::Result<usize> {
        if let State::Start = self.state
            && let Some(stream) = next_stream(input, true)?
        {
            self.state = State::Between(stream, true);
        }
        if let State::Between(stream, is_first) = self.state {
            self.begin_block(input, stream, is_first)?;
        }
        match &mut self.state {
            State::Inside(stream, inside) => {
                let count = inside.read(input, buffer)?;
                if count == 0 {
                    self.records.push(&inside.block);
                    self.state = State::Between(*stream, false);
                }
                Ok(count)
            }
            State::Rest(decoder) => {
                let count = read_rest(decoder, input, buffer)?;
                if count == 0 {
                    self.state = State::End;
                }
                Ok(count)
            }
            State::Start | State::Between(..) | State::End => Ok(0),
        }
    }

    fn is_at_end(&mut self, input: &mut dyn BufRead) -> io::Result<bool> {
        while let State::Between(stream, _) = self.state {
            match input.fill_buf()?.first() {
                Some(0) => input.consume(1),
                Some(_) => return Ok(false),
                None => return Err(truncated()),
            }
            check_index(input, &stream, std::mem::take(&mut self.records))?;
            let next = next_stream(input, false)?;
            self.state = next.map_or(State::End, |stream| State::Between(stream, true));
        }
        match self.state {
            State::End if !input.fill_buf()?.is_empty() => {
                Err(corrupt("bytes follow the end of the compressed stream"))
            }
            State::End => Ok(true),
            _ => Ok(false),
        }
    }

    fn walk(&self) -> BlockWalk {
        let stream = match self.state {
            State::Between(stream, _) | State::Inside(stream, _) => Some(stream),
            State::Start | State::Rest(_) | State::End => None,
        };
        BlockWalk {
            stream,
            block: None,
        }
    }

    fn decode(walk: &BlockWalk, piece: &[u8], content: &mut Vec<u8>) -> bool {
        let (Some(stream), Some(block)) = (&walk.stream, &walk.block) else {
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

    fn passed(&mut self, walk: &BlockWalk) {
        if let Some(block) = &walk.block {
            self.records.push(block);
        }
    }
}

impl Inside {
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

/// Reads what is liblzma's; `Ok(0)` at its end.
fn read_rest(
    decoder: &mut Stream,
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
        let is_at_end = status? == Status::StreamEnd;
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

/// Gives `decoder` headers, which make no output.
fn feed(decoder: &mut Stream, parts: &[&[u8]]) -> io::Result<()> {
    for part in parts {
        decoder.process(part, &mut [], Action::Run)?;
    }
    Ok(())
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "premature eof")
}

/// A way over one block.
pub(super) struct BlockWalk {
    /// The stream it is in; none where blocks are not ours to decode.
    stream: Option<StreamHeader>,
    block: Option<Block>,
}

impl Walk for BlockWalk {
    fn next(&mut self, bytes: &[u8], _is_all: bool) -> Step {
        if let Some(block) = self.block {
            let length = usize::try_from(block.length()).unwrap_or(usize::MAX);
            return if bytes.len() < length {
                Step::Need(length)
            } else {
                Step::End(length)
            };
        }
        let Some(stream) = self.stream else {
            return Step::Odd;
        };
        match bytes.first() {
            None => Step::Need(1),
            // The index.
            Some(0) => Step::Odd,
            Some(&size) if bytes.len() < header_bytes(size) => Step::Need(header_bytes(size)),
            Some(&size) => self
                .begin(&stream, &bytes[..header_bytes(size)])
                .unwrap_or(Step::Odd),
        }
    }
}

fn header_bytes(size: u8) -> usize {
    (usize::from(size) + 1) * 4
}

impl BlockWalk {
    /// Reads the header of a block that may be decoded apart.
    fn begin(&mut self, stream: &StreamHeader, header: &[u8]) -> Option<Step> {
        let block = block(stream, header)?;
        let decoder = block.dictionary?.checked_add(DECODER_BYTES)?;
        let is_fit = block.content <= CONTENT_BYTES_MAX
            && block.length() <= CONTENT_BYTES_MAX
            && decoder <= MEMORY_LIMIT_BYTES;
        self.block = is_fit.then_some(block);
        is_fit.then_some(Step::Sizes(Sizes {
            compressed: usize::try_from(block.length()).ok()?,
            content: usize::try_from(block.content).ok()?,
            decoder: usize::try_from(decoder).ok()?,
        }))
    }
}
