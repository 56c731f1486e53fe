//! The lookups of one server that are not in flight, and how many may be sent now.
//!
//! Every method is one step of a few instructions under the server's lock. A request is in one
//! of four places: queued, delayed until a time, redirected to another URL, or in flight. Requests
//! in flight are only counted here; their holder returns or finishes them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::health::{ConnectionHealth, HealthAction};
use super::outage::ServerOutage;
use super::request::{PendingRequest, RequestTarget};
use super::window::SendWindow;
use crate::format::cache_info::CacheInfo;
use crate::format::store_path::HashPart;
use crate::http::error::{HttpError, HttpErrorKind};
use crate::http::options::{Options, Protocol, ServerSpec};

/// The queue of one server, and the counts of its connections.
pub(super) struct RequestQueue {
    pub(super) health: ConnectionHealth,
    pub(super) outage: ServerOutage,
    /// Whether a request that the server refuses is not sent again. The server is still paused for the others.
    pub(super) fails_at_once: bool,
    /// Connections that may send at the same time.
    pub(super) connections_max: usize,
    /// Connections that may not send yet.
    pub(super) connecting: usize,
    /// Connections that may send.
    pub(super) active: usize,
    /// Active connections that take no more requests.
    pub(super) draining: usize,
    queued: VecDeque<PendingRequest>,
    /// Requests to send again, by when; the number keeps equal times apart.
    delayed: BTreeMap<(Instant, u64), PendingRequest>,
    delayed_count: u64,
    /// Redirected requests, and the redirect's `Location`.
    redirected: Vec<(PendingRequest, String)>,
    in_flight: usize,
    /// Requests in flight on one connection.
    in_flight_max: usize,
    /// Requests in flight at a server that refused some for being too many.
    window: SendWindow,
    /// Whether each answer takes so long that a request had better go to another connection than wait
    /// behind others.
    is_slow: bool,
    protocol: Option<Protocol>,
    /// Until when nothing is sent; the time may have passed without being noticed yet.
    paused_until: Option<Instant>,
    /// How often an overloaded server was paused.
    pauses: u64,
    needs_cache_info: bool,
    /// Why and since when nothing is sent any more.
    stopped: Option<(QueueStopReason, Instant)>,
}

/// Why nothing is sent any more.
#[derive(Debug, Clone)]
pub(super) enum QueueStopReason {
    /// The server is down; every request fails with this error.
    Down(HttpError),
    /// The caller is gone; no request needs an answer.
    CallerGone,
}

impl RequestQueue {
    pub(super) fn new(spec: &ServerSpec, options: &Options) -> Self {
        // In a bucket, it shows whether the credentials are right.
        let is_bucket = spec.url.bucket().is_some();
        let known = spec.cache_info.as_ref().filter(|_| !is_bucket);
        Self {
            health: ConnectionHealth::new(
                options.retry_policy.clone(),
                spec.pipelining,
                spec.requests_per_connection,
            ),
            outage: ServerOutage::new(spec.retry_limits),
            fails_at_once: spec.fails_at_once,
            connections_max: known.map_or(1, |info| welcome_connections(info, options)),
            connecting: 0,
            active: 0,
            draining: 0,
            queued: VecDeque::new(),
            delayed: BTreeMap::new(),
            delayed_count: 0,
            redirected: Vec::new(),
            in_flight: 0,
            in_flight_max: options.max_in_flight,
            window: SendWindow::new(),
            is_slow: false,
            protocol: None,
            paused_until: None,
            pauses: 0,
            needs_cache_info: known.is_none(),
            stopped: None,
        }
    }

    /// What to request for a lookup of `item`: before the first item, the server's
    /// `nix-cache-info` too.
    pub(super) fn targets(
        &mut self,
        item: Option<HashPart>,
    ) -> impl Iterator<Item = RequestTarget> + use<> {
        let needs_cache_info = std::mem::take(&mut self.needs_cache_info);
        let cache_info = needs_cache_info.then_some(RequestTarget::CacheInfo);
        cache_info
            .into_iter()
            .chain(item.map(RequestTarget::NarInfo))
    }

    pub(super) fn push(&mut self, request: PendingRequest) {
        self.queued.push_back(request);
    }

