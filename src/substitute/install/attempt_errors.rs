//! Why one download did not give an item, and what that means.

use std::io;
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;

use rustix::io::Errno;

use crate::format::error_text::chain;
use crate::format::escape::bounded;
use crate::format::server_url::redacted;
use crate::http::{self, HttpError, HttpErrorKind, Outage};
use crate::store::unpack::{CheckError, NarMismatch, UnpackError};
use crate::substitute::download::candidate::DownloadCandidate;
use crate::substitute::download::errors::TransferError;
use crate::substitute::outcome::REASON_BYTES_MAX;
use crate::trust::verdict::AuthorizedNarInfo;

/// What a failure means for the exit code and for another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FailureClass {
    /// A definite no.
    Absent,
    /// Refused: trust or integrity.
    Refused,
    /// The network: trying again may help.
    Transient,
    /// This machine: disk, permissions, database, locks.
    Local,
    /// The user interrupted.
    Interrupted,
}

/// Why one candidate did not give the item.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttemptError {
    /// It did not arrive whole.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// It is no nar, or the tree could not be written.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// It is another nar than the one that was signed.
    #[error(transparent)]
    Mismatch(NarMismatch),
}

impl From<CheckError> for AttemptError {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Mismatch(mismatch) => Self::Mismatch(mismatch),
            CheckError::Read { path, source } => Self::Unpack(UnpackError::Write {
                action: "reading",
                path,
                source,
            }),
        }
    }
}

impl AttemptError {
    /// What it means.
    #[must_use]
    pub(crate) fn class(&self) -> FailureClass {
        match self {
            Self::Transfer(TransferError::Network(error)) => network_class(error),
            Self::Transfer(
                TransferError::Corrupt { .. }
                | TransferError::TooLong(_)
                | TransferError::TooMuchInput(_)
                | TransferError::UnsignedSize { .. },
            )
            | Self::Unpack(UnpackError::Nar(_))
            | Self::Mismatch(_) => FailureClass::Refused,
            Self::Transfer(TransferError::Start(_) | TransferError::NoMemory { .. })
            | Self::Unpack(
                UnpackError::Write { .. } | UnpackError::Deduplicate(_) | UnpackError::Panicked,
            ) => FailureClass::Local,
            Self::Transfer(TransferError::Canceled) => FailureClass::Interrupted,
        }
    }
}

/// A kind of failure, whatever the sizes and hashes in it are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// What failed, with the HTTP status if there was one.
    Network(Discriminant<HttpErrorKind>, Option<u16>),
    /// It did not arrive whole.
    Transfer(Discriminant<TransferError>),
    /// It is no nar, or the tree could not be written.
    Unpack(Discriminant<UnpackError>),
    /// It is another nar than the one that was signed.
    Mismatch(Discriminant<NarMismatch>),
}

impl AttemptError {
    /// Whether this machine failed at a nar that is not verified, and that may be the cause: by names
    /// that the file system does not take, more levels than files can be open, or a large window.
    pub(super) fn may_be_of_nar(&self) -> bool {
        match self {
            Self::Transfer(TransferError::NoMemory { .. })
            | Self::Unpack(UnpackError::Panicked) => true,
            // The thread that decodes has panicked.
            Self::Transfer(TransferError::Start(source)) => !http::is_shortage(source),
            Self::Unpack(UnpackError::Write { source, .. }) => !is_of_disk(source),
            _ => false,
        }
    }

    /// Whether this machine is the cause, whatever a server sends.
    pub(super) fn is_of_this_machine(&self) -> bool {
        self.class() >= FailureClass::Local && !self.may_be_of_nar()
    }

    /// Whether the disk is full.
    pub(super) fn is_disk_full(&self) -> bool {
        matches!(self, Self::Unpack(UnpackError::Write { source, .. })
            if source.kind() == io::ErrorKind::StorageFull)
    }

    /// Whether this machine has too few threads or file descriptors, or too little memory.
    pub(super) fn is_shortage(&self) -> bool {
        match self {
            Self::Transfer(TransferError::Network(error)) => error.is_shortage(),
            Self::Transfer(TransferError::Start(error)) => http::is_shortage(error),
            Self::Transfer(TransferError::NoMemory { .. }) => true,
            Self::Unpack(UnpackError::Write { source, .. }) => http::is_shortage(source),
            _ => false,
        }
    }

    /// The error and its causes on one line, without the URL of the download.
    pub(super) fn reason(&self) -> String {
        let reason = match self {
            Self::Transfer(TransferError::Network(source)) => source.without_url().to_string(),
            other => chain(other),
        };
        bounded(reason, REASON_BYTES_MAX)
    }

    /// The kind of failure.
    pub(super) fn kind(&self) -> FailureKind {
        match self {
            Self::Transfer(TransferError::Network(error)) => {
                FailureKind::Network(discriminant(error.kind()), error.status())
            }
            Self::Transfer(error) => FailureKind::Transfer(discriminant(error)),
            Self::Unpack(error) => FailureKind::Unpack(discriminant(error)),
            Self::Mismatch(error) => FailureKind::Mismatch(discriminant(error)),
        }
    }

