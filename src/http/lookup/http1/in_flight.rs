//! The requests in flight on one HTTP/1.1 connection, and what is counted about it.
//!
//! What was not answered is put back into the queue when this is dropped, so that a connection
//! may end anywhere, also by being canceled, without losing a request.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::debug;

use crate::http::error::HttpErrorKind;
use crate::http::lookup::connection_end::{ConnectionEnd, ConnectionReport};
use crate::http::lookup::request::{PendingRequest, RequestTarget};
use crate::http::lookup::response::{LookupResponse, is_about_another};
use crate::http::lookup::server::{HttpServer, InFlightRequest};
use crate::http::options::Protocol;
use crate::http::s3::key_source::AccessKey;

/// The requests in flight on one connection, oldest first.
pub(super) struct InFlightRequests {
    server: Arc<HttpServer>,
    requests: VecDeque<PendingRequest>,
    /// Requests sent so far.
    sent: u32,
    answered: u32,
    answered_pipelined: u32,
    was_pipelined: bool,
    is_draining: bool,
    /// All but the request that is due were left to other connections.
    is_handed_over: bool,
}

impl InFlightRequests {
    pub(super) fn new(server: &Arc<HttpServer>) -> Self {
        Self {
            server: Arc::clone(server),
            requests: VecDeque::new(),
            sent: 0,
            answered: 0,
            answered_pipelined: 0,
            was_pipelined: false,
            is_draining: false,
            is_handed_over: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Takes the requests that may be sent now, with `in_flight_max` in flight at once, and calls
    /// `send` for each, which returns what it is signed with.
    pub(super) fn fill(
        &mut self,
        in_flight_max: usize,
        mut send: impl FnMut(RequestTarget) -> Option<Arc<AccessKey>>,
    ) {
        if self.is_handed_over {
            return;
        }
        let before = self.requests.len();
        let limit = self.server.queue().health.request_limit();
        let left = limit.map_or(u32::MAX, |limit| limit.saturating_sub(self.sent));
        let count = in_flight_max.saturating_sub(before).min(left as usize);
        if count > 0 {
            self.server.take(&mut self.requests, count, Protocol::Http1);
        }

        for request in self.requests.range_mut(before..) {
            request.signed_with = send(request.target);
        }
        let sent = u32::try_from(self.requests.len() - before).unwrap_or(u32::MAX);
        self.sent = self.sent.saturating_add(sent);
        self.was_pipelined |= self.requests.len() > 1;
        if sent == left {
            self.set_draining(true);
        }
    }

    /// Whether requests wait behind the one that is due that other connections could send.
    pub(super) fn may_hand_over(&self) -> bool {
        self.requests.len() > 1 && !self.is_handed_over && self.server.queue().may_spread()
    }

    /// Leaves all requests but the one that is due to other connections: the server answers so
    /// slowly that it will not have read most of them when this connection is closed.
    pub(super) fn hand_over(&mut self) {
        debug!(
            requests = self.requests.len() - 1,
            "slow answers: requests are left to other connections"
        );
        let mut left = self.requests.split_off(1);
        self.is_handed_over = true;
        self.set_draining(true);
        self.server.queue().note_slow();
        self.server.put_back(&mut left);
    }

    /// Whether the request that was due when the others were handed over is answered.
    pub(super) fn is_handed_over(&self) -> bool {
        self.is_handed_over && self.is_empty()
    }

    /// Whether all the requests that the server takes on a connection are answered.
    pub(super) fn is_exhausted(&self) -> bool {
        self.is_draining && self.is_empty()
    }

    /// The limit was wrong: more requests may be sent.
    pub(super) fn lift_limit(&mut self) {
        self.set_draining(false);
    }

    fn set_draining(&mut self, is_draining: bool) {
        if self.is_draining == is_draining {
            return;
        }
        self.is_draining = is_draining;
        let mut queue = self.server.queue();
        if is_draining {
            queue.draining += 1;
        } else {
            queue.draining -= 1;
        }
        drop(queue);
        self.server.notify();
    }

    /// Whether `response` cannot be the one to the oldest request. Only where responses can get
    /// mixed up; elsewhere a wrong item is the server's doing and is passed on.
    pub(super) fn is_mismatched(&self, response: &LookupResponse) -> bool {
        let Some(request) = self.requests.front() else {
            return true;
        };
        self.was_pipelined && !request.unpipelined && is_mismatch(request, response)
    }

    /// Passes `response` on as the one to the oldest request.
    /// `is_quick`: it did not take long.
    pub(super) async fn handle_response(&mut self, response: LookupResponse, is_quick: bool) {
        let Some(request) = self.requests.pop_front() else {
            return;
        };
        self.count_response(&request, &response, is_quick);
        let request = InFlightRequest::new(&self.server, request);
        self.server.handle_response(request, response).await;
    }

    fn count_response(
        &mut self,
        request: &PendingRequest,
        response: &LookupResponse,
        is_quick: bool,
    ) {
        self.answered += 1;
        self.answered_pipelined += u32::from(!self.requests.is_empty());

        let mut queue = self.server.queue();
        if is_quick {
            queue.note_quick();
        }
        let health = &mut queue.health;
        if request.unpipelined && is_mismatch(request, response) {
            health.mismatched_unpipelined();
        } else if request.unpipelined {
            health.answered_unpipelined();
        }
        if self.answered_pipelined == PROVING_RESPONSES {
            health.pipelining_confirmed();
        }
    }

    /// Reports how the connection went, and does what follows.
    pub(super) fn finish(mut self, end: ConnectionEnd) {
        debug!(
            reason = %end,
            answered = self.answered,
            unanswered = self.requests.len(),
            "connection closed"
        );
        let report = ConnectionReport {
            end,
            answered: self.answered,
            answered_pipelined: self.answered_pipelined,
            unanswered: self.requests.len(),
            was_pipelined: self.was_pipelined,
            was_unpipelined: self.requests.front().is_some_and(|first| first.unpipelined),
        };
        let random = fastrand::f64();
        let consequence =
            self.server
                .queue()
                .health
                .connection_ended(&report, Protocol::Http1, random);

        let kind = report.end.into_kind();
        let is_blameless = self.answered > 0 && matches!(kind, HttpErrorKind::Closed);
        if consequence.retry_unpipelined {
            debug!("the request that was due is sent again without pipelining");
            if let Some(first) = self.requests.front_mut() {
                first.retry_unpipelined();
            }
        } else if !is_blameless {
            self.count_failed_attempt(&kind);
        }
        self.server.apply(consequence.action, kind);
    }

    /// The request that was due broke the connection: it has a limited number of attempts.
    fn count_failed_attempt(&mut self, kind: &HttpErrorKind) {
        let Some(first) = self.requests.front_mut() else {
            return;
        };
        if first.count_broken_attempt(kind, &self.server.options.retry_policy) {
            let mut queue = self.server.queue();
            queue.outage.note_retry(first, kind, Instant::now());
        } else if let Some(request) = self.requests.pop_front() {
            let request = InFlightRequest::new(&self.server, request).finish();
            self.server.fail_or_wait(request, kind.clone());
        }
    }
}

impl Drop for InFlightRequests {
    fn drop(&mut self) {
        self.set_draining(false);
        self.server.put_back(&mut self.requests);
        self.server.report_new_properties();
    }
}

fn is_mismatch(request: &PendingRequest, response: &LookupResponse) -> bool {
    match request.target {
        RequestTarget::NarInfo(item) => is_about_another(&response.body, &item),
        RequestTarget::CacheInfo => false,
    }
}

/// Responses in order, while other requests were in flight, that prove that a server supports
/// pipelining.
const PROVING_RESPONSES: u32 = 16;
