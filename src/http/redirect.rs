//! Answers that are elsewhere: fetched one by one with the ordinary client, which follows the
//! further hops and knows when to stop.

use reqwest::{Method, Response as WebResponse};
use url::Url;

use super::error::HttpErrorKind;
use super::server::Held;
use super::web::{self, REDIRECTS_MAX};
use super::wire::{Head, Response};

/// Fetches from `location` the answer to the question `held`, and reports it.
pub(super) async fn follow(held: Held, location: String) {
    let outcome = fetch(&held, location).await;
    let (server, ask) = held.release();
    match outcome {
        Ok(response) => server.settle(ask, response).await,
        Err(kind) => server.fail(&ask, kind),
    }
}

async fn fetch(held: &Held, location: String) -> Result<Response, HttpErrorKind> {
    let server = held.server();
    let from = held.question().url(&server.url);
    let target = target(&from, location)?;
    let request = web::Request::new(Method::GET, target, server.timeouts);
    let response = request.send(&server.shared, &server.options).await;
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
            match chunk.map_err(|error| web::body_error(error, server.timeouts))? {
                None => return Ok(body),
                Some(bytes) if (body.len() + bytes.len()) as u64 > limit_bytes => {
                    return Err(HttpErrorKind::TooLarge { limit_bytes });
                }
                Some(bytes) => body.extend_from_slice(&bytes),
            }
        }
    };
    let most = server.options.answer_timeout;
    tokio::time::timeout(most, receive).await.unwrap_or(Err(HttpErrorKind::Stalled(most)))
}
