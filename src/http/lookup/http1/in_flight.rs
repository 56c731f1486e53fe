//! The questions that one HTTP/1.1 connection has taken, and what is counted about it.
//!
//! A lane gives back what was not answered when it is dropped, so that a connection may end
//! anywhere, also by being canceled, without losing a question.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::http::error::HttpErrorKind;
use crate::http::lookup::health::{End, Report};
use crate::http::lookup::pending::{Ask, Held};
use crate::http::lookup::request::Question;
use crate::http::lookup::response::Response;
use crate::http::lookup::server::Server;
use crate::http::options::Protocol;

/// The questions on one connection, oldest first.
pub(in crate::http) struct Lane {
    server: Arc<Server>,
    asks: VecDeque<Ask>,
    /// Questions taken so far.
    sent: u32,
    answered: u32,
    answered_ahead: u32,
    was_pipelined: bool,
    is_draining: bool,
}

impl Lane {
    pub(in crate::http) fn new(server: &Arc<Server>) -> Self {
        Self {
            server: Arc::clone(server),
            asks: VecDeque::new(),
            sent: 0,
            answered: 0,
            answered_ahead: 0,
            was_pipelined: false,
            is_draining: false,
        }
    }

    pub(in crate::http) fn is_empty(&self) -> bool {
        self.asks.is_empty()
    }

    /// Takes the questions that may be sent now, `most` on their way at once, and calls `send`
    /// for each.
    pub(in crate::http) fn fill(&mut self, most: usize, mut send: impl FnMut(Question)) {
        let before = self.asks.len();
        let limit = self.server.lock().health.limit();
        let left = limit.map_or(u32::MAX, |limit| limit.saturating_sub(self.sent));
        let room = most.saturating_sub(before).min(left as usize);
        if room > 0 {
            self.server.take(&mut self.asks, room, Protocol::Http1);
        }
        let taken = self.asks.range(before..);
        taken.for_each(|ask| send(ask.question));
        let count = u32::try_from(self.asks.len() - before).unwrap_or(u32::MAX);
        self.sent = self.sent.saturating_add(count);
        self.was_pipelined |= self.asks.len() > 1;
        if count == left {
            self.set_draining(true);
        }
    }

    /// Whether all the requests that the server takes on a connection are answered.
    pub(in crate::http) fn is_used_up(&self) -> bool {
        self.is_draining && self.is_empty()
    }

    /// The limit was wrong: there is room for more.
    pub(in crate::http) fn reopen(&mut self) {
        self.set_draining(false);
    }

    fn set_draining(&mut self, is_draining: bool) {
        if self.is_draining != is_draining {
            self.is_draining = is_draining;
            let mut state = self.server.lock();
            if is_draining {
                state.draining += 1;
            } else {
                state.draining -= 1;
            }
            drop(state);
            self.server.changed.send_replace(());
        }
    }

    /// Whether `response` cannot be the answer to the oldest question. Only judged where answers
    /// can get out of step; elsewhere a wrong item is the server's doing and is passed up.
    pub(in crate::http) fn is_out_of_step(&self, response: &Response) -> bool {
        let Some(ask) = self.asks.front() else {
            return true;
        };
        self.was_pipelined && !ask.alone && is_mismatch(ask, response)
    }

    /// Hands `response` on as the answer to the oldest question.
    pub(in crate::http) async fn answer(&mut self, response: Response) {
        let Some(ask) = self.asks.pop_front() else {
            return;
        };
        self.count_answer(&ask, &response);
        let held = Held::new(&self.server, ask);
        self.server.settle(held, response).await;
    }

    fn count_answer(&mut self, ask: &Ask, response: &Response) {
        self.answered += 1;
        self.answered_ahead += u32::from(!self.asks.is_empty());
        let health = &mut self.server.lock().health;
        if ask.alone && is_mismatch(ask, response) {
            health.lied_alone();
        } else if ask.alone {
            health.answered_alone();
        }
        if self.answered_ahead == PROVEN_AHEAD {
            health.kept_step();
        }
    }

    /// Draws the conclusions from the connection's end.
    pub(in crate::http) fn conclude(mut self, end: End) {
        let report = Report {
            end,
            answered: self.answered,
            answered_ahead: self.answered_ahead,
            unanswered: self.asks.len(),
            was_pipelined: self.was_pipelined,
            was_alone: self.asks.front().is_some_and(|ask| ask.alone),
        };
        let random = fastrand::f64();
        let judgment = self
            .server
            .lock()
            .health
            .connection_ended(&report, Protocol::Http1, random);
        let kind = match report.end {
            End::Failed(kind) => kind,
            End::Done | End::Closed { .. } | End::OutOfStep => HttpErrorKind::Closed,
        };
        let is_blameless = self.answered > 0 && matches!(kind, HttpErrorKind::Closed);
        if judgment.asks_alone {
            self.asks.iter_mut().take(1).for_each(Ask::suspect);
        } else if !is_blameless {
            self.blame_first(&kind);
        }
        self.server.follow(judgment.course, kind);
    }

    /// The answer that was due broke the connection: it has a limited number of tries.
    fn blame_first(&mut self, kind: &HttpErrorKind) {
        let Some(first) = self.asks.front_mut() else {
            return;
        };
        let tries_left = first.blame(kind, &self.server.options.retries);
        if !tries_left && let Some(ask) = self.asks.pop_front() {
            let ask = Held::new(&self.server, ask).release();
            self.server.fail(&ask, kind.clone());
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.set_draining(false);
        self.server.take_back(&mut self.asks);
        self.server.report_lessons();
    }
}

fn is_mismatch(ask: &Ask, response: &Response) -> bool {
    match ask.question {
        Question::NarInfo(item) => {
            crate::http::lookup::response::is_about_another(&response.body, &item)
        }
        Question::CacheInfo => false,
    }
}

/// Answers in step, while others were under way, that prove that a server can be asked ahead.
const PROVEN_AHEAD: u32 = 16;
