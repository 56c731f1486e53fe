//! What is known of an item: every server's answer, and what follows from them.

use std::sync::Arc;

use crate::format::narinfo::{NarInfo, NarOffer};
use crate::format::store_path::StorePath;
use crate::trust::verdict::{AuthorizedNarInfo, Refusal};

/// What one server said of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LookupOutcome {
    /// Nobody needed to ask: a server before it answered with authority.
    NotNeeded,
    /// A narinfo that an authorized key vouches for.
    Authorized,
    /// A narinfo that nobody vouches for, equivalent to an authorized one of another server:
    /// the bytes may come from here.
    Equivalent(Refusal),
    /// A narinfo that may not be used, and why.
    Refused(Refusal),
    /// A good narinfo that names no download which could be used, and why.
    Unusable(Unusable),
    /// A text that is no narinfo.
    Unreadable(String),
    /// A definite no, with the HTTP status.
    Missing(u16),
    /// The server knows the item and is preparing its nar.
    Preparing(u16),
    /// No definite answer, and why.
    Failed(String),
    /// This machine could not ask: it has too few threads or file descriptors, or too little memory.
    LocalFailure(String),
    /// Asked, and not waited for: others had answered everything.
    NotAwaited,
    /// Not asked: the server was down a moment ago, and why we think so.
    Skipped(String),
    /// Not asked: the server's items are for another store, in words.
    OtherStore(String),
    /// Not asked because the lookup cache alone was to be believed.
    Offline,
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

/// Why an answer is [`LookupOutcome::NotAwaited`].
pub(crate) const NOT_AWAITED: &str = "no answer while another server had answered everything";

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerOrigin {
    /// The server, in this run.
    Network,
    /// The lookup cache: asked then, valid until, both in Unix seconds.
    Cache {
        /// When the server said it.
        asked_at: u64,
        /// When it stops to count.
        expires_at: u64,
    },
}

/// One server's answer and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerAnswer {
    /// What was said.
    pub(crate) outcome: LookupOutcome,
    /// By whom: the server or the lookup cache.
    pub(crate) origin: AnswerOrigin,
    /// When the answer stops to count, in Unix seconds; `None` when it is not remembered.
    pub(crate) expires_at: Option<u64>,
}

impl ServerAnswer {
    /// An answer that is not remembered.
    #[must_use]
    pub(crate) fn of(outcome: LookupOutcome) -> Self {
        Self {
            outcome,
            origin: AnswerOrigin::Network,
            expires_at: None,
        }
    }

    /// Whether the server said it of this item. What it says is remembered for the item; that
    /// it is down is not.
    #[must_use]
    pub(crate) fn is_about_item(&self) -> bool {
        self.expires_at.is_some()
    }
}

/// Who vouches for a narinfo, and how we know.
#[derive(Debug, Clone)]
pub(crate) enum Authority {
    /// Its signature was checked in this run.
    Checked(Arc<AuthorizedNarInfo>),
    /// Its signature was checked when it was looked up; the key is authorized still. Enough
    /// for reports, not for changing a store.
    Remembered(Arc<AuthorizedNarInfo>),
}

impl Authority {
    /// The narinfo vouched for.
    #[must_use]
    pub(crate) fn narinfo(&self) -> &Arc<NarInfo> {
        self.authorized().narinfo()
    }

    /// The narinfo and the key that vouches for it, checked now or earlier.
    #[must_use]
    pub(crate) fn authorized(&self) -> &Arc<AuthorizedNarInfo> {
        match self {
            Self::Checked(authorized) | Self::Remembered(authorized) => authorized,
        }
    }

    /// The proof that a store may be changed by; `None` when it is only remembered.
    #[must_use]
    pub(crate) fn checked(&self) -> Option<&Arc<AuthorizedNarInfo>> {
        match self {
            Self::Checked(authorized) => Some(authorized),
            Self::Remembered(_) => None,
        }
    }
}

/// What a narinfo offers, and the server that gave it.
#[derive(Debug, Clone)]
pub(crate) struct NarSource {
    /// Index into the list of servers.
    pub(crate) server: usize,
    /// What its narinfo offers, which is authorized itself or equivalent to one that is.
    pub(crate) offer: Arc<NarOffer>,
}

/// What follows from all answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ItemStatus {
    /// An authorized narinfo is there.
    Available,
    /// A server is preparing it.
    Preparing,
    /// A definite no everywhere.
    Missing,
    /// Narinfos, but none that may be used.
    Refused,
    /// No definite answer.
    Unknown,
}

