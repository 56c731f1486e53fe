//! The chunks of a body on their way from the transfer to the reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use tokio::task::AbortHandle;
use url::Url;

use crate::http::error::{HttpError, HttpErrorKind};
use crate::http::net::runtime::HttpRuntime;
use crate::http::queue::Queued;

/// The next bytes; none: the body is complete.
pub(super) type Chunk = Result<Option<Bytes>, HttpError>;

/// The receiving side of a transfer, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct NetworkChunks {
    pub(super) url: Url,
    pub(super) chunks: Receiver<Queued<Chunk>>,
    pub(super) transfer: AbortHandle,
    /// Raised when the transfer has ended well: what was not read is in the queue.
    pub(super) is_complete: Arc<AtomicBool>,
    pub(super) stop: Option<Arc<AtomicBool>>,
    /// The transfer runs as long as the body is read.
    pub(super) _runtime: Arc<HttpRuntime>,
}

impl NetworkChunks {
    /// Waits for the next chunk; an error when the transfer was aborted or the flag is set.
    pub(super) fn next(&mut self) -> Chunk {
        while !is_set(self.stop.as_deref()) {
            match self.chunks.recv_timeout(STOP_INTERVAL) {
                Ok(chunk) => return chunk.into_inner(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Err(canceled(&self.url))
    }
}

impl Drop for NetworkChunks {
    fn drop(&mut self) {
        self.transfer.abort();
    }
}

/// Ends when the flag is set; without a flag, never.
pub(super) async fn until_set(stop: Option<&AtomicBool>) {
    while !is_set(stop) {
        tokio::time::sleep(STOP_INTERVAL).await;
    }
}

pub(super) fn is_set(stop: Option<&AtomicBool>) -> bool {
    stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
}

pub(super) fn canceled(url: &Url) -> HttpError {
    HttpError::new(url, HttpErrorKind::Canceled)
}

/// How often the stop flag is looked at while nothing arrives.
const STOP_INTERVAL: Duration = Duration::from_millis(100);
