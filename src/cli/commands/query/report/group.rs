//! What an item's answers mean for the user: one kind of miss.

use crate::substitute::item_lookup::{ItemLookup, ItemStatus};
use crate::substitute::outcome::{AnswerOrigin, LookupOutcome, ServerAnswer};
use crate::trust::verdict::Refusal;

/// Kinds of misses, gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli::commands::query) enum MissGroup {
    /// A narinfo whose signature does not hold, or is about something else.
    BadSignature,
    /// Narinfos of principals that state different things.
    Dissent,
    /// The narinfo of another item.
    WrongItem,
    /// A narinfo that cannot be read, or names no download that can be used.
    Unusable,
    /// A narinfo without a signature.
    Unsigned,
    /// A narinfo signed by a key that is not authorized.
    UnauthorizedKey,
    /// Narinfos of fewer principals than have to agree.
    TooFewVotes,
    /// A negative answer from every server, at least one of them new.
    Missing,
    /// A negative answer from every server, all of them cached.
    MissingCached,
    /// A server is preparing it.
    Preparing,
    /// No definite answer: servers are down.
    ServerDown,
    /// No definite answer: servers were down a moment ago, and were skipped.
    ServerSkipped,
    /// No definite answer: a server answers with an error about this item.
    ServerError,
    /// No definite answer: the servers are for other stores.
    OtherStore,
    /// Not in the lookup cache, and no request was allowed.
    Offline,
    /// From another server than the first.
    Elsewhere,
    /// From the first server, which had to be asked.
    AskedFirst,
    /// From the first server, known from the lookup cache: nothing was missed.
    Cached,
    /// In the store already, whatever the servers have.
    Valid,
}

impl MissGroup {
    /// In the order in which reports list them.
    pub(in crate::cli::commands::query) const ALL: [Self; 19] = [
        Self::BadSignature,
        Self::Dissent,
        Self::WrongItem,
        Self::Unusable,
        Self::Unsigned,
        Self::UnauthorizedKey,
        Self::TooFewVotes,
        Self::Missing,
        Self::MissingCached,
        Self::Preparing,
        Self::ServerDown,
        Self::ServerSkipped,
        Self::ServerError,
        Self::OtherStore,
        Self::Offline,
        Self::Elsewhere,
        Self::AskedFirst,
        Self::Cached,
        Self::Valid,
    ];

    /// The kind of miss of an item that the store does not have.
    pub(super) fn of(found: &ItemLookup) -> Self {
        let all = &found.answers;
        match found.status {
            ItemStatus::Available => Self::of_available(found),
            ItemStatus::Refused => Self::of_votes(found)
                .or_else(|| all.iter().find_map(Self::of_refused))
                .unwrap_or(Self::Unusable),
            ItemStatus::Preparing => Self::Preparing,
            ItemStatus::Missing if all.iter().all(is_cached) => Self::MissingCached,
            ItemStatus::Missing => Self::Missing,
            ItemStatus::Unknown => Self::of_unknown(all),
        }
    }

    /// The kind of miss of an item that servers have, but that the policy refuses.
    fn of_votes(found: &ItemLookup) -> Option<Self> {
        match found.policy_refusal()? {
            Refusal::Dissent(_) => Some(Self::Dissent),
            _ => Some(Self::TooFewVotes),
        }
    }

    fn of_unknown(all: &[ServerAnswer]) -> Self {
        // Of several reasons, the one that the user can do most about.
        let kinds = all.iter().filter_map(|answer| match answer.outcome {
            LookupOutcome::Offline => Some((0, Self::Offline)),
            LookupOutcome::Failed(_) => Some((1, Self::ServerError)),
            LookupOutcome::NoResponse(_)
            | LookupOutcome::LocalFailure(_)
            | LookupOutcome::NotAwaited => Some((2, Self::ServerDown)),
            LookupOutcome::Skipped(_) => Some((3, Self::ServerSkipped)),
            _ => None,
        });

        kinds.min().map_or(Self::OtherStore, |(_, kind)| kind)
    }

    fn of_available(found: &ItemLookup) -> Self {
        match found.answers.first() {
            Some(first) if matches!(first.outcome, LookupOutcome::Authorized) => match first.origin
            {
                AnswerOrigin::Cache { .. } => Self::Cached,
                AnswerOrigin::Network => Self::AskedFirst,
            },
            _ => Self::Elsewhere,
        }
    }

