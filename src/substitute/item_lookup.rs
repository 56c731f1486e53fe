//! What the lookup of one item on all servers gave: whether it is available, by which narinfo, and
//! which servers have its nar.

use std::sync::Arc;

use crate::format::narinfo::{NarInfo, NarOffer};
use crate::format::server_list::{PerServer, ServerIndex};
use crate::format::store_path::StorePath;
use crate::substitute::outcome::{LookupOutcome, ServerAnswer};
use crate::trust::verdict::{
    Authorization, AuthorizedNarInfo, Judgment, PreviouslyAuthorizedNarInfo, Refusal,
};

/// A narinfo that is authorized, and how that is known.
#[derive(Debug, Clone)]
pub(crate) enum Authority {
    /// All signatures that it needs were checked in this run.
    Checked(Arc<AuthorizedNarInfo>),
    /// Some were checked when it was looked up; the keys are authorized still. Enough for reports, not
    /// for changing a store.
    Cached(Arc<PreviouslyAuthorizedNarInfo>),
}

impl From<Authorization> for Authority {
    fn from(authorization: Authorization) -> Self {
        match authorization {
            Authorization::Verified(authorized) => Self::Checked(Arc::new(authorized)),
            Authorization::Recorded(authorized) => Self::Cached(Arc::new(authorized)),
        }
    }
}

impl Authority {
    /// The narinfo.
    #[must_use]
    pub(crate) fn narinfo(&self) -> &Arc<NarInfo> {
        match self {
            Self::Checked(authorized) => authorized.narinfo(),
            Self::Cached(authorized) => authorized.narinfo(),
        }
    }

    /// The key that signed it, for messages.
    #[must_use]
    pub(crate) fn signed_by(&self) -> &str {
        match self {
            Self::Checked(authorized) => authorized.signed_by(),
            Self::Cached(authorized) => authorized.signed_by(),
        }
    }

    /// All keys that signed it, for messages.
    #[must_use]
    pub(crate) fn signers(&self) -> Vec<&str> {
        match self {
            Self::Checked(authorized) => authorized.signers().collect(),
            Self::Cached(authorized) => authorized.signers().collect(),
        }
    }

    /// The proof that a store change needs; `None` when an earlier run verified the signature.
    #[must_use]
    pub(crate) fn verified_this_run(&self) -> Option<&Arc<AuthorizedNarInfo>> {
        match self {
            Self::Checked(authorized) => Some(authorized),
            Self::Cached(_) => None,
        }
    }
}

/// What a narinfo offers, and the server that gave it.
#[derive(Debug, Clone)]
pub(crate) struct NarSource {
    /// The server.
    pub(crate) server: ServerIndex,
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
    /// The name for scripts and people.
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

/// Everything known of one item.
#[derive(Debug, Clone)]
pub(crate) struct ItemLookup {
    /// The item.
    pub(crate) path: StorePath,
    /// What follows.
    pub(crate) status: ItemStatus,
    /// The selected narinfo, from the first server with authority in the user's order.
    pub(crate) authority: Option<Authority>,
    /// Whose bytes may be used: the servers that gave this narinfo or an equivalent one, in
    /// the user's order.
    pub(crate) sources: Vec<NarSource>,
    /// Further authorized narinfos, which describe other nars, in the user's order: for when
    /// the nar of the first one cannot be had.
    pub(crate) alternatives: Vec<ItemBuild>,
    /// One for each server.
    pub(crate) answers: PerServer<ServerAnswer>,
    /// How the votes were counted; `None` where any one authorized key suffices, or no server has a
    /// signed narinfo.
    pub(crate) judgment: Option<Box<Judgment>>,
}

impl ItemLookup {
    /// Whether nothing definite is known because this machine could not send requests.
    #[must_use]
    pub(crate) fn is_local_failure(&self) -> bool {
        self.status == ItemStatus::Unknown
            && self
                .answers
                .iter()
                .any(|answer| matches!(answer.outcome, LookupOutcome::LocalFailure(_)))
    }

