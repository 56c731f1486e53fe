//! Why a nar did not arrive whole.

use std::io;
use std::sync::Arc;

use crate::format::compression::Compression;
use crate::format::units::bytes;
use crate::http::HttpError;

/// Why a nar did not arrive whole.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum TransferError {
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
    /// There is too little memory for the decoder.
    #[error("too little memory to decompress {compression}")]
    NoMemory {
        /// The method.
        compression: Compression,
        /// What the decoder said.
        source: Arc<io::Error>,
    },
    /// More bytes came than the narinfo promises.
    #[error("the nar is longer than the {0} bytes its narinfo says")]
    TooLong(u64),
    /// More compressed bytes came than any nar of its size takes.
    #[error("the download is longer than {0} bytes, which is more than its nar can take")]
    TooMuchInput(u64),
    /// The nar is large for the free space, and its size may be false.
    #[error(
        "no signature covers the size of {} that its narinfo says, and more than {} is not accepted \
         so: free space, or use a server that signs it",
        bytes(*.nar_size),
        bytes(*.limit)
    )]
    UnsignedSize {
        /// Bytes of the nar, by its narinfo.
        nar_size: u64,
        /// The most that is accepted.
        limit: u64,
    },
    /// The user interrupted.
    #[error("interrupted")]
    Canceled,
    /// A thread could not be started, or a decoder not be set up.
    #[error("cannot start the transfer")]
    Start(#[source] Arc<io::Error>),
}
