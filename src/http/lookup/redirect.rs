//! Redirected lookups.
//!
//! Most redirects lead to the same name on another server (http to https, a mirror): that server
//! then gets pipelined lookups like any, in the name of the first. Each item is still requested from the
//! first one, since nothing says that it would redirect all of them. Other redirects are followed
//! one by one with the HTTP library's client, which limits the number of further redirects.

use std::sync::Arc;

use reqwest::{Method, Response};
use tracing::debug;
use url::Url;

use super::response::{LookupResponse, ResponseHead};
use super::server::InFlightRequest;
use crate::format::server_url::{ServerUrl, redacted};
use crate::http::download::client::{LibraryRequest, REDIRECTS_MAX, allowed_target};
use crate::http::error::HttpErrorKind;
use crate::http::net::library_client::body_failure;
use crate::http::net::timeout::timeout;
use crate::http::retry::RetryPolicy;

/// The server that a redirect from `from` to `location` leads to, if the answer is at the same
/// place there as on any other server.
pub(super) fn other_server(from: &Url, location: &str) -> Option<ServerUrl> {
    let target = allowed_target(from, location).ok()?;
    let (base, name) = target.as_str().rsplit_once('/')?;
    let is_same_name = from.path().rsplit('/').next() == Some(name);
    let is_elsewhere = target.as_str() != from.as_str();
    let base = ServerUrl::parse(base).ok()?;
    (is_same_name && is_elsewhere).then_some(base)
}

/// Fetches the answer to `request` from `location`, and reports it.
pub(super) async fn follow(request: InFlightRequest, location: String) {
    let outcome = fetch(&request, &location).await;
    let server = Arc::clone(request.server());
    match outcome {
        Ok(response) => server.handle_response(request, response).await,
        Err(kind) => {
            let mut request = request.finish();
            request.count_failure(1);
            server.fail_or_wait(request, kind);
        }
    }
}

async fn fetch(request: &InFlightRequest, location: &str) -> Result<LookupResponse, HttpErrorKind> {
    let server = request.server();
    let from = request.target().url(&server.url);
    let target = target(&from, location)?;
    debug!(from = %redacted(&from), to = %target.origin().ascii_serialization(), "redirect");

    let mut library = LibraryRequest::new(Method::GET, target.clone(), server.timeouts);
    let fails_at_once = server.queue().fails_at_once;
    library.retry_policy = fails_at_once.then(RetryPolicy::once);
    server.count_sent(request.target());
    let response = library.send(&server.setup, &server.options).await;
    let mut response = response.map_err(|error| error.kind().clone().after_redirect(&target))?;
    let mut head = ResponseHead::from_headers(response.status().as_u16(), response.headers());
    // A redirect that the client did not follow leads nowhere.
    head.location = None;

    let body = if head.status == 200 {
        read_body(&mut response, request).await?
    } else {
        Vec::new()
    };
    Ok(LookupResponse {
        head,
        body,
        redirected_to: Some(Box::new(response.url().clone())),
    })
}

fn target(from: &Url, location: &str) -> Result<Url, HttpErrorKind> {
    let target = allowed_target(from, location)?;
    if target == *from {
        return Err(HttpErrorKind::TooManyRedirects(REDIRECTS_MAX));
    }
    Ok(target)
}

async fn read_body(
    response: &mut Response,
    request: &InFlightRequest,
) -> Result<Vec<u8>, HttpErrorKind> {
    let server = request.server();
    let (timeouts, limit_bytes) = (server.timeouts, server.options.narinfo_limit_bytes);
    let receive = async {
        let mut body = Vec::new();
        loop {
            let chunk = timeout(timeouts.stall, response.chunk()).await;
            let chunk = chunk.ok_or(HttpErrorKind::Stalled(timeouts.stall))?;
            match chunk.map_err(|error| body_failure(error, timeouts))? {
                None => return Ok(body),
                Some(bytes) if (body.len() + bytes.len()) as u64 > limit_bytes => {
                    return Err(HttpErrorKind::TooLarge { limit_bytes });
                }
                Some(bytes) => body.extend_from_slice(&bytes),
            }
        }
    };
    let answer_timeout = server.options.answer_timeout;
    timeout(answer_timeout, receive)
        .await
        .unwrap_or(Err(HttpErrorKind::Stalled(answer_timeout)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(location: &str) -> Option<String> {
        let from = Url::parse("http://h/a/x.narinfo").unwrap();
        other_server(&from, location).map(|url| url.as_str().to_owned())
    }

    #[test]
    fn redirects_to_other_servers() {
        for (location, expected) in [
            ("https://h/a/x.narinfo", "https://h/a"),
            ("//mirror:81/b/c/x.narinfo", "http://mirror:81/b/c"),
            ("/x.narinfo", "http://h"),
        ] {
            assert_eq!(other(location).as_deref(), Some(expected), "{location}");
        }
        for location in [
            "x.narinfo",
            "y.narinfo",
            "https://h/a/x.narinfo?token=1",
            "https://h/a/x.narinfo#y",
            "file:///a/x.narinfo",
            "ftp://h/x.narinfo",
            "http://",
            &format!("http://mirror/{}/x.narinfo", "b".repeat(5000)),
        ] {
            assert_eq!(other(location), None, "{location}");
        }
        let secure = Url::parse("https://h/a/x.narinfo").unwrap();
        assert_eq!(other_server(&secure, "http://mirror/a/x.narinfo"), None);
    }
}
