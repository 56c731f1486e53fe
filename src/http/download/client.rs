//! Requests through the HTTP library: repeated until there is a response, redirects followed.

use std::sync::Arc;

use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderName};
use reqwest::{Method, Response};
use tokio::time::Instant;
use tracing::{debug, trace};
use url::Url;

use crate::format::s3_location::canonical_url;
use crate::format::server_url::redacted;
use crate::http::error::{HttpError, HttpErrorKind, shown};
use crate::http::net::library_client;
use crate::http::net::runtime::ConnectionSetup;
use crate::http::net::timeout::timeout;
use crate::http::options::{Options, Timeouts};
use crate::http::proxies::answers_itself;
use crate::http::rate::RateDemand;
use crate::http::retry::{RetryDecision, RetryPolicy, parse_retry_after};
use crate::http::s3::services;
use crate::http::s3::signer::{BucketSigner, BucketVerdict};
use crate::http::s3::verdict::{BucketResponse, ERROR_BODY_MAX_BYTES};

/// A request that is repeated until there is a response or the policy stops it.
#[derive(Debug, Clone)]
pub(in crate::http) struct LibraryRequest {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) timeouts: Timeouts,
    /// More than the minimum rate of the options.
    pub(super) rate_demand: Option<RateDemand>,
    /// Another retry policy than that of the options.
    pub(in crate::http) retry_policy: Option<RetryPolicy>,
}

