//! One item: candidates -> transfer -> unpack -> check, at a temporary name.
//!
//! Whatever is wrong with what a server sends, the next candidate is tried: another download
//! of the same narinfo, then an equivalent narinfo of another server. Only trouble on this
//! side (a full disk, permissions) stops at once, because no other server can help with it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::format::server_url::{self, ServerUrl};
use crate::format::store_path::StorePath;
use crate::http::{self, HttpError};
use crate::store::unpack::{Checked, Destination, NarMismatch, UnpackError, WriterPool, unpack};
use crate::store::{Links, StoreError};
use crate::trust::verdict::{AuthorizedNarInfo, Refusal};

use super::ahead::{Ahead, Begun};
use super::answer::{Source, Status};
use super::cancel::Cancel;
use super::choose::{self, Candidate, Choice, Rates};
use super::network::Network;
use super::progress::{Event, Progress};
use super::transfer::{Budget, NarStream, Received, TransferError};

/// What a failure means for the exit code and for whoever asks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A definite no.
    Absent,
    /// Refused: trust or integrity.
    Refused,
    /// The network: trying again may help.
    Transient,
    /// This machine: disk, permissions, database, locks.
    Local,
    /// The user wants to stop.
    Interrupted,
}

/// Why one candidate did not give the item.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// It did not arrive whole.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// It is no nar, or the tree could not be written.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// It is another nar than the one that was signed.
    #[error(transparent)]
    Mismatch(#[from] NarMismatch),
}

impl AttemptError {
    /// What it means.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Transfer(TransferError::Network(error)) => network_class(error),
            Self::Transfer(TransferError::Corrupt { .. } | TransferError::TooLong(_))
            | Self::Unpack(UnpackError::Nar(_))
            | Self::Mismatch(_) => Class::Refused,
            Self::Transfer(TransferError::Start(_))
            | Self::Unpack(
                UnpackError::Write { .. } | UnpackError::Deduplicate(_) | UnpackError::Panicked,
            ) => Class::Local,
            Self::Transfer(TransferError::Cancelled) => Class::Interrupted,
        }
    }
}

fn network_class(error: &HttpError) -> Class {
    match error.class() {
        http::Class::Absent => Class::Absent,
        http::Class::Transient => Class::Transient,
        http::Class::Refused => Class::Refused,
        http::Class::Local => Class::Local,
    }
}

/// A candidate that failed.
#[derive(Debug)]
pub struct Attempt {
    /// Where from, without credentials.
    pub url: String,
    /// Why.
    pub error: AttemptError,
}

