//! A question on its way from the caller to a server.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::HttpErrorKind;
use super::request::Question;
use super::retry::RetryPolicy;
use super::server::Server;

/// A question on its way.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) question: Question,
    /// To be asked with nothing else on its way.
    pub(super) alone: bool,
    /// Tries that failed, by weight: what decides whether there is another.
    pub(super) failed: u32,
    /// Tries that failed.
    pub(super) attempts: u32,
    pub(super) first_asked: Option<Instant>,
    /// How often the server had been left alone when it was last sent.
    pub(super) pauses_before: u64,
}

impl Ask {
    pub(super) fn new(question: Question) -> Self {
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
    pub(super) fn age(&self, now: Instant) -> Duration {
        self.first_asked.map_or(Duration::ZERO, |first| now - first)
    }

    /// Its turn had come when a connection broke that was asked ahead: next time it goes alone.
    pub(super) fn suspect(&mut self) {
        self.alone = true;
        self.count_failure(1);
    }

    /// Counts a try that broke the connection; whether there may be another. Silence costs its
    /// whole timeout, and so counts double.
    pub(super) fn blame(&mut self, kind: &HttpErrorKind, policy: &RetryPolicy) -> bool {
        self.count_failure(if matches!(kind, HttpErrorKind::Stalled(_)) {
            2
        } else {
            1
        });
        kind.is_worth_repeating() && self.failed < policy.attempts
    }

    /// Counts a try that failed and weighs so much.
    pub(super) fn count_failure(&mut self, weight: u32) {
        self.failed += weight;
        self.attempts += 1;
    }
}

/// A question on its way by itself; given back when it is dropped.
pub(super) struct Held {
    server: Arc<Server>,
    ask: Option<Ask>,
}

impl Held {
    pub(super) fn new(server: &Arc<Server>, ask: Ask) -> Self {
        Self {
            server: Arc::clone(server),
            ask: Some(ask),
        }
    }

    pub(super) fn server(&self) -> &Arc<Server> {
        &self.server
    }

    pub(super) fn question(&self) -> Question {
        self.ask.as_ref().expect(ONLY_RELEASE_TAKES).question
    }

    /// The question, not to be given back.
    pub(super) fn release(mut self) -> Ask {
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
