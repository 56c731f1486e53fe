//! What can fail in a request, and what follows: the class, the outage, whether to repeat it.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::bucket::BucketError;
use super::wording::{Seconds, binary_size, status_text, unexpected_text};
use crate::format::credentials::url_without_credentials;
use crate::format::escape::clip;
use crate::format::server_url::redacted;

/// A cause that several errors share: one lost connection fails many lookups.
pub(crate) type Cause = Arc<dyn Error + Send + Sync>;

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HttpErrorClass {
    /// The server does not have it.
    Absent,
    /// No definite answer: try later, or another server.
    Transient,
    /// The response is not acceptable; the same server will send the same again.
    Refused,
    /// The cause is on this machine.
    Local,
}

/// A failure that may pass, and what it says about the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    /// No connection could be made.
    Unreachable,
    /// The server sent nothing, or too little, for this long.
    Silent(Duration),
    /// A status of the whole server: 429, 502 to 504, or 520 to 530.
    ServerError,
    /// This one response failed; others may arrive.
    Broken,
}

/// What failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum HttpErrorKind {
    /// The host name has no address.
    #[error("cannot resolve {host}")]
    Resolve {
        /// The host name.
        host: Arc<str>,
        /// What the system says.
        #[source]
        cause: Cause,
    },
    /// No address of the host accepts connections.
    #[error("cannot connect")]
    Connect(#[source] Cause),
    /// No connection in time.
    #[error("no connection within {}", Seconds(*.0))]
    ConnectTimeout(Duration),
    /// The server's certificate is not acceptable, or it does not speak TLS.
    #[error("TLS failed")]
    Tls(#[source] Cause),
    /// The proxy refused to connect to the server.
    #[error("it did not connect to the server")]
    Proxy(#[source] Cause),
    /// No connection to the server was made because of its proxy.
    #[error("proxy {proxy}")]
    ViaProxy {
        /// The proxy's address, without credentials and path.
        proxy: Arc<str>,
        /// What failed there.
        source: Box<HttpErrorKind>,
    },
    /// The connection broke before the response was complete.
    #[error("the connection broke before the response was complete")]
    Lost(#[source] Cause),
    /// The server closed the connection before the response was complete.
    #[error("the server closed the connection before its response was complete")]
    Closed,
    /// The server sent nothing although a response was due.
    #[error("the server sent nothing for {}", Seconds(*.0))]
    Stalled(Duration),
    /// The server sent something all the time, but too little.
    #[error("the server sent less than {}/s for {}", binary_size(*.bytes_per_second), Seconds(*.window))]
    TooSlow {
        /// The minimum rate.
        bytes_per_second: u64,
        /// For how long the server sent less.
        window: Duration,
    },
    /// The server sent interim responses (1xx, or empty lines) without end.
    #[error("the server sent more than {0} interim responses")]
    TooManyInterim(u32),
    /// A status that does not answer the request.
    #[error("{}", status_text(*.status, *.retry_after))]
    Status {
        /// The HTTP status.
        status: u16,
        /// When the server allows the next attempt.
        retry_after: Option<Duration>,
    },
    /// The object store refuses all requests for the bucket.
    #[error(transparent)]
    Bucket(Box<BucketError>),
    /// The response is not HTTP.
    #[error("the response is not valid HTTP")]
    Malformed(#[source] Cause),
    /// The response is larger than allowed.
    #[error("the response is larger than {}", binary_size(*.limit_bytes))]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The response's content encoding cannot be undone.
    #[error("cannot decode the content encoding ({encodings}) of the response")]
    ContentEncoding {
        /// The names of the encodings.
        encodings: String,
        /// What the decoder says.
        #[source]
        cause: Cause,
    },
    /// The response has the right status, but something else in it.
    #[error("{}", unexpected_text(.expected, .content_type.as_deref()))]
    Unexpected {
        /// What was requested.
        expected: &'static str,
        /// What the server calls its content.
        content_type: Option<Box<str>>,
    },
    /// Redirected in a loop, or too often.
    #[error("more than {0} redirects")]
    TooManyRedirects(usize),
    /// The redirect target is not an http or https URL.
    #[error("redirected to `{}`, which is not an http or https URL", url_without_credentials(.0).escape_debug())]
    BadRedirect(String),
    /// Redirected from https to http, where anyone on the network path could read and change the response.
    #[error("redirected from https to {0}: a redirect to http is not followed")]
    InsecureRedirect(String),
    /// The server redirected to another URL, where the request failed.
    #[error("redirected to {to}")]
    Redirected {
        /// The redirect target, without credentials and query.
        to: String,
        /// What failed there.
        source: Box<HttpErrorKind>,
    },
    /// The body ended before its announced length.
    #[error("the transfer ended after {received} of {expected} bytes")]
    Truncated {
        /// Bytes received.
        received: u64,
        /// Bytes announced.
        expected: u64,
    },
    /// The body ended without an error after this many bytes, but what it is a part of did not.
    #[error("the server ended the download early, after {0} bytes")]
    EndedEarly(u64),
    /// The response contains another range than the requested one.
    #[error("the server sent another range than the requested one")]
    WrongRange,
    /// A `file:` URL that cannot be read.
    #[error("cannot read the file")]
    File(#[source] Cause),
    /// A file of a `file:` server cannot be read, where messages name only the server.
    #[error("cannot read {path}")]
    NamedFile {
        /// The file.
        path: String,
        /// Why.
        source: Cause,
    },
    /// The directory of a `file:` server cannot be opened.
    #[error("cannot open the directory")]
    Directory(#[source] Cause),
    /// This machine lacks what the client needs.
    #[error("not possible on this machine")]
    Setup(#[source] Cause),
    /// A thread of this program has ended by a panic.
    #[error("the thread that downloads it has failed")]
    ThreadEnded,
    /// The caller did not wait for the response.
    #[error("canceled")]
    Canceled,
    /// Network access is not allowed.
    #[error("offline: network access is not allowed")]
    Offline,
}

impl HttpErrorKind {
    /// A redirect to `location` cannot be followed.
    pub(in crate::http) fn bad_redirect(location: &str) -> Self {
        Self::BadRedirect(clip(location, QUOTED_MAX_BYTES).to_owned())
    }

    /// A redirect leads from https to `target`.
    pub(in crate::http) fn insecure_redirect(target: &Url) -> Self {
        Self::InsecureRedirect(shown(target))
    }

    /// This failure, at the URL `to` that the server redirected to; what names a redirect target
    /// already is kept as it is.
    pub(in crate::http) fn after_redirect(self, to: &Url) -> Self {
        match self {
            Self::Redirected { .. }
            | Self::TooManyRedirects(_)
            | Self::BadRedirect(_)
            | Self::InsecureRedirect(_) => self,
            kind => Self::Redirected {
                to: shown(to),
                source: Box::new(kind),
            },
        }
    }

    /// This failure, on the way to the server through `proxy`.
    pub(in crate::http) fn via_proxy(self, proxy: &Url) -> Self {
        if matches!(self, Self::ViaProxy { .. }) {
            return self;
        }
        // Nothing but the address: a mistyped URL may have its password in the path.
        let (scheme, host) = (proxy.scheme(), proxy.host_str().unwrap_or_default());
        let port = proxy.port().map(|port| format!(":{port}"));
        let port = port.unwrap_or_default();
        Self::ViaProxy {
            proxy: format!("{scheme}://{host}{port}").into(),
            source: Box::new(self),
        }
    }

    /// What failed, whatever redirects and proxies led there.
    pub(in crate::http) fn innermost(&self) -> &Self {
        match self {
            Self::Redirected { source, .. } | Self::ViaProxy { source, .. } => source.innermost(),
            kind => kind,
        }
    }

    pub(in crate::http) fn status(&self) -> Option<u16> {
        match self.innermost() {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The system's error, where that is the cause.
    fn os_error(&self) -> Option<&io::Error> {
        match self {
            Self::Setup(cause)
            | Self::Resolve { cause, .. }
            | Self::Connect(cause)
            | Self::Lost(cause)
            | Self::File(cause)
            | Self::NamedFile { source: cause, .. }
            | Self::Directory(cause) => cause.downcast_ref(),
            _ => None,
        }
    }

    /// What to do about it.
    #[must_use]
    pub(crate) fn class(&self) -> HttpErrorClass {
        match self.innermost() {
            Self::Status {
                status: 404 | 410, ..
            } => HttpErrorClass::Absent,
            Self::TooLarge { .. } | Self::WrongRange | Self::ContentEncoding { .. } => {
                HttpErrorClass::Refused
            }
            Self::File(cause) if is_not_found(cause) => HttpErrorClass::Absent,
            Self::Setup(_) | Self::Canceled | Self::ThreadEnded => HttpErrorClass::Local,
            kind if kind.is_shortage() => HttpErrorClass::Local,
            _ => HttpErrorClass::Transient,
        }
    }

    pub(in crate::http) fn outage(&self) -> Option<Outage> {
        match self.innermost() {
            _ if self.class() != HttpErrorClass::Transient => None,
            Self::Resolve { .. } | Self::Connect(_) => Some(Outage::Unreachable),
            Self::ConnectTimeout(silence)
            | Self::Stalled(silence)
            | Self::TooSlow {
                window: silence, ..
            } => Some(Outage::Silent(*silence)),
            Self::Status {
                status: 429 | 502..=504 | 520..=530,
                ..
            } => Some(Outage::ServerError),
            Self::Status { status, .. } if is_passing(*status) => Some(Outage::Broken),
            Self::Lost(_) | Self::Closed | Self::Truncated { .. } => Some(Outage::Broken),
            _ => None,
        }
    }

    /// Whether the other side has ended the connection.
    pub(in crate::http) fn is_connection_end(&self) -> bool {
        let reset = io::ErrorKind::ConnectionReset;
        match self {
            Self::Closed => true,
            Self::Lost(_) => self.os_error().is_some_and(|error| error.kind() == reset),
            _ => false,
        }
    }

    /// Whether this machine has too few threads or file descriptors, or too little memory.
    pub(super) fn is_shortage(&self) -> bool {
        self.innermost().os_error().is_some_and(is_shortage)
    }

    /// Whether the same request may succeed a moment later.
    pub(in crate::http) fn is_worth_repeating(&self) -> bool {
        match self.innermost() {
            Self::Status { status, .. } => is_passing(*status),
            Self::Connect(_) | Self::Lost(_) => self.class() == HttpErrorClass::Transient,
            Self::Closed | Self::Stalled(_) | Self::TooSlow { .. } => true,
            _ => false,
        }
    }

    /// Whether the server refused the request for being one too many at this time.
    pub(in crate::http) fn is_overload(&self) -> bool {
        matches!(self.status(), Some(429 | 503))
    }
}

/// A URL that a server named, without what may be secret, and not longer than is useful.
pub(in crate::http) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    clip(&redacted(&url), QUOTED_MAX_BYTES).to_owned()
}

/// What an error keeps of a header.
const QUOTED_MAX_BYTES: usize = 256;

/// Statuses that a server in passing trouble gives. 501, 505 and 511 will not pass.
pub(in crate::http) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504 | 520..=530)
}

fn is_not_found(cause: &Cause) -> bool {
    let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(
        kind,
        Some(io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
    )
}

/// Whether `error` says that this machine has too few threads or file descriptors, or too little
/// memory: another server would fail as well, and doing less at a time may help.
#[must_use]
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    [
        Errno::AGAIN,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
    ]
    .into_iter()
    .any(|errno| code == Some(errno.raw_os_error()))
}
