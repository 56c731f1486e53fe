//! Nars as streams of chunks: opened after the attempts of the retry policy, then read by the caller at its own speed.
//!
//! A task on the runtime moves a body from the network into a queue that is bounded in bytes, and
//! dropping the body cancels the transfer. Only *opening* is retried here: the caller, who knows
//! how much was used, requests the rest with [`NarRequest::range`] and [`NarRequest::if_range`].
//!
//! A body that ends before its announced length is an error, never a short body. Without a length
//! (chunked, or up to the end of the connection) that cannot always be detected: then only the nar's
//! grammar and hash can. After an error every further call gives the same error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use reqwest::header::{HeaderValue, IF_RANGE, RANGE};
use reqwest::{Method, Response};
use tracing::debug;
use url::{Origin, Url};

use super::chunks::ChunkReader;
use super::client::LibraryRequest;
use super::encoded::EncodedBody;
use super::file::{self, FileBody};
use super::nar::{BodyHead, BodyStatus, NarRequest, RangeSupport, range_header};
use super::network_chunks::{Chunk, NetworkChunks, canceled, is_set, until_set};
use crate::format::server_url::redacted;
use crate::http::error::{HttpError, HttpErrorKind};
use crate::http::limit::RateLimiter;
use crate::http::net::runtime::HttpRuntime;
use crate::http::options::Timeouts;
use crate::http::queue::{QueueSender, byte_queue};
use crate::http::rate::RateMeter;

/// A nar that is being downloaded.
#[derive(Debug)]
pub(crate) struct NarBody {
    url: Url,
    head: BodyHead,
    source: BodySource,
    stop: Option<Arc<AtomicBool>>,
    failed: Option<HttpError>,
}

#[derive(Debug)]
enum BodySource {
    File(FileBody),
    Network(NetworkChunks),
    Encoded(EncodedBody),
    /// Everything was read.
    Ended,
}

impl NarBody {
    /// Whether this is all of the file.
    #[must_use]
    pub(crate) fn status(&self) -> BodyStatus {
        self.head.status
    }

    /// Bytes of this body, if the server says so, and they are those of the file.
    #[must_use]
    pub(crate) fn content_length(&self) -> Option<u64> {
        self.head.content_length
    }

    /// Names this version of the file: a strong `ETag`, else `Last-Modified`.
    #[must_use]
    pub(crate) fn validator(&self) -> Option<&str> {
        self.head.validator.as_deref()
    }

    /// Whether the server says that ranges can be requested.
    #[must_use]
    pub(crate) fn ranges(&self) -> RangeSupport {
        self.head.ranges
    }

    /// Where the server redirected to, if another server sends the body.
    #[must_use]
    pub(crate) fn redirected_to(&self) -> Option<Origin> {
        let origin = self.head.url.as_ref()?.origin();
        (origin != self.url.origin()).then_some(origin)
    }

    /// Whether the transfer from the network has ended, well or not: what was not read is in memory.
    #[must_use]
    pub(crate) fn has_arrived(&self) -> bool {
        match &self.source {
            BodySource::Network(chunks) => chunks.transfer.is_finished(),
            BodySource::Ended => true,
            BodySource::File(_) | BodySource::Encoded(_) => false,
        }
    }

    /// Whether all of a file of `file_size` bytes has arrived: reading it waits for nothing, and nothing of it is missing.
    #[must_use]
    pub(crate) fn has_arrived_whole(&self, file_size: u64) -> bool {
        let is_complete = match &self.source {
            BodySource::Network(chunks) => chunks.is_complete.load(Ordering::Relaxed),
            BodySource::File(_) | BodySource::Encoded(_) | BodySource::Ended => false,
        };
        is_complete && self.content_length() == Some(file_size)
    }

    /// Whether it has failed where it may end: nothing tells its length, and the server has ended the
    /// connection, but without saying so in TLS, or by a reset.
    #[must_use]
    pub(crate) fn may_be_complete(&self) -> bool {
        let failed = self.failed.as_ref();
        self.head.ends_with_connection
            && matches!(self.source, BodySource::Network(_))
            && failed.is_some_and(|it| it.kind().is_connection_end())
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
            BodySource::Ended => Ok(None),
            BodySource::File(_) if is_set(self.stop.as_deref()) => Err(canceled(&self.url)),
            BodySource::File(file) => file
                .next_chunk()
                .map_err(|kind| HttpError::new(&self.url, kind)),
            BodySource::Network(chunks) => chunks.next(),
            BodySource::Encoded(encoded) => encoded.next_chunk(),
        };
        match &chunk {
            Ok(Some(_)) => {}
            Ok(None) => self.source = BodySource::Ended,
            Err(error) => self.failed = Some(error.clone()),
        }
        chunk
    }
}

/// Opens a nar: waits until its first byte can be read.
pub(in crate::http) fn open(
    runtime: &Arc<HttpRuntime>,
    request: NarRequest,
) -> Result<NarBody, HttpError> {
    let (head, source) = if request.url.scheme() == "file" {
        let (head, file) = file::open_nar(&request.url, request.range)
            .map_err(|kind| HttpError::new(&request.url, kind))?;
        (head, BodySource::File(file))
    } else {
        open_network(runtime, &request)?
    };
    Ok(NarBody {
        url: request.url,
        head,
        source,
        stop: request.stop,
        failed: None,
    })
}

