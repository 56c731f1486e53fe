//! One nar decoded by several threads, where its compression method cuts it into pieces.
//!
//! The first piece is always decoded as it arrives, as if there were no others: a nar of one
//! piece, the usual case, is touched by nothing here. When it has ended and more follows, pieces
//! are collected in whole, ahead of the one that is being read: in turns, the reader decodes one
//! itself while the next ones are with the workers, who decode each into memory of its own. The
//! reader collects a little whenever it hands something on, more while the workers have nothing
//! to do, so that there is no pause between the pieces.
//!
//! A piece is only collected when it says how large it will be, is small enough, and there is
//! memory for it ([`super::budget`]); in every other case the bytes are put back and decoded as
//! they come. So are the bytes of a piece that a worker could not decode, with all that follows:
//! whether the input is valid, and the error if it is not, is always the serial decoder's to
//! say. When the network is what everybody waits for, nothing is decoded ahead.

mod input;
mod pieces;
#[cfg(test)]
mod tests;
mod workers;

use std::io::{self, BufRead};
use std::sync::Arc;

use super::budget::MemoryBudget;
use super::contexts::Contexts;
pub(super) use pieces::Pieces;
pub(super) use workers::Workers;

/// A compression method whose streams are made of pieces.
pub(super) trait Format {
    /// Finds the end of a piece.
    type Walk: Walk;

    /// How many cores are busy with what is done with the nar, beside the one that reads.
    const CORES_BESIDES: usize;

    /// Decodes the piece that `input` is at; `Ok(0)` once it has come to its end.
    fn stream(&mut self, input: &mut dyn BufRead, buffer: &mut [u8]) -> io::Result<usize>;

    /// Between two pieces: whether `input` ends as it should.
    fn is_at_end(&mut self, input: &mut dyn BufRead) -> io::Result<bool>;

    /// To find the end of the piece that comes next.
    fn walk(&self) -> Self::Walk;

    /// Decodes the piece that was walked over into memory that has room for it; whether it
    /// became what it said.
    fn decode(walk: &Self::Walk, piece: &[u8], content: &mut Vec<u8>) -> bool;

    /// A piece has been decoded without [`Format::stream`], when its turn had come.
    fn passed(&mut self, walk: &Self::Walk);
}

/// A way through the bytes of one piece.
pub(super) trait Walk: Send + 'static {
    /// What to do next, with `bytes` of the piece at hand; `is_all` says that no more follow.
    fn next(&mut self, bytes: &[u8], is_all: bool) -> Step;
}

/// See [`Walk::next`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Show me this many bytes.
    Need(usize),
    /// This much memory will be needed. Said once, before more than a header is asked for.
    Sizes(Sizes),
    /// The piece ends behind this many bytes.
    End(usize),
    /// This is no piece to be decoded apart.
    Odd,
}

/// What a piece takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    /// At most this many compressed bytes.
    pub(super) compressed: usize,
    /// At most this many bytes when decoded.
    pub(super) content: usize,
    /// What the decoder needs besides.
    pub(super) decoder: usize,
}

/// Who decodes ahead, and with what memory.
#[derive(Clone)]
pub(super) struct Ahead {
    pub(super) workers: Arc<Workers>,
    pub(super) budget: Arc<MemoryBudget>,
    /// Given up when memory is taken for pieces: kept contexts count in no budget.
    pub(super) contexts: Arc<Contexts>,
}
