//! The segments of one file, fetched by threads side by side and kept until they are read.
//!
//! A request that is cut leaves the missing part of its segment to the next free thread, and what has
//! arrived ahead of the reader is kept. A thread whose requests bring nothing stops; when all have
//! stopped, the segments fail, until they are started again: then a single request finds out
//! whether the server gives parts of the file, before the other threads send theirs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use url::Url;

use crate::http::{
    BodyStatus, Client, HttpError, NarBody, NarRequest, Outage, QUICK_RETRIES, RateDemand,
    RetryPolicy, backoff,
};
use crate::sync::{catch_panic, lock, wait, wait_for};

/// What one request fetches.
pub(super) const SEGMENT_BYTES: u64 = 1 << 20;

/// A response with less than one part in this many of the requested range, or with nothing of it, is a
/// failure.
const SHARE_MIN: u64 = 8;

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
    /// What is demanded of the server besides the minimum rate.
    pub(super) rate_demand: Option<RateDemand>,
}

impl SegmentedPart {
    fn range(&self, segment: u64) -> (u64, u64) {
        let start = self.start + segment * SEGMENT_BYTES;
        (start, (start + SEGMENT_BYTES).min(self.end))
    }

    pub(super) fn count(&self) -> u64 {
        (self.end - self.start).div_ceil(SEGMENT_BYTES)
    }
}

/// What the reader and the threads share.
pub(super) struct SegmentFetch {
    client: Arc<Client>,
    pub(super) part: SegmentedPart,
    /// Raised when the user interrupts.
    stop: Arc<AtomicBool>,
    /// How many segments may be ahead of the reader.
    window: u64,
    /// How many threads fetch.
    threads: usize,
    state: Mutex<SegmentFetchState>,
    changed: Condvar,
}

#[derive(Default)]
pub(super) struct SegmentFetchState {
    /// The next segment that was never requested.
    next: u64,
    /// Segments of which a part is missing and not requested.
    unfinished: BTreeSet<u64>,
    /// The segment that is being read.
    reading: u64,
    arrived: BTreeMap<u64, ArrivedSegment>,
    /// The one request that is sent before the server has given a part of the file.
    is_probed: bool,
    /// Bytes of a segment have arrived since the start.
    is_working: bool,
    /// All of the first segment has arrived.
    pub(super) is_first_complete: bool,
    /// How often the segments have been started.
    starts: u32,
    /// Threads that have not stopped since the last start.
    active: usize,
    pub(super) failure: Option<HttpError>,
    /// The reader is gone.
    is_abandoned: bool,
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

impl SegmentFetch {
    /// Segments of `part`, to be fetched by as many threads as `threads`.
    pub(super) fn new(
        client: &Arc<Client>,
        part: SegmentedPart,
        stop: Arc<AtomicBool>,
        threads: usize,
    ) -> Self {
        Self {
            client: Arc::clone(client),
            part,
            stop,
            window: threads as u64 * 2,
            threads,
            state: Mutex::new(SegmentFetchState {
                active: threads,
                ..SegmentFetchState::default()
            }),
            changed: Condvar::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, SegmentFetchState> {
        lock(&self.state)
    }

    /// The next bytes, in order; `None` at the end of the file.
    pub(super) fn next_chunk(&self) -> Result<Option<Bytes>, HttpError> {
        let mut state = self.lock();
        loop {
            if state.reading == self.part.count() {
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
                    self.changed.notify_all();
                    continue;
                }
            }
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            state = wait(&self.changed, state);
        }
    }

    /// Requests what is missing, if the segments have failed.
    pub(super) fn start_again(&self) {
        let mut state = self.lock();
        if state.failure.take().is_none() {
            return;
        }
        state.starts += 1;
        state.active = self.threads;
        (state.is_probed, state.is_working) = (false, false);
        drop(state);
        self.changed.notify_all();
    }

    /// Ends all threads.
    pub(super) fn abandon(&self) {
        self.lock().is_abandoned = true;
        self.changed.notify_all();
    }

    /// Fetches segment after segment, until there are no more: what each thread does.
    pub(super) fn run_thread(&self) {
        let mut failures = 0;
        while let Some((segment, start)) = self.next_segment() {
            let before = self.arrived_bytes(segment);
            let fetched = catch_panic(|| self.fetch(segment))
                .unwrap_or_else(|| Err(HttpError::thread_ended(&self.part.url)));
            let Err(error) = fetched else {
                failures = 0;
                continue;
            };

            let brought = self.arrived_bytes(segment) - before;
            failures = match brought >= SEGMENT_BYTES / SHARE_MIN {
                true => 0,
                false => failures + 1,
            };
            if !self.leave(segment, start, error, failures) {
                failures = 0;
            } else if failures > 0 {
                self.pause(backoff(failures, fastrand::f64()));
            }
        }
    }

    /// Leaves an unfinished segment to the other threads. Whether this one may go on, after `failures` in
    /// a row; else it has stopped, and goes on after the next start.
    fn leave(&self, segment: u64, start: u32, error: HttpError, failures: u32) -> bool {
        let mut state = self.lock();
        state.unfinished.insert(segment);
        if state.starts != start {
            return false;
        }

        let may_go_on =
            state.is_working && error.outage() == Some(Outage::Broken) && failures <= QUICK_RETRIES;
        if !may_go_on {
            state.active -= 1;
            if state.active == 0 || !state.is_working {
                state.failure.get_or_insert(error);
            }
        }
        drop(state);
        self.changed.notify_all();

        if !may_go_on {
            self.wait_for_start(start);
        }
        may_go_on
    }

    /// Waits until the segments are started again, after they were started `start` times.
    fn wait_for_start(&self, start: u32) {
        let mut state = self.lock();
        while !state.is_abandoned && state.starts == start {
            state = wait(&self.changed, state);
        }
    }

    /// Waits before the next request.
    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut state = self.lock();
        while !state.is_abandoned && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            state = wait_for(&self.changed, state, left);
        }
    }

