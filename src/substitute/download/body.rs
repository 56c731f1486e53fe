//! The compressed bytes of a nar, as a reader that survives a broken connection.
//!
//! When the stream breaks off, the rest is requested with `Range` and `If-Range`. Whatever a server
//! answers to that but the rest, the file is requested once more without a range, and what was
//! received already is skipped. The decoder behind never notices. Whether the two halves belong together is decided by the nar's
//! hash in the end, so a changed file cannot do harm.
//!
//! The bytes may come from three places: one connection, several of them when one has turned
//! out to be slow ([`Segments`]), or a download that was started ahead of time ([`PrefetchedNar`]). A slow
//! stream goes on until the first segment is complete, so that nothing is lost with a server that
//! refuses ranges, or breaks off its responses to them.
//!
//! The decoder sees every failure as an I/O error; the cause is kept here, because it says
//! more: [`TransferCounters::failure`].

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use url::Url;

use crate::format::compression::Compression;
use crate::format::server_list::ServerIndex;
use crate::http::{Client, HttpError, NarBody, NarRequest, RetryPolicy};
use crate::substitute::cancel::Cancel;
use crate::substitute::download::counters::TransferCounters;
use crate::substitute::download::prefetch::PrefetchedNar;
use crate::substitute::download::retries::ItemRetries;
use crate::substitute::download::segments::{
    FirstSegment, SEGMENT_BYTES, SegmentConnections, SegmentedPart, Segments,
};
use crate::substitute::download::trial::Trial;

/// Less than this is not worth more connections.
const SEGMENTED_BYTES_MIN: u64 = 4 << 20;

/// How far the stream may come before the first segment, which begins ahead of it, is complete.
const FIRST_SEGMENT_LAG_BYTES: u64 = 2 * SEGMENT_BYTES;
/// After this many requests for a range without progress, the file is requested whole.
pub(super) const BROKEN_RANGES_MAX: u32 = 3;
/// Fewer bytes of a file than these, or its last ones, are no progress.
const PROGRESS_BYTES: u64 = 64 << 10;

/// What to fetch, and by what means.
pub(super) struct BodyRequest {
    pub(super) url: Url,
    /// The server that it is fetched from.
    pub(super) server: ServerIndex,
    /// How the file is compressed.
    pub(super) compression: Compression,
    /// What happens when it breaks.
    pub(super) retries: Arc<ItemRetries>,
    /// The size of the file, if that is known beforehand.
    pub(super) size: Option<u64>,
    /// A download that was started ahead of time.
    pub(super) prefetched: Option<Box<dyn PrefetchedNar>>,
    /// Connections that may be used besides the first.
    pub(super) connections: SegmentConnections,
    /// Raised when the user interrupts.
    pub(super) cancel: Cancel,
}

/// Where the bytes come from at the moment.
pub(super) enum BodyStream {
    Network(Box<NarBody>),
    /// The rest of the file, over several connections.
    Segments(Segments),
    /// A download that was started ahead of time.
    Prefetched(Box<dyn PrefetchedNar>),
}

/// Whether segments of a file are considered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SegmentUse {
    Allowed,
    /// They broke, or came later than the stream: the connection decides again once the server
    /// has given the rest of the file after an outage.
    AfterResume,
    /// The server gave other bytes than those requested.
    Refused,
}

