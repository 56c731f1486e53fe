//! One item: candidates -> transfer -> unpack -> check, at a temporary name.
//!
//! Whatever is wrong with what a server sends, the next candidate is tried: another download
//! of the same narinfo, then an equivalent narinfo of another server. Only trouble on this
//! side (a full disk, permissions) stops at once, because no other server can help with it; unless
//! the nar, which is not verified yet, may have caused it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::format::compression::Compression;
use crate::format::server_list::{PerServer, ServerIndex};
use crate::format::server_url;
use crate::format::store_path::{Dialect, StorePath};
use crate::http::RetryLimits;
use crate::store::Links;
use crate::store::unpack::{Checked, Destination, UnpackError, WriterPool, unpack};
use crate::substitute::cancel::Cancel;
use crate::substitute::download::candidate::DownloadCandidate;
use crate::substitute::download::choice;
use crate::substitute::download::errors::TransferError;
use crate::substitute::download::prefetch::{EarlyDownload, NarPrefetcher};
use crate::substitute::download::rates::MeasuredRates;
use crate::substitute::download::retries::{FindSources, ItemRetries, RetryContext};
use crate::substitute::download::server_streams::ServerStream;
use crate::substitute::download::spool::SpoolDirectory;
use crate::substitute::download::transfer::{NarStream, TransferBudget, TransferRequest};
use crate::substitute::install::attempt_errors::{
    Attempt, AttemptError, FailureClass, FailureKind,
};
use crate::substitute::install::attempts::Attempts;
use crate::substitute::install::errors::ItemError;
use crate::substitute::install::in_flight::{InFlightGuard, InFlightTransfer, InFlightTransfers};
use crate::substitute::install::ranked::RankedDownloads;
use crate::substitute::install::space::check_unsigned_size;
use crate::substitute::item_lookup::NarSource;
use crate::substitute::network::Network;
use crate::substitute::progress::{DownloadChoice, Progress, ProgressEvent};
use crate::sync::lock;
use crate::trust::verdict::AuthorizedNarInfo;

/// One item to be unpacked: what, from where, to where.
#[derive(Clone, Copy)]
pub(crate) struct UnpackRequest<'a> {
    /// The item.
    pub(crate) item: &'a StorePath,
    /// Its narinfo, signed by an authorized key.
    pub(crate) authorized: &'a Arc<AuthorizedNarInfo>,
    /// The servers that have its nar, in the user's order.
    pub(crate) sources: &'a [NarSource],
    /// Where its tree goes.
    pub(crate) destination: &'a Destination,
    /// Where its files are deduplicated; `None` when they are not.
    pub(crate) links: Option<&'a Arc<Links>>,
    /// Receives the events of its download.
    pub(crate) progress: &'a dyn Progress,
}

/// Everything that unpacking items needs, shared by all workers.
pub(crate) struct Installer {
    /// How to reach servers.
    pub(crate) network: Arc<Network>,
    /// Writes small files.
    pub(crate) writers: WriterPool,
    /// What transfers may take.
    pub(crate) budget: TransferBudget,
    /// Starts downloads ahead of time, if there is one.
    pub(crate) prefetcher: Option<Arc<dyn NarPrefetcher>>,
    /// What was measured of decoders so far.
    pub(crate) rates: Mutex<MeasuredRates>,
    /// The compression methods planned for items that are fetched together.
    pub(crate) planned_methods: Mutex<HashMap<StorePath, Compression>>,
    /// Threads worth having for work that keeps a core busy.
    pub(crate) cores: usize,
    /// Receives progress events.
    pub(crate) progress: Arc<dyn Progress>,
    /// Raised when the user interrupts.
    pub(crate) cancel: Cancel,
    /// Whose limit of levels holds for trees.
    pub(crate) levels: Dialect,
    /// How often and how long each server that has answered before is retried without progress.
    pub(crate) retry_limits: PerServer<RetryLimits>,
    /// Downloads that are kept for later runs.
    pub(crate) spools: Option<Arc<SpoolDirectory>>,
    /// The failures of downloads that were reported.
    pub(crate) reported_failures: Mutex<Vec<(ServerIndex, FailureKind)>>,
    /// Transfers under way, for progress.
    pub(crate) in_flight: InFlightTransfers,
}

