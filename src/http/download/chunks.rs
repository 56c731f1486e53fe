//! The chunks of a response as they come from the network, with the limits on their time and number.
//!
//! Only the time in which the client waits counts, for the stall timeout and for the minimum rate.
//! A server chooses the size of chunks: small ones are copied together, because a byte of its own
//! would take a hundred.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use reqwest::Response;
use tokio::time::{Instant, timeout};

use crate::http::error::HttpErrorKind;
use crate::http::lines::LineTransfer;
use crate::http::net::library_client::body_failure;
use crate::http::net::timeout::has_paused;
use crate::http::options::Timeouts;
use crate::http::rate::RateMeter;

/// The body of a response, read in chunks.
pub(super) struct ChunkReader {
    response: Response,
    timeouts: Timeouts,
    meter: RateMeter,
    line: LineTransfer,
    /// What came after the last chunk was gathered.
    next: Option<LibraryChunk>,
}

type LibraryChunk = Result<Option<Bytes>, reqwest::Error>;

impl ChunkReader {
    pub(super) fn new(
        response: Response,
        timeouts: Timeouts,
        meter: RateMeter,
        line: LineTransfer,
    ) -> Self {
        Self {
            response,
            timeouts,
            meter,
            line,
            next: None,
        }
    }

    /// Waits for the next bytes; none: the body is complete.
    pub(super) async fn next_chunk(&mut self) -> Result<Option<Bytes>, HttpErrorKind> {
        let first = match self.next.take() {
            Some(next) => next,
            None => self.wait_for_bytes().await?,
        };
        let first = first.map_err(|error| body_failure(error, self.timeouts))?;
        match first {
            Some(bytes) if bytes.len() < SMALL_CHUNK_BYTES => Ok(Some(self.gather(&bytes).await)),
            chunk => Ok(chunk),
        }
    }

    async fn wait_for_bytes(&mut self) -> Result<LibraryChunk, HttpErrorKind> {
        let stall = self.timeouts.stall;
        let mut silence = Duration::ZERO;
        self.line.wait_begins();
        while silence < stall {
            let start = Instant::now();
            let limit = (stall - silence).min(self.meter.window_left());
            let received = timeout(limit, next_bytes(&mut self.response)).await;
            let mut waited = start.elapsed();
            if has_paused(waited, limit) {
                waited = Duration::ZERO;
            }

            silence += waited;
            match received {
                Ok(chunk) => {
                    self.note(waited, &chunk)?;
                    return Ok(chunk);
                }
                Err(_) => self.meter.note(waited, 0)?,
            }
        }
        Err(HttpErrorKind::Stalled(stall))
    }

    /// `first` and the chunks that are there already.
    async fn gather(&mut self, first: &Bytes) -> Bytes {
        let mut gathered = BytesMut::with_capacity(2 * SMALL_CHUNK_BYTES);
        gathered.extend_from_slice(first);
        while gathered.len() < SMALL_CHUNK_BYTES {
            // Lets the library's task deliver the next one.
            tokio::task::yield_now().await;
            let Some(next) = next_bytes(&mut self.response).now_or_never() else {
                break;
            };
            // The minimum rate was kept in the last window, or this one is not complete.
            let _ = self.note(Duration::ZERO, &next);
            match next {
                Ok(Some(bytes)) if bytes.len() < SMALL_CHUNK_BYTES => {
                    gathered.extend_from_slice(&bytes);
                }
                other => {
                    self.next = Some(other);
                    break;
                }
            }
        }
        gathered.freeze()
    }

    fn note(&mut self, waited: Duration, chunk: &LibraryChunk) -> Result<(), HttpErrorKind> {
        self.line.received(match chunk {
            Ok(Some(bytes)) => bytes.len(),
            Ok(None) | Err(_) => 0,
        });
        match chunk {
            Ok(Some(bytes)) => self.meter.note(waited, bytes.len() as u64),
            Ok(None) | Err(_) => Ok(()),
        }
    }
}

/// The next bytes. Empty frames, of which an HTTP/2 server may send any number, do not count: the
/// wait goes on, and so does the stall timeout.
async fn next_bytes(response: &mut Response) -> LibraryChunk {
    loop {
        match response.chunk().await {
            Ok(Some(bytes)) if bytes.is_empty() => tokio::task::yield_now().await,
            chunk => return chunk,
        }
    }
}

/// Smaller chunks are gathered.
const SMALL_CHUNK_BYTES: usize = 4 << 10;
