//! The comparison as lines for people.

use crate::cli::context::Context;
use crate::cli::output::count;
use crate::format::nar::{DifferenceKind, EntryDifference};
use crate::substitute::challenge::{ChallengeResult, LocalHash};

use super::challenged::{BuildDifferences, ChallengeSummary, ChallengedItem, shown_entry};

/// The lines about `item`. One whose builds match has a line only with `--verbose`.
pub(super) fn lines(context: &Context, item: &ChallengedItem) -> Vec<String> {
    let path = context.settings.store_dir().full_name(&item.item);
    match item.result {
        ChallengeResult::Inconclusive => {
            vec![format!(
                "{path}: inconclusive: {}",
                item.inconclusive_reason()
            )]
        }
        ChallengeResult::Match if !context.output.is_verbose() => Vec::new(),
        ChallengeResult::Match => {
            let mut lines = vec![format!("{path}: match")];
            lines.extend(hashes(context, item));
            lines
        }
        ChallengeResult::Differ => {
            let mut lines = vec![format!("{path}: differ")];
            lines.extend(hashes(context, item));
            let differences = item.differences.iter();
            lines.extend(differences.flat_map(|build| difference_lines(context, item, build)));
            lines
        }
    }
}

/// The hash of the local tree and those that servers claim.
fn hashes(context: &Context, item: &ChallengedItem) -> Vec<String> {
    let local = match &item.local {
        LocalHash::Hashed { hash, .. } => format!("  {}  local", hash.base32()),
        LocalHash::NotBuilt => "  not built here".to_owned(),
        LocalHash::NotValid => "  not in the store".to_owned(),
        LocalHash::Unreadable(why) => format!("  the local tree cannot be read: {why}"),
    };

    let mut lines = vec![local];
    for (server, claim) in item.claims.enumerated() {
        let url = context.settings.servers[server].as_str();
        if let Ok(nar) = claim {
            lines.push(format!("  {}  {url}", nar.hash.base32()));
        }
    }
    lines
}

fn difference_lines(
    context: &Context,
    item: &ChallengedItem,
    build: &BuildDifferences,
) -> Vec<String> {
    let first = item.reference_name(context);
    let second = context.settings.servers[build.server].as_str();
    let found = match &build.found {
        Ok(found) => found,
        Err(why) => return vec![format!("  {first} and {second} cannot be compared: {why}")],
    };

    let mut lines = vec![format!("  {first} and {second} differ in:")];
    let entries = found.entries.iter();
    lines.extend(entries.map(|entry| entry_line(entry, first, second)));
    if found.omitted > 0 {
        lines.push(format!("    and {} more", found.omitted));
    }
    lines
}

fn entry_line(entry: &EntryDifference, first: &str, second: &str) -> String {
    let path = shown_entry(entry);
    match entry.kind {
        DifferenceKind::OnlyFirst => format!("    {path}: only {first}"),
        DifferenceKind::OnlySecond => format!("    {path}: only {second}"),
        DifferenceKind::Type => format!("    {path}: type"),
        DifferenceKind::Executable => format!("    {path}: executable or not"),
        DifferenceKind::Target => format!("    {path}: target of the symlink"),
        DifferenceKind::Contents { offset } => format!("    {path}: contents, from byte {offset}"),
    }
}

/// The result of the run.
pub(super) fn summary(summary: &ChallengeSummary) -> String {
    format!(
        "{} compared: {} match, {} differ, {} inconclusive",
        count(summary.items as u64, "item", "items"),
        summary.matching,
        summary.differ,
        summary.inconclusive
    )
}
