//! Why an item could not be had, and what that means.

use std::fmt;

use url::Url;

use crate::format::error_text::chain;
use crate::format::hash::NarHash;
use crate::format::server_url::redacted;
use crate::format::store_path::StorePath;
use crate::format::units::bytes;
use crate::store::StoreError;
use crate::substitute::install::attempt_errors::{Attempt, FailureClass};
use crate::substitute::install::attempts_text::{attempts_text, common_cause};
use crate::substitute::item_lookup::{ItemLookup, ItemStatus};
use crate::substitute::lookup::{ResolveError, ServerReport};
use crate::substitute::outcome::{AnswerOrigin, LookupOutcome};
use crate::trust::verdict::Refusal;

/// Why an item could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ItemError {
    /// No server has it, or none gave an answer that can be used.
    #[error("{}{}", not_available_text(*.status, .answers), answer_lines(.answers))]
    NotAvailable {
        /// What follows from all answers.
        status: ItemStatus,
        /// What each server's lookup gave.
        answers: Vec<UnavailableAt>,
    },
    /// This machine could not send requests to the servers.
    #[error("this machine could not look it up{}", answer_lines(.answers))]
    LookupFailed {
        /// What each server's lookup gave.
        answers: Vec<UnavailableAt>,
    },
    /// Threads for the work could not be started.
    #[error("cannot start threads")]
    Threads(#[source] std::io::Error),
    /// A thread has ended by a panic, which it has reported.
    #[error("the thread that {0} has failed")]
    ThreadEnded(&'static str),
    /// Narinfos were refused, and no server has one that is not.
    #[error("no server's narinfo can be trusted{}", answer_lines(.answers))]
    Refused {
        /// The first refusal.
        first: Refusal,
        /// What each server's lookup gave.
        answers: Vec<UnavailableAt>,
    },
    /// The narinfo names no download that can be used.
    #[error("its narinfo names no download that this program can decode")]
    NoDownload,
    /// Its nar is not in a local directory, and there is no network access.
    #[error("offline: it would have to be downloaded from {0}")]
    Offline(String),
    /// All candidates failed; the last one is the cause.
    #[error("{}", attempts_text(.0))]
    AllFailed(Vec<Attempt>),
    /// All candidates failed, and another server's build of the item could not be had either.
    #[error("{first}\n    another server's build: {next}")]
    OtherBuild {
        /// Why the first build could not be had.
        first: Box<ItemError>,
        /// Why the last one could not.
        next: Box<ItemError>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The directory that the item goes to cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The directory.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database says that it is valid, and its tree is missing.
    #[error("it is registered as valid, but there is nothing at {}", .0.display())]
    MissingTree(std::path::PathBuf),
    /// Servers have it, but in no build with the contents that the database records.
    #[error("servers have it with other contents only than those that were registered ({0})")]
    OtherContents(NarHash),
    /// Something that it refers to could not be had.
    #[error("it refers to {0}, which could not be fetched")]
    Reference(StorePath),
    /// Something that it refers to is not valid, and references are not fetched.
    #[error("it refers to {0}, which is not valid, and references are not to be fetched")]
    InvalidReference(StorePath),
    /// The file system is too small for everything that is to be fetched.
    #[error("{} needed, {} free in {}", bytes(*.needed), bytes(*.free), path.display())]
    NoSpace {
        /// The directory that it is to be written to.
        path: std::path::PathBuf,
        /// Bytes of the blocks that the unpacked nars take.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The file system has too few entries (inodes) for what is to be fetched.
    #[error("entries (inodes): {needed} needed, {free} free in {}", path.display())]
    NoEntries {
        /// The directory that it is to be written to.
        path: std::path::PathBuf,
        /// Entries that are certainly needed.
        needed: u64,
        /// Entries that are free.
        free: u64,
    },
    /// Not tried, because something else had failed before.
    #[error("not tried, because another item failed")]
    NotTried,
    /// The user interrupted.
    #[error("interrupted")]
    Interrupted,
}

fn not_available_text(status: ItemStatus, answers: &[UnavailableAt]) -> &'static str {
    match status {
        ItemStatus::Preparing => "a server is preparing it, but does not have it yet",
        ItemStatus::Missing => "no server has it",
        ItemStatus::Refused => "no server has a narinfo that can be used",
        ItemStatus::Available | ItemStatus::Unknown
            if answers.iter().any(|answer| answer.outcome.is_from_server()) =>
        {
            "not all servers gave a definite answer"
        }
        ItemStatus::Available | ItemStatus::Unknown => "no server gave a definite answer",
    }
}

/// The outcome of a lookup on a server that does not give the item.
#[derive(Debug, Clone)]
pub(crate) struct UnavailableAt {
    /// The server's URL, without credentials.
    pub(crate) server: String,
    /// What the lookup gave.
    pub(crate) outcome: LookupOutcome,
    /// Whether the server has no `nix-cache-info`, and may be none.
    pub(crate) lacks_cache_info: bool,
    /// Whether it is from the lookup cache, so that the server may give another one by now.
    pub(crate) is_cached: bool,
    /// Whether the reason, which may quote the server, is shown as well.
    shows_reason: bool,
}

impl fmt::Display for UnavailableAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.shows_reason {
            write!(f, "{}: {}", self.server, self.outcome)
        } else {
            write!(f, "{}: {}", self.server, self.outcome.name())
        }
    }
}

