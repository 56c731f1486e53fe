//! What becomes of the responses of one server: an answer is reported, a redirect is followed, and a
//! failure is retried after a wait or reported.

use reqwest::Method;
use tokio::time::Instant;
use tracing::{debug, trace};

use super::events::{CacheInfoText, LookupEvent, NarInfoAnswer};
use super::health::HealthAction;
use super::request::RequestTarget;
use super::response::{self, LookupResponse, ResponseMeaning};
use super::server::{HttpServer, InFlightRequest};
use crate::format::cache_info::CacheInfo;
use crate::format::server_url::redacted;
use crate::http::download::client::LibraryRequest;
use crate::http::error::HttpErrorKind;
use crate::http::retry::RetryDecision;
use crate::http::s3::services;
use crate::http::s3::signer::{BucketSigner, BucketVerdict};
use crate::http::s3::verdict::BucketResponse;

impl HttpServer {
    /// Handles the response to `request`; waits while the caller has too much to read already.
    pub(super) async fn handle_response(&self, request: InFlightRequest, response: LookupResponse) {
        trace!(
            server = self.url.as_str(),
            target = ?request.target(),
            status = response.head.status,
            bytes = response.body.len(),
            "response"
        );
        let Some((request, response)) = self.correct_signature(request, response).await else {
            self.notify();
            return;
        };
        let limit_bytes = self.options.narinfo_limit_bytes;
        match response::interpret(request.target(), response, limit_bytes) {
            ResponseMeaning::Answer(answer) => {
                let (event, size) = self.event(request.target(), answer);
                // Only what has its place in the event queue is no longer put back.
                let reserved = self.events.reserve(size).await;
                let target = request.finish().target;
                let mut queue = self.queue();
                queue.answered_target(target);
                queue.health.note_genuine();
                drop(queue);
                self.events.send_reserved(reserved, event);
            }
            ResponseMeaning::Redirect(location) => {
                let request = request.finish();
                let mut queue = self.queue();
                queue.answered_target(request.target);
                queue.push_redirected(request, location);
            }
            ResponseMeaning::Failed(kind) => self.retry_or_fail(request, kind),
        }
        self.notify();
    }

    /// Takes the response to a request for a bucket to what follows in a bucket alone: another signature, or the end
    /// of all requests to it. Some: it means the same as from any server.
    async fn correct_signature(
        &self,
        request: InFlightRequest,
        mut response: LookupResponse,
    ) -> Option<(InFlightRequest, LookupResponse)> {
        let Some(signer) = &self.signer else {
            return Some((request, response));
        };
        // It was followed with the signature that its URL needs, or it is another server's.
        if response.redirected_to.is_some() {
            return Some((request, response));
        }
        let url = request.target().url(&self.url);
        let fields = response.head.bucket.as_deref();
        let key = request.request().signed_with.as_ref();
        let mut verdict = signer.judge(
            &url,
            key,
            BucketResponse {
                status: response.head.status,
                date: fields.and_then(|fields| fields.date.as_deref()),
                region: fields.and_then(|fields| fields.region.as_deref()),
                body: &response.body,
            },
        );
        if let BucketVerdict::Denied(kind) = verdict {
            let library = LibraryRequest::new(Method::GET, url.clone(), self.timeouts);
            let explained = library.explain_denial(signer, &self.setup, &self.options, &url, kind);
            match explained.await {
                Ok(explained) => verdict = explained,
                Err(kind) => {
                    self.retry_or_fail(request, kind);
                    return None;
                }
            }
        }
        match verdict {
            BucketVerdict::Ordinary => {}
            BucketVerdict::Missing => {
                response.head.status = 404;
                response.head.max_age = Some(DENIED_MAX_AGE);
            }
            BucketVerdict::Moved(url) => response.head.location = Some(url.into()),
            BucketVerdict::SignAgain(kind) => {
                self.sign_again(request, signer, kind).await;
                return None;
            }
            BucketVerdict::Denied(kind) | BucketVerdict::Failed(kind) => {
                self.give_up_bucket(request, kind);
                return None;
            }
        }
        Some((request, response))
    }

