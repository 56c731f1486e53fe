//! How a connection to a server went, and why it ended.

use crate::http::error::HttpErrorKind;

/// How a connection went.
#[derive(Debug)]
pub(super) struct ConnectionReport {
    pub(super) end: ConnectionEnd,
    /// Responses on it, useful or not.
    pub(super) answered: u32,
    /// How many of them came while further requests were in flight.
    pub(super) answered_pipelined: u32,
    /// Requests without a response.
    pub(super) unanswered: usize,
    /// Whether several requests were in flight at once, over HTTP/1.1.
    pub(super) was_pipelined: bool,
    /// Whether the request that was due had been sent alone on purpose.
    pub(super) was_unpipelined: bool,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionEnd {
    /// It is not needed any more.
    #[error("no longer needed")]
    Unneeded,
    /// The server closed it between two responses.
    #[error("closed by the server")]
    Closed { announced: bool },
    /// It broke, or what was received is not valid.
    #[error("{0}")]
    Failed(HttpErrorKind),
    /// A response that belongs to no request, or to another one.
    #[error("a response does not match its request")]
    Mismatched,
}

impl ConnectionEnd {
    /// The failure of the requests that this leaves unanswered.
    pub(super) fn into_kind(self) -> HttpErrorKind {
        match self {
            Self::Failed(kind) => kind,
            Self::Unneeded | Self::Closed { .. } | Self::Mismatched => HttpErrorKind::Closed,
        }
    }
}
