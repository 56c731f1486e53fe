//! zstd, frame by frame (RFC 8878).
//!
//! Newer Nix compresses a nar in frames of 16 MiB, each saying how large its content is; those
//! can be decoded side by side. `guix publish` writes one frame for the whole nar. A frame's
//! end is found by walking from block header to block header. Neighboring frames that are
//! small, and frames that are to be skipped, make one piece together. What hardly compresses
//! is decoded at the speed of copying and not worth collecting: a piece is at most half as
//! large as its content.

use std::io::{self, BufRead};

use zstd::zstd_safe::{DCtx, InBuffer, OutBuffer, ResetDirective, get_error_name};

use super::ahead::{Format, Sizes, Step, Walk};
use super::zstd_header::{FrameHeader, Header, header};

/// A frame with more content is decoded as it arrives.
const CONTENT_BYTES_MAX: u64 = 32 << 20;
/// Frames with less are put together; below that, threads cost more than they bring. Little in
/// tests, which try every length of a stream.
const CONTENT_BYTES_MIN: usize = if cfg!(any(test, fuzzing)) {
    1 << 10
} else {
    1 << 20
};
/// What a stream's window may be, as the library has it when streaming.
const WINDOW_BYTES_MAX: u64 = 128 << 20;
/// About what a context takes without a window.
const CONTEXT_BYTES: usize = 160 << 10;

/// The frames of a nar, decoded with one context.
pub(super) struct ZstdFrames<'a> {
    context: &'a mut DCtx<'static>,
    /// Whether a frame has begun and not ended, or not even the first has begun.
    is_unfinished: bool,
    /// Whether a frame has ended and nobody knows yet.
    has_ended: bool,
    /// Whether the context may have more to give without more input.
    holds_back: bool,
}

impl<'a> ZstdFrames<'a> {
    /// Decodes with `context`, whatever it was used for before.
    pub(super) fn new(context: &'a mut DCtx<'static>) -> io::Result<Self> {
        context
            .reset(ResetDirective::SessionOnly)
            .map_err(failure)?;
        Ok(Self {
            context,
            is_unfinished: true,
            has_ended: false,
            holds_back: false,
        })
    }
}

fn failure(code: usize) -> io::Error {
    io::Error::other(get_error_name(code))
}

impl Format for ZstdFrames<'_> {
    type Walk = FrameWalk;
    /// zstd is hardly slower than hashing and unpacking, which keep about two cores busy. With two
    /// cores in all, frames side by side made a whole fetch a fifth slower.
    const CORES_BESIDES: usize = 2;

    fn stream(&mut self, input: &mut dyn BufRead, buffer: &mut [u8]) -> io::Result<usize> {
        if std::mem::take(&mut self.has_ended) {
            return Ok(0);
        }
        loop {
            let available = if self.holds_back {
                &[]
            } else {
                input.fill_buf()?
            };
            if available.is_empty() && !self.holds_back {
                if self.is_unfinished {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "incomplete frame",
                    ));
                }
                return Ok(0);
            }
            let (mut from, mut to) = (InBuffer::around(available), OutBuffer::around(&mut *buffer));
            let left = self
                .context
                .decompress_stream(&mut to, &mut from)
                .map_err(failure)?;
            let (taken, given) = (from.pos(), to.pos());
            input.consume(taken);
            self.is_unfinished = left > 0;
            self.holds_back = self.is_unfinished && given == buffer.len();
            if given > 0 {
                self.has_ended = !self.is_unfinished;
                return Ok(given);
            }
            if !self.is_unfinished {
                return Ok(0);
            }
        }
    }

    fn is_at_end(&mut self, input: &mut dyn BufRead) -> io::Result<bool> {
        Ok(input.fill_buf()?.is_empty())
    }

    fn walk(&self) -> FrameWalk {
        FrameWalk {
            at: 0,
            whole: 0,
            content: 0,
            content_max: 0,
            stage: Stage::Frame,
        }
    }

    fn decode(walk: &FrameWalk, piece: &[u8], content: &mut Vec<u8>) -> bool {
        let Some(mut context) = DCtx::try_create() else {
            return false;
        };
        context.decompress(content, piece) == Ok(walk.content)
    }

    fn passed(&mut self, _walk: &FrameWalk) {}
}

