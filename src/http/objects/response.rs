//! What an object store answers, and which failure that is.

use std::borrow::Cow;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use url::Url;

use crate::http::error::{BucketError, HttpError, HttpErrorKind, is_passing};
use crate::http::retry::parse_retry_after;
use crate::http::s3::verdict::BucketResponse;
use crate::http::s3::xml::element;

/// The response of an object store, all of it.
#[derive(Debug)]
pub(super) struct ObjectResponse {
    pub(super) status: u16,
    pub(super) fields: HeaderMap,
    pub(super) body: Bytes,
}

impl ObjectResponse {
    pub(super) fn parts(&self) -> BucketResponse<'_> {
        BucketResponse {
            status: self.status,
            date: self.field("date"),
            region: self.field("x-amz-bucket-region"),
            body: if self.status < 300 { b"" } else { &self.body },
        }
    }

    /// The value of a header field, if it is text.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.to_str().ok()
    }

    /// The response, or the failure that it is, which may pass. The status of a completion is sent before it is known
    /// what becomes of the request: an error may follow.
    pub(super) fn unless_failed(self, is_completion: bool) -> Result<Self, HttpErrorKind> {
        let status = self.status;
        if is_completion && status == 200 && !self.text().contains("<CompleteMultipartUploadResult")
        {
            return Err(self.failure_kind());
        }
        let is_late_upload = status == 400 && self.code().as_deref() == Some("RequestTimeout");
        // A conflict is one with another request for the same object at the same time.
        if is_passing(status) || status == 409 || is_late_upload {
            let date = self.field("date");
            let retry_after = self.field("retry-after");
            return Err(HttpErrorKind::Status {
                status,
                retry_after: retry_after.and_then(|value| parse_retry_after(value, date)),
            });
        }
        Ok(self)
    }

    /// The body, which is a document.
    pub(super) fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The code of an error.
    pub(super) fn code(&self) -> Option<String> {
        element(&self.text(), "Code")
    }

    /// The failure that a response is which the request has no use for.
    pub(super) fn into_failure(self, url: &Url) -> HttpError {
        HttpError::new(url, self.failure_kind())
    }

    fn failure_kind(&self) -> HttpErrorKind {
        let status = self.status;
        match self.code() {
            Some(code) => HttpErrorKind::Bucket(Box::new(BucketError::refused(status, &code))),
            None => HttpErrorKind::Status {
                status,
                retry_after: None,
            },
        }
    }
}
