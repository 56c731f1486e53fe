//! How long lookups go on at a server that has answered some in this run and now fails as a whole. Pure.
//!
//! What fails as a whole is a server that has answered nothing since a request failed: then the request is not to blame,
//! and it is sent again, after waits, for as long as the limits of the server allow. A request that fails while others
//! are answered fails alone; when there are no others, that for `nix-cache-info` stands for them. A response that
//! refuses a request, such as status 403, is an answer here.

use std::time::Duration;

use tokio::time::Instant;

use super::request::{PendingRequest, RequestTarget};
use crate::http::error::{HttpErrorKind, Outage};
use crate::http::patience::{QUICK_RETRIES, RetryLimits, backoff};

/// Whether a server fails as a whole, and since when.
#[derive(Debug)]
pub(super) struct ServerOutage {
    limits: RetryLimits,
    /// Whether it has answered a lookup of an item.
    has_answered: bool,
    /// How many requests it has answered.
    answers: u64,
    /// Whether it is asked for its `nix-cache-info`, to see whether it answers anything.
    is_probed: bool,
    failing: Option<Failing>,
    /// Waits for the server since it began to fail.
    waits: u32,
    /// When it was last reported.
    reported_at: Option<Instant>,
}

/// Nothing has been answered although requests were sent.
#[derive(Debug, Clone, Copy)]
struct Failing {
    since: Instant,
    /// When the last request failed, or until when the server wants no other.
    last: Instant,
}

/// What becomes of a request, or of a server, that has failed often enough to be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutageVerdict {
    /// Another attempt after this time.
    Wait(Duration),
    /// The failure is final.
    Final,
    /// The server has been waited for as long as is allowed.
    TimeOver,
}

impl ServerOutage {
    pub(super) fn new(limits: RetryLimits) -> Self {
        Self {
            limits,
            has_answered: false,
            answers: 0,
            is_probed: false,
            failing: None,
            waits: 0,
            reported_at: None,
        }
    }

    pub(super) fn limits(&self) -> RetryLimits {
        self.limits
    }

    /// The server answered a request for `target`.
    pub(super) fn answered(&mut self, target: RequestTarget) {
        // A server may have the other file although it can look up nothing.
        self.has_answered |= target != RequestTarget::CacheInfo;
        self.responded(target);
    }

    /// The server responded to a request for `target`, if only to say that it is not to be had.
    fn responded(&mut self, target: RequestTarget) {
        self.is_probed &= target != RequestTarget::CacheInfo;
        self.answers += 1;
        (self.failing, self.waits) = (None, 0);
    }

    /// The server responded to a request for `target` with a failure.
    pub(super) fn refused(&mut self, target: RequestTarget, kind: &HttpErrorKind) {
        // Whatever becomes of a `nix-cache-info` that the server cannot make, it is not down.
        let is_probe = target == RequestTarget::CacheInfo;
        if kind.outage().is_none() || (is_probe && is_of_request(kind)) {
            self.responded(target);
        }
    }

    /// Whether to ask the server for its `nix-cache-info` now; true once until it has answered.
    pub(super) fn begin_probe(&mut self) -> bool {
        !std::mem::replace(&mut self.is_probed, true)
    }

    /// A request failed with `kind`.
    pub(super) fn failed(&mut self, kind: &HttpErrorKind, now: Instant) {
        let silence = match kind.outage() {
            Some(Outage::Silent(silence)) => silence,
            Some(_) => Duration::ZERO,
            None => return,
        };
        let asked_at = now.checked_sub(silence).unwrap_or(now);
        let lasting = self
            .failing
            .filter(|it| asked_at.saturating_duration_since(it.last) < FAILURE_LASTS);
        let since = lasting.map_or(asked_at, |it| it.since);
        // Nothing is sent before that, so the time until then says nothing.
        let last = now.checked_add(asked_for(kind)).unwrap_or(now);
        self.failing = Some(Failing { since, last });
    }

    /// For how long nothing has been answered.
    pub(super) fn failing_for(&self, now: Instant) -> Duration {
        self.failing
            .map_or(Duration::ZERO, |it| now.saturating_duration_since(it.since))
    }

    /// What becomes of the server when it has failed with `kind` too often for one that just breaks a connection.
    pub(super) fn judge_server(
        &mut self,
        kind: &HttpErrorKind,
        now: Instant,
        random: f64,
    ) -> OutageVerdict {
        self.failed(kind, now);
        self.waits += 1;
        // The quick retries are over.
        self.judge(kind, self.waits.saturating_add(QUICK_RETRIES), now, random)
    }

