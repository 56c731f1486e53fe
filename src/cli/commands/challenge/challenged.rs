//! What was found of one item, and of all.

use std::sync::Arc;

use serde::Serialize;

use crate::cli::exit::Exit;
use crate::format::hash::NarHash;
use crate::format::nar::{EntryDifference, NarDifferences};
use crate::format::server_list::{PerServer, ServerIndex};
use crate::format::store_path::StorePath;
use crate::substitute::challenge::{ChallengeResult, LocalHash, Reference, compare};
use crate::substitute::claims::Claim;

/// What was found of one item.
pub(super) struct ChallengedItem {
    pub(super) item: StorePath,
    pub(super) local: LocalHash,
    pub(super) claims: PerServer<Claim>,
    pub(super) result: ChallengeResult,
    /// What the claims were compared with.
    pub(super) reference: Option<Reference>,
    /// Of the builds that differ from the reference, if that was requested.
    pub(super) differences: Vec<BuildDifferences>,
}

/// In what the build of a server differs from the reference.
pub(super) struct BuildDifferences {
    pub(super) server: ServerIndex,
    /// The differences, or why the nars could not be compared.
    pub(super) found: Result<NarDifferences, String>,
}

impl ChallengedItem {
    pub(super) fn new(item: StorePath, local: LocalHash, claims: PerServer<Claim>) -> Self {
        let hashes = claims.iter().map(claimed_hash).collect();
        let (result, reference) = compare(local.hash(), &hashes);
        Self {
            item,
            local,
            claims,
            result,
            reference,
            differences: Vec::new(),
        }
    }

    /// Keeps of each narinfo what is printed: a run may have tens of thousands of them.
    pub(super) fn abridge(&mut self) {
        for narinfo in self.claims.iter_mut().flatten() {
            *narinfo = Arc::new(narinfo.abridged());
        }
    }

    /// How the run ends if this is the only item.
    pub(super) fn exit(&self) -> Exit {
        match (self.result, &self.local) {
            (ChallengeResult::Differ, _) => Exit::Refused,
            (_, LocalHash::Unreadable(_)) => Exit::Local,
            (ChallengeResult::Match, _) => Exit::Done,
            (ChallengeResult::Inconclusive, _) if self.is_unanswered() => Exit::Network,
            (ChallengeResult::Inconclusive, _) => Exit::NotAvailable,
        }
    }

    /// Whether a server that may have the item gave no definite answer.
    fn is_unanswered(&self) -> bool {
        let outcomes = self.claims.iter().filter_map(|claim| claim.as_ref().err());
        outcomes.into_iter().any(|outcome| outcome.is_undecided())
    }

    /// Why it is inconclusive.
    pub(super) fn inconclusive_reason(&self) -> String {
        let count = self.claims.iter().filter(|claim| claim.is_ok()).count();
        match &self.local {
            LocalHash::Unreadable(why) => format!("the local tree cannot be read: {why}"),
            _ if count == 0 => "no server has it".to_owned(),
            LocalHash::NotValid => "it is not in the store, and only one server has it".to_owned(),
            LocalHash::NotBuilt | LocalHash::Hashed { .. } => {
                "it was not built here, and only one server has it".to_owned()
            }
        }
    }
}

/// How a run with these `items` ends: something that differs matters more than what is unknown.
pub(super) fn exit(items: &[ChallengedItem]) -> Exit {
    let exits = items.iter().map(ChallengedItem::exit);
    let worst = exits.clone().max().unwrap_or(Exit::Done);
    match exits.into_iter().any(|exit| exit == Exit::Refused) {
        true => Exit::Refused,
        false => worst,
    }
}

/// The hash in a claim.
pub(super) fn claimed_hash(claim: &Claim) -> Option<NarHash> {
    claim.as_ref().ok().map(|narinfo| narinfo.nar_hash())
}

/// How many items compare how.
#[derive(Serialize)]
pub(super) struct ChallengeSummary {
    pub(super) items: usize,
    #[serde(rename = "match")]
    pub(super) matching: usize,
    pub(super) differ: usize,
    pub(super) inconclusive: usize,
}

impl ChallengeSummary {
    pub(super) fn of(items: &[ChallengedItem]) -> Self {
        Self {
            items: items.len(),
            matching: count(items, ChallengeResult::Match),
            differ: count(items, ChallengeResult::Differ),
            inconclusive: count(items, ChallengeResult::Inconclusive),
        }
    }
}

fn count(items: &[ChallengedItem], result: ChallengeResult) -> usize {
    items.iter().filter(|item| item.result == result).count()
}

/// The name of a differing entry below its item; a slash for the item itself.
pub(super) fn shown_entry(entry: &EntryDifference) -> String {
    match entry.path.is_empty() {
        true => "/".to_owned(),
        false => entry.path.escape_ascii().to_string(),
    }
}
