//! zstd, frame by frame (RFC 8878).
//!
//! Newer Nix compresses a nar in frames of 16 MiB, each declaring the size of its content; those
//! can be decoded in parallel. `guix publish` writes one frame for the whole nar. A frame's end is
//! found by following the block headers. Adjacent small frames and skippable frames form one piece
//! together. What hardly compresses is decoded at the speed of copying, so collecting it would not
//! pay: a piece is at most half as large as its content. The benchmark `zstd_frames_mib_cores` is 1.35
//! to 1.47 times faster with two cores than with one.

use std::io::{self, BufRead};

use zstd::zstd_safe::{DCtx, InBuffer, OutBuffer, ResetDirective, get_error_name};

use super::ahead::{PieceFormat, PieceScanner, PieceSizes, ScanStep};
use super::budget::MemoryShare;
use super::memory::zstd_bytes;
use super::zstd_header::{FrameHeader, ZstdHeader, header};

/// A frame with more content is decoded as it arrives.
const CONTENT_BYTES_MAX: u64 = 32 << 20;
/// Frames with less are joined: below that, threads cost more time than they save. Small in tests,
/// which try every length of a stream.
const CONTENT_BYTES_MIN: usize = if cfg!(any(test, fuzzing)) {
    1 << 10
} else {
    1 << 20
};
/// The largest window, as in the library's streaming decoder.
const WINDOW_BYTES_MAX: u64 = 128 << 20;
/// The most bytes of a block, in a window of that size or more.
const BLOCK_BYTES_MAX: usize = 128 << 10;
/// What a context takes without its window, about.
const CONTEXT_BYTES: usize = 160 << 10;

/// The frames of a nar, decoded with one context.
pub(super) struct ZstdFrames<'a> {
    context: &'a mut DCtx<'static>,
    /// The memory for the context.
    share: MemoryShare,
    /// What comes next is the first frame.
    is_first: bool,
    /// Whether a frame has begun and not ended.
    is_unfinished: bool,
    /// The header of a frame that did not arrive in one piece, as far as the context has not read it.
    header: Vec<u8>,
    /// Whether a frame has ended and the end has not been reported yet.
    has_ended: bool,
    /// Whether the context may have more output without more input.
    holds_back: bool,
}

impl<'a> ZstdFrames<'a> {
    /// Decodes with `context`, which may have been used before, within `share`.
    pub(super) fn new(context: &'a mut DCtx<'static>, share: MemoryShare) -> io::Result<Self> {
        context
            .reset(ResetDirective::SessionOnly)
            .map_err(failure)?;
        Ok(Self {
            context,
            share,
            is_first: true,
            is_unfinished: false,
            header: Vec::new(),
            has_ended: false,
            holds_back: false,
        })
    }

    /// Begins the frame that `input` is at, with memory for it; false if there is none.
    fn begin_frame(&mut self, input: &mut dyn BufRead) -> io::Result<bool> {
        loop {
            let available = input.fill_buf()?;
            let known = if self.header.is_empty() {
                header(available)
            } else {
                header(&self.header)
            };
            match known {
                ZstdHeader::Need(length) if !available.is_empty() => {
                    let count = available.len().min(length - self.header.len());
                    self.header.extend_from_slice(&available[..count]);
                    input.consume(count);
                    continue;
                }
                ZstdHeader::Frame(frame) => self.share.require(zstd_bytes(frame.window)),
                _ => {}
            }

            self.is_unfinished = self.is_first || !available.is_empty() || !self.header.is_empty();
            self.is_first = false;
            return Ok(self.is_unfinished);
        }
    }
}

fn failure(code: usize) -> io::Error {
    io::Error::other(get_error_name(code))
}

impl PieceFormat for ZstdFrames<'_> {
    type Scanner = ZstdFrameScanner;
    /// zstd is hardly slower than hashing and unpacking, which keep about two cores busy. With two
    /// cores in all, frames side by side made a whole fetch a fifth slower.
    const CORES_BESIDES: usize = 2;

    fn stream(&mut self, input: &mut dyn BufRead, buffer: &mut [u8]) -> io::Result<usize> {
        if std::mem::take(&mut self.has_ended) {
            return Ok(0);
        }
        if !self.is_unfinished && !self.begin_frame(input)? {
            return Ok(0);
        }
        loop {
            let available = if self.holds_back {
                &[]
            } else if self.header.is_empty() {
                input.fill_buf()?
            } else {
                &self.header
            };
            if available.is_empty() && !self.holds_back {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "incomplete frame",
                ));
            }

            let (mut from, mut to) = (InBuffer::around(available), OutBuffer::around(&mut *buffer));
            let left = self
                .context
                .decompress_stream(&mut to, &mut from)
                .map_err(failure)?;
            let (taken, given) = (from.pos(), to.pos());

            if self.header.is_empty() {
                input.consume(taken);
            } else {
                self.header.drain(..taken);
            }
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

    fn scanner(&self) -> ZstdFrameScanner {
        ZstdFrameScanner {
            at: 0,
            whole: 0,
            content: 0,
            content_max: 0,
            stage: FrameStage::Frame,
        }
    }

    fn decode(scanner: &ZstdFrameScanner, piece: &[u8], content: &mut Vec<u8>) -> bool {
        let Some(mut context) = DCtx::try_create() else {
            return false;
        };
        context.decompress(content, piece) == Ok(scanner.content)
    }

    fn passed(&mut self, _scanner: &ZstdFrameScanner) {}
}

