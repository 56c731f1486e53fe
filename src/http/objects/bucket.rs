//! A bucket whose objects are listed, read, written and removed.
//!
//! An object that was written is complete, lasts, and is what all requests from then on get: `put` returns after the
//! store has said so, and has compared the content with its signed hash.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use reqwest::Method;
use reqwest::header::HeaderMap;
use tracing::debug;
use url::Url;

use super::callbacks::{RetryObserver, SendPermit};
use super::gate::RequestGate;
use super::listing::{ListedObject, parse_page};
use super::object_put::{ObjectPut, PutCondition, PutOutcome};
use super::request::{ObjectRequest, ObjectStore};
use super::response::ObjectResponse;
use super::upload_body::UploadBody;
use crate::format::s3_location::encoded_parameter;
use crate::format::server_url::ServerUrl;
use crate::http::error::{BucketError, HttpError, HttpErrorKind};
use crate::http::net::runtime::HttpRuntime;

/// The objects of a bucket below the prefix of a server.
#[derive(Debug)]
pub(crate) struct Bucket {
    server: ServerUrl,
    pub(super) store: ObjectStore,
    /// The store supports conditions of `PUT`, or has not said that it does not.
    has_conditions: AtomicBool,
}

/// An object that was read whole.
#[derive(Debug, Clone)]
pub(crate) struct ObjectText {
    /// Its content.
    pub(crate) bytes: Bytes,
    /// The version of its content.
    pub(crate) etag: Option<String>,
}

impl Bucket {
    /// See [`Client::bucket`](crate::http::Client::bucket).
    pub(in crate::http) fn new(
        runtime: &Arc<HttpRuntime>,
        server: &ServerUrl,
        retry_time: Duration,
        retry_observer: Option<RetryObserver>,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, HttpError> {
        let options = runtime.options();
        let signer = options.credentials.signer_of(server).cloned();
        Ok(Self {
            store: ObjectStore {
                signer: signer.ok_or_else(|| {
                    let error = BucketError::NoBucket(server.as_str().to_owned());
                    HttpError::new(server.base(), HttpErrorKind::Bucket(Box::new(error)))
                })?,
                timeouts: options.timeouts_of(server.base()),
                runtime: Arc::clone(runtime),
                gate: RequestGate::new(),
                retry_time,
                has_answered: Arc::default(),
                retry_observer,
                sent: Arc::default(),
                stop,
                is_ended: AtomicBool::new(false),
            },
            server: server.clone(),
            has_conditions: AtomicBool::new(true),
        })
    }

    /// The same bucket, for requests that must not wait until others have ended, such as large uploads.
    #[must_use]
    pub(crate) fn with_own_gate(&self) -> Self {
        Self {
            server: self.server.clone(),
            store: self.store.with_own_gate(),
            has_conditions: AtomicBool::new(true),
        }
    }

    /// Ends all requests of this one, except for those that tidy up, but none of [`Bucket::with_own_gate`].
    pub(crate) fn end_requests(&self) {
        self.store.is_ended.store(true, Ordering::Relaxed);
    }

    /// For how long a request is repeated, and what ends all of them when it is set.
    #[must_use]
    pub(crate) fn retries(&self) -> (Duration, &Arc<AtomicBool>) {
        (self.store.retry_time, &self.store.stop)
    }

    /// The server that it is.
    #[must_use]
    pub(crate) fn server(&self) -> &ServerUrl {
        &self.server
    }

    /// Counts the bytes of objects that connections have taken, also of those that were sent again.
    #[must_use]
    pub(crate) fn sent_bytes(&self) -> &Arc<AtomicU64> {
        &self.store.sent
    }

    /// All objects whose keys begin with `start`.
    ///
    /// # Errors
    /// The list cannot be had, or is too long.
    pub(crate) fn list(&self, start: &str) -> Result<Vec<ListedObject>, HttpError> {
        let (root, prefix) = self
            .server
            .bucket_root()
            .unwrap_or_else(|| (self.server.base().clone(), String::new()));
        let from = encoded_parameter(&format!("{prefix}{start}"));
        let (mut objects, mut token) = (Vec::new(), None::<String>);
        let (mut empty_pages, mut text_bytes) = (0, 0);
        loop {
            // In the order of their names, as they are signed.
            let mut url = root.clone();
            let token_field = token.as_deref().map(encoded_parameter);
            let token_field = token_field.map(|token| format!("continuation-token={token}&"));
            let token_field = token_field.unwrap_or_default();
            url.set_query(Some(&format!("{token_field}list-type=2&prefix={from}")));

            let request = self.request(Method::GET, url, "s3:ListBucket", LIST_BYTES_MAX);
            let response = self.send(&request)?;
            if response.status != 200 {
                return Err(response.into_failure(&request.url));
            }
            let text = String::from_utf8_lossy(&response.body);
            let page =
                parse_page(&text, &prefix).ok_or_else(|| not_a_list(&request.url, &response))?;
            empty_pages += u32::from(page.objects.is_empty());
            for object in &page.objects {
                text_bytes += object.key.len() + object.etag.as_ref().map_or(0, String::len);
            }
            objects.extend(page.objects);
            let is_endless = objects.len() > OBJECTS_MAX
                || text_bytes > TEXT_BYTES_MAX
                || empty_pages > EMPTY_PAGES_MAX;
            match page.next {
                None => return Ok(objects),
                Some(next) if Some(&next) == token.as_ref() || is_endless => {
                    return Err(not_a_list(&request.url, &response));
                }
                next => token = next,
            }
        }
    }

    /// The objects with these keys, each of at most so many bytes, many at a time; `None` for those that do not exist or
    /// are larger.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub(crate) fn read_all(
        &self,
        keys: &[(String, usize)],
    ) -> Result<Vec<Option<ObjectText>>, HttpError> {
        let reads = keys.iter().map(|(key, bytes)| self.read(key, *bytes));
        let reads = stream::iter(reads).buffered(REQUESTS_MAX).try_collect();
        self.store.runtime.block_on(reads)
    }

