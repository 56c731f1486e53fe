//! The client: the entrance to lookups and downloads.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use url::Url;

use super::download::body::{self, NarBody};
use super::download::nar::NarRequest;
use super::download::probe::{self, ProbeResponse};
use super::error::HttpError;
use super::lookup::cache_info::{self, CacheInfoResponse};
use super::lookup::client::{self, Lookups};
use super::lookup::events::LookupEvents;
use super::net::runtime::HttpRuntime;
use super::objects::bucket::Bucket;
use super::objects::callbacks::RetryObserver;
use super::options::{Options, ServerSpec};
use crate::format::server_list::PerServer;
use crate::format::server_url::ServerUrl;

/// Sends requests to servers. Cheap to clone; threads may share it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    runtime: Arc<HttpRuntime>,
}

impl Client {
    /// A client with these options. Certificates are loaded when they are first needed.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(crate) fn new(options: Options) -> Result<Self, HttpError> {
        Ok(Self {
            runtime: Arc::new(HttpRuntime::new(options)?),
        })
    }

    /// Opens lookups on `servers`. No connection is made before the first request.
    ///
    /// # Errors
    /// The system has no thread for a `file:` server.
    pub(crate) fn lookups(
        &self,
        servers: PerServer<ServerSpec>,
    ) -> Result<(Lookups, LookupEvents), HttpError> {
        client::open(&self.runtime, servers)
    }

    /// Opens a nar: waits until its first byte can be read.
    ///
    /// # Errors
    /// The server does not send it, after the attempts of the request's retry policy, or else that
    /// of the options. Downloads into a store request a single attempt
    /// (`substitute::download::body::request_without_retries`) and are repeated by their caller.
    pub(crate) fn nar(&self, request: NarRequest) -> Result<NarBody, HttpError> {
        body::open(&self.runtime, request)
    }

    /// What a server, or a proxy cache in front of it, says about a nar without sending it.
    ///
    /// # Errors
    /// There is no usable response.
    pub(crate) fn probe(&self, url: &Url) -> Result<ProbeResponse, HttpError> {
        probe::probe(&self.runtime, url)
    }

    /// The objects of the bucket that `server` is, to read and to write them. Requests are repeated for `retry_time`, if
    /// the store has answered any, and end when `stop` is set.
    ///
    /// # Errors
    /// It is not a bucket.
    pub(crate) fn bucket(
        &self,
        server: &ServerUrl,
        retry_time: Duration,
        retry_observer: Option<RetryObserver>,
        stop: Arc<AtomicBool>,
    ) -> Result<Bucket, HttpError> {
        Bucket::new(&self.runtime, server, retry_time, retry_observer, stop)
    }

    /// Fetches the server's `nix-cache-info` now.
    ///
    /// # Errors
    /// There is no usable response.
    pub(crate) fn cache_info(&self, server: &ServerUrl) -> Result<CacheInfoResponse, HttpError> {
        cache_info::fetch(&self.runtime, server)
    }
}