pub(super) struct ResumableBody {
    pub(super) client: Arc<Client>,
    pub(super) url: Url,
    pub(super) server: ServerIndex,
    pub(super) compression: Compression,
    pub(super) retries: Arc<ItemRetries>,
    pub(super) stream: BodyStream,
    pub(super) connections: SegmentConnections,
    /// Segments that have been requested beside the stream, and begin ahead of it.
    pub(super) requested_segments: Option<Segments>,
    pub(super) segment_use: SegmentUse,
    /// Measures the stream, to tell whether segments are worth it.
    pub(super) trial: Trial,
    pub(super) chunk: Bytes,
    /// Bytes received of the file, of every attempt together.
    pub(super) received: u64,
    /// Bytes that will come once more and are to be thrown away.
    pub(super) repeated: u64,
    /// Bytes of the file, when the server says so.
    pub(super) content_length: Option<u64>,
    /// Its bytes as the narinfo has them, for servers that do not say: `guix publish` sends
    /// uncompressed nars without a length, marks their end by nothing, and leaves the connection
    /// open.
    pub(super) size: Option<u64>,
    pub(super) validator: Option<String>,
    /// What had been received when progress was last noted, or the stream resumed.
    pub(super) noted_at: u64,
    /// Requests for a range, one after the other, whose responses broke off before there was progress
    /// or said to wait.
    pub(super) broken_ranges: u32,
    pub(super) cancel: Cancel,
    pub(super) shared: Arc<TransferCounters>,
}

impl ResumableBody {
    /// Requests the file, unless it has begun to arrive.
    pub(super) fn open(
        client: Arc<Client>,
        wanted: BodyRequest,
        shared: Arc<TransferCounters>,
    ) -> Result<Self, HttpError> {
        let BodyRequest {
            url,
            server,
            compression,
            retries,
            size,
            prefetched,
            connections,
            cancel,
        } = wanted;
        let (stream, content_length, validator) = match prefetched {
            Some(prefetched) => {
                let validator = prefetched.validator().map(str::to_owned);
                let content_length = prefetched.content_length();
                (
                    BodyStream::Prefetched(prefetched),
                    content_length,
                    validator,
                )
            }
            None => {
                let request = request_without_retries(&url, &cancel, retries.rate_window(server));
                let body = open_first(&client, request, compression, &retries)?;
                let (length, validator) = (body.content_length(), range_validator(&body));
                (BodyStream::Network(Box::new(body)), length, validator)
            }
        };

        Ok(Self {
            client,
            url,
            server,
            compression,
            retries,
            stream,
            connections,
            requested_segments: None,
            segment_use: SegmentUse::Allowed,
            trial: Trial::first(),
            chunk: Bytes::new(),
            received: 0,
            repeated: 0,
            content_length,
            size,
            validator,
            noted_at: 0,
            broken_ranges: 0,
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
                return Ok(self.ended());
            }
            match self.next_chunk() {
                Ok(None) => match self.content_length.or(self.size) {
                    // A server may give less of the rest than was requested.
                    Some(length) if self.received < length => {
                        self.resume(HttpError::truncated(&self.url, self.received, length))?;
                    }
                    _ => return Ok(self.ended()),
                },
                Ok(Some(chunk)) => {
                    self.chunk = chunk;
                    let repeated = self.repeated.min(self.chunk.len() as u64);
                    self.repeated -= repeated;
                    self.chunk
                        .advance(usize::try_from(repeated).unwrap_or(usize::MAX));
                    if !self.chunk.is_empty() {
                        self.received += self.chunk.len() as u64;
                        self.shared.received.store(self.received, Ordering::Relaxed);
                        self.note_progress();
                        self.consider_segments();
                        return Ok(true);
                    }
                }
                Err(error) => self.resume(error)?,
            }
        }
    }

    /// Reports that the server delivers.
    fn note_progress(&mut self) {
        if self.received - self.noted_at >= PROGRESS_BYTES {
            self.noted_at = self.received;
            self.broken_ranges = 0;
            self.retries.progressed(self.server);
        } else if self.received == self.chunk.len() as u64 {
            self.retries.health().answered(self.server);
        }
    }

    /// The file has arrived; there is no more.
    fn ended(&mut self) -> bool {
        self.retries.progressed(self.server);
        false
    }

    fn next_chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        let before = Instant::now();
        let chunk = match &mut self.stream {
            BodyStream::Network(body) => body.next_chunk(),
            BodyStream::Segments(segments) => segments.next_chunk(),
            BodyStream::Prefetched(prefetched) => match prefetched.next_chunk() {
                Ok(chunk) => Ok(chunk),
                // Its cause is logged where it was started; the rest is requested here.
                Err(_) => self.reopen().map(|()| Some(Bytes::new())),
            },
        };

