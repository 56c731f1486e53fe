//! The transfer of a nar from the server to its reader: body -> decode -> nar bytes.
//!
//! Two threads take part: one waits for the network and decodes, and the caller reads the nar.
//! Between them are buffers of a bounded pool, so that the slower one sets the pace and memory
//! stays the same whatever the nar's size.

use std::convert::Infallible;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::time::{ClockId, clock_gettime};

pub(crate) use crate::codec::decoders::DecoderMemory;
use crate::codec::decoders::Decoders;
use crate::format::compression::Compression;
use crate::http::Client;
use crate::store::unpack::Chunks;
use crate::substitute::cancel::Cancel;
use crate::substitute::download::body::{BodyRequest, ResumableBody};
use crate::substitute::download::buffers::{Buffer, BufferPool};
use crate::substitute::download::candidate::DownloadCandidate;
use crate::substitute::download::counters::TransferCounters;
use crate::substitute::download::errors::TransferError;
use crate::substitute::download::input::{DecoderInput, StopReason};
use crate::substitute::download::prefetch::EarlyDownload;
use crate::substitute::download::rates::WorkTime;
use crate::substitute::download::retries::ItemRetries;
use crate::substitute::download::segments::SegmentConnections;
use crate::substitute::download::server_streams::ServerStreams;
use crate::substitute::download::spool_writer::SpoolRequest;

/// What all transfers of a run share: memory, and connections for the parts of large nars.
#[derive(Clone)]
pub(crate) struct TransferBudget {
    buffers: BufferPool,
    decoders: Arc<Decoders>,
    connections: SegmentConnections,
    /// The nars that are being downloaded from each server.
    pub(crate) streams: ServerStreams,
}

impl TransferBudget {
    /// `buffer_bytes` for decoded bytes on their way, but enough for `transfers` side by side,
    /// `memory` for decoders, `cores` to decode with, `connections` that large nars may use besides
    /// their first (fewer than two are none), and `nars_per_server` at the same time.
    #[must_use]
    pub(crate) fn new(
        buffer_bytes: usize,
        transfers: usize,
        memory: DecoderMemory,
        cores: usize,
        connections: usize,
        nars_per_server: usize,
    ) -> Self {
        Self {
            buffers: BufferPool::new(buffer_bytes, transfers),
            decoders: Arc::new(Decoders::new(memory, cores)),
            connections: SegmentConnections::new(connections),
            streams: ServerStreams::new(nars_per_server),
        }
    }
}

/// A download to be started.
pub(crate) struct TransferRequest<'a> {
    /// Which.
    pub(crate) candidate: &'a DownloadCandidate,
    /// Bytes of the nar.
    pub(crate) nar_size: u64,
    /// What has arrived of it already.
    pub(crate) prefetched: Option<EarlyDownload>,
    /// Where what arrives is kept for later runs, and what earlier ones have kept.
    pub(crate) spool: Option<SpoolRequest>,
    /// What happens when it breaks.
    pub(crate) retries: Arc<ItemRetries>,
    /// Raised when the user interrupts.
    pub(crate) cancel: Cancel,
}

/// Buffers between the two threads.
const QUEUE: usize = 4;

/// A transfer in flight: the bytes of a nar, to be read to the end.
pub(crate) struct NarStream {
    incoming: Option<Incoming>,
    decoder: Option<JoinHandle<Result<Decoded, TransferError>>>,
    shared: Arc<TransferCounters>,
    download_size: Option<u64>,
}

/// The reader's end.
struct Incoming {
    chunks: Receiver<Bytes>,
    /// Nothing is ever sent: as long as it exists, the decoder has a reader.
    _presence: Sender<Infallible>,
}

/// What a finished transfer measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransferMeasurements {
    /// Compressed bytes received.
    pub(crate) downloaded: u64,
    /// What the thread that decoded has worked.
    pub(crate) decoding: WorkTime,
}

struct Decoded {
    worked: WorkTime,
}

impl NarStream {
    /// Starts to download and decode a nar.
    ///
    /// # Errors
    /// The server refuses, or cannot be reached.
    pub(crate) fn open(
        client: Arc<Client>,
        download: TransferRequest<'_>,
        budget: &TransferBudget,
    ) -> Result<Self, TransferError> {
        let TransferRequest {
            candidate,
            nar_size,
            prefetched,
            spool,
            retries,
            cancel,
        } = download;
        let shared = Arc::new(TransferCounters::default());
        let size = (candidate.compression == Compression::None).then_some(nar_size);
        let wanted = BodyRequest {
            url: candidate.url.clone(),
            server: candidate.server,
            compression: candidate.compression,
            retries,
            size,
            file_size: candidate.file_size,
            prefetched,
            kept: None,
            spool,
            connections: budget.connections.clone(),
            cancel: cancel.clone(),
        };

        let body = ResumableBody::open(client, wanted, Arc::clone(&shared))
            .map_err(|error| TransferError::Network(Arc::new(error)))?;
        let download_size = body.content_length().or(candidate.file_size).or(size);
        let (to_reader, chunks) = bounded(QUEUE);
        let (presence, reader) = bounded(0);
        let decode = Decode {
            compression: candidate.compression,
            nar_size,
            buffers: budget.buffers.clone(),
            decoders: Arc::clone(&budget.decoders),
            cancel,
            to_reader,
            reader,
            shared: Arc::clone(&shared),
            stopped: StopReason::default(),
        };

        let thread = std::thread::Builder::new().name("decode".to_owned());
        let decoder = thread
            .spawn(move || decode.run(body))
            .map_err(|error| TransferError::Start(Arc::new(error)))?;
        Ok(Self {
            incoming: Some(Incoming {
                chunks,
                _presence: presence,
            }),
            decoder: Some(decoder),
            shared,
            download_size,
        })
    }

