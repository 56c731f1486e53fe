//! What is shown of a query, as data: items, answers, totals.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::output::{bytes, count, printable, to_download};
use crate::cli::text::width;
use crate::format::narinfo::Download;
use crate::substitute::item_lookup::{Authority, ItemLookup, ItemStatus, NarSource};
use crate::substitute::outcome::{AnswerOrigin, ServerAnswer};
use crate::trust::verdict::{Refusal, VotedFact};

use super::findings::{QueryFindings, QueryStatus};

/// What every form shows of an item.
pub(super) struct ItemView<'a> {
    /// Its full name.
    pub(super) path: String,
    pub(super) status: QueryStatus,
    /// The server that a fetch would begin with, and the download that it would choose.
    pub(super) source: Option<&'a NarSource>,
    pub(super) download: Option<&'a Download>,
    pub(super) nar_size: Option<u64>,
}

impl<'a> ItemView<'a> {
    pub(super) fn of(context: &Context, findings: &QueryFindings, found: &'a ItemLookup) -> Self {
        let download = findings.download(found);
        let authority = found.authority.as_ref();
        Self {
            path: context.settings.store_dir().full_name(&found.path),
            status: findings.status(found),
            source: download.map(|(source, _)| source),
            download: download.map(|(_, download)| download),
            nar_size: authority.map(|authority| authority.narinfo().nar_size()),
        }
    }

    /// The bytes to download, if the server says how many.
    pub(super) fn download_size(&self) -> Option<u64> {
        self.download?.file_size
    }
}

/// What every form shows of an answer.
#[derive(Debug, Serialize)]
pub(super) struct AnswerView {
    answer: &'static str,
    reason: Option<String>,
    pub(super) from_cache: bool,
    /// Seconds for which the answer is used.
    pub(super) expires_in: Option<u64>,
}

impl AnswerView {
    pub(super) fn of(answer: &ServerAnswer, now: u64) -> Self {
        Self {
            answer: answer.outcome.name(),
            reason: answer.outcome.reason(),
            from_cache: matches!(answer.origin, AnswerOrigin::Cache { .. }),
            expires_in: answer.expires_at.map(|at| at.saturating_sub(now)),
        }
    }
}

/// How principals voted about an item.
#[derive(Debug, Serialize)]
pub(super) struct VotesView {
    /// How many have to agree.
    need: usize,
    /// Whether the item is used.
    accepted: bool,
    /// What the votes lack, even if the item is used.
    objection: Option<&'static str>,
    /// All keys that have signed what is used.
    signers: Vec<String>,
    facts: Vec<FactView>,
}

/// What some principals have signed.
#[derive(Debug, Serialize)]
struct FactView {
    nar_hash: String,
    nar_size: u64,
    voters: Vec<String>,
}

impl VotesView {
    /// `None` where votes are not counted, or there are no signatures.
    pub(super) fn of(found: &ItemLookup) -> Option<Self> {
        let judgment = found.judgment.as_deref()?;
        let ballot = judgment.ballot()?;
        let signers = found.authority.iter().flat_map(Authority::signers);
        let objection = found.policy_refusal().or_else(|| judgment.objection());
        Some(Self {
            need: ballot.need,
            accepted: found.policy_refusal().is_none(),
            objection: objection.map(Refusal::reason),
            signers: signers.map(str::to_owned).collect(),
            facts: ballot.facts.iter().map(FactView::of).collect(),
        })
    }
}

impl FactView {
    fn of(fact: &VotedFact) -> Self {
        let voters = fact.voters.iter().map(|voter| voter.name().to_owned());
        Self {
            nar_hash: fact.nar_hash.to_string(),
            nar_size: fact.nar_size,
            voters: voters.collect(),
        }
    }
}

/// Totals.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct QuerySummary {
    valid: usize,
    available: usize,
    missing: usize,
    preparing: usize,
    refused: usize,
    unknown: usize,
    download_size: u64,
    /// Downloads whose size the servers do not say.
    #[serde(skip)]
    unsized_downloads: usize,
    /// The compression methods of these downloads.
    #[serde(skip)]
    methods: BTreeSet<&'static str>,
    nar_size: u64,
    cache_hits: u64,
    cache_misses: u64,
    requests: u64,
    seconds: f64,
}