    /// Moves up to `count` requests that may be sent now on one connection to `in_flight`, which
    /// holds the unanswered ones of that connection.
    pub(super) fn take(
        &mut self,
        in_flight: &mut VecDeque<PendingRequest>,
        count: usize,
        protocol: Protocol,
    ) {
        if !self.may_send() {
            return;
        }
        let now = Instant::now();
        // HTTP/2 responses belong to a stream and cannot be mixed up.
        let is_http1 = protocol == Protocol::Http1;
        let one_at_a_time = is_http1 && self.in_flight_max() == 1;
        for _ in 0..count {
            let Some(next) = self.queued.front() else {
                break;
            };
            let must_wait = in_flight.front().is_some_and(|first| {
                one_at_a_time || (is_http1 && (first.unpipelined || next.unpipelined))
            });
            if must_wait || !self.has_room() {
                break;
            }
            let Some(mut request) = self.queued.pop_front() else {
                break;
            };
            request.first_sent.get_or_insert(now);
            request.pauses_before = self.pauses;
            self.in_flight += 1;
            in_flight.push_back(request);
        }
    }

    /// Puts unanswered requests back to the front of the queue.
    pub(super) fn put_back(&mut self, requests: &mut VecDeque<PendingRequest>) {
        self.in_flight -= requests.len();
        while let Some(request) = requests.pop_back() {
            self.queued.push_front(request);
        }
    }

    /// Notes that one request is no longer in flight.
    pub(super) fn finish_one(&mut self) {
        self.in_flight -= 1;
    }

    pub(super) fn push_redirected(&mut self, request: PendingRequest, location: String) {
        self.redirected.push((request, location));
    }

    /// Takes a redirected request, and its `Location`.
    pub(super) fn take_redirected(&mut self) -> Option<(PendingRequest, String)> {
        let redirected = self.redirected.pop()?;
        self.in_flight += 1;
        Some(redirected)
    }

    /// Takes out every request that is not in flight.
    pub(super) fn drain(&mut self) -> Vec<PendingRequest> {
        let mut requests: Vec<PendingRequest> = self.queued.drain(..).collect();
        requests.extend(std::mem::take(&mut self.delayed).into_values());
        requests.extend(self.redirected.drain(..).map(|(request, _)| request));
        requests
    }

    pub(super) fn stopped(&self) -> Option<&QueueStopReason> {
        self.stopped.as_ref().map(|(reason, _)| reason)
    }

    /// Whether it was stopped this long ago.
    pub(super) fn was_stopped_for(&self, time: Duration) -> bool {
        let stopped = self.stopped.as_ref();
        stopped.is_some_and(|(_, since)| since.elapsed() >= time)
    }

    /// Stops everything; the first reason counts, unless the caller is gone. Whether this is the first.
    pub(super) fn stop(&mut self, reason: QueueStopReason) -> bool {
        let is_first = self.stopped.is_none();
        if is_first || matches!(reason, QueueStopReason::CallerGone) {
            self.stopped = Some((reason, Instant::now()));
        }
        is_first
    }

    /// Sends requests again to a server that was down, first that for its `nix-cache-info`. Its failures are
    /// not forgotten: it is given up when the first connection fails.
    pub(super) fn reopen(&mut self) {
        self.stopped
            .take_if(|(reason, _)| matches!(reason, QueueStopReason::Down(_)));
        self.needs_cache_info = true;
    }

    /// Whether there are requests that may be sent now.
    pub(super) fn may_send(&self) -> bool {
        self.stopped.is_none()
            && self.paused_until.is_none()
            && !self.queued.is_empty()
            && self.has_room()
    }

    /// Whether the server may get one more request than are in flight.
    fn has_room(&self) -> bool {
        self.window.has_room(self.in_flight)
    }

    /// Whether another connection is worth opening when `open` are there.
    pub(super) fn wants_connection(&self, open: usize) -> bool {
        if !self.may_send() {
            return false;
        }
        let connections_max = if self.window.is_probing() {
            1
        } else {
            self.connections_max
        };
        if open >= connections_max + self.draining.min(1) {
            return false;
        }

        let in_flight_max = self.in_flight_max();
        let limit = self
            .health
            .request_limit()
            .map_or(usize::MAX, |limit| limit as usize);
        let share = WORTH_A_CONNECTION.min(in_flight_max).min(limit);

        let taking = self.active.saturating_sub(self.draining);
        let free = (taking * in_flight_max).saturating_sub(self.in_flight);
        self.queued.len() > free + self.connecting * share
    }

    /// How many requests may be in flight at once on a connection.
    fn in_flight_max(&self) -> usize {
        if self.health.may_pipeline() && !self.is_slow {
            self.in_flight_max
        } else {
            1
        }
    }

    /// Whether requests that wait behind slow answers can be distributed over more connections.
    pub(super) fn may_spread(&self) -> bool {
        self.connections_max > 1 && !self.window.is_probing()
    }

