//! The lookups of one server on the network, and what becomes of the responses.
//!
//! Requests wait in a queue; each connection takes as many as it may and puts back, in order,
//! those that it did not get answered, however it ends. So no request is lost, and none that was
//! answered is sent again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tracing::{debug, trace};

use super::encoder::RequestEncoder;
use super::events::{CacheInfoText, EventSender, LookupEvent, NarInfoAnswer, ServerProperty};
use super::health::HealthAction;
use super::queue::{QueueStopReason, RequestQueue};
use super::request::{PendingRequest, RequestTarget};
use super::response::{self, LookupResponse, ResponseMeaning};
use crate::format::cache_info::CacheInfo;
use crate::format::server_list::ServerIndex;
use crate::format::server_url::{ServerUrl, redacted};
use crate::format::store_path::HashPart;
use crate::http::error::{HttpError, HttpErrorKind};
use crate::http::net::runtime::ConnectionSetup;
use crate::http::options::{Options, Protocol, ServerSpec, Timeouts};
use crate::http::retry::RetryDecision;
use crate::sync::lock;

/// A server on the network, shared by the callers and the connections.
pub(super) struct HttpServer {
    pub(super) url: ServerUrl,
    pub(super) options: Arc<Options>,
    pub(super) setup: Arc<ConnectionSetup>,
    pub(super) timeouts: Timeouts,
    pub(super) encoder: RequestEncoder,
    /// Notified whenever there may be something to do.
    pub(super) changed: watch::Sender<()>,
    /// Permits to send requests: one per connection that may send at the same time.
    pub(super) send_permits: Semaphore,
    /// Redirects that lead here from the server that the caller named.
    pub(super) redirects: usize,
    index: ServerIndex,
    events: EventSender,
    sent: Arc<AtomicU64>,
    /// Other servers that may still be opened for redirects, wherever those lead from.
    targets_left: Arc<AtomicUsize>,
    queue: Mutex<RequestQueue>,
}

impl HttpServer {
    pub(super) fn new(
        index: ServerIndex,
        spec: ServerSpec,
        options: &Arc<Options>,
        setup: &Arc<ConnectionSetup>,
        events: EventSender,
    ) -> Self {
        let queue = RequestQueue::new(&spec, options);
        let timeouts = spec
            .timeouts
            .unwrap_or_else(|| options.timeouts_of(spec.url.base()));
        Self {
            encoder: RequestEncoder::new(&spec.url, options),
            timeouts: timeouts.bounded(),
            url: spec.url,
            options: Arc::clone(options),
            setup: Arc::clone(setup),
            changed: watch::Sender::new(()),
            send_permits: Semaphore::new(queue.connections_max),
            redirects: 0,
            index,
            events,
            sent: Arc::default(),
            targets_left: Arc::new(AtomicUsize::new(TARGETS_MAX)),
            queue: Mutex::new(queue),
        }
    }

    /// Whether redirects may lead to one more server, which is counted then.
    pub(super) fn may_add_target(&self) -> bool {
        let relaxed = Ordering::Relaxed;
        let taken = self
            .targets_left
            .fetch_update(relaxed, relaxed, |left| left.checked_sub(1));
        taken.is_ok()
    }

