//! How an item's builds compare. Pure.
//!
//! The rules are those of `guix challenge`: an item is inconclusive when no server has it, or when
//! a single server has it and it was not built here.

use crate::format::hash::NarHash;
use crate::format::server_list::{PerServer, ServerIndex};

/// How the builds of an item compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChallengeResult {
    /// All are the same.
    Match,
    /// At least two are not the same.
    Differ,
    /// There is nothing to compare.
    Inconclusive,
}

impl ChallengeResult {
    /// The name for scripts and people.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Differ => "differ",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// What the claims of an item are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reference {
    /// The tree in the local store, whose nar has this hash.
    Local(NarHash),
    /// The first server that has the item, with this hash.
    Server(ServerIndex, NarHash),
}

impl Reference {
    /// The hash that the others are compared with.
    #[must_use]
    pub(crate) fn hash(self) -> NarHash {
        match self {
            Self::Local(hash) | Self::Server(_, hash) => hash,
        }
    }
}

/// Compares the hashes that servers claim of an item with that of the `local` build, or with each
/// other if there is none; and what they were compared with.
#[must_use]
pub(crate) fn compare(
    local: Option<NarHash>,
    claimed: &PerServer<Option<NarHash>>,
) -> (ChallengeResult, Option<Reference>) {
    let mut claims = claimed
        .enumerated()
        .filter_map(|(server, hash)| Some((server, (*hash)?)));
    let first = claims.next();
    let reference = match local {
        Some(hash) => Some(Reference::Local(hash)),
        None => first.map(|(server, hash)| Reference::Server(server, hash)),
    };

    let (Some((_, first)), Some(reference)) = (first, reference) else {
        return (ChallengeResult::Inconclusive, reference);
    };
    let others: Vec<NarHash> = claims.map(|(_, hash)| hash).collect();
    if local.is_none() && others.is_empty() {
        return (ChallengeResult::Inconclusive, Some(reference));
    }

    let mut all = others.into_iter().chain([first]);
    match all.all(|hash| hash == reference.hash()) {
        true => (ChallengeResult::Match, Some(reference)),
        false => (ChallengeResult::Differ, Some(reference)),
    }
}

#[cfg(test)]
mod tests {
    use super::ChallengeResult::{Differ, Inconclusive, Match};
    use super::*;

    fn hash(number: u8) -> NarHash {
        NarHash::from_bytes([number; 32])
    }

    /// The cases of `compare-contents` in Guix's `challenge.scm`.
    #[test]
    fn the_rules_are_those_of_guix_challenge() {
        for (local, claimed, expected) in [
            (None, &[None, None][..], Inconclusive),
            (Some(1), &[None, None], Inconclusive),
            (None, &[Some(1)], Inconclusive),
            (None, &[None, Some(1)], Inconclusive),
            (Some(1), &[Some(1)], Match),
            (Some(1), &[None, Some(1)], Match),
            (Some(1), &[Some(2)], Differ),
            (None, &[Some(1), Some(1)], Match),
            (None, &[Some(1), None, Some(2)], Differ),
            (Some(1), &[Some(1), Some(1)], Match),
            (Some(1), &[Some(1), Some(2)], Differ),
            (Some(1), &[Some(2), Some(2)], Differ),
        ] {
            let claims = claimed.iter().map(|claim| claim.map(hash)).collect();
            let (result, reference) = compare(local.map(hash), &claims);
            assert_eq!(result, expected, "{local:?} {claimed:?}");
            assert_eq!(
                reference.is_none(),
                local.is_none() && expected == Inconclusive && claimed.iter().all(Option::is_none)
            );
        }
    }

    #[test]
    fn without_a_local_build_the_first_claim_is_the_reference() {
        let claims = [None, Some(hash(3)), Some(hash(4))].into_iter().collect();
        let (_, reference) = compare(None, &claims);
        assert_eq!(
            reference,
            Some(Reference::Server(ServerIndex::at(1), hash(3)))
        );
    }
}
