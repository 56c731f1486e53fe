//! The outcome of the lookup of one item on one server.
//!
//! Each outcome has one sentence for people and one name for scripts, both beside its type. What
//! a server sent is escaped and bounded in them.

use std::fmt;
use std::sync::Arc;

use crate::format::error_text::chain;
use crate::format::escape::bounded;
use crate::format::narinfo::NarInfoError;
use crate::http::{HttpError, HttpErrorKind, Outage};
use crate::trust::verdict::Refusal;

/// What the lookup of one item on one server gave. Its `Display` is the sentence for people, in
/// places that name the server and the item anyway.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LookupOutcome {
    /// No request was needed: a server before it has an authorized narinfo.
    #[error("not asked")]
    NotNeeded,
    /// A narinfo that is signed by an authorized key.
    #[error("has it")]
    Authorized,
    /// A narinfo without an authorized signature, equivalent to an authorized one of another
    /// server: the bytes may come from here.
    #[error("has the same content as an authorized server; its own narinfo: {}", refusal_reason(.0))]
    Equivalent(Refusal),
    /// A narinfo that may not be used, and why.
    #[error("refused: {}", refusal_reason(.0))]
    Refused(Refusal),
    /// An authorized narinfo that names no download which can be used, and why.
    #[error("refused: no usable download: {0}")]
    Unusable(Unusable),
    /// A text that is no narinfo.
    #[error("refused: not a narinfo: {0}")]
    Unreadable(UnreadableNarInfo),
    /// The server does not have it, with the HTTP status; 0 where that is a directory.
    #[error("does not have it{}", shown_status(*.0))]
    Missing(u16),
    /// The server knows the item and is preparing its nar.
    #[error("is preparing it (HTTP {0})")]
    Preparing(u16),
    /// The server did not respond.
    #[error("no answer: {0}")]
    NoResponse(LookupFailure),
    /// The server responded with an error about this item.
    #[error("failed: {0}")]
    Failed(LookupFailure),
    /// This machine could not send the request: it has too few threads or file descriptors, too
    /// little memory, or certificates that cannot be read.
    #[error("this machine could not ask: {0}")]
    LocalFailure(LookupFailure),
    /// Requested, and not waited for: others had answered everything.
    #[error("asked, but not waited for: {NOT_AWAITED}")]
    NotAwaited,
    /// Not requested: the server was down a short time ago.
    #[error("not asked, it was down: {0}")]
    Skipped(LookupFailure),
    /// Not requested: the server's items are for another store.
    #[error("not asked: {0}")]
    OtherStore(OtherStore),
    /// Not requested, because only cached answers were to be used.
    #[error("not in the lookup cache")]
    Offline,
}

impl LookupOutcome {
    /// Whether the server wants a password or token that it was not sent, or does not accept.
    #[must_use]
    pub(crate) fn is_login_required(&self) -> bool {
        self.has_error_status(401)
    }

    /// Whether the server does not give the item to this client.
    #[must_use]
    pub(crate) fn is_forbidden(&self) -> bool {
        self.has_error_status(403)
    }

    fn has_error_status(&self, wanted: u16) -> bool {
        match self {
            Self::Failed(LookupFailure::Request(error)) => {
                matches!(error.kind(), HttpErrorKind::Status { status, .. } if *status == wanted)
            }
            _ => false,
        }
    }

    /// Whether the server itself is overloaded or out of order for the time being.
    #[must_use]
    pub(crate) fn is_passing_error(&self) -> bool {
        match self {
            Self::Failed(LookupFailure::Request(error)) => error.has_passing_status(),
            _ => false,
        }
    }

