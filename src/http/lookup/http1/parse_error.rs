//! Why bytes are not an HTTP/1.1 response.

use std::sync::Arc;

use crate::http::error::HttpErrorKind;
use crate::http::lookup::response::{HEAD_MAX_BYTES, INTERIM_MAX};

/// Why bytes are not an HTTP/1.1 response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ResponseParseError {
    #[error("bad status line or header: {0}")]
    Head(httparse::Error),
    #[error("the header is larger than {HEAD_MAX_BYTES} bytes")]
    HeadTooLarge,
    #[error("the end of the body is unknown: {0}")]
    Framing(&'static str),
    #[error("the response is larger than {limit_bytes} bytes")]
    TooLarge { limit_bytes: u64 },
    #[error("more than {INTERIM_MAX} interim responses")]
    TooManyInterim,
    #[error("the connection ended inside a response")]
    UnexpectedEnd,
}

impl From<ResponseParseError> for HttpErrorKind {
    fn from(error: ResponseParseError) -> Self {
        match error {
            ResponseParseError::TooLarge { limit_bytes } => Self::TooLarge { limit_bytes },
            ResponseParseError::UnexpectedEnd => Self::Closed,
            ResponseParseError::TooManyInterim => Self::TooManyInterim(INTERIM_MAX),
            other => Self::Malformed(Arc::new(other)),
        }
    }
}
