//! How a download begins: with what earlier runs have kept and the rest of the file, with what was
//! fetched ahead, or with a request for the whole file.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::http::HttpError;
use crate::substitute::download::body::{BodyStream, ResumableBody};
use crate::substitute::download::kept_beginning::KeptBeginning;
use crate::substitute::download::prefetch::EarlyDownload;
use crate::substitute::download::spool_file::SpoolFile;
use crate::substitute::download::spool_writer::{SpoolRequest, SpoolWriter, url_digest};

impl ResumableBody {
    /// Requests what is not there.
    ///
    /// # Errors
    /// The server does not give it.
    pub(super) fn begin(
        &mut self,
        prefetched: Option<EarlyDownload>,
        kept: Option<KeptBeginning>,
        spool: Option<SpoolRequest>,
    ) -> Result<(), HttpError> {
        if let (Some(kept), Some(size)) = (kept, self.size.or(self.file_size))
            && self.begin_with(kept, size, None)?
        {
            return Ok(());
        }
        if let Some(request) = &spool
            && let Some(file) = request.spools.find(&request.name)
            && self.begin_spooled(request, file)?
        {
            return Ok(());
        }

        match prefetched {
            _ if !matches!(self.stream, BodyStream::Unopened) => {}
            Some(EarlyDownload::Response(response)) => {
                let body = response.map_err(Arc::unwrap_or_clone)?;
                self.take_response(body, Duration::ZERO);
            }
            Some(EarlyDownload::Relayed(prefetched)) => {
                self.content_length = prefetched.content_length();
                self.validator = prefetched.validator().map(str::to_owned);
                self.announces_ranges = self.validator.is_some();
                self.stream = BodyStream::Prefetched(prefetched);
            }
            None => self.reopen()?,
        }

        if let (Some(spool), Some(size)) = (spool, self.content_length)
            && self.announces_ranges
            && self.retries.health().takes_ranges(self.server)
        {
            self.spool = SpoolWriter::first(spool, &self.url, self.validator.clone(), size);
        }
        Ok(())
    }

    /// Begins with what `file` has, if it is of the same file as far as is known.
    fn begin_spooled(
        &mut self,
        request: &SpoolRequest,
        file: Arc<SpoolFile>,
    ) -> Result<bool, HttpError> {
        let header = file.header();
        let is_same_url = header.url_digest == url_digest(&self.url);
        let is_usable = is_same_url || self.file_size == Some(header.size);
        let validator = header.validator().filter(|_| is_same_url);
        if !is_usable || !self.begin_with(file.beginning(), header.size, validator)? {
            return Ok(false);
        }

        file.note_resumed();
        self.spool = SpoolWriter::resumed(request.clone(), file);
        Ok(true)
    }

    /// Begins with what is `kept` of a file of `size` bytes, if the server has the same file and gives
    /// parts of it: it is requested for one byte. The rest is requested when what is `kept` was read: until
    /// then the server would send what is lost when this process is killed. False: the whole file may have
    /// been requested.
    fn begin_with(
        &mut self,
        kept: KeptBeginning,
        size: u64,
        validator: Option<String>,
    ) -> Result<bool, HttpError> {
        let bytes = kept.bytes();
        let takes_ranges = self.retries.health().takes_ranges(self.server);
        if !(1..=size).contains(&bytes) || (bytes < size && !takes_ranges) {
            return Ok(false);
        }

        self.content_length = Some(size);
        self.validator = validator;
        if bytes < size {
            self.received = bytes;
            self.reopen_until(Some(bytes + 1))?;
            let is_whole = self.repeated == bytes;
            (self.received, self.repeated, self.noted_at) = (0, 0, 0);
            if is_whole {
                return Ok(false);
            }
            self.take_one_byte();
            self.broken_ranges = 0;
            self.announces_ranges = true;
        }

        tracing::debug!(kept = bytes, size, "continuing a partial download");
        self.kept = Some(kept);
        Ok(true)
    }

    /// Ends the stream, so that its connection can be used again if it brings one byte.
    fn take_one_byte(&mut self) {
        if let BodyStream::Network(body) = &mut self.stream {
            // The rest is to be of the same version.
            self.validator = self
                .validator
                .take()
                .or(body.validator().map(str::to_owned));
            if body.content_length() == Some(1) {
                // The byte, and the end; a failure is noticed when the rest is requested.
                let _ = body.next_chunk().and_then(|_| body.next_chunk());
            }
        }
        self.stream = BodyStream::Unopened;
    }

    /// Takes the next bytes that were kept; false when there are no more, and the rest
    /// was requested.
    pub(super) fn take_kept_chunk(&mut self) -> Result<bool, HttpError> {
        let Some(mut kept) = self.kept.take() else {
            return Ok(false);
        };
        if let Some(chunk) = kept.next_chunk() {
            self.received += chunk.len() as u64;
            self.shared.received.store(self.received, Ordering::Relaxed);
            self.chunk = chunk;
            self.kept = Some(kept);
            return Ok(true);
        }

        self.noted_at = self.received;
        self.trial.restart(Duration::ZERO, &self.shared);
        if !kept.is_at_end() {
            self.spool.give_up();
        }
        if self.content_length != Some(self.received)
            && let Err(error) = self.reopen()
        {
            self.resume(error)?;
        }
        Ok(false)
    }
}
