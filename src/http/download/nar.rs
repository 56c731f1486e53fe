//! Nars: opened with retries, then a stream of chunks.
//!
//! The network's side pushes into a queue that is bounded in bytes, the caller takes out at its
//! own speed, and dropping the body cancels the transfer. Only *opening* is retried here: whoever
//! knows how much was used asks for the rest with [`NarRequest::range`] and
//! [`NarRequest::if_range`].
//!
//! A body that ends before its announced length is an error, never a short body. Without a length
//! (chunked, or up to the end of the connection) that cannot always be told: then only the nar's
//! grammar and hash can. After an error every further call gives the same error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use reqwest::header::{HeaderMap, HeaderValue, IF_RANGE, RANGE};
use reqwest::{Method, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use url::{Origin, Url};

use super::client::{self, header};
use super::file::{self, FileBody};
use crate::http::error::{HttpError, HttpErrorKind};
use crate::http::net::runtime::Engine;
use crate::http::options::Timeouts;
use crate::http::retry::RetryPolicy;

/// What to fetch.
#[derive(Debug, Clone)]
pub(crate) struct NarRequest {
    /// Where: http, https or file.
    pub(crate) url: Url,
    /// Only a part: from the first position up to but not including the second, or to the end.
    pub(crate) range: Option<(u64, Option<u64>)>,
    /// The part is wanted only if the file still has this [`NarBody::validator`]; else all of it.
    pub(crate) if_range: Option<String>,
    /// Other timeouts than those of [`Options`](crate::http::Options).
    pub(crate) timeouts: Option<Timeouts>,
    /// Other retries than those of [`Options`](crate::http::Options).
    pub(crate) retries: Option<RetryPolicy>,
    /// Ends the transfer with [`HttpErrorKind::Canceled`] soon after it was raised.
    pub(crate) stop: Option<Arc<AtomicBool>>,
}

impl NarRequest {
    /// All of the nar at `url`.
    #[must_use]
    pub(crate) fn new(url: Url) -> Self {
        Self {
            url,
            range: None,
            if_range: None,
            timeouts: None,
            retries: None,
            stop: None,
        }
    }
}

/// What a body is of the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyStatus {
    /// All of it, whatever was asked for.
    Full,
    /// A part.
    Partial {
        /// The position of its first byte.
        start: u64,
        /// The length of the whole file, if the server says so.
        total: Option<u64>,
    },
}

/// A nar on its way.
#[derive(Debug)]
pub(crate) struct NarBody {
    url: Url,
    head: BodyHead,
    source: Source,
    stop: Option<Arc<AtomicBool>>,
    failed: Option<HttpError>,
}

/// What is known before the first byte.
#[derive(Debug, Clone)]
pub(in crate::http) struct BodyHead {
    pub(in crate::http) status: BodyStatus,
    pub(in crate::http) content_length: Option<u64>,
    pub(in crate::http) validator: Option<String>,
    pub(in crate::http) accepts_ranges: bool,
    pub(in crate::http) url: Option<Url>,
}

#[derive(Debug)]
enum Source {
    File(FileBody),
    Network {
        pieces: Receiver<Piece>,
        pump: AbortHandle,
        /// The pump runs as long as somebody reads.
        _engine: Arc<Engine>,
    },
    /// Everything was taken out.
    Ended,
}

#[derive(Debug)]
enum Piece {
    /// Bytes, and what they take of the queue's budget.
    Chunk(Bytes, OwnedSemaphorePermit),
    /// How the transfer ended; nothing follows.
    End(Result<(), HttpError>),
}

impl NarBody {
    /// Whether this is all of the file.
    #[must_use]
    pub(crate) fn status(&self) -> BodyStatus {
        self.head.status
    }

    /// Bytes of this body, if the server says so.
    #[must_use]
    pub(crate) fn content_length(&self) -> Option<u64> {
        self.head.content_length
    }

    /// Names this version of the file: a strong `ETag`, else `Last-Modified`.
    #[must_use]
    pub(crate) fn validator(&self) -> Option<&str> {
        self.head.validator.as_deref()
    }

    /// Whether the server says that parts can be asked for.
    #[must_use]
    pub(crate) fn accepts_ranges(&self) -> bool {
        self.head.accepts_ranges
    }

    /// Where the server redirected to, if it is somebody else who sends the body.
    #[must_use]
    pub(crate) fn redirected_to(&self) -> Option<Origin> {
        let origin = self.head.url.as_ref()?.origin();
        (origin != self.url.origin()).then_some(origin)
    }