fn answer_lines(answers: &[UnavailableAt]) -> String {
    if answers.is_empty() {
        return lines(&["no server is configured".to_owned()]);
    }
    let reasons = answers.iter().filter(|answer| {
        !matches!(
            answer.outcome,
            LookupOutcome::NotNeeded | LookupOutcome::Authorized | LookupOutcome::Equivalent(_)
        )
    });
    let reasons: Vec<String> = reasons.map(ToString::to_string).collect();
    lines(&reasons)
}

fn lines(why: &[String]) -> String {
    why.iter().map(|line| format!("\n    {line}")).collect()
}

impl From<ResolveError> for ItemError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Interrupted => Self::Interrupted,
            ResolveError::ThreadEnded => Self::ThreadEnded("looks items up"),
        }
    }
}

impl ItemError {
    /// Why an item without an authorized narinfo cannot be had; `servers` are those of `lookup`.
    #[must_use]
    pub(crate) fn unavailable(lookup: &ItemLookup, servers: &[ServerReport]) -> Self {
        let mut refusals = lookup
            .answers
            .iter()
            .filter_map(|answer| match &answer.outcome {
                LookupOutcome::Refused(refusal) if answer.outcome.is_refusal() => Some(refusal),
                _ => None,
            });
        let first = lookup.policy_refusal().or_else(|| refusals.next()).cloned();
        let answers = lookup.answers.iter().zip(servers);
        let answers = answers
            .map(|(answer, server)| UnavailableAt {
                server: server.url.clone(),
                outcome: answer.outcome.clone(),
                lacks_cache_info: server.lacks_cache_info,
                is_cached: matches!(answer.origin, AnswerOrigin::Cache { .. }),
                shows_reason: true,
            })
            .collect();

        match (lookup.status, first) {
            (ItemStatus::Refused, Some(first)) => Self::Refused { first, answers },
            _ if lookup.is_local_failure() => Self::LookupFailed { answers },
            (status, _) => Self::NotAvailable { status, answers },
        }
    }

    /// Removes the reasons of `file:` servers, for readers who may not read their files. Reasons of
    /// downloads stay.
    pub(crate) fn hide_file_texts(&mut self) {
        match self {
            Self::NotAvailable { answers, .. }
            | Self::LookupFailed { answers }
            | Self::Refused { answers, .. } => {
                for answer in answers {
                    answer.shows_reason &= !answer.server.starts_with("file:");
                }
            }
            Self::OtherBuild { first, next } => {
                first.hide_file_texts();
                next.hide_file_texts();
            }
            _ => {}
        }
    }

    /// The item would have to be downloaded from `url`.
    #[must_use]
    pub(in crate::substitute) fn offline(url: &Url) -> Self {
        Self::Offline(redacted(url))
    }

