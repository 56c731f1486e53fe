//! One large nar over several connections, for links where each connection is slow.
//!
//! A far mirror, or a server with a limit per connection, gives a single stream a fraction of
//! the line. The rest of the file is cut into segments of
//! [`SEGMENT_BYTES`](super::segment_fetch::SEGMENT_BYTES), which threads
//! fetch side by side with `Range` and `If-Range` and which are read in order. How many
//! connections a run opens for that is bounded for all transfers together, and so is how far
//! ahead of the reader they may be.
//!
//! `tests/peers/bench/speed e` measures it: a nar of 60 MB over four connections of 8 MiB/s each
//! arrives 3.4 times as fast as over one.
//!
//! The first segment is requested alone, while the single stream goes on: only when bytes of it
//! arrive are the others requested, and only when it is complete are segments read at all. When the
//! segments fail, what has arrived of them is kept, and only the rest is requested again.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::http::{Client, HttpError};
use crate::substitute::download::segment_fetch::{SegmentFetch, SegmentedPart};
use crate::sync::lock;

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

/// Segments under way, read in order.
pub(super) struct Segments {
    fetch: Arc<SegmentFetch>,
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
    /// The server answered with something else: it does not give parts of the file.
    Refused,
    /// No answer arrived: the server may be down, which says nothing about parts of files.
    Broken,
}

/// Whether a request for a part of a file failed because of what it requests, and not because the
/// server was unreachable, silent, overloaded or hung up.
pub(super) fn is_range_refusal(error: &HttpError) -> bool {
    error.reached_server() && error.outage().is_none()
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

        let segments = Self {
            fetch: Arc::new(SegmentFetch::new(client, part, stop, useful)),
            connections: connections.clone(),
            taken: useful,
        };
        for number in 0..useful {
            let fetch = Arc::clone(&segments.fetch);
            let thread = std::thread::Builder::new().name(format!("segment-{number}"));
            // A system that has no threads to give is no place for more connections.
            thread.spawn(move || fetch.run_thread()).ok()?;
        }
        Some(segments)
    }

    /// Where in the file the first segment begins.
    pub(super) fn start_offset(&self) -> u64 {
        self.fetch.part.start
    }

    /// How the first segment is doing.
    pub(super) fn first(&self) -> FirstSegment {
        let state = self.fetch.lock();
        match (state.is_first_complete, &state.failure) {
            (true, _) => FirstSegment::Complete,
            (false, None) => FirstSegment::Requested,
            (false, Some(error)) if is_range_refusal(error) => FirstSegment::Refused,
            (false, Some(_)) => FirstSegment::Broken,
        }
    }

    /// The next bytes, in order; `None` at the end of the file.
    pub(super) fn next_chunk(&self) -> Result<Option<Bytes>, HttpError> {
        self.fetch.next_chunk()
    }

    /// Requests what is missing, if they have failed.
    pub(super) fn start_again(&self) {
        self.fetch.start_again();
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        self.fetch.abandon();
        self.connections.give_back(self.taken);
    }
}