impl ItemStatus {
    /// The word for scripts and people.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Preparing => "preparing",
            Self::Missing => "missing",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

impl ItemLookup {
    /// Whether nothing definite is known because this machine could not ask.
    #[must_use]
    pub(crate) fn is_local_failure(&self) -> bool {
        let is_local =
            |answer: &ServerAnswer| matches!(answer.outcome, LookupOutcome::LocalFailure(_));
        self.status == ItemStatus::Unknown && self.answers.iter().any(is_local)
    }
}

/// Everything known of one item.
#[derive(Debug, Clone)]
pub(crate) struct ItemLookup {
    /// The item.
    pub(crate) path: StorePath,
    /// What follows.
    pub(crate) status: ItemStatus,
    /// The narinfo to go by, from the first server with authority in the user's order.
    pub(crate) authority: Option<Authority>,
    /// Whose bytes may be used: the servers that gave this narinfo or an equivalent one, in
    /// the user's order.
    pub(crate) sources: Vec<NarSource>,
    /// Further authorized narinfos, which describe other nars, in the user's order: for when
    /// the nar of the first one cannot be had.
    pub(crate) alternatives: Vec<ItemBuild>,
    /// One for each server.
    pub(crate) answers: Vec<ServerAnswer>,
}

impl ItemLookup {
    /// Every authorized narinfo that describes another nar than the others, in the user's
    /// order, with the servers that offer that nar.
    pub(crate) fn builds(self) -> impl Iterator<Item = ItemBuild> {
        let Self {
            authority,
            sources,
            alternatives,
            ..
        } = self;
        let first = authority.map(|authority| ItemBuild { authority, sources });
        first.into_iter().chain(alternatives)
    }
}

/// One build of an item: an authorized narinfo, and who has the nar that it describes.
#[derive(Debug, Clone)]
pub(crate) struct ItemBuild {
    /// The narinfo.
    pub(crate) authority: Authority,
    /// The servers that gave it or an equivalent one, in the user's order.
    pub(crate) sources: Vec<NarSource>,
}

/// What follows from `answers` for an item without an authorized narinfo.
#[must_use]
pub(crate) fn status_without_authority(answers: &[ServerAnswer]) -> ItemStatus {
    let any =
        |wanted: fn(&LookupOutcome) -> bool| answers.iter().any(|answer| wanted(&answer.outcome));
    if any(|outcome| matches!(outcome, LookupOutcome::Preparing(_))) {
        ItemStatus::Preparing
    } else if any(|outcome| {
        matches!(
            outcome,
            LookupOutcome::Refused(_) | LookupOutcome::Unusable(_) | LookupOutcome::Unreadable(_)
        )
    }) {
        ItemStatus::Refused
    } else if any(is_open) {
        ItemStatus::Unknown
    } else if any(|outcome| matches!(outcome, LookupOutcome::OtherStore(_)))
        && !any(|outcome| matches!(outcome, LookupOutcome::Missing(_)))
    {
        // Not one of the servers could have known the item.
        ItemStatus::Unknown
    } else {
        ItemStatus::Missing
    }
}

/// Whether the server may have the item for all we know.
fn is_open(outcome: &LookupOutcome) -> bool {
    matches!(
        outcome,
        LookupOutcome::Failed(_)
            | LookupOutcome::LocalFailure(_)
            | LookupOutcome::NotAwaited
            | LookupOutcome::Skipped(_)
            | LookupOutcome::Offline
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_telling_answer_decides() {
        let answers = |outcome: &[LookupOutcome]| {
            outcome
                .iter()
                .cloned()
                .map(ServerAnswer::of)
                .collect::<Vec<_>>()
        };
        let cases = [
            (
                vec![LookupOutcome::Missing(404), LookupOutcome::Preparing(404)],
                ItemStatus::Preparing,
            ),
            (
                vec![
                    LookupOutcome::Failed("down".into()),
                    LookupOutcome::Refused(Refusal::Unsigned),
                ],
                ItemStatus::Refused,
            ),
            (
                vec![
                    LookupOutcome::Missing(404),
                    LookupOutcome::Failed("down".into()),
                ],
                ItemStatus::Unknown,
            ),
            (
                vec![LookupOutcome::Missing(404), LookupOutcome::Offline],
                ItemStatus::Unknown,
            ),
            (
                vec![
                    LookupOutcome::Missing(404),
                    LookupOutcome::Skipped("down".into()),
                ],
                ItemStatus::Unknown,
            ),
            (
                vec![LookupOutcome::Missing(404), LookupOutcome::NotAwaited],
                ItemStatus::Unknown,
            ),
            (
                vec![
                    LookupOutcome::OtherStore("nix".into()),
                    LookupOutcome::Missing(404),
                ],
                ItemStatus::Missing,
            ),
            (
                vec![LookupOutcome::OtherStore("nix".into())],
                ItemStatus::Unknown,
            ),
            (
                vec![LookupOutcome::Missing(404), LookupOutcome::Missing(410)],
                ItemStatus::Missing,
            ),
            (vec![], ItemStatus::Missing),
        ];
        for (outcome, status) in cases {
            assert_eq!(
                status_without_authority(&answers(&outcome)),
                status,
                "{outcome:?}"
            );
        }
    }
}