impl LibraryRequest {
    pub(in crate::http) fn new(method: Method, url: Url, timeouts: Timeouts) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            timeouts,
            rate_demand: None,
            retry_policy: None,
        }
    }

    /// The response, whatever its status, unless the status calls for a retry and the policy
    /// allows it.
    pub(in crate::http) async fn send(
        &self,
        setup: &ConnectionSetup,
        options: &Options,
    ) -> Result<Response, HttpError> {
        if self.url.scheme() == "https"
            && let Some(roots) = setup.tls(options)?.read_roots()
        {
            // If reading the roots fails, the handshake reports it.
            let _ = roots.await;
        }

        let policy = self.retry_policy.as_ref().unwrap_or(&options.retry_policy);
        let start = Instant::now();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let outcome = self.send_within_window(setup, options).await;
            let failure = match &outcome {
                Ok(response) => status_failure(response),
                Err(kind) => kind.clone(),
            };
            let decision = policy.next(&failure, attempts, start.elapsed(), fastrand::f64());
            match (decision, outcome) {
                (RetryDecision::After(wait), _) => {
                    debug!(url = %redacted(&self.url), attempts, ?wait, reason = %failure, "retry");
                    tokio::time::sleep(wait).await;
                }
                (RetryDecision::Stop, Ok(response)) => return Ok(response),
                (RetryDecision::Stop, Err(kind)) => {
                    return Err(HttpError::new(&self.url, kind).after_attempts(attempts));
                }
            }
        }
    }

    /// One attempt, redirects included, whose response has to begin in time.
    async fn send_within_window(
        &self,
        setup: &ConnectionSetup,
        options: &Options,
    ) -> Result<Response, HttpErrorKind> {
        let rate = options.minimum_rate.with(self.rate_demand);
        let sent = self.send_once(setup, options);
        if self.rate_demand.is_some() && rate.bytes_per_second > 0 {
            return timeout(rate.window, sent)
                .await
                .unwrap_or_else(|| Err(rate.failure()));
        }
        timeout(options.answer_timeout, sent)
            .await
            .unwrap_or(Err(HttpErrorKind::Stalled(options.answer_timeout)))
    }

    /// One attempt, redirects included: the library follows them too, but does not say where an
    /// error happened.
    async fn send_once(
        &self,
        setup: &ConnectionSetup,
        options: &Options,
    ) -> Result<Response, HttpErrorKind> {
        let mut response = self.send_to(setup, options, self.url.clone()).await?;
        for _ in 0..REDIRECTS_MAX {
            let Some(target) = redirect_target(&response)? else {
                return Ok(response);
            };
            debug!(to = %target.origin().ascii_serialization(), "redirect");
            let outcome = self.send_to(setup, options, target.clone()).await;
            response = outcome.map_err(|kind| kind.after_redirect(&target))?;
            response.extensions_mut().insert(RedirectedTo(target));
        }
        match redirect_target(&response)? {
            Some(_) => Err(HttpErrorKind::TooManyRedirects(REDIRECTS_MAX)),
            None => Ok(response),
        }
    }

    async fn send_to(
        &self,
        setup: &ConnectionSetup,
        options: &Options,
        url: Url,
    ) -> Result<Response, HttpErrorKind> {
        let mut refused = None;
        for signer in options.credentials.signers_for(&url) {
            let url = canonical_url(url.clone());
            match self.send_signed(signer, setup, options, url).await {
                Err(kind @ HttpErrorKind::Bucket(_)) => refused = refused.or(Some(kind)),
                outcome => return outcome,
            }
        }
        match refused {
            Some(kind) => Err(kind),
            None => self.send_with(setup, options, url, HeaderMap::new()).await,
        }
    }

    /// Sends the request for an object in the bucket that `signer` is for.
    async fn send_signed(
        &self,
        signer: &Arc<BucketSigner>,
        setup: &ConnectionSetup,
        options: &Options,
        mut url: Url,
    ) -> Result<Response, HttpErrorKind> {
        let mut refused = None;
        for _ in 0..SIGNATURES_MAX {
            services::prepare(signer, setup, options).await?;
            let (response, mut verdict) = self.send_and_judge(signer, setup, options, &url).await?;
            if let BucketVerdict::Denied(kind) = verdict {
                let explained = self.explain_denial(signer, setup, options, &url, kind);
                verdict = explained.await?;
            }
            match verdict {
                BucketVerdict::Ordinary => return Ok(response),
                BucketVerdict::Missing => {
                    let (status, retry_after) = (404, None);
                    return Err(HttpErrorKind::Status {
                        status,
                        retry_after,
                    });
                }
                BucketVerdict::Moved(moved) => url = moved,
                BucketVerdict::SignAgain(kind) => refused = Some(kind),
                BucketVerdict::Denied(kind) | BucketVerdict::Failed(kind) => return Err(kind),
            }
        }
        Err(refused.unwrap_or(HttpErrorKind::TooManyRedirects(SIGNATURES_MAX)))
    }

    /// What to do after `signer`'s bucket denied access to the object at `url`, which is `kind` if nothing else can be read
    /// either: it says so of an object that is missing, too, if the access keys may not list the bucket. One request for
    /// `nix-cache-info`, which every server has, tells.
    pub(in crate::http) async fn explain_denial(
        &self,
        signer: &Arc<BucketSigner>,
        setup: &ConnectionSetup,
        options: &Options,
        url: &Url,
        kind: HttpErrorKind,
    ) -> Result<BucketVerdict, HttpErrorKind> {
        let known = signer.cache_info_url();
        if known == *url {
            return Ok(BucketVerdict::Failed(kind));
        }

        let request = Self::new(Method::GET, known.clone(), self.timeouts);
        let sent = request.send_and_judge(signer, setup, options, &known);
        match sent.await? {
            (response, BucketVerdict::Ordinary)
                if response.status().as_u16() == 404
                    || BucketResponse::is_readable(response.status().as_u16()) =>
            {
                Ok(BucketVerdict::Missing)
            }
            (response, BucketVerdict::Ordinary) => Err(status_failure(&response)),
            (_, BucketVerdict::Denied(_) | BucketVerdict::Moved(_)) => {
                Ok(BucketVerdict::Failed(kind))
            }
            (_, verdict) => Ok(verdict),
        }
    }

    /// Sends the request, for `url`, with a signature.
    async fn send_and_judge(
        &self,
        signer: &BucketSigner,
        setup: &ConnectionSetup,
        options: &Options,
        url: &Url,
    ) -> Result<(Response, BucketVerdict), HttpErrorKind> {
        let signed = signer.fields(self.method.as_str(), url);
        let sent = self.send_with(setup, options, url.clone(), signed.fields);
        let mut response = sent.await?;

        let body = self.error_body(&mut response).await?;
        let headers = response.headers();
        let parts = BucketResponse {
            status: response.status().as_u16(),
            date: header(headers, "date"),
            region: header(headers, "x-amz-bucket-region"),
            body: &body,
        };
        let verdict = signer.judge(url, signed.key.as_ref(), parts);
        Ok((response, verdict))
    }

    /// The beginning of the body of `response`, if it is an error that an object store explains there.
    async fn error_body(&self, response: &mut Response) -> Result<Vec<u8>, HttpErrorKind> {
        let mut body = Vec::new();
        if !BucketResponse::has_error_body(response.status().as_u16()) {
            return Ok(body);
        }
        while body.len() < ERROR_BODY_MAX_BYTES {
            let chunk = timeout(self.timeouts.stall, response.chunk()).await;
            let chunk = chunk.ok_or(HttpErrorKind::Stalled(self.timeouts.stall))?;
            match chunk.map_err(|error| library_client::body_failure(error, self.timeouts))? {
                Some(bytes) => body.extend_from_slice(&bytes),
                None => break,
            }
        }
        body.truncate(ERROR_BODY_MAX_BYTES);
        Ok(body)
    }

    /// Sends the request with these `fields` besides its own.
    async fn send_with(
        &self,
        setup: &ConnectionSetup,
        options: &Options,
        url: Url,
        fields: HeaderMap,
    ) -> Result<Response, HttpErrorKind> {
        trace!(method = %self.method, url = %shown(&url), "request");
        let proxy = options.proxies.for_url(&url);
        let own_answers = proxy.filter(|proxy| answers_itself(proxy, &url));
        let client = setup.http_client(&url, self.timeouts.connect, options);
        let client = client.map_err(|error| error.kind().clone())?;
        // The fields of this URL alone: a redirect may have led to another server.
        let credentials = options.credentials.fields(&url);
        let request = client
            .request(self.method.clone(), without_credentials(url))
            .headers(self.headers.clone())
            .headers(credentials)
            .headers(fields)
            .header(ACCEPT_ENCODING, "identity")
            .send();
        // The library limits the time to connect by itself.
        let limit = self.timeouts.connect.max(self.timeouts.stall);
        let Some(outcome) = timeout(limit, request).await else {
            return Err(HttpErrorKind::Stalled(self.timeouts.stall));
        };

        let outcome = outcome.map_err(|error| library_client::failure(error, self.timeouts));
        match (outcome, proxy) {
            // The library connects to nothing but the proxy.
            (Err(kind), Some(proxy)) if is_about_connecting(&kind) => Err(kind.via_proxy(proxy)),
            (Ok(response), Some(proxy)) if response.status().as_u16() == 407 => {
                Err(status_failure(&response).via_proxy(proxy))
            }
            (Ok(mut response), _) => {
                trace!(status = response.status().as_u16(), "response");
                if let Some(proxy) = own_answers {
                    response.extensions_mut().insert(AnsweredBy(proxy.clone()));
                }
                Ok(response)
            }
            (Err(kind), Some(proxy)) if own_answers.is_some() => Err(kind.via_proxy(proxy)),
            (Err(kind), _) => Err(kind),
        }
    }
}

