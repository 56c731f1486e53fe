//! The reader of a nar that is made of pieces: which piece comes from where, and when the next
//! ones are collected.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, bounded};

use crate::codec::budget::Share;

use super::input::Input;
use super::{Ahead, Format, Sizes, Step, Walk};

/// A piece that is being collected.
struct Collecting<W> {
    bytes: Vec<u8>,
    walk: W,
    /// What it takes, once it has said so.
    reserved: Option<Reserved>,
    /// No more bytes follow.
    is_all: bool,
}

struct Reserved {
    sizes: Sizes,
    share: Share,
    /// Where a worker puts the content.
    content: Vec<u8>,
}

/// A piece that waits for its turn.
enum Waiting<W> {
    /// To be decoded by the reader.
    Own { bytes: Vec<u8>, share: Share },
    /// With the workers.
    Worker(Receiver<Decoded<W>>),
}

/// What a worker has made of a piece.
struct Decoded<W> {
    walk: W,
    bytes: Vec<u8>,
    /// `None`: it cannot be decoded so.
    content: Option<Vec<u8>>,
    share: Share,
}

/// Where the next bytes come from.
enum Source {
    /// The piece that the input is at.
    Input,
    /// A piece that was collected to be decoded here.
    Own {
        bytes: Vec<u8>,
        at: usize,
        _share: Share,
    },
    /// A piece that a worker has decoded.
    Worker {
        content: Vec<u8>,
        at: usize,
        share: Share,
    },
}

/// Reads the nar that a stream of pieces stands for.
pub(in crate::codec) struct Pieces<R, F: Format> {
    input: Input<R>,
    format: F,
    ahead: Ahead,
    source: Source,
    /// What comes behind the source, in order; the input goes on behind that.
    waiting: VecDeque<Waiting<F::Walk>>,
    collecting: Option<Collecting<F::Walk>>,
    /// What comes next cannot be collected at the moment.
    is_stalled: bool,
    /// Where the next piece may be collected: what was walked over in vain is not walked over
    /// again, or many small pieces would take the square of their number.
    next_try: u64,
    /// Pieces collected in a row.
    collected: usize,
    /// Memory for content, to be used again: getting new memory from the system for every piece
    /// would cost a third of what decoding it costs.
    spare: Option<(Vec<u8>, Share)>,
    /// Tells tasks that have not begun that nobody waits for them.
    abandoned: Arc<AtomicBool>,
    is_at_end: bool,
}

impl<R: BufRead, F: Format> Pieces<R, F> {
    pub(in crate::codec) fn new(input: R, format: F, ahead: Ahead) -> Self {
        Self {
            input: Input::new(input),
            format,
            ahead,
            source: Source::Input,
            waiting: VecDeque::new(),
            collecting: None,
            is_stalled: false,
            next_try: 0,
            collected: 0,
            spare: None,
            abandoned: Arc::default(),
            is_at_end: false,
        }
    }