impl Installer {
    /// Makes the item's tree at its destination, from the first of its sources that gives the
    /// nar that its narinfo describes; servers that were unreachable or silent come last. What failed
    /// like one of the `earlier` attempts is not reported again.
    ///
    /// # Errors
    /// No source does, there is too little space, or the tree cannot be written; nothing is left
    /// behind.
    pub(super) fn unpack(
        &self,
        request: &UnpackRequest<'_>,
        earlier: Vec<Attempt>,
        retries: &Arc<ItemRetries>,
    ) -> Result<Checked, ItemError> {
        self.check_space_for(request)?;
        let free = request.destination.free_space()?;
        let size_check = check_unsigned_size(request.authorized, free);

        let mut attempts = Attempts::after(earlier);
        let (ranked, mut start) = self.ranked_downloads(request, &attempts, retries)?;

        let is_begun = start.prefetched.is_some();
        let mut ranked = RankedDownloads::new(ranked, is_begun, retries.health());
        while let Some(candidate) = ranked.next() {
            // What has begun is of the first candidate and of no other.
            let mut start = std::mem::take(&mut start);
            if !attempts.allow(&candidate, request.authorized) {
                continue;
            }
            start.server_stream = self
                .open_server_stream(&candidate, &start)
                .map_err(|_| ItemError::Interrupted)?;
            // While it waited for others, its server may have been found silent.
            if start.server_stream.is_some()
                && ranked.has_better_than(&candidate, || self.other_downloads(request, retries))
            {
                ranked.put_back(candidate);
                continue;
            }

            let attempted = match &size_check {
                Ok(()) => self.attempt(request, &candidate, start, retries),
                Err(error) => Err(error.clone().into()),
            };
            let error = match attempted {
                Ok(checked) => return Ok(checked),
                Err(error) => error,
            };
            if error.class() == FailureClass::Interrupted || self.cancel.is_canceled() {
                return Err(ItemError::Interrupted);
            }

            let stop = error.is_of_this_machine();
            let is_disk_full = error.is_disk_full();
            self.note_failure(request, &candidate, error, &mut attempts, retries);
            if is_disk_full {
                // If there is room for what the narinfo describes, this nar may be another one.
                self.check_space_for(request)?;
            }
            if stop {
                break;
            }
        }

        Err(attempts.into_error())
    }

    /// Refuses the requested nar if it does not fit into its directory.
    fn check_space_for(&self, request: &UnpackRequest<'_>) -> Result<(), ItemError> {
        let destination = request.destination;
        self.check_space(
            destination.parent_path(),
            &|| destination.free_space(),
            std::iter::once(&**request.authorized),
        )
    }

    fn note_failure(
        &self,
        request: &UnpackRequest<'_>,
        candidate: &DownloadCandidate,
        error: AttemptError,
        attempts: &mut Attempts,
        retries: &ItemRetries,
    ) {
        tracing::debug!(
            url = server_url::redacted(&candidate.url),
            reason = error.reason(),
            "download failed"
        );
        retries.failed(candidate.server, error.outage());

        let attempt = Attempt::new(candidate, request.authorized, error);
        if attempts.is_new(&attempt) && is_worth_reporting(&attempt, retries) {
            self.report_failure(request.item, &attempt);
        }
        attempts.record(attempt);
    }

    fn report_failure(&self, item: &StorePath, attempt: &Attempt) {
        let failure = (attempt.candidate.server, attempt.error.kind());
        let mut reported = lock(&self.reported_failures);
        let is_repeated = reported.contains(&failure);
        if !is_repeated {
            reported.push(failure);
        }
        drop(reported);

        self.progress.event(ProgressEvent::SourceFailed {
            item,
            server: self.network.servers()[attempt.candidate.server].as_str(),
            url: &attempt.url,
            reason: format_args!("{}", attempt.error.reason()),
            is_repeated,
        });
    }

    /// Whether there are other servers, but all of `sources` were found unreachable or silent.
    pub(super) fn is_unreliable(&self, sources: &[NarSource]) -> bool {
        let health = self.network.health();
        sources.len() < self.network.servers().len()
            && sources
                .iter()
                .all(|source| health.is_unreliable(source.server))
    }

    /// Starts the count of an item's retries; servers that `find_sources` finds may have the item, too.
    pub(super) fn new_retries(&self, find_sources: FindSources) -> Arc<ItemRetries> {
        let context = RetryContext {
            network: Arc::clone(&self.network),
            limits: self.retry_limits.clone(),
            progress: Arc::clone(&self.progress),
            cancel: self.cancel.clone(),
        };
        Arc::new(ItemRetries::new(context, find_sources))
    }

