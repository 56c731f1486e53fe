//! A nar's way from the server to whoever unpacks it: body -> decode -> (hash | nar bytes).
//!
//! Three threads take part: one waits for the network and decodes, one takes the nar's hash,
//! and the caller reads the nar. They hand each other buffers of a bounded pool, so that the
//! slowest of them sets the pace and memory stays the same whatever the nar's size.

mod body;
mod buffer;
mod segments;

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use crossbeam_channel::{Receiver, Sender, bounded};
use sha2::{Digest, Sha256};

pub use crate::codec::decoders::DecoderMemory;
use crate::codec::decoders::Decoders;
use crate::format::compression::Compression;
use crate::format::hash::NarHash;
use crate::format::nar::SharedRead;
use crate::http::{Client, HttpError};
use crate::store::unpack::NarContent;

use super::ahead::Begun;
use super::cancel::Cancel;
use super::choose::Candidate;
use body::{Body, Shared, Wanted};

use buffer::BufferPool;
use segments::Connections;

/// What all transfers of a run share: memory, and connections for the parts of large nars.
#[derive(Clone)]
pub struct Budget {
    buffers: BufferPool,
    decoders: Arc<Decoders>,
    connections: Connections,
}

impl Budget {
    /// `buffer_bytes` for decoded bytes on their way, `memory` for decoders, `cores` to decode
    /// with, and `connections` that large nars may use besides their first; fewer than two are
    /// none.
    #[must_use]
    pub fn new(
        buffer_bytes: usize,
        memory: DecoderMemory,
        cores: usize,
        connections: usize,
    ) -> Self {
        Self {
            buffers: BufferPool::new(buffer_bytes),
            decoders: Arc::new(Decoders::new(memory, cores)),
            connections: Connections::new(connections),
        }
    }
}

/// Buffers between two of the threads.
const QUEUE: usize = 4;

/// Why a nar did not arrive whole.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransferError {
    /// The network or the server failed.
    #[error("downloading")]
    Network(#[source] Arc<HttpError>),
    /// What arrived is not what the compression method makes.
    #[error("decompressing {compression}")]
    Corrupt {
        /// The method.
        compression: Compression,
        /// What the decoder said.
        source: Arc<io::Error>,
    },
    /// More bytes came than the narinfo promises.
    #[error("the nar is longer than the {0} bytes its narinfo says")]
    TooLong(u64),
    /// The user wants to stop.
    #[error("interrupted")]
    Cancelled,
    /// A thread could not be started, or a decoder not be set up.
    #[error("starting the transfer")]
    Start(#[source] Arc<io::Error>),
}

/// A transfer in flight: the bytes of a nar, to be read to the end.
pub struct NarStream {
    chunk: Bytes,
    chunks: Option<Receiver<Bytes>>,
    decoder: Option<JoinHandle<Result<Decoded, TransferError>>>,
    hasher: Option<JoinHandle<NarContent>>,
    shared: Arc<Shared>,
    download_size: Option<u64>,
}

/// What a finished transfer measured.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Compressed bytes received.
    pub downloaded: u64,
    /// Compressed bytes that came after the first ones.
    pub streamed: u64,
    /// How long the decoder waited for those.
    pub streamed_in: Duration,
    /// How long it worked.
    pub decoded_in: Duration,
}

struct Decoded {
    worked: Duration,
}

impl NarStream {
    /// Starts to download and decode `candidate`, a nar of `nar_size` bytes; the download
    /// may have begun already.
    ///
    /// # Errors
    /// The server refuses, or cannot be reached.
    pub fn open(
        client: Arc<Client>,
        candidate: &Candidate,
        nar_size: u64,
        begun: Option<Box<dyn Begun>>,
        budget: &Budget,
        cancel: Cancel,
    ) -> Result<Self, TransferError> {
        let shared = Arc::new(Shared::default());
        let size = (candidate.compression == Compression::None).then_some(nar_size);
        let wanted = Wanted {
            url: candidate.url.clone(),
            size,
            begun,
            connections: budget.connections.clone(),
            cancel: cancel.clone(),
        };
        let body = Body::open(client, wanted, Arc::clone(&shared))
            .map_err(|error| TransferError::Network(Arc::new(error)))?;
        let download_size = body.content_length().or(candidate.file_size).or(size);
        let (to_reader, chunks) = bounded(QUEUE);
        let (to_hasher, hashed) = bounded(QUEUE);
        let decode = Decode {
            compression: candidate.compression,
            nar_size,
            buffers: budget.buffers.clone(),
            decoders: Arc::clone(&budget.decoders),
            cancel,
            outputs: [to_hasher, to_reader],
            shared: Arc::clone(&shared),
        };
        let start = |error| TransferError::Start(Arc::new(error));
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let hasher = thread("hash").spawn(move || hash(&hashed)).map_err(start)?;
        let decoder = thread("decode").spawn(move || decode.run(body)).map_err(start)?;
        Ok(Self {
            chunk: Bytes::new(),
            chunks: Some(chunks),
            decoder: Some(decoder),
            hasher: Some(hasher),
            shared,
            download_size,
        })
    }

