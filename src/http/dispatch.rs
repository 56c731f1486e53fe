//! The task of one server: opens connections as the queue asks for them.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::connect::Dialer;
use super::events::{Learned, LookupEvent};
use super::options::Protocol;
use super::server::{Held, Server};
use super::{multiplex, pipeline, redirect};

/// Runs until the server is given up or nobody asks any more.
pub(super) async fn run(server: Arc<Server>) {
    let mut changed = server.changed.subscribe();
    let mut connections = FuturesUnordered::new();
    let mut detours = FuturesUnordered::new();
    loop {
        changed.mark_unchanged();
        let now = Instant::now();
        let due = {
            let mut state = server.lock();
            if state.over().is_some() {
                break;
            }
            let due = state.next_due(now);
            while state.wants_connection(connections.len(), now) {
                state.connecting += 1;
                connections.push(connect_and_ask(Arc::clone(&server)));
            }
            while detours.len() < state.connections_max
                && let Some((ask, location)) = state.take_redirected()
            {
                detours.push(redirect::follow(Held::new(&server, ask), location));
            }
            due
        };
        tokio::select! {
            _ = changed.changed() => {}
            Some(()) = connections.next() => {}
            Some(()) = detours.next() => {}
            () = tokio::time::sleep_until(due.unwrap_or(now)), if due.is_some() => {
                server.changed.send_replace(());
            }
        }
    }
    // They give back what they hold; only then is everything there that has to be refused.
    drop(connections);
    drop(detours);
    server.refuse_all();
}

async fn connect_and_ask(server: Arc<Server>) {
    let mut stage = Stage::connecting(&server);
    let dialer = Dialer {
        url: server.url.base(),
        options: &server.options,
        shared: &server.shared,
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
    let Ok(_turn) = server.turns.acquire().await else { return };
    stage.begin_asking();
    let protocol = connection.protocol;
    if server.lock().speaks(protocol) {
        let what = Learned::Protocol(protocol);
        server.events.send(LookupEvent::Learned { server: server.index, what });
    }
    match protocol {
        Protocol::Http2 => multiplex::run(&server, connection.transport).await,
        Protocol::Http1 | Protocol::File => pipeline::run(&server, connection.transport).await,
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
        Self { server, is_asking: false }
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
