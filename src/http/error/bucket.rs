//! Why an object store refuses all requests for a bucket, in the words of its user's settings.

use std::error::Error;
use std::sync::Arc;

use crate::format::escape::clip;

/// Why no request for a bucket succeeds.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum BucketError {
    /// The secret is not that of the access key.
    #[error(
        "the object store refuses the signature: the secret access key does not belong to the \
         access key ID, or a proxy changes requests"
    )]
    WrongSecret,
    /// There is no such access key.
    #[error("the object store does not know the access key ID")]
    UnknownKey,
    /// The session token has expired.
    #[error(
        "the session token of the access key has expired or is invalid: get new credentials, as with `aws sso login`"
    )]
    ExpiredToken,
    /// The clocks differ, although the difference was corrected.
    #[error(
        "the clock of this machine and that of the object store differ by more than it accepts: set the clock"
    )]
    ClockSkew,
    /// The bucket is in another region, or the engine has another name for it.
    #[error("the bucket is not in the region of its URL{}", region_advice(.0.as_deref()))]
    WrongRegion(
        /// The region that the object store names.
        Option<String>,
    ),
    /// There is no such bucket.
    #[error("there is no bucket `{0}` at the object store")]
    NoBucket(
        /// Its name.
        String,
    ),
    /// Requests were not signed, and nobody but the owner may read the bucket.
    #[error(
        "access to the bucket is denied without credentials, and none were found (AWS_ACCESS_KEY_ID, \
         or ~/.aws/credentials, of the user that runs this)"
    )]
    NoCredentials,
    /// The credentials are of no use for the bucket.
    #[error(
        "access to the bucket is denied: its credentials are wrong or may not read it, or it has no nix-cache-info"
    )]
    Denied,
    /// The same for credentials with a session token: Ceph does not say that a token has expired.
    #[error(
        "access to the bucket is denied: the session token of the access key may have expired (get new credentials, \
         as with `aws sso login`), or they may not read the bucket, or it has no nix-cache-info"
    )]
    DeniedSession,
    /// The credentials do not allow this request.
    #[error("{}", denial(.right, *.was_allowed))]
    MayNot {
        /// The right that it needs, as policies name it.
        right: &'static str,
        /// Whether other requests with these credentials were allowed.
        was_allowed: bool,
    },
    /// There is no space left, or not for this user.
    #[error("the bucket is full: its quota, or the space of the object store, is used up")]
    Full,
    /// The object store refuses the request for another reason.
    #[error("the object store refuses the request: {code} (HTTP status {status})")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The code that it names.
        code: String,
    },
    /// The service that provides access keys does not.
    #[error("there are no credentials for the bucket")]
    NoAccessKeys(#[source] Arc<dyn Error + Send + Sync>),
}

impl BucketError {
    /// The refusal with this `status` and `code`, which is shortened.
    pub(in crate::http) fn refused(status: u16, code: &str) -> Self {
        let code = clip(&code.escape_debug().to_string(), CODE_BYTES_MAX).to_owned();
        Self::Refused { status, code }
    }
}

/// What is kept of a code.
const CODE_BYTES_MAX: usize = 64;

fn denial(right: &str, was_allowed: bool) -> String {
    if was_allowed {
        format!("access is denied: the access key needs the right {right} for the bucket")
    } else {
        format!(
            "access to the bucket is denied: its credentials are wrong, or lack the right {right}"
        )
    }
}

fn region_advice(region: Option<&str>) -> String {
    match region {
        Some(region) => format!(": add `region={region}` to it"),
        None => String::new(),
    }
}
