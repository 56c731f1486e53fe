//! The compressed bytes of a nar, as a reader that survives a broken connection.
//!
//! When the stream breaks off, the rest is asked for with `Range` and `If-Range`; a server
//! that cannot do that sends everything again, and what was seen already is thrown away. The
//! decoder behind never notices. Whether the two halves belong together is told by the nar's
//! hash in the end, so a changed file cannot do harm.
//!
//! The decoder sees every failure as an I/O error; the cause is kept here, because it says
//! more: [`Failure`].

use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use url::Url;

use crate::http::{BodyStatus, Class, Client, HttpError, NarBody, NarRequest};
use crate::substitute::ahead::Begun;

/// How often a broken stream is taken up again without a single new byte in between.
const FRUITLESS_RESUMES: u32 = 3;

/// What the reader and its owner share.
#[derive(Default)]
pub(super) struct Shared {
    /// The first failure of the network.
    pub(super) failure: OnceLock<Arc<HttpError>>,
    /// Compressed bytes received.
    pub(super) received: AtomicU64,
    /// Microseconds spent waiting for the network.
    pub(super) waited_micros: AtomicU64,
}

/// Where the bytes come from at the moment.
enum Stream {
    Network(Box<NarBody>),
    /// Somebody else, who began before us.
    Begun(Box<dyn Begun>),
}

impl Stream {
    fn content_length(&self) -> Option<u64> {
        match self {
            Self::Network(body) => body.content_length(),
            Self::Begun(begun) => begun.content_length(),
        }
    }
}

pub(super) struct Body {
    client: Arc<Client>,
    url: Url,
    stream: Stream,
    chunk: Bytes,
    /// Bytes received of the file, of every attempt together.
    received: u64,
    /// Bytes that will come once more and are to be thrown away.
    repeated: u64,
    /// Where the file ends, when the server marks its end by nothing at all: `guix publish`
    /// sends uncompressed nars without a length and leaves the connection open.
    end: Option<u64>,
    validator: Option<String>,
    fruitless: u32,
    shared: Arc<Shared>,
}

impl Body {
    /// Asks for the file at `url`, which has `size` bytes if that is known beforehand, unless
    /// it has `begun` to arrive.
    pub(super) fn open(
        client: Arc<Client>,
        url: Url,
        size: Option<u64>,
        begun: Option<Box<dyn Begun>>,
        shared: Arc<Shared>,
    ) -> Result<Self, HttpError> {
        let (stream, validator) = match begun {
            Some(begun) => (Stream::Begun(begun), None),
            None => {
                let body = client.nar(NarRequest::new(url.clone()))?;
                let validator = body.validator().filter(|_| body.accepts_ranges());
                let validator = validator.map(str::to_owned);
                (Stream::Network(Box::new(body)), validator)
            }
        };
        Ok(Self {
            end: size.filter(|_| stream.content_length().is_none()),
            validator,
            client,
            url,
            stream,
            chunk: Bytes::new(),
            received: 0,
            repeated: 0,
            fruitless: 0,
            shared,
        })
    }

    /// The size of the file, when the server says so.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.stream.content_length()
    }

    /// Waits for more; `false` at the end.
    fn refill(&mut self) -> Result<bool, HttpError> {
        loop {
            if self.end.is_some_and(|end| self.received >= end) {
                return Ok(false);
            }
            match self.next_chunk() {
                Ok(None) => return Ok(false),
                Ok(Some(chunk)) => {
                    self.chunk = chunk;
                    let repeated = self.repeated.min(self.chunk.len() as u64);
                    self.repeated -= repeated;
                    self.chunk.advance(usize::try_from(repeated).unwrap_or(usize::MAX));
                    if !self.chunk.is_empty() {
                        self.received += self.chunk.len() as u64;
                        self.fruitless = 0;
                        self.shared.received.store(self.received, Ordering::Relaxed);
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
            Stream::Begun(begun) => match begun.next_chunk() {
                Ok(chunk) => Ok(chunk),
                // Why it ended is for who began it to know; we simply ask ourselves.
                Err(_) => self.start_over().map(|()| Some(Bytes::new())),
            },
        };
        let waited = u64::try_from(before.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.shared.waited_micros.fetch_add(waited, Ordering::Relaxed);
        chunk
    }

    fn start_over(&mut self) -> Result<(), HttpError> {
        let body = self.client.nar(NarRequest::new(self.url.clone()))?;
        self.stream = Stream::Network(Box::new(body));
        self.repeated = self.received;
        Ok(())
    }

    /// Takes up a stream that broke off with `error`.
    fn resume(&mut self, error: HttpError) -> Result<(), HttpError> {
        self.fruitless += 1;
        if error.class() != Class::Transient || self.fruitless > FRUITLESS_RESUMES {
            return Err(error);
        }
        std::thread::sleep(RESUME_DELAY * self.fruitless);
        let range = self.validator.is_some().then_some((self.received, None));
        let request = NarRequest {
            range,
            if_range: self.validator.clone(),
            ..NarRequest::new(self.url.clone())
        };
        let body = self.client.nar(request)?;
        self.repeated = match body.status() {
            BodyStatus::Partial { start, .. } if start <= self.received => self.received - start,
            BodyStatus::Partial { .. } => return Err(error),
            BodyStatus::Full => self.received,
        };
        self.stream = Stream::Network(Box::new(body));
        Ok(())
    }
}

/// Before a broken stream is taken up again; times the number of attempts.
const RESUME_DELAY: Duration = Duration::from_millis(100);

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
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
