//! What is requested of a nar, and what the head of the response says about its body.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use reqwest::header::{CONTENT_ENCODING, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use reqwest::{Response, Version};
use url::Url;

use super::client::{header, status_failure};
use crate::format::compression::Compression;
use crate::http::content_encoding::ContentEncodings;
use crate::http::error::HttpErrorKind;
use crate::http::options::Timeouts;
use crate::http::rate::RateDemand;
use crate::http::retry::RetryPolicy;

/// A range of a file: from the first position up to but not including the second, or to the end.
pub(super) type ByteRange = (u64, Option<u64>);

/// What to download.
#[derive(Debug, Clone)]
pub(crate) struct NarRequest {
    /// Where: http, https or file.
    pub(crate) url: Url,
    /// How the file is compressed, if that is known: it tells whether a `Content-Encoding` is that
    /// of the file itself.
    pub(crate) compression: Option<Compression>,
    /// Only a range: from the first position up to but not including the second, or to the end.
    pub(crate) range: Option<(u64, Option<u64>)>,
    /// The range is wanted only if the file still has this
    /// [`NarBody::validator`](super::body::NarBody::validator); else all of it.
    pub(crate) if_range: Option<String>,
    /// Other timeouts than those of [`Options`](crate::http::options::Options).
    pub(crate) timeouts: Option<Timeouts>,
    /// More than the minimum rate of [`Options`](crate::http::options::Options).
    pub(crate) rate_demand: Option<RateDemand>,
    /// Another retry policy than that of [`Options`](crate::http::options::Options). Downloads into
    /// a store use [`RetryPolicy::once`]: their caller repeats and resumes them itself.
    pub(crate) retry_policy: Option<RetryPolicy>,
    /// How many bytes may wait to be read, if less than usual: the transfer pauses meanwhile.
    pub(crate) queued_bytes_max: Option<u32>,
    /// Ends the transfer with [`HttpErrorKind::Canceled`] soon after it was set.
    pub(crate) stop: Option<Arc<AtomicBool>>,
}

impl NarRequest {
    /// All of the nar at `url`.
    #[must_use]
    pub(crate) fn new(url: Url) -> Self {
        Self {
            url,
            compression: None,
            range: None,
            if_range: None,
            timeouts: None,
            rate_demand: None,
            retry_policy: None,
            queued_bytes_max: None,
            stop: None,
        }
    }
}

/// How much of the file a body contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyStatus {
    /// All of it, whatever was requested.
    Full,
    /// A range, which begins where the requested one does or before it.
    Partial {
        /// The position of its first byte.
        start: u64,
        /// The length of the whole file, if the server says so.
        total: Option<u64>,
    },
}

/// What a server says about requests for parts of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RangeSupport {
    /// It answers them.
    Announced,
    /// Nothing.
    Unknown,
    /// It does not answer them.
    Denied,
}

impl RangeSupport {
    fn of(headers: &HeaderMap) -> Self {
        match header(headers, "accept-ranges") {
            _ if accepts_ranges(headers) => Self::Announced,
            Some(value) if value.eq_ignore_ascii_case("none") => Self::Denied,
            _ => Self::Unknown,
        }
    }
}

/// What is known before the first byte.
#[derive(Debug, Clone)]
pub(super) struct BodyHead {
    pub(super) status: BodyStatus,
    /// Bytes of the body as it is sent.
    pub(super) body_bytes: Option<u64>,
    /// Whether the body is complete with these bytes although the connection stays open.
    pub(super) ends_with_bytes: bool,
    /// Whether nothing but the end of the connection tells where the body ends.
    pub(super) ends_with_connection: bool,
    pub(super) encodings: ContentEncodings,
    /// Bytes of the file.
    pub(super) content_length: Option<u64>,
    pub(super) validator: Option<String>,
    pub(super) ranges: RangeSupport,
    pub(super) url: Option<Url>,
}

