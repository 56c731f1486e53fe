//! One request to an object store: signed, corrected, and repeated while the store is in passing trouble.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use tokio::time::Instant;
use tracing::{debug, trace};
use url::Url;

use super::callbacks::{RetryObserver, SendPermit};
use super::gate::RequestGate;
use super::response::ObjectResponse;
use super::upload_body::{SentBytes, UploadBody};
use crate::format::server_url::redacted;
use crate::http::error::{BucketError, HttpError, HttpErrorKind, Outage, shown};
use crate::http::net::library_client;
use crate::http::net::runtime::HttpRuntime;
use crate::http::net::timeout::timeout;
use crate::http::options::Timeouts;
use crate::http::patience::QUICK_RETRIES;
use crate::http::s3::services;
use crate::http::s3::signer::{BucketSigner, BucketVerdict, SignedBody};
use crate::http::s3::verdict::ERROR_BODY_MAX_BYTES;

/// A request to an object store.
#[derive(Debug, Clone)]
pub(super) struct ObjectRequest {
    pub(super) method: Method,
    /// Its path and query are canonical.
    pub(super) url: Url,
    pub(super) fields: HeaderMap,
    pub(super) body: UploadBody,
    /// The right that it needs, as policies name it.
    pub(super) right: &'static str,
    /// Whether it tidies up: it is sent once even if all others have ended, and given up after [`CLEANUP_TIME`].
    pub(super) is_cleanup: bool,
    /// Whether it completes an upload: an error may follow the status.
    pub(super) is_completion: bool,
    /// Without it, it is sent whenever it is its turn.
    pub(super) permit: Option<SendPermit>,
    /// The most bytes of a response that are of use.
    pub(super) response_bytes_max: usize,
}

/// What the requests to one object store share.
#[derive(Debug)]
pub(super) struct ObjectStore {
    pub(super) runtime: Arc<HttpRuntime>,
    pub(super) signer: Arc<BucketSigner>,
    pub(super) timeouts: Timeouts,
    pub(super) gate: RequestGate,
    /// For how long a request is repeated once the store has answered.
    pub(super) retry_time: Duration,
    /// Whether it has answered any request.
    pub(super) has_answered: Arc<AtomicBool>,
    /// Is told of retries.
    pub(super) retry_observer: Option<RetryObserver>,
    /// Bytes of bodies that connections have taken.
    pub(super) sent: Arc<AtomicU64>,
    /// Ends all requests.
    pub(super) stop: Arc<AtomicBool>,
    /// Ends those of this one, which shares the rest with others.
    pub(super) is_ended: AtomicBool,
}

impl ObjectStore {
    /// The same store, for requests that do not wait for the others.
    pub(super) fn with_own_gate(&self) -> Self {
        Self {
            runtime: Arc::clone(&self.runtime),
            signer: Arc::clone(&self.signer),
            timeouts: self.timeouts,
            gate: RequestGate::new(),
            retry_time: self.retry_time,
            has_answered: Arc::clone(&self.has_answered),
            retry_observer: self.retry_observer.clone(),
            sent: Arc::clone(&self.sent),
            stop: Arc::clone(&self.stop),
            is_ended: AtomicBool::new(false),
        }
    }

    /// The response, whatever it says, unless that is that the store is in passing trouble, or refuses such requests.
    pub(super) async fn send(&self, request: &ObjectRequest) -> Result<ObjectResponse, HttpError> {
        let (start, mut attempts) = (Instant::now(), 0);
        // However long the request has waited for its turn, and been sent, before it failed.
        let mut failing_since = request.is_cleanup.then_some(start);
        let retry_time = match request.is_cleanup {
            true => self.retry_time.min(CLEANUP_TIME),
            false => self.retry_time,
        };
        loop {
            attempts += 1;
            let outcome = {
                let _pass = self.gate.enter().await;
                if request
                    .permit
                    .as_ref()
                    .is_some_and(|permit| !permit.may_send())
                {
                    return Err(HttpError::new(&request.url, HttpErrorKind::Canceled));
                }
                tokio::select! {
                    outcome = self.send_signed(request) => outcome,
                    () = self.until_stopped(), if !request.is_cleanup => Err(HttpErrorKind::Canceled),
                    () = tokio::time::sleep_until(start + CLEANUP_TIME), if request.is_cleanup => {
                        Err(HttpErrorKind::Canceled)
                    }
                }
            };
            let checked = outcome.and_then(|it| it.unless_failed(request.is_completion));
            let failure = match checked {
                Ok(response) => {
                    self.gate.note_success();
                    return Ok(response);
                }
                Err(failure) => failure,
            };

            if failure.is_overload() {
                self.gate.note_overload();
            }
            let wait = self.wait_after(&failure, attempts);
            let failing_for = failing_since.get_or_insert_with(Instant::now).elapsed();
            let is_in_time = failing_for.saturating_add(wait) < retry_time;
            let is_final = !is_in_time || !is_worth_repeating(&failure);
            if self.is_stopped() || is_final || !self.is_waited_for(&failure, attempts) {
                return Err(HttpError::new(&request.url, failure).after_attempts(attempts));
            }
            debug!(url = %redacted(&request.url), attempts, ?wait, reason = %failure, "retry");
            if let Some(observer) = &self.retry_observer
                && failing_for >= WORTH_A_REPORT
            {
                observer.observe(&HttpError::new(&request.url, failure), failing_for);
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.until_stopped() => {}
            }
        }
    }

