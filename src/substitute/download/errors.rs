//! Why a nar did not arrive whole, or was not copied.

use std::io;
use std::sync::Arc;

use crate::format::compression::Compression;
use crate::format::hash::{FileHash, NarHash};
use crate::format::units::{bytes, size_mismatch};
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

/// Why a nar was not copied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    /// It did not arrive, or is not what its compression method makes.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The copy cannot be written.
    #[error("cannot write the copy")]
    Write(#[source] io::Error),
    /// The file that is to be verified cannot be read.
    #[error("cannot read the file")]
    Read(#[source] io::Error),
    /// It is another nar.
    #[error("the nar has the hash {found}, and its narinfo says {claimed}")]
    OtherNar {
        /// Its hash.
        found: NarHash,
        /// What the narinfo says.
        claimed: NarHash,
    },
    /// It ends too early.
    #[error("the nar has {}", size_mismatch(*.found, *.claimed))]
    NarSize {
        /// Its size.
        found: u64,
        /// What the narinfo says.
        claimed: u64,
    },
    /// It is another file.
    #[error("the file has the hash {found}, and its narinfo says {claimed}")]
    OtherFile {
        /// Its hash.
        found: FileHash,
        /// What the narinfo says.
        claimed: FileHash,
    },
    /// The file has another size.
    #[error("the file has {}", size_mismatch(*.found, *.claimed))]
    FileSize {
        /// Its size.
        found: u64,
        /// What the narinfo says.
        claimed: u64,
    },
}

impl CopyError {
    /// Whether the bytes are to blame: they may be right in another copy of the same file.
    #[must_use]
    pub(crate) fn is_of_contents(&self) -> bool {
        match self {
            Self::Write(_) | Self::Read(_) => false,
            Self::Transfer(error) => matches!(
                error,
                TransferError::Corrupt { .. }
                    | TransferError::TooLong(_)
                    | TransferError::TooMuchInput(_)
            ),
            Self::OtherNar { .. }
            | Self::NarSize { .. }
            | Self::OtherFile { .. }
            | Self::FileSize { .. } => true,
        }
    }
}
