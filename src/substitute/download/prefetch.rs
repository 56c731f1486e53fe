//! Nars that are on their way before their turn comes.
//!
//! A transfer only needs to know
//! whether a download was started ahead of time. Its bytes are verified like
//! those of any other.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;

use crate::format::server_list::ServerIndex;
use crate::format::store_path::StorePath;
use crate::http::{HttpError, NarBody, NarRequest, RangeSupport};
use crate::substitute::download::candidate::DownloadCandidate;
use crate::substitute::network::Network;

/// The compressed bytes of a nar that another process receives, or hands over.
pub(crate) trait PrefetchedNar: Send {
    /// Bytes of the file, when the server says so.
    fn content_length(&self) -> Option<u64>;

    /// Names the version of the file, when parts of it can be requested: so that the one that takes
    /// over can go on by itself.
    fn validator(&self) -> Option<&str>;

    /// Waits for more; `None` at the end.
    ///
    /// # Errors
    /// The download cannot go on. The nar has to be requested again.
    fn next_chunk(&mut self) -> io::Result<Option<Bytes>>;
}

/// A download that was started ahead of time.
pub(crate) enum EarlyDownload {
    /// Another process has requested it.
    Relayed(Box<dyn PrefetchedNar>),
    /// The response to a request of this process, or how that failed: as if it were requested now.
    Response(Result<Box<NarBody>, Arc<HttpError>>),
}

/// Fetches nars ahead.
pub(crate) trait NarPrefetcher: Send + Sync {
    /// The nar of `item`, if it is on its way, and which of `candidates` it is. Whether or
    /// not it is, it is not fetched ahead any more.
    fn take(
        &self,
        item: &StorePath,
        candidates: &[DownloadCandidate],
    ) -> Option<(usize, EarlyDownload)>;
}

/// A download that was started ahead of time: a thread waits for the response.
pub(crate) struct StartedDownload {
    /// What was requested.
    pub(crate) candidate: DownloadCandidate,
    /// When.
    pub(crate) started_at: Instant,
    /// The thread that waits for the response, until it is known to have ended,
    waiting: Option<JoinHandle<Result<NarBody, Arc<HttpError>>>>,
    /// and what came of it then.
    response: Option<Result<NarBody, Arc<HttpError>>>,
}

impl StartedDownload {
    /// Sends a `request` for `candidate`; `None` when the system has no more threads.
    #[must_use]
    pub(crate) fn start(
        network: &Arc<Network>,
        candidate: DownloadCandidate,
        request: NarRequest,
    ) -> Option<Self> {
        let (network, server) = (Arc::clone(network), candidate.server);
        let thread = std::thread::Builder::new().name("ahead".to_owned());
        let waiting = thread.spawn(move || send(&network, server, request));
        Some(Self {
            candidate,
            started_at: Instant::now(),
            waiting: Some(waiting.ok()?),
            response: None,
        })
    }

    /// Whether all of the nar is in memory, or the request has failed.
    #[must_use]
    pub(crate) fn has_ended(&mut self) -> bool {
        if !self.has_response() {
            return false;
        }
        match &self.response {
            Some(Ok(nar)) => nar.has_arrived(),
            _ => true,
        }
    }

    /// Whether the request has failed.
    #[must_use]
    pub(crate) fn has_failed(&mut self) -> bool {
        self.has_response() && !matches!(self.response, Some(Ok(_)))
    }

    /// Whether all of the file, whose size the server has announced, is in memory.
    #[must_use]
    pub(crate) fn has_arrived_whole(&mut self) -> bool {
        if !self.has_response() {
            return false;
        }
        match (&self.response, self.candidate.file_size) {
            (Some(Ok(nar)), Some(file_size)) => nar.has_arrived_whole(file_size),
            _ => false,
        }
    }

    /// Whether it is known what came of the request.
    fn has_response(&mut self) -> bool {
        if self.waiting.as_ref().is_some_and(|it| !it.is_finished()) {
            return false;
        }
        self.take_response();
        true
    }

    fn take_response(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.response = waiting.join().ok();
        }
    }

    /// Waits for the response, as a new request would have to.
    #[must_use]
    pub(crate) fn wait(mut self) -> Option<Result<NarBody, Arc<HttpError>>> {
        self.take_response();
        self.response
    }
}

/// Waits for the response to a request that `server` is sent.
fn send(
    network: &Network,
    server: ServerIndex,
    request: NarRequest,
) -> Result<NarBody, Arc<HttpError>> {
    let response = network.client_for(&request.url)?.nar(request);
    let response = response.inspect_err(|error| {
        if let Some(outage) = error.outage() {
            network.health().failed(server, outage);
        }
    });
    response.map_err(Arc::new)
}

impl PrefetchedNar for NarBody {
    fn content_length(&self) -> Option<u64> {
        NarBody::content_length(self)
    }

    fn validator(&self) -> Option<&str> {
        NarBody::validator(self).filter(|_| self.ranges() == RangeSupport::Announced)
    }

    fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        NarBody::next_chunk(self).map_err(io::Error::other)
    }
}
