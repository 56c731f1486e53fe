//! The ordinary HTTP client: one request, one answer, redirects followed, HTTP/1.1.
//!
//! HTTP/1.1 although HTTP/2 is there: the default window of HTTP/2 holds a distant server to a
//! tenth of what the line gives. The library is told everything, so that it looks at neither the
//! environment nor a certificate store of its own (it would refuse to start without one).

use std::error::Error;
use std::io;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderName};
use reqwest::redirect::Policy;
use reqwest::{Method, Response};
use url::Url;

use crate::http::error::{Cause, HttpError, HttpErrorKind};
use crate::http::net::blocking;
use crate::http::net::runtime::Shared;
use crate::http::net::tls::Tls;
use crate::http::options::{Options, Timeouts};
use crate::http::retry::{Next, RetryPolicy, parse_retry_after};

pub(in crate::http) fn client(options: &Options, tls: &Tls) -> Result<reqwest::Client, HttpError> {
    let proxies = options.proxies.clone();
    reqwest::Client::builder()
        .tls_backend_preconfigured((*tls.http1).clone())
        .http1_only()
        .no_proxy()
        .proxy(reqwest::Proxy::custom(move |url| {
            proxies.for_url(url).cloned()
        }))
        .redirect(Policy::none())
        .referer(false)
        .user_agent(&options.user_agent)
        .connect_timeout(options.connect_timeout)
        .dns_resolver(Arc::new(Resolver))
        .build()
        .map_err(|cause| HttpError::setup("the HTTP client", cause))
}

/// Resolves host names for the library, which would panic without a thread to do it.
struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The library puts the port in.
            let addresses = blocking::resolve(name.as_str().to_owned(), 0).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// A request that is repeated until it is answered or the policy gives up.
#[derive(Debug, Clone)]
pub(in crate::http) struct Request {
    pub(in crate::http) method: Method,
    pub(in crate::http) url: Url,
    pub(in crate::http) headers: HeaderMap,
    pub(in crate::http) timeouts: Timeouts,
    /// Other retries than those of the options.
    pub(in crate::http) retries: Option<RetryPolicy>,
}

impl Request {
    pub(in crate::http) fn new(method: Method, url: Url, timeouts: Timeouts) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            timeouts,
            retries: None,
        }
    }

    /// The answer, whatever its status, unless that says to come back later and the policy
    /// allows it.
    pub(in crate::http) async fn send(
        &self,
        shared: &Shared,
        options: &Options,
    ) -> Result<Response, HttpError> {
        let client = shared.web(options)?;
        if self.url.scheme() == "https"
            && let Some(roots) = shared.tls(options)?.read_roots()
        {
            // A failure shows in the handshake.
            let _ = roots.await;
        }
        let retries = self.retries.as_ref().unwrap_or(&options.retries);
        let began = tokio::time::Instant::now();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let outcome = self.send_once(client).await;
            let failure = match &outcome {
                Ok(response) => status_error(response),
                Err(kind) => kind.clone(),
            };
            let next = retries.next(&failure, attempts, began.elapsed(), fastrand::f64());
            match (next, outcome) {
                (Next::After(wait), _) => tokio::time::sleep(wait).await,
                (Next::Stop, Ok(response)) => return Ok(response),
                (Next::Stop, Err(kind)) => {
                    return Err(HttpError::new(&self.url, kind).after_attempts(attempts));
                }
            }
        }
    }

    /// One try, redirects included: the library follows them too, but does not say where an error
    /// happened.
    async fn send_once(&self, client: &reqwest::Client) -> Result<Response, HttpErrorKind> {
        let mut response = self.send_to(client, self.url.clone()).await?;
        for _ in 0..REDIRECTS_MAX {
            let Some(target) = redirect_target(&response) else {
                return Ok(response);
            };
            let outcome = self.send_to(client, target.clone()).await;
            response = outcome.map_err(|kind| kind.after_redirect(&target))?;
        }
        match redirect_target(&response) {
            Some(_) => Err(HttpErrorKind::TooManyRedirects(REDIRECTS_MAX)),
            None => Ok(response),
        }
    }

    async fn send_to(&self, client: &reqwest::Client, url: Url) -> Result<Response, HttpErrorKind> {
        let request = client
            .request(self.method.clone(), url)
            .headers(self.headers.clone())
            .header(ACCEPT_ENCODING, "identity")
            .send();
        // The library bounds the time to connect by itself.
        let limit = self.timeouts.connect.max(self.timeouts.stall);
        match tokio::time::timeout(limit, request).await {
            Ok(outcome) => outcome.map_err(|error| kind_of(error, self.timeouts)),
            Err(_) => Err(HttpErrorKind::Stalled(self.timeouts.stall)),
        }
    }
}

