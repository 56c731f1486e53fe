//! The compressed bytes of a nar, as a reader that survives a broken connection.
//!
//! When the stream breaks off, the rest is asked for with `Range` and `If-Range`; a server
//! that cannot do that sends everything again, and what was seen already is thrown away. The
//! decoder behind never notices. Whether the two halves belong together is told by the nar's
//! hash in the end, so a changed file cannot do harm.
//!
//! The bytes may come from three places: one connection, several of them when one has turned
//! out to be slow ([`Segments`]), or somebody who began to fetch before us ([`Begun`]).
//!
//! The decoder sees every failure as an I/O error; the cause is kept here, because it says
//! more: [`Shared::failure`].

use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use url::Url;

use crate::http::{BodyStatus, Class, Client, HttpError, NarBody, NarRequest};
use crate::substitute::ahead::Begun;
use crate::substitute::cancel::Cancel;

use super::segments::{Connections, Part, Segments};

/// A single stream has to have brought this much
const TRIAL_BYTES: u64 = 512 << 10;
/// in at least this time, before more connections are considered.
const TRIAL_TIME: Duration = Duration::from_millis(300);
/// Less than this is not worth more connections.
const SEGMENTED_BYTES_MIN: u64 = 4 << 20;

/// How often a broken stream is taken up again without so much coming of it.
const FRUITLESS_RESUMES: u32 = 3;
const FRUIT_BYTES: u64 = 64 << 10;

/// What the reader and its owner share.
#[derive(Default)]
pub(super) struct Shared {
    /// The first failure of the network.
    pub(super) failure: OnceLock<Arc<HttpError>>,
    /// Compressed bytes received.
    pub(super) received: AtomicU64,
    /// Microseconds spent waiting for the network.
    pub(super) waited_micros: AtomicU64,
    /// Bytes that came after the first ones, and the microseconds spent waiting for them: what
    /// the link gives, without the time that a request takes to be answered.
    pub(super) streamed: AtomicU64,
    /// See `streamed`.
    pub(super) streamed_micros: AtomicU64,
}

/// What to fetch, and by what means.
pub(super) struct Wanted {
    pub(super) url: Url,
    /// The size of the file, if that is known beforehand.
    pub(super) size: Option<u64>,
    /// What somebody has begun to fetch already.
    pub(super) begun: Option<Box<dyn Begun>>,
    /// Connections that may be used besides the first.
    pub(super) connections: Connections,
    /// Tells when to stop.
    pub(super) cancel: Cancel,
}

/// Where the bytes come from at the moment.
enum Stream {
    Network(Box<NarBody>),
    /// The rest of the file, over several connections.
    Segments(Segments),
    /// Somebody else, who began before us.
    Begun(Box<dyn Begun>),
}

pub(super) struct Body {
    client: Arc<Client>,
    url: Url,
    stream: Stream,
    connections: Connections,
    /// The server does not give parts as it should, or breaks them off.
    segments_failed: bool,
    opened: Instant,
    chunk: Bytes,
    /// Bytes received of the file, of every attempt together.
    received: u64,
    /// Bytes that will come once more and are to be thrown away.
    repeated: u64,
    /// Bytes of the file, when the server says so.
    content_length: Option<u64>,
    /// Its bytes as the narinfo has them, for servers that do not say: `guix publish` sends
    /// uncompressed nars without a length, marks their end by nothing, and leaves the connection
    /// open.
    size: Option<u64>,
    validator: Option<String>,
    /// Times that the stream was taken up again without much coming of it.
    fruitless: u32,
    /// What had been received when it was last taken up.
    resumed_at: u64,
    cancel: Cancel,
    shared: Arc<Shared>,
}

impl Body {
    /// Asks for the file, unless it has begun to arrive.
    pub(super) fn open(
        client: Arc<Client>,
        wanted: Wanted,
        shared: Arc<Shared>,
    ) -> Result<Self, HttpError> {
        let Wanted { url, size, begun, connections, cancel } = wanted;
        let (stream, content_length, validator) = match begun {
            Some(begun) => {
                let validator = begun.validator().map(str::to_owned);
                let content_length = begun.content_length();
                (Stream::Begun(begun), content_length, validator)
            }
            None => {
                let stop = Some(cancel.flag());
                let body = client.nar(NarRequest { stop, ..NarRequest::new(url.clone()) })?;
                let (length, validator) = (body.content_length(), range_validator(&body));
                (Stream::Network(Box::new(body)), length, validator)
            }
        };
        Ok(Self {
            client,
            url,
            stream,
            connections,
            segments_failed: false,
            opened: Instant::now(),
            chunk: Bytes::new(),
            received: 0,
            repeated: 0,
            content_length,
            size,
            validator,
            fruitless: 0,
            resumed_at: 0,
            cancel,
            shared,
        })
    }

