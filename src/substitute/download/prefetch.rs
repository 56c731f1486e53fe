//! Nars that are on their way before their turn comes.
//!
//! A transfer only needs to know
//! whether a download was started ahead of time. Its bytes are verified like
//! those of any other.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::format::store_path::StorePath;
use crate::http::{HttpError, NarBody, NarRequest, RangeSupport, RateDemand, RetryPolicy};
use crate::substitute::download::candidate::DownloadCandidate;
use crate::substitute::download::retries::IMPATIENT_WINDOW;
use crate::substitute::network::Network;

/// The compressed bytes of a nar whose download was started ahead of time.
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

/// Fetches nars ahead.
pub(crate) trait NarPrefetcher: Send + Sync {
    /// The nar of `item`, if it is on its way, and which of `candidates` it is. Whether or
    /// not it is, it is not fetched ahead any more.
    fn take(
        &self,
        item: &StorePath,
        candidates: &[DownloadCandidate],
    ) -> Option<(usize, Box<dyn PrefetchedNar>)>;
}

/// Requests `candidate`, and waits for its first bytes.
///
/// # Errors
/// The server does not give it.
pub(crate) fn begin(
    network: &Network,
    candidate: &DownloadCandidate,
) -> Result<Box<dyn PrefetchedNar>, Arc<HttpError>> {
    let request = NarRequest {
        compression: Some(candidate.compression),
        retry_policy: Some(RetryPolicy::once()),
        // The transfer itself requests it again.
        rate_demand: Some(RateDemand {
            bytes_per_second: 0,
            window: IMPATIENT_WINDOW,
        }),
        ..NarRequest::new(candidate.url.clone())
    };

    let body = network
        .client_for(&candidate.url)?
        .nar(request)
        .inspect_err(|error| {
            if let Some(outage) = error.outage() {
                network.health().failed(candidate.server, outage);
            }
        })?;
    Ok(Box::new(body))
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