    /// The failure of the network or of the server, if it was one.
    pub(super) fn network(&self) -> Option<&HttpError> {
        match self {
            Self::Transfer(TransferError::Network(error)) => Some(error),
            _ => None,
        }
    }

    /// The outage that this may be.
    pub(super) fn outage(&self) -> Option<Outage> {
        self.network()?.outage()
    }

    /// Whether the server's other downloads would fail in the same way: it does not answer, is
    /// overloaded, or what it sends is more than this machine can take.
    pub(super) fn concerns_server(&self) -> bool {
        let is_down = matches!(self.outage(), Some(Outage::Unreachable | Outage::Silent(_)));
        is_down || self.may_be_of_nar() || self.network().is_some_and(HttpError::asks_to_wait)
    }
}

/// Whether the disk or the permissions of this user are the cause, whatever is written.
fn is_of_disk(error: &io::Error) -> bool {
    let errors = [Errno::DQUOT, Errno::ROFS, Errno::IO, Errno::ACCESS];
    errors
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn network_class(error: &HttpError) -> FailureClass {
    match error.class() {
        http::HttpErrorClass::Absent => FailureClass::Absent,
        http::HttpErrorClass::Transient => FailureClass::Transient,
        http::HttpErrorClass::Refused => FailureClass::Refused,
        http::HttpErrorClass::Local => FailureClass::Local,
    }
}

/// A candidate that failed.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// What was tried.
    pub(crate) candidate: DownloadCandidate,
    /// The narinfo that its nar has to agree with.
    pub(crate) authorized: Arc<AuthorizedNarInfo>,
    /// Where from, without credentials.
    pub(crate) url: String,
    /// Why.
    pub(crate) error: AttemptError,
}

impl Attempt {
    /// A download for `authorized` that failed with `error`.
    pub(super) fn new(
        candidate: &DownloadCandidate,
        authorized: &Arc<AuthorizedNarInfo>,
        error: AttemptError,
    ) -> Self {
        let url = redacted(&candidate.url);
        Self {
            candidate: candidate.clone(),
            authorized: Arc::clone(authorized),
            url,
            error,
        }
    }

    /// Whether the server does not have the nar after all.
    pub(super) fn is_absent(&self) -> bool {
        self.error.class() == FailureClass::Absent
    }

    /// Whether the narinfo may be out of date: its nar is not there, or is another one.
    pub(super) fn may_be_stale(&self) -> bool {
        matches!(
            self.error.class(),
            FailureClass::Absent | FailureClass::Refused
        )
    }

    /// Whether what `candidate` gives is known to be wrong for `authorized`.
    pub(super) fn refuses(
        &self,
        candidate: &DownloadCandidate,
        authorized: &AuthorizedNarInfo,
    ) -> bool {
        self.error.class() == FailureClass::Refused
            && self.candidate.url == candidate.url
            && self.candidate.compression == candidate.compression
            && self
                .authorized
                .narinfo()
                .is_equivalent(authorized.narinfo())
    }

    /// Whether it is the same failure once more.
    pub(super) fn is_repetition_of(&self, other: &Self) -> bool {
        self.url == other.url && self.error.kind() == other.error.kind()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_error(errno: Errno) -> AttemptError {
        AttemptError::from(CheckError::Read {
            path: "/gnu/store/x.tmp".into(),
            source: errno.into(),
        })
    }

    #[test]
    fn other_servers_are_used_after_what_the_nar_may_have_caused() {
        for errno in [
            Errno::MFILE,
            Errno::NAMETOOLONG,
            Errno::ILSEQ,
            Errno::EXIST,
            Errno::INVAL,
            Errno::MLINK,
            Errno::FBIG,
            Errno::NOSPC,
        ] {
            let error = write_error(errno);
            assert!(!error.is_of_this_machine(), "{errno}");
            assert_eq!(error.class(), FailureClass::Local, "{errno}");
            assert_eq!(error.is_disk_full(), errno == Errno::NOSPC);
        }
        for errno in [Errno::DQUOT, Errno::ROFS, Errno::IO, Errno::ACCESS] {
            assert!(write_error(errno).is_of_this_machine(), "{errno}");
        }
        let start = |errno: Errno| TransferError::Start(Arc::new(errno.into()));
        assert!(AttemptError::from(start(Errno::AGAIN)).is_of_this_machine());
    }

    #[test]
    fn a_long_reason_is_cut() {
        let error = AttemptError::from(CheckError::Read {
            path: "/x".repeat(1 << 20).into(),
            source: io::Error::from_raw_os_error(nix::libc::EMFILE),
        });
        assert!(error.reason().len() <= REASON_BYTES_MAX + "...".len());
    }

    #[test]
    fn a_tree_that_cannot_be_read_again_is_a_local_failure() {
        let error = write_error(Errno::MFILE);
        assert_eq!(error.class(), FailureClass::Local);
        assert!(error.is_shortage());
        let error = AttemptError::from(CheckError::Mismatch(NarMismatch::ContentAddress));
        assert_eq!(error.class(), FailureClass::Refused);
    }
}