    /// Sends `request` again, with another signature; gives up when it was refused too often because of `kind`.
    async fn sign_again(
        &self,
        request: InFlightRequest,
        signer: &BucketSigner,
        kind: HttpErrorKind,
    ) {
        if let Err(kind) = services::prepare(signer, &self.setup, &self.options).await {
            return self.give_up_bucket(request, kind);
        }

        let mut request = request.finish();
        request.count_failure(1);
        let mut queue = self.queue();
        if request.failure_weight < queue.health.policy().attempts {
            queue.answered();
            queue.delay(Instant::now(), request);
            return;
        }
        drop(queue);
        self.fail(&request, kind.clone());
        self.apply(HealthAction::GiveUp, kind);
    }

    fn give_up_bucket(&self, request: InFlightRequest, kind: HttpErrorKind) {
        let mut request = request.finish();
        request.count_failure(1);
        self.fail(&request, kind.clone());
        self.apply(HealthAction::GiveUp, kind);
    }

    /// What to report, and how many bytes from the server it holds.
    fn event(&self, target: RequestTarget, answer: NarInfoAnswer) -> (LookupEvent, usize) {
        let server = self.index;
        match (target, answer) {
            (RequestTarget::NarInfo(item), answer) => {
                let size = match &answer {
                    NarInfoAnswer::Found { text, .. } => text.len(),
                    NarInfoAnswer::Missing { .. } | NarInfoAnswer::Preparing { .. } => 0,
                };
                let answer = Ok(answer);
                let event = LookupEvent::Answer {
                    server,
                    item,
                    answer,
                };
                (event, size)
            }
            (RequestTarget::CacheInfo, NarInfoAnswer::Found { text, max_age }) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                let info = CacheInfo::parse(&text);
                let more = self.queue().allow_connections(&info, &self.options);
                self.send_permits.add_permits(more);
                let size = text.len();
                let info = Ok(Some(CacheInfoText { text, max_age }));
                (LookupEvent::CacheInfo { server, info }, size)
            }
            (RequestTarget::CacheInfo, _) => {
                let info = Ok(None);
                (LookupEvent::CacheInfo { server, info }, 0)
            }
        }
    }

    /// After a failure that the server itself reported.
    pub(super) fn retry_or_fail(&self, request: InFlightRequest, kind: HttpErrorKind) {
        let mut request = request.finish();
        let now = Instant::now();
        let mut queue = self.queue();
        queue.outage.refused(request.target, &kind);
        let action = match kind {
            HttpErrorKind::Status { status, .. } if kind.is_worth_repeating() => {
                queue.pause_for_error_status(&request, &kind, status)
            }
            _ => {
                queue.answered();
                HealthAction::Continue
            }
        };
        if queue.is_one_too_many(&kind) {
            request.count_refusal();
        } else {
            request.count_failure(1);
        }

        let policy = queue.health.policy();
        let (weight, age) = (request.failure_weight, request.age(now));
        let decision = match queue.fails_at_once {
            true => RetryDecision::Stop,
            false => policy.next(&kind, weight, age, fastrand::f64()),
        };
        match decision {
            RetryDecision::Stop => {
                drop(queue);
                self.fail_or_wait(request, kind.clone());
            }
            RetryDecision::After(delay) => {
                debug!(
                    url = %redacted(&request.target.url(&self.url)),
                    attempts = request.attempts,
                    ?delay,
                    reason = %kind,
                    "retry"
                );
                queue.outage.note_retry(&mut request, &kind, now);
                queue.delay(now + delay, request);
                drop(queue);
            }
        }
        self.apply(action, kind);
    }
}

/// For how many seconds an object counts as missing to which access is denied: it may be there, and the access
/// may be given.
const DENIED_MAX_AGE: u64 = 60;