    fn arrived_bytes(&self, segment: u64) -> u64 {
        let state = self.lock();
        let arrived = state.arrived.get(&segment);
        arrived.map_or(0, |segment| segment.bytes)
    }

    /// The next segment to fetch, once the reader is near enough, and which start it is fetched after.
    fn next_segment(&self) -> Option<(u64, u32)> {
        let mut state = self.lock();
        loop {
            if state.is_abandoned || state.reading == self.part.count() {
                return None;
            }

            let may_request = state.failure.is_none() && (state.is_working || !state.is_probed);
            if may_request && let Some(segment) = self.take_segment(&mut state) {
                state.is_probed = true;
                return Some((segment, state.starts));
            }
            state = wait(&self.changed, state);
        }
    }

    fn take_segment(&self, state: &mut SegmentFetchState) -> Option<u64> {
        if let Some(segment) = state.unfinished.pop_first() {
            return Some(segment);
        }
        if state.next >= self.part.count().min(state.reading + self.window) {
            return None;
        }
        state.next += 1;
        Some(state.next - 1)
    }

    /// Fetches what has not arrived of `segment`.
    fn fetch(&self, segment: u64) -> Result<(), HttpError> {
        let (start, end) = self.part.range(segment);
        let start = start + self.arrived_bytes(segment);
        let mut body = self.request(start, end)?;

        let mut left = end - start;
        while left > 0 {
            let Some(mut piece) = body.next_chunk()? else {
                // Some servers send less than was requested.
                let asked_for = end - start;
                if asked_for - left < asked_for.div_ceil(SHARE_MIN) {
                    return Err(HttpError::wrong_range(&self.part.url));
                }
                self.lock().unfinished.insert(segment);
                self.changed.notify_all();
                return Ok(());
            };
            piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left -= piece.len() as u64;
            if !self.note_arrived(segment, piece, left == 0) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Requests a range of the file. Only that range is used: a server that announces more would send it
    /// in vain, for each segment.
    fn request(&self, start: u64, end: u64) -> Result<NarBody, HttpError> {
        let body = self.client.nar(NarRequest {
            range: Some((start, Some(end))),
            if_range: Some(self.part.validator.clone()),
            rate_demand: self.part.rate_demand,
            retry_policy: Some(RetryPolicy::once()),
            stop: Some(Arc::clone(&self.stop)),
            ..NarRequest::new(self.part.url.clone())
        })?;

        let is_right = match body.status() {
            BodyStatus::Full => false,
            BodyStatus::Partial {
                start: found,
                total,
            } => found == start && total.is_none_or(|total| total == self.part.end),
        };
        let is_longer = body
            .content_length()
            .is_some_and(|length| length > end - start);
        if !is_right || is_longer {
            return Err(HttpError::wrong_range(&self.part.url));
        }
        Ok(body)
    }

    /// Keeps a piece of `segment` for the reader; false when that is gone.
    fn note_arrived(&self, segment: u64, piece: Bytes, is_last: bool) -> bool {
        let mut state = self.lock();
        if state.is_abandoned {
            return false;
        }
        state.is_working |= !piece.is_empty();
        let arriving = state.arrived.entry(segment).or_default();
        arriving.bytes += piece.len() as u64;
        arriving.is_complete = is_last;
        arriving.pieces.push_back(piece);
        state.is_first_complete |= segment == 0 && is_last;
        drop(state);
        self.changed.notify_all();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    use crate::http::Options;

    use super::*;

    const FILE: &[u8] = b"12345";
    /// Bytes in the first response.
    const FIRST_BYTES: usize = 3;
    /// Responses without any bytes, before the server sends the rest after all.
    const EMPTY_RESPONSES: usize = 50;

    /// A server that sends the beginning of the file, and then announces the rest and sends nothing of it.
    fn start_empty_server() -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/nar", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let mut requests = 0;
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let mut lines = lines.map_while(Result::ok);
                while lines.any(|line| line.is_empty()) {
                    let (start, body) = match requests {
                        0 => (0, &FILE[..FIRST_BYTES]),
                        1..=EMPTY_RESPONSES => (FIRST_BYTES, &b""[..]),
                        _ => (FIRST_BYTES, &FILE[FIRST_BYTES..]),
                    };
                    let (last, total, length) = (FILE.len() - 1, FILE.len(), body.len());
                    let head = format!(
                        "HTTP/1.1 206 Part\r\nETag: \"one\"\r\nContent-Range: bytes {start}-{last}/{total}\r\n\
                         Content-Length: {length}\r\n\r\n"
                    );
                    requests += 1;
                    // A client that goes away is no failure of the server's.
                    let _ = stream.write_all(&[head.as_bytes(), body].concat());
                }
            }
        });
        Url::parse(&url).unwrap()
    }

    #[test]
    fn a_response_without_any_of_the_missing_bytes_is_a_failure() {
        let part = SegmentedPart {
            url: start_empty_server(),
            validator: "\"one\"".to_owned(),
            start: 0,
            end: FILE.len() as u64,
            rate_demand: None,
        };
        let client = Arc::new(Client::new(Options::default()).unwrap());
        let fetch = SegmentFetch::new(&client, part, Arc::default(), 1);

        std::thread::scope(|scope| {
            scope.spawn(|| fetch.run_thread());
            let (first, second) = (fetch.next_chunk(), fetch.next_chunk());
            fetch.abandon();
            assert_eq!(first.unwrap().unwrap(), FILE[..FIRST_BYTES]);
            second.unwrap_err();
        });
    }
}
