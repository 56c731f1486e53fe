//! Layer 3: talking to substitute servers.
//!
//! The program is synchronous; everything asynchronous lives in here, on a runtime of the
//! [`Client`]'s own, and comes out through channels. Two kinds of traffic, two transports:
//! - *Lookups* (`lookup`), thousands of small answers: a client of our own that sends requests ahead
//!   ([`Client::lookups`]). HTTP libraries wait for each answer, which costs a round trip per item.
//! - *Nars* (`download`), few and large: [`Client::nar`], over an ordinary HTTP/1.1 client.
//!
//! What servers say is handed up as it is; nothing here decides what to believe. Nothing here
//! reads the environment either: proxies and certificates arrive in [`Options`].

mod download;
mod error;
mod lookup;
mod net;
mod options;
mod proxies;
mod queue;
mod retry;

use std::sync::Arc;

use url::Url;

use crate::format::server_url::ServerUrl;
use download::{body, probe};
use net::runtime::HttpRuntime;

pub(crate) use download::body::NarBody;
pub(crate) use download::nar::{BodyStatus, NarRequest};
pub(crate) use download::probe::ProbeResponse;
pub(crate) use error::{HttpError, HttpErrorClass, Outage, is_shortage};
pub(crate) use lookup::cache_info::CacheInfoResponse;
pub(crate) use lookup::client::Lookups;
pub(crate) use lookup::events::{
    CacheInfoText, LookupEvent, LookupEvents, NarInfoAnswer, ServerProperty,
};
pub(crate) use options::{Options, PipeliningSupport, ServerSpec, Timeouts, TlsVerification};
pub(crate) use proxies::{NoProxy, Proxies};
pub(crate) use queue::Queued;
pub(crate) use retry::RetryPolicy;

/// The way to all servers. Cheap to clone; threads may share it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    runtime: Arc<HttpRuntime>,
}

impl Client {
    /// A client with these options. Certificates are loaded when they are first needed.
    ///
    /// # Errors
    /// The system gives no threads.
    pub(crate) fn new(options: Options) -> Result<Self, HttpError> {
        Ok(Self {
            runtime: Arc::new(HttpRuntime::new(options)?),
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
        lookup::client::open(&self.runtime, servers)
    }

    /// Opens a nar: waits until its first byte can be read.
    ///
    /// # Errors
    /// The server does not give it, after the retries of the [`RetryPolicy`].
    pub(crate) fn nar(&self, request: NarRequest) -> Result<NarBody, HttpError> {
        body::open(&self.runtime, request)
    }

    /// What a server, or a proxy before it, says about a nar without sending it.
    ///
    /// # Errors
    /// The server gives no usable answer.
    pub(crate) fn probe(&self, url: &Url) -> Result<ProbeResponse, HttpError> {
        probe::probe(&self.runtime, url)
    }

    /// What a server says of itself, asked now.
    ///
    /// # Errors
    /// The server gives no usable answer.
    pub(crate) fn cache_info(&self, server: &ServerUrl) -> Result<CacheInfoResponse, HttpError> {
        lookup::cache_info::fetch(&self.runtime, server)
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
