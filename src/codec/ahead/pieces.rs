//! The reader of a nar that consists of pieces: which piece comes from where, and when the next
//! ones are collected.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::input::PushbackInput;
use super::piece::{
    CollectedPiece, DecodedPiece, PartialPiece, PieceReservation, PieceSource, QueuedPiece,
    decode_on_worker, receive,
};
use super::piece_format::{PieceFormat, PieceScanner, PieceSizes, ScanStep};
use super::workers::DecodeAhead;
use crate::codec::budget::MemoryShare;

/// How much is collected at once while no decoded bytes are returned.
const COLLECTED_BYTES: usize = 1 << 20;

/// Reads the nar that a stream of pieces decodes to.
pub(in crate::codec) struct PieceReader<R, F: PieceFormat> {
    input: PushbackInput<R>,
    format: F,
    ahead: DecodeAhead,
    source: PieceSource,
    /// The pieces behind `source`, in order; `input` continues behind the last of them.
    queue: VecDeque<QueuedPiece<F::Scanner>>,
    partial: Option<PartialPiece<F::Scanner>>,
    /// The next piece cannot be collected at the moment.
    is_stalled: bool,
    /// The input position before which no piece can be collected. Without it, a stretch of many
    /// small pieces would be scanned again for each of them.
    next_try: u64,
    /// Pieces collected in a row.
    collected: usize,
    /// Memory for content, to be used again: getting new memory from the system for every piece
    /// would cost a third of what decoding it costs.
    spare: Option<(Vec<u8>, MemoryShare)>,
    /// Tells tasks that have not begun that their result is of no use.
    is_abandoned: Arc<AtomicBool>,
    is_at_end: bool,
}

impl<R: BufRead, F: PieceFormat> PieceReader<R, F> {
    pub(in crate::codec) fn new(input: R, format: F, ahead: DecodeAhead) -> Self {
        Self {
            input: PushbackInput::new(input),
            format,
            ahead,
            source: PieceSource::Input,
            queue: VecDeque::new(),
            partial: None,
            is_stalled: false,
            next_try: 0,
            collected: 0,
            spare: None,
            is_abandoned: Arc::default(),
            is_at_end: false,
        }
    }

    /// Reads up to `goal` bytes ahead, as far as pieces can be collected.
    fn collect(&mut self, mut goal: usize) -> io::Result<()> {
        let helpers = self.helpers();
        self.is_stalled |= self.partial.is_none() && self.input.taken() < self.next_try;

        while goal > 0 && !self.is_stalled && self.queue.len() <= helpers {
            let mut piece = self
                .partial
                .take()
                .unwrap_or_else(|| PartialPiece::new(self.format.scanner()));

            match piece.scanner.next(&piece.bytes, piece.is_all) {
                ScanStep::Need(length) if !piece.is_all && !self.ahead.budget.is_shared() => {
                    let before = piece.bytes.len();
                    let length = length.min(before.saturating_add(goal));
                    piece.is_all = !self.input.fill(&mut piece.bytes, length)?;
                    goal -= piece.bytes.len() - before;
                }
                ScanStep::Sizes(sizes) => {
                    piece.reservation = self.reserve(sizes);
                    self.is_stalled = piece.reservation.is_none();
                }
                ScanStep::End(length) => {
                    self.input.put_back(piece.bytes.split_off(length));
                    self.enqueue(piece);
                    continue;
                }
                ScanStep::Need(_) => self.is_stalled = true,
                ScanStep::NotSeparable => {
                    self.is_stalled = true;
                    self.next_try = self.input.taken();
                }
            }
            self.partial = Some(piece);
        }

        if self.is_stalled {
            self.stop_collecting();
        }
        Ok(())
    }

    /// How many workers are of use.
    fn helpers(&self) -> usize {
        self.ahead
            .workers
            .threads_max()
            .saturating_sub(F::CORES_BESIDES)
    }

    /// Whether the next piece is to be decoded by the reader itself.
    fn is_next_for_reader(&self) -> bool {
        self.collected.is_multiple_of(self.helpers() + 1)
    }

    /// Bytes of memory that the next piece takes.
    fn memory(&self, sizes: PieceSizes) -> u64 {
        let bytes = if self.is_next_for_reader() {
            sizes.compressed
        } else {
            sizes.compressed + sizes.content + sizes.decoder
        };
        bytes as u64
    }

    /// Memory for the next piece, if there is enough.
    fn reserve(&mut self, sizes: PieceSizes) -> Option<PieceReservation> {
        let memory = self.memory(sizes);
        let is_for_worker = !self.is_next_for_reader();
        let spare = self
            .spare
            .take_if(|(spare, _)| is_for_worker && spare.capacity() >= sizes.content);

        let (content, share) = match spare {
            Some((content, mut share)) => {
                if !share.grow(memory) {
                    return None;
                }
                (content, share)
            }
            None => {
                let share = self.ahead.budget.ahead(memory)?;
                self.ahead.contexts.clear();
                (Vec::new(), share)
            }
        };
        Some(PieceReservation {
            sizes,
            share,
            content,
        })
    }

