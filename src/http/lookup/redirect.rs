//! Answers that are elsewhere.
//!
//! Most redirects lead to the same name on another server (http to https, a mirror): that server
//! is then asked ahead like any, in the name of the first. Each item is still asked at the first
//! one, since nothing says that it would redirect all of them. Other redirects are followed one by
//! one with the ordinary client, which takes the further hops and knows when to stop.

use std::sync::Arc;

use reqwest::{Method, Response as WebResponse};
use url::Url;

use super::pending::Held;
use super::response::{Head, Response};
use crate::format::server_url::ServerUrl;
use crate::http::download::client::{LibraryRequest, REDIRECTS_MAX};
use crate::http::error::HttpErrorKind;
use crate::http::net::library_client::body_failure;

/// The server that a redirect of `question` to `location` leads to, if that has the answer at the
/// same place as any other server.
pub(in crate::http) fn other_server(from: &Url, location: &str) -> Option<ServerUrl> {
    let target = from.join(location).ok()?;
    let (base, name) = target.as_str().rsplit_once('/')?;
    let is_same_name = from.path().rsplit('/').next() == Some(name);
    let is_elsewhere = target.as_str() != from.as_str();
    let base = ServerUrl::parse(base).ok().filter(|base| !base.is_file())?;
    (is_same_name && is_elsewhere).then_some(base)
}

/// Fetches from `location` the answer to the question `held`, and reports it.
pub(in crate::http) async fn follow(held: Held, location: String) {
    let outcome = fetch(&held, location).await;
    let server = Arc::clone(held.server());
    match outcome {
        Ok(response) => server.settle(held, response).await,
        Err(kind) => {
            let ask = held.release();
            server.fail(&ask, kind);
        }
    }
}

async fn fetch(held: &Held, location: String) -> Result<Response, HttpErrorKind> {
    let server = held.server();
    let from = held.question().url(&server.url);
    let target = target(&from, location)?;
    let request = LibraryRequest::new(Method::GET, target, server.timeouts);
    server.count_sent(held.question());
    let response = request.send(&server.setup, &server.options).await;
    let mut response = response.map_err(|error| error.kind().clone())?;
    let fields = response.headers().iter();
    let fields = fields.map(|(name, value)| (name.as_str(), value.as_bytes()));
    let mut head = Head::from_fields(response.status().as_u16(), fields);
    // What the client did not follow leads nowhere.
    head.location = None;
    let limit_bytes = server.options.narinfo_limit_bytes;
    let body = if head.status == 200 {
        read_all(&mut response, held, limit_bytes).await?
    } else {
        Vec::new()
    };
    Ok(Response { head, body })
}

fn target(from: &Url, location: String) -> Result<Url, HttpErrorKind> {
    match from.join(&location) {
        Ok(url) if url == *from => Err(HttpErrorKind::TooManyRedirects(REDIRECTS_MAX)),
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        _ => Err(HttpErrorKind::BadRedirect(location)),
    }
}

async fn read_all(
    response: &mut WebResponse,
    held: &Held,
    limit_bytes: u64,
) -> Result<Vec<u8>, HttpErrorKind> {
    let server = held.server();
    let stall = server.timeouts.stall;
    let receive = async {
        let mut body = Vec::new();
        loop {
            let chunk = tokio::time::timeout(stall, response.chunk()).await;
            let chunk = chunk.map_err(|_| HttpErrorKind::Stalled(stall))?;
            match chunk.map_err(|error| body_failure(error, server.timeouts))? {
                None => return Ok(body),
                Some(bytes) if (body.len() + bytes.len()) as u64 > limit_bytes => {
                    return Err(HttpErrorKind::TooLarge { limit_bytes });
                }
                Some(bytes) => body.extend_from_slice(&bytes),
            }
        }
    };
    let most = server.options.answer_timeout;
    tokio::time::timeout(most, receive)
        .await
        .unwrap_or(Err(HttpErrorKind::Stalled(most)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_to_other_servers() {
        let other = |location: &str| {
            let from = Url::parse("http://h/a/x.narinfo").unwrap();
            other_server(&from, location).map(|url| url.as_str().to_owned())
        };
        assert_eq!(
            other("https://h/a/x.narinfo").as_deref(),
            Some("https://h/a")
        );
        assert_eq!(
            other("//mirror:81/b/c/x.narinfo").as_deref(),
            Some("http://mirror:81/b/c")
        );
        assert_eq!(other("/x.narinfo").as_deref(), Some("http://h"));
        for location in [
            "x.narinfo",
            "y.narinfo",
            "https://h/a/x.narinfo?token=1",
            "https://h/a/x.narinfo#y",
            "file:///a/x.narinfo",
            "ftp://h/x.narinfo",
            "http://",
        ] {
            assert_eq!(other(location), None, "{location}");
        }
    }
}
