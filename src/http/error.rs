//! Why a request failed.
//!
//! An [`HttpError`] names the URL and the number of attempts; its source, an [`HttpErrorKind`],
//! says what failed, and its own source is the cause from the system or a library. URLs contain
//! no credentials, and text from a server is escaped, so that every part can be printed.

mod bucket;
mod kind;
mod wording;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use url::{Origin, Url};

use crate::format::error_text::ErrorChain;
use crate::format::server_url::redacted;

pub(crate) use bucket::BucketError;
pub(in crate::http) use kind::{Cause, is_passing, shown};
pub(crate) use kind::{HttpErrorClass, HttpErrorKind, Outage, is_shortage};

/// A request that failed.
#[derive(Debug, Clone)]
pub(crate) struct HttpError {
    /// What was done, such as `requesting http://...`.
    action: Arc<str>,
    kind: HttpErrorKind,
    pub(super) attempts: u32,
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

    /// The file at `url` ended after `received` bytes as if it were complete, but is not.
    #[must_use]
    pub(crate) fn ended_early(url: &Url, received: u64) -> Self {
        Self::new(url, HttpErrorKind::EndedEarly(received))
    }

    /// No request for `url` was sent, because network access is not allowed.
    #[must_use]
    pub(crate) fn offline(url: &Url) -> Self {
        Self::new(url, HttpErrorKind::Offline)
    }

    /// The thread that was to fetch `url` has ended by a panic, which it has reported.
    #[must_use]
    pub(crate) fn thread_ended(url: &Url) -> Self {
        Self::new(url, HttpErrorKind::ThreadEnded)
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

    /// What to do about it.
    #[must_use]
    pub(crate) fn class(&self) -> HttpErrorClass {
        self.kind.class()
    }

    /// Whether this machine has too few threads or file descriptors, or too little memory.
    #[must_use]
    pub(crate) fn is_shortage(&self) -> bool {
        self.kind.is_shortage()
    }

    /// Whether this machine is the cause and no server: it has too little of something, or its files
    /// of certificates cannot be used.
    #[must_use]
    pub(crate) fn is_of_this_machine(&self) -> bool {
        self.is_shortage() || matches!(self.kind.innermost(), HttpErrorKind::Setup(_))
    }

    /// Whether another run may succeed because its certificates, passwords, tokens or proxies differ,
    /// or the user has logged in to the network (511).
    #[must_use]
    pub(crate) fn depends_on_settings(&self) -> bool {
        matches!(
            self.kind.innermost(),
            HttpErrorKind::Status {
                status: 401 | 403 | 407 | 511,
                ..
            } | HttpErrorKind::Tls(_)
                | HttpErrorKind::Proxy(_)
                | HttpErrorKind::Bucket(_)
                | HttpErrorKind::Setup(_)
        )
    }

    /// Whether the server asks all clients to wait: 429 or 503 with a `Retry-After`.
    #[must_use]
    pub(crate) fn asks_to_wait(&self) -> bool {
        matches!(
            self.kind.innermost(),
            HttpErrorKind::Status {
                status: 429 | 503,
                retry_after: Some(_)
            }
        )
    }

    /// Whether the server sent something else than what was requested, such as a page.
    #[must_use]
    pub(crate) fn is_unexpected_content(&self) -> bool {
        matches!(self.kind.innermost(), HttpErrorKind::Unexpected { .. })
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

    /// Whether the server refused the request for being one too many at this time.
    #[must_use]
    pub(crate) fn is_overload(&self) -> bool {
        self.kind.is_overload()
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
        match *self.kind.innermost() {
            HttpErrorKind::Status { retry_after, .. } => retry_after,
            _ => None,
        }
    }

    /// Whether the server itself, and no proxy, answered with a status that a server in passing trouble gives.
    #[must_use]
    pub(crate) fn has_passing_status(&self) -> bool {
        matches!(self.kind, HttpErrorKind::Status { status, .. } if is_passing(status))
    }

    /// The HTTP status, when that is what failed.
    #[must_use]
    pub(crate) fn status(&self) -> Option<u16> {
        self.kind.status()
    }
}

fn write_attempts(f: &mut fmt::Formatter<'_>, attempts: u32) -> fmt::Result {
    if attempts > 1 {
        write!(f, "after {attempts} attempts: ")?;
    }
    Ok(())
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
        ErrorChain(kind).fmt(f)
    }
}

impl Error for HttpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.kind)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustix::io::Errno;

    use super::*;

    fn error(kind: HttpErrorKind) -> HttpError {
        HttpError::new(&Url::parse("http://user:secret@h/x").unwrap(), kind)
    }

    fn system_error(errno: rustix::io::Errno) -> Cause {
        Arc::new(io::Error::from(errno))
    }

    fn status(status: u16) -> HttpErrorKind {
        HttpErrorKind::Status {
            status,
            retry_after: None,
        }
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
    fn the_text_without_the_url_names_redirects_and_no_error_numbers() {
        let refused = HttpErrorKind::Connect(system_error(Errno::CONNREFUSED));
        let redirected = refused.after_redirect(&Url::parse("http://mirror/").unwrap());
        let text = error(redirected)
            .after_attempts(3)
            .without_url()
            .to_string();
        assert_eq!(
            text,
            "after 3 attempts: redirected to http://mirror/: cannot connect: Connection refused"
        );
    }

    #[test]
    fn classes() {
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
                HttpErrorKind::Connect(system_error(Errno::CONNREFUSED)),
                HttpErrorClass::Transient,
                true,
            ),
            (
                HttpErrorKind::Connect(system_error(Errno::MFILE)),
                HttpErrorClass::Local,
                false,
            ),
            (
                HttpErrorKind::Resolve {
                    host: "h".into(),
                    cause: system_error(Errno::AGAIN),
                },
                HttpErrorClass::Local,
                false,
            ),
            (
                HttpErrorKind::File(system_error(Errno::NOENT)),
                HttpErrorClass::Absent,
                false,
            ),
            (
                HttpErrorKind::File(system_error(Errno::NFILE)),
                HttpErrorClass::Local,
                false,
            ),
        ];
        let unreadable = [Errno::ACCESS, Errno::IO, Errno::STALE, Errno::LOOP].map(|errno| {
            let kind = HttpErrorKind::File(system_error(errno));
            (kind, HttpErrorClass::Transient, false)
        });
        let table = table.into_iter().chain(unreadable);
        for (kind, class, repeat) in table {
            assert_eq!(
                (kind.class(), kind.is_worth_repeating()),
                (class, repeat),
                "{kind:?}"
            );
        }
    }
}