/// Scans whole frames until their content is worth a task.
pub(super) struct ZstdFrameScanner {
    /// Bytes scanned so far.
    at: usize,
    /// The end of the last whole frame.
    whole: usize,
    /// The content of all frames up to `whole`, in bytes.
    content: usize,
    /// How much content there may be; 0 before the first frame.
    content_max: usize,
    stage: FrameStage,
}

#[derive(Clone, Copy)]
enum FrameStage {
    /// At the beginning of a frame.
    Frame,
    /// At the beginning of a block.
    Block(ScannedFrame),
    /// At the end of a frame.
    End(ScannedFrame),
}

#[derive(Clone, Copy)]
struct ScannedFrame {
    content: usize,
    /// The most bytes of a block (3.1.1.2.4).
    block_max: usize,
    has_checksum: bool,
}

impl PieceScanner for ZstdFrameScanner {
    fn next(&mut self, bytes: &[u8], is_all: bool) -> ScanStep {
        loop {
            let found = match (bytes.get(self.at..), self.stage) {
                (None, _) => Err(ScanStep::Need(self.at)),
                (_, FrameStage::Frame) if self.content >= CONTENT_BYTES_MIN => {
                    Err(ScanStep::End(self.whole))
                }
                (Some(rest), FrameStage::Frame) => self.begin_frame(rest),
                (Some(rest), FrameStage::Block(frame)) => self.pass_block(rest, frame),
                (_, FrameStage::End(frame)) => {
                    (self.whole, self.content) = (self.at, self.content + frame.content);
                    self.stage = FrameStage::Frame;
                    Ok(())
                }
            };
            match found {
                Ok(()) if self.at <= self.compressed_max() => {}
                Err(step @ (ScanStep::Sizes(_) | ScanStep::End(_))) => return step,
                Err(ScanStep::Need(length)) if !is_all => return ScanStep::Need(length),
                // Whole frames are a piece, whatever follows them.
                _ if self.content > 0 => return ScanStep::End(self.whole),
                _ => return ScanStep::NotSeparable,
            }
        }
    }
}

impl ZstdFrameScanner {
    fn compressed_max(&self) -> usize {
        self.content_max / 2 + CONTENT_BYTES_MIN
    }

    fn begin_frame(&mut self, rest: &[u8]) -> Result<(), ScanStep> {
        match header(rest) {
            ZstdHeader::Need(length) => Err(ScanStep::Need(self.at + length)),
            ZstdHeader::Other => Err(ScanStep::NotSeparable),
            ZstdHeader::Skippable(length) => {
                let length = usize::try_from(length).map_err(|_| ScanStep::NotSeparable)?;
                self.at = self.at.saturating_add(length);
                self.stage = FrameStage::End(ScannedFrame {
                    content: 0,
                    block_max: 0,
                    has_checksum: false,
                });
                Ok(())
            }
            ZstdHeader::Frame(header) => {
                let content = apart(&header).ok_or(ScanStep::NotSeparable)?;
                if self.content_max == 0 {
                    self.content_max = content.max(CONTENT_BYTES_MIN);
                    return Err(ScanStep::Sizes(PieceSizes {
                        compressed: self.compressed_max(),
                        content: self.content_max,
                        decoder: CONTEXT_BYTES,
                    }));
                }
                if self.content + content > self.content_max {
                    return Err(ScanStep::NotSeparable);
                }

                self.at += header.length;
                self.stage = FrameStage::Block(ScannedFrame {
                    content,
                    block_max: usize::try_from(header.window)
                        .map_or(BLOCK_BYTES_MAX, |window| window.min(BLOCK_BYTES_MAX)),
                    has_checksum: header.has_checksum,
                });
                Ok(())
            }
        }
    }

    /// Goes behind the block that begins here (3.1.1.2).
    fn pass_block(&mut self, rest: &[u8], frame: ScannedFrame) -> Result<(), ScanStep> {
        let Some(&[low, middle, high]) = rest.first_chunk() else {
            return Err(ScanStep::Need(self.at + 3));
        };

        let header = u32::from_le_bytes([low, middle, high, 0]);
        let size = (header >> 3) as usize;
        if size > frame.block_max {
            // The library takes such a block in one piece, and refuses it in a stream.
            return Err(ScanStep::NotSeparable);
        }
        let length = match header >> 1 & 3 {
            // One byte, repeated; no times: the library does not treat that in a stream as in one piece.
            1 if size > 0 => 1,
            1 | 3 => return Err(ScanStep::NotSeparable),
            _ => size,
        };
        self.at += 3 + length;

        if header & 1 == 1 {
            self.at += if frame.has_checksum { 4 } else { 0 };
            self.stage = FrameStage::End(frame);
        }
        Ok(())
    }
}

/// The size of a frame's content, if the frame may be decoded apart from the others.
fn apart(header: &FrameHeader) -> Option<usize> {
    let content = header
        .content
        .filter(|&content| content <= CONTENT_BYTES_MAX)?;
    let is_fit = !header.is_special && header.window <= WINDOW_BYTES_MAX;
    is_fit.then(|| usize::try_from(content).ok()).flatten()
}
