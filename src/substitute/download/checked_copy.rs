//! A nar that is copied as it is: its compressed bytes go to a file, and are hashed and decoded
//! meanwhile. It is neither unpacked nor compressed again.
//!
//! Hash and size of the nar, and those of the file where the narinfo has them, are compared in the end.
//! No more is written than a nar of its size can take when it is compressed.

use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;

use crate::codec::decoders::{DecoderMemory, Decoders};
use crate::format::compression::Compression;
use crate::format::hash::{FileHash, NarHash};
use crate::format::server_list::ServerIndex;
use crate::format::sha256::Sha256;
use crate::substitute::cancel::Cancel;
use crate::substitute::download::body::{BodyRequest, ResumableBody};
use crate::substitute::download::candidate::DownloadCandidate;
use crate::substitute::download::counters::TransferCounters;
use crate::substitute::download::errors::{CopyError, TransferError};
use crate::substitute::download::input::{DecoderInput, StopReason};
use crate::substitute::download::kept_beginning::KeptBeginning;
use crate::substitute::download::retries::{ItemRetries, RetryContext};
use crate::substitute::download::segments::SegmentConnections;
use crate::substitute::download::server_streams::ServerStreams;
use crate::substitute::download::watched_file::WatchedFile;

/// Decoded bytes that are hashed at a time.
const BUFFER_BYTES: usize = 128 << 10;

/// What a narinfo says of a nar and of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NarFileClaims {
    /// The hash of the nar, which is signed.
    pub(crate) nar_hash: NarHash,
    /// Its size, which is signed.
    pub(crate) nar_size: u64,
    /// How the file is compressed.
    pub(crate) compression: Compression,
    /// The hash of the file, if there is one.
    pub(crate) file_hash: Option<FileHash>,
    /// Its size, if there is one.
    pub(crate) file_size: Option<u64>,
}

impl NarFileClaims {
    /// Bytes of the file, if the narinfo says.
    #[must_use]
    pub(crate) fn expected_bytes(&self) -> Option<u64> {
        self.uncompressed_bytes().or(self.file_size)
    }

    /// Bytes of a file that is not compressed.
    fn uncompressed_bytes(&self) -> Option<u64> {
        (self.compression == Compression::None).then_some(self.nar_size)
    }
}

/// The file that a verified nar was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CheckedNarFile {
    /// Its hash.
    pub(crate) hash: FileHash,
    /// Its size.
    pub(crate) size: u64,
}

/// Copies nars, within the memory for decoders and the connections that it was made with.
pub(crate) struct NarCopier {
    decoders: Decoders,
    streams: ServerStreams,
    /// How servers are retried.
    pub(crate) retries: RetryContext,
}

impl NarCopier {
    /// `memory` for decoders, `cores` to decode with, and `nars_per_server` at the same time; `retries` of
    /// downloads that break.
    #[must_use]
    pub(crate) fn new(
        memory: DecoderMemory,
        cores: usize,
        nars_per_server: usize,
        retries: RetryContext,
    ) -> Self {
        Self {
            decoders: Decoders::new(memory, cores),
            streams: ServerStreams::new(nars_per_server),
            retries,
        }
    }

    /// Retries of a file that `server` has.
    #[must_use]
    pub(crate) fn new_retries(&self, server: ServerIndex) -> Arc<ItemRetries> {
        ItemRetries::of_server(&self.retries, server)
    }

    /// Downloads what `candidate` names to `copy`, and verifies it. What is `kept` of the file, whose size
    /// is known, is not downloaded again if the server gives parts of it; it is written to `copy` like
    /// everything else.
    ///
    /// # Errors
    /// It cannot be downloaded or written, or is not what `claims` say: [`CopyError::is_of_contents`].
    pub(crate) fn copy(
        &self,
        candidate: &DownloadCandidate,
        claims: &NarFileClaims,
        kept: Option<KeptBeginning>,
        retries: &Arc<ItemRetries>,
        copy: &mut (dyn Write + Send),
    ) -> Result<CheckedNarFile, CopyError> {
        let cancel = &self.retries.cancel;
        let _stream = self
            .streams
            .open(candidate.server, cancel)
            .ok_or(TransferError::Canceled)?;
        let counters = Arc::new(TransferCounters::default());
        let size = claims.uncompressed_bytes();
        let body = open_body(&self.retries, candidate, size, kept, retries, &counters)?;
        self.read(body, claims, copy, &counters)
    }

    /// Verifies the nar in `file`.
    ///
    /// # Errors
    /// It cannot be read, or is not what `claims` say.
    pub(crate) fn check(
        &self,
        file: impl BufRead + Send,
        claims: &NarFileClaims,
    ) -> Result<CheckedNarFile, CopyError> {
        let mut file = WatchedFile::new(file);
        let unused = TransferCounters::default();
        match self.read(&mut file, claims, &mut io::sink(), &unused) {
            Err(error) if !matches!(error, CopyError::Transfer(TransferError::Canceled)) => {
                Err(file.failure.map_or(error, CopyError::Read))
            }
            checked => checked,
        }
    }

