//! How a download begins: with what earlier runs have kept and the rest of the file, with what was
//! fetched ahead, or with a request for the whole file.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::http::HttpError;
use crate::substitute::download::body::{BodyStream, ResumableBody};
use crate::substitute::download::prefetch::EarlyDownload;
use crate::substitute::download::spool_file::SpoolFile;
use crate::substitute::download::spool_reader::KeptBeginning;
use crate::substitute::download::spool_writer::{SpoolRequest, SpoolWriter, url_digest};

impl ResumableBody {
    /// Requests what is not there.
    ///
    /// # Errors
    /// The server does not give it.
    pub(super) fn begin(
        &mut self,
        prefetched: Option<EarlyDownload>,
        spool: Option<SpoolRequest>,
    ) -> Result<(), HttpError> {
        if let Some(request) = &spool
            && let Some(file) = request.spools.find(&request.name)
            && self.begin_kept(request, file)?
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

    /// Begins with what `file` has, if the server has the same file and gives parts of it: it is requested
    /// for one byte. The rest is requested when what `file` has was read: until then the server would
    /// send what is lost when this process is killed. False: the whole file may have been requested.
    fn begin_kept(
        &mut self,
        request: &SpoolRequest,
        file: Arc<SpoolFile>,
    ) -> Result<bool, HttpError> {
        let (header, kept) = (file.header(), file.bytes());
        let is_same_url = header.url_digest == url_digest(&self.url);
        let is_usable = is_same_url || self.file_size == Some(header.size);
        if kept == 0 || !is_usable || !self.retries.health().takes_ranges(self.server) {
            return Ok(false);
        }

        self.content_length = Some(header.size);
        self.validator = header.validator().filter(|_| is_same_url);
        if !file.is_complete() {
            self.received = kept;
            self.reopen_until(Some(kept + 1))?;
            let is_whole = self.repeated == kept;
            (self.received, self.repeated, self.noted_at) = (0, 0, 0);
            if is_whole {
                return Ok(false);
            }
            self.take_one_byte();
            self.broken_ranges = 0;
            self.announces_ranges = true;
        }

        tracing::debug!(kept, size = header.size, "continuing a partial download");
        self.kept = Some(KeptBeginning::new(Arc::clone(&file)));
        self.spool = SpoolWriter::resumed(request.clone(), file);
        Ok(true)
    }

    /// Ends the stream, so that its connection can be used again if it brings one byte.
    fn take_one_byte(&mut self) {
        if let BodyStream::Network(body) = &mut self.stream
            && body.content_length() == Some(1)
        {
            // The byte, and the end; a failure is noticed when the rest is requested.
            let _ = body.next_chunk().and_then(|_| body.next_chunk());
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
