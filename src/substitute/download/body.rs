//! The compressed bytes of a nar, as a reader that survives a broken connection.
//!
//! When the stream breaks off, the rest is requested with `Range` and `If-Range`. Whatever a server
//! answers to that but the rest, the file is requested once more without a range, and what was
//! received already is skipped. The decoder behind never notices. Whether the two halves belong
//! together is decided by the nar's hash in the end, so a changed file cannot do harm.
//!
//! A response without `Content-Length` that ends before the size in the narinfo is resumed like one
//! that broke off. That size is not signed: when the file ends there again, it is the decoder that
//! tells whether something is missing. Where there is no size at all, and the server has ended the connection
//! without saying so in TLS, or by a reset, the decoder and the hash are asked first, a few times at most
//! ([`ItemRetries::assume_end`]): what turns out to be incomplete is requested again, and then resumed.
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
use std::time::Instant;

use bytes::{Buf as _, Bytes};
use url::Url;

use crate::format::compression::Compression;
use crate::format::server_list::ServerIndex;
use crate::http::{Client, HttpError, NarBody, NarRequest, RateDemand, RetryPolicy};
use crate::substitute::cancel::Cancel;
use crate::substitute::download::counters::TransferCounters;
use crate::substitute::download::kept_beginning::KeptBeginning;
use crate::substitute::download::prefetch::{EarlyDownload, PrefetchedNar};
use crate::substitute::download::retries::ItemRetries;
use crate::substitute::download::segments::{SegmentConnections, Segments};
use crate::substitute::download::spool_writer::{SpoolRequest, SpoolWriter};
use crate::substitute::download::trial::Trial;

