//! What the ends of a server's connections say about it, and what to do next. Pure.
//!
//! Whether a server supports pipelining is found out by trying. When a pipelined connection
//! breaks, the request that was due is sent alone, *unpipelined*, on the next connection. If that
//! works, pipelining is to blame, and the second time in a row (the first, when the server
//! stalled and was never seen to pipeline) it is turned off. If that fails as well, the server or
//! the item is to blame, not pipelining.
//!
//! A server that closes connections after N responses is no failure: N becomes the limit of
//! requests for each further connection. It is taken over at once when announced with
//! `Connection: close`, and otherwise when it happens twice in a row. Over HTTP/2 a small N would
//! multiply the requests, since many are in flight when the connection ends: then HTTP/1.1 is
//! spoken for the rest of the run.

use std::time::Duration;

use super::connection_end::{ConnectionEnd, ConnectionReport};
use super::events::ServerProperty;
use crate::http::error::{HttpErrorClass, HttpErrorKind};
use crate::http::options::{PipeliningSupport, Protocol};
use crate::http::retry::{RetryDecision, RetryPolicy};

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HealthAction {
    Continue,
    /// Send nothing to the server for this long.
    Pause(Duration),
    GiveUp,
}

/// What follows from the end of a connection.
#[derive(Debug)]
pub(super) struct EndConsequence {
    pub(super) action: HealthAction,
    /// Whether the request that was due is to be sent alone.
    pub(super) retry_unpipelined: bool,
}

/// What is known of a server.
#[derive(Debug)]
pub(super) struct ConnectionHealth {
    policy: RetryPolicy,
    pipelining: PipeliningSupport,
    /// Connections in a row that pipelining has broken.
    pipelining_failures: u32,
    /// A pipelined connection broke; the unpipelined request will tell why.
    suspicion: Option<PipeliningSuspicion>,
    limit: Option<RequestLimit>,
    /// After how many responses the last connection was closed without announcement.
    last_close: Option<u32>,
    has_answered: bool,
    /// Whether it sent what was requested: a login page of the network may answer in its place.
    is_genuine: bool,
    /// Connections in a row without a response.
    failures: u32,
    /// Connections in a row without a response that began as HTTP/2; at the limit, HTTP/1.1 is spoken for the
    /// rest of the run.
    http2_failures: u32,
    /// Connections in a row that ended over HTTP/2 with most of their requests unanswered.
    http2_short: u32,
    /// Responses in a row with the status of a server in trouble.
    error_statuses: u32,
    /// Pauses in a row that such responses led to.
    overload_pauses: u32,
    /// The sum of these pauses.
    overload_paused: Duration,
    new_properties: Vec<ServerProperty>,
}

#[derive(Debug, Clone, Copy)]
struct PipeliningSuspicion {
    is_certain: bool,
}

/// After how many responses the server closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RequestLimit {
    requests: u32,
    announced: bool,
}

impl ConnectionHealth {
    pub(super) fn new(
        policy: RetryPolicy,
        pipelining: PipeliningSupport,
        limit: Option<u32>,
    ) -> Self {
        let limit = limit.filter(|&limit| limit > 0);
        Self {
            policy,
            pipelining,
            pipelining_failures: 0,
            suspicion: None,
            limit: limit.map(|requests| RequestLimit {
                requests,
                announced: true,
            }),
            last_close: None,
            has_answered: false,
            is_genuine: false,
            failures: 0,
            http2_failures: 0,
            http2_short: 0,
            error_statuses: 0,
            overload_pauses: 0,
            overload_paused: Duration::ZERO,
            new_properties: Vec::new(),
        }
    }

    pub(super) fn policy(&self) -> &RetryPolicy {
        &self.policy
    }

    /// Whether to send requests before earlier ones are answered.
    pub(super) fn may_pipeline(&self) -> bool {
        self.pipelining != PipeliningSupport::Broken
    }

    /// Whether HTTP/2 is worth another attempt: not where a connection takes fewer requests than
    /// are in flight on it.
    pub(super) fn offers_http2(&self) -> bool {
        let limit = self.request_limit().unwrap_or(u32::MAX);
        self.http2_failures < FAILURES_MAX && limit >= HTTP2_REQUESTS_MIN
    }

    /// From now on HTTP/1.1 is spoken: a request needs it.
    pub(super) fn require_http1(&mut self) {
        self.http2_failures = FAILURES_MAX;
    }