    /// Whether the store is waited for after the `attempts`-th attempt of a request. One that has not answered yet may
    /// never do so, if its address is wrong: it gets a few quick attempts.
    fn is_waited_for(&self, failure: &HttpErrorKind, attempts: u32) -> bool {
        let is_quick = !matches!(failure.outage(), Some(Outage::Silent(_)));
        self.has_answered.load(Ordering::Relaxed) || is_quick && attempts <= QUICK_RETRIES
    }

    fn is_stopped(&self) -> bool {
        let mut flags = [&*self.stop, &self.is_ended].into_iter();
        flags.any(|flag| flag.load(Ordering::Relaxed))
    }

    async fn until_stopped(&self) {
        while !self.is_stopped() {
            tokio::time::sleep(STOP_INTERVAL).await;
        }
    }

    /// How long to wait after the `attempts`-th attempt.
    fn wait_after(&self, failure: &HttpErrorKind, attempts: u32) -> Duration {
        let policy = &self.runtime.options().retry_policy;
        let (base, floor) = match failure.innermost() {
            HttpErrorKind::Status {
                status: 429 | 503,
                retry_after,
            } => (policy.overload_base, *retry_after),
            HttpErrorKind::Status { retry_after, .. } => (policy.base, *retry_after),
            _ => (policy.base, None),
        };
        let wait = policy.backoff(base, attempts, fastrand::f64());
        wait.max(floor.unwrap_or_default())
    }

    /// Sends it, and again with another signature if the store asks for that.
    async fn send_signed(&self, request: &ObjectRequest) -> Result<ObjectResponse, HttpErrorKind> {
        let (setup, options) = (self.runtime.setup(), self.runtime.options());
        let (mut url, mut refused) = (request.url.clone(), None);
        for _ in 0..SIGNATURES_MAX {
            services::prepare(&self.signer, setup, options).await?;
            let method = request.method.as_str();
            let content_type = request.fields.get(CONTENT_TYPE);
            let body = SignedBody {
                sha256: request.body.hash().as_str(),
                content_type: content_type.and_then(|value| value.to_str().ok()),
            };
            let signed = self.signer.fields_with_body(method, &url, body);
            let response = self.exchange(request, &url, signed.fields).await?;

            let key = signed.key.as_ref();
            match self.signer.judge_any(&url, key, response.parts()) {
                BucketVerdict::Ordinary | BucketVerdict::Missing => return Ok(response),
                BucketVerdict::Moved(moved) => url = moved,
                BucketVerdict::SignAgain(kind) => refused = Some(kind),
                // The session may have expired, which not every store says.
                BucketVerdict::Denied(kind)
                    if !self.signer.was_allowed()
                        && key.is_some_and(|key| key.session_token.is_some()) =>
                {
                    return Err(kind);
                }
                BucketVerdict::Denied(_) if key.is_some() => {
                    let error = BucketError::MayNot {
                        right: request.right,
                        was_allowed: self.signer.was_allowed(),
                    };
                    return Err(HttpErrorKind::Bucket(Box::new(error)));
                }
                BucketVerdict::Denied(kind) | BucketVerdict::Failed(kind) => return Err(kind),
            }
        }
        Err(refused.unwrap_or(HttpErrorKind::TooManyRedirects(SIGNATURES_MAX)))
    }

