//! Why a request failed.
//!
//! An [`HttpError`] names the URL and the number of attempts; its source, an [`HttpErrorKind`], says what
//! failed, and its own source is the cause from the system or a library. URLs contain no
//! credentials, and text from a server is escaped, so that every part can be printed.

use std::error::Error;
use std::fmt;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use url::{Origin, Url};

use crate::format::credentials::url_without_credentials;
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
    /// The server sent nothing for this long.
    Silent(Duration),
    /// The server says that it cannot serve requests now.
    Overloaded,
    /// This one response failed; others may arrive.
    Broken,
}

/// A request that failed.
#[derive(Debug, Clone)]
pub(crate) struct HttpError {
    /// What was done, such as `requesting http://...`.
    action: Arc<str>,
    kind: HttpErrorKind,
    pub(super) attempts: u32,
}

/// What failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum HttpErrorKind {
    /// The host name has no address.
    #[error("cannot resolve {host}{}", resolve_hint(.cause))]
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
        /// The proxy's URL, without credentials.
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
    /// A status that does not answer the request.
    #[error("{}", status_text(*.status, *.retry_after))]
    Status {
        /// The HTTP status.
        status: u16,
        /// When the server allows the next attempt.
        retry_after: Option<Duration>,
    },
    /// The response is not HTTP.
    #[error("the response is not valid HTTP")]
    Malformed(#[source] Cause),
    /// The response is larger than allowed.
    #[error("the response is larger than {}", binary_size(*.limit_bytes))]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The response is compressed although that was not requested.
    #[error("the server used the content encoding `{}`, which was not requested", .0.escape_debug())]
    ContentEncoding(String),
    /// Redirected in a loop, or too often.
    #[error("more than {0} redirects")]
    TooManyRedirects(usize),
    /// The redirect target is not an http or https URL.
    #[error("redirected to `{}`, which is not an http or https URL", url_without_credentials(.0).escape_debug())]
    BadRedirect(String),
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
    /// The response contains another range than the requested one.
    #[error("the server sent another range than the requested one")]
    WrongRange,
    /// A `file:` URL that cannot be read.
    #[error("cannot read the file")]
    File(#[source] Cause),
    /// The directory of a `file:` server cannot be opened.
    #[error("cannot open the directory")]
    Directory(#[source] Cause),
    /// This machine lacks what the client needs.
    #[error("not possible on this machine")]
    Setup(#[source] Cause),
    /// The caller did not wait for the response.
    #[error("canceled")]
    Canceled,
    /// Network access is not allowed.
    #[error("offline: network access is not allowed")]
    Offline,
}

impl HttpError {
    /// The server at `url` sent another range than the requested one.
    #[must_use]
    pub(crate) fn wrong_range(url: &Url) -> Self {
        Self::new(url, HttpErrorKind::WrongRange)
    }

    /// The file at `url` ended after `received` bytes of the `expected`.
    #[must_use]
    pub(crate) fn truncated(url: &Url, received: u64, expected: u64) -> Self {
        Self::new(url, HttpErrorKind::Truncated { received, expected })
    }

    /// No request for `url` was sent, because network access is not allowed.
    #[must_use]
    pub(crate) fn offline(url: &Url) -> Self {
        Self::new(url, HttpErrorKind::Offline)
    }

    pub(super) fn new(url: &Url, kind: HttpErrorKind) -> Self {
        Self {
            action: format!("requesting {}", redacted(url)).into(),
            kind,
            attempts: 1,
        }
    }

    pub(super) fn setup(what: &str, cause: impl Error + Send + Sync + 'static) -> Self {
        Self {
            action: format!("setting up {what}").into(),
            kind: HttpErrorKind::Setup(Arc::new(cause)),
            attempts: 1,
        }
    }

    pub(super) fn after_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// What failed, without the URL.
    #[must_use]
    pub(crate) fn kind(&self) -> &HttpErrorKind {
        &self.kind
    }

    /// The error and its causes on one line, without the URL, for where the URL is shown anyway.
    #[must_use]
    pub(crate) fn without_url(&self) -> impl fmt::Display {
        WithoutUrl(self)
    }

    /// Whether `other` failed in the same way, at whatever URL and after however many attempts.
    #[must_use]
    pub(crate) fn is_same_kind(&self, other: &Self) -> bool {
        let (kind, other) = (self.kind.innermost(), other.kind.innermost());
        mem::discriminant(kind) == mem::discriminant(other)
            && kind.status() == other.status()
            && kind.os_error().and_then(io::Error::raw_os_error)
                == other.os_error().and_then(io::Error::raw_os_error)
    }

    /// What to do about it.
    #[must_use]
    pub(crate) fn class(&self) -> HttpErrorClass {
        self.kind.class()
    }

    /// Whether this machine has too few threads or file descriptors, or too little memory.
    #[must_use]
    pub(crate) fn is_shortage(&self) -> bool {
        self.kind.innermost().is_shortage()
    }

    /// Whether the server accepts no requests for a while, whatever they are for.
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

    /// The redirect target's origin, when the request failed there.
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

    /// Whether a connection to the server was made, so that it may have read the request.
    #[must_use]
    pub(crate) fn reached_server(&self) -> bool {
        !matches!(
            self.kind.innermost(),
            HttpErrorKind::Resolve { .. }
                | HttpErrorKind::Connect(_)
                | HttpErrorKind::ConnectTimeout(_)
                | HttpErrorKind::Tls(_)
                | HttpErrorKind::Proxy(_)
                | HttpErrorKind::Setup(_)
                | HttpErrorKind::Canceled
                | HttpErrorKind::Offline
        )
    }

    /// When the server allows the next attempt, if it said so.
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
        self.kind.status()
    }
}

impl HttpErrorKind {
    /// This failure, at the URL `to` that the server redirected to.
    pub(super) fn after_redirect(self, to: &Url) -> Self {
        let mut to = to.clone();
        to.set_query(None);
        to.set_fragment(None);
        Self::Redirected {
            to: redacted(&to),
            source: Box::new(self),
        }
    }

    /// This failure, on the way to the server through `proxy`.
    pub(super) fn via_proxy(self, proxy: &Url) -> Self {
        Self::ViaProxy {
            proxy: redacted(proxy).into(),
            source: Box::new(self),
        }
    }

    /// What failed, whatever redirects and proxies led there.
    pub(super) fn innermost(&self) -> &Self {
        match self {
            Self::Redirected { source, .. } | Self::ViaProxy { source, .. } => source.innermost(),
            kind => kind,
        }
    }

    fn status(&self) -> Option<u16> {
        match self {
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
            Self::TooLarge { .. } | Self::WrongRange => HttpErrorClass::Refused,
            Self::File(cause) if is_not_found(cause) => HttpErrorClass::Absent,
            Self::File(_) | Self::Setup(_) | Self::Canceled => HttpErrorClass::Local,
            kind if kind.is_shortage() => HttpErrorClass::Local,
            _ => HttpErrorClass::Transient,
        }
    }

    fn outage(&self) -> Option<Outage> {
        match self.innermost() {
            _ if self.class() != HttpErrorClass::Transient => None,
            Self::Resolve { .. } | Self::Connect(_) => Some(Outage::Unreachable),
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

    fn is_shortage(&self) -> bool {
        self.os_error().is_some_and(is_shortage)
    }

    /// Whether the same request may succeed a moment later.
    pub(super) fn is_worth_repeating(&self) -> bool {
        match self.innermost() {
            Self::Status { status, .. } => is_passing(*status),
            Self::Connect(_) | Self::Lost(_) => self.class() == HttpErrorClass::Transient,
            Self::Closed | Self::Stalled(_) => true,
            _ => false,
        }
    }
}

fn resolve_hint(cause: &Cause) -> &'static str {
    match cause.downcast_ref::<io::Error>() {
        // The cause explains itself: a timeout, or a limit of this machine.
        Some(error) if error.kind() == io::ErrorKind::TimedOut || is_shortage(error) => "",
        _ => " (no such host, or no network)",
    }
}

fn status_text(status: u16, retry_after: Option<Duration>) -> String {
    match (status, retry_after) {
        (407, _) => "the proxy requires a user name and password (status 407)".to_owned(),
        (_, None) => format!("the server answered with status {status}"),
        (_, Some(wait)) => {
            let wait = Seconds(wait);
            format!("the server answered with status {status} (retry after {wait})")
        }
    }
}

fn binary_size(bytes: u64) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}

fn write_attempts(f: &mut fmt::Formatter<'_>, attempts: u32) -> fmt::Result {
    if attempts > 1 {
        write!(f, "after {attempts} attempts: ")?;
    }
    Ok(())
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

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_attempts(f, self.attempts)?;
        f.write_str(&self.action)
    }
}

/// See [`HttpError::without_url`].
struct WithoutUrl<'a>(&'a HttpError);