    /// What becomes of `request`, which has failed with `kind` for the last time that a request may when the server
    /// answers others.
    pub(super) fn judge_request(
        &mut self,
        request: &mut PendingRequest,
        kind: &HttpErrorKind,
        now: Instant,
        random: f64,
    ) -> OutageVerdict {
        let before = request.answers_before.replace(self.answers);
        let others_answered = before.is_some_and(|before| before != self.answers);
        self.failed(kind, now);
        if others_answered || is_of_request(kind) {
            return OutageVerdict::Final;
        }
        self.judge(kind, request.attempts, now, random)
    }

    /// `request` failed with `kind`, and is sent again as any that fails.
    pub(super) fn note_retry(
        &mut self,
        request: &mut PendingRequest,
        kind: &HttpErrorKind,
        now: Instant,
    ) {
        self.failed(kind, now);
        request.answers_before = Some(self.answers);
    }

    /// Whether it is time to report that the server is waited for, `pause` from now on.
    pub(super) fn is_report_due(&mut self, pause: Duration, now: Instant) -> bool {
        if self.failing_for(now).max(pause) < WORTH_A_REPORT
            || self
                .reported_at
                .is_some_and(|at| now.saturating_duration_since(at) < REPORT_INTERVAL)
        {
            return false;
        }
        self.reported_at = Some(now);
        true
    }

    fn judge(
        &self,
        kind: &HttpErrorKind,
        retries: u32,
        now: Instant,
        random: f64,
    ) -> OutageVerdict {
        let RetryLimits {
            retries: most,
            time,
        } = self.limits;
        if kind.outage().is_none() || !self.has_answered || time.is_zero() || retries > most {
            return OutageVerdict::Final;
        }
        let left = time.saturating_sub(self.failing_for(now));
        if left.is_zero() {
            return OutageVerdict::TimeOver;
        }
        let asked_for = asked_for(kind);
        if asked_for > left {
            return OutageVerdict::Final;
        }
        OutageVerdict::Wait(backoff(retries, random).max(asked_for).min(left))
    }
}

/// Whether `kind` is a status that is about the request, and not about the server.
fn is_of_request(kind: &HttpErrorKind) -> bool {
    kind.outage() == Some(Outage::Broken) && kind.status().is_some()
}

/// The wait that the server wants.
fn asked_for(kind: &HttpErrorKind) -> Duration {
    match kind.innermost() {
        HttpErrorKind::Status {
            retry_after: Some(wait),
            ..
        } => *wait,
        _ => Duration::ZERO,
    }
}

/// After this time without a request it is unknown whether a server still fails.
const FAILURE_LASTS: Duration = Duration::from_secs(30);

/// A server that does not answer for less than this is not reported.
const WORTH_A_REPORT: Duration = Duration::from_secs(2);

/// Between two reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::store_path::HashPart;

    fn status(status: u16, retry_after: Option<u64>) -> HttpErrorKind {
        HttpErrorKind::Status {
            status,
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    fn item() -> RequestTarget {
        RequestTarget::NarInfo(HashPart::parse(&"0".repeat(32)).unwrap())
    }

    /// For how long a server is waited for that fails with `kind` for good, and what becomes of it then.
    fn waited_for(kind: &HttpErrorKind, limits: RetryLimits) -> (Duration, OutageVerdict) {
        let mut outage = ServerOutage::new(limits);
        outage.answered(item());
        let (mut request, mut waited) = (PendingRequest::new(item()), Duration::ZERO);
        let start = Instant::now();
        for _ in 0..1000 {
            match outage.judge_request(&mut request, kind, start + waited, 0.5) {
                OutageVerdict::Wait(wait) => waited += wait,
                verdict => return (waited, verdict),
            }
        }
        panic!("waited for {waited:?}");
    }

    #[test]
    fn waits_that_the_server_wants_count() {
        for retry_after in [None, Some(1), Some(29), Some(30), Some(31), Some(60)] {
            let (waited, _) = waited_for(&status(503, retry_after), RetryLimits::default());
            assert!(waited <= RetryLimits::default().time, "{waited:?}");
        }
        let (waited, verdict) = waited_for(&status(429, Some(u64::MAX)), RetryLimits::default());
        assert_eq!((waited, verdict), (Duration::ZERO, OutageVerdict::Final));
    }
}
