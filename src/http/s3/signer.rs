//! The requests for one bucket: their signatures, and the corrections that responses ask for.
//!
//! Only what is below the URL of the bucket is signed; at Amazon also below its URL in another region, which is
//! where the object store may send us. A wrong region and a wrong clock are corrected a few times
//! each, whatever the object store says.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tracing::debug;
use url::Url;

use super::allowance::BucketAllowance;
use super::key_source::{AccessKey, AccessKeySource};
use super::keys::AccessKeys;
use super::signature::{CanonicalRequest, DerivedKey, EMPTY_SHA256, SigningTime};
use super::verdict::{BucketResponse, BucketStatus};
use crate::format::s3_location::{S3Location, is_region};
use crate::format::server_url::ServerUrl;
use crate::http::error::HttpErrorKind;
use crate::sync::lock;

/// Signs the requests for one bucket.
pub(crate) struct BucketSigner {
    server: ServerUrl,
    location: S3Location,
    keys: Arc<AccessKeys>,
    /// The time since 1970.
    clock: fn() -> Duration,
    state: Mutex<SignerState>,
    /// What was allowed with these credentials.
    allowance: BucketAllowance,
}

struct SignerState {
    region: String,
    /// Seconds that the clock of the object store is ahead.
    skew: i64,
    corrections: u32,
    derived: Option<(Arc<AccessKey>, DerivedKey)>,
}

/// What signs a request.
#[derive(Debug, Default)]
pub(in crate::http) struct SignedFields {
    /// To be sent with it; none without access keys.
    pub(in crate::http) fields: HeaderMap,
    /// The key, which may be another one when the response comes.
    pub(in crate::http) key: Option<Arc<AccessKey>>,
}

/// What is signed of the body of a request.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct SignedBody<'a> {
    /// Its SHA-256 in hexadecimal digits.
    pub(in crate::http) sha256: &'a str,
    /// The field `Content-Type`, which Ceph requires to be signed if there is one.
    pub(in crate::http) content_type: Option<&'a str>,
}

/// What to do after a response.
#[derive(Debug)]
pub(in crate::http) enum BucketVerdict {
    /// What is done after that of any server.
    Ordinary,
    /// There is no such object: the store does not say so of what may not be listed.
    Missing,
    /// Send it again with another signature; this is the failure if it was sent too often already.
    SignAgain(HttpErrorKind),
    /// Send it to this URL of the bucket.
    Moved(Url),
    /// There is no such object, or no request for the bucket will succeed: no other one was allowed so far.
    Denied(HttpErrorKind),
    /// No request for the bucket will succeed.
    Failed(HttpErrorKind),
}

impl BucketSigner {
    /// The signer for `server`, whose `location` it is.
    pub(crate) fn new(
        server: ServerUrl,
        location: S3Location,
        keys: Arc<AccessKeys>,
        clock: fn() -> Duration,
    ) -> Self {
        let state = SignerState {
            region: location.region.clone(),
            skew: 0,
            corrections: 0,
            derived: None,
        };
        Self {
            server,
            location,
            keys,
            clock,
            state: Mutex::new(state),
            allowance: BucketAllowance::default(),
        }
    }

    /// Whether requests are signed if there is a key.
    pub(in crate::http) fn may_sign(&self) -> bool {
        !matches!(self.keys.source(), AccessKeySource::Anonymous)
    }

    /// Whether a request for the bucket was allowed.
    pub(in crate::http) fn was_allowed(&self) -> bool {
        self.allowance.is_any()
    }

    /// The object that every bucket has which is a server.
    pub(in crate::http) fn cache_info_url(&self) -> Url {
        self.server.cache_info_url()
    }

    /// Whether requests for `url` are signed.
    pub(in crate::http) fn covers(&self, url: &Url) -> bool {
        // Two signatures in one request are refused.
        if is_presigned(url) {
            return false;
        }
        if self.server.contains(url) {
            return true;
        }
        let base = self.server.base();
        let is_below = url.path().starts_with(base.path());
        self.location.is_at_amazon
            && is_below
            && (url.scheme(), url.port()) == (base.scheme(), base.port())
            && self.region_of(url).is_some()
    }