    async fn read(&self, key: &str, bytes_max: usize) -> Result<Option<ObjectText>, HttpError> {
        let url = self.server.object_url(key);
        let request = self.request(Method::GET, url, "s3:GetObject", bytes_max);
        let response = match self.store.send(&request).await {
            Err(error) if matches!(error.kind(), HttpErrorKind::TooLarge { .. }) => {
                return Ok(None);
            }
            response => response?,
        };
        match response.status {
            200 => Ok(Some(ObjectText {
                etag: response.field("etag").map(str::to_owned),
                bytes: response.body,
            })),
            404 => Ok(None),
            _ => Err(response.into_failure(&request.url)),
        }
    }

    /// Writes the objects `puts`, many at a time, as long as `permit` says that they may be written: what became of each.
    ///
    /// # Errors
    /// One of them cannot be written, or may not any more; others may have been.
    pub(crate) fn put_all(
        &self,
        puts: &[ObjectPut],
        permit: Option<&SendPermit>,
    ) -> Result<Vec<PutOutcome>, HttpError> {
        let puts = puts.iter().map(|put| self.put_one(put, permit.cloned()));
        let puts = stream::iter(puts).buffered(REQUESTS_MAX).try_collect();
        self.store.runtime.block_on(puts)
    }

    async fn put_one(
        &self,
        put: &ObjectPut,
        permit: Option<SendPermit>,
    ) -> Result<PutOutcome, HttpError> {
        let url = self.server.object_url(&put.key);
        let mut request = self.request(Method::PUT, url, "s3:PutObject", RESPONSE_BYTES_MAX);
        request.body = put.body.clone();
        request.permit = permit;
        loop {
            let has_conditions = self.has_conditions.load(Ordering::Relaxed);
            request.fields = put.fields(has_conditions);
            let response = self.store.send(&request).await?;
            match response.status {
                200 | 201 | 204 => {
                    let etag = response.field("etag").map(str::to_owned);
                    return Ok(PutOutcome::Written(etag));
                }
                412 => return Ok(PutOutcome::Refused),
                // The object that has to be there is gone.
                404 if matches!(put.condition, PutCondition::Unchanged(_))
                    && response.code().as_deref() == Some("NoSuchKey") =>
                {
                    return Ok(PutOutcome::Refused);
                }
                501 if has_conditions && put.condition != PutCondition::Always => {
                    debug!("the object store has no conditional writes");
                    self.has_conditions.store(false, Ordering::Relaxed);
                }
                _ => return Err(response.into_failure(&request.url)),
            }
        }
    }

    /// Removes the objects `keys`, many at a time, as long as `permit` says that they may be removed. Without one, it only
    /// tidies up. Those that do not exist count as removed.
    ///
    /// # Errors
    /// One of them cannot be removed, or may not any more.
    pub(crate) fn remove_all(
        &self,
        keys: &[String],
        permit: Option<&SendPermit>,
    ) -> Result<(), HttpError> {
        let removals = keys.iter().map(|key| self.remove(key, permit.cloned()));
        let removals = stream::iter(removals).buffered(REQUESTS_MAX).try_collect();
        self.store.runtime.block_on(removals)
    }

    async fn remove(&self, key: &str, permit: Option<SendPermit>) -> Result<(), HttpError> {
        let url = self.server.object_url(key);
        let mut request = self.request(Method::DELETE, url, "s3:DeleteObject", RESPONSE_BYTES_MAX);
        request.is_cleanup = permit.is_none();
        request.permit = permit;
        let response = self.store.send(&request).await?;
        match response.status {
            200 | 202 | 204 | 404 => Ok(()),
            _ => Err(response.into_failure(&request.url)),
        }
    }

    /// The response to `request`.
    pub(super) fn send(&self, request: &ObjectRequest) -> Result<ObjectResponse, HttpError> {
        self.store.runtime.block_on(self.store.send(request))
    }

    /// A request without fields and a body.
    pub(super) fn request(
        &self,
        method: Method,
        url: Url,
        right: &'static str,
        response_bytes_max: usize,
    ) -> ObjectRequest {
        ObjectRequest {
            method,
            url,
            fields: HeaderMap::new(),
            body: UploadBody::empty(),
            right,
            is_cleanup: false,
            is_completion: false,
            permit: None,
            response_bytes_max,
        }
    }
}

fn not_a_list(url: &Url, response: &ObjectResponse) -> HttpError {
    let kind = HttpErrorKind::Unexpected {
        expected: "a list of objects",
        content_type: response.field("content-type").map(Into::into),
    };
    HttpError::new(url, kind)
}

/// Requests that are made at the same time; the gate lets fewer through if the store is overloaded.
const REQUESTS_MAX: usize = 128;

/// The most bytes of a page of a list, of 1000 objects whose keys have up to 1 KiB each.
const LIST_BYTES_MAX: usize = 8 << 20;

/// The most bytes of a response that says what became of a request.
pub(super) const RESPONSE_BYTES_MAX: usize = 64 << 10;

/// The longest list, with the bytes of keys and versions in it, and how many of its pages may have no object.
const OBJECTS_MAX: usize = 20_000_000;
const TEXT_BYTES_MAX: usize = if cfg!(test) { 1 << 20 } else { 2 << 30 };
const EMPTY_PAGES_MAX: u32 = 1000;