    /// Requests that a new connection takes.
    pub(super) fn request_limit(&self) -> Option<u32> {
        self.limit.map(|limit| limit.requests)
    }

    /// Takes out the properties that were found since the last call; none before the server has
    /// sent what was requested.
    pub(super) fn take_new_properties(&mut self) -> Vec<ServerProperty> {
        if !self.is_genuine {
            return Vec::new();
        }
        std::mem::take(&mut self.new_properties)
    }

    /// The server sent what was requested, or said that it is missing.
    pub(super) fn note_genuine(&mut self) {
        self.is_genuine = true;
    }

    /// Removes the limit that a connection has refuted: it reached the limit, every request is
    /// answered, and it is still open. Returns whether to send more on it. A limit that was not
    /// announced stays: it is about to apply.
    pub(super) fn take_refuted_limit(&mut self) -> bool {
        if self.limit.is_some_and(|limit| !limit.announced) {
            return false;
        }
        self.limit = None;
        true
    }

    /// Many pipelined requests on one connection were answered in order.
    pub(super) fn pipelining_confirmed(&mut self) {
        if self.pipelining == PipeliningSupport::Untested {
            self.set_pipelining(PipeliningSupport::Works);
        }
    }

    /// A request got a useful response.
    pub(super) fn answered(&mut self) {
        (self.has_answered, self.failures) = (true, 0);
        (self.error_statuses, self.overload_pauses) = (0, 0);
        self.overload_paused = Duration::ZERO;
    }

    /// The request that was sent alone got a response that matches.
    pub(super) fn answered_unpipelined(&mut self) {
        let Some(suspicion) = self.suspicion.take() else {
            return;
        };
        self.pipelining_failures += 1;
        if self.pipelining_failures >= FAILURES_MAX || suspicion.is_certain {
            self.set_pipelining(PipeliningSupport::Broken);
        }
    }

    /// The request that was sent alone got a response that does not match either.
    pub(super) fn mismatched_unpipelined(&mut self) {
        self.suspicion = None;
    }

    /// A connection could not be made.
    pub(super) fn connecting_failed(&mut self, kind: &HttpErrorKind, random: f64) -> HealthAction {
        self.failures += 1;
        let attempts = match kind.class() {
            HttpErrorClass::Local => 1,
            _ if self.has_answered => self.policy.attempts,
            _ if kind.is_worth_repeating() => FIRST_CONNECTIONS,
            _ => 1,
        };
        self.after_failure(attempts, random)
    }

    /// A connection ended.
    pub(super) fn connection_ended(
        &mut self,
        report: &ConnectionReport,
        protocol: Protocol,
        random: f64,
    ) -> EndConsequence {
        if report.answered > 0 {
            self.has_answered = true;
            self.failures = 0;
            if self.http2_failures < FAILURES_MAX {
                self.http2_failures = 0;
            }
        } else if report.unanswered > 0 {
            self.failures += 1;
            self.http2_failures += u32::from(protocol == Protocol::Http2);
        }
        match protocol {
            Protocol::Http2 => self.update_http2_limit(report),
            Protocol::Http1 | Protocol::File => self.update_limit(report),
        }

        let retry_unpipelined = self.suspect_pipelining(report);
        let action = match &report.end {
            _ if self.failures == 0 || report.unanswered == 0 => HealthAction::Continue,
            ConnectionEnd::Failed(HttpErrorKind::Stalled(_)) => {
                let stalls = if self.has_answered { STALLS_MAX } else { 1 };
                self.after_failure(stalls, random)
            }
            // One more than a single request has attempts, in case that one is to blame.
            _ if self.has_answered => self.after_failure(self.policy.attempts + 1, random),
            _ => self.after_failure(self.policy.attempts, random),
        };
        EndConsequence {
            action,
            retry_unpipelined,
        }
    }

    /// Counts a response with an error status that may pass. Returns whether the status is the
    /// whole server's, and not just this response's.
    pub(super) fn note_error_status(&mut self, status: u16) -> bool {
        self.error_statuses += 1;
        matches!(status, 429 | 503) || self.error_statuses >= ERROR_STATUSES_MAX
    }