    /// The name for scripts.
    #[must_use]
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::NotNeeded => "not-asked",
            Self::Authorized => "available",
            Self::Equivalent(_) => "equivalent",
            Self::Refused(_) | Self::Unusable(_) | Self::Unreadable(_) => "refused",
            Self::Missing(_) => "missing",
            Self::Preparing(_) => "preparing",
            Self::NoResponse(_) | Self::Failed(_) | Self::LocalFailure(_) => "failed",
            Self::NotAwaited => "late",
            Self::Skipped(_) => "skipped",
            Self::OtherStore(_) => "other-store",
            Self::Offline => "offline",
        }
    }

    /// The reason for scripts, when there is more to say than the name.
    #[must_use]
    pub(crate) fn reason(&self) -> Option<String> {
        match self {
            Self::Equivalent(refusal) | Self::Refused(refusal) => Some(refusal.reason().to_owned()),
            Self::Unusable(why) => Some(format!("no-usable-url: {why}")),
            Self::Unreadable(why) => Some(format!("unreadable: {why}")),
            Self::Missing(status) => (*status > 0).then(|| format!("HTTP {status}")),
            Self::NoResponse(why)
            | Self::Failed(why)
            | Self::LocalFailure(why)
            | Self::Skipped(why) => Some(why.to_string()),
            Self::NotAwaited => Some(NOT_AWAITED.to_owned()),
            Self::OtherStore(why) => Some(why.to_string()),
            Self::NotNeeded | Self::Authorized | Self::Preparing(_) | Self::Offline => None,
        }
    }

    /// Whether the server itself gave this answer about the item, now or when it was cached.
    #[must_use]
    pub(crate) const fn is_from_server(&self) -> bool {
        matches!(
            self,
            Self::Authorized
                | Self::Equivalent(_)
                | Self::Refused(_)
                | Self::Unusable(_)
                | Self::Unreadable(_)
                | Self::Missing(_)
                | Self::Preparing(_)
        )
    }

    /// Whether the server may have the item for all that is known.
    #[must_use]
    pub(crate) const fn is_undecided(&self) -> bool {
        matches!(
            self,
            Self::NoResponse(_)
                | Self::Failed(_)
                | Self::LocalFailure(_)
                | Self::NotAwaited
                | Self::Skipped(_)
                | Self::Offline
        )
    }

    /// Whether this is more to report of an unavailable item than that the server does not have it.
    #[must_use]
    pub(crate) fn explains_absence(&self) -> bool {
        self.is_refusal()
            || self.is_undecided()
            || matches!(self, Self::Refused(_) | Self::OtherStore(_))
    }

    /// Whether the server has a narinfo of the item that was not accepted.
    #[must_use]
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(refusal) => !refusal.is_wrong_name(),
            Self::Unusable(_) | Self::Unreadable(_) => true,
            _ => false,
        }
    }

    /// The name under which the server has the item's hash, where it is another one than requested.
    #[must_use]
    pub(crate) fn other_name(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => refusal.other_name(),
            _ => None,
        }
    }
}

/// The HTTP `status` behind a sentence; nothing where there is none.
fn shown_status(status: u16) -> String {
    match status {
        0 => String::new(),
        status => format!(" (HTTP {status})"),
    }
}

/// Why a narinfo is refused, in a place that names the item anyway.
#[must_use]
pub(crate) fn refusal_reason(refusal: &Refusal) -> String {
    match refusal {
        Refusal::WrongItem { answered, .. } => format!("it answered for {}", answered.base()),
        Refusal::UnauthorizedKey { key } => {
            let name = short_key_name(key);
            format!("signed by the key {name}, which is not authorized")
        }
        other => chain(other),
    }
}

/// What messages show of the name of a key. Guix's keys have digits, of which the first suffice;
/// Nix's have names.
#[must_use]
pub(crate) fn short_key_name(key: &str) -> &str {
    match key.split_once(':') {
        Some((_, digits)) => digits.get(..KEY_DIGITS).unwrap_or(digits),
        None => key,
    }
}

/// As many as other places show of a key.
const KEY_DIGITS: usize = 16;

