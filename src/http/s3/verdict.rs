//! What follows from the response of an object store to a signed or unsigned request. Pure.

use super::key_source::AccessKey;
use super::xml::element;
use crate::format::s3_location::is_region;
use crate::http::error::BucketError;

/// What matters of a response.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::http) struct BucketResponse<'a> {
    pub(in crate::http) status: u16,
    /// The field `Date`.
    pub(in crate::http) date: Option<&'a str>,
    /// The field `x-amz-bucket-region`.
    pub(in crate::http) region: Option<&'a str>,
    /// The beginning of the body of an error, which is XML.
    pub(in crate::http) body: &'a [u8],
}

/// What a response says about the requests for a bucket in general.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BucketStatus {
    /// The request was allowed, whether there is such an object or not.
    Allowed,
    /// Nothing.
    Unrelated,
    /// Access is denied, or there is no such object.
    Denied,
    /// The clocks differ; the server's time in seconds since 1970, if it says so.
    ClockSkew(Option<u64>),
    /// The bucket is in this region, if the server says so.
    OtherRegion(Option<String>),
    /// The session token has expired.
    ExpiredToken,
    /// The signature is not that of the access key.
    WrongSecret,
    /// There is no such access key.
    UnknownKey,
    /// There is no such bucket.
    NoBucket,
    /// There is no space for what was sent.
    Full,
}

impl BucketResponse<'_> {
    /// Whether the body of a response with this `status` matters.
    pub(in crate::http) const fn has_error_body(status: u16) -> bool {
        matches!(status, 301 | 400 | 403 | 404)
    }

    /// Whether a response with this `status` has what was requested, or would have it.
    pub(in crate::http) const fn is_readable(status: u16) -> bool {
        matches!(status, 200 | 206 | 304 | 416)
    }

    pub(super) fn bucket_status(&self) -> BucketStatus {
        if Self::is_readable(self.status) {
            return BucketStatus::Allowed;
        }

        let text = String::from_utf8_lossy(self.body);
        let code = element(&text, "Code").unwrap_or_default();
        match (self.status, code.as_str()) {
            (404, "NoSuchBucket") => BucketStatus::NoBucket,
            (404, _) => BucketStatus::Allowed,
            (400 | 403, "RequestTimeTooSkewed") => BucketStatus::ClockSkew(self.time()),
            (400 | 403, "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired") => {
                BucketStatus::ExpiredToken
            }
            (403, "SignatureDoesNotMatch") => BucketStatus::WrongSecret,
            (403, "InvalidAccessKeyId") => BucketStatus::UnknownKey,
            (301 | 400, "PermanentRedirect" | "AuthorizationHeaderMalformed") => {
                BucketStatus::OtherRegion(self.named_region(&text))
            }
            (301 | 400, _) if self.region.is_some() => {
                BucketStatus::OtherRegion(self.named_region(&text))
            }
            (_, "QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded")
            | (507, _) => BucketStatus::Full,
            (403, _) => BucketStatus::Denied,
            _ => BucketStatus::Unrelated,
        }
    }

    fn named_region(&self, text: &str) -> Option<String> {
        let region = self.region.map(str::to_owned);
        let region = region.or_else(|| element(text, "Region"));
        region.filter(|region| is_region(region))
    }

    fn time(&self) -> Option<u64> {
        let time = httpdate::parse_http_date(self.date?).ok()?;
        let since = time.duration_since(std::time::SystemTime::UNIX_EPOCH);
        since.ok().map(|since| since.as_secs())
    }
}

impl BucketStatus {
    /// The error that it is when nothing can be corrected.
    pub(super) fn into_error(self, bucket: &str, key: Option<&AccessKey>) -> Option<BucketError> {
        match self {
            Self::Allowed | Self::Unrelated => None,
            Self::Denied => Some(match key {
                None => BucketError::NoCredentials,
                Some(key) if key.session_token.is_some() => BucketError::DeniedSession,
                Some(_) => BucketError::Denied,
            }),
            Self::ClockSkew(_) => Some(BucketError::ClockSkew),
            Self::OtherRegion(region) => Some(BucketError::WrongRegion(region)),
            Self::ExpiredToken => Some(BucketError::ExpiredToken),
            Self::WrongSecret => Some(BucketError::WrongSecret),
            Self::UnknownKey => Some(BucketError::UnknownKey),
            Self::NoBucket => Some(BucketError::NoBucket(bucket.to_owned())),
            Self::Full => Some(BucketError::Full),
        }
    }
}

/// What is read of the body of an error.
pub(in crate::http) const ERROR_BODY_MAX_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16, code: &str) -> BucketStatus {
        let body = format!("<?xml?><Error><Code>{code}</Code><Region>garage</Region></Error>");
        let response = BucketResponse {
            status,
            date: Some("Thu, 01 Jan 1970 00:00:09 GMT"),
            region: None,
            body: body.as_bytes(),
        };
        response.bucket_status()
    }

    #[test]
    fn codes_and_what_they_say() {
        let region = Some("garage".to_owned());
        for (number, code, expected) in [
            (200, "", BucketStatus::Allowed),
            (404, "NoSuchKey", BucketStatus::Allowed),
            (404, "NoSuchBucket", BucketStatus::NoBucket),
            (403, "AccessDenied", BucketStatus::Denied),
            (403, "", BucketStatus::Denied),
            (403, "SignatureDoesNotMatch", BucketStatus::WrongSecret),
            (403, "InvalidAccessKeyId", BucketStatus::UnknownKey),
            (400, "ExpiredToken", BucketStatus::ExpiredToken),
            (
                403,
                "RequestTimeTooSkewed",
                BucketStatus::ClockSkew(Some(9)),
            ),
            (
                400,
                "AuthorizationHeaderMalformed",
                BucketStatus::OtherRegion(region.clone()),
            ),
            (301, "PermanentRedirect", BucketStatus::OtherRegion(region)),
            (403, "QuotaExceeded", BucketStatus::Full),
            (507, "", BucketStatus::Full),
            (503, "SlowDown", BucketStatus::Unrelated),
            (400, "InvalidRequest", BucketStatus::Unrelated),
        ] {
            assert_eq!(status(number, code), expected, "{number} {code}");
        }
    }

    #[test]
    fn a_region_is_a_plain_name() {
        let response = BucketResponse {
            status: 301,
            region: Some("evil.example/"),
            ..BucketResponse::default()
        };
        assert_eq!(response.bucket_status(), BucketStatus::OtherRegion(None));
    }
}
