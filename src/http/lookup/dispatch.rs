//! The task of one server: opens connections as its queue needs them, and follows redirects.
//!
//! Exactly one connection sends at a time, or several when the server welcomes that. A connection
//! that has all the requests it may carry is *draining*; its successor may connect meanwhile, but
//! waits for its permit, so that the change costs no round trip and still only one sends.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{Instrument as _, debug, debug_span};

use super::health::HealthAction;
use super::http1;
use super::http2;
use super::queue::QueueStopReason;
use super::redirect;
use super::request::{PendingRequest, RequestTarget};
use super::server::{HttpServer, InFlightRequest};
use crate::format::server_url::ServerUrl;
use crate::http::net::connect::Dialer;
use crate::http::options::Protocol;
use crate::http::s3::services;

/// Runs until the caller is gone. A server that is down may be reopened, but for the target of a redirect.
pub(super) async fn run(server: Arc<HttpServer>) {
    let span = debug_span!("server", url = server.url.as_str());
    dispatch(server).instrument(span).await;
}

async fn dispatch(server: Arc<HttpServer>) {
    let mut changed = server.changed.subscribe();
    loop {
        send_until_stopped(&server, &mut changed).await;
        loop {
            let stopped = server.queue().stopped().cloned();
            match stopped {
                None => break,
                Some(QueueStopReason::Down(_)) if server.redirects == 0 => {}
                Some(_) => return,
            }
            // Fails only when the server is gone, which this task holds.
            let _ = changed.changed().await;
        }
    }
}

