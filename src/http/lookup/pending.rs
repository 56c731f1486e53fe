//! A question on its way from the caller to a server.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::request::Question;
use super::server::Server;
use crate::http::error::HttpErrorKind;
use crate::http::retry::RetryPolicy;

/// A question on its way.
#[derive(Debug, Clone)]
pub(in crate::http) struct Ask {
    pub(in crate::http) question: Question,
    /// To be asked with nothing else on its way.
    pub(in crate::http) alone: bool,
    /// Tries that failed, by weight: what decides whether there is another.
    pub(in crate::http) failed: u32,
    /// Tries that failed.
    pub(in crate::http) attempts: u32,
    pub(in crate::http) first_asked: Option<Instant>,
    /// How often the server had been left alone when it was last sent.
    pub(in crate::http) pauses_before: u64,
}

impl Ask {
    pub(in crate::http) fn new(question: Question) -> Self {
        Self {
            question,
            alone: false,
            failed: 0,
            attempts: 0,
            first_asked: None,
            pauses_before: 0,
        }
    }

    /// The time since it was first asked.
    pub(in crate::http) fn age(&self, now: Instant) -> Duration {
        self.first_asked.map_or(Duration::ZERO, |first| now - first)
    }

    /// Its turn had come when a connection broke that was asked ahead: next time it goes alone.
    pub(in crate::http) fn suspect(&mut self) {
        self.alone = true;
        self.count_failure(1);
    }

    /// Counts a try that broke the connection; whether there may be another. Silence costs its
    /// whole timeout, and so counts double.
    pub(in crate::http) fn blame(&mut self, kind: &HttpErrorKind, policy: &RetryPolicy) -> bool {
        self.count_failure(if matches!(kind, HttpErrorKind::Stalled(_)) {
            2
        } else {
            1
        });
        kind.is_worth_repeating() && self.failed < policy.attempts
    }

    /// Counts a try that failed and weighs so much.
    pub(in crate::http) fn count_failure(&mut self, weight: u32) {
        self.failed += weight;
        self.attempts += 1;
    }
}

/// A question on its way by itself; given back when it is dropped.
pub(in crate::http) struct Held {
    server: Arc<Server>,
    ask: Option<Ask>,
}

impl Held {
    pub(in crate::http) fn new(server: &Arc<Server>, ask: Ask) -> Self {
        Self {
            server: Arc::clone(server),
            ask: Some(ask),
        }
    }

    pub(in crate::http) fn server(&self) -> &Arc<Server> {
        &self.server
    }

    pub(in crate::http) fn question(&self) -> Question {
        self.ask.as_ref().expect(ONLY_RELEASE_TAKES).question
    }

    /// The question, not to be given back.
    pub(in crate::http) fn release(mut self) -> Ask {
        self.server.lock().forget_one();
        self.ask.take().expect(ONLY_RELEASE_TAKES)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(ask) = self.ask.take() {
            self.server.take_back(&mut VecDeque::from([ask]));
        }
    }
}

const ONLY_RELEASE_TAKES: &str = "only `release` takes the question out, and it ends the guard";
