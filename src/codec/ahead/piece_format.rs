//! What a compression method tells about the pieces of its streams.

use std::io::{self, BufRead};

/// A compression method whose streams consist of pieces.
pub(in crate::codec) trait PieceFormat {
    /// Finds the end of a piece.
    type Scanner: PieceScanner;

    /// How many cores are busy with hashing and unpacking the nar, besides the one that reads.
    const CORES_BESIDES: usize;

    /// Decodes the piece that `input` is at; `Ok(0)` once it has come to its end.
    fn stream(&mut self, input: &mut dyn BufRead, buffer: &mut [u8]) -> io::Result<usize>;

    /// Between two pieces: whether `input` ends here. An input that must not end is an error.
    fn is_at_end(&mut self, input: &mut dyn BufRead) -> io::Result<bool>;

    /// A scanner for the piece that comes next.
    fn scanner(&self) -> Self::Scanner;

    /// Decodes a scanned piece into memory that has room for it; whether the content has the size
    /// that the piece declares.
    fn decode(scanner: &Self::Scanner, piece: &[u8], content: &mut Vec<u8>) -> bool;

    /// Accounts for a piece that was decoded without [`PieceFormat::stream`], in its turn.
    fn passed(&mut self, scanner: &Self::Scanner);
}

/// Reads the headers in one piece, up to the piece's end.
pub(in crate::codec) trait PieceScanner: Send + 'static {
    /// What to do next, with the first `bytes` of the piece; `is_all` says that the input ends
    /// behind them.
    fn next(&mut self, bytes: &[u8], is_all: bool) -> ScanStep;
}

/// See [`PieceScanner::next`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::codec) enum ScanStep {
    /// This many bytes have to be available.
    Need(usize),
    /// This much memory will be needed. Reported once, before more than a header is needed.
    Sizes(PieceSizes),
    /// The piece ends behind this many bytes.
    End(usize),
    /// No piece that can be decoded apart from the others begins here.
    NotSeparable,
}

/// The bytes of memory that a piece takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::codec) struct PieceSizes {
    /// Compressed, at most.
    pub(in crate::codec) compressed: usize,
    /// Decoded, at most.
    pub(in crate::codec) content: usize,
    /// What the decoder needs besides.
    pub(in crate::codec) decoder: usize,
}