/// Why an item could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ItemError {
    /// No server has it, and says so, or none gave an answer that can be used.
    #[error("{}{}", not_available_text(*.status), lines(.why))]
    NotAvailable {
        /// What follows from all answers.
        status: Status,
        /// Server by server, in words.
        why: Vec<String>,
    },
    /// Narinfos were refused, and nobody has one that is not.
    #[error("no server's narinfo can be trusted{}", lines(.why))]
    Refused {
        /// The first refusal.
        first: Refusal,
        /// Server by server, in words.
        why: Vec<String>,
    },
    /// The narinfo names no download that can be used.
    #[error("its narinfo names no download that this program can decode")]
    NoDownload,
    /// Its nar is not here, and nobody may be connected to.
    #[error("offline: it would have to be downloaded from {0}")]
    Offline(String),
    /// All candidates failed; the last one is the cause.
    #[error("{}", attempts_text(.0))]
    AllFailed(Vec<Attempt>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The directory that the item goes to cannot be opened.
    #[error("opening {}", path.display())]
    Open {
        /// The directory.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The HTTP client could not be made.
    #[error("setting up the network")]
    Network(#[source] Arc<HttpError>),
    /// Something that it refers to could not be had.
    #[error("it refers to {0}, which could not be fetched")]
    Reference(StorePath),
    /// Something that it refers to is not valid, and references are not fetched.
    #[error("it refers to {0}, which is not valid, and references are not to be fetched")]
    InvalidReference(StorePath),
    /// The file system is too small for everything that is to be fetched.
    #[error("{needed} bytes are needed and {free} are free in the store's file system")]
    NoSpace {
        /// Bytes of nars that are to be unpacked.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// Not tried, because something else had failed before.
    #[error("not tried, because another item failed")]
    NotTried,
    /// The user wants to stop.
    #[error("interrupted")]
    Interrupted,
}

fn not_available_text(status: Status) -> &'static str {
    match status {
        Status::Preparing => "a server is preparing it, but does not have it yet",
        Status::Missing => "no server has it",
        Status::Refused => "no server has a narinfo that can be used",
        Status::Available | Status::Unknown => "no server gave a definite answer",
    }
}

fn lines(why: &[String]) -> String {
    why.iter().map(|line| format!("\n    {line}")).collect()
}

fn attempts_text(attempts: &[Attempt]) -> String {
    let mut text = String::from("every download failed");
    for Attempt { url, error } in attempts {
        text.push_str(&format!("\n    {url}: {}", super::chain(error)));
    }
    text
}

impl ItemError {
    /// What it means.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::NotAvailable { status: Status::Unknown, .. }
            | Self::Network(_)
            | Self::Offline(_) => Class::Transient,
            Self::NotAvailable { status: Status::Refused, .. }
            | Self::Refused { .. }
            | Self::NoDownload => Class::Refused,
            Self::NotAvailable { .. }
            | Self::Reference(_)
            | Self::InvalidReference(_)
            | Self::NotTried => Class::Absent,
            Self::AllFailed(attempts) => attempts
                .iter()
                .map(|attempt| attempt.error.class())
                // A server that does not have the nar after all is a failed download here:
                // its narinfo said that it has.
                .map(|class| if class == Class::Absent { Class::Transient } else { class })
                .max()
                .unwrap_or(Class::Transient),
            Self::Store(_) | Self::Open { .. } | Self::NoSpace { .. } => Class::Local,
            Self::Interrupted => Class::Interrupted,
        }
    }

    /// Whether another server's bytes may help: these failed on the way or were not right.
    #[must_use]
    pub fn is_of_servers(&self) -> bool {
        let is_theirs = matches!(self.class(), Class::Transient | Class::Refused);
        is_theirs && matches!(self, Self::AllFailed(_))
    }

    /// This failure, after which `other` followed.
    #[must_use]
    pub fn and_then(self, other: Self) -> Self {
        match (self, other) {
            (Self::AllFailed(mut attempts), Self::AllFailed(more)) => {
                attempts.extend(more);
                Self::AllFailed(attempts)
            }
            (_, other) => other,
        }
    }

    /// Whether some server's narinfo leads to a nar that is not there: it is stale.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        let is_absent = |attempt: &Attempt| attempt.error.class() == Class::Absent;
        matches!(self, Self::AllFailed(attempts) if attempts.iter().any(is_absent))
    }
}

/// One item to be unpacked: what, from where, to where.
#[derive(Clone, Copy)]
pub struct Order<'a> {
    /// The item.
    pub item: &'a StorePath,
    /// Who vouches for its bytes.
    pub authorized: &'a Arc<AuthorizedNarInfo>,
    /// Who has them, in the user's order.
    pub sources: &'a [Source],
    /// Where its tree goes.
    pub destination: &'a Destination,
    /// Where its files are deduplicated; `None` when they are not.
    pub links: Option<&'a Arc<Links>>,
}

/// Everything that unpacking items needs, shared by all workers.
pub struct Installer {
    /// How to reach servers.
    pub network: Arc<Network>,
    /// The servers, in the user's order.
    pub servers: Vec<ServerUrl>,
    /// Writes small files.
    pub writers: WriterPool,
    /// What transfers may take.
    pub budget: Budget,
    /// Who has begun with nars ahead of time, if anybody has.
    pub ahead: Option<Arc<dyn Ahead>>,
    /// What was measured so far.
    pub rates: Mutex<Rates>,
    /// Whom to tell.
    pub progress: Arc<dyn Progress>,
    /// Tells when to stop.
    pub cancel: Cancel,
    /// Transfers under way, for progress.
    pub in_flight: Mutex<Vec<(StorePath, Received)>>,
}

