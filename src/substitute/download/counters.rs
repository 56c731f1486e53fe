//! What a transfer counts: shared by the thread that downloads and the owner of the stream.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use crate::http::HttpError;

/// What the reader and its owner share.
#[derive(Default)]
pub(super) struct TransferCounters {
    /// The first failure of the network.
    pub(super) failure: OnceLock<Arc<HttpError>>,
    /// The bytes came to an end that may not be that of the file.
    pub(super) early_end: OnceLock<Arc<HttpError>>,
    /// Compressed bytes received.
    pub(super) received: AtomicU64,
    /// Microseconds spent waiting for the network.
    pub(super) waited_micros: AtomicU64,
    /// Bytes that came after the first ones.
    pub(super) streamed: AtomicU64,
    /// The reader is gone.
    pub(super) is_abandoned: AtomicBool,
}
