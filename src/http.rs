//! Layer 3: talking to substitute servers.
//!
//! The program is synchronous; everything asynchronous lives in here, on a runtime of the
//! [`Client`]'s own, and comes out through channels. Two kinds of traffic, two transports:
//! - *Lookups*, thousands of small answers: a client of our own that sends requests ahead
//!   ([`Client::lookups`]). HTTP libraries wait for each answer, which costs a round trip per item.
//! - *Nars*, few and large: [`Client::nar`], over an ordinary HTTP/1.1 client.
//!
//! The way of a lookup: `lookups` (asked) -> `server`, `state` (waits) -> `dispatch`, `connect` (a
//! connection) -> `pipeline` or `multiplex` (sent) -> `wire` (bytes to answer) -> `answer` (what it
//! means) -> `events` (reported). What goes wrong on the way is judged in `health` and `retry`, which
//! are pure, like `wire`, `answer` and `proxy`.
//!
//! What servers say is handed up as it is; nothing here decides what to believe. Nothing here
//! reads the environment either: proxies and certificates arrive in [`Options`].

mod answer;
mod ask;
mod blocking;
mod connect;
mod dispatch;
mod engine;
mod error;
mod events;
mod file;
mod file_server;
mod health;
mod lane;
mod lookups;
mod multiplex;
mod nar;
mod options;
mod pipeline;
mod probe;
mod proxy;
mod redirect;
mod request;
mod retry;
mod server;
mod socks;
mod state;
mod tls;
mod web;
mod wire;

use std::sync::Arc;

use url::Url;

use crate::format::server_url::ServerUrl;
use engine::Engine;

pub(crate) use error::{Class, HttpError, Outage, is_shortage};
pub(crate) use events::{
    CacheInfoText, Learned, LookupEvent, LookupEvents, NarInfoAnswer, QueuedEvent,
};
pub(crate) use lookups::Lookups;
pub(crate) use nar::{BodyStatus, NarBody, NarRequest};
pub(crate) use options::{
    CacheInfoKnowledge, Options, Pipelining, ServerSpec, Timeouts, TlsVerification,
};
pub(crate) use probe::{Probe, ServerSaid};
pub(crate) use proxy::{NoProxy, Proxies};
pub(crate) use retry::RetryPolicy;

/// The way to all servers. Cheap to clone; threads may share it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    engine: Arc<Engine>,
}

impl Client {
    /// A client with these options. Certificates are loaded when they are first needed.
    ///
    /// # Errors
    /// The system gives no threads.
    pub(crate) fn new(options: Options) -> Result<Self, HttpError> {
        Ok(Self {
            engine: Arc::new(Engine::new(options)?),
        })
    }

    /// Opens lookups at `servers`. Nothing is connected before the first question.
    ///
    /// # Errors
    /// The system has no thread for a `file:` server.
    pub(crate) fn lookups(
        &self,
        servers: Vec<ServerSpec>,
    ) -> Result<(Lookups, LookupEvents), HttpError> {
        lookups::open(&self.engine, servers)
    }

    /// Opens a nar: waits until its first byte can be read.
    ///
    /// # Errors
    /// The server does not give it, after the retries of the [`RetryPolicy`].
    pub(crate) fn nar(&self, request: NarRequest) -> Result<NarBody, HttpError> {
        nar::open(&self.engine, request)
    }

    /// What a server, or a proxy before it, says about a nar without sending it.
    ///
    /// # Errors
    /// The server gives no usable answer.
    pub(crate) fn probe(&self, url: &Url) -> Result<Probe, HttpError> {
        probe::probe(&self.engine, url)
    }

    /// What a server says of itself, asked now.
    ///
    /// # Errors
    /// The server gives no usable answer.
    pub(crate) fn cache_info(&self, server: &ServerUrl) -> Result<ServerSaid, HttpError> {
        probe::cache_info(&self.engine, server)
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
