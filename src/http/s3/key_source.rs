//! Where access keys of an object store are from, and why there may be none.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use url::Url;

use crate::format::secret::Secret;
use crate::http::error::HttpErrorKind;

/// A key to sign requests with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccessKey {
    /// Its name, which is sent.
    pub(crate) id: String,
    /// The secret, which is not.
    pub(crate) secret: Secret,
    /// What temporary keys need in each request.
    pub(crate) session_token: Option<Secret>,
    /// When it expires, in seconds since 1970.
    pub(crate) expires: Option<u64>,
}

impl AccessKey {
    /// Whether it is known to have expired at `time`, in seconds since 1970.
    pub(super) fn is_expired_at(&self, time: u64) -> bool {
        self.expires.is_some_and(|expires| expires <= time)
    }

    /// Whether it is that of a session of which the end is unknown.
    pub(super) fn may_end_at_any_time(&self) -> bool {
        self.session_token.is_some() && self.expires.is_none()
    }
}

/// Where access keys are from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AccessKeySource {
    /// There are none: requests are not signed.
    Anonymous,
    /// One that is known.
    Fixed(AccessKey),
    /// The token service, which takes a token of another service.
    WebIdentity(WebIdentity),
    /// A service for the containers of a machine.
    Container {
        /// Where it is.
        url: Url,
        /// What it wants as `Authorization`.
        token: ContainerToken,
    },
    /// The metadata service of a machine at Amazon; without it, requests are not signed.
    InstanceMetadata {
        /// Where it is.
        endpoint: Url,
    },
}

/// What the token service needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WebIdentity {
    /// Where the token service is.
    pub(crate) endpoint: Url,
    /// The file with the token, which others renew.
    pub(crate) token_file: PathBuf,
    /// The role to take.
    pub(crate) role: String,
    /// A name for the session, for the logs of the service.
    pub(crate) session_name: String,
}

/// The token for the endpoint of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ContainerToken {
    /// None is needed.
    Absent,
    /// This one.
    Fixed(Secret),
    /// The one in this file, which others renew.
    File(PathBuf),
}

/// Why there are no access keys.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum AccessKeyError {
    /// A service does not answer as it should.
    #[error("{service} does not provide access keys")]
    Service {
        /// What it is called.
        service: &'static str,
        /// What failed.
        #[source]
        cause: Arc<HttpErrorKind>,
    },
    /// The answer of a service has no usable key.
    #[error("{service} does not provide access keys: {cause}")]
    Response {
        /// What it is called.
        service: &'static str,
        /// What is wrong with it.
        cause: KeyResponseError,
    },
    /// There was a key before.
    #[error("the metadata service of the machine no longer provides access keys")]
    NotRenewed,
    /// A file with a token cannot be read.
    #[error("cannot read the token in {}", .path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: Arc<std::io::Error>,
    },
}

impl AccessKeySource {
    /// The file with the token for the service, which is read whenever the service is asked.
    pub(super) fn token_file(&self) -> Option<&Path> {
        match self {
            Self::WebIdentity(identity) => Some(&identity.token_file),
            Self::Container {
                token: ContainerToken::File(path),
                ..
            } => Some(path),
            _ => None,
        }
    }
}

/// Why a response has no usable key. Nothing of what is secret is quoted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyResponseError {
    /// A status that is no success, and the code of the error.
    #[error("it answered with status {status}{}", code_text(.code))]
    Status {
        /// The HTTP status.
        status: u16,
        /// Such as `AccessDenied`; may be empty.
        code: String,
    },
    /// Something else than a key.
    #[error("its response is not an access key")]
    Malformed,
}

fn code_text(code: &str) -> String {
    if code.is_empty() {
        String::new()
    } else {
        format!(" ({})", code.escape_debug())
    }
}
