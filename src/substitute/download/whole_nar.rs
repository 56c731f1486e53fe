//! A nar that is read once and not unpacked: for comparisons.
//!
//! It ends with an error when more comes than its narinfo says, compressed or not. What it is
//! compared with decides what it is worth: no signature is checked here. When all of it was read,
//! [`WholeNar::hash`] tells whether it is the nar that the narinfo describes.

use std::cmp::Reverse;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::codec::decode::decoder;
use crate::format::compression::Compression;
use crate::format::hash::NarHash;
use crate::format::narinfo::NarOffer;
use crate::format::server_list::ServerIndex;
use crate::format::sha256::Sha256;
use crate::substitute::download::body::ResumableBody;
use crate::substitute::download::candidate::DownloadCandidate;
use crate::substitute::download::checked_copy::open_body;
use crate::substitute::download::counters::TransferCounters;
use crate::substitute::download::errors::TransferError;
use crate::substitute::download::input::{DecoderInput, StopReason};
use crate::substitute::download::retries::{ItemRetries, RetryContext};

/// Decoded bytes that are read at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// Why a nar cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenNarError {
    /// Its narinfo names no download that can be used.
    #[error("its narinfo names no download that can be used")]
    NoDownload,
    /// The smallest of the downloads failed.
    #[error(transparent)]
    Download(TransferError),
    /// The decoder cannot be set up.
    #[error("cannot start the transfer")]
    Start(#[source] io::Error),
}

/// The decoded bytes of a nar.
pub(crate) struct WholeNar<'a> {
    input: BufReader<MeasuredNar<'a>>,
    stopped: StopReason,
    counters: Arc<TransferCounters>,
}

impl<'a> WholeNar<'a> {
    /// Opens the nar that `server` offers: its smallest download that the server sends. The bytes
    /// of the nar are added to `bytes` when they are read.
    ///
    /// # Errors
    /// See [`OpenNarError`].
    pub(crate) fn open(
        context: &RetryContext,
        server: ServerIndex,
        offer: &NarOffer,
        bytes: &'a AtomicU64,
    ) -> Result<Self, OpenNarError> {
        let counters = Arc::default();
        let (body, compression) = open_smallest(context, server, offer, &counters)?;
        let (nar_size, stopped) = (offer.nar_size(), StopReason::default());
        let input = DecoderInput::new(body, nar_size, context.cancel.clone(), stopped.clone());

        let measured = MeasuredNar {
            decoded: decoder(compression, input).map_err(OpenNarError::Start)?,
            hash: Sha256::new(),
            left: nar_size,
            nar_size,
            bytes,
        };
        Ok(Self {
            input: BufReader::with_capacity(BUFFER_BYTES, measured),
            stopped,
            counters,
        })
    }

    /// Why the input ended early, if it did, or may have.
    pub(crate) fn stop_reason(&self) -> Option<TransferError> {
        let failure = self.counters.failure.get();
        // An end that may be early was one if something is missing.
        let is_short = self.input.get_ref().left > 0;
        let early_end = is_short.then(|| self.counters.early_end.get());
        let network = failure.or(early_end.flatten());
        let network = network.map(|error| TransferError::Network(Arc::clone(error)));
        self.stopped.error().or(network)
    }

    /// The hash of all bytes, when the end was read.
    pub(crate) fn hash(self) -> NarHash {
        NarHash::from_bytes(self.input.into_inner().hash.finish())
    }
}

impl Read for WholeNar<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer)
    }
}

impl BufRead for WholeNar<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
    }
}

/// Opens the smallest download that the server sends.
fn open_smallest(
    context: &RetryContext,
    server: ServerIndex,
    offer: &NarOffer,
    counters: &Arc<TransferCounters>,
) -> Result<(ResumableBody, Compression), OpenNarError> {
    let url = &context.network.servers()[server];
    let mut downloads: Vec<_> = offer.downloads().iter().collect();
    // One of unknown size comes last.
    downloads.sort_by_key(|download| {
        let size = download.file_size;
        (Reverse(size.is_some()), size)
    });

    let retries = ItemRetries::of_server(context, server);
    let mut failure = OpenNarError::NoDownload;
    for download in downloads {
        let Ok(compression) = download.compression else {
            continue;
        };
        let Ok(url) = url.nar_url(offer.download_url(download)) else {
            continue;
        };

        let candidate = DownloadCandidate {
            server,
            url,
            compression,
            file_size: download.file_size,
        };
        let size = (compression == Compression::None).then(|| offer.nar_size());
        match open_body(context, &candidate, size, None, &retries, counters) {
            Ok(body) => return Ok((body, compression)),
            Err(error) if matches!(failure, OpenNarError::NoDownload) => {
                failure = OpenNarError::Download(error);
            }
            Err(_) => {}
        }
    }
    Err(failure)
}

/// Hashes the decoded bytes, of which there may be at most NarSize.
struct MeasuredNar<'a> {
    decoded: Box<dyn Read + Send>,
    hash: Sha256,
    left: u64,
    nar_size: u64,
    /// Bytes of all nars.
    bytes: &'a AtomicU64,
}

impl Read for MeasuredNar<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoded.read(buffer)?;
        let Some(left) = self.left.checked_sub(count as u64) else {
            return Err(io::Error::other(TransferError::TooLong(self.nar_size)));
        };

        self.left = left;
        self.hash.update(&buffer[..count]);
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