    /// The server is overloaded.
    pub(super) fn overloaded(&mut self, kind: &HttpErrorKind, random: f64) -> HealthAction {
        self.overload_pauses += 1;
        // The refusal that came first after answers counts for no request. After that there is one more pause than
        // a single request has attempts, in case that one is to blame.
        let attempts = match self.has_answered {
            true => self.overload_pauses.saturating_sub(2).max(1),
            false => self.overload_pauses,
        };
        let paused = self.overload_paused;
        match self.policy.next(kind, attempts, paused, random) {
            RetryDecision::After(wait) => {
                self.overload_paused = paused.saturating_add(wait);
                HealthAction::Pause(wait)
            }
            RetryDecision::Stop => HealthAction::GiveUp,
        }
    }

    fn after_failure(&self, attempts: u32, random: f64) -> HealthAction {
        if self.failures >= attempts {
            return HealthAction::GiveUp;
        }
        HealthAction::Pause(self.policy.backoff(self.policy.base, self.failures, random))
    }

    fn update_limit(&mut self, report: &ConnectionReport) {
        let ConnectionEnd::Closed { announced } = report.end else {
            self.last_close = None;
            return;
        };
        if report.answered == 0 || (report.unanswered == 0 && !announced) {
            return;
        }
        if !announced && self.last_close.replace(report.answered) != Some(report.answered) {
            return;
        }

        self.set_limit(report.answered, announced);
    }

    /// A server that ends an HTTP/2 connection with most of its requests unanswered has a limit. A
    /// connection that breaks may do so for another reason, unless it happens twice in a row.
    fn update_http2_limit(&mut self, report: &ConnectionReport) {
        let is_given_up = self.http2_failures >= FAILURES_MAX;
        if is_given_up || report.answered == 0 || report.unanswered <= report.answered as usize {
            self.http2_short = 0;
            return;
        }
        self.http2_short += match report.end {
            ConnectionEnd::Closed { .. } => FAILURES_MAX,
            ConnectionEnd::Failed(HttpErrorKind::Lost(_) | HttpErrorKind::Closed) => 1,
            _ => 0,
        };
        if self.http2_short >= FAILURES_MAX {
            self.set_limit(report.answered, true);
        }
    }

    fn set_limit(&mut self, requests: u32, announced: bool) {
        if self.request_limit() != Some(requests) {
            self.new_properties
                .push(ServerProperty::RequestsPerConnection(requests));
        }
        self.limit = Some(RequestLimit {
            requests,
            announced,
        });
    }

    /// Whether pipelining may have broken the connection.
    fn suspect_pipelining(&mut self, report: &ConnectionReport) -> bool {
        if report.was_unpipelined {
            self.suspicion = None;
            return false;
        }
        let is_confirmed = report.answered_pipelined >= CONFIRMING_RESPONSES;
        let is_suspect = report.was_pipelined
            && report.unanswered > 0
            && match &report.end {
                ConnectionEnd::Unneeded | ConnectionEnd::Closed { announced: true } => false,
                // A limit explains it.
                ConnectionEnd::Closed { .. } if self.request_limit() == Some(report.answered) => {
                    false
                }
                ConnectionEnd::Mismatched | ConnectionEnd::Failed(HttpErrorKind::Malformed(_)) => {
                    true
                }
                ConnectionEnd::Closed { .. } | ConnectionEnd::Failed(_) => !is_confirmed,
            };
        if !is_suspect {
            if is_confirmed {
                self.pipelining_failures = 0;
            }
            return false;
        }

        let is_stall = matches!(report.end, ConnectionEnd::Failed(HttpErrorKind::Stalled(_)));
        let is_certain = is_stall && self.pipelining == PipeliningSupport::Untested;
        self.suspicion = Some(PipeliningSuspicion { is_certain });
        true
    }

    fn set_pipelining(&mut self, pipelining: PipeliningSupport) {
        self.pipelining = pipelining;
        self.new_properties
            .push(ServerProperty::Pipelining(pipelining));
    }
}

/// Failures in a row after which pipelining, or HTTP/2, is turned off.
const FAILURES_MAX: u32 = 2;

/// As many requests as an HTTP/2 connection has in flight at once (`queue::HTTP2_STREAMS`).
const HTTP2_REQUESTS_MIN: u32 = 100;

/// Responses in order, while further requests were in flight, that a server without pipelining
/// does not send.
const CONFIRMING_RESPONSES: u32 = 2;

/// Attempts to connect to a server that has not answered anything in this run.
const FIRST_CONNECTIONS: u32 = 2;

/// Stalled connections in a row after which a server is given up that did answer before.
const STALLS_MAX: u32 = 2;

/// Responses in a row with an error status that make it the server's.
const ERROR_STATUSES_MAX: u32 = 32;

#[cfg(test)]
mod tests;