    /// Sends it once.
    async fn exchange(
        &self,
        request: &ObjectRequest,
        url: &Url,
        signature: HeaderMap,
    ) -> Result<ObjectResponse, HttpErrorKind> {
        trace!(method = %request.method, url = %shown(url), "request");
        let (setup, options) = (self.runtime.setup(), self.runtime.options());
        if url.scheme() == "https"
            && let Some(roots) = setup.tls(options).map_err(into_kind)?.read_roots()
        {
            // If reading the roots fails, the handshake reports it.
            let _ = roots.await;
        }

        let client = setup
            .http_client(url, self.timeouts.connect, options)
            .map_err(into_kind)?;
        let sent = Arc::new(SentBytes {
            attempt: AtomicU64::new(0),
            all: Arc::clone(&self.sent),
        });
        let mut builder = client
            .request(request.method.clone(), url.clone())
            .headers(request.fields.clone())
            .headers(signature)
            .header(ACCEPT_ENCODING, "identity");
        match request.body.to_attempt(Arc::clone(&sent)) {
            Some(body) => builder = builder.body(body),
            // Object stores want to know that there is nothing.
            None if matches!(request.method, Method::PUT | Method::POST) => {
                builder = builder.header(CONTENT_LENGTH, 0);
            }
            None => {}
        }
        let mut response = self.response(builder, &sent).await?;
        self.has_answered.store(true, Ordering::Relaxed);

        trace!(status = response.status().as_u16(), "response");
        let status = response.status().as_u16();
        let fields = std::mem::take(response.headers_mut());
        let is_ok = response.status().is_success();
        let bytes_max = if is_ok {
            request.response_bytes_max
        } else {
            ERROR_BODY_MAX_BYTES
        };
        let body = self.read_body(&mut response, bytes_max).await?;
        if is_ok && body.len() > bytes_max {
            let limit_bytes = bytes_max as u64;
            return Err(HttpErrorKind::TooLarge { limit_bytes });
        }
        Ok(ObjectResponse {
            status,
            fields,
            body: body.into(),
        })
    }

    /// The head of the response. As long as the connection takes bytes, none is due.
    async fn response(
        &self,
        request: reqwest::RequestBuilder,
        sent: &SentBytes,
    ) -> Result<reqwest::Response, HttpErrorKind> {
        let mut sending = std::pin::pin!(request.send());
        let limit = self.timeouts.connect.max(self.timeouts.stall);
        loop {
            let before = sent.attempt.load(Ordering::Relaxed);
            if let Some(outcome) = timeout(limit, sending.as_mut()).await {
                return outcome.map_err(|error| library_client::failure(error, self.timeouts));
            }
            if sent.attempt.load(Ordering::Relaxed) == before {
                return Err(HttpErrorKind::Stalled(self.timeouts.stall));
            }
        }
    }

    /// The body of `response`, at most one chunk more than `bytes_max` of it.
    async fn read_body(
        &self,
        response: &mut reqwest::Response,
        bytes_max: usize,
    ) -> Result<Vec<u8>, HttpErrorKind> {
        let mut body = Vec::new();
        while body.len() <= bytes_max {
            let chunk = timeout(self.timeouts.stall, response.chunk()).await;
            let chunk = chunk.ok_or(HttpErrorKind::Stalled(self.timeouts.stall))?;
            match chunk.map_err(|error| library_client::body_failure(error, self.timeouts))? {
                Some(bytes) => body.extend_from_slice(&bytes),
                None => break,
            }
        }
        Ok(body)
    }
}

fn into_kind(error: HttpError) -> HttpErrorKind {
    error.kind().clone()
}

/// Whether the same request may succeed a moment later.
fn is_worth_repeating(failure: &HttpErrorKind) -> bool {
    match failure {
        HttpErrorKind::Connect(_) | HttpErrorKind::ConnectTimeout(_) => true,
        HttpErrorKind::Bucket(error) => match &**error {
            BucketError::Refused { status: 200, code } => !FINAL_CODES.contains(&code.as_str()),
            _ => false,
        },
        _ => matches!(failure.status(), Some(200 | 400 | 409)) || failure.is_worth_repeating(),
    }
}

/// Errors after the status 200 that are the same for the same request.
const FINAL_CODES: [&str; 6] = [
    "AccessDenied",
    "EntityTooSmall",
    "InvalidPart",
    "InvalidPartOrder",
    "MalformedXML",
    "NoSuchUpload",
];

/// Retries that take less time need no message.
const WORTH_A_REPORT: Duration = Duration::from_secs(2);

/// How often one request is signed.
const SIGNATURES_MAX: usize = 5;

/// How long a request may take that only tidies up.
const CLEANUP_TIME: Duration = Duration::from_secs(3);

/// How often a request looks whether it is still wanted.
const STOP_INTERVAL: Duration = Duration::from_millis(50);