    /// The kind of miss that a refused answer is.
    pub(super) fn of_refused(answer: &ServerAnswer) -> Option<Self> {
        match &answer.outcome {
            LookupOutcome::Refused(Refusal::WrongItem { .. }) => Some(Self::WrongItem),
            LookupOutcome::Refused(Refusal::Unsigned) => Some(Self::Unsigned),
            LookupOutcome::Refused(Refusal::UnauthorizedKey { .. }) => Some(Self::UnauthorizedKey),
            LookupOutcome::Refused(Refusal::TooFewVotes(_)) => Some(Self::TooFewVotes),
            LookupOutcome::Refused(Refusal::Dissent(_)) => Some(Self::Dissent),
            LookupOutcome::Refused(
                Refusal::SignedHashMismatch
                | Refusal::InvalidSignature
                | Refusal::CorruptSignature { .. },
            ) => Some(Self::BadSignature),
            LookupOutcome::Unusable(_) | LookupOutcome::Unreadable(_) => Some(Self::Unusable),
            _ => None,
        }
    }

    /// The name in JSON.
    pub(in crate::cli::commands::query) const fn name(self) -> &'static str {
        match self {
            Self::BadSignature => "bad-signature",
            Self::Dissent => "dissent",
            Self::WrongItem => "wrong-item",
            Self::Unusable => "unusable",
            Self::Unsigned => "unsigned",
            Self::UnauthorizedKey => "unauthorized-key",
            Self::TooFewVotes => "too-few-votes",
            Self::Missing => "missing",
            Self::MissingCached => "missing-remembered",
            Self::Preparing => "preparing",
            Self::ServerDown => "server-down",
            Self::ServerSkipped => "server-skipped",
            Self::ServerError => "server-error",
            Self::OtherStore => "other-store",
            Self::Offline => "offline",
            Self::Elsewhere => "not-from-first-server",
            Self::AskedFirst => "not-in-lookup-cache",
            Self::Cached => "cached",
            Self::Valid => "valid",
        }
    }

    /// The heading for people.
    pub(in crate::cli::commands::query) const fn heading(self) -> &'static str {
        match self {
            Self::BadSignature => "REFUSED, the signature is invalid",
            Self::Dissent => "REFUSED, its signers disagree",
            Self::WrongItem => "REFUSED, the server answered for another item",
            Self::Unusable => "REFUSED, the server's answer is not usable",
            Self::Unsigned => "REFUSED, not signed",
            Self::UnauthorizedKey => "REFUSED, signed by a key that is not authorized here",
            Self::TooFewVotes => "REFUSED, too few principals have signed it",
            Self::Missing => "MISSING, no server has it",
            Self::MissingCached => "MISSING, no server had it when asked last",
            Self::Preparing => "PREPARING, a server is making it available",
            Self::ServerDown => "UNKNOWN, a server that might have it is unreachable",
            Self::ServerSkipped => "UNKNOWN, a server that might have it was down a moment ago",
            Self::ServerError => "UNKNOWN, a server answered with an error",
            Self::OtherStore => "UNKNOWN, no server is for this store",
            Self::Offline => "UNKNOWN, not in the lookup cache",
            Self::Elsewhere => "AVAILABLE, but not from the first server",
            Self::AskedFirst => "AVAILABLE, the first server had to be asked",
            Self::Cached => "AVAILABLE, known from the lookup cache",
            Self::Valid => "VALID, in the store already",
        }
    }

    /// Whether there is something to do that the user may not know.
    pub(in crate::cli::commands::query) const fn is_worth_a_hint(self) -> bool {
        !matches!(self, Self::AskedFirst | Self::Cached | Self::Valid)
    }

    /// Whether nothing was missed, so that the items need not be listed.
    pub(super) const fn is_no_miss(self) -> bool {
        matches!(self, Self::Cached | Self::Valid)
    }

    /// Whether all servers answered that they do not have it.
    pub(super) const fn is_missing(self) -> bool {
        matches!(self, Self::Missing | Self::MissingCached)
    }

    /// Whether a server that did not answer may have it.
    pub(super) const fn is_open(self) -> bool {
        matches!(
            self,
            Self::ServerDown | Self::ServerSkipped | Self::ServerError | Self::Offline
        )
    }

    /// Whether there is no definite answer: a server may have it for all that is known.
    pub(super) const fn is_unknown(self) -> bool {
        self.is_open() || matches!(self, Self::OtherStore)
    }

    /// Whether it is certain that `guix build` would have to build it now.
    pub(in crate::cli::commands::query) const fn must_be_built(self) -> bool {
        let is_available = matches!(
            self,
            Self::Elsewhere | Self::AskedFirst | Self::Cached | Self::Valid
        );
        !is_available && !self.is_unknown()
    }
}

