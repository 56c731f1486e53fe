//! What a server's connections teach about it, and what to do next. Pure.
//!
//! Whether a server can be asked ahead is found out by doing it. When a connection on which it
//! was done goes wrong, the request whose turn it was is asked *alone* on the next connection.
//! If that works, asking ahead is to blame, and the second time in a row (the first, when the
//! server fell silent and never did it right) it is given up. If that fails as well, the server or
//! the item is to blame, not the asking ahead.
//!
//! A server that closes connections after N answers is no failure: N is learned, and from then on
//! each connection is given N requests. It is believed at once when announced with
//! `Connection: close`, and otherwise when it happens twice in a row.

use std::time::Duration;

use super::events::ServerProperty;
use crate::http::error::{HttpErrorClass, HttpErrorKind};
use crate::http::options::{PipeliningSupport, Protocol};
use crate::http::retry::{RetryDecision, RetryPolicy};

/// How a connection went.
#[derive(Debug)]
pub(in crate::http) struct Report {
    pub(in crate::http) end: End,
    /// Answers on it, useful or not.
    pub(in crate::http) answered: u32,
    /// How many of them came while further requests were on their way.
    pub(in crate::http) answered_ahead: u32,
    /// Requests without an answer.
    pub(in crate::http) unanswered: usize,
    /// Whether several requests were on their way at once, over HTTP/1.1.
    pub(in crate::http) was_pipelined: bool,
    /// Whether the request whose turn it was had been sent alone on purpose.
    pub(in crate::http) was_alone: bool,
}

/// Why a connection is over.
#[derive(Debug)]
pub(in crate::http) enum End {
    /// We have no more use for it.
    Done,
    /// The server closed it between two answers.
    Closed { announced: bool },
    /// It broke, or what came cannot be read.
    Failed(HttpErrorKind),
    /// An answer that belongs to no request, or to another one.
    OutOfStep,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::http) enum Course {
    GoOn,
    /// Leave the server alone for this long.
    Wait(Duration),
    GiveUp,
}

/// What follows from a connection's end.
#[derive(Debug)]
pub(in crate::http) struct Judgment {
    pub(in crate::http) course: Course,
    /// Whether the request whose turn it was is to be asked alone.
    pub(in crate::http) asks_alone: bool,
}

/// What is known of a server.
#[derive(Debug)]
pub(in crate::http) struct Health {
    policy: RetryPolicy,
    pipelining: PipeliningSupport,
    /// Connections in a row that asking ahead has broken.
    strikes: u32,
    /// A connection broke while asking ahead; the verdict waits for the request asked alone.
    suspicion: Option<Suspicion>,
    limit: Option<Limit>,
    /// After how many answers the last connection was closed without announcement.
    last_close: Option<u32>,
    has_answered: bool,
    /// Connections in a row without an answer.
    failures: u32,
    /// Connections in a row without an answer that began as HTTP/2.
    http2_failures: u32,
    /// Answers in a row that say that the server is in trouble.
    troubles: u32,
    /// Pauses in a row that such answers led to.
    overloads: u32,
    lessons: Vec<ServerProperty>,
}

#[derive(Debug, Clone, Copy)]
struct Suspicion {
    is_certain: bool,
}

/// After how many answers the server closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limit {
    requests: u32,
    announced: bool,
}

impl Health {
    pub(in crate::http) fn new(
        policy: RetryPolicy,
        pipelining: PipeliningSupport,
        limit: Option<u32>,
    ) -> Self {
        let limit = limit.filter(|&limit| limit > 0);
        Self {
            policy,
            pipelining,
            strikes: 0,
            suspicion: None,
            limit: limit.map(|requests| Limit {
                requests,
                announced: true,
            }),
            last_close: None,
            has_answered: false,
            failures: 0,
            http2_failures: 0,
            troubles: 0,
            overloads: 0,
            lessons: Vec::new(),
        }
    }

    /// How patient to be.
    pub(in crate::http) fn policy(&self) -> &RetryPolicy {
        &self.policy
    }

    /// Whether to send requests ahead.
    pub(in crate::http) fn asks_ahead(&self) -> bool {
        self.pipelining != PipeliningSupport::Broken
    }

    /// Whether HTTP/2 is worth another try.
    pub(in crate::http) fn offers_http2(&self) -> bool {
        self.http2_failures < STRIKES_OUT
    }

    /// Requests that a new connection takes.
    pub(in crate::http) fn limit(&self) -> Option<u32> {
        self.limit.map(|limit| limit.requests)
    }

    /// Takes out what was learned since the last call.
    pub(in crate::http) fn take_lessons(&mut self) -> Vec<ServerProperty> {
        std::mem::take(&mut self.lessons)
    }

    /// A connection had all the requests it takes, answered them, and is still open: whether to
    /// go on with it. An announced limit is thereby refuted; a silent one is just about to show.
    pub(in crate::http) fn outlives_limit(&mut self) -> bool {
        if self.limit.is_some_and(|limit| !limit.announced) {
            return false;
        }
        self.limit = None;
        true
    }

    /// Many requests sent ahead on one connection were answered in step.
    pub(in crate::http) fn kept_step(&mut self) {
        if self.pipelining == PipeliningSupport::Untested {
            self.set_pipelining(PipeliningSupport::Works);
        }
    }

    /// A useful answer came.
    pub(in crate::http) fn answered(&mut self) {
        (self.has_answered, self.failures) = (true, 0);
        (self.troubles, self.overloads) = (0, 0);
    }

