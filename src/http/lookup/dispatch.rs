//! The task of one server: opens connections as the queue asks for them.
//!
//! Exactly one asks at a time, or several when the server welcomes that. A connection that has
//! all the requests it may carry is *draining*; its successor may connect meanwhile, but waits for
//! its turn, so that the change costs no round trip and there is still only one that asks.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;

use super::http1::connection;
use super::pending::{Ask, Held};
use super::queue::Over;
use super::request::Question;
use super::server::Server;
use super::{http2, redirect};
use crate::format::server_url::ServerUrl;
use crate::http::download::client::REDIRECTS_MAX;
use crate::http::net::connect::Dialer;
use crate::http::options::Protocol;

/// Runs until the server is given up or nobody asks any more.
pub(in crate::http) async fn run(server: Arc<Server>) {
    let mut changed = server.changed.subscribe();
    let mut connections = FuturesUnordered::new();
    let mut detours = Detours::new(&server);
    let over = loop {
        changed.mark_unchanged();
        if let Some(over) = server.lock().over().cloned() {
            break over;
        }
        detours.open();
        let due = {
            let mut state = server.lock();
            if state.end_waits(Instant::now()) {
                server.changed.send_replace(());
            }
            while state.wants_connection(connections.len()) {
                state.connecting += 1;
                connections.push(connect_and_ask(Arc::clone(&server)));
            }
            state.next_due()
        };
        tokio::select! {
            _ = changed.changed() => {}
            Some(()) = connections.next() => {}
            () = detours.progress() => {}
            () = wait_until(due) => {}
        }
    };
    // They give back what they hold; only then is everything there that has to be refused.
    drop(connections);
    detours.end(&over).await;
    server.refuse_all();
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Questions whose answers are elsewhere.
struct Detours<'a> {
    server: &'a Arc<Server>,
    /// To be followed one by one.
    waiting: VecDeque<(Held, String)>,
    singles: FuturesUnordered<BoxFuture<'static, ()>>,
    /// Other servers that are asked in this one's name, and their tasks.
    annexes: HashMap<ServerUrl, Arc<Server>>,
    tasks: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl<'a> Detours<'a> {
    fn new(server: &'a Arc<Server>) -> Self {
        Self {
            server,
            waiting: VecDeque::new(),
            singles: FuturesUnordered::new(),
            annexes: HashMap::new(),
            tasks: FuturesUnordered::new(),
        }
    }

    /// Sets off for every answer that may be fetched now.
    fn open(&mut self) {
        loop {
            let taken = self.server.lock().take_redirected();
            let Some((ask, location)) = taken else { break };
            let annex = self.annex_for(&ask, &location);
            let held = Held::new(self.server, ask);
            match annex {
                Some(url) => self.annex(url).adopt(held),
                None => self.waiting.push_back((held, location)),
            }
        }
        let connections_max = self.server.lock().connections_max;
        while self.singles.len() < connections_max
            && let Some((held, location)) = self.waiting.pop_front()
        {
            self.singles.push(redirect::follow(held, location).boxed());
        }
    }

    /// The server to ask instead, unless the redirects lead to ever more of them.
    fn annex_for(&self, ask: &Ask, location: &str) -> Option<ServerUrl> {
        // What this server says of itself is not for another one to learn from.
        if ask.question == Question::CacheInfo {
            return None;
        }
        let from = ask.question.url(&self.server.url);
        let url = redirect::other_server(&from, location)?;
        let is_known = self.annexes.contains_key(&url);
        let may_open = self.annexes.len() < ANNEXES_MAX && self.server.hops < REDIRECTS_MAX;
        (is_known || may_open).then_some(url)
    }

    fn annex(&mut self, url: ServerUrl) -> &Arc<Server> {
        let (server, tasks) = (self.server, &self.tasks);
        self.annexes.entry(url).or_insert_with_key(|url| {
            let annex = Arc::new(server.annex(url.clone()));
            tasks.push(run(Arc::clone(&annex)).boxed());
            annex
        })
    }

    /// Completes when a single one does. An annex ends only when it is given up, and goes on
    /// refusing what it is asked.
    async fn progress(&mut self) {
        loop {
            tokio::select! {
                Some(()) = self.singles.next() => return,
                Some(()) = self.tasks.next() => {}
                else => std::future::pending().await,
            }
        }
    }

    /// Gives back what was to be followed, and has every annex refuse what it holds: it may have
    /// annexes itself.
    async fn end(mut self, over: &Over) {
        drop(self.waiting);
        drop(self.singles);
        self.annexes
            .values()
            .for_each(|annex| annex.stop(over.clone()));
        while self.tasks.next().await.is_some() {}
        self.annexes.values().for_each(|annex| annex.refuse_all());
    }
}

async fn connect_and_ask(server: Arc<Server>) {
    let mut stage = Stage::connecting(&server);
    let dialer = Dialer {
        url: server.url.base(),
        options: &server.options,
        setup: &server.setup,
        timeout: server.timeouts.connect,
        offers_http2: server.lock().health.offers_http2(),
    };
    let connection = match dialer.connect().await {
        Ok(connection) => connection,
        Err(kind) => {
            drop(stage);
            let course = server.lock().not_connected(&kind);
            server.follow(course, kind);
            return;
        }
    };
    let Ok(_turn) = server.turns.acquire().await else {
        return;
    };
    stage.begin_asking();
    let protocol = connection.protocol;
    server.speaks(protocol);
    match protocol {
        Protocol::Http2 => http2::run(&server, connection.transport).await,
        Protocol::Http1 | Protocol::File => connection::run(&server, connection.transport).await,
    }
}

/// Counts a connection as connecting, then as asking, until it is dropped.
struct Stage<'a> {
    server: &'a Server,
    is_asking: bool,
}

impl<'a> Stage<'a> {
    /// It was counted when it was decided upon.
    fn connecting(server: &'a Server) -> Self {
        Self {
            server,
            is_asking: false,
        }
    }

    fn begin_asking(&mut self) {
        self.is_asking = true;
        let mut state = self.server.lock();
        state.connecting -= 1;
        state.asking += 1;
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        let mut state = self.server.lock();
        if self.is_asking {
            state.asking -= 1;
        } else {
            state.connecting -= 1;
        }
    }
}

/// Other servers that one server may lead to.
const ANNEXES_MAX: usize = 8;