    fn read(
        &self,
        file: impl BufRead + Send,
        claims: &NarFileClaims,
        copy: &mut (dyn Write + Send),
        counters: &TransferCounters,
    ) -> Result<CheckedNarFile, CopyError> {
        let (cancel, stopped) = (self.retries.cancel.clone(), StopReason::default());
        let mut tee = CopyingInput::new(file, copy);
        let input = DecoderInput::new(&mut tee, claims.nar_size, cancel.clone(), stopped.clone());

        let decoded = self.decoders.decode(claims.compression, input, |nar| {
            measure(nar, claims.nar_size, &cancel)
        });
        if let Some(error) = tee.failure.take() {
            return Err(CopyError::Write(error));
        }
        let measured = decoded.and_then(|decoded| decoded);
        let measured = measured.map_err(|error| match error.downcast::<TransferError>() {
            Ok(error) => error,
            Err(error) => counters.cause(error, &stopped, claims.compression),
        })?;

        let file = tee.finish()?;
        check(claims, &measured, &file)?;
        Ok(file)
    }
}

/// Requests the file that `candidate` names, whose `size` is known or not, again and again if the server
/// fails for a while.
pub(super) fn open_body(
    context: &RetryContext,
    candidate: &DownloadCandidate,
    size: Option<u64>,
    kept: Option<KeptBeginning>,
    retries: &Arc<ItemRetries>,
    counters: &Arc<TransferCounters>,
) -> Result<ResumableBody, TransferError> {
    let client = context.network.client_for(&candidate.url);
    let client = client.map_err(TransferError::Network)?;
    loop {
        let request = BodyRequest {
            url: candidate.url.clone(),
            server: candidate.server,
            compression: candidate.compression,
            retries: Arc::clone(retries),
            size,
            file_size: candidate.file_size,
            prefetched: None,
            kept: kept.clone(),
            spool: None,
            connections: SegmentConnections::new(1),
            cancel: context.cancel.clone(),
        };
        match ResumableBody::open(Arc::clone(&client), request, Arc::clone(counters)) {
            Ok(body) => return Ok(body),
            Err(_) if context.cancel.is_canceled() => return Err(TransferError::Canceled),
            Err(error) => {
                if !retries.wait_to_resume(candidate.server, &error, &|| false) {
                    return Err(TransferError::Network(Arc::new(error)));
                }
            }
        }
    }
}

/// What a nar was measured to be.
struct MeasuredNar {
    hash: NarHash,
    size: u64,
}

/// Reads `nar` to its end.
fn measure(nar: &mut dyn Read, nar_size: u64, cancel: &Cancel) -> io::Result<MeasuredNar> {
    let (mut hash, mut size) = (Sha256::new(), 0);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        if cancel.is_canceled() {
            return Err(io::Error::other(TransferError::Canceled));
        }
        let count = match nar.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if count == 0 {
            break;
        }
        size += count as u64;
        if size > nar_size {
            return Err(io::Error::other(TransferError::TooLong(nar_size)));
        }
        hash.update(&buffer[..count]);
    }

    Ok(MeasuredNar {
        hash: NarHash::from_bytes(hash.finish()),
        size,
    })
}

fn check(
    claims: &NarFileClaims,
    nar: &MeasuredNar,
    file: &CheckedNarFile,
) -> Result<(), CopyError> {
    if nar.size != claims.nar_size {
        return Err(CopyError::NarSize {
            found: nar.size,
            claimed: claims.nar_size,
        });
    }
    if nar.hash != claims.nar_hash {
        return Err(CopyError::OtherNar {
            found: nar.hash,
            claimed: claims.nar_hash,
        });
    }
    if let Some(claimed) = claims.file_size.filter(|claimed| *claimed != file.size) {
        return Err(CopyError::FileSize {
            found: file.size,
            claimed,
        });
    }
    match claims.file_hash {
        Some(claimed) if claimed != file.hash => Err(CopyError::OtherFile {
            found: file.hash,
            claimed,
        }),
        _ => Ok(()),
    }
}

/// Input that is hashed and written to a copy as far as it is consumed.
struct CopyingInput<'c, R> {
    inner: R,
    copy: &'c mut (dyn Write + Send),
    hash: Sha256,
    size: u64,
    /// Why the copy could not be written.
    failure: Option<io::Error>,
}

impl<'c, R: BufRead> CopyingInput<'c, R> {
    fn new(inner: R, copy: &'c mut (dyn Write + Send)) -> Self {
        Self {
            inner,
            copy,
            hash: Sha256::new(),
            size: 0,
            failure: None,
        }
    }

    /// The file, of which a decoder has read everything.
    fn finish(mut self) -> Result<CheckedNarFile, CopyError> {
        if self.inner.fill_buf().is_ok_and(|rest| !rest.is_empty()) {
            return Err(TransferError::TooMuchInput(self.size).into());
        }
        self.copy.flush().map_err(CopyError::Write)?;
        Ok(CheckedNarFile {
            hash: FileHash::from_bytes(self.hash.finish()),
            size: self.size,
        })
    }
}

impl<R: BufRead> BufRead for CopyingInput<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.failure.is_some() {
            return Err(io::Error::other("the copy cannot be written"));
        }
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        // What is consumed was given before, so this returns the same bytes at once.
        match self.inner.fill_buf() {
            Ok(available) if available.len() >= count => {
                let consumed = &available[..count];
                self.hash.update(consumed);
                self.size += count as u64;
                if let Err(error) = self.copy.write_all(consumed) {
                    self.failure.get_or_insert(error);
                }
            }
            Ok(_) => {
                let error = io::Error::other("more was consumed than was there");
                self.failure.get_or_insert(error);
            }
            Err(error) => drop(self.failure.get_or_insert(error)),
        }
        self.inner.consume(count);
    }
}

impl<R: BufRead> Read for CopyingInput<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}