/// Where `response` redirects to, if that is http or https.
fn redirect_target(response: &Response) -> Option<Url> {
    let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = header(response.headers(), "location").filter(|_| is_redirect)?;
    let target = response.url().join(location).ok()?;
    (matches!(target.scheme(), "http" | "https") && target.has_host()).then_some(target)
}

/// The status of `response` as the failure that it may be.
pub(in crate::http) fn status_error(response: &Response) -> HttpErrorKind {
    let text = |name: &str| header(response.headers(), name);
    let retry_after = text("retry-after").and_then(|value| parse_retry_after(value, text("date")));
    HttpErrorKind::Status {
        status: response.status().as_u16(),
        retry_after,
    }
}

/// The value of a header, if it is text.
pub(in crate::http) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// An error if the body is encoded: nobody asked for that, and lengths and ranges would no longer
/// be those of the file.
pub(in crate::http) fn refuse_encoding(headers: &HeaderMap) -> Result<(), HttpErrorKind> {
    match header(headers, "content-encoding") {
        None => Ok(()),
        Some(encoding) if encoding.eq_ignore_ascii_case("identity") => Ok(()),
        Some(encoding) => Err(HttpErrorKind::ContentEncoding(encoding.to_owned())),
    }
}

/// What `error` is in our words. The library's own layers are left out of the chain of causes
/// where a cause from the system or from TLS lies below them.
pub(in crate::http) fn kind_of(error: reqwest::Error, timeouts: Timeouts) -> HttpErrorKind {
    let error = error.without_url();
    if error.is_timeout() {
        return if error.is_connect() {
            HttpErrorKind::ConnectTimeout(timeouts.connect)
        } else {
            HttpErrorKind::Stalled(timeouts.stall)
        };
    }
    let is_connect = error.is_connect();
    match root_cause(&error) {
        Some(Root::Tls(cause)) if is_connect => HttpErrorKind::Tls(Arc::new(cause)),
        Some(Root::Tls(cause)) => HttpErrorKind::Lost(Arc::new(cause)),
        Some(Root::Io(code)) => {
            let cause: Cause = Arc::new(io::Error::from_raw_os_error(code));
            if is_connect {
                HttpErrorKind::Connect(cause)
            } else {
                HttpErrorKind::Lost(cause)
            }
        }
        None if is_connect => HttpErrorKind::Connect(Arc::new(error)),
        None => HttpErrorKind::Lost(Arc::new(error)),
    }
}

/// What broke a body. An end without an error of the system is the server hanging up too early.
pub(in crate::http) fn body_error(error: reqwest::Error, timeouts: Timeouts) -> HttpErrorKind {
    match root_cause(&error) {
        None if !error.is_timeout() => HttpErrorKind::Closed,
        _ => kind_of(error, timeouts),
    }
}

enum Root {
    Tls(rustls::Error),
    /// The system's error number.
    Io(i32),
}

fn root_cause(error: &(dyn Error + 'static)) -> Option<Root> {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(Root::Tls(tls.clone()));
    }
    let Some(io) = error.downcast_ref::<io::Error>() else {
        return error.source().and_then(root_cause);
    };
    match (io.raw_os_error(), io.get_ref()) {
        (Some(code), _) => Some(Root::Io(code)),
        (None, Some(inner)) => root_cause(inner),
        (None, None) => None,
    }
}

/// Redirects followed for one request.
pub(in crate::http) const REDIRECTS_MAX: usize = 10;
