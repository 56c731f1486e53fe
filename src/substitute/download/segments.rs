//! One large nar over several connections, for links where each connection is slow.
//!
//! A far mirror, or a server with a limit per connection, gives a single stream a fraction of
//! the line. The rest of the file is cut into segments of [`SEGMENT_BYTES`], which threads
//! fetch side by side with `Range` and `If-Range` and which are read in order. How many
//! connections a run opens for that is bounded for all transfers together, and so is how far
//! ahead of the reader they may be.
//!
//! `tests/peers/bench/speed e` measures it: a nar of 60 MB over four connections of 8 MiB/s each
//! arrives 3.4 times as fast as over one.
//!
//! The first segment is requested alone, while the single stream goes on: only when bytes of it
//! arrive are the others requested, and only when it is complete are segments read at all. A
//! connection that fails leaves its segment to the others; when none is left, the segments fail.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use url::Url;

use crate::http::{BodyStatus, Client, HttpError, NarRequest, RetryPolicy};
use crate::sync::{lock, wait};

/// For how long a server may send less than the minimum rate where the bytes can come another way.
pub(super) const IMPATIENT_WINDOW: Duration = Duration::from_secs(3);

/// What one request fetches.
pub(super) const SEGMENT_BYTES: u64 = 1 << 20;

/// A response with less than one part in this many of the requested range is a failure.
const SHARE_MIN: u64 = 8;

/// Connections that may be opened for segments, of all transfers together.
#[derive(Debug, Clone)]
pub(super) struct SegmentConnections(Arc<Mutex<usize>>);

impl SegmentConnections {
    pub(super) fn new(count: usize) -> Self {
        Self(Arc::new(Mutex::new(count)))
    }

    /// Takes as many as are free.
    fn take_all(&self) -> usize {
        std::mem::take(&mut *lock(&self.0))
    }

    fn give_back(&self, count: usize) {
        *lock(&self.0) += count;
    }
}

/// The part of a file that is fetched in segments.
#[derive(Debug, Clone)]
pub(super) struct SegmentedPart {
    pub(super) url: Url,
    /// Names the version of the file that the segments have to be of.
    pub(super) validator: String,
    /// Where the part begins in the file,
    pub(super) start: u64,
    /// and where the file ends.
    pub(super) end: u64,
    /// For how long the server may send too little, if not as long as usual.
    pub(super) rate_window: Option<Duration>,
}

impl SegmentedPart {
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
    shared: Arc<SegmentsShared>,
    connections: SegmentConnections,
    taken: usize,
}

/// How the first segment is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstSegment {
    /// It is not complete.
    Requested,
    /// It has arrived: the server gives parts of the file.
    Complete,
    /// The server answered with something else: it does not give parts of files.
    Refused,
    /// No answer arrived: the server may be down, which says nothing about parts of files.
    Broken,
}

/// Whether a request for a part of a file failed because of what it requests, and not because the
/// server was unreachable, silent, overloaded or hung up.
pub(super) fn is_range_refusal(error: &HttpError) -> bool {
    error.reached_server() && error.outage().is_none()
}

struct SegmentsShared {
    client: Arc<Client>,
    part: SegmentedPart,
    /// Raised when the user interrupts.
    stop: Arc<AtomicBool>,
    /// How many segments may be ahead of the reader.
    window: u64,
    state: Mutex<SegmentsState>,
    changed: Condvar,
}

#[derive(Default)]
struct SegmentsState {
    /// The next segment that was never requested.
    next: u64,
    /// Segments that a connection has left unfinished.
    unfinished: BTreeSet<u64>,
    /// The segment that is being read.
    reading: u64,
    arrived: BTreeMap<u64, ArrivedSegment>,
    /// Bytes of the first segment have arrived.
    is_working: bool,
    /// All of the first segment has arrived.
    is_first_complete: bool,
    /// Threads that fetch.
    workers: usize,
    failure: Option<HttpError>,
    /// The reader is gone.
    abandoned: bool,
}

/// What has arrived of a segment.
#[derive(Default)]
struct ArrivedSegment {
    /// Not read yet.
    pieces: VecDeque<Bytes>,
    /// Bytes, those included that were read.
    bytes: u64,
    is_complete: bool,
}

impl Segments {
    /// Requests the first segment of `part`; `None` when there are too few free connections to
    /// gain anything.
    pub(super) fn start(
        client: &Arc<Client>,
        part: SegmentedPart,
        stop: Arc<AtomicBool>,
        connections: &SegmentConnections,
    ) -> Option<Self> {
        let taken = connections.take_all();
        let useful = taken.min(usize::try_from(part.count()).unwrap_or(usize::MAX));
        connections.give_back(taken - useful);
        if useful < 2 {
            connections.give_back(useful);
            return None;
        }

        let shared = Arc::new(SegmentsShared {
            client: Arc::clone(client),
            part,
            stop,
            window: useful as u64 * 2,
            state: Mutex::new(SegmentsState {
                workers: useful,
                ..SegmentsState::default()
            }),
            changed: Condvar::new(),
        });
        let segments = Self {
            shared,
            connections: connections.clone(),
            taken: useful,
        };

        for number in 0..useful {
            let shared = Arc::clone(&segments.shared);
            let thread = std::thread::Builder::new().name(format!("segment-{number}"));
            // A system that has no threads to give is no place for more connections.
            thread.spawn(move || shared.fetch_all()).ok()?;
        }
        Some(segments)
    }

