//! The lookups of one server on the network: what waits, is sent, and has failed.
//!
//! Requests wait in a queue; each connection takes as many as it may and puts back, in order,
//! those that it did not get answered, however it ends. So no request is lost, and none that was
//! answered is sent again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tracing::{debug, trace};
use url::Url;

use super::encoder::RequestEncoder;
use super::events::{EventSender, LookupEvent, ServerProperty};
use super::health::HealthAction;
use super::outage::OutageVerdict;
use super::queue::{QueueStopReason, RequestQueue};
use super::request::{PendingRequest, RequestTarget};
use crate::format::cache_info::CacheInfo;
use crate::format::server_list::ServerIndex;
use crate::format::server_url::ServerUrl;
use crate::format::store_path::HashPart;
use crate::http::error::{HttpError, HttpErrorKind};
use crate::http::net::runtime::ConnectionSetup;
use crate::http::options::{Options, Protocol, ServerSpec, Timeouts};
use crate::http::proxies::answers_itself;
use crate::http::s3::signer::BucketSigner;
use crate::sync::lock;

/// A server on the network, shared by the callers and the connections.
pub(super) struct HttpServer {
    pub(super) url: ServerUrl,
    pub(super) options: Arc<Options>,
    pub(super) setup: Arc<ConnectionSetup>,
    pub(super) timeouts: Timeouts,
    pub(super) encoder: RequestEncoder,
    /// What signs the requests, if it is a bucket.
    pub(super) signer: Option<Arc<BucketSigner>>,
    /// Notified whenever there may be something to do.
    pub(super) changed: watch::Sender<()>,
    /// Permits to send requests: one per connection that may send at the same time.
    pub(super) send_permits: Semaphore,
    /// Redirects that lead here from the server that the caller named.
    pub(super) redirects: usize,
    pub(super) index: ServerIndex,
    pub(super) events: EventSender,
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
            signer: options.credentials.signer_of(&spec.url).cloned(),
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
        self.targets_left
            .fetch_update(relaxed, relaxed, |left| left.checked_sub(1))
            .is_ok()
    }

    /// Notes that redirects lead to `count` of these servers no more.
    pub(super) fn remove_targets(&self, count: usize) {
        self.targets_left.fetch_add(count, Ordering::Relaxed);
    }

    /// The server at `url` that this one redirects to. It answers in this one's name; its
    /// properties are not reported.
    pub(super) fn redirect_target(&self, url: ServerUrl) -> Self {
        let queue = self.queue();
        let cache_info = CacheInfo {
            want_mass_query: queue.connections_max > 1,
            ..CacheInfo::default()
        };
        let spec = ServerSpec {
            cache_info: Some(cache_info),
            timeouts: Some(self.timeouts),
            retry_limits: queue.outage.limits(),
            fails_at_once: queue.fails_at_once,
            ..ServerSpec::new(url)
        };
        drop(queue);

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
        let error = self.error(&request.target.url(&self.url), kind);
        let error = error.after_attempts(request.attempts);
        self.events
            .send(LookupEvent::failed(self.index, request.target, error));
        // Others may have waited until it was no longer in flight.
        self.notify();
    }

    /// Fails `request`, which had all its attempts, unless the server fails as a whole and is waited for.
    pub(super) fn fail_or_wait(&self, mut request: PendingRequest, kind: HttpErrorKind) {
        let now = Instant::now();
        let mut queue = self.queue();
        let verdict = queue
            .outage
            .judge_request(&mut request, &kind, now, fastrand::f64());
        if let OutageVerdict::Wait(wait) = verdict {
            queue.outlast(now + wait, request);
            drop(queue);
            self.report_wait(wait, &kind);
            return self.notify();
        }
        drop(queue);
        self.fail(&request, kind.clone());
        if verdict == OutageVerdict::TimeOver {
            self.apply(HealthAction::GiveUp, kind);
        }
    }

    /// Reports now and then that the server is waited for, `pause` from now on, after it failed with `kind`.
    fn report_wait(&self, pause: Duration, kind: &HttpErrorKind) {
        let now = Instant::now();
        let mut queue = self.queue();
        if !queue.outage.is_report_due(pause, now) {
            return;
        }
        let failing_for = queue.outage.failing_for(now);
        drop(queue);
        self.events.send(LookupEvent::ServerAwaited {
            server: self.index,
            error: self.error(self.url.base(), kind.clone()),
            failing_for,
        });
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

    /// Does what the server's health requires.
    pub(super) fn apply(&self, action: HealthAction, kind: HttpErrorKind) {
        match action {
            HealthAction::Continue => {}
            HealthAction::Pause(pause) => {
                self.queue().outage.failed(&kind, Instant::now());
                self.pause(pause, &kind);
            }
            HealthAction::GiveUp => {
                let (now, random) = (Instant::now(), fastrand::f64());
                let verdict = self.queue().outage.judge_server(&kind, now, random);
                if let OutageVerdict::Wait(pause) = verdict {
                    self.pause(pause, &kind);
                } else {
                    let error = self.error(self.url.base(), kind);
                    self.stop(QueueStopReason::Down(error));
                }
            }
        }
        self.notify();
    }

    fn pause(&self, pause: Duration, kind: &HttpErrorKind) {
        debug!(server = self.url.as_str(), ?pause, reason = %kind, "server is paused");
        self.queue().pause_until(Instant::now() + pause);
        self.report_wait(pause, kind);
    }

    /// The failure of a request for `url`, which names the redirect target or the proxy that it is
    /// the fault of.
    fn error(&self, url: &Url, kind: HttpErrorKind) -> HttpError {
        let kind = match self.options.proxies.for_url(url) {
            Some(proxy) if answers_itself(proxy, url) || kind.status() == Some(407) => {
                kind.via_proxy(proxy)
            }
            _ => kind,
        };
        let kind = if self.redirects > 0 {
            kind.after_redirect(url)
        } else {
            kind
        };
        HttpError::new(url, kind)
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
        self.request().target
    }

    pub(super) fn request(&self) -> &PendingRequest {
        self.request.as_ref().expect(ONLY_FINISH_TAKES)
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