/// A way over whole frames, until they stand for enough.
pub(super) struct FrameWalk {
    /// So far.
    at: usize,
    /// The end of the last whole frame,
    whole: usize,
    /// and what all frames up to there stand for.
    content: usize,
    /// How much content there may be; 0 before the first frame.
    content_max: usize,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    /// At the beginning of a frame.
    Frame,
    /// At the beginning of a block.
    Block(Frame),
    /// At the end of a frame.
    End(Frame),
}

#[derive(Clone, Copy)]
struct Frame {
    content: usize,
    has_checksum: bool,
}

impl Walk for FrameWalk {
    fn next(&mut self, bytes: &[u8], is_all: bool) -> Step {
        loop {
            let found = match (bytes.get(self.at..), self.stage) {
                (None, _) => Err(Step::Need(self.at)),
                (_, Stage::Frame) if self.content >= CONTENT_BYTES_MIN => {
                    Err(Step::End(self.whole))
                }
                (Some(rest), Stage::Frame) => self.begin_frame(rest),
                (Some(rest), Stage::Block(frame)) => self.pass_block(rest, frame),
                (_, Stage::End(frame)) => {
                    (self.whole, self.content) = (self.at, self.content + frame.content);
                    self.stage = Stage::Frame;
                    Ok(())
                }
            };
            match found {
                Ok(()) if self.at <= self.compressed_max() => {}
                Err(step @ (Step::Sizes(_) | Step::End(_))) => return step,
                Err(Step::Need(length)) if !is_all => return Step::Need(length),
                // Whole frames are a piece, whatever comes behind.
                _ if self.content > 0 => return Step::End(self.whole),
                _ => return Step::Odd,
            }
        }
    }
}

impl FrameWalk {
    fn compressed_max(&self) -> usize {
        self.content_max / 2 + CONTENT_BYTES_MIN
    }

    fn begin_frame(&mut self, rest: &[u8]) -> Result<(), Step> {
        match header(rest) {
            Header::Need(length) => Err(Step::Need(self.at + length)),
            Header::Other => Err(Step::Odd),
            Header::Skippable(length) => {
                let length = usize::try_from(length).map_err(|_| Step::Odd)?;
                self.at = self.at.saturating_add(length);
                self.stage = Stage::End(Frame {
                    content: 0,
                    has_checksum: false,
                });
                Ok(())
            }
            Header::Frame(header) => {
                let content = apart(&header).ok_or(Step::Odd)?;
                if self.content_max == 0 {
                    self.content_max = content.max(CONTENT_BYTES_MIN);
                    return Err(Step::Sizes(Sizes {
                        compressed: self.compressed_max(),
                        content: self.content_max,
                        decoder: CONTEXT_BYTES,
                    }));
                }
                if self.content + content > self.content_max {
                    return Err(Step::Odd);
                }
                self.at += header.length;
                self.stage = Stage::Block(Frame {
                    content,
                    has_checksum: header.has_checksum,
                });
                Ok(())
            }
        }
    }

    /// Goes behind the block that begins here (3.1.1.2).
    fn pass_block(&mut self, rest: &[u8], frame: Frame) -> Result<(), Step> {
        let Some(&[low, middle, high]) = rest.first_chunk() else {
            return Err(Step::Need(self.at + 3));
        };
        let header = u32::from_le_bytes([low, middle, high, 0]);
        let length = match header >> 1 & 3 {
            // One byte, repeated.
            1 => 1,
            3 => return Err(Step::Odd),
            _ => (header >> 3) as usize,
        };
        self.at += 3 + length;
        if header & 1 == 1 {
            self.at += if frame.has_checksum { 4 } else { 0 };
            self.stage = Stage::End(frame);
        }
        Ok(())
    }
}

/// How much content a frame has, if it may be decoded apart.
fn apart(header: &FrameHeader) -> Option<usize> {
    let content = header
        .content
        .filter(|&content| content <= CONTENT_BYTES_MAX)?;
    let is_fit = !header.is_special && header.window <= WINDOW_BYTES_MAX;
    is_fit.then(|| usize::try_from(content).ok()).flatten()
}
