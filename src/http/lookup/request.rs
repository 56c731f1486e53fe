//! One lookup on its way to a server, with what its attempts have cost so far.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use url::Url;

use crate::format::server_url::ServerUrl;
use crate::format::store_path::HashPart;
use crate::http::error::HttpErrorKind;
use crate::http::retry::RetryPolicy;
use crate::http::s3::key_source::AccessKey;

/// What is requested of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestTarget {
    /// Its `nix-cache-info`.
    CacheInfo,
    /// The narinfo of an item.
    NarInfo(HashPart),
}

impl RequestTarget {
    /// The URL to request.
    pub(super) fn url(self, server: &ServerUrl) -> Url {
        match self {
            Self::CacheInfo => server.cache_info_url(),
            Self::NarInfo(item) => server.narinfo_url(&item),
        }
    }
}

/// A lookup that has no answer yet.
#[derive(Debug, Clone)]
pub(super) struct PendingRequest {
    pub(super) target: RequestTarget,
    /// To be sent while no other request is in flight on the connection.
    pub(super) unpipelined: bool,
    /// Sum of attempt weights (a stall counts 2); no retry at `policy.attempts`.
    pub(super) failure_weight: u32,
    /// Failed attempts.
    pub(super) attempts: u32,
    /// When it was first sent, or sent again after a busy server had no room for it.
    pub(super) first_sent: Option<Instant>,
    /// How often the server had been paused when this was last sent.
    pub(super) pauses_before: u64,
    /// How many requests the server had answered when an attempt last failed (`ServerOutage`).
    pub(super) answers_before: Option<u64>,
    /// What it was signed with when it was last sent.
    pub(super) signed_with: Option<Arc<AccessKey>>,
}

impl PendingRequest {
    pub(super) fn new(target: RequestTarget) -> Self {
        Self {
            target,
            unpipelined: false,
            failure_weight: 0,
            attempts: 0,
            first_sent: None,
            pauses_before: 0,
            answers_before: None,
            signed_with: None,
        }
    }

    /// The time since it was first sent.
    pub(super) fn age(&self, now: Instant) -> Duration {
        self.first_sent.map_or(Duration::ZERO, |first| now - first)
    }

    /// It was due when a pipelined connection broke: the next attempt is made without pipelining.
    pub(super) fn retry_unpipelined(&mut self) {
        self.unpipelined = true;
        self.count_failure(1);
    }

    /// Counts an attempt that broke the connection, and returns whether another one is allowed. A
    /// stall costs its whole timeout, and so counts double.
    pub(super) fn count_broken_attempt(
        &mut self,
        kind: &HttpErrorKind,
        policy: &RetryPolicy,
    ) -> bool {
        let weight = match kind {
            HttpErrorKind::Stalled(_) => 2,
            _ => 1,
        };
        self.count_failure(weight);
        kind.is_worth_repeating() && self.failure_weight < policy.attempts
    }

    /// Counts an attempt that a busy server had no room for, whatever was requested: it does not bring the last
    /// attempt nearer.
    pub(super) fn count_refusal(&mut self) {
        self.attempts += 1;
        self.first_sent = None;
    }

    /// Counts a failed attempt with this weight.
    pub(super) fn count_failure(&mut self, weight: u32) {
        self.failure_weight += weight;
        self.attempts += 1;
    }
}