/// Why a text is no narinfo.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnreadableNarInfo {
    /// The text is not UTF-8.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// The parser refuses it.
    #[error("{}", chain(.0))]
    Invalid(NarInfoError),
}

/// Why there is no answer from a server.
#[derive(Debug, Clone)]
pub(crate) enum LookupFailure {
    /// A request of this run failed.
    Request(Arc<HttpError>),
    /// The lookup cache has it, as text.
    Cached(Box<str>),
    /// It was silent while other servers had answered everything.
    NotAwaited,
    /// Downloads from it failed.
    Download(Outage),
}

impl LookupFailure {
    /// Whether the server was slow, and can be reached.
    #[must_use]
    pub(crate) fn is_slowness(&self) -> bool {
        match self {
            Self::NotAwaited | Self::Download(Outage::Silent(_)) => true,
            Self::Cached(text) => **text == *NOT_AWAITED || text.starts_with(SLOW_DOWNLOAD),
            Self::Request(_) | Self::Download(_) => false,
        }
    }
}

impl fmt::Display for LookupFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(error) => {
                let reason = error.without_url().to_string();
                f.write_str(&bounded(reason, REASON_BYTES_MAX))
            }
            Self::Cached(text) => f.write_str(text),
            Self::NotAwaited => f.write_str(NOT_AWAITED),
            Self::Download(Outage::Silent(time)) => {
                write!(f, "{SLOW_DOWNLOAD} {} s", time.as_secs())
            }
            Self::Download(_) => f.write_str("a download could not connect to it"),
        }
    }
}

/// As many bytes of a reason are kept and shown.
pub(super) const REASON_BYTES_MAX: usize = 1000;

/// A server's items are for another store directory than the one in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its items are for {theirs}, not for {ours}")]
pub(crate) struct OtherStore {
    /// The directory that the server names.
    pub(crate) theirs: Box<str>,
    /// The directory in use.
    pub(crate) ours: Box<str>,
}

/// Why none of a narinfo's downloads can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// It names none.
    #[error("it names no download")]
    NoDownload,
    /// It names no compression method for its downloads.
    #[error("it names no compression method")]
    NoCompression,
    /// All that it offers is compressed with methods that this program cannot decode.
    #[error("compression {} is not supported", quoted(.0))]
    Compression(Vec<String>),
    /// Its URLs lead where its server may not point to.
    #[error("its download URL is not allowed for this server")]
    Url,
}

/// `names` in back quotes, escaped: they are a server's.
fn quoted(names: &[String]) -> String {
    let quoted = names
        .iter()
        .map(|name| format!("`{}`", name.escape_debug()));
    quoted.collect::<Vec<_>>().join(", ")
}

/// Why an answer is [`LookupOutcome::NotAwaited`]. The lookup cache has it.
const NOT_AWAITED: &str = "no answer while another server had answered everything";

/// How the reason begins why a server is [`LookupFailure::Download`] for being silent. The lookup cache has it.
const SLOW_DOWNLOAD: &str = "a download brought too little for";

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerOrigin {
    /// The server, in this run.
    Network,
    /// The lookup cache: when the server answered, and when the entry expires, in Unix seconds.
    Cache {
        /// When the server answered.
        asked_at: u64,
        /// When it stops to count.
        expires_at: u64,
    },
}

/// One server's answer and where it came from.
#[derive(Debug, Clone)]
pub(crate) struct ServerAnswer {
    /// What the lookup gave.
    pub(crate) outcome: LookupOutcome,
    /// The server or the lookup cache.
    pub(crate) origin: AnswerOrigin,
    /// When the cached answer expires, in Unix seconds; `None` when it is not cached.
    pub(crate) expires_at: Option<u64>,
}

impl ServerAnswer {
    /// An answer that is not cached.
    #[must_use]
    pub(crate) fn of(outcome: LookupOutcome) -> Self {
        Self {
            outcome,
            origin: AnswerOrigin::Network,
            expires_at: None,
        }
    }
}