impl fmt::Display for WithoutUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HttpError { kind, attempts, .. } = self.0;
        write_attempts(f, *attempts)?;
        write!(f, "{kind}")?;
        let mut cause = kind.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
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
        assert_eq!(error.to_string(), "after 3 attempts: requesting http://h/x");
        let kind = error.source().unwrap();
        assert_eq!(kind.to_string(), "cannot connect");
        assert_eq!(kind.source().unwrap().to_string(), "no route");
        let stalled = HttpErrorKind::Stalled(Duration::from_millis(300));
        assert_eq!(stalled.to_string(), "the server sent nothing for 0.3 s");
    }

    #[test]
    fn the_same_failure_at_another_url_is_of_the_same_kind() {
        let refused = |errno: rustix::io::Errno| {
            error(HttpErrorKind::Connect(Arc::new(io::Error::from(errno))))
        };
        let status = |status| {
            let retry_after = None;
            error(HttpErrorKind::Status {
                status,
                retry_after,
            })
        };
        let connection_refused = refused(rustix::io::Errno::CONNREFUSED);
        let redirected = HttpErrorKind::after_redirect(
            connection_refused.kind().clone(),
            &Url::parse("http://mirror/").unwrap(),
        );
        let redirected = error(redirected).after_attempts(3);
        assert!(connection_refused.is_same_kind(&redirected));
        assert!(!connection_refused.is_same_kind(&refused(rustix::io::Errno::HOSTUNREACH)));
        assert!(!connection_refused.is_same_kind(&status(500)));
        assert!(status(500).is_same_kind(&status(500)));
        assert!(!status(500).is_same_kind(&status(404)));
        let text = redirected.without_url().to_string();
        assert!(
            text.starts_with("after 3 attempts: redirected to http://mirror/: cannot connect: "),
            "{text}"
        );
    }

    #[test]
    fn classes() {
        let status = |status| HttpErrorKind::Status {
            status,
            retry_after: None,
        };
        let io = |error: rustix::io::Errno| -> Cause { Arc::new(io::Error::from(error)) };
        let table = [
            (status(404), HttpErrorClass::Absent, false),
            (status(410), HttpErrorClass::Absent, false),
            (status(403), HttpErrorClass::Transient, false),
            (status(429), HttpErrorClass::Transient, true),
            (status(503), HttpErrorClass::Transient, true),
            (status(501), HttpErrorClass::Transient, false),
            (
                HttpErrorKind::Stalled(Duration::ZERO),
                HttpErrorClass::Transient,
                true,
            ),
            (
                HttpErrorKind::TooLarge { limit_bytes: 1 },
                HttpErrorClass::Refused,
                false,
            ),
            (
                HttpErrorKind::Connect(io(rustix::io::Errno::CONNREFUSED)),
                HttpErrorClass::Transient,
                true,
            ),
            (
                HttpErrorKind::Connect(io(rustix::io::Errno::MFILE)),
                HttpErrorClass::Local,
                false,
            ),
            (
                HttpErrorKind::Resolve {
                    host: "h".into(),
                    cause: io(rustix::io::Errno::AGAIN),
                },
                HttpErrorClass::Local,
                false,
            ),
            (
                HttpErrorKind::File(io(rustix::io::Errno::NOENT)),
                HttpErrorClass::Absent,
                false,
            ),
            (
                HttpErrorKind::File(io(rustix::io::Errno::ACCESS)),
                HttpErrorClass::Local,
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
