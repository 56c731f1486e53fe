//! An object to be written, and what became of it.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, IF_MATCH, IF_NONE_MATCH,
};

use super::upload_body::UploadBody;
use crate::http::s3::body_hash::BodyHash;

/// An object to be written.
#[derive(Debug, Clone)]
pub(crate) struct ObjectPut {
    pub(super) key: String,
    pub(super) body: UploadBody,
    content_type: &'static str,
    cache_control: String,
    pub(super) condition: PutCondition,
}

/// What has to hold for an object to be written, if the store supports conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PutCondition {
    /// Nothing.
    Always,
    /// There is no such object.
    Absent,
    /// The object has this `ETag`.
    Unchanged(String),
}

/// What became of an object that was to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PutOutcome {
    /// It is written, and this is its `ETag` if the store says so.
    Written(Option<String>),
    /// The condition does not hold.
    Refused,
}

impl ObjectPut {
    /// The object `key`, with these bytes.
    pub(crate) fn bytes(key: &str, bytes: impl Into<Bytes>, content_type: &'static str) -> Self {
        Self::new(key, UploadBody::of_bytes(bytes.into()), content_type)
    }

    /// The object `key`, with the first `length` bytes of `file`, whose hash is `hash`.
    pub(crate) fn file(
        key: &str,
        file: &Arc<File>,
        length: u64,
        hash: BodyHash,
        content_type: &'static str,
    ) -> Self {
        let body = UploadBody::of_file(Arc::clone(file), 0, length, hash);
        Self::new(key, body, content_type)
    }

    fn new(key: &str, body: UploadBody, content_type: &'static str) -> Self {
        Self {
            key: key.to_owned(),
            body,
            content_type,
            cache_control: String::new(),
            condition: PutCondition::Always,
        }
    }

    /// Has caches keep it as `text` says.
    pub(crate) fn cache_control(mut self, text: impl Into<String>) -> Self {
        self.cache_control = text.into();
        self
    }

    /// Is only written if this holds.
    pub(crate) fn condition(mut self, condition: PutCondition) -> Self {
        self.condition = condition;
        self
    }

    /// The header fields that describe it, and its condition.
    pub(super) fn fields(&self, has_conditions: bool) -> HeaderMap {
        let mut fields = HeaderMap::new();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        let condition = match &self.condition {
            PutCondition::Absent if has_conditions => Some((IF_NONE_MATCH, "*")),
            PutCondition::Unchanged(etag) if has_conditions => Some((IF_MATCH, etag.as_str())),
            _ => None,
        };
        let cache_control = Some((CACHE_CONTROL, self.cache_control.as_str()));
        let cache_control = cache_control.filter(|(_, text)| !text.is_empty());
        for (name, value) in condition.into_iter().chain(cache_control) {
            if let Ok(value) = HeaderValue::from_str(value) {
                fields.insert(name, value);
            }
        }
        fields
    }
}