    /// What it means.
    #[must_use]
    pub(crate) fn class(&self) -> FailureClass {
        match self {
            Self::NotAvailable {
                status: ItemStatus::Unknown,
                ..
            }
            | Self::Offline(_) => FailureClass::Transient,
            Self::NotAvailable {
                status: ItemStatus::Refused,
                ..
            }
            | Self::Refused { .. }
            | Self::OtherContents(_)
            | Self::NoDownload => FailureClass::Refused,
            Self::NotAvailable { .. }
            | Self::Reference(_)
            | Self::InvalidReference(_)
            | Self::NotTried => FailureClass::Absent,
            Self::AllFailed(attempts) => attempts
                .iter()
                .filter(|it| !it.error.may_be_of_nar() || it.error.is_disk_full())
                .map(|attempt| attempt.error.class())
                // A server that does not have the nar after all is a failed download here:
                // its narinfo said that it has.
                .map(|class| {
                    if class == FailureClass::Absent {
                        FailureClass::Transient
                    } else {
                        class
                    }
                })
                .max()
                // Whatever was sent, this machine failed.
                .unwrap_or(FailureClass::Local),
            Self::Store(StoreError::Interrupted) => FailureClass::Interrupted,
            Self::Store(_)
            | Self::Open { .. }
            | Self::MissingTree(_)
            | Self::NoSpace { .. }
            | Self::NoEntries { .. }
            | Self::LookupFailed { .. }
            | Self::Threads(_)
            | Self::ThreadEnded(_) => FailureClass::Local,
            Self::OtherBuild { first, next } => first.class().max(next.class()),
            Self::Interrupted => FailureClass::Interrupted,
        }
    }

    /// Whether this machine has too few threads or file descriptors, or too little memory, so that
    /// doing less at a time may help.
    pub(in crate::substitute) fn is_shortage(&self) -> bool {
        matches!(self, Self::AllFailed(all) if all.iter().any(|it| it.error.is_shortage()))
    }

    /// Whether something that it refers to cannot be had, so that another build with other
    /// references may help.
    #[must_use]
    pub(in crate::substitute) fn is_of_reference(&self) -> bool {
        matches!(self, Self::Reference(_) | Self::InvalidReference(_))
    }

    /// Whether what refers to the item may be planned with another build: the servers are the
    /// cause, and not this machine or its user.
    #[must_use]
    pub(in crate::substitute) fn allows_another_build(&self) -> bool {
        self.class() < FailureClass::Local && !matches!(self, Self::NotTried)
    }

    /// Whether another server's bytes may help: these failed on the way or may not be right.
    #[must_use]
    pub(crate) fn is_of_servers(&self) -> bool {
        matches!(self, Self::AllFailed(all) if !all.iter().any(|it| it.error.is_of_this_machine()))
    }

    /// This failure, after which another build of the item was planned, which failed with
    /// `other`.
    #[must_use]
    pub(crate) fn and_then(self, other: Self) -> Self {
        match (self, other) {
            (Self::AllFailed(mut attempts), Self::AllFailed(more)) => {
                attempts.extend(more);
                Self::AllFailed(attempts)
            }
            (_, other @ (Self::Interrupted | Self::NotTried)) => other,
            (first, next) => Self::OtherBuild {
                first: Box::new(first),
                next: Box::new(next),
            },
        }
    }

    /// This failure, after that of an `earlier` build, if there was one.
    #[must_use]
    pub(in crate::substitute) fn after(self, earlier: Option<Self>) -> Self {
        match earlier {
            Some(earlier) => earlier.and_then(self),
            None => self,
        }
    }

    /// The downloads that were tried.
    pub(in crate::substitute) fn into_attempts(self) -> Vec<Attempt> {
        match self {
            Self::AllFailed(attempts) => attempts,
            _ => Vec::new(),
        }
    }

    /// What failures of other items have in common with this one when they have the same cause.
    #[must_use]
    pub(crate) fn common_cause(&self) -> String {
        match self {
            Self::AllFailed(attempts) => common_cause(attempts),
            other => chain(other),
        }
    }

    /// Whether a server has the item soon.
    #[must_use]
    pub(crate) fn is_preparing(&self) -> bool {
        matches!(
            self,
            Self::NotAvailable {
                status: ItemStatus::Preparing,
                ..
            }
        )
    }

    /// Whether some server's narinfo may be out of date: the nar that it leads to is not there, or
    /// is not the one that it describes.
    #[must_use]
    pub(crate) fn may_be_stale(&self) -> bool {
        matches!(self, Self::AllFailed(attempts) if attempts.iter().any(Attempt::may_be_stale))
    }
}