impl Installer {
    /// Makes the item's tree at its destination, from the first of its sources that gives the
    /// bytes that are vouched for.
    ///
    /// # Errors
    /// No source does, or the tree cannot be written; nothing is left behind.
    pub(super) fn unpack(&self, order: &Order<'_>) -> Result<Checked, ItemError> {
        let item = order.item;
        let mut attempts = Vec::new();
        let (rates, nar_size) = (self.rates(), order.authorized.narinfo().nar_size());
        let all = choose::candidates(order.sources, &self.servers, &rates);
        let mut ranked = self.network.within_reach(all)?;
        let mut choice = choose::explain(&ranked, nar_size, &rates);
        let mut begun = self.ahead.as_ref().and_then(|ahead| {
            let (index, begun) = ahead.take(item, &ranked)?;
            ranked.get_mut(..=index)?.rotate_right(1);
            choice = None;
            Some(begun)
        });
        for candidate in &ranked {
            let start = Start { begun: begun.take(), choice: choice.take() };
            let error = match self.attempt(order, candidate, start) {
                Ok(checked) => return Ok(checked),
                Err(error) => error,
            };
            let url = server_url::redacted(&candidate.url);
            if error.class() == Class::Interrupted || self.cancel.is_cancelled() {
                return Err(ItemError::Interrupted);
            }
            let stop = error.class() == Class::Local;
            let reason = super::chain(&error);
            self.progress.event(Event::SourceFailed { item, url: &url, reason: &reason });
            attempts.push(Attempt { url, error });
            if stop {
                break;
            }
        }
        Err(if attempts.is_empty() {
            ItemError::NoDownload
        } else {
            ItemError::AllFailed(attempts)
        })
    }

    fn attempt(
        &self,
        order: &Order<'_>,
        candidate: &Candidate,
        start: Start,
    ) -> Result<Checked, AttemptError> {
        let Start { begun, choice } = start;
        let Order { item, authorized, .. } = *order;
        let nar_size = authorized.narinfo().nar_size();
        let client = self.network.client_for(&candidate.url).map_err(TransferError::Network)?;
        let cancel = self.cancel.clone();
        let stream = NarStream::open(client, candidate, nar_size, begun, &self.budget, cancel)?;
        self.progress.event(Event::Started {
            item,
            url: &server_url::redacted(&candidate.url),
            download_size: stream.download_size(),
            choice: choice.as_ref(),
        });
        let _watch = Watch::new(self, item, &stream);
        let (unpacked, stream) = {
            let mut stream = stream;
            let (destination, links) = (order.destination.clone(), order.links.cloned());
            (unpack(&mut stream, destination, &self.writers, links), stream)
        };
        // A local failure is the cause of the broken transfer, everything else its effect.
        let unpacked = match unpacked {
            Err(error) if !matches!(error, UnpackError::Nar(_)) => return Err(error.into()),
            other => other,
        };
        let (content, measured) = stream.finish()?;
        let checked = unpacked?.check(content, Arc::clone(authorized))?;
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let streamed_in = measured.streamed_in.as_secs_f64();
        rates.link_measured(candidate.server, measured.streamed, streamed_in);
        let worked = measured.decoded_in.as_secs_f64();
        rates.decoder_measured(candidate.compression, nar_size, worked);
        drop(rates);
        let downloaded = measured.downloaded;
        self.progress.event(Event::Unpacked { item, downloaded, nar_size });
        Ok(checked)
    }

    fn rates(&self) -> Rates {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells how far every transfer is.
    pub fn report_progress(&self) {
        let in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        for (item, received) in in_flight.iter() {
            let downloaded = received.bytes();
            self.progress.event(Event::Progressed { item, downloaded });
        }
    }
}

/// How a download comes to be tried.
struct Start {
    /// It has begun already.
    begun: Option<Box<dyn Begun>>,
    /// It was preferred to others.
    choice: Option<Choice>,
}

/// A transfer is among those under way for as long as this lives.
struct Watch<'a> {
    installer: &'a Installer,
    item: &'a StorePath,
}

impl<'a> Watch<'a> {
    fn new(installer: &'a Installer, item: &'a StorePath, stream: &NarStream) -> Self {
        let mut all = installer.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((item.clone(), stream.received()));
        Self { installer, item }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut all = self.installer.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(item, _)| item != self.item);
    }
}
