//! Nars that arrive with a `Content-Encoding`: the bytes of the file, decoded while they are read.
//!
//! Web servers also name the encoding of a file that is stored compressed (`AddEncoding x-gzip .gz`
//! of Apache, metadata of object stores), and some name one that is not there. So the first
//! bytes decide: what begins as the narinfo's compression says is the file. When neither the body
//! nor its decoded bytes do, the header counts, and the nar's hash decides.
//!
//! Lengths, validators and ranges are those of the encoded body: none of them is passed on, and
//! such a download is not resumed but begun again.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::{Buf as _, Bytes};
use url::Url;

use super::network_chunks::{Chunk, NetworkChunks};
use crate::format::compression::Compression;
use crate::http::content_encoding::ContentEncodings;
use crate::http::error::{HttpError, HttpErrorKind};

/// The decoded chunks of an encoded body.
pub(super) struct EncodedBody {
    url: Url,
    encodings: ContentEncodings,
    has_length: bool,
    shared: Arc<InputState>,
    stage: EncodedStage,
}

enum EncodedStage {
    /// Nothing was read; the narinfo's compression, if it is known.
    Unread(EncodedInput, Option<Compression>),
    Decoding(Box<dyn BufRead + Send>),
    Failed(HttpError),
}

/// What the input tells apart from its bytes.
#[derive(Default)]
struct InputState {
    /// Why the transfer failed.
    failure: OnceLock<HttpError>,
    /// Bytes that were read since the decoder gave some.
    without_output: AtomicU64,
}

impl EncodedBody {
    /// What `chunks` were before they were encoded, for a file with this compression.
    /// `has_length`: the server announced how many bytes they are together.
    pub(super) fn new(
        url: Url,
        encodings: ContentEncodings,
        compression: Option<Compression>,
        has_length: bool,
        chunks: NetworkChunks,
    ) -> Self {
        let shared = Arc::new(InputState::default());
        let input = EncodedInput {
            chunks,
            current: Bytes::new(),
            is_at_end: false,
            shared: Arc::clone(&shared),
        };
        Self {
            url,
            encodings,
            has_length,
            shared,
            stage: EncodedStage::Unread(input, compression),
        }
    }

    /// Waits for the next bytes; none: the body is complete.
    pub(super) fn next_chunk(&mut self) -> Chunk {
        let chunk = self.read();
        if chunk.as_ref().is_ok_and(Option::is_some) {
            self.shared.without_output.store(0, Ordering::Relaxed);
        }
        chunk.map_err(|error| {
            // The decoder only sees that its input ends.
            let error = match self.shared.failure.get() {
                Some(failure) => failure.clone(),
                None => HttpError::new(&self.url, self.decoding_failure(error)),
            };
            self.stage = EncodedStage::Failed(error.clone());
            error
        })
    }

    fn read(&mut self) -> io::Result<Option<Bytes>> {
        let failed = EncodedStage::Failed(HttpError::new(&self.url, HttpErrorKind::Canceled));
        let mut decoder = match std::mem::replace(&mut self.stage, failed) {
            EncodedStage::Decoding(decoder) => decoder,
            EncodedStage::Unread(mut input, compression) => {
                if input.is_encoded(&self.encodings, compression)? {
                    self.encodings.decoder(input)?
                } else {
                    Box::new(input)
                }
            }
            EncodedStage::Failed(error) => {
                let _ = self.shared.failure.set(error);
                return Err(io::ErrorKind::Other.into());
            }
        };

        let bytes = Bytes::copy_from_slice(decoder.fill_buf()?);
        decoder.consume(bytes.len());
        self.stage = EncodedStage::Decoding(decoder);
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    /// A body that ends inside its encoding was cut, where its length was not announced.
    fn decoding_failure(&self, error: io::Error) -> HttpErrorKind {
        match error.kind() {
            io::ErrorKind::UnexpectedEof if !self.has_length => HttpErrorKind::Closed,
            _ => self.encodings.failure(error),
        }
    }
}

impl fmt::Debug for EncodedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedBody")
            .field("encodings", &self.encodings)
            .finish_non_exhaustive()
    }
}