    /// Waits for the next bytes; none: the body is complete.
    ///
    /// # Errors
    /// The transfer broke, stalled, or ended too early.
    pub(crate) fn next_chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let chunk = match &mut self.source {
            Source::Ended => Ok(None),
            Source::File(_) if is_raised(self.stop.as_deref()) => {
                Err(HttpError::new(&self.url, HttpErrorKind::Canceled))
            }
            Source::File(file) => file
                .next_chunk()
                .map_err(|kind| HttpError::new(&self.url, kind)),
            Source::Network { pieces, .. } => match next_piece(pieces, self.stop.as_deref()) {
                Ok(Piece::Chunk(bytes, _paid)) => Ok(Some(bytes)),
                Ok(Piece::End(end)) => end.map(|()| None),
                Err(_) => Err(HttpError::new(&self.url, HttpErrorKind::Canceled)),
            },
        };
        match &chunk {
            Ok(Some(_)) => {}
            Ok(None) => self.source = Source::Ended,
            Err(error) => self.failed = Some(error.clone()),
        }
        chunk
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Self::Network { pump, .. } = self {
            pump.abort();
        }
    }
}

pub(in crate::http) fn open(
    engine: &Arc<Engine>,
    request: NarRequest,
) -> Result<NarBody, HttpError> {
    if request.url.scheme() == "file" {
        let opened = file::open_nar(&request.url, request.range);
        let (head, file) = opened.map_err(|kind| HttpError::new(&request.url, kind))?;
        let (url, stop, source) = (request.url, request.stop, Source::File(file));
        return Ok(NarBody {
            url,
            head,
            source,
            stop,
            failed: None,
        });
    }
    let timeouts = request
        .timeouts
        .unwrap_or_else(|| engine.options().timeouts_of(&request.url))
        .bounded();
    let (head, response) = engine.block_on(async {
        tokio::select! {
            opened = open_response(engine, &request, timeouts) => opened,
            () = raised(request.stop.as_deref()) => {
                Err(HttpError::new(&request.url, HttpErrorKind::Canceled))
            }
        }
    })?;
    let (sender, pieces) = crossbeam_channel::unbounded();
    let pump = Pump {
        url: request.url.clone(),
        expected: head.content_length,
        timeouts,
        pieces: sender,
        budget: Arc::new(Semaphore::new(QUEUED_BYTES_MAX)),
    };
    let pump = engine.handle().spawn(pump.run(response)).abort_handle();
    let source = Source::Network {
        pieces,
        pump,
        _engine: Arc::clone(engine),
    };
    Ok(NarBody {
        url: request.url,
        head,
        source,
        stop: request.stop,
        failed: None,
    })
}

/// Ends when the flag is up; without a flag, never.
async fn raised(stop: Option<&AtomicBool>) {
    while !is_raised(stop) {
        tokio::time::sleep(STOP_TICK).await;
    }
}

/// The next piece; an error when the pump is gone or the flag is up.
fn next_piece(
    pieces: &Receiver<Piece>,
    stop: Option<&AtomicBool>,
) -> Result<Piece, RecvTimeoutError> {
    while !is_raised(stop) {
        match pieces.recv_timeout(STOP_TICK) {
            Err(RecvTimeoutError::Timeout) => {}
            piece => return piece,
        }
    }
    Err(RecvTimeoutError::Timeout)
}

fn is_raised(stop: Option<&AtomicBool>) -> bool {
    stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
}

/// How often a raised flag is looked for while nothing arrives.
const STOP_TICK: Duration = Duration::from_millis(100);

async fn open_response(
    engine: &Engine,
    request: &NarRequest,
    timeouts: Timeouts,
) -> Result<(BodyHead, Response), HttpError> {
    let mut web = client::Request::new(Method::GET, request.url.clone(), timeouts);
    web.retries.clone_from(&request.retries);
    if let Some(range) = request.range {
        web.headers.insert(RANGE, range_header(range));
        let version = request
            .if_range
            .as_deref()
            .and_then(|text| HeaderValue::from_str(text).ok());
        if let Some(version) = version {
            web.headers.insert(IF_RANGE, version);
        }
    }
    let response = web.send(engine.shared(), engine.options()).await?;
    let head = body_head(&response, request.range.map(|(start, _)| start));
    let head = head.map_err(|kind| HttpError::new(&request.url, kind))?;
    Ok((head, response))
}

fn range_header((start, end): (u64, Option<u64>)) -> HeaderValue {
    let last = end
        .map(|end| end.saturating_sub(1).to_string())
        .unwrap_or_default();
    HeaderValue::from_str(&format!("bytes={start}-{last}")).expect("digits make a valid header")
}