    /// Bytes to download, when the server or the narinfo says so.
    #[must_use]
    pub fn download_size(&self) -> Option<u64> {
        self.download_size
    }

    /// A counter of the compressed bytes received so far, to be watched from elsewhere.
    #[must_use]
    pub fn received(&self) -> Received {
        Received(Arc::clone(&self.shared))
    }

    /// Ends the transfer: the digest of the nar bytes and what was measured, or what went
    /// wrong first. Whoever read the nar should ask here before believing its own error: a
    /// broken connection looks like a malformed nar from there.
    ///
    /// # Errors
    /// The nar did not arrive whole.
    pub fn finish(mut self) -> Result<(NarContent, Measured), TransferError> {
        self.chunks = None;
        let lost = || TransferError::Start(Arc::new(io::Error::other("a thread has panicked")));
        let decoded = self.decoder.take().map(JoinHandle::join);
        let content = self.hasher.take().map(JoinHandle::join);
        let decoded = decoded.and_then(Result::ok).ok_or_else(lost)??;
        let content = content.and_then(Result::ok).ok_or_else(lost)?;
        let measured = Measured {
            downloaded: self.shared.received.load(Ordering::Relaxed),
            streamed: self.shared.streamed.load(Ordering::Relaxed),
            streamed_in: Duration::from_micros(self.shared.streamed_micros.load(Ordering::Relaxed)),
            decoded_in: decoded.worked,
        };
        Ok((content, measured))
    }
}

/// Tells how much has been received.
#[derive(Clone)]
pub struct Received(Arc<Shared>);

impl Received {
    /// Compressed bytes received so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }
}

impl Read for NarStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for NarStream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.chunk.is_empty()
            && let Some(chunks) = &self.chunks
        {
            // A closed channel is the end, good or bad: `finish` tells which.
            self.chunk = chunks.recv().unwrap_or_default();
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, count: usize) {
        self.chunk.advance(count);
    }
}

impl SharedRead for NarStream {
    fn next_bytes(&mut self, max: usize) -> io::Result<Bytes> {
        let available = self.fill_buf()?.len();
        Ok(self.chunk.split_to(available.min(max)))
    }
}

/// The thread that waits for the network and decodes.
struct Decode {
    compression: Compression,
    nar_size: u64,
    buffers: BufferPool,
    decoders: Arc<Decoders>,
    cancel: Cancel,
    outputs: [Sender<Bytes>; 2],
    shared: Arc<Shared>,
}

impl Decode {
    fn run(self, body: Body) -> Result<Decoded, TransferError> {
        let decoders = Arc::clone(&self.decoders);
        let decoded = decoders.decode(self.compression, body, |reader| self.pump(reader));
        decoded.map_err(|error| self.failure(error))?
    }

    /// Hands on what `reader` gives, buffer by buffer.
    fn pump(&self, reader: &mut dyn Read) -> Result<Decoded, TransferError> {
        let (mut left, mut blocked) = (self.nar_size, Duration::ZERO);
        let started = Instant::now();
        loop {
            if self.cancel.is_cancelled() {
                return Err(TransferError::Cancelled);
            }
            let before = Instant::now();
            let mut buffer = self.buffers.take();
            blocked += before.elapsed();
            let is_last = fill(reader, &mut buffer).map_err(|error| self.failure(error))?;
            let bytes = buffer.freeze();
            left = left
                .checked_sub(bytes.len() as u64)
                .ok_or(TransferError::TooLong(self.nar_size))?;
            let before = Instant::now();
            for output in &self.outputs {
                // The hasher takes everything; a reader that is gone has found an error in
                // the nar, and then there is no use in going on.
                if !bytes.is_empty() && output.send(bytes.clone()).is_err() {
                    return Ok(Decoded { worked: self.worked(started, blocked) });
                }
            }
            blocked += before.elapsed();
            if is_last {
                return Ok(Decoded { worked: self.worked(started, blocked) });
            }
        }
    }

    fn worked(&self, started: Instant, blocked: Duration) -> Duration {
        let waited = Duration::from_micros(self.shared.waited_micros.load(Ordering::Relaxed));
        started.elapsed().saturating_sub(blocked).saturating_sub(waited)
    }

    fn failure(&self, error: io::Error) -> TransferError {
        match self.shared.failure.get() {
            Some(network) => TransferError::Network(Arc::clone(network)),
            None => {
                TransferError::Corrupt { compression: self.compression, source: Arc::new(error) }
            }
        }
    }
}

/// Fills `buffer`; whether the input is at its end.
fn fill(reader: &mut dyn Read, buffer: &mut buffer::Buffer) -> io::Result<bool> {
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

/// The thread that takes the nar's hash.
fn hash(chunks: &Receiver<Bytes>) -> NarContent {
    let (mut hasher, mut size) = (Sha256::new(), 0);
    for chunk in chunks {
        hasher.update(&chunk);
        size += chunk.len() as u64;
    }
    NarContent { hash: NarHash::from_bytes(hasher.finalize().into()), size }
}
