//! Why an item is not in a mirror, and what that means for the exit code.

use std::sync::Arc;

use crate::format::error_text::chain;
use crate::format::store_path::StorePath;
use crate::http::{HttpError, HttpErrorClass, HttpErrorKind};
use crate::substitute::download::errors::{CopyError, TransferError};
use crate::substitute::install::FailureClass;
use crate::substitute::outcome::LookupOutcome;
use crate::trust::verdict::Refusal;

use super::inventory::NarInfoFault;
use super::target::TargetError;

/// Why an item is not in a mirror.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MirrorFailure {
    /// No server has an authorized narinfo: what each of them answered, with its URL.
    #[error("{}", answers_text(.0))]
    Unavailable(Vec<(String, LookupOutcome)>),
    /// The policy refuses it.
    #[error(transparent)]
    Policy(Refusal),
    /// There is no signature, but a store path that proves the content.
    #[error("only its store path vouches for it: no authorized key has signed it")]
    ContentOnly,
    /// A server adds too much to what is signed.
    #[error("the part of its narinfo that is not signed is longer than {0} bytes")]
    LongTail(usize),
    /// No download can be copied.
    #[error("its narinfo names no download that can be verified")]
    NoDownload,
    /// The URL cannot be the name of a file, and is signed.
    #[error("its URL `{}` is signed and cannot be that of a file of the mirror", .0.escape_debug())]
    SignedUrl(String),
    /// A nar was not copied.
    #[error("copying {url}")]
    Copy {
        /// Where it is.
        url: String,
        /// Why.
        source: CopyError,
    },
    /// The server may not point to the nar.
    #[error("its URL `{}` is not allowed", .0.escape_debug())]
    ForbiddenUrl(String),
    /// A file of the mirror cannot be read or written.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A narinfo of the mirror does not describe its item, so it is not known which nars it needs.
    #[error("its narinfo {file} is wrong")]
    NarInfo {
        /// The file, relative to the mirror.
        file: String,
        /// What is wrong.
        source: NarInfoFault,
    },
    /// The mirror's record is that of a later version, or damaged.
    #[error("its record {0} is damaged, or that of a later version of subst")]
    Record(String),
    /// The clock of this machine is behind, or a file has a time of the future.
    #[error("the clock of this machine is behind the time of {0}")]
    Clock(String),
    /// The narinfo would lead clients to one that the mirror does not have.
    #[error("it refers to {}, which is not in the mirror", .0.base())]
    MissingReference(StorePath),
    /// Its references lead back to it.
    #[error("its references form a circle")]
    Circle,
    /// Requests cannot be sent.
    #[error("cannot look items up")]
    Network(#[source] Arc<HttpError>),
    /// The run ended before.
    #[error("interrupted")]
    Interrupted,
}

impl MirrorFailure {
    /// What it means for the run.
    #[must_use]
    pub(crate) fn class(&self) -> FailureClass {
        match self {
            Self::Unavailable(answers) => class_of_answers(answers),
            Self::MissingReference(_) => FailureClass::Absent,
            Self::Policy(_)
            | Self::ContentOnly
            | Self::LongTail(_)
            | Self::NoDownload
            | Self::SignedUrl(_)
            | Self::ForbiddenUrl(_)
            | Self::Circle => FailureClass::Refused,
            Self::Copy { source, .. } => class_of_copy(source),
            Self::Target(TargetError::Bucket { source, .. }) => class_of_network(source),
            Self::Target(_)
            | Self::Network(_)
            | Self::NarInfo { .. }
            | Self::Record(_)
            | Self::Clock(_) => FailureClass::Local,
            Self::Interrupted => FailureClass::Interrupted,
        }
    }

    /// Whether nothing else can succeed after it.
    #[must_use]
    pub(super) fn ends_run(&self) -> bool {
        let is_of_mirror = matches!(self, Self::Target(_));
        is_of_mirror
            || matches!(
                self.class(),
                FailureClass::Local | FailureClass::Interrupted
            )
    }
}

fn class_of_answers(answers: &[(String, LookupOutcome)]) -> FailureClass {
    let mut outcomes = answers.iter().map(|(_, outcome)| outcome);
    if outcomes.clone().any(LookupOutcome::is_refusal) {
        return FailureClass::Refused;
    }
    match outcomes.any(LookupOutcome::is_undecided) {
        true => FailureClass::Transient,
        false => FailureClass::Absent,
    }
}

/// What it means that a nar cannot be copied or read.
#[must_use]
pub(super) fn class_of_copy(error: &CopyError) -> FailureClass {
    match error {
        CopyError::Write(_) => FailureClass::Local,
        CopyError::Read(error) => {
            let cause = error.get_ref();
            let network = cause.and_then(|cause| cause.downcast_ref::<HttpError>());
            network.map_or(FailureClass::Local, class_of_network)
        }
        CopyError::Transfer(TransferError::Canceled) => FailureClass::Interrupted,
        CopyError::Transfer(TransferError::NoMemory { .. } | TransferError::Start(_)) => {
            FailureClass::Local
        }
        CopyError::Transfer(TransferError::Network(error)) => class_of_network(error),
        _ => FailureClass::Refused,
    }
}

fn class_of_network(error: &HttpError) -> FailureClass {
    if matches!(error.kind(), HttpErrorKind::Canceled) {
        return FailureClass::Interrupted;
    }
    match error.class() {
        HttpErrorClass::Absent => FailureClass::Absent,
        HttpErrorClass::Transient => FailureClass::Transient,
        HttpErrorClass::Refused => FailureClass::Refused,
        HttpErrorClass::Local => FailureClass::Local,
    }
}

fn answers_text(answers: &[(String, LookupOutcome)]) -> String {
    let texts = answers
        .iter()
        .map(|(server, outcome)| format!("{server}: {}", chain(outcome)));
    texts.collect::<Vec<_>>().join("; ")
}
