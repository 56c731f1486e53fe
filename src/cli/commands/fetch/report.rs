//! What came of a fetch: failures, a line of summary, or all of it as data.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::cli::context::Context;
use crate::cli::item_failures;
use crate::cli::output::{Verbosity, count};
use crate::cli::progress::FetchTotals;
use crate::format::store_path::StorePath;
use crate::substitute::chain;
use crate::substitute::closure::{FetchOutcome, FetchPlan, PlannedItem};
use crate::substitute::install::{FailureClass, ItemError};

use super::summary::{FetchSummary, interrupted_text};

/// An item and its sizes, when they are known.
pub(super) struct FetchReportItem {
    pub(super) path: StorePath,
    pub(super) download_size: Option<u64>,
    pub(super) nar_size: Option<u64>,
}

impl FetchReportItem {
    /// An item of which nothing more is known.
    pub(super) fn of(path: &StorePath) -> Self {
        Self {
            path: path.clone(),
            download_size: None,
            nar_size: None,
        }
    }

    fn planned(item: &PlannedItem) -> Self {
        Self {
            path: item.path.clone(),
            download_size: item.download().and_then(|(_, download)| download.file_size),
            nar_size: Some(item.authorized.narinfo().nar_size()),
        }
    }

    /// The item as data.
    pub(super) fn as_json(
        &self,
        context: &Context,
        status: &str,
        why: Option<&ItemError>,
    ) -> Value {
        json!({
            "path": context.settings.store_dir().full_name(&self.path), "status": status,
            "download_size": self.download_size, "nar_size": self.nar_size,
            "reason": why.map(|error| chain(error)),
        })
    }
}

/// What is reported when a fetch has ended.
pub(super) struct FetchReport {
    planned: Vec<FetchReportItem>,
    /// Bytes of unfinished downloads that the next run finds.
    pub(super) kept_bytes: u64,
}

impl FetchReport {
    pub(super) fn new(plan: &FetchPlan) -> Self {
        Self {
            planned: plan.items.iter().map(FetchReportItem::planned).collect(),
            kept_bytes: 0,
        }
    }

    /// Notes which items were planned again, or were added to the plan.
    pub(super) fn replanned(&mut self, outcome: &FetchOutcome) {
        for item in &outcome.replanned {
            let row = FetchReportItem::planned(item);
            match self.planned.iter_mut().find(|known| known.path == row.path) {
                Some(known) => *known = row,
                None => self.planned.push(row),
            }
        }
    }

    fn nar_size(&self) -> u64 {
        self.planned
            .iter()
            .filter_map(|row| row.nar_size)
            .fold(0, u64::saturating_add)
    }

    /// Every item as data.
    pub(super) fn as_json(&self, context: &Context, outcome: &FetchOutcome) -> Value {
        let planned: HashMap<&StorePath, &FetchReportItem> =
            self.planned.iter().map(|row| (&row.path, row)).collect();
        let valid = outcome.valid.iter().map(|path| (path, "valid", None));
        let fetched = outcome
            .registered
            .iter()
            .map(|path| (path, "fetched", None));
        let failed = outcome
            .failed
            .iter()
            .map(|(path, error)| (path, "failed", Some(error)));

        let items = valid.chain(fetched).chain(failed);
        let items = items.map(|(path, status, why)| match planned.get(path) {
            Some(item) if status != "valid" => item.as_json(context, status, why),
            _ => FetchReportItem::of(path).as_json(context, status, why),
        });
        json!({ "items": items.collect::<Vec<_>>() })
    }

    /// Prints failures and a summary for people, who asked for `requested`.
    pub(super) fn print(&self, context: &Context, outcome: &FetchOutcome, requested: &[StorePath]) {
        print_failures(context, outcome, requested);

        let (registered, items) = (outcome.registered.len(), self.planned.len());
        if outcome.class() == Some(FailureClass::Interrupted) {
            let unpacked = shown_totals(context).items;
            let text = interrupted_text(registered, items, unpacked, self.kept_bytes);
            context.output.note(&text);
        } else if items > 0 {
            let summary = FetchSummary {
                registered,
                items,
                nar_size: self.nar_size(),
                seconds: context.clock.elapsed().as_secs_f64(),
                kept_bytes: self.kept_bytes,
                totals: shown_totals(context),
            };
            context.output.summary(&summary.text(), &summary.as_json());
        }
    }
}

/// What was fetched. With `--verbose`, each failure was reported and none is counted.
fn shown_totals(context: &Context) -> FetchTotals {
    let mut totals = context.run_progress.fetched();
    if context.settings.verbosity >= Verbosity::Verbose {
        for server in &mut totals.servers {
            server.repeated_failures = 0;
        }
    }
    totals
}

/// Prints the failures, grouped by their causes. An item that only depends on another failed one is
/// counted instead; one that was interrupted is left out.
fn print_failures(context: &Context, outcome: &FetchOutcome, requested: &[StorePath]) {
    let is_interrupted = outcome.class() == Some(FailureClass::Interrupted);
    let is_terse = context.settings.verbosity < Verbosity::Verbose && outcome.failed.len() > 1;

    let own_failures = outcome.failed.iter().filter(|(_, error)| match error {
        ItemError::Interrupted => false,
        ItemError::Reference(_) | ItemError::NotTried => !is_interrupted && !is_terse,
        _ => true,
    });
    item_failures::print(context, "fetch", own_failures, requested);

    let consequences = outcome
        .failed
        .iter()
        .filter(|(_, error)| matches!(error, ItemError::Reference(_) | ItemError::NotTried));
    let consequences = consequences.count();
    if is_terse && !is_interrupted && consequences > 0 {
        let items = count(consequences, "item was", "items were");
        context
            .output
            .note(&format!("{items} not fetched because of that"));
    }
}