    /// Queues a complete piece, for the reader or with a worker.
    fn enqueue(&mut self, piece: PartialPiece<F::Scanner>) {
        let Some(mut reservation) = piece.reservation else {
            self.is_stalled = true;
            return self.input.put_back(piece.bytes);
        };

        let sizes = PieceSizes {
            compressed: piece.bytes.len(),
            ..reservation.sizes
        };
        reservation.share.shrink(self.memory(sizes));

        let queued = if self.is_next_for_reader() {
            QueuedPiece::ForReader(CollectedPiece {
                bytes: piece.bytes,
                at: 0,
                _share: reservation.share,
            })
        } else {
            QueuedPiece::WithWorker(decode_on_worker::<F>(
                &self.ahead.workers,
                Arc::clone(&self.is_abandoned),
                piece.bytes,
                piece.scanner,
                reservation,
            ))
        };
        self.queue.push_back(queued);
        self.collected += 1;
    }

    /// Continues behind a piece that has come to its end.
    fn next_piece(&mut self) -> io::Result<()> {
        self.is_stalled = false;
        let last = std::mem::replace(&mut self.source, PieceSource::Input);

        match self.queue.pop_front() {
            Some(QueuedPiece::ForReader(piece)) => self.source = PieceSource::Collected(piece),
            Some(QueuedPiece::WithWorker(decoded)) => self.take_over(receive(&decoded)?)?,
            None => {
                self.stop_collecting();
                self.is_at_end = self.format.is_at_end(&mut self.input)?;
                self.spare = None;
                if matches!(last, PieceSource::Input) && !self.is_at_end {
                    self.begin()?;
                }
            }
        }

        if let PieceSource::Decoded { content, share, .. } = last {
            self.spare = Some((content, share));
        }
        // The input may be slow, and others need the memory meanwhile.
        if matches!(self.source, PieceSource::Input) || self.ahead.budget.is_shared() {
            self.spare = None;
        }
        Ok(())
    }

    /// Begins to decode ahead, if that can save time.
    fn begin(&mut self) -> io::Result<()> {
        self.collected = 0;
        if self.helpers() > 0 && !self.input.was_slow() {
            while self.queue.len() < 2 && !self.is_stalled {
                self.collect(COLLECTED_BYTES)?;
            }
            self.stop_collecting();
        }

        // The first piece of a row is always the reader's.
        if let Some(QueuedPiece::ForReader(piece)) = self.queue.pop_front() {
            self.source = PieceSource::Collected(piece);
        }
        Ok(())
    }

    /// Puts back what is not a whole piece.
    fn stop_collecting(&mut self) {
        if let Some(piece) = self.partial.take() {
            self.input.put_back(piece.bytes);
        }
    }

    /// Continues with the content of a piece that a worker has decoded. When the worker could not
    /// decode it, everything collected is put back, to be decoded serially.
    fn take_over(&mut self, decoded: DecodedPiece<F::Scanner>) -> io::Result<()> {
        if let Some(content) = decoded.content {
            self.format.passed(&decoded.scanner);
            let mut share = decoded.share;
            share.shrink(content.capacity() as u64);
            self.source = PieceSource::Decoded {
                content,
                at: 0,
                share,
            };
            return Ok(());
        }

        self.stop_collecting();
        while let Some(last) = self.queue.pop_back() {
            self.input.put_back(last.into_bytes()?);
        }
        self.input.put_back(decoded.bytes);
        Ok(())
    }

    /// Decodes or copies the next bytes of the current piece; `Ok(0)` at its end.
    fn read_source(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.source {
            PieceSource::Input => self.format.stream(&mut self.input, buffer),
            PieceSource::Collected(piece) => {
                let mut rest = &piece.bytes[piece.at..];
                let mut count = self.format.stream(&mut rest, buffer)?;
                // What was collected as one piece may be several small ones.
                while count == 0 && !rest.is_empty() {
                    count = self.format.stream(&mut rest, buffer)?;
                }
                piece.at = piece.bytes.len() - rest.len();
                Ok(count)
            }
            PieceSource::Decoded { content, at, .. } => {
                let count = buffer.len().min(content.len() - *at);
                buffer[..count].copy_from_slice(&content[*at..*at + count]);
                *at += count;
                Ok(count)
            }
        }
    }
}

impl<R: BufRead, F: PieceFormat> Read for PieceReader<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.is_at_end && !buffer.is_empty() {
            let count = self.read_source(buffer)?;
            if count == 0 {
                self.next_piece()?;
                continue;
            }

            if !matches!(self.source, PieceSource::Input) {
                let are_workers_busy = self
                    .queue
                    .iter()
                    .any(|piece| matches!(piece, QueuedPiece::WithWorker(_)));
                let goal = if are_workers_busy {
                    count / 2
                } else {
                    count * 4
                };
                self.collect(goal)?;
            }
            return Ok(count);
        }
        Ok(0)
    }
}

impl<R, F: PieceFormat> Drop for PieceReader<R, F> {
    fn drop(&mut self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
    }
}