/// Whether asking again now is all that could change the answer. A server for another store has
/// none to change.
fn is_cached(answer: &ServerAnswer) -> bool {
    matches!(answer.origin, AnswerOrigin::Cache { .. })
        || matches!(answer.outcome, LookupOutcome::OtherStore(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::store_path::StorePath;
    use crate::substitute::item_lookup::status_without_authority;
    use crate::substitute::outcome::{LookupFailure, OtherStore, UnreadableNarInfo, Unusable};

    fn group(answers: Vec<ServerAnswer>) -> MissGroup {
        let path = StorePath::parse(&format!("{}-x", "0".repeat(32))).unwrap();
        let status = status_without_authority(&answers);
        let (authority, sources, alternatives) = (None, Vec::new(), Vec::new());
        MissGroup::of(&ItemLookup {
            path,
            status,
            authority,
            sources,
            alternatives,
            answers: answers.into(),
            judgment: None,
        })
    }

    fn cached(text: &str) -> LookupFailure {
        LookupFailure::Cached(text.into())
    }

    fn other_store() -> OtherStore {
        OtherStore {
            theirs: "/nix/store".into(),
            ours: "/gnu/store".into(),
        }
    }

    fn cached_answer(outcome: LookupOutcome) -> ServerAnswer {
        let origin = AnswerOrigin::Cache {
            asked_at: 1,
            expires_at: 9,
        };
        ServerAnswer {
            outcome,
            origin,
            expires_at: Some(9),
        }
    }

    #[test]
    fn every_kind_of_miss_is_distinguished() {
        let key = "E8".to_owned();
        let cases = [
            (
                vec![LookupOutcome::Refused(Refusal::InvalidSignature)],
                MissGroup::BadSignature,
            ),
            (
                vec![LookupOutcome::Refused(Refusal::Unsigned)],
                MissGroup::Unsigned,
            ),
            (
                vec![LookupOutcome::Refused(Refusal::UnauthorizedKey { key })],
                MissGroup::UnauthorizedKey,
            ),
            (
                vec![LookupOutcome::Unreadable(UnreadableNarInfo::NotUtf8)],
                MissGroup::Unusable,
            ),
            (
                vec![
                    LookupOutcome::Missing(404),
                    LookupOutcome::Unusable(Unusable::Url),
                ],
                MissGroup::Unusable,
            ),
            (
                vec![LookupOutcome::Missing(404), LookupOutcome::Preparing(404)],
                MissGroup::Preparing,
            ),
            (
                vec![
                    LookupOutcome::Missing(404),
                    LookupOutcome::Skipped(cached("down")),
                ],
                MissGroup::ServerSkipped,
            ),
            (
                vec![LookupOutcome::OtherStore(other_store())],
                MissGroup::OtherStore,
            ),
            (
                vec![
                    LookupOutcome::OtherStore(other_store()),
                    LookupOutcome::Missing(404),
                ],
                MissGroup::Missing,
            ),
            (vec![LookupOutcome::Offline], MissGroup::Offline),
        ];
        for (outcome, expected) in cases {
            assert_eq!(
                group(outcome.iter().cloned().map(ServerAnswer::of).collect()),
                expected,
                "{outcome:?}"
            );
        }
    }

    #[test]
    fn failures_and_cached_answers_have_groups_of_their_own() {
        let down = LookupOutcome::NoResponse(cached("connection refused"));
        assert_eq!(group(vec![ServerAnswer::of(down)]), MissGroup::ServerDown);
        assert_eq!(
            group(vec![cached_answer(LookupOutcome::Failed(cached("500")))]),
            MissGroup::ServerError
        );
        let (old, new) = (
            cached_answer(LookupOutcome::Missing(404)),
            ServerAnswer::of(LookupOutcome::Missing(404)),
        );
        assert_eq!(
            group(vec![old.clone(), old.clone()]),
            MissGroup::MissingCached
        );
        assert_eq!(group(vec![old, new]), MissGroup::Missing);
    }

    #[test]
    fn all_groups_are_listed_gravest_first() {
        assert!(MissGroup::ALL.is_sorted());
    }
}