        let waited = u64::try_from(before.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.shared
            .waited_micros
            .fetch_add(waited, Ordering::Relaxed);
        if let Ok(Some(chunk)) = &chunk
            && self.received > 0
        {
            self.shared
                .streamed
                .fetch_add(chunk.len() as u64, Ordering::Relaxed);
            self.shared
                .streamed_micros
                .fetch_add(waited, Ordering::Relaxed);
        }
        chunk
    }

    /// Requests segments when the network is what the decoder waits for, and goes on with them once the
    /// first one has arrived.
    fn consider_segments(&mut self) {
        let Some(segments) = self.requested_segments.take() else {
            if self.is_worth_segments() {
                self.requested_segments = self.request_segments();
            }
            return;
        };

        let start = segments.start_offset();
        match segments.first() {
            FirstSegment::Complete if self.received >= start => {
                tracing::debug!(start, "going on with segments");
                self.repeated = self.received - start;
                self.retries.note_range_used();
                self.stream = BodyStream::Segments(segments);
            }
            FirstSegment::Refused => {
                tracing::debug!(
                    server = self.retries.server_url(self.server),
                    "the server does not give parts of files"
                );
                self.segment_use = SegmentUse::Refused;
                self.retries.health().refuses_ranges(self.server);
            }
            FirstSegment::Broken => self.segment_use = SegmentUse::AfterResume,
            // The stream is faster.
            FirstSegment::Requested if self.received >= start + FIRST_SEGMENT_LAG_BYTES => {
                self.segment_use = SegmentUse::AfterResume;
            }
            FirstSegment::Requested | FirstSegment::Complete => {
                self.requested_segments = Some(segments);
            }
        }
    }

    /// Whether the stream is slow, and enough is left to gain something.
    fn is_worth_segments(&self) -> bool {
        let Some(end) = self.content_length else {
            return false;
        };

        self.segment_use == SegmentUse::Allowed
            && !matches!(self.stream, BodyStream::Segments(_))
            && end.saturating_sub(self.received) >= SEGMENTED_BYTES_MIN
            && self.trial.is_slow(&self.shared)
            && self.retries.health().takes_ranges(self.server)
    }

    /// Requests segments of what the stream will not have delivered by the time they arrive.
    fn request_segments(&self) -> Option<Segments> {
        let (validator, end) = (self.validator.clone()?, self.content_length?);
        let start = self.received + SEGMENT_BYTES;
        let part = SegmentedPart {
            url: self.url.clone(),
            validator,
            start,
            end,
            rate_window: self.retries.rate_window(self.server),
        };

        tracing::debug!(start, end, "requesting segments");
        Segments::start(&self.client, part, self.cancel.flag(), &self.connections)
    }
}

/// Requests a file with this compression for the first time.
fn open_first(
    client: &Client,
    request: NarRequest,
    compression: Compression,
    retries: &ItemRetries,
) -> Result<NarBody, HttpError> {
    let body = client.nar(NarRequest {
        compression: Some(compression),
        ..request
    })?;
    if let Some(target) = body.redirected_to() {
        retries.health().redirect_answered(target);
    }
    Ok(body)
}

/// A request of the whole file in a single attempt: [`ItemRetries`] decides about further ones.
pub(super) fn request_without_retries(
    url: &Url,
    cancel: &Cancel,
    rate_window: Option<Duration>,
) -> NarRequest {
    NarRequest {
        rate_window,
        retry_policy: Some(RetryPolicy::once()),
        stop: Some(cancel.flag()),
        ..NarRequest::new(url.clone())
    }
}

/// What names this version of the file, if parts of it can be requested.
pub(super) fn range_validator(body: &NarBody) -> Option<String> {
    body.validator()
        .filter(|_| body.accepts_ranges())
        .map(str::to_owned)
}

impl Read for ResumableBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for ResumableBody {
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
