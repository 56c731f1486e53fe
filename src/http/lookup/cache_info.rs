//! Fetching one server's `nix-cache-info`, for its user to see.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client;
use super::events::{LookupEvent, ServerProperty};
use crate::format::server_list::ServerIndex;
use crate::format::server_url::ServerUrl;
use crate::http::error::{HttpError, HttpErrorKind};
use crate::http::net::runtime::HttpRuntime;
use crate::http::options::{Protocol, ServerSpec};

/// The response to a request for `nix-cache-info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheInfoResponse {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The file, if there is one.
    pub(crate) text: Option<String>,
    /// For how many seconds it may be cached, if the server says so.
    pub(crate) max_age: Option<u64>,
    /// From the request to the response, connecting included.
    pub(crate) latency: Duration,
    /// The protocol that was spoken.
    pub(crate) protocol: Protocol,
}

/// Fetches `nix-cache-info` over the transport of lookups, so that the reported protocol is the
/// one that they use.
pub(in crate::http) fn fetch(
    runtime: &Arc<HttpRuntime>,
    server: &ServerUrl,
) -> Result<CacheInfoResponse, HttpError> {
    let start = Instant::now();
    let spec = ServerSpec {
        // The latency is that of one request.
        fails_at_once: true,
        ..ServerSpec::new(server.clone())
    };
    let (lookups, mut events) = client::open(runtime, vec![spec].into())?;
    lookups.request_cache_info(ServerIndex::FIRST);

    let mut protocol = if server.is_file() {
        Protocol::File
    } else {
        Protocol::Http1
    };
    while let Some(event) = events.recv() {
        match event {
            LookupEvent::ServerProperty {
                property: ServerProperty::Protocol(spoken),
                ..
            } => protocol = spoken,
            LookupEvent::CacheInfo { info, .. } => {
                let latency = start.elapsed();
                let (status, text, max_age) = match info {
                    Ok(Some(info)) => (200, Some(info.text), info.max_age),
                    Ok(None) => (404, None, None),
                    Err(error) => (error.status().ok_or(error)?, None, None),
                };
                return Ok(CacheInfoResponse {
                    status,
                    text,
                    max_age,
                    latency,
                    protocol,
                });
            }
            _ => {}
        }
    }
    Err(HttpError::new(
        &server.cache_info_url(),
        HttpErrorKind::Canceled,
    ))
}
