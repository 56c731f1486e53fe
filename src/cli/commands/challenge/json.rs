//! The comparison as JSON; its schema is `docs/schema/challenge.json`.

use serde::Serialize;

use crate::cli::context::Context;
use crate::format::nar::DifferenceKind;
use crate::format::server_list::ServerIndex;
use crate::substitute::challenge::{ChallengeResult, LocalHash};
use crate::substitute::outcome::LookupOutcome;

use super::challenged::{
    BuildDifferences, ChallengeSummary, ChallengedItem, ClaimedNar, shown_entry,
};

/// All items, and how many compare how.
#[derive(Serialize)]
pub(super) struct ChallengeJson {
    items: Vec<ChallengedJson>,
    pub(super) summary: ChallengeSummary,
}

#[derive(Serialize)]
struct ChallengedJson {
    path: String,
    result: &'static str,
    reason: Option<String>,
    local: &'static str,
    local_hash: Option<String>,
    damaged: bool,
    claims: Vec<ClaimJson>,
    differences: Vec<DifferencesJson>,
}

#[derive(Serialize)]
struct ClaimJson {
    server: String,
    answer: &'static str,
    reason: Option<String>,
    nar_hash: Option<String>,
    nar_size: Option<u64>,
}

#[derive(Serialize)]
struct DifferencesJson {
    first: String,
    second: String,
    error: Option<String>,
    files: Vec<FileJson>,
    omitted: u64,
}

#[derive(Serialize)]
struct FileJson {
    path: String,
    kind: &'static str,
    offset: Option<u64>,
}

impl ChallengeJson {
    pub(super) fn new(context: &Context, items: &[ChallengedItem]) -> Self {
        Self {
            items: items
                .iter()
                .map(|item| ChallengedJson::new(context, item))
                .collect(),
            summary: ChallengeSummary::of(items),
        }
    }
}

impl ChallengedJson {
    fn new(context: &Context, item: &ChallengedItem) -> Self {
        let (local, damaged) = match &item.local {
            LocalHash::NotValid => ("not-valid", false),
            LocalHash::NotBuilt => ("not-built", false),
            LocalHash::Hashed {
                is_as_registered, ..
            } => ("hashed", !is_as_registered),
            LocalHash::Unreadable(_) => ("unreadable", false),
        };
        let claims = item.claims.enumerated();
        let differences = item.differences.iter();

        Self {
            path: context.settings.store_dir().full_name(&item.item),
            result: item.result.name(),
            reason: (item.result == ChallengeResult::Inconclusive)
                .then(|| item.inconclusive_reason()),
            local,
            local_hash: item.local.hash().map(|hash| hash.to_string()),
            damaged,
            claims: claims
                .map(|(server, claim)| ClaimJson::new(context, server, claim))
                .collect(),
            differences: differences
                .map(|build| DifferencesJson::new(context, item, build))
                .collect(),
        }
    }
}

impl ClaimJson {
    fn new(
        context: &Context,
        server: ServerIndex,
        claim: &Result<ClaimedNar, LookupOutcome>,
    ) -> Self {
        let server = context.settings.servers[server].as_str().to_owned();
        match claim {
            Ok(nar) => Self {
                server,
                answer: "available",
                reason: None,
                nar_hash: Some(nar.hash.to_string()),
                nar_size: Some(nar.size),
            },
            Err(outcome) => Self {
                server,
                answer: outcome.name(),
                reason: outcome.reason(),
                nar_hash: None,
                nar_size: None,
            },
        }
    }
}

impl DifferencesJson {
    fn new(context: &Context, item: &ChallengedItem, build: &BuildDifferences) -> Self {
        let found = build.found.as_ref();
        let files = found.ok().into_iter().flat_map(|found| &found.entries);

        Self {
            first: item.reference_name(context).to_owned(),
            second: context.settings.servers[build.server].as_str().to_owned(),
            error: found.err().cloned(),
            files: files
                .map(|entry| FileJson {
                    path: shown_entry(entry),
                    kind: kind_name(entry.kind),
                    offset: match entry.kind {
                        DifferenceKind::Contents { offset } => Some(offset),
                        _ => None,
                    },
                })
                .collect(),
            omitted: found.map_or(0, |found| found.omitted),
        }
    }
}

fn kind_name(kind: DifferenceKind) -> &'static str {
    match kind {
        DifferenceKind::OnlyFirst => "only-first",
        DifferenceKind::OnlySecond => "only-second",
        DifferenceKind::Type => "type",
        DifferenceKind::Executable => "executable",
        DifferenceKind::Target => "target",
        DifferenceKind::Contents { .. } => "contents",
    }
}