    pub(super) fn attempt_once(
        &self,
        request: &UnpackRequest<'_>,
        candidate: &DownloadCandidate,
        mut start: DownloadStart,
        retries: &Arc<ItemRetries>,
    ) -> Result<Checked, AttemptError> {
        let UnpackRequest {
            item, authorized, ..
        } = *request;
        let nar_size = authorized.narinfo().nar_size();
        let server_stream = match start.server_stream.take() {
            Some(opened) => Some(opened),
            None => self.open_server_stream(candidate, &start)?,
        };
        let started = self.start_download(request, candidate, start, retries);
        // It is noted before another download takes the turn.
        let mut stream = started.map_err(AttemptError::from).inspect_err(|error| {
            if error.outage().is_some() {
                retries.failed(candidate.server, error.outage());
            }
        })?;

        let in_flight_guard = InFlightGuard::new(
            &self.in_flight,
            InFlightTransfer {
                item: item.clone(),
                candidate: candidate.clone(),
                nar_size,
                received: stream.received(),
            },
        );
        let (destination, links) = (request.destination.clone(), request.links.cloned());
        let unpacked = unpack(&mut stream, self.levels, destination, &self.writers, links);

        // A local failure is the cause of the broken transfer, everything else its effect.
        let unpacked = match unpacked {
            Err(error) if !matches!(error, UnpackError::Nar(_)) => return Err(error.into()),
            other => other,
        };

        let measured = stream.finish()?;
        drop(server_stream);
        let checked = unpacked?.check(Arc::clone(authorized))?;
        let checked = checked.deduplicate().map_err(UnpackError::from)?;

        lock(&self.rates).decoder_measured(candidate.compression, nar_size, measured.decoding);

        // No progress event may follow the one that the item is unpacked.
        drop(in_flight_guard);
        request.progress.event(ProgressEvent::Unpacked {
            item,
            downloaded: measured.downloaded,
            nar_size,
            deduplicated: checked.linked_bytes(),
        });
        Ok(checked)
    }

    /// Waits until the server may be sent another request for a nar, unless none is needed.
    fn open_server_stream(
        &self,
        candidate: &DownloadCandidate,
        start: &DownloadStart,
    ) -> Result<Option<ServerStream>, TransferError> {
        if start.prefetched.is_some() || candidate.url.scheme() == "file" {
            return Ok(None);
        }
        let stream = self.budget.streams.open(candidate.server, &self.cancel);
        stream.map(Some).ok_or(TransferError::Canceled)
    }

    /// Starts to download `candidate`, unless retries of its server were given up.
    fn start_download(
        &self,
        request: &UnpackRequest<'_>,
        candidate: &DownloadCandidate,
        start: DownloadStart,
        retries: &Arc<ItemRetries>,
    ) -> Result<NarStream, TransferError> {
        let DownloadStart {
            prefetched, choice, ..
        } = start;
        if let Some(error) = retries.health().given_up(candidate.server) {
            return Err(TransferError::Network(Arc::new(error)));
        }

        let client = self
            .network
            .client_for(&candidate.url)
            .map_err(TransferError::Network)?;

        let url = server_url::redacted(&candidate.url);
        tracing::debug!(
            url,
            compression = candidate.compression.name(),
            file_size = candidate.file_size,
            is_prefetched = prefetched.is_some(),
            "downloading"
        );
        let download = TransferRequest {
            candidate,
            nar_size: request.authorized.narinfo().nar_size(),
            prefetched,
            spool: self.spool_request(request, candidate),
            retries: Arc::clone(retries),
            cancel: self.cancel.clone(),
        };

        let stream = NarStream::open(client, download, &self.budget)?;
        request.progress.event(ProgressEvent::Started {
            item: request.item,
            server: self.network.servers()[candidate.server].as_str(),
            url: &url,
            compression: candidate.compression,
            download_size: stream.download_size(),
            announced: choice::announced(request.sources).and_then(|(_, it)| it.file_size),
            choice: choice.as_ref(),
        });
        Ok(stream)
    }

    /// What was measured so far.
    #[must_use]
    pub(crate) fn rates(&self) -> MeasuredRates {
        let decoders = lock(&self.rates).clone();
        decoders.with_lines(self.network.expected_line_rates())
    }

    /// Reports how far every transfer is, and that time has passed.
    pub(crate) fn report_progress(&self) {
        self.in_flight.report_progress(&*self.progress);
        self.progress.event(ProgressEvent::Tick);
    }
}

/// Whether a failure is reported as such. An outage is reported by the wait that follows
/// it, and when another server steps in, once for all items.
fn is_worth_reporting(attempt: &Attempt, retries: &ItemRetries) -> bool {
    // It is not the source that failed, and the item may be tried again.
    if attempt.error.is_shortage() {
        return false;
    }
    let server = attempt.candidate.server;
    attempt.error.outage().is_none()
        || retries.has_alternative(server) && retries.health().is_failure_report_due(server)
}

/// How a download comes to be tried.
#[derive(Default)]
pub(super) struct DownloadStart {
    /// It has begun already.
    pub(super) prefetched: Option<EarlyDownload>,
    /// It was preferred to others.
    pub(super) choice: Option<DownloadChoice>,
    /// The server may be sent the request.
    pub(super) server_stream: Option<ServerStream>,
}