    /// Bytes to download, when the server or the narinfo says so.
    #[must_use]
    pub(crate) fn download_size(&self) -> Option<u64> {
        self.download_size
    }

    /// A counter of the compressed bytes received so far, to be watched from elsewhere.
    #[must_use]
    pub(crate) fn received(&self) -> ReceivedCounter {
        ReceivedCounter(Arc::clone(&self.shared))
    }

    /// Ends the transfer: what was measured, or what went wrong first. The reader of the nar
    /// should prefer this error to its own: a broken connection looks like a malformed
    /// nar from there.
    ///
    /// # Errors
    /// The nar did not arrive whole.
    pub(crate) fn finish(mut self) -> Result<TransferMeasurements, TransferError> {
        self.incoming = None;
        self.shared.is_abandoned.store(true, Ordering::Relaxed);
        let decoded = self.decoder.take().map(JoinHandle::join);
        let decoded = decoded.and_then(Result::ok).ok_or_else(|| {
            TransferError::Start(Arc::new(io::Error::other("a thread has panicked")))
        })??;
        Ok(TransferMeasurements {
            downloaded: self.shared.received.load(Ordering::Relaxed),
            decoding: decoded.worked,
        })
    }
}

impl Drop for NarStream {
    fn drop(&mut self) {
        self.shared.is_abandoned.store(true, Ordering::Relaxed);
    }
}

/// How much has been received.
#[derive(Clone)]
pub(crate) struct ReceivedCounter(Arc<TransferCounters>);

impl ReceivedCounter {
    /// Compressed bytes received so far.
    #[must_use]
    pub(crate) fn bytes(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }
}

impl Chunks for NarStream {
    fn next_chunk(&mut self) -> io::Result<Bytes> {
        // A closed channel is the end, good or bad: `finish` tells which.
        let chunk = self
            .incoming
            .as_ref()
            .and_then(|incoming| incoming.chunks.recv().ok());
        Ok(chunk.unwrap_or_default())
    }
}

/// The thread that waits for the network and decodes.
struct Decode {
    compression: Compression,
    nar_size: u64,
    buffers: BufferPool,
    decoders: Arc<Decoders>,
    cancel: Cancel,
    to_reader: Sender<Bytes>,
    /// Disconnected when the reader is gone.
    reader: Receiver<Infallible>,
    shared: Arc<TransferCounters>,
    stopped: StopReason,
}

impl Decode {
    fn run(self, body: ResumableBody) -> Result<Decoded, TransferError> {
        let decoders = Arc::clone(&self.decoders);
        let (cancel, stopped) = (self.cancel.clone(), self.stopped.clone());
        let input = DecoderInput::new(body, self.nar_size, cancel, stopped);
        let decoded = decoders.decode(self.compression, input, |reader| self.pump(reader));
        decoded.map_err(|error| self.failure(error))?
    }

    /// Hands on what `reader` gives, buffer by buffer.
    fn pump(&self, reader: &mut dyn Read) -> Result<Decoded, TransferError> {
        let (mut left, mut blocked) = (self.nar_size, Duration::ZERO);
        let started = Instant::now();
        loop {
            if self.cancel.is_canceled() {
                return Err(TransferError::Canceled);
            }
            let before = Instant::now();
            let buffer = self.buffers.take(&self.reader);
            blocked += before.elapsed();
            // A reader that is gone has found an error in the nar: no use in going on then.
            let Some(mut buffer) = buffer else { break };
            let is_last = fill(reader, &mut buffer).map_err(|error| self.failure(error))?;
            let bytes = buffer.freeze();
            left = left
                .checked_sub(bytes.len() as u64)
                .ok_or(TransferError::TooLong(self.nar_size))?;
            let before = Instant::now();
            let is_unwanted = !bytes.is_empty() && self.to_reader.send(bytes).is_err();
            blocked += before.elapsed();
            if is_last
                && left > 0
                && let Some(end) = self.shared.early_end.get()
            {
                return Err(TransferError::Network(Arc::clone(end)));
            }
            if is_last || is_unwanted {
                break;
            }
        }

        Ok(Decoded {
            worked: self.worked(started, blocked),
        })
    }

    /// What this thread has worked since `started`, without the time that it was `blocked` by the reader.
    fn worked(&self, started: Instant, blocked: Duration) -> WorkTime {
        let waited = Duration::from_micros(self.shared.waited_micros.load(Ordering::Relaxed));
        let wall = started.elapsed().saturating_sub(blocked);
        WorkTime {
            processor: thread_processor_time(),
            wall: wall.saturating_sub(waited),
        }
    }

    fn failure(&self, error: io::Error) -> TransferError {
        self.shared.cause(error, &self.stopped, self.compression)
    }
}

/// The processor time that this thread has taken so far. The thread of a transfer does nothing else.
fn thread_processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Fills `buffer`; whether the input is at its end.
fn fill(reader: &mut dyn Read, buffer: &mut Buffer) -> io::Result<bool> {
    while !buffer.unfilled().is_empty() {
        match reader.read(buffer.unfilled()) {
            Ok(0) => return Ok(true),
            Ok(count) => buffer.advance(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}