    /// The region that the host of `url` names, if it is the host of the bucket but for the region.
    fn region_of<'a>(&self, url: &'a Url) -> Option<&'a str> {
        let (before, after) = self.host_around_region()?;
        let host = url.host_str()?.strip_prefix(before)?;
        host.strip_suffix(after).filter(|name| is_region(name))
    }

    fn host_around_region(&self) -> Option<(&str, &str)> {
        let host = self.server.base().host_str()?;
        let start = host.rfind(&format!("s3.{}.amazonaws.", self.location.region))? + "s3.".len();
        let end = start + self.location.region.len();
        Some((&host[..start], &host[end..]))
    }

    /// `url` in another region.
    fn url_in(&self, url: &Url, region: &str) -> Option<Url> {
        let (before, after) = self.host_around_region()?;
        let mut moved = url.clone();
        moved
            .set_host(Some(&format!("{before}{region}{after}")))
            .ok()?;
        (moved != *url).then_some(moved)
    }

    /// The file that is read whenever the access keys are renewed.
    pub(in crate::http) fn token_file(&self) -> Option<&Path> {
        self.keys.token_file()
    }

    /// The access keys.
    pub(super) fn keys(&self) -> &AccessKeys {
        &self.keys
    }

    /// Seconds since 1970 by the clock of the object store, as far as it is known.
    pub(super) fn now(&self) -> u64 {
        let skew = lock(&self.state).skew;
        self.now_here().saturating_add_signed(skew)
    }

    /// Seconds since 1970 by the clock of this machine.
    fn now_here(&self) -> u64 {
        (self.clock)().as_secs()
    }

    /// What signs a request without a body for `url`, whose path and query are canonical.
    pub(in crate::http) fn fields(&self, method: &str, url: &Url) -> SignedFields {
        let nothing = SignedBody {
            sha256: EMPTY_SHA256,
            content_type: None,
        };
        self.fields_with_body(method, url, nothing)
    }

    /// What signs a request for `url` with this body.
    pub(in crate::http) fn fields_with_body(
        &self,
        method: &str,
        url: &Url,
        body: SignedBody<'_>,
    ) -> SignedFields {
        let Some(key) = self.keys.current() else {
            return SignedFields::default();
        };
        let mut fields = HeaderMap::new();
        let (date, authorization) = self.sign(&key, method, url, body);

        let token = key.session_token.as_ref().map(|token| token.expose());
        for (name, value) in [
            (&CONTENT_SHA256, Some(body.sha256)),
            (&DATE, Some(date.as_str())),
            (&SECURITY_TOKEN, token),
            (&AUTHORIZATION, Some(authorization.as_str())),
        ] {
            let value = value.and_then(|value| HeaderValue::from_str(value).ok());
            if let Some(mut value) = value {
                value.set_sensitive(true);
                fields.insert(name, value);
            }
        }
        let key = Some(key);
        SignedFields { fields, key }
    }

    fn sign(
        &self,
        key: &Arc<AccessKey>,
        method: &str,
        url: &Url,
        body: SignedBody<'_>,
    ) -> (String, String) {
        let mut state = lock(&self.state);
        let now = self.now_here().saturating_add_signed(state.skew);
        let time = SigningTime::new(now);
        let region = self.region_of(url).filter(|it| *it != self.location.region);
        let region = region.map_or_else(|| state.region.clone(), str::to_owned);
        let is_derived = state
            .derived
            .as_ref()
            .is_some_and(|(of, derived)| Arc::ptr_eq(of, key) && derived.is_for(time, &region));
        if !is_derived {
            let derived = DerivedKey::derive(&key.secret, time, &region);
            state.derived = Some((Arc::clone(key), derived));
        }

        let (date, host) = (time.text(), host_with_port(url));
        let content_type = body
            .content_type
            .map(|value| (CONTENT_TYPE.as_str(), value));
        let mut fields: Vec<(&str, &str)> = content_type.into_iter().collect();
        fields.extend([
            ("host", host.as_str()),
            (CONTENT_SHA256.as_str(), body.sha256),
            (DATE.as_str(), date.as_str()),
        ]);
        let token = key.session_token.as_ref();
        fields.extend(token.map(|token| (SECURITY_TOKEN.as_str(), token.expose())));
        let request = CanonicalRequest {
            method,
            path: url.path(),
            query: url.query().unwrap_or_default(),
            fields: &fields,
            body_sha256: body.sha256,
        };
        let authorization = match &state.derived {
            Some((_, derived)) => request.authorization(derived, &key.id, time),
            None => String::new(),
        };
        (date, authorization)
    }

    /// What to do after a `response` to a request to read what is at `url`, which was signed with `key`.
    pub(in crate::http) fn judge(
        &self,
        url: &Url,
        key: Option<&Arc<AccessKey>>,
        response: BucketResponse<'_>,
    ) -> BucketVerdict {
        match self.judge_any(url, key, response) {
            BucketVerdict::Denied(_) if self.allowance.includes(key, self.now_here()) => {
                BucketVerdict::Missing
            }
            verdict => verdict,
        }
    }

    /// What to do after a `response` to any request for `url`, which was signed with `key`.
    pub(in crate::http) fn judge_any(
        &self,
        url: &Url,
        key: Option<&Arc<AccessKey>>,
        response: BucketResponse<'_>,
    ) -> BucketVerdict {
        let mut status = response.bucket_status();
        // Some stores, such as Ceph, say no more of an expired session.
        if status == BucketStatus::Denied && key.is_some_and(|key| key.is_expired_at(self.now())) {
            status = BucketStatus::ExpiredToken;
        }
        let is_denied = status == BucketStatus::Denied;
        let may_sign_again = match &status {
            BucketStatus::Allowed => {
                self.allowance.note(key, self.now_here());
                false
            }
            BucketStatus::ExpiredToken => key.is_some_and(|key| self.keys.note_expired(key)),
            BucketStatus::ClockSkew(Some(time)) => self.correct_clock(*time),
            BucketStatus::OtherRegion(Some(region)) => {
                let moved = self.url_in(url, region).filter(|_| response.status == 301);
                if let Some(url) = moved {
                    return BucketVerdict::Moved(url);
                }
                self.correct_region(region)
            }
            _ => false,
        };

        let error = status.into_error(&self.location.bucket, key.map(Arc::as_ref));
        match error.map(|error| HttpErrorKind::Bucket(Box::new(error))) {
            None => BucketVerdict::Ordinary,
            Some(kind) if may_sign_again => BucketVerdict::SignAgain(kind),
            Some(kind) if is_denied => BucketVerdict::Denied(kind),
            Some(kind) => BucketVerdict::Failed(kind),
        }
    }

    /// Signs with the `time` of the object store from now on. Whether it makes sense to sign again.
    fn correct_clock(&self, time: u64) -> bool {
        let mut state = lock(&self.state);
        let here = self.now_here();
        let skew = i64::try_from(time)
            .unwrap_or(i64::MAX)
            .saturating_sub(i64::try_from(here).unwrap_or(i64::MAX));
        // Requests that were signed before a correction are answered after it.
        if skew.abs_diff(state.skew) < SKEW_MIN_SECONDS {
            return state.corrections > 0;
        }
        debug!(
            server = self.server.as_str(),
            skew, "the clock of the object store differs"
        );
        state.skew = skew;
        count_correction(&mut state.corrections)
    }

    /// Signs for `region` from now on. Whether it makes sense to sign again.
    fn correct_region(&self, region: &str) -> bool {
        let mut state = lock(&self.state);
        if state.region == region {
            return state.corrections > 0;
        }
        debug!(
            server = self.server.as_str(),
            region, "the bucket is in another region"
        );
        region.clone_into(&mut state.region);
        count_correction(&mut state.corrections)
    }
}

fn count_correction(corrections: &mut u32) -> bool {
    *corrections += 1;
    *corrections <= CORRECTIONS_MAX
}

/// Whether `url` has a signature itself, of this version or of the one before it.
fn is_presigned(url: &Url) -> bool {
    const SIGNATURES: [&str; 2] = ["X-Amz-Signature", "Signature"];
    let fields = url.query().into_iter().flat_map(|query| query.split('&'));
    let mut names = fields.filter_map(|field| field.split('=').next());
    names.any(|name| SIGNATURES.iter().any(|it| name.eq_ignore_ascii_case(it)))
}

/// What the field `Host` has.
fn host_with_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

impl fmt::Debug for BucketSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BucketSigner({})", self.server)
    }
}

/// Corrections of region and clock in a run.
const CORRECTIONS_MAX: u32 = 4;

/// Differences between clocks that are not corrected; object stores accept 15 minutes.
const SKEW_MIN_SECONDS: u64 = 120;

static CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
static DATE: HeaderName = HeaderName::from_static("x-amz-date");
static SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

#[cfg(test)]
mod tests;