async fn send_until_stopped(server: &Arc<HttpServer>, changed: &mut watch::Receiver<()>) {
    let mut connections = FuturesUnordered::new();
    let mut redirects = RedirectedRequests::new(server);
    let mut opened = 0;
    let reason = loop {
        changed.mark_unchanged();
        if let Some(reason) = server.queue().stopped().cloned() {
            break reason;
        }
        redirects.start();

        let due = {
            let mut queue = server.queue();
            if queue.end_waits(Instant::now()) {
                server.notify();
            }
            while queue.wants_connection(connections.len()) {
                queue.connecting += 1;
                opened += 1;
                let span = debug_span!("connection", number = opened);
                connections.push(connect_and_send(Arc::clone(server)).instrument(span));
            }
            queue.next_due()
        };
        tokio::select! {
            _ = changed.changed() => {}
            Some(()) = connections.next() => {}
            () = redirects.progress() => {}
            () = wait_until(due) => {}
        }
    };

    // They put back their requests; only then is everything there that has to fail.
    drop(connections);
    redirects.stop(&reason).await;
    server.fail_remaining();
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Requests whose answers are at another URL.
///
/// Where that is the same name on another server, the target gets a task of its own.
struct RedirectedRequests<'a> {
    server: &'a Arc<HttpServer>,
    /// To be followed one by one.
    waiting: VecDeque<(InFlightRequest, String)>,
    followed: FuturesUnordered<BoxFuture<'static, ()>>,
    /// Other servers that answer in this one's name, and their tasks.
    targets: HashMap<ServerUrl, Arc<HttpServer>>,
    tasks: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl<'a> RedirectedRequests<'a> {
    fn new(server: &'a Arc<HttpServer>) -> Self {
        Self {
            server,
            waiting: VecDeque::new(),
            followed: FuturesUnordered::new(),
            targets: HashMap::new(),
            tasks: FuturesUnordered::new(),
        }
    }

    /// Hands over or follows every redirect that may be followed now.
    fn start(&mut self) {
        loop {
            let redirected = self.server.queue().take_redirected();
            let Some((request, location)) = redirected else {
                break;
            };
            let target = self.target_for(&request, &location);
            let request = InFlightRequest::new(self.server, request);
            match target {
                Some(url) => self.target(url).take_over(request),
                None => self.waiting.push_back((request, location)),
            }
        }

        let connections_max = self.server.queue().connections_max;
        while self.followed.len() < connections_max
            && let Some((request, location)) = self.waiting.pop_front()
        {
            self.followed
                .push(redirect::follow(request, location).boxed());
        }
    }

    /// The server that `location` leads to, unless the redirects lead to ever more of them.
    fn target_for(&mut self, request: &PendingRequest, location: &str) -> Option<ServerUrl> {
        // The `nix-cache-info` of this server says nothing about another one.
        if request.target == RequestTarget::CacheInfo {
            return None;
        }
        let from = request.target.url(&self.server.url);
        let url = redirect::other_server(&from, location)?;
        self.remove_down_targets();
        let is_known = self.targets.contains_key(&url);
        (is_known || self.server.may_add_target()).then_some(url)
    }

    /// Removes the targets that went down a while ago: the next redirect may find them up again.
    fn remove_down_targets(&mut self) {
        let skip_time = self.server.options.target_skip_time;
        let before = self.targets.len();
        self.targets
            .retain(|_, target| !target.queue().was_stopped_for(skip_time));
        self.server.remove_targets(before - self.targets.len());
    }

    fn target(&mut self, url: ServerUrl) -> &Arc<HttpServer> {
        let (server, tasks) = (self.server, &self.tasks);
        self.targets.entry(url).or_insert_with_key(|url| {
            debug!(to = url.as_str(), "redirect to another server");
            let target = Arc::new(server.redirect_target(url.clone()));
            tasks.push(run(Arc::clone(&target)).boxed());
            target
        })
    }

    /// Completes when a followed redirect does. A target's task ends only when the target is down,
    /// and the target goes on failing its requests until it is removed.
    async fn progress(&mut self) {
        loop {
            tokio::select! {
                Some(()) = self.followed.next() => return,
                Some(()) = self.tasks.next() => {}
                else => std::future::pending().await,
            }
        }
    }

    /// Puts back what was to be followed, and makes every target fail its requests: it may have
    /// targets itself.
    async fn stop(mut self, reason: &QueueStopReason) {
        drop(self.waiting);
        drop(self.followed);
        for target in self.targets.values() {
            target.stop(reason.clone());
        }
        while self.tasks.next().await.is_some() {}
        for target in self.targets.values() {
            target.fail_remaining();
        }
        self.server.remove_targets(self.targets.len());
    }
}

async fn connect_and_send(server: Arc<HttpServer>) {
    let mut count = ConnectionCount::connecting(&server);
    if let Some(signer) = &server.signer
        && let Err(kind) = services::prepare(signer, &server.setup, &server.options).await
    {
        drop(count);
        server.apply(HealthAction::GiveUp, kind);
        return;
    }

    let dialer = Dialer {
        url: server.url.base(),
        options: &server.options,
        setup: &server.setup,
        timeout: server.timeouts.connect,
        // What is signed is signed as HTTP/1.1 sends it, and answered in order.
        offers_http2: server.signer.is_none() && server.queue().health.offers_http2(),
    };
    let connection = match dialer.connect().await {
        Ok(connection) => connection,
        Err(kind) => {
            drop(count);
            debug!(reason = %kind, "connecting failed");
            let action = server.queue().connecting_failed(&kind);
            server.apply(action, kind);
            return;
        }
    };

    let Ok(_permit) = server.send_permits.acquire().await else {
        return;
    };
    count.activate();
    let protocol = connection.protocol;
    debug!(protocol = protocol.name(), "connection opened");
    server.set_protocol(protocol);
    match protocol {
        Protocol::Http2 => http2::connection::run(&server, connection.transport).await,
        Protocol::Http1 | Protocol::File => {
            http1::connection::run(&server, connection.transport).await
        }
    }
}

/// Counts a connection as connecting, then as active, until it is dropped.
struct ConnectionCount<'a> {
    server: &'a HttpServer,
    is_active: bool,
}

impl<'a> ConnectionCount<'a> {
    /// The connection was counted when it was decided upon.
    fn connecting(server: &'a HttpServer) -> Self {
        Self {
            server,
            is_active: false,
        }
    }

    fn activate(&mut self) {
        self.is_active = true;
        let mut queue = self.server.queue();
        queue.connecting -= 1;
        queue.active += 1;
    }
}

impl Drop for ConnectionCount<'_> {
    fn drop(&mut self) {
        let mut queue = self.server.queue();
        if self.is_active {
            queue.active -= 1;
        } else {
            queue.connecting -= 1;
        }
    }
}
