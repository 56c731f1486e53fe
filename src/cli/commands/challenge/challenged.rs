//! What was found of one item, and of all.

use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::exit::Exit;
use crate::format::hash::NarHash;
use crate::format::nar::{EntryDifference, NarDifferences};
use crate::format::server_list::{PerServer, ServerIndex};
use crate::format::store_path::StorePath;
use crate::substitute::challenge::{
    ChallengeResult, InspectedBuild, LocalHash, Reference, compare,
};
use crate::substitute::outcome::LookupOutcome;

/// What was found of one item.
pub(super) struct ChallengedItem {
    pub(super) item: StorePath,
    pub(super) local: LocalHash,
    /// What is printed of the claim of each server: a run may have tens of thousands of items.
    pub(super) claims: PerServer<Result<ClaimedNar, LookupOutcome>>,
    pub(super) result: ChallengeResult,
    /// What the claims were compared with.
    pub(super) reference: Option<Reference>,
    /// Of the builds that differ from the reference, if that was requested.
    pub(super) differences: Vec<BuildDifferences>,
}

/// The nar that a server claims to have.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClaimedNar {
    pub(super) hash: NarHash,
    pub(super) size: u64,
}

/// In what the build of a server differs from the reference.
pub(super) struct BuildDifferences {
    pub(super) server: ServerIndex,
    /// The differences, or why the nars could not be compared.
    pub(super) found: Result<NarDifferences, String>,
}

impl ChallengedItem {
    pub(super) fn new(inspected: &InspectedBuild<'_>) -> Self {
        let (local, claims) = (&inspected.local, inspected.claims.iter());
        let hashes = claims
            .clone()
            .map(|claim| claim.as_ref().ok().map(|claim| claim.nar_hash))
            .collect();
        let (result, reference) = compare(local.hash(), &hashes);
        let claims = claims.map(|claim| match claim {
            Ok(claim) => Ok(ClaimedNar {
                hash: claim.nar_hash,
                size: claim.offer.nar_size(),
            }),
            Err(outcome) => Err(outcome.clone()),
        });
        Self {
            item: inspected.build.item.clone(),
            local: local.clone(),
            claims: claims.collect(),
            result,
            reference,
            differences: Vec::new(),
        }
    }

    /// The name of what the claims were compared with.
    pub(super) fn reference_name<'a>(&self, context: &'a Context) -> &'a str {
        match self.reference {
            Some(Reference::Server(server, _)) => context.settings.servers[server].as_str(),
            Some(Reference::Local(_)) | None => "local",
        }
    }

    /// How the run ends if this is the only item.
    pub(super) fn exit(&self) -> Exit {
        match (self.result, &self.local) {
            (ChallengeResult::Differ, _) => Exit::Refused,
            (_, LocalHash::Unreadable(_)) => Exit::Local,
            (ChallengeResult::Match, _) => Exit::Done,
            (ChallengeResult::Inconclusive, _) if self.unanswered() > 0 => Exit::Network,
            (ChallengeResult::Inconclusive, _) => Exit::NotAvailable,
        }
    }

    /// How many servers that may have the item gave no definite answer.
    fn unanswered(&self) -> usize {
        let outcomes = self.claims.iter().filter_map(|claim| claim.as_ref().err());
        outcomes.filter(|outcome| outcome.is_undecided()).count()
    }

    /// Why it is inconclusive.
    pub(super) fn inconclusive_reason(&self) -> String {
        let count = self.claims.iter().filter(|claim| claim.is_ok()).count();
        let unanswered = self.unanswered();
        let that_answered = match unanswered {
            0 => "",
            _ => " that answered",
        };
        match &self.local {
            LocalHash::Unreadable(why) => format!("the local tree cannot be read: {why}"),
            _ if count == 0 && unanswered == self.claims.iter().count() => {
                "no server answered".to_owned()
            }
            _ if count == 0 => format!("no server{that_answered} has it"),
            LocalHash::NotValid => {
                format!("it is not in the store, and only one server{that_answered} has it")
            }
            LocalHash::NotBuilt | LocalHash::Hashed { .. } => {
                format!("it was not built here, and only one server{that_answered} has it")
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