/// After this many requests for a range without progress, the file is requested whole.
pub(super) const BROKEN_RANGES_MAX: u32 = 3;
/// After this many requests whose responses ended at the same place, before the end that the narinfo
/// says, that is where the file ends.
const EARLY_ENDS_MAX: u32 = 2;
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
    /// The size of the file, if that is certain beforehand.
    pub(super) size: Option<u64>,
    /// Its size as the narinfo says, which is not signed.
    pub(super) file_size: Option<u64>,
    /// A download that was started ahead of time.
    pub(super) prefetched: Option<EarlyDownload>,
    /// What is there of the file already. It is used if the size of the file is known.
    pub(super) kept: Option<KeptBeginning>,
    /// How it is kept for later runs, if it is.
    pub(super) spool: Option<SpoolRequest>,
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
    /// What another process has requested ahead of time.
    Prefetched(Box<dyn PrefetchedNar>),
    /// Nothing has been requested.
    Unopened,
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
    pub(super) file_size: Option<u64>,
    /// Where the last response ended before `file_size`, and how many in a row did.
    early_ends: (u64, u32),
    /// Names the version of the file.
    pub(super) validator: Option<String>,
    /// The server says that parts of the file can be requested.
    pub(super) announces_ranges: bool,
    /// What had been received when progress was last noted, or the stream resumed.
    pub(super) noted_at: u64,
    /// Requests for a range, one after the other, whose responses broke off before there was progress
    /// or said to wait.
    pub(super) broken_ranges: u32,
    /// What was kept of the file: it comes before the stream.
    pub(super) kept: Option<KeptBeginning>,
    pub(super) spool: SpoolWriter,
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
            file_size,
            prefetched,
            kept,
            spool,
            connections,
            cancel,
        } = wanted;
        let mut body = Self {
            client,
            url,
            server,
            compression,
            retries,
            stream: BodyStream::Unopened,
            connections,
            requested_segments: None,
            segment_use: SegmentUse::Allowed,
            trial: Trial::first(),
            chunk: Bytes::new(),
            received: 0,
            repeated: 0,
            content_length: None,
            size,
            file_size,
            early_ends: (0, 0),
            validator: None,
            announces_ranges: false,
            noted_at: 0,
            broken_ranges: 0,
            kept: None,
            spool: SpoolWriter::off(),
            cancel,
            shared,
        };

        body.begin(prefetched, kept, spool)?;
        Ok(body)
    }

    /// The size of the file, when the server says so.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Waits for more; `false` at the end.
    fn refill(&mut self) -> Result<bool, HttpError> {
        if self.take_kept_chunk()? {
            return Ok(true);
        }
        loop {
            if self.is_complete() {
                return Ok(self.ended());
            }
            match self.next_chunk() {
                Ok(Some(chunk)) => {
                    if self.take_new(chunk) {
                        return Ok(true);
                    }
                }
                Ok(None) => match self.truncation() {
                    Some(error) => self.resume(error)?,
                    None => return Ok(self.ended()),
                },
                // Without a length, such a response may be complete.
                Err(_) if self.is_at_file_size() => return Ok(self.ended()),
                Err(error) if self.may_assume_end() => {
                    let _ = self.shared.early_end.set(Arc::new(error));
                    // Nothing more is read of it.
                    self.stream = BodyStream::Unopened;
                    return Ok(false);
                }
                Err(error) => self.resume(error)?,
            }
        }
    }

    /// Whether nothing new can follow, although the response has not ended.
    fn is_complete(&self) -> bool {
        match self.content_length {
            Some(length) => self.repeated > 0 && self.received >= length,
            None => self.size.is_some_and(|size| self.received >= size),
        }
    }

    fn is_at_file_size(&self) -> bool {
        self.content_length.is_none() && self.file_size == Some(self.received)
    }

    /// Whether the response that has failed is to be taken for complete, since nothing tells its size.
    fn may_assume_end(&self) -> bool {
        let is_size_unknown = self
            .content_length
            .or(self.size)
            .or(self.file_size)
            .is_none();
        is_size_unknown
            && self.repeated == 0
            && matches!(&self.stream, BodyStream::Network(body) if body.may_be_complete())
            && self.retries.assume_end(self.server, self.received)
    }

    /// Takes what `chunk` has besides bytes that have arrived before; false when that is nothing.
    fn take_new(&mut self, chunk: Bytes) -> bool {
        self.chunk = chunk;
        let repeated = self.repeated.min(self.chunk.len() as u64);
        self.repeated -= repeated;
        self.chunk
            .advance(usize::try_from(repeated).unwrap_or(usize::MAX));
        if self.chunk.is_empty() {
            return false;
        }

        self.received += self.chunk.len() as u64;
        self.shared.received.store(self.received, Ordering::Relaxed);
        self.spool.append(&self.chunk);
        self.note_progress();
        self.consider_segments();
        true
    }

    /// What is wrong with a response that has ended, if it is too short.
    fn truncation(&mut self) -> Option<HttpError> {
        // A server may give less of the rest than was requested.
        if let Some(length) = self.content_length.or(self.size) {
            let is_short = self.received < length;
            return is_short.then(|| HttpError::truncated(&self.url, self.received, length));
        }

        let file_size = self.file_size.filter(|size| self.received < *size);
        let error = HttpError::truncated(&self.url, self.received, file_size?);
        self.early_ends = match self.early_ends {
            (place, count) if place == self.received => (place, count + 1),
            _ => (self.received, 1),
        };
        (self.early_ends.1 < EARLY_ENDS_MAX).then_some(error)
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
        self.retries.ended(self.server);
        let is_length_known = self.content_length.or(self.size).is_some();
        if !is_length_known && self.file_size != Some(self.received) {
            // The decoder may miss something.
            let error = HttpError::ended_early(&self.url, self.received);
            let _ = self.shared.early_end.set(Arc::new(error));
        }
        false
    }

    fn next_chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        let before = Instant::now();
        let chunk = match &mut self.stream {
            BodyStream::Network(body) => body.next_chunk(),
            BodyStream::Segments(segments) => segments.next_chunk(),
            BodyStream::Unopened => Ok(None),
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
        }
        chunk
    }
}

/// A request of the whole file in a single attempt: [`ItemRetries`] decides about further ones.
pub(super) fn request_without_retries(
    url: &Url,
    cancel: &Cancel,
    rate_demand: Option<RateDemand>,
) -> NarRequest {
    NarRequest {
        rate_demand,
        retry_policy: Some(RetryPolicy::once()),
        stop: Some(cancel.flag()),
        ..NarRequest::new(url.clone())
    }
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