/// What the head says of the body; an error if it is not the one asked for.
fn body_head(response: &Response, start: Option<u64>) -> Result<BodyHead, HttpErrorKind> {
    let headers = response.headers();
    let status = match (response.status().as_u16(), start) {
        (200, _) => BodyStatus::Full,
        (206, Some(asked)) => match header(headers, "content-range").and_then(content_range) {
            Some((start, total)) if start == asked => BodyStatus::Partial { start, total },
            _ => return Err(HttpErrorKind::WrongRange),
        },
        (206, None) => return Err(HttpErrorKind::WrongRange),
        _ => return Err(client::status_error(response)),
    };
    client::refuse_encoding(headers)?;
    Ok(BodyHead {
        status,
        content_length: header(headers, "content-length").and_then(|text| text.parse().ok()),
        validator: validator(headers),
        accepts_ranges: accepts_ranges(headers) || status != BodyStatus::Full,
        url: Some(response.url().clone()),
    })
}

/// `bytes 5-9/10` or `bytes 5-9/*`: the first position and the length of the whole.
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.trim().split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let total = if total == "*" {
        None
    } else {
        Some(total.parse().ok()?)
    };
    let is_sound = first <= last && total.is_none_or(|total| last < total);
    is_sound.then_some((first, total))
}

/// A weak `ETag` names equivalent files, not equal bytes: useless for putting parts together.
fn validator(headers: &HeaderMap) -> Option<String> {
    let strong = header(headers, "etag").filter(|tag| tag.starts_with('"'));
    strong
        .or_else(|| header(headers, "last-modified"))
        .map(str::to_owned)
}

pub(in crate::http) fn accepts_ranges(headers: &HeaderMap) -> bool {
    header(headers, "accept-ranges").is_some_and(|value| value.eq_ignore_ascii_case("bytes"))
}

/// What a caching proxy says of the answer.
pub(in crate::http) fn proxy_cache(headers: &HeaderMap) -> Option<String> {
    let said = ["x-cache-status", "cf-cache-status", "x-cache"];
    said.iter()
        .find_map(|name| header(headers, name))
        .map(str::to_owned)
}

/// The next bytes. Empty frames, of which an HTTP/2 server may send any number, are none: waiting
/// goes on, and with it the time that a server may be silent.
async fn next_bytes(response: &mut Response) -> Result<Option<Bytes>, reqwest::Error> {
    loop {
        match response.chunk().await {
            Ok(Some(bytes)) if bytes.is_empty() => tokio::task::yield_now().await,
            chunk => return chunk,
        }
    }
}

/// Moves a body from the network into the queue.
struct Pump {
    url: Url,
    expected: Option<u64>,
    timeouts: Timeouts,
    pieces: Sender<Piece>,
    budget: Arc<Semaphore>,
}

impl Pump {
    async fn run(self, mut response: Response) {
        let end = self.transfer(&mut response).await;
        // A caller that no longer listens has no use for it.
        let _ = self.pieces.send(Piece::End(
            end.map_err(|kind| HttpError::new(&self.url, kind)),
        ));
    }

    async fn transfer(&self, response: &mut Response) -> Result<(), HttpErrorKind> {
        let mut received = 0;
        // Only the network's silence counts as a stall, not the time the queue is full.
        while let Some(bytes) = self.read(response, received).await? {
            received += bytes.len() as u64;
            let price = u32::try_from(bytes.len().min(QUEUED_BYTES_MAX)).unwrap_or(u32::MAX);
            let paid = Arc::clone(&self.budget).acquire_many_owned(price).await;
            let paid = paid.expect("nobody closes the budget");
            if self.pieces.send(Piece::Chunk(bytes, paid)).is_err() {
                return Err(HttpErrorKind::Canceled);
            }
        }
        match self.expected {
            Some(expected) if received < expected => {
                Err(HttpErrorKind::Truncated { received, expected })
            }
            _ => Ok(()),
        }
    }

    async fn read(
        &self,
        response: &mut Response,
        received: u64,
    ) -> Result<Option<Bytes>, HttpErrorKind> {
        let Ok(chunk) = tokio::time::timeout(self.timeouts.stall, next_bytes(response)).await
        else {
            return Err(HttpErrorKind::Stalled(self.timeouts.stall));
        };
        chunk.map_err(
            |error| match (client::body_error(error, self.timeouts), self.expected) {
                (HttpErrorKind::Closed, Some(expected)) if received < expected => {
                    HttpErrorKind::Truncated { received, expected }
                }
                (kind, _) => kind,
            },
        )
    }
}

/// What one transfer may have waiting to be taken out, in bytes.
const QUEUED_BYTES_MAX: usize = 1 << 20;