    /// The request that was asked alone got an answer that fits.
    pub(in crate::http) fn answered_alone(&mut self) {
        let Some(suspicion) = self.suspicion.take() else {
            return;
        };
        self.strikes += 1;
        if self.strikes >= STRIKES_OUT || suspicion.is_certain {
            self.set_pipelining(PipeliningSupport::Broken);
        }
    }

    /// The request that was asked alone got an answer that does not fit either.
    pub(in crate::http) fn lied_alone(&mut self) {
        self.suspicion = None;
    }

    /// A connection could not be made.
    pub(in crate::http) fn not_connected(&mut self, kind: &HttpErrorKind, random: f64) -> Course {
        self.failures += 1;
        let attempts = match kind.class() {
            HttpErrorClass::Local => 1,
            _ if self.has_answered => self.policy.attempts,
            _ if kind.is_worth_repeating() => FIRST_CONNECTIONS,
            _ => 1,
        };
        self.after_failure(attempts, random)
    }

    /// A connection is over.
    pub(in crate::http) fn connection_ended(
        &mut self,
        report: &Report,
        protocol: Protocol,
        random: f64,
    ) -> Judgment {
        if report.answered > 0 {
            self.has_answered = true;
            (self.failures, self.http2_failures) = (0, 0);
        } else if report.unanswered > 0 {
            self.failures += 1;
            self.http2_failures += u32::from(protocol == Protocol::Http2);
        }
        if protocol == Protocol::Http1 {
            self.learn_limit(report);
        }
        let asks_alone = self.suspect(report);
        let course = match &report.end {
            _ if self.failures == 0 || report.unanswered == 0 => Course::GoOn,
            End::Failed(HttpErrorKind::Stalled(_)) => {
                let stalls = if self.has_answered { STALLS } else { 1 };
                self.after_failure(stalls, random)
            }
            // One more than a single question has tries, in case that one is to blame.
            _ if self.has_answered => self.after_failure(self.policy.attempts + 1, random),
            _ => self.after_failure(self.policy.attempts, random),
        };
        Judgment { course, asks_alone }
    }

    /// An answer says that the server is in trouble; whether it is the server that is, and not
    /// just its answer to one question.
    pub(in crate::http) fn is_overloaded(&mut self, status: u16) -> bool {
        self.troubles += 1;
        matches!(status, 429 | 503) || self.troubles >= TROUBLES_MAX
    }

    /// The server has too much to do.
    pub(in crate::http) fn overloaded(&mut self, kind: &HttpErrorKind, random: f64) -> Course {
        self.overloads += 1;
        match self
            .policy
            .next(kind, self.overloads, Duration::ZERO, random)
        {
            RetryDecision::After(wait) => Course::Wait(wait),
            RetryDecision::Stop => Course::GiveUp,
        }
    }

    fn after_failure(&self, attempts: u32, random: f64) -> Course {
        if self.failures >= attempts {
            return Course::GiveUp;
        }
        Course::Wait(self.policy.backoff(self.policy.base, self.failures, random))
    }

    fn learn_limit(&mut self, report: &Report) {
        let End::Closed { announced } = report.end else {
            self.last_close = None;
            return;
        };
        if report.answered == 0 || (report.unanswered == 0 && !announced) {
            return;
        }
        if !announced && self.last_close.replace(report.answered) != Some(report.answered) {
            return;
        }
        let limit = Limit {
            requests: report.answered,
            announced,
        };
        if self.limit() != Some(report.answered) {
            self.lessons
                .push(ServerProperty::RequestsPerConnection(report.answered));
        }
        self.limit = Some(limit);
    }

    /// Whether asking ahead may have broken the connection.
    fn suspect(&mut self, report: &Report) -> bool {
        if report.was_alone {
            self.suspicion = None;
            return false;
        }
        let is_suspect = report.was_pipelined
            && report.unanswered > 0
            && match &report.end {
                End::Done | End::Closed { announced: true } => false,
                // A limit explains it.
                End::Closed { .. } if self.limit() == Some(report.answered) => false,
                End::Closed { .. } => report.answered_ahead < KEPT_STEP,
                End::OutOfStep | End::Failed(HttpErrorKind::Malformed(_)) => true,
                End::Failed(_) => report.answered_ahead < KEPT_STEP,
            };
        if !is_suspect {
            if report.answered_ahead >= KEPT_STEP {
                self.strikes = 0;
            }
            return false;
        }
        let is_silent = matches!(report.end, End::Failed(HttpErrorKind::Stalled(_)));
        let is_certain = is_silent && self.pipelining == PipeliningSupport::Untested;
        self.suspicion = Some(Suspicion { is_certain });
        true
    }

    fn set_pipelining(&mut self, pipelining: PipeliningSupport) {
        self.pipelining = pipelining;
        self.lessons.push(ServerProperty::Pipelining(pipelining));
    }
}

/// Connections in a row that a way of asking must break to be given up.
const STRIKES_OUT: u32 = 2;

/// Answers in step, while further requests were under way, that a server which cannot be asked
/// ahead does not give.
const KEPT_STEP: u32 = 2;

/// Tries to connect to a server that has not answered anything in this run.
const FIRST_CONNECTIONS: u32 = 2;

/// Silent connections in a row after which a server is given up that did answer before.
const STALLS: u32 = 2;

/// Answers in a row with a status of trouble that make it the server's.
const TROUBLES_MAX: u32 = 32;

#[cfg(test)]
mod tests;