    /// The server at `url` that this one redirects to. It answers in this one's name; its
    /// properties are not reported.
    pub(super) fn redirect_target(&self, url: ServerUrl) -> Self {
        let cache_info = CacheInfo {
            want_mass_query: self.queue().connections_max > 1,
            ..CacheInfo::default()
        };
        let spec = ServerSpec {
            cache_info: Some(cache_info),
            timeouts: Some(self.timeouts),
            ..ServerSpec::new(url)
        };
        let events = self.events.clone();
        Self {
            redirects: self.redirects + 1,
            sent: Arc::clone(&self.sent),
            targets_left: Arc::clone(&self.targets_left),
            ..Self::new(self.index, spec, &self.options, &self.setup, events)
        }
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, RequestQueue> {
        lock(&self.queue)
    }

    /// Notifies the connections that there may be something to do.
    pub(super) fn notify(&self) {
        self.changed.send_replace(());
    }

    /// Queues the request for `item`; before the first one, that for `nix-cache-info`.
    pub(super) fn request(&self, item: Option<HashPart>) {
        let mut queue = self.queue();
        let targets = queue.targets(item);
        self.push(queue, targets);
    }

    /// Takes over a request from another server.
    pub(super) fn take_over(&self, request: InFlightRequest) {
        let target = request.finish().target;
        self.push(self.queue(), [target]);
    }

    fn push(
        &self,
        mut queue: MutexGuard<'_, RequestQueue>,
        targets: impl IntoIterator<Item = RequestTarget>,
    ) {
        match queue.stopped().cloned() {
            None => targets
                .into_iter()
                .for_each(|target| queue.push(PendingRequest::new(target))),
            Some(reason) => {
                drop(queue);
                targets
                    .into_iter()
                    .for_each(|target| self.fail_stopped(target, &reason));
            }
        }
        self.notify();
    }

    /// Stops everything; the first reason counts.
    pub(super) fn stop(&self, reason: QueueStopReason) {
        let mut queue = self.queue();
        if queue.stop(reason.clone())
            && let QueueStopReason::Down(error) = reason
        {
            debug!(server = self.url.as_str(), reason = %error.without_url(), "server is down");
            if self.redirects == 0 {
                self.events.send(LookupEvent::ServerDown {
                    server: self.index,
                    error,
                });
            }
        }
        drop(queue);
        self.notify();
    }

    /// Fails every request that is left. For when the connections are gone.
    pub(super) fn fail_remaining(&self) {
        let mut queue = self.queue();
        let Some(reason) = queue.stopped().cloned() else {
            return;
        };
        let requests = queue.drain();
        drop(queue);
        requests
            .iter()
            .for_each(|request| self.fail_stopped(request.target, &reason));
    }

    fn fail_stopped(&self, target: RequestTarget, reason: &QueueStopReason) {
        if let QueueStopReason::Down(error) = reason {
            self.events
                .send(LookupEvent::failed(self.index, target, error.clone()));
        }
    }

    /// Reports that `request` has failed for good.
    pub(super) fn fail(&self, request: &PendingRequest, kind: HttpErrorKind) {
        let error = HttpError::new(&request.target.url(&self.url), kind);
        let error = error.after_attempts(request.attempts);
        self.events
            .send(LookupEvent::failed(self.index, request.target, error));
        // Others may have waited until it was no longer in flight.
        self.notify();
    }

    /// Moves up to `count` requests that are sent now on one connection to `in_flight`, which
    /// holds the unanswered ones of that connection.
    pub(super) fn take(
        &self,
        in_flight: &mut VecDeque<PendingRequest>,
        count: usize,
        protocol: Protocol,
    ) {
        let before = in_flight.len();
        self.queue().take(in_flight, count, protocol);
        for request in in_flight.range(before..) {
            trace!(server = self.url.as_str(), target = ?request.target, "request");
            self.count_sent(request.target);
        }
    }

    /// Counts a request, if it is for an item.
    pub(super) fn count_sent(&self, target: RequestTarget) {
        if matches!(target, RequestTarget::NarInfo(_)) {
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests for items that were sent, to here or to where this server redirects.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Puts unanswered requests back into the queue.
    pub(super) fn put_back(&self, requests: &mut VecDeque<PendingRequest>) {
        self.queue().put_back(requests);
        self.notify();
    }

    /// Handles the response to `request`; waits while the caller has too much to read already.
    pub(super) async fn handle_response(&self, request: InFlightRequest, response: LookupResponse) {
        trace!(
            server = self.url.as_str(),
            target = ?request.target(),
            status = response.head.status,
            bytes = response.body.len(),
            "response"
        );
        match response::interpret(response, self.options.narinfo_limit_bytes) {
            ResponseMeaning::Answer(answer) => {
                let (event, size) = self.event(request.target(), answer);
                // Only what has its place in the event queue is no longer put back.
                let reserved = self.events.reserve(size).await;
                request.finish();
                self.queue().answered();
                self.events.send_reserved(reserved, event);
            }
            ResponseMeaning::Redirect(location) => {
                let request = request.finish();
                let mut queue = self.queue();
                queue.answered();
                queue.push_redirected(request, location);
            }
            ResponseMeaning::Failed(kind) => self.retry_or_fail(request, kind),
        }
        self.notify();
    }

    /// What to report, and how many bytes from the server it holds.
    fn event(&self, target: RequestTarget, answer: NarInfoAnswer) -> (LookupEvent, usize) {
        let server = self.index;
        match (target, answer) {
            (RequestTarget::NarInfo(item), answer) => {
                let size = match &answer {
                    NarInfoAnswer::Found { text, .. } => text.len(),
                    NarInfoAnswer::Missing { .. } | NarInfoAnswer::Preparing { .. } => 0,
                };
                let answer = Ok(answer);
                let event = LookupEvent::Answer {
                    server,
                    item,
                    answer,
                };
                (event, size)
            }
            (RequestTarget::CacheInfo, NarInfoAnswer::Found { text, max_age }) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                let info = CacheInfo::parse(&text);
                let more = self.queue().allow_connections(&info, &self.options);
                self.send_permits.add_permits(more);
                let size = text.len();
                let info = Ok(Some(CacheInfoText { text, max_age }));
                (LookupEvent::CacheInfo { server, info }, size)
            }
            (RequestTarget::CacheInfo, _) => {
                let info = Ok(None);
                (LookupEvent::CacheInfo { server, info }, 0)
            }
        }
    }

    /// After a failure that the server itself reported.
    pub(super) fn retry_or_fail(&self, request: InFlightRequest, kind: HttpErrorKind) {
        let mut request = request.finish();
        request.count_failure(1);
        let now = Instant::now();
        let mut queue = self.queue();
        let policy = queue.health.policy();
        let (weight, age) = (request.failure_weight, request.age(now));
        let decision = policy.next(&kind, weight, age, fastrand::f64());

        let action = match kind {
            HttpErrorKind::Status { status, .. } if kind.is_worth_repeating() => {
                queue.error_status(&request, &kind, status)
            }
            _ => {
                queue.answered();
                HealthAction::Continue
            }
        };
        match decision {
            RetryDecision::Stop => {
                drop(queue);
                self.fail(&request, kind.clone());
            }
            RetryDecision::After(delay) => {
                debug!(
                    url = %redacted(&request.target.url(&self.url)),
                    attempts = request.attempts,
                    ?delay,
                    reason = %kind,
                    "retry"
                );
                queue.delay(now + delay, request);
                drop(queue);
            }
        }
        self.apply(action, kind);
    }

    /// Does what the server's health requires.
    pub(super) fn apply(&self, action: HealthAction, kind: HttpErrorKind) {
        match action {
            HealthAction::Continue => {}
            HealthAction::Pause(pause) => {
                debug!(server = self.url.as_str(), ?pause, reason = %kind, "server is paused");
                self.queue().pause_until(Instant::now() + pause);
            }
            HealthAction::GiveUp => {
                let error = HttpError::new(self.url.base(), kind);
                self.stop(QueueStopReason::Down(error));
            }
        }
        self.notify();
    }

    /// Notes the protocol of a new connection.
    pub(super) fn set_protocol(&self, protocol: Protocol) {
        if self.queue().set_protocol(protocol) {
            self.report_property(ServerProperty::Protocol(protocol));
        }
    }

    /// Reports the properties that were found since the last time.
    pub(super) fn report_new_properties(&self) {
        let properties = self.queue().health.take_new_properties();
        properties
            .into_iter()
            .for_each(|property| self.report_property(property));
    }

    fn report_property(&self, property: ServerProperty) {
        debug!(server = self.url.as_str(), ?property, "server property");
        if self.redirects == 0 {
            self.events.send(LookupEvent::ServerProperty {
                server: self.index,
                property,
            });
        }
    }
}

/// A request in flight by itself; put back into the queue when it is dropped.
pub(super) struct InFlightRequest {
    server: Arc<HttpServer>,
    request: Option<PendingRequest>,
}

impl InFlightRequest {
    pub(super) fn new(server: &Arc<HttpServer>, request: PendingRequest) -> Self {
        Self {
            server: Arc::clone(server),
            request: Some(request),
        }
    }

    pub(super) fn server(&self) -> &Arc<HttpServer> {
        &self.server
    }

    pub(super) fn target(&self) -> RequestTarget {
        self.request.as_ref().expect(ONLY_FINISH_TAKES).target
    }

    /// The request, no longer in flight.
    pub(super) fn finish(mut self) -> PendingRequest {
        self.server.queue().finish_one();
        self.request.take().expect(ONLY_FINISH_TAKES)
    }
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            self.server.put_back(&mut VecDeque::from([request]));
        }
    }
}

/// Other servers that redirects from one server may lead to.
const TARGETS_MAX: usize = 8;

const ONLY_FINISH_TAKES: &str = "only `finish` takes the request out, and it consumes the guard";
