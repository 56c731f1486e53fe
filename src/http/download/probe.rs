//! Single questions: what is known of a nar without fetching it, what a server says of itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};
use url::Url;

use super::client::{self, header};
use super::{file, nar};
use crate::format::server_url::ServerUrl;
use crate::http::error::{HttpError, HttpErrorKind};
use crate::http::lookup;
use crate::http::lookup::events::{Learned, LookupEvent};
use crate::http::net::runtime::Engine;
use crate::http::options::{Protocol, ServerSpec};

/// What a nar's headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe {
    /// The HTTP status; 200 also when a part was asked for and given.
    pub(crate) status: u16,
    /// What a caching proxy says of it, such as `MISS`, in its own words.
    pub(crate) proxy_cache: Option<String>,
    /// Seconds since a proxy got it from its origin.
    pub(crate) age: Option<u64>,
    /// Bytes of the whole nar.
    pub(crate) length: Option<u64>,
    /// Whether parts can be asked for.
    pub(crate) accepts_ranges: bool,
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerSaid {
    /// The HTTP status of its `nix-cache-info`.
    pub(crate) status: u16,
    /// The file, if it has one.
    pub(crate) text: Option<String>,
    /// For how many seconds the server vouches for it.
    pub(crate) max_age: Option<u64>,
    /// From the question to the answer, connecting included.
    pub(crate) latency: Duration,
    /// What was spoken.
    pub(crate) protocol: Protocol,
}

pub(in crate::http) fn probe(engine: &Arc<Engine>, url: &Url) -> Result<Probe, HttpError> {
    if url.scheme() == "file" {
        return match file::length(url) {
            Ok(length) => Ok(Probe {
                status: 200,
                proxy_cache: None,
                age: None,
                length: Some(length),
                accepts_ranges: true,
            }),
            Err(kind) => Err(HttpError::new(url, kind)),
        };
    }
    engine.block_on(async {
        let timeouts = engine.options().timeouts_of(url);
        let mut request = client::Request::new(Method::HEAD, url.clone(), timeouts);
        let response = request.send(engine.shared(), engine.options()).await?;
        if response.status() == StatusCode::OK {
            return Ok(read_head(&response));
        }
        // Some servers know no HEAD, and `guix publish` says 404 to each. One byte says the same;
        // a server that sends everything instead is cut off when the answer is dropped.
        request.method = Method::GET;
        request
            .headers
            .insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        Ok(read_head(
            &request.send(engine.shared(), engine.options()).await?,
        ))
    })
}

fn read_head(response: &Response) -> Probe {
    let headers = response.headers();
    let number = |name: &str| header(headers, name).and_then(|text| text.parse::<u64>().ok());
    let status = response.status().as_u16();
    let is_part = status == 206;
    let whole = header(headers, "content-range").and_then(|range| range.rsplit_once('/'));
    let length = match whole {
        Some((_, total)) if is_part => total.parse().ok(),
        _ => number("content-length"),
    };
    Probe {
        status: if is_part { 200 } else { status },
        proxy_cache: nar::proxy_cache(headers),
        age: number("age"),
        length,
        accepts_ranges: is_part || nar::accepts_ranges(headers),
    }
}

/// Asks through the lookups' own transport, so that the protocol reported is the one they use.
pub(in crate::http) fn cache_info(
    engine: &Arc<Engine>,
    server: &ServerUrl,
) -> Result<ServerSaid, HttpError> {
    let began = Instant::now();
    let (lookups, mut events) =
        lookup::client::open(engine, vec![ServerSpec::new(server.clone())])?;
    lookups.ask_cache_info(0);
    let mut protocol = if server.is_file() {
        Protocol::File
    } else {
        Protocol::Http1
    };
    while let Some(event) = events.recv() {
        match event {
            LookupEvent::Learned {
                what: Learned::Protocol(spoken),
                ..
            } => protocol = spoken,
            LookupEvent::CacheInfo { info, .. } => {
                let latency = began.elapsed();
                let (status, text, max_age) = match info {
                    Ok(Some(info)) => (200, Some(info.text), info.max_age),
                    Ok(None) => (404, None, None),
                    Err(error) => match error.status() {
                        Some(status) => (status, None, None),
                        None => return Err(error),
                    },
                };
                return Ok(ServerSaid {
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