fn open_network(
    runtime: &Arc<HttpRuntime>,
    request: &NarRequest,
) -> Result<(BodyHead, BodySource), HttpError> {
    let timeouts = request
        .timeouts
        .unwrap_or_else(|| runtime.options().timeouts_of(&request.url))
        .bounded();
    let minimum_rate = runtime.options().minimum_rate.with(request.rate_demand);
    let (head, response) = runtime.block_on(async {
        tokio::select! {
            opened = open_response(runtime, request, timeouts) => opened,
            () = until_set(request.stop.as_deref()) => Err(canceled(&request.url)),
        }
    })?;

    let queued_bytes_max = request.queued_bytes_max.unwrap_or(QUEUED_BYTES_MAX);
    let (sender, chunks) = byte_queue(queued_bytes_max.min(QUEUED_BYTES_MAX));
    let is_complete = Arc::new(AtomicBool::new(false));
    let transfer = Transfer {
        url: request.url.clone(),
        is_complete: Arc::clone(&is_complete),
        expected: head.body_bytes,
        ends_with_bytes: head.ends_with_bytes,
        chunks: sender,
        limiter: runtime.limiter().cloned(),
    };
    let meter = RateMeter::new(minimum_rate, runtime.transfers().clone());
    let line = runtime.options().lines.transfer(request.url.origin());
    let reader = ChunkReader::new(response, timeouts, meter, line);
    let chunks = NetworkChunks {
        url: request.url.clone(),
        chunks,
        transfer: runtime.handle().spawn(transfer.run(reader)).abort_handle(),
        is_complete,
        stop: request.stop.clone(),
        _runtime: Arc::clone(runtime),
    };

    if head.encodings.is_empty() {
        return Ok((head, BodySource::Network(chunks)));
    }
    debug!(url = %redacted(&request.url), encodings = ?head.encodings, "the body is encoded");
    let encoded = EncodedBody::new(
        request.url.clone(),
        head.encodings.clone(),
        request.compression,
        head.body_bytes.is_some(),
        chunks,
    );
    Ok((head, BodySource::Encoded(encoded)))
}

async fn open_response(
    runtime: &HttpRuntime,
    request: &NarRequest,
    timeouts: Timeouts,
) -> Result<(BodyHead, Response), HttpError> {
    let mut library = LibraryRequest::new(Method::GET, request.url.clone(), timeouts);
    library.retry_policy.clone_from(&request.retry_policy);
    library.rate_demand = request.rate_demand;
    if let Some(range) = request.range {
        library.headers.insert(RANGE, range_header(range));
        let version = request
            .if_range
            .as_deref()
            .and_then(|text| HeaderValue::from_str(text).ok());
        if let Some(version) = version {
            library.headers.insert(IF_RANGE, version);
        }
    }

    let response = library.send(runtime.setup(), runtime.options()).await?;
    let head = BodyHead::of(&response, request.range.map(|(start, _)| start))
        .map_err(|kind| HttpError::new(&request.url, kind))?;
    Ok((head, response))
}

/// Moves a body from the network into the queue.
struct Transfer {
    url: Url,
    expected: Option<u64>,
    ends_with_bytes: bool,
    chunks: QueueSender<Chunk>,
    is_complete: Arc<AtomicBool>,
    limiter: Option<Arc<RateLimiter>>,
}

impl Transfer {
    async fn run(self, reader: ChunkReader) {
        let end = self.move_chunks(reader).await;
        let end = end.map_err(|kind| HttpError::new(&self.url, kind));
        if let Err(error) = &end {
            debug!(url = %redacted(&self.url), error = %error.without_url(), "transfer failed");
        }
        let is_complete = end.is_ok();
        self.chunks.send(end.map(|()| None));
        self.is_complete.store(is_complete, Ordering::Relaxed);
    }

    async fn move_chunks(&self, mut reader: ChunkReader) -> Result<(), HttpErrorKind> {
        let mut received = 0;
        loop {
            if self.ends_with_bytes && self.expected.is_some_and(|expected| received >= expected) {
                return Ok(());
            }
            let chunk = match (reader.next_chunk().await, self.expected) {
                (Ok(None) | Err(HttpErrorKind::Closed), Some(expected)) if received < expected => {
                    return Err(HttpErrorKind::Truncated { received, expected });
                }
                (chunk, _) => chunk?,
            };
            let Some(bytes) = chunk else { return Ok(()) };

            received += bytes.len() as u64;
            let wait = self.limiter.as_ref().map(|it| it.wait_after(bytes.len()));
            let reserved = self
                .chunks
                .reserve(bytes.len() + CHUNK_OVERHEAD_BYTES)
                .await;
            if !self.chunks.send_reserved(reserved, Ok(Some(bytes))) {
                return Err(HttpErrorKind::Canceled);
            }
            if let Some(wait) = wait {
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// What one transfer may have waiting to be read, in bytes.
const QUEUED_BYTES_MAX: u32 = 1 << 20;

/// What a chunk takes in the queue apart from its bytes.
const CHUNK_OVERHEAD_BYTES: usize = 512;
