//! The states of one piece: being collected, queued, being read.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, bounded};

use super::piece_format::{PieceFormat, PieceSizes};
use super::workers::DecodeWorkers;
use crate::codec::budget::MemoryShare;

/// A piece that is being collected.
pub(super) struct PartialPiece<S> {
    pub(super) bytes: Vec<u8>,
    pub(super) scanner: S,
    /// Memory for it, once the scanner has reported its sizes.
    pub(super) reservation: Option<PieceReservation>,
    /// The input has ended behind `bytes`.
    pub(super) is_all: bool,
}

impl<S> PartialPiece<S> {
    pub(super) fn new(scanner: S) -> Self {
        Self {
            bytes: Vec::new(),
            scanner,
            reservation: None,
            is_all: false,
        }
    }
}

/// Memory that has been set aside for a piece.
pub(super) struct PieceReservation {
    pub(super) sizes: PieceSizes,
    pub(super) share: MemoryShare,
    /// Where a worker puts the content; empty or from an earlier piece.
    pub(super) content: Vec<u8>,
}

/// A complete piece that the reader decodes itself.
pub(super) struct CollectedPiece {
    pub(super) bytes: Vec<u8>,
    /// How many of `bytes` have been decoded.
    pub(super) at: usize,
    /// Given back when the piece is dropped.
    pub(super) _share: MemoryShare,
}

/// A piece as a worker returns it.
pub(super) struct DecodedPiece<S> {
    pub(super) scanner: S,
    pub(super) bytes: Vec<u8>,
    /// `None`: the piece cannot be decoded apart from the others.
    pub(super) content: Option<Vec<u8>>,
    pub(super) share: MemoryShare,
}

/// A complete piece whose turn has not come.
pub(super) enum QueuedPiece<S> {
    ForReader(CollectedPiece),
    WithWorker(Receiver<DecodedPiece<S>>),
}

impl<S> QueuedPiece<S> {
    /// The compressed bytes. Waits for the worker that has them.
    pub(super) fn into_bytes(self) -> io::Result<Vec<u8>> {
        match self {
            Self::ForReader(piece) => Ok(piece.bytes),
            Self::WithWorker(decoded) => Ok(receive(&decoded)?.bytes),
        }
    }
}

/// Where the next decoded bytes come from.
pub(super) enum PieceSource {
    /// The piece that the input is at.
    Input,
    /// A collected piece, decoded by the reader.
    Collected(CollectedPiece),
    /// The content that a worker has made of a piece.
    Decoded {
        content: Vec<u8>,
        at: usize,
        share: MemoryShare,
    },
}

/// Has a worker decode the piece `bytes`, unless `is_abandoned` is set before it begins.
pub(super) fn decode_on_worker<F: PieceFormat>(
    workers: &DecodeWorkers,
    is_abandoned: Arc<AtomicBool>,
    bytes: Vec<u8>,
    scanner: F::Scanner,
    reservation: PieceReservation,
) -> Receiver<DecodedPiece<F::Scanner>> {
    let (sender, decoded) = bounded(1);
    workers.run(Box::new(move || {
        if is_abandoned.load(Ordering::Relaxed) {
            return;
        }

        let PieceReservation {
            sizes,
            share,
            mut content,
        } = reservation;
        content.clear();
        content.reserve_exact(sizes.content);
        let content = F::decode(&scanner, &bytes, &mut content).then_some(content);

        // Sending fails when the reader is gone; then the piece is of no use.
        let _ = sender.send(DecodedPiece {
            scanner,
            bytes,
            content,
            share,
        });
    }));
    decoded
}

/// Waits for the piece that a worker decodes.
pub(super) fn receive<S>(decoded: &Receiver<DecodedPiece<S>>) -> io::Result<DecodedPiece<S>> {
    decoded
        .recv()
        .map_err(|_| io::Error::other("a decoding thread has panicked"))
}