/// The chunks of the network, for a decoder.
struct EncodedInput {
    chunks: NetworkChunks,
    current: Bytes,
    is_at_end: bool,
    shared: Arc<InputState>,
}

impl EncodedInput {
    /// Waits for the next bytes; none at the end, however often a decoder asks.
    fn receive(&mut self) -> io::Result<Bytes> {
        if self.is_at_end {
            return Ok(Bytes::new());
        }
        let chunk = self.chunks.next().map_err(|error| {
            let text = error.to_string();
            // Only the first counts: what follows is its consequence.
            let _ = self.shared.failure.set(error);
            io::Error::other(text)
        })?;
        let bytes = chunk.unwrap_or_default();
        self.is_at_end = bytes.is_empty();

        let count = bytes.len() as u64;
        let before = self
            .shared
            .without_output
            .fetch_add(count, Ordering::Relaxed);
        if before > WITHOUT_OUTPUT_MAX_BYTES {
            return Err(io::Error::other(
                "its encoding stands for too few bytes of the file",
            ));
        }
        Ok(bytes)
    }

    /// Looks at the beginning of the body: whether `encodings` have to be undone to get the file,
    /// which is compressed with `compression`.
    fn is_encoded(
        &mut self,
        encodings: &ContentEncodings,
        compression: Option<Compression>,
    ) -> io::Result<bool> {
        let Some(compression) = compression else {
            return Ok(true);
        };
        let (mut start, mut looked_at) = (Vec::new(), 0);
        loop {
            let bytes = self.receive()?;
            start.extend_from_slice(&bytes);
            let is_last = bytes.is_empty() || start.len() >= START_MAX_BYTES;
            if !is_last && start.len() < 2 * looked_at {
                continue;
            }

            looked_at = start.len();
            let decoded = decoded_start(encodings, &start);
            if decoded.len() == MAGIC_BYTES || is_last {
                let is_encoded =
                    begins_as(compression, &decoded) || !begins_as(compression, &start);
                self.current = start.into();
                return Ok(is_encoded);
            }
        }
    }
}

impl BufRead for EncodedInput {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.is_empty() {
            self.current = self.receive()?;
        }
        Ok(&self.current)
    }

    fn consume(&mut self, count: usize) {
        self.current.advance(count);
    }
}

impl Read for EncodedInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// The first decoded bytes of a body that begins with `start`, as far as they are known.
fn decoded_start(encodings: &ContentEncodings, start: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    if let Ok(decoder) = encodings.decoder(start) {
        // What is missing at the end is an error.
        let _ = decoder.take(MAGIC_BYTES as u64).read_to_end(&mut decoded);
    }
    decoded
}

/// Whether `start` is how a file with this compression begins.
fn begins_as(compression: Compression, start: &[u8]) -> bool {
    let is_nar = start.starts_with(b"\x0d\0\0\0\0\0\0\0nix-arch");
    let magic: &[u8] = match compression {
        Compression::None => return is_nar,
        // It has none.
        Compression::Brotli => return !is_nar && !start.is_empty(),
        Compression::Lz4 => b"\x04\x22\x4d\x18",
        Compression::Zstd => b"\x28\xb5\x2f\xfd",
        Compression::Gzip => b"\x1f\x8b",
        Compression::Lzip => b"LZIP",
        Compression::Xz => b"\xfd7zXZ",
        Compression::Bzip2 => b"BZh",
    };
    start.starts_with(magic)
}

/// What is looked at of the decoded bytes.
const MAGIC_BYTES: usize = 16;

/// What is looked at of a body: a whole block of bzip2, which is decoded at once.
const START_MAX_BYTES: usize = 1 << 20;

/// What a decoder may read before it gives something: empty pieces may go on without end.
const WITHOUT_OUTPUT_MAX_BYTES: u64 = 16 << 20;
