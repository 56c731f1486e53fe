//! What a request sends: bytes, or a part of a file, which is read while it is sent.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::http::s3::body_hash::BodyHash;

/// What a request sends. It can be sent again.
#[derive(Debug, Clone)]
pub(in crate::http) struct UploadBody {
    source: UploadSource,
    start: u64,
    length: u64,
    hash: BodyHash,
}

#[derive(Debug, Clone)]
enum UploadSource {
    Bytes(Bytes),
    File(Arc<File>),
}

/// Bytes of a file that are read at a time.
const CHUNK_BYTES: u64 = 128 << 10;

impl UploadBody {
    /// Nothing.
    pub(super) fn empty() -> Self {
        Self::of_bytes(Bytes::new())
    }

    /// These bytes.
    pub(super) fn of_bytes(bytes: Bytes) -> Self {
        Self {
            start: 0,
            length: bytes.len() as u64,
            hash: BodyHash::of(&bytes),
            source: UploadSource::Bytes(bytes),
        }
    }

    /// The `length` bytes of `file` from `start` on, whose hash is `hash`.
    pub(super) fn of_file(file: Arc<File>, start: u64, length: u64, hash: BodyHash) -> Self {
        Self {
            source: UploadSource::File(file),
            start,
            length,
            hash,
        }
    }

    /// The hash of all of it.
    pub(super) fn hash(&self) -> &BodyHash {
        &self.hash
    }

    /// The body for one attempt to send it; `sent` counts what the connection has taken.
    pub(super) fn to_attempt(&self, sent: Arc<SentBytes>) -> Option<reqwest::Body> {
        (self.length > 0).then(|| {
            reqwest::Body::wrap(UploadAttempt {
                body: self.clone(),
                sent,
            })
        })
    }
}

/// Bytes that connections have taken: of one attempt, and of all.
#[derive(Debug, Default)]
pub(super) struct SentBytes {
    pub(super) attempt: AtomicU64,
    pub(super) all: Arc<AtomicU64>,
}

struct UploadAttempt {
    body: UploadBody,
    sent: Arc<SentBytes>,
}

impl UploadAttempt {
    /// The next bytes; none at the end.
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let length = usize::try_from(self.body.length.min(CHUNK_BYTES)).unwrap_or(usize::MAX);
        if length == 0 {
            return Ok(None);
        }
        let chunk = match &mut self.body.source {
            UploadSource::Bytes(bytes) => bytes.split_to(length),
            // What was written a moment ago is in memory, so this does not wait.
            UploadSource::File(file) => {
                let mut chunk = vec![0; length];
                file.read_exact_at(&mut chunk, self.body.start)?;
                Bytes::from(chunk)
            }
        };
        let length = length as u64;
        self.body.start += length;
        self.body.length -= length;
        self.sent.attempt.fetch_add(length, Ordering::Relaxed);
        self.sent.all.fetch_add(length, Ordering::Relaxed);
        Ok(Some(chunk))
    }
}

impl Body for UploadAttempt {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(self.next().transpose().map(|next| next.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.length == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.length)
    }
}
