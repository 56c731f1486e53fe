//! What a server, or a proxy cache in front of it, says of a nar, without downloading it.

use std::sync::Arc;

use reqwest::header::{HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};
use url::Url;

use super::client::{LibraryRequest, header};
use super::file;
use super::nar::{accepts_ranges, encodings};
use crate::format::escape::clip;
use crate::http::error::HttpError;
use crate::http::net::runtime::HttpRuntime;

/// What the headers of a nar say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProbeResponse {
    /// The HTTP status; 200 also when a range was requested and sent.
    pub(crate) status: u16,
    /// What a caching proxy says of it, such as `MISS`, as it stands in the header.
    pub(crate) proxy_cache: Option<String>,
    /// Seconds since a proxy got it from its origin.
    pub(crate) age: Option<u64>,
    /// Bytes of the whole nar.
    pub(crate) length: Option<u64>,
    /// Whether ranges can be requested.
    pub(crate) accepts_ranges: bool,
}

/// Requests the head of the nar at `url`.
pub(in crate::http) fn probe(
    runtime: &Arc<HttpRuntime>,
    url: &Url,
) -> Result<ProbeResponse, HttpError> {
    if url.scheme() == "file" {
        let length = file::length(url).map_err(|kind| HttpError::new(url, kind))?;
        return Ok(ProbeResponse {
            status: 200,
            proxy_cache: None,
            age: None,
            length: Some(length),
            accepts_ranges: true,
        });
    }

    runtime.block_on(async {
        let (setup, options) = (runtime.setup(), runtime.options());
        let timeouts = options.timeouts_of(url);
        let mut request = LibraryRequest::new(Method::HEAD, url.clone(), timeouts);
        let response = request.send(setup, options).await?;
        if response.status() == StatusCode::OK {
            return Ok(read_head(&response));
        }

        // Some servers do not support HEAD, and `guix publish` answers 404 to each. One byte says
        // the same; a server that sends everything instead is cut off when the response is dropped.
        request.method = Method::GET;
        let first_byte = HeaderValue::from_static("bytes=0-0");
        request.headers.insert(RANGE, first_byte);
        Ok(read_head(&request.send(setup, options).await?))
    })
}

fn read_head(response: &Response) -> ProbeResponse {
    let headers = response.headers();
    let status = response.status().as_u16();
    let is_range = status == 206;
    let content_range = header(headers, "content-range").and_then(|range| range.rsplit_once('/'));
    let length = match content_range {
        Some((_, total)) if is_range => total.parse().ok(),
        _ if !encodings(headers).is_empty() => None,
        _ => number(headers, "content-length"),
    };
    ProbeResponse {
        status: if is_range { 200 } else { status },
        proxy_cache: proxy_cache(headers),
        age: number(headers, "age"),
        length,
        accepts_ranges: is_range || accepts_ranges(headers),
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    header(headers, name)?.parse().ok()
}

/// What a caching proxy says of the response.
fn proxy_cache(headers: &HeaderMap) -> Option<String> {
    ["x-cache-status", "cf-cache-status", "x-cache"]
        .iter()
        .find_map(|name| header(headers, name))
        .map(|value| clip(value, PROXY_CACHE_MAX_BYTES).to_owned())
}

/// What is kept of a proxy cache's header.
const PROXY_CACHE_MAX_BYTES: usize = 256;
