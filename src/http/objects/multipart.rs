//! Large objects in parts: an upload is created, its parts are put, and it is completed, which makes the object appear.
//!
//! Parts stay at the store until the upload is completed or aborted, also if this process is killed.

use std::fmt::Write as _;
use std::fs::File;
use std::sync::Arc;

use reqwest::Method;
use url::Url;

use super::bucket::{Bucket, RESPONSE_BYTES_MAX};
use super::callbacks::SendPermit;
use super::object_put::ObjectPut;
use super::upload_body::UploadBody;
use crate::format::s3_location::encoded_parameter;
use crate::http::error::HttpError;
use crate::http::s3::body_hash::BodyHash;
use crate::http::s3::xml::{element, elements};

/// A part that the object store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UploadedPart {
    /// Its number, from 1 on.
    pub(crate) number: u32,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// The version of its content.
    pub(crate) etag: String,
}

/// A part of a file that is to be sent.
pub(crate) struct FilePart {
    /// Its number, from 1 on.
    pub(crate) number: u32,
    /// The file.
    pub(crate) file: Arc<File>,
    /// Where it begins.
    pub(crate) start: u64,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// Its hash.
    pub(crate) hash: BodyHash,
}

impl Bucket {
    /// Creates an upload of the object `put`, and returns its name.
    ///
    /// # Errors
    /// The object store does not.
    pub(crate) fn create_upload(&self, put: &ObjectPut) -> Result<String, HttpError> {
        let url = self.upload_url(&put.key, "uploads=");
        let mut request = self.request(Method::POST, url, "s3:PutObject", RESPONSE_BYTES_MAX);
        request.fields = put.fields(false);
        let response = self.send(&request)?;
        let id = element(&response.text(), "UploadId").filter(|id| is_upload_id(id));
        id.filter(|_| response.status == 200)
            .ok_or_else(|| response.into_failure(&request.url))
    }

    /// Sends a part of the upload `id` of the object `key`, if `permit` says that it may be sent.
    ///
    /// # Errors
    /// The object store does not take it.
    pub(super) async fn put_part(
        &self,
        key: &str,
        id: &str,
        part: FilePart,
        permit: &SendPermit,
    ) -> Result<UploadedPart, HttpError> {
        let (number, size) = (part.number, part.size);
        let query = format!("partNumber={number}&uploadId={}", encoded_parameter(id));
        let url = self.upload_url(key, &query);
        let mut request = self.request(Method::PUT, url, "s3:PutObject", RESPONSE_BYTES_MAX);
        request.body = UploadBody::of_file(part.file, part.start, size, part.hash);
        request.permit = Some(permit.clone());
        let response = self.store.send(&request).await?;
        match response.field("etag") {
            Some(etag) if response.status == 200 => Ok(UploadedPart {
                number,
                size,
                etag: etag.to_owned(),
            }),
            _ => Err(response.into_failure(&request.url)),
        }
    }

    /// The parts that the object store has of the upload `id` of the object `key`; `None` if there is no such upload.
    ///
    /// # Errors
    /// The list cannot be had.
    pub(crate) fn uploaded_parts(
        &self,
        key: &str,
        id: &str,
    ) -> Result<Option<Vec<UploadedPart>>, HttpError> {
        let (id, mut parts, mut marker) = (encoded_parameter(id), Vec::new(), String::new());
        loop {
            let url = self.upload_url(key, &format!("{marker}uploadId={id}"));
            let right = "s3:ListMultipartUploadParts";
            let request = self.request(Method::GET, url, right, PARTS_BYTES_MAX);
            let response = self.send(&request)?;
            let text = response.text();
            match response.status {
                404 => return Ok(None),
                200 if text.contains("<ListPartsResult") => {}
                _ => return Err(response.into_failure(&request.url)),
            }
            let before = parts.len();
            parts.extend(elements(&text, "Part").filter_map(part_of));
            let next = element(&text, "NextPartNumberMarker");
            let is_truncated = element(&text, "IsTruncated").as_deref() == Some("true");
            match next {
                Some(next) if is_truncated && parts.len() > before => {
                    marker = format!("part-number-marker={}&", encoded_parameter(&next));
                }
                _ => return Ok(Some(parts)),
            }
        }
    }

    /// Makes the object `key` of all `parts` of the upload `id`, if `permit` says that it may be written, and returns its
    /// `ETag`, if the store says so.
    ///
    /// # Errors
    /// The object store does not, it may not be written, or there is no such upload, perhaps because it is complete.
    pub(crate) fn complete_upload(
        &self,
        key: &str,
        id: &str,
        parts: &[UploadedPart],
        permit: Option<&SendPermit>,
    ) -> Result<Option<String>, HttpError> {
        let mut xml = "<CompleteMultipartUpload>".to_owned();
        for part in parts {
            // Writing to a text cannot fail.
            let _ = write!(
                xml,
                "<Part><PartNumber>{}</PartNumber><ETag>{}</ETag></Part>",
                part.number,
                escaped(&part.etag)
            );
        }
        xml.push_str("</CompleteMultipartUpload>");

        let query = format!("uploadId={}", encoded_parameter(id));
        let url = self.upload_url(key, &query);
        let mut request = self.request(Method::POST, url, "s3:PutObject", RESPONSE_BYTES_MAX);
        request.body = UploadBody::of_bytes(xml.into());
        request.is_completion = true;
        request.permit = permit.cloned();
        let response = self.send(&request)?;
        match response.status {
            200 => Ok(element(&response.text(), "ETag")),
            _ => Err(response.into_failure(&request.url)),
        }
    }

    /// Removes the upload `id` of the object `key`, and its parts.
    ///
    /// # Errors
    /// The object store does not.
    pub(crate) fn abort_upload(&self, key: &str, id: &str) -> Result<(), HttpError> {
        let query = format!("uploadId={}", encoded_parameter(id));
        let url = self.upload_url(key, &query);
        let right = "s3:AbortMultipartUpload";
        let mut request = self.request(Method::DELETE, url, right, RESPONSE_BYTES_MAX);
        request.is_cleanup = true;
        let response = self.send(&request)?;
        match response.status {
            200 | 204 | 404 => Ok(()),
            _ => Err(response.into_failure(&request.url)),
        }
    }

    fn upload_url(&self, key: &str, query: &str) -> Url {
        let mut url = self.server().object_url(key);
        url.set_query(Some(query));
        url
    }
}

fn part_of(content: &str) -> Option<UploadedPart> {
    Some(UploadedPart {
        number: element(content, "PartNumber")?.parse().ok()?,
        size: element(content, "Size")?.parse().ok()?,
        etag: element(content, "ETag")?,
    })
}

/// Whether `id` may be the name of an upload, which is kept in a file.
fn is_upload_id(id: &str) -> bool {
    (1..=UPLOAD_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// The longest name of an upload; those of AWS have 128 bytes.
const UPLOAD_ID_BYTES_MAX: usize = 1024;

/// The most bytes of a page of a list of 1000 parts.
const PARTS_BYTES_MAX: usize = 1 << 20;
