//! One large nar over several connections, for links where each connection is slow.
//!
//! A far mirror, or a server with a limit per connection, gives a single stream a fraction of
//! the line. The rest of the file is cut into segments of [`SEGMENT_BYTES`], which threads
//! fetch side by side with `Range` and `If-Range` and which are read in order. How many
//! connections a run opens for that is bounded for all transfers together, and so is how far
//! ahead of the reader they may be.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use bytes::Bytes;
use url::Url;

use crate::http::{BodyStatus, Client, HttpError, NarRequest};

/// What one request fetches.
const SEGMENT_BYTES: u64 = 1 << 20;

/// Connections that may be opened for segments, of all transfers together.
#[derive(Debug, Clone)]
pub(super) struct Connections(Arc<Mutex<usize>>);

impl Connections {
    pub(super) fn new(count: usize) -> Self {
        Self(Arc::new(Mutex::new(count)))
    }

    /// Takes as many as are free.
    fn take_all(&self) -> usize {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn give_back(&self, count: usize) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += count;
    }
}

/// The part of a file that is fetched in segments.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) url: Url,
    /// Names the version of the file that the segments have to be of.
    pub(super) validator: String,
    /// Where the part begins in the file,
    pub(super) start: u64,
    /// and where the file ends.
    pub(super) end: u64,
}

impl Part {
    fn range(&self, segment: u64) -> (u64, u64) {
        let start = self.start + segment * SEGMENT_BYTES;
        (start, (start + SEGMENT_BYTES).min(self.end))
    }

    fn count(&self) -> u64 {
        (self.end - self.start).div_ceil(SEGMENT_BYTES)
    }
}

/// Segments under way, read in order.
pub(super) struct Segments {
    shared: Arc<Shared>,
    connections: Connections,
    taken: usize,
}

struct Shared {
    client: Arc<Client>,
    part: Part,
    /// Raised when the user wants to stop.
    stop: Arc<AtomicBool>,
    /// How many segments may be ahead of the reader.
    window: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The next segment that nobody fetches yet.
    next: u64,
    /// The segment that is being read.
    reading: u64,
    /// Pieces that have arrived, by segment; the flag says that the segment is complete.
    arrived: BTreeMap<u64, (Vec<Bytes>, bool)>,
    failure: Option<HttpError>,
    /// Nobody reads any more.
    abandoned: bool,
}

impl Segments {
    /// Starts to fetch `part`; `None` when there are too few free connections to gain anything.
    pub(super) fn start(
        client: &Arc<Client>,
        part: Part,
        stop: Arc<AtomicBool>,
        connections: &Connections,
    ) -> Option<Self> {
        let taken = connections.take_all();
        let useful = taken.min(usize::try_from(part.count()).unwrap_or(usize::MAX));
        connections.give_back(taken - useful);
        if useful < 2 {
            connections.give_back(useful);
            return None;
        }
        let shared = Arc::new(Shared {
            client: Arc::clone(client),
            part,
            stop,
            window: useful as u64 * 2,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let segments = Self { shared, connections: connections.clone(), taken: useful };
        for number in 0..useful {
            let shared = Arc::clone(&segments.shared);
            let thread = std::thread::Builder::new().name(format!("segment-{number}"));
            // A system that has no threads to give is no place for more connections.
            thread.spawn(move || shared.fetch_all()).ok()?;
        }
        Some(segments)
    }

    /// The next bytes, in order; `None` at the end of the file.
    pub(super) fn next_chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        let mut state = self.shared.lock();
        loop {
            if state.reading == self.shared.part.count() {
                return Ok(None);
            }
            let reading = state.reading;
            if let Some((pieces, is_complete)) = state.arrived.get_mut(&reading) {
                if !pieces.is_empty() {
                    return Ok(Some(pieces.remove(0)));
                }
                if *is_complete {
                    state.arrived.remove(&reading);
                    state.reading += 1;
                    self.shared.changed.notify_all();
                    continue;
                }
            }
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        self.shared.lock().abandoned = true;
        self.shared.changed.notify_all();
        self.connections.give_back(self.taken);
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches segment after segment, until there are no more or something fails.
    fn fetch_all(&self) {
        while let Some(segment) = self.next_segment() {
            if let Err(error) = self.fetch(segment) {
                self.lock().failure.get_or_insert(error);
                self.changed.notify_all();
                return;
            }
        }
    }

    /// The next segment to fetch, once the reader is near enough.
    fn next_segment(&self) -> Option<u64> {
        let mut state = self.lock();
        loop {
            if state.abandoned || state.failure.is_some() || state.next == self.part.count() {
                return None;
            }
            if state.next < state.reading + self.window {
                state.next += 1;
                return Some(state.next - 1);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn fetch(&self, segment: u64) -> Result<(), HttpError> {
        let (start, end) = self.part.range(segment);
        let mut body = self.client.nar(NarRequest {
            range: Some((start, Some(end))),
            if_range: Some(self.part.validator.clone()),
            stop: Some(Arc::clone(&self.stop)),
            ..NarRequest::new(self.part.url.clone())
        })?;
        let is_right =
            matches!(body.status(), BodyStatus::Partial { start: found, .. } if found == start);
        if !is_right {
            // Another version of the file, or a server that does not keep its word.
            return Err(HttpError::wrong_range(&self.part.url));
        }
        let mut left = end - start;
        while left > 0 {
            // Some give less than was asked for, and some more.
            let Some(mut piece) = body.next_chunk()? else {
                return Err(HttpError::wrong_range(&self.part.url));
            };
            piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left -= piece.len() as u64;
            let mut state = self.lock();
            if state.abandoned {
                return Ok(());
            }
            state.arrived.entry(segment).or_default().0.push(piece);
            drop(state);
            self.changed.notify_all();
        }
        self.lock().arrived.entry(segment).or_default().1 = true;
        self.changed.notify_all();
        Ok(())
    }
}
