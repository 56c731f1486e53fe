//! The downloads of an item that were not tried yet, best first.

use std::collections::VecDeque;

use crate::substitute::download::candidate::DownloadCandidate;
use crate::substitute::servers::ServerHealth;

/// Downloads in the order in which they are tried: those of servers that were found unreachable or silent,
/// also since the order was made, after the others.
pub(super) struct RankedDownloads<'a> {
    candidates: VecDeque<DownloadCandidate>,
    /// The first one was begun already.
    is_begun: bool,
    /// Other servers were searched for it.
    is_search_done: bool,
    health: &'a ServerHealth,
}

impl<'a> RankedDownloads<'a> {
    pub(super) fn new(
        candidates: Vec<DownloadCandidate>,
        is_begun: bool,
        health: &'a ServerHealth,
    ) -> Self {
        Self {
            candidates: candidates.into(),
            is_begun,
            is_search_done: false,
            health,
        }
    }

    /// Takes the next download to be tried.
    pub(super) fn next(&mut self) -> Option<DownloadCandidate> {
        if std::mem::take(&mut self.is_begun) {
            return self.candidates.pop_front();
        }
        let place = self.first_reliable().unwrap_or(0);
        self.candidates.remove(place)
    }

    /// Whether another download is to be tried before `candidate` by now. If no known one is, `search` is
    /// called, once, for those of servers that were not needed before.
    pub(super) fn has_better_than(
        &mut self,
        candidate: &DownloadCandidate,
        search: impl FnOnce() -> Vec<DownloadCandidate>,
    ) -> bool {
        if !self.health.is_unreliable(candidate.server) {
            return false;
        }
        if self.first_reliable().is_none() && !std::mem::replace(&mut self.is_search_done, true) {
            let found = search().into_iter();
            let reliable = found.filter(|new| !self.health.is_unreliable(new.server));
            self.candidates.extend(reliable);
        }
        self.first_reliable().is_some()
    }

    /// `candidate` is tried later.
    pub(super) fn put_back(&mut self, candidate: DownloadCandidate) {
        self.candidates.push_back(candidate);
    }

    fn first_reliable(&self) -> Option<usize> {
        let mut candidates = self.candidates.iter();
        candidates.position(|candidate| !self.health.is_unreliable(candidate.server))
    }
}