    /// Why the policy refuses what authorized keys have signed, if it does.
    #[must_use]
    pub(crate) fn policy_refusal(&self) -> Option<&Refusal> {
        self.judgment.as_ref()?.refusal()
    }

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

/// One build of an item: an authorized narinfo, and the servers that have its nar.
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
    if any_outcome(answers, |outcome| {
        matches!(outcome, LookupOutcome::Preparing(_))
    }) {
        return ItemStatus::Preparing;
    }
    if any_outcome(answers, LookupOutcome::is_refusal) {
        return ItemStatus::Refused;
    }
    if any_outcome(answers, LookupOutcome::is_undecided) {
        return ItemStatus::Unknown;
    }

    // Servers of other stores could not have the item, so their answers alone say nothing.
    let is_missing = any_outcome(answers, |outcome| {
        matches!(
            outcome,
            LookupOutcome::Missing(_) | LookupOutcome::Refused(_)
        )
    });
    let is_other = any_outcome(answers, |outcome| {
        matches!(outcome, LookupOutcome::OtherStore(_))
    });
    match is_other && !is_missing {
        true => ItemStatus::Unknown,
        false => ItemStatus::Missing,
    }
}

fn any_outcome(answers: &[ServerAnswer], is_wanted: fn(&LookupOutcome) -> bool) -> bool {
    answers.iter().any(|answer| is_wanted(&answer.outcome))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::substitute::outcome::{LookupFailure, OtherStore};
    use crate::trust::verdict::Refusal;

    fn down() -> LookupFailure {
        LookupFailure::Cached("down".into())
    }

    fn other_store() -> OtherStore {
        OtherStore {
            theirs: "/nix/store".into(),
            ours: "/gnu/store".into(),
        }
    }

    #[test]
    fn the_most_telling_answer_decides() {
        let cases = [
            (
                vec![LookupOutcome::Missing(404), LookupOutcome::Preparing(404)],
                ItemStatus::Preparing,
            ),
            (
                vec![
                    LookupOutcome::Failed(down()),
                    LookupOutcome::Refused(Refusal::Unsigned),
                ],
                ItemStatus::Refused,
            ),
            (
                vec![LookupOutcome::Missing(404), LookupOutcome::Failed(down())],
                ItemStatus::Unknown,
            ),
            (
                vec![LookupOutcome::Missing(404), LookupOutcome::Offline],
                ItemStatus::Unknown,
            ),
            (
                vec![LookupOutcome::Missing(404), LookupOutcome::Skipped(down())],
                ItemStatus::Unknown,
            ),
            (
                vec![LookupOutcome::Missing(404), LookupOutcome::NotAwaited],
                ItemStatus::Unknown,
            ),
            (
                vec![
                    LookupOutcome::OtherStore(other_store()),
                    LookupOutcome::Missing(404),
                ],
                ItemStatus::Missing,
            ),
            (
                vec![LookupOutcome::OtherStore(other_store())],
                ItemStatus::Unknown,
            ),
            (
                vec![LookupOutcome::Missing(404), LookupOutcome::Missing(410)],
                ItemStatus::Missing,
            ),
            (vec![], ItemStatus::Missing),
        ];
        for (outcomes, status) in cases {
            let answers: Vec<_> = outcomes.iter().cloned().map(ServerAnswer::of).collect();
            assert_eq!(status_without_authority(&answers), status, "{outcomes:?}");
        }
    }

    #[test]
    fn a_signed_narinfo_of_the_same_hash_shows_that_the_name_is_wrong() {
        let path = |name: &str| StorePath::parse(&format!("{}-{name}", "0".repeat(32))).unwrap();
        for (is_signed, other, status) in [
            (true, LookupOutcome::Missing(404), ItemStatus::Missing),
            (
                true,
                LookupOutcome::OtherStore(other_store()),
                ItemStatus::Missing,
            ),
            (true, LookupOutcome::Failed(down()), ItemStatus::Unknown),
            (false, LookupOutcome::Failed(down()), ItemStatus::Refused),
        ] {
            let wrong = LookupOutcome::Refused(Refusal::WrongItem {
                asked: path("hello-2.12"),
                answered: path("hello-2.12.2"),
                is_signed,
            });
            let answers = [wrong, other].map(ServerAnswer::of);
            assert_eq!(status_without_authority(&answers), status, "{answers:?}");
        }
    }
}