    /// Where in the file the first segment begins.
    pub(super) fn start_offset(&self) -> u64 {
        self.shared.part.start
    }

    /// How the first segment is doing.
    pub(super) fn first(&self) -> FirstSegment {
        let state = self.shared.lock();
        match (state.is_first_complete, &state.failure) {
            (true, _) => FirstSegment::Complete,
            (false, None) => FirstSegment::Requested,
            (false, Some(error)) if is_range_refusal(error) => FirstSegment::Refused,
            (false, Some(_)) => FirstSegment::Broken,
        }
    }

    /// The next bytes, in order; `None` at the end of the file.
    pub(super) fn next_chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        let mut state = self.shared.lock();
        loop {
            if state.reading == self.shared.part.count() {
                return Ok(None);
            }
            let reading = state.reading;
            if let Some(segment) = state.arrived.get_mut(&reading) {
                if let Some(piece) = segment.pieces.pop_front() {
                    return Ok(Some(piece));
                }
                if segment.is_complete {
                    state.arrived.remove(&reading);
                    state.reading += 1;
                    self.shared.changed.notify_all();
                    continue;
                }
            }
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            state = wait(&self.shared.changed, state);
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

impl SegmentsShared {
    fn lock(&self) -> std::sync::MutexGuard<'_, SegmentsState> {
        lock(&self.state)
    }

    /// Fetches segment after segment, until there are no more or one fails.
    fn fetch_all(&self) {
        while let Some(segment) = self.next_segment() {
            if let Err(error) = self.fetch(segment) {
                self.give_up(segment, error);
                return;
            }
        }
    }

    /// Leaves an unfinished segment to the other threads, if there are any.
    fn give_up(&self, segment: u64, error: HttpError) {
        let mut state = self.lock();
        state.workers -= 1;
        state.unfinished.insert(segment);
        if state.workers == 0 || !state.is_working {
            state.failure.get_or_insert(error);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The next segment to fetch, once the reader is near enough.
    fn next_segment(&self) -> Option<u64> {
        let mut state = self.lock();
        loop {
            let is_over = state.reading == self.part.count();
            if state.abandoned || state.failure.is_some() || is_over {
                return None;
            }
            if let Some(segment) = state.unfinished.pop_first() {
                return Some(segment);
            }
            let is_near = state.next < self.part.count().min(state.reading + self.window);
            if is_near && (state.is_working || state.next == 0) {
                state.next += 1;
                return Some(state.next - 1);
            }
            state = wait(&self.changed, state);
        }
    }

    /// Fetches what has not arrived of `segment`.
    fn fetch(&self, segment: u64) -> Result<(), HttpError> {
        let (start, end) = self.part.range(segment);
        let start = start
            + self
                .lock()
                .arrived
                .get(&segment)
                .map_or(0, |segment| segment.bytes);
        let mut body = self.client.nar(NarRequest {
            range: Some((start, Some(end))),
            if_range: Some(self.part.validator.clone()),
            rate_window: self.part.rate_window,
            retry_policy: Some(RetryPolicy::once()),
            stop: Some(Arc::clone(&self.stop)),
            ..NarRequest::new(self.part.url.clone())
        })?;
        let is_right =
            matches!(body.status(), BodyStatus::Partial { start: found, .. } if found == start);
        if !is_right {
            // Another version of the file, or a server that does not give ranges after all.
            return Err(HttpError::wrong_range(&self.part.url));
        }

        let mut left = end - start;
        while left > 0 {
            // Some servers send less than was requested, and some more.
            let Some(mut piece) = body.next_chunk()? else {
                let asked_for = end - start;
                if asked_for - left < asked_for / SHARE_MIN {
                    return Err(HttpError::wrong_range(&self.part.url));
                }
                self.lock().unfinished.insert(segment);
                self.changed.notify_all();
                return Ok(());
            };
            piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left -= piece.len() as u64;

            let mut state = self.lock();
            if state.abandoned {
                return Ok(());
            }
            state.is_working |= !piece.is_empty();
            let arriving = state.arrived.entry(segment).or_default();
            arriving.bytes += piece.len() as u64;
            arriving.is_complete = left == 0;
            arriving.pieces.push_back(piece);
            state.is_first_complete |= segment == 0 && left == 0;
            drop(state);
            self.changed.notify_all();
        }
        Ok(())
    }
}
