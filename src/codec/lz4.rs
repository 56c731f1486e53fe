//! LZ4 frames (the LZ4 Frame Format 1.6), one behind another.
//!
//! The library takes the end of the input for the end of the stream, even in the middle of a frame;
//! here a frame has to be complete. Frames with a dictionary, skippable frames and the legacy format
//! are refused; Nix writes none of them.

use std::io::{self, BufRead, Read};

use lz4_flex::frame::FrameDecoder;

/// What a decoder takes with the largest blocks, of 4 MiB: one compressed, two decoded, and the
/// window of 64 KiB.
pub(super) const NEEDED_BYTES: u64 = (12 << 20) + (64 << 10);

/// Reads the decoded bytes of the frames in `R`.
pub(super) struct Lz4Reader<R: BufRead> {
    frames: FrameDecoder<ObservedInput<R>>,
    is_at_end: bool,
}

/// An input, and whether its end has been reached.
struct ObservedInput<R> {
    input: R,
    has_ended: bool,
}

impl<R: BufRead> Lz4Reader<R> {
    pub(super) fn new(input: R) -> Self {
        let has_ended = false;
        Self {
            frames: FrameDecoder::new(ObservedInput { input, has_ended }),
            is_at_end: false,
        }
    }
}

impl<R: BufRead> Read for Lz4Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.is_at_end && !buffer.is_empty() {
            let count = self.frames.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }

            // The end of a frame, or of the input inside one.
            let observed = self.frames.get_mut();
            if observed.has_ended {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "incomplete lz4 frame",
                ));
            }
            self.is_at_end = observed.input.fill_buf()?.is_empty();
        }
        Ok(0)
    }
}

impl<R: BufRead> Read for ObservedInput<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.has_ended |= count == 0 && !buffer.is_empty();
        Ok(count)
    }
}