impl QuerySummary {
    pub(super) fn of(context: &Context, findings: &QueryFindings) -> Self {
        let resolution = &findings.resolution;
        let mut summary = Self {
            cache_hits: resolution.cache_hits,
            cache_misses: resolution.cache_misses,
            requests: resolution.requests,
            seconds: context.clock.elapsed().as_secs_f64(),
            ..Self::default()
        };

        for found in &resolution.items {
            let status = findings.status(found);
            *summary.count_of(status) += 1;
            if status == QueryStatus::Valid {
                continue;
            }

            let download = findings.download(found).map(|(_, download)| download);
            let file_size = download.and_then(|download| download.file_size);
            summary.methods.extend(download.and_then(Download::method));
            summary.unsized_downloads += usize::from(download.is_some() && file_size.is_none());
            summary.download_size = summary.download_size.saturating_add(file_size.unwrap_or(0));
            if let Some(authority) = &found.authority {
                let nar_size = authority.narinfo().nar_size();
                summary.nar_size = summary.nar_size.saturating_add(nar_size);
            }
        }
        summary
    }

    fn count_of(&mut self, status: QueryStatus) -> &mut usize {
        let QueryStatus::Lookup(status) = status else {
            return &mut self.valid;
        };
        match status {
            ItemStatus::Available => &mut self.available,
            ItemStatus::Preparing => &mut self.preparing,
            ItemStatus::Missing => &mut self.missing,
            ItemStatus::Refused => &mut self.refused,
            ItemStatus::Unknown => &mut self.unknown,
        }
    }

    /// All of it in a sentence: what is available, or what the store has, first.
    pub(super) fn sentence(&self) -> String {
        let others = [
            (self.valid, "valid already"),
            (self.preparing, "being prepared"),
            (self.missing, "missing"),
            (self.refused, "refused"),
            (self.unknown, "unknown"),
        ];
        let items = self.available + others.iter().map(|(count, _)| count).sum::<usize>();
        let mut others = others.into_iter().filter(|(count, _)| *count > 0);

        let mut text = match (self.available, self.valid) {
            (0, 1..) => {
                let (valid, word) = others.next().unwrap_or_default();
                format!("{valid} of {items} {word}")
            }
            (0, 0) => format!("0 of {items} available"),
            (available, _) => format!(
                "{available} of {items} available, {}, {} unpacked",
                to_download(self.download_size, self.unsized_downloads, &self.methods),
                bytes(self.nar_size),
            ),
        };
        for (count, word) in others {
            text.push_str(&format!(", {count} {word}"));
        }

        let requests = count(self.requests, "request", "requests");
        text.push_str(&format!(" ({requests}, {:.2} s)", self.seconds));
        text
    }
}

/// The name `path` of an item in at most `columns` where that is possible: else without its directory
/// and most of its hash.
pub(super) fn fitted_item(path: &str, columns: usize) -> Cow<'_, str> {
    let base = path.rsplit_once('/').map_or(path, |(_, base)| base);
    match base.split_once('-') {
        Some((hash, name)) if width(path) > columns => {
            let digits = hash.get(..SHOWN_DIGITS).unwrap_or(hash);
            format!("{digits}...-{name}").into()
        }
        _ => path.into(),
    }
}

/// As many digits of a hash tell the items of a report apart.
const SHOWN_DIGITS: usize = 7;

/// A server's address without what all addresses have in common.
pub(super) fn short_name(url: &str) -> String {
    let name = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    printable(name.unwrap_or(url)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(valid: usize, available: usize, missing: usize) -> String {
        let summary = QuerySummary {
            valid,
            available,
            missing,
            download_size: 288 * available as u64,
            methods: BTreeSet::from(["zstd"]),
            nar_size: 904,
            requests: 2,
            ..QuerySummary::default()
        };
        let sentence = summary.sentence();
        let text = sentence.strip_suffix(" (2 requests, 0.00 s)").unwrap();
        text.to_owned()
    }

    #[test]
    fn a_summary_begins_with_what_can_be_had() {
        let available = "1 of 2 available, 288 B to download as zstd, 904 B unpacked";
        assert_eq!(sentence(7, 0, 0), "7 of 7 valid already");
        assert_eq!(sentence(5, 0, 2), "5 of 7 valid already, 2 missing");
        assert_eq!(sentence(0, 0, 1), "0 of 1 available, 1 missing");
        assert_eq!(sentence(1, 1, 0), format!("{available}, 1 valid already"));
        assert_eq!(sentence(0, 1, 1), format!("{available}, 1 missing"));
    }
}