    /// The size of the file, when the server says so.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Waits for more; `false` at the end.
    fn refill(&mut self) -> Result<bool, HttpError> {
        loop {
            let is_at_size = self.size.is_some_and(|size| self.received >= size);
            if self.content_length.is_none() && is_at_size {
                return Ok(false);
            }
            match self.next_chunk() {
                Ok(None) => match self.content_length.or(self.size) {
                    // A server may give less of the rest than was asked for.
                    Some(length) if self.received < length => {
                        self.resume(HttpError::truncated(&self.url, self.received, length))?;
                    }
                    _ => return Ok(false),
                },
                Ok(Some(chunk)) => {
                    self.chunk = chunk;
                    let repeated = self.repeated.min(self.chunk.len() as u64);
                    self.repeated -= repeated;
                    self.chunk.advance(usize::try_from(repeated).unwrap_or(usize::MAX));
                    if !self.chunk.is_empty() {
                        self.received += self.chunk.len() as u64;
                        if self.received - self.resumed_at >= FRUIT_BYTES {
                            self.fruitless = 0;
                        }
                        self.shared.received.store(self.received, Ordering::Relaxed);
                        self.consider_segments();
                        return Ok(true);
                    }
                }
                Err(error) => self.resume(error)?,
            }
        }
    }

    fn next_chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        let before = Instant::now();
        let chunk = match &mut self.stream {
            Stream::Network(body) => body.next_chunk(),
            Stream::Segments(segments) => segments.next_chunk(),
            Stream::Begun(begun) => match begun.next_chunk() {
                Ok(chunk) => Ok(chunk),
                // Why it ended is for who began it to know; we simply ask ourselves.
                Err(_) => self.reopen().map(|()| Some(Bytes::new())),
            },
        };
        let waited = u64::try_from(before.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.shared.waited_micros.fetch_add(waited, Ordering::Relaxed);
        if let Ok(Some(chunk)) = &chunk
            && self.received > 0
        {
            self.shared.streamed.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            self.shared.streamed_micros.fetch_add(waited, Ordering::Relaxed);
        }
        chunk
    }

    /// Goes on with segments when the link is what everybody waits for, and there is enough
    /// left to gain something.
    fn consider_segments(&mut self) {
        let (Some(validator), Some(end)) = (&self.validator, self.content_length) else { return };
        let streamed = self.shared.streamed.load(Ordering::Relaxed);
        let waited = self.shared.waited_micros.load(Ordering::Relaxed);
        let elapsed = self.opened.elapsed();
        let is_slow = streamed >= TRIAL_BYTES
            && elapsed >= TRIAL_TIME
            && Duration::from_micros(waited) > elapsed / 2;
        let is_in_one_piece = match &self.stream {
            Stream::Network(body) => body.status() == BodyStatus::Full,
            Stream::Begun(_) => true,
            Stream::Segments(_) => false,
        };
        if self.segments_failed
            || !is_slow
            || !is_in_one_piece
            || end.saturating_sub(self.received) < SEGMENTED_BYTES_MIN
        {
            return;
        }
        let part =
            Part { url: self.url.clone(), validator: validator.clone(), start: self.received, end };
        let stop = self.cancel.flag();
        if let Some(segments) = Segments::start(&self.client, part, stop, &self.connections) {
            self.stream = Stream::Segments(segments);
        }
    }

    /// Takes up a stream that broke off with `error`.
    fn resume(&mut self, error: HttpError) -> Result<(), HttpError> {
        // What fails in segments may still work in one piece. It may all come once more then: that
        // is not to happen again and again.
        let was_segmented = matches!(self.stream, Stream::Segments(_));
        self.segments_failed |= was_segmented;
        self.fruitless += 1;
        let is_hopeless = error.class() != Class::Transient && !was_segmented;
        if is_hopeless || self.fruitless > FRUITLESS_RESUMES {
            return Err(error);
        }
        std::thread::sleep(RESUME_DELAY * self.fruitless);
        self.reopen()
    }

    /// Asks for what is still to come, in one piece.
    fn reopen(&mut self) -> Result<(), HttpError> {
        let is_part = self.validator.is_some() && self.received > 0;
        let request = NarRequest {
            range: is_part.then_some((self.received, None)),
            if_range: self.validator.clone().filter(|_| is_part),
            stop: Some(self.cancel.flag()),
            ..NarRequest::new(self.url.clone())
        };
        let body = self.client.nar(request)?;
        self.repeated = match body.status() {
            BodyStatus::Partial { start, .. } if start <= self.received => self.received - start,
            BodyStatus::Partial { .. } => return Err(HttpError::wrong_range(&self.url)),
            BodyStatus::Full => {
                // It may be another version, as long as it is.
                self.content_length = body.content_length();
                self.validator = range_validator(&body);
                self.received
            }
        };
        self.resumed_at = self.received;
        self.stream = Stream::Network(Box::new(body));
        Ok(())
    }
}

/// What names this version of the file, if parts of it can be asked for.
fn range_validator(body: &NarBody) -> Option<String> {
    body.validator().filter(|_| body.accepts_ranges()).map(str::to_owned)
}

/// Before a broken stream is taken up again; times the number of attempts.
const RESUME_DELAY: Duration = Duration::from_millis(100);

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Body {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.chunk.is_empty()
            && let Err(error) = self.refill()
        {
            let text = error.to_string();
            // Only the first failure counts: what follows is its consequence.
            let _ = self.shared.failure.set(Arc::new(error));
            return Err(io::Error::other(text));
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, count: usize) {
        self.chunk.advance(count);
    }
}