    /// Reads up to `goal` bytes ahead, as far as pieces can be collected.
    fn collect(&mut self, mut goal: usize) -> io::Result<()> {
        let helpers = self.helpers();
        self.is_stalled |= self.collecting.is_none() && self.input.taken() < self.next_try;
        while goal > 0 && !self.is_stalled && self.waiting.len() <= helpers {
            let mut piece = self.collecting.take().unwrap_or_else(|| Collecting {
                bytes: Vec::new(),
                walk: self.format.walk(),
                reserved: None,
                is_all: false,
            });
            match piece.walk.next(&piece.bytes, piece.is_all) {
                Step::Need(length) if !piece.is_all && !self.ahead.budget.is_shared() => {
                    let before = piece.bytes.len();
                    let length = length.min(before.saturating_add(goal));
                    piece.is_all = !self.input.fill(&mut piece.bytes, length)?;
                    goal -= piece.bytes.len() - before;
                }
                Step::Sizes(sizes) => {
                    piece.reserved = self.reserve(sizes);
                    self.is_stalled = piece.reserved.is_none();
                }
                Step::End(length) => {
                    self.input.put_back(piece.bytes.split_off(length));
                    self.enqueue(piece);
                    continue;
                }
                Step::Need(_) => self.is_stalled = true,
                Step::Odd => {
                    self.is_stalled = true;
                    self.next_try = self.input.taken();
                }
            }
            self.collecting = Some(piece);
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

    /// Whether the next piece is for the reader itself.
    fn is_own(&self) -> bool {
        self.collected.is_multiple_of(self.helpers() + 1)
    }

    /// The memory that the next piece takes.
    fn memory(&self, sizes: Sizes) -> u64 {
        let Sizes {
            compressed,
            content,
            decoder,
        } = sizes;
        (if self.is_own() {
            compressed
        } else {
            compressed + content + decoder
        }) as u64
    }

    /// Memory for the next piece, if there is enough.
    fn reserve(&mut self, sizes: Sizes) -> Option<Reserved> {
        let (memory, is_own) = (self.memory(sizes), self.is_own());
        match self
            .spare
            .take_if(|(spare, _)| !is_own && spare.capacity() >= sizes.content)
        {
            Some((content, mut share)) => share.grow(memory).then_some(Reserved {
                sizes,
                share,
                content,
            }),
            None => {
                let share = self.ahead.budget.ahead(memory)?;
                self.ahead.contexts.clear();
                Some(Reserved {
                    sizes,
                    share,
                    content: Vec::new(),
                })
            }
        }
    }

    /// Has a piece that is complete decoded when its turn comes, or at once.
    fn enqueue(&mut self, piece: Collecting<F::Walk>) {
        let Collecting {
            bytes,
            walk,
            reserved,
            ..
        } = piece;
        let Some(mut reserved) = reserved else {
            self.is_stalled = true;
            return self.input.put_back(bytes);
        };
        let sizes = Sizes {
            compressed: bytes.len(),
            ..reserved.sizes
        };
        reserved.share.shrink(self.memory(sizes));
        self.waiting.push_back(if self.is_own() {
            Waiting::Own {
                bytes,
                share: reserved.share,
            }
        } else {
            Waiting::Worker(self.hand_over(bytes, walk, reserved))
        });
        self.collected += 1;
    }

    /// Gives a piece to the workers.
    fn hand_over(
        &self,
        bytes: Vec<u8>,
        walk: F::Walk,
        reserved: Reserved,
    ) -> Receiver<Decoded<F::Walk>> {
        let (done, decoded) = bounded(1);
        let abandoned = Arc::clone(&self.abandoned);
        self.ahead.workers.run(Box::new(move || {
            if abandoned.load(Ordering::Relaxed) {
                return;
            }
            let Reserved {
                sizes,
                share,
                mut content,
            } = reserved;
            content.clear();
            content.reserve_exact(sizes.content);
            let content = F::decode(&walk, &bytes, &mut content).then_some(content);
            // Fails when the reader is gone, and then nobody needs it.
            let _ = done.send(Decoded {
                walk,
                bytes,
                content,
                share,
            });
        }));
        decoded
    }

    /// Goes on behind a piece that has come to its end.
    fn next_piece(&mut self) -> io::Result<()> {
        self.is_stalled = false;
        let last = std::mem::replace(&mut self.source, Source::Input);
        match self.waiting.pop_front() {
            Some(Waiting::Own { bytes, share }) => {
                self.source = Source::Own {
                    bytes,
                    at: 0,
                    _share: share,
                };
            }
            Some(Waiting::Worker(decoded)) => self.take_over(receive(&decoded)?)?,
            None => {
                self.stop_collecting();
                self.is_at_end = self.format.is_at_end(&mut self.input)?;
                self.spare = None;
                if matches!(last, Source::Input) && !self.is_at_end {
                    self.begin()?;
                }
            }
        }
        if let Source::Worker { content, share, .. } = last {
            self.spare = Some((content, share));
        }
        if self.ahead.budget.is_shared() {
            self.spare = None;
        }
        Ok(())
    }

    /// Begins to decode ahead, if that can gain something.
    fn begin(&mut self) -> io::Result<()> {
        self.collected = 0;
        if self.helpers() > 0 && !self.input.was_slow() {
            while self.waiting.len() < 2 && !self.is_stalled {
                self.collect(COLLECTED_BYTES)?;
            }
            self.stop_collecting();
        }
        if let Some(Waiting::Own { bytes, share }) = self.waiting.pop_front() {
            self.source = Source::Own {
                bytes,
                at: 0,
                _share: share,
            };
        }
        Ok(())
    }

    /// Puts back what is not a whole piece.
    fn stop_collecting(&mut self) {
        if let Some(piece) = self.collecting.take() {
            self.input.put_back(piece.bytes);
        }
    }

    /// Goes on with what a worker has made; if that is nothing, with the bytes themselves.
    fn take_over(&mut self, decoded: Decoded<F::Walk>) -> io::Result<()> {
        let Decoded {
            walk,
            bytes,
            content,
            mut share,
        } = decoded;
        if let Some(content) = content {
            self.format.passed(&walk);
            share.shrink(content.capacity() as u64);
            self.source = Source::Worker {
                content,
                at: 0,
                share,
            };
            return Ok(());
        }
        self.stop_collecting();
        while let Some(last) = self.waiting.pop_back() {
            self.input.put_back(match last {
                Waiting::Own { bytes, .. } => bytes,
                Waiting::Worker(decoded) => receive(&decoded)?.bytes,
            });
        }
        self.input.put_back(bytes);
        Ok(())
    }
}

/// How much is collected at once where nothing is handed on meanwhile.
const COLLECTED_BYTES: usize = 1 << 20;

fn receive<W>(decoded: &Receiver<Decoded<W>>) -> io::Result<Decoded<W>> {
    decoded
        .recv()
        .map_err(|_| io::Error::other("a thread that decodes has panicked"))
}

impl<R: BufRead, F: Format> Read for Pieces<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.is_at_end && !buffer.is_empty() {
            let count = match &mut self.source {
                Source::Input => self.format.stream(&mut self.input, buffer)?,
                Source::Own { bytes, at, .. } => {
                    let mut rest = &bytes[*at..];
                    let mut count = self.format.stream(&mut rest, buffer)?;
                    // What was collected may be several pieces that are small.
                    while count == 0 && !rest.is_empty() {
                        count = self.format.stream(&mut rest, buffer)?;
                    }
                    *at = bytes.len() - rest.len();
                    count
                }
                Source::Worker { content, at, .. } => {
                    let count = buffer.len().min(content.len() - *at);
                    buffer[..count].copy_from_slice(&content[*at..*at + count]);
                    *at += count;
                    count
                }
            };
            if count == 0 {
                self.next_piece()?;
                continue;
            }
            if !matches!(self.source, Source::Input) {
                let are_workers_busy = self
                    .waiting
                    .iter()
                    .any(|piece| matches!(piece, Waiting::Worker(_)));
                self.collect(if are_workers_busy {
                    count / 2
                } else {
                    count * 4
                })?;
            }
            return Ok(count);
        }
        Ok(0)
    }
}

impl<R, F: Format> Drop for Pieces<R, F> {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}
