//! What a transfer counts: shared by the thread that downloads and the owner of the stream.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use crate::codec::decode::is_out_of_memory;
use crate::format::compression::Compression;
use crate::http::HttpError;
use crate::substitute::download::errors::TransferError;
use crate::substitute::download::input::StopReason;

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

impl TransferCounters {
    /// What has caused `error` of a decoder, whose input may have ended for the reason in `stopped`.
    pub(super) fn cause(
        &self,
        error: io::Error,
        stopped: &StopReason,
        compression: Compression,
    ) -> TransferError {
        if let Some(error) = stopped.error() {
            return error;
        }

        let failure = self.failure.get().or_else(|| {
            let is_end = error.kind() == io::ErrorKind::UnexpectedEof;
            self.early_end.get().filter(|_| is_end)
        });
        match failure {
            Some(network) => TransferError::Network(Arc::clone(network)),
            None if is_out_of_memory(&error) => TransferError::NoMemory {
                compression,
                source: Arc::new(error),
            },
            None => TransferError::Corrupt {
                compression,
                source: Arc::new(error),
            },
        }
    }
}
