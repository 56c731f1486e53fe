//! The content of an object as a stream, and its hash.
//!
//! A failure that may pass is waited for: what was not read yet is requested, if the store has the same version, else all
//! of the object, of which that is skipped. Its reader compares a hash in the end.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use tracing::debug;

use crate::format::sha256::Sha256;
use crate::http::{BodyStatus, Bucket, Client, HttpError, HttpErrorClass, NarBody, NarRequest};

/// Between two requests for the same object.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a pause looks whether the user has interrupted.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// Reads an object.
pub(super) struct ObjectReader {
    client: Arc<Client>,
    bucket: Arc<Bucket>,
    request: NarRequest,
    /// `None` before a request.
    body: Option<NarBody>,
    /// What was received and not read yet.
    chunk: Bytes,
    received: u64,
    /// Bytes of `body` that an earlier one had, too.
    to_skip: u64,
    failing_since: Option<Instant>,
}

impl ObjectReader {
    /// Requests the object `key`; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, not even later.
    pub(super) fn open(
        client: &Arc<Client>,
        bucket: &Arc<Bucket>,
        key: &str,
    ) -> Result<Option<Self>, HttpError> {
        let mut reader = Self {
            client: Arc::clone(client),
            bucket: Arc::clone(bucket),
            request: NarRequest {
                stop: Some(Arc::clone(bucket.retries().1)),
                ..NarRequest::new(bucket.server().object_url(key))
            },
            body: None,
            chunk: Bytes::new(),
            received: 0,
            to_skip: 0,
            failing_since: None,
        };
        match reader.fill() {
            Ok(()) => Ok(Some(reader)),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The SHA-256 of all of it.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn hash(mut self) -> Result<[u8; 32], HttpError> {
        let mut digest = Sha256::new();
        while !self.chunk.is_empty() {
            digest.update(&self.chunk);
            self.chunk.clear();
            self.fill()?;
        }
        Ok(digest.finish())
    }

    /// Waits for a chunk, if there is none; at the end there is none.
    fn fill(&mut self) -> Result<(), HttpError> {
        while self.chunk.is_empty() {
            match self.receive() {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) if self.may_pass(&error) => {
                    debug!(%error, "the object is requested again");
                    self.body = None;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Receives a chunk; false at the end.
    fn receive(&mut self) -> Result<bool, HttpError> {
        let body = match &mut self.body {
            Some(body) => body,
            None => {
                let body = match self.rest()? {
                    Some(rest) => rest,
                    None => self.client.nar(self.request.clone())?,
                };
                self.to_skip = match body.status() {
                    BodyStatus::Partial { start, .. } => self.received.saturating_sub(start),
                    BodyStatus::Full => self.received,
                };
                self.request.if_range = body.validator().map(str::to_owned);
                self.body.insert(body)
            }
        };
        let Some(mut chunk) = body.next_chunk()? else {
            return Ok(false);
        };
        let skipped = chunk
            .len()
            .min(usize::try_from(self.to_skip).unwrap_or(usize::MAX));
        chunk.advance(skipped);
        self.to_skip -= skipped as u64;
        if !chunk.is_empty() {
            self.received += chunk.len() as u64;
            self.failing_since = None;
            self.chunk = chunk;
        }
        Ok(true)
    }

    /// The rest of the version that was read so far; `None` if the store does not give that.
    fn rest(&mut self) -> Result<Option<NarBody>, HttpError> {
        if self.received == 0 || self.request.if_range.is_none() {
            return Ok(None);
        }
        let mut request = self.request.clone();
        request.range = Some((self.received, None));
        match self.client.nar(request) {
            Ok(body) if body.validator() == self.request.if_range.as_deref() => Ok(Some(body)),
            Err(error) if error.class() == HttpErrorClass::Transient => Err(error),
            Ok(_) | Err(_) => {
                self.request.if_range = None;
                Ok(None)
            }
        }
    }

    /// Whether there is time for another request after `error`; waits before it.
    fn may_pass(&mut self, error: &HttpError) -> bool {
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        let (retry_time, stop) = self.bucket.retries();
        if error.class() != HttpErrorClass::Transient || since.elapsed() + PAUSE > retry_time {
            return false;
        }
        let pause = Instant::now();
        while pause.elapsed() < PAUSE && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(STOP_INTERVAL);
        }
        !stop.load(Ordering::Relaxed)
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill().map_err(io::Error::other)?;
        let length = buffer.len().min(self.chunk.len());
        buffer[..length].copy_from_slice(&self.chunk[..length]);
        self.chunk.advance(length);
        Ok(length)
    }
}