/// `url` without user name and password, from which the library would make a field.
fn without_credentials(mut url: Url) -> Url {
    // Both fail only for URLs that cannot have credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

fn is_about_connecting(kind: &HttpErrorKind) -> bool {
    matches!(
        kind,
        HttpErrorKind::Resolve { .. }
            | HttpErrorKind::Connect(_)
            | HttpErrorKind::ConnectTimeout(_)
    )
}

/// The URL that a response comes from, if that is not the requested one.
#[derive(Clone)]
struct RedirectedTo(Url);

/// The proxy that a response comes from.
#[derive(Clone)]
struct AnsweredBy(Url);

/// Where `response` redirects to, if it does.
fn redirect_target(response: &Response) -> Result<Option<Url>, HttpErrorKind> {
    let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    match header(response.headers(), "location").filter(|_| is_redirect) {
        Some(location) => allowed_target(response.url(), location).map(Some),
        None => Ok(None),
    }
}

/// The URL that a redirect from `from` to `location` leads to. It is http or https, and https is
/// not left.
pub(in crate::http) fn allowed_target(from: &Url, location: &str) -> Result<Url, HttpErrorKind> {
    let target = from.join(location).ok();
    let target = target.filter(|_| location.len() <= LOCATION_MAX_BYTES);
    match target {
        Some(url) if from.scheme() == "https" && url.scheme() == "http" => {
            Err(HttpErrorKind::insecure_redirect(&url))
        }
        Some(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err(HttpErrorKind::bad_redirect(location)),
    }
}

/// The status of `response` as the failure that it may be.
pub(super) fn status_failure(response: &Response) -> HttpErrorKind {
    let headers = response.headers();
    let retry_after = header(headers, "retry-after")
        .and_then(|value| parse_retry_after(value, header(headers, "date")));
    let kind = HttpErrorKind::Status {
        status: response.status().as_u16(),
        retry_after,
    };
    let kind = match response.extensions().get() {
        Some(AnsweredBy(proxy)) => kind.via_proxy(proxy),
        None => kind,
    };
    match response.extensions().get() {
        Some(RedirectedTo(target)) => kind.after_redirect(target),
        None => kind,
    }
}

/// The value of a header, if it is text.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// How often one request is signed.
const SIGNATURES_MAX: usize = 5;

/// Redirects followed for one request.
pub(in crate::http) const REDIRECTS_MAX: usize = 10;

/// The longest `Location` that is followed.
pub(in crate::http) const LOCATION_MAX_BYTES: usize = 4 << 10;