    /// From now on each connection has one request in flight, until an answer comes quickly.
    pub(super) fn note_slow(&mut self) {
        self.is_slow = true;
    }

    /// An answer came quickly.
    pub(super) fn note_quick(&mut self) {
        self.is_slow = false;
    }

    /// Allows as many connections as the server welcomes; how many more than so far.
    pub(super) fn allow_connections(&mut self, info: &CacheInfo, options: &Options) -> usize {
        let more = welcome_connections(info, options).saturating_sub(self.connections_max);
        self.connections_max += more;
        more
    }

    /// Ends what lasts until `now`: the pause, and the delays of requests. Whether there was
    /// any: then the connections have to be notified, since they may have looked just before.
    pub(super) fn end_waits(&mut self, now: Instant) -> bool {
        let mut ended = self.paused_until.take_if(|until| *until <= now).is_some();
        while let Some(entry) = self.delayed.first_entry()
            && entry.key().0 <= now
        {
            self.queued.push_back(entry.remove());
            ended = true;
        }
        ended
    }

    /// When the next wait ends.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let delayed = self.delayed.keys().next().map(|&(due, _)| due);
        [self.paused_until, delayed].into_iter().flatten().min()
    }

    /// What to do after a connection could not be made. While others are active, the server is
    /// just given no more of them.
    pub(super) fn connecting_failed(&mut self, kind: &HttpErrorKind) -> HealthAction {
        let action = self.health.connecting_failed(kind, fastrand::f64());
        if self.active == 0 {
            return action;
        }
        self.connections_max = self.connections_max.min(self.active);
        match action {
            HealthAction::GiveUp => HealthAction::Pause(self.health.policy().base),
            other => other,
        }
    }

    /// Notes the protocol of a new connection. Whether it is another one than before.
    pub(super) fn set_protocol(&mut self, protocol: Protocol) -> bool {
        if protocol == Protocol::Http2 {
            self.in_flight_max = self.in_flight_max.min(HTTP2_STREAMS);
        }
        self.protocol.replace(protocol) != Some(protocol)
    }

    /// Notes that the server answered a request.
    pub(super) fn answered(&mut self) {
        self.health.answered();
        self.window.answered();
    }

    /// Notes that the server answered what was requested, or said where the answer is.
    pub(super) fn answered_target(&mut self, target: RequestTarget) {
        self.answered();
        self.outage.answered(target);
    }

    /// Sends `request` again at `until`, because the server fails as a whole. If nothing else would show that it
    /// answers again, its `nix-cache-info` is requested as well.
    pub(super) fn outlast(&mut self, until: Instant, request: PendingRequest) {
        self.delay(until, request);
        let has_others = self.in_flight > 0 || !self.queued.is_empty();
        if !has_others && self.outage.begin_probe() {
            self.push(PendingRequest::new(RequestTarget::CacheInfo));
        }
    }

    pub(super) fn pause_until(&mut self, until: Instant) {
        self.paused_until = self.paused_until.max(Some(until));
    }

    /// Counts an error status. If it is the whole server's, everything pauses, or the server is
    /// given up; all the responses to pipelined requests cause a single pause.
    pub(super) fn pause_for_error_status(
        &mut self,
        request: &PendingRequest,
        kind: &HttpErrorKind,
        status: u16,
    ) -> HealthAction {
        if !self.health.note_error_status(status) || request.pauses_before < self.pauses {
            return HealthAction::Continue;
        }
        self.pauses += 1;
        let action = self.health.overloaded(kind, fastrand::f64());
        if let HealthAction::Pause(pause) = action {
            self.window.paused(pause, self.in_flight);
        }
        action
    }

    /// Whether a request that was refused with `kind` was one too many at a server that answers others.
    pub(super) fn is_one_too_many(&self, kind: &HttpErrorKind) -> bool {
        kind.is_overload() && self.window.is_progressing()
    }

    pub(super) fn delay(&mut self, until: Instant, request: PendingRequest) {
        self.delayed_count += 1;
        self.delayed.insert((until, self.delayed_count), request);
    }
}

fn welcome_connections(info: &CacheInfo, options: &Options) -> usize {
    if info.want_mass_query {
        options.mass_query_connections.max(1)
    } else {
        1
    }
}

/// Queued requests that make another connection worth its handshake.
const WORTH_A_CONNECTION: usize = 250;

/// Streams that servers commonly accept at once on an HTTP/2 connection.
pub(super) const HTTP2_STREAMS: usize = 100;
