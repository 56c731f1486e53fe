//! Downloads that failed by an outage, once more: after waits, for as long as the item's retries
//! allow it. And those that failed because something was taken for a part of the file, or for all of it, at
//! once.

use std::sync::Arc;

use crate::store::unpack::Checked;
use crate::substitute::download::candidate::DownloadCandidate;
use crate::substitute::download::retries::ItemRetries;
use crate::substitute::install::attempt_errors::{Attempt, AttemptError, FailureClass};
use crate::substitute::install::errors::ItemError;
use crate::substitute::install::installer::{DownloadStart, Installer, UnpackRequest};

impl Installer {
    /// Tries the downloads again that `error` is about, those that failed by an outage, until one
    /// of them gives the item.
    ///
    /// # Errors
    /// None does in the time that is allowed: how each failed in the end.
    pub(in crate::substitute) fn retry_failed_downloads(
        &self,
        request: &UnpackRequest<'_>,
        error: ItemError,
        retries: &Arc<ItemRetries>,
    ) -> Result<Checked, ItemError> {
        let ItemError::AllFailed(mut attempts) = error else {
            return Err(error);
        };
        // What failed last says whether it may succeed now.
        let mut urls = std::collections::HashSet::new();
        attempts.reverse();
        attempts.retain(|attempt| urls.insert(attempt.url.clone()));
        attempts.reverse();

        while wait_for_any(&attempts, retries) {
            let mut skipped = Vec::new();
            for attempt in attempts
                .iter_mut()
                .filter(|attempt| attempt.error.outage().is_some())
            {
                let server = attempt.candidate.server;
                if skipped.contains(&server) {
                    continue;
                }
                let request = UnpackRequest {
                    authorized: &attempt.authorized,
                    ..*request
                };
                let start = DownloadStart::default();
                let error = match self.attempt(&request, &attempt.candidate, start, retries) {
                    Ok(checked) => return Ok(checked),
                    Err(error) => error,
                };
                if error.concerns_server() {
                    skipped.push(server);
                }
                retries.failed(server, error.outage());
                attempt.error = error;
                // A request that was cut short for that is not a failure.
                if self.cancel.is_canceled() {
                    return Err(ItemError::Interrupted);
                }
                if attempt.error.is_of_this_machine() {
                    return Err(ItemError::AllFailed(attempts));
                }
            }
        }

        if self.cancel.is_canceled() {
            return Err(ItemError::Interrupted);
        }
        Err(ItemError::AllFailed(attempts))
    }

    /// An attempt, and one more when wrong bytes came of what earlier runs have kept, or of several
    /// responses: what a server sends of a range may be wrong although the file is right, and the file
    /// may have changed between them. So it is when a response that broke off was taken for complete.
    pub(super) fn attempt(
        &self,
        request: &UnpackRequest<'_>,
        candidate: &DownloadCandidate,
        start: DownloadStart,
        retries: &Arc<ItemRetries>,
    ) -> Result<Checked, AttemptError> {
        let attempted = self.attempt_once(request, candidate, start, retries);
        let (is_joined, has_assumed_end) = (retries.take_joined(), retries.take_assumed_end());
        let Err(error) = &attempted else {
            return attempted;
        };

        let is_ours = matches!(
            error.class(),
            FailureClass::Local | FailureClass::Interrupted
        );
        if has_assumed_end && !is_ours {
            tracing::debug!("downloading the item again: it was not complete");
            return self.attempt(request, candidate, DownloadStart::default(), retries);
        }
        if self.is_fault_of_kept(request, candidate, error) {
            tracing::debug!("downloading the item again, without what was kept of it");
            return self.attempt(request, candidate, DownloadStart::default(), retries);
        }
        if error.class() == FailureClass::Refused && is_joined {
            retries.health().refuses_ranges(candidate.server);
            return self.attempt_once(request, candidate, DownloadStart::default(), retries);
        }
        attempted
    }
}

/// Waits for the first server that is still worth it; false when none is.
fn wait_for_any(attempts: &[Attempt], retries: &ItemRetries) -> bool {
    attempts.iter().any(|attempt| {
        let network = attempt.error.network();
        network.is_some_and(|error| retries.wait(attempt.candidate.server, error, &|| false))
    })
}
