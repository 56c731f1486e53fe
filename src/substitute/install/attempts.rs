//! Downloads of an item that failed, and which ones are not worth another attempt.

use crate::format::server_list::ServerIndex;
use crate::format::server_url::redacted;
use crate::substitute::download::candidate::DownloadCandidate;
use crate::substitute::install::attempt_errors::Attempt;
use crate::substitute::install::errors::ItemError;
use crate::trust::verdict::AuthorizedNarInfo;

/// Requests for an item's nar that are made to a server, however many URLs its narinfos have.
const ATTEMPTS_PER_SERVER: usize = 3;
/// A server that does not have this many of the nars that its narinfo names has none of them: the
/// last attempt is kept for what it answers when the narinfo is requested again.
const ABSENT_PER_NARINFO: usize = 2;

/// The failed attempts for one item.
pub(super) struct Attempts {
    all: Vec<Attempt>,
    /// How many were made with earlier narinfos.
    earlier: usize,
    /// Servers whose other downloads would fail as well.
    failing: Vec<ServerIndex>,
}

impl Attempts {
    /// Goes on after `earlier` ones.
    pub(super) fn after(earlier: Vec<Attempt>) -> Self {
        Self {
            earlier: earlier.len(),
            all: earlier,
            failing: Vec::new(),
        }
    }

    /// Puts those of `candidates` last that have failed with an earlier narinfo.
    pub(super) fn put_failed_last(&self, candidates: &mut [DownloadCandidate]) {
        if !self.all.is_empty() {
            candidates.sort_by_key(|candidate| {
                let url = redacted(&candidate.url);
                self.all.iter().any(|attempt| attempt.url == url)
            });
        }
    }

    /// Whether `candidate` is worth an attempt for `authorized` after those that failed.
    pub(super) fn allow(
        &self,
        candidate: &DownloadCandidate,
        authorized: &AuthorizedNarInfo,
    ) -> bool {
        let server = candidate.server;
        let absent = attempts_at(server, &self.all[self.earlier..])
            .filter(|attempt| attempt.is_absent())
            .count();

        let is_refused = self
            .all
            .iter()
            .any(|attempt| attempt.refuses(candidate, authorized));

        !is_refused
            && !self.failing.contains(&server)
            && absent < ABSENT_PER_NARINFO
            && attempts_at(server, &self.all).count() < ATTEMPTS_PER_SERVER
    }

    /// Whether no earlier attempt failed like `attempt`.
    pub(super) fn is_new(&self, attempt: &Attempt) -> bool {
        !self
            .all
            .iter()
            .any(|earlier| earlier.is_repetition_of(attempt))
    }

    /// Records that `attempt` failed.
    pub(super) fn record(&mut self, attempt: Attempt) {
        if attempt.error.concerns_server() {
            self.failing.push(attempt.candidate.server);
        }
        self.all.push(attempt);
    }

    /// Why the item could not be had.
    pub(super) fn into_error(self) -> ItemError {
        if self.all.is_empty() {
            ItemError::NoDownload
        } else {
            ItemError::AllFailed(self.all)
        }
    }
}

fn attempts_at(server: ServerIndex, all: &[Attempt]) -> impl Iterator<Item = &Attempt> {
    all.iter()
        .filter(move |attempt| attempt.candidate.server == server)
}