impl BodyHead {
    /// What the head of `response` says of the body; an error if it is not the requested one,
    /// which begins at `start` if a range was requested.
    pub(super) fn of(response: &Response, start: Option<u64>) -> Result<Self, HttpErrorKind> {
        let headers = response.headers();
        let status = match (response.status().as_u16(), start) {
            (200, _) => BodyStatus::Full,
            (206, Some(requested)) => match content_range(headers) {
                Some((start, total)) if start <= requested => BodyStatus::Partial { start, total },
                _ => return Err(HttpErrorKind::WrongRange),
            },
            (206, None) => return Err(HttpErrorKind::WrongRange),
            _ => return Err(status_failure(response)),
        };

        let framing = transfer_encoding(headers)?;
        let (body_bytes, encodings) = (body_bytes(headers, framing), encodings(headers));
        let is_plain = encodings.is_empty();
        let is_partial = status != BodyStatus::Full;
        if is_partial && !is_plain {
            return Err(HttpErrorKind::WrongRange);
        }
        Ok(Self {
            status,
            body_bytes,
            ends_with_bytes: framing == TransferEncoding::Identity,
            ends_with_connection: body_bytes.is_none()
                && framing != TransferEncoding::Chunked
                && response.version() <= Version::HTTP_11,
            content_length: body_bytes.filter(|_| is_plain),
            validator: validator(headers).filter(|_| is_plain),
            ranges: match status {
                BodyStatus::Partial { .. } => RangeSupport::Announced,
                // They would be ranges of the encoded file.
                BodyStatus::Full if !is_plain => RangeSupport::Denied,
                BodyStatus::Full => RangeSupport::of(headers),
            },
            url: Some(response.url().clone()),
            encodings,
        })
    }
}

/// The value of a `Range` field.
pub(super) fn range_header((start, end): ByteRange) -> HeaderValue {
    let last = end
        .map(|end| end.saturating_sub(1).to_string())
        .unwrap_or_default();
    HeaderValue::from_str(&format!("bytes={start}-{last}")).expect("digits make a valid header")
}

/// `bytes 5-9/10` or `bytes 5-9/*`: the first position and the length of the whole.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let value = header(headers, "content-range")?;
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.trim().split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let total = match total {
        "*" => None,
        number => Some(number.parse().ok()?),
    };
    let is_valid = first <= last && total.is_none_or(|total| last < total);
    is_valid.then_some((first, total))
}

/// A weak `ETag` names equivalent files, not equal bytes: useless for putting ranges together.
fn validator(headers: &HeaderMap) -> Option<String> {
    header(headers, "etag")
        .filter(|tag| tag.starts_with('"'))
        .or_else(|| header(headers, "last-modified"))
        .filter(|validator| validator.len() <= VALIDATOR_MAX_BYTES)
        .map(str::to_owned)
}

/// Whether the server says that ranges can be requested.
pub(super) fn accepts_ranges(headers: &HeaderMap) -> bool {
    header(headers, "accept-ranges").is_some_and(|value| value.eq_ignore_ascii_case("bytes"))
}

/// How the body is encoded, which was not requested.
pub(super) fn encodings(headers: &HeaderMap) -> ContentEncodings {
    let mut encodings = ContentEncodings::default();
    for value in headers.get_all(CONTENT_ENCODING) {
        encodings.add(value.to_str().unwrap_or_default());
    }
    encodings
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TransferEncoding {
    /// By its length or the end of the connection.
    None,
    /// The same, but the HTTP library waits for the end of the connection.
    Identity,
    Chunked,
}

/// The transfer encoding: at most one is accepted, as in lookups.
fn transfer_encoding(headers: &HeaderMap) -> Result<TransferEncoding, HttpErrorKind> {
    let mut found = TransferEncoding::None;
    for value in headers.get_all(TRANSFER_ENCODING) {
        let value = value.as_bytes().trim_ascii();
        let is_chunked = value.eq_ignore_ascii_case(b"chunked");
        let is_identity = value.eq_ignore_ascii_case(b"identity");
        if found == TransferEncoding::Chunked && is_chunked || !is_chunked && !is_identity {
            let text = "unknown Transfer-Encoding";
            return Err(HttpErrorKind::Malformed(Arc::new(io::Error::other(text))));
        }
        if is_chunked {
            found = TransferEncoding::Chunked;
        } else if found == TransferEncoding::None {
            found = TransferEncoding::Identity;
        }
    }
    Ok(found)
}

/// Bytes of the body. With chunks a `Content-Length` does not count.
fn body_bytes(headers: &HeaderMap, framing: TransferEncoding) -> Option<u64> {
    if framing == TransferEncoding::Chunked {
        return None;
    }
    let value = header(headers, "content-length")?;
    // The library has checked that all of them are equal.
    value.split(',').next()?.trim().parse().ok()
}

/// A longer validator is not used: then ranges are not requested.
const VALIDATOR_MAX_BYTES: usize = 1 << 10;
