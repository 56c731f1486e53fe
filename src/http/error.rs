//! What went wrong, at which address.
//!
//! An [`HttpError`] says where and how often; its source, an [`HttpErrorKind`], says what, and
//! keeps the cause below it. Addresses in it have lost their credentials, and words of a server
//! are escaped, so that every part can be shown.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use url::{Origin, Url};

use crate::format::credentials::url_without_credentials;
use crate::format::server_url::redacted;

/// A cause that several errors share: one lost connection fails many lookups.
pub(crate) type Cause = Arc<dyn Error + Send + Sync>;

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// The server says no.
    Absent,
    /// No definite answer: try later, or another server.
    Transient,
    /// What came is not acceptable; the same server will not do better.
    Refused,
    /// Something on this machine.
    Local,
}

/// A failure that may pass, and what it tells about the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    /// No connection came about.
    Unreachable,
    /// Nothing came for this long.
    Silent(Duration),
    /// The server says that it cannot answer anybody now.
    Overloaded,
    /// This one response failed; others may arrive.
    Broken,
}

/// A request that failed.
#[derive(Debug, Clone)]
pub(crate) struct HttpError {
    url: Arc<str>,
    kind: HttpErrorKind,
    attempts: u32,
}

/// What failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum HttpErrorKind {
    /// The host name has no address.
    #[error("finding the address of the host")]
    Resolve(#[source] Cause),
    /// No address of the host takes connections.
    #[error("connecting")]
    Connect(#[source] Cause),
    /// No connection in time.
    #[error("no connection within {}", Seconds(*.0))]
    ConnectTimeout(Duration),
    /// The server could not prove who it is, or speaks no TLS.
    #[error("agreeing on TLS with the server")]
    Tls(#[source] Cause),
    /// The proxy does not let us through.
    #[error("the proxy did not connect to the server")]
    Proxy(#[source] Cause),
    /// The connection broke before the answer was complete.
    #[error("the connection broke before the answer was complete")]
    Lost(#[source] Cause),
    /// The server hung up before the answer was complete.
    #[error("the server closed the connection before its answer was complete")]
    Closed,
    /// The server fell silent while an answer was due.
    #[error("the server was silent for {}", Seconds(*.0))]
    Stalled(Duration),
    /// A status that is no answer to the question.
    #[error("the server answered with status {status}{}", asks_to_wait(*.retry_after))]
    Status {
        /// The HTTP status.
        status: u16,
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// Not HTTP.
    #[error("the server's answer is not valid HTTP")]
    Malformed(#[source] Cause),
    /// More bytes than such an answer can have.
    #[error("the answer is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The most that is taken.
        limit_bytes: u64,
    },
    /// The answer came compressed although that was not asked for.
    #[error("the server used the content encoding `{}` unasked", .0.escape_debug())]
    ContentEncoding(String),
    /// Redirected in a loop, or too often.
    #[error("more than {0} redirects")]
    TooManyRedirects(usize),
    /// Redirected to nowhere, or to what is not http or https.
    #[error("redirected to `{}`", url_without_credentials(.0).escape_debug())]
    BadRedirect(String),
    /// The server redirected to another address, where this happened.
    #[error("redirected to {to}")]
    Redirected {
        /// Where, without credentials and query.
        to: String,
        /// What happened there.
        source: Box<HttpErrorKind>,
    },
    /// The body ended before its announced length.
    #[error("the transfer ended after {received} of {expected} bytes")]
    Truncated {
        /// Bytes that came.
        received: u64,
        /// Bytes that were announced.
        expected: u64,
    },
    /// Another part of the file than the one asked for.
    #[error("the server sent another range than the one asked for")]
    WrongRange,
    /// A `file:` address that cannot be read.
    #[error("reading the file")]
    File(#[source] Cause),
    /// The directory of a `file:` server is not there.
    #[error("opening the directory")]
    Directory(#[source] Cause),
    /// The client cannot be set up on this machine.
    #[error("setting up the HTTP client")]
    Setup(#[source] Cause),
    /// The caller did not wait for the answer.
    #[error("canceled")]
    Canceled,
    /// Nobody may be connected to.
    #[error("offline: nobody is connected to")]
    Offline,
}

impl HttpError {
    /// The server at `url` sent another part of the file than it was asked for.
    #[must_use]
    pub(crate) fn wrong_range(url: &Url) -> Self {
        Self::new(url, HttpErrorKind::WrongRange)
    }

    /// The file at `url` ended after `received` bytes of the `expected`.
    #[must_use]
    pub(crate) fn truncated(url: &Url, received: u64, expected: u64) -> Self {
        Self::new(url, HttpErrorKind::Truncated { received, expected })
    }

    /// Nothing was asked at `url`, because nobody may be connected to.
    #[must_use]
    pub(crate) fn offline(url: &Url) -> Self {
        Self::new(url, HttpErrorKind::Offline)
    }

    pub(super) fn new(url: &Url, kind: HttpErrorKind) -> Self {
        Self {
            url: redacted(url).into(),
            kind,
            attempts: 1,
        }
    }

    pub(super) fn setup(what: &str, cause: impl Error + Send + Sync + 'static) -> Self {
        Self {
            url: what.into(),
            kind: HttpErrorKind::Setup(Arc::new(cause)),
            attempts: 1,
        }
    }

    pub(super) fn after_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// What failed, without the address.
    #[must_use]
    pub(crate) fn kind(&self) -> &HttpErrorKind {
        &self.kind
    }

    /// How often it was tried.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// What to do about it.
    #[must_use]
    pub(crate) fn class(&self) -> Class {
        self.kind.class()
    }

    /// Whether this machine has too few threads or file descriptors, or too little memory, to ask.
    #[must_use]
    pub(crate) fn is_shortage(&self) -> bool {
        self.kind.is_shortage()
    }

    /// Whether the server wants to be left alone for a while, whatever it would be asked.
    #[must_use]
    pub(crate) fn is_overload(&self) -> bool {
        matches!(
            self.kind,
            HttpErrorKind::Status {
                status: 429 | 503,
                retry_after: Some(_)
            }
        )
    }

    /// Where the server redirected to, when the request failed there.
    #[must_use]
    pub(crate) fn redirected_to(&self) -> Option<Origin> {
        match &self.kind {
            HttpErrorKind::Redirected { to, .. } => Some(Url::parse(to).ok()?.origin()),
            _ => None,
        }
    }

    /// The outage that this may be; `None`: the same request would fail in the same way.
    #[must_use]
    pub(crate) fn outage(&self) -> Option<Outage> {
        self.kind.outage()
    }

    /// Whether a connection to the server came about, so that it may have read the request.
    #[must_use]
    pub(crate) fn reached_server(&self) -> bool {
        !matches!(
            self.kind.innermost(),
            HttpErrorKind::Resolve(_)
                | HttpErrorKind::Connect(_)
                | HttpErrorKind::ConnectTimeout(_)
                | HttpErrorKind::Tls(_)
                | HttpErrorKind::Proxy(_)
                | HttpErrorKind::Setup(_)
                | HttpErrorKind::Canceled
                | HttpErrorKind::Offline
        )
    }

    /// When the server wants to be asked again, if it said so.
    #[must_use]
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self.kind {
            HttpErrorKind::Status { retry_after, .. } => retry_after,
            _ => None,
        }
    }

    /// The HTTP status, when that is what failed.
    #[must_use]
    pub(crate) fn status(&self) -> Option<u16> {
        match self.kind {
            HttpErrorKind::Status { status, .. } => Some(status),
            _ => None,
        }
    }
}

impl HttpErrorKind {
    /// This failure at the address `to`, which the server redirected to.
    pub(super) fn after_redirect(self, to: &Url) -> Self {
        let mut to = to.clone();
        to.set_query(None);
        to.set_fragment(None);
        Self::Redirected {
            to: redacted(&to),
            source: Box::new(self),
        }
    }

    /// What failed, wherever the server redirected to.
    fn innermost(&self) -> &Self {
        match self {
            Self::Redirected { source, .. } => source.innermost(),
            kind => kind,
        }
    }

    /// What to do about it.
    #[must_use]
    pub(crate) fn class(&self) -> Class {
        match self.innermost() {
            Self::Status {
                status: 404 | 410, ..
            } => Class::Absent,
            Self::TooLarge { .. } | Self::WrongRange => Class::Refused,
            Self::File(cause) if is_not_found(cause) => Class::Absent,
            Self::File(_) | Self::Setup(_) | Self::Canceled => Class::Local,
            kind if kind.is_shortage() => Class::Local,
            _ => Class::Transient,
        }
    }

    fn outage(&self) -> Option<Outage> {
        match self.innermost() {
            _ if self.class() != Class::Transient => None,
            Self::Resolve(_) | Self::Connect(_) => Some(Outage::Unreachable),
            Self::ConnectTimeout(silence) | Self::Stalled(silence) => {
                Some(Outage::Silent(*silence))
            }
            Self::Status {
                status: 429 | 502..=504 | 520..=530,
                ..
            } => Some(Outage::Overloaded),
            Self::Status { status, .. } if is_passing(*status) => Some(Outage::Broken),
            Self::Lost(_) | Self::Closed | Self::Truncated { .. } => Some(Outage::Broken),
            _ => None,
        }
    }

    /// Whether this machine has too few threads or file descriptors, or too little memory.
    fn is_shortage(&self) -> bool {
        match self {
            Self::Setup(cause)
            | Self::Resolve(cause)
            | Self::Connect(cause)
            | Self::Lost(cause)
            | Self::File(cause)
            | Self::Directory(cause) => cause.downcast_ref::<io::Error>().is_some_and(is_shortage),
            _ => false,
        }
    }

    /// Whether the same request may succeed a moment later.
    pub(super) fn is_worth_repeating(&self) -> bool {
        match self.innermost() {
            Self::Status { status, .. } => is_passing(*status),
            Self::Connect(_) | Self::Lost(_) => self.class() == Class::Transient,
            Self::Closed | Self::Stalled(_) => true,
            _ => false,
        }
    }
}

/// What a server wants beside the status that it answers with.
fn asks_to_wait(retry_after: Option<Duration>) -> String {
    let words = |wait| format!(" and wants to be asked again in {}", Seconds(wait));
    retry_after.map(words).unwrap_or_default()
}

/// Statuses that a server in passing trouble gives. 501, 505 and 511 will not pass.
pub(super) fn is_passing(status: u16) -> bool {
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
/// memory: asking another server would fail as well, and doing less at a time may help.
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

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.attempts > 1 {
            write!(f, "after {} attempts: ", self.attempts)?;
        }
        write!(f, "asking {}", self.url)
    }
}

impl Error for HttpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.kind)
    }
}

/// A duration in a message: `5 s`, `0.3 s`.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.subsec_millis() == 0 {
            write!(f, "{} s", self.0.as_secs())
        } else {
            write!(f, "{:.1} s", self.0.as_secs_f64())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: HttpErrorKind) -> HttpError {
        HttpError::new(&Url::parse("http://user:secret@h/x").unwrap(), kind)
    }

    #[test]
    fn says_where_then_what_then_why() {
        let cause = io::Error::other("no route");
        let error = error(HttpErrorKind::Connect(Arc::new(cause))).after_attempts(3);
        assert_eq!(error.to_string(), "after 3 attempts: asking http://h/x");
        let kind = error.source().unwrap();
        assert_eq!(kind.to_string(), "connecting");
        assert_eq!(kind.source().unwrap().to_string(), "no route");
        let stalled = HttpErrorKind::Stalled(Duration::from_millis(300));
        assert_eq!(stalled.to_string(), "the server was silent for 0.3 s");
    }

    #[test]
    fn classes() {
        let status = |status| HttpErrorKind::Status {
            status,
            retry_after: None,
        };
        let io = |error: rustix::io::Errno| -> Cause { Arc::new(io::Error::from(error)) };
        let table = [
            (status(404), Class::Absent, false),
            (status(410), Class::Absent, false),
            (status(403), Class::Transient, false),
            (status(429), Class::Transient, true),
            (status(503), Class::Transient, true),
            (status(501), Class::Transient, false),
            (
                HttpErrorKind::Stalled(Duration::ZERO),
                Class::Transient,
                true,
            ),
            (
                HttpErrorKind::TooLarge { limit_bytes: 1 },
                Class::Refused,
                false,
            ),
            (
                HttpErrorKind::Connect(io(rustix::io::Errno::CONNREFUSED)),
                Class::Transient,
                true,
            ),
            (
                HttpErrorKind::Connect(io(rustix::io::Errno::MFILE)),
                Class::Local,
                false,
            ),
            (
                HttpErrorKind::Resolve(io(rustix::io::Errno::AGAIN)),
                Class::Local,
                false,
            ),
            (
                HttpErrorKind::File(io(rustix::io::Errno::NOENT)),
                Class::Absent,
                false,
            ),
            (
                HttpErrorKind::File(io(rustix::io::Errno::ACCESS)),
                Class::Local,
                false,
            ),
        ];
        for (kind, class, repeat) in table {
            assert_eq!(
                (kind.class(), kind.is_worth_repeating()),
                (class, repeat),
                "{kind:?}"
            );
        }
    }
}
