//! What one server answered altogether.

use serde::Serialize;

use crate::substitute::lookup::ServerReport;
use crate::substitute::outcome::{AnswerOrigin, LookupOutcome, ServerAnswer};

use super::probes::NarProbe;

/// How many answers of each kind a server gave.
#[derive(Debug, Default, Serialize)]
pub(super) struct ServerTotals {
    pub(super) url: String,
    pub(super) state: &'static str,
    pub(super) reason: Option<String>,
    pub(super) asked: usize,
    pub(super) from_cache: usize,
    pub(super) available: usize,
    pub(super) missing: usize,
    pub(super) preparing: usize,
    pub(super) refused: usize,
    pub(super) failed: usize,
    pub(super) nar_cache_hits: usize,
    pub(super) nar_cache_misses: usize,
    /// Whether its address may be that of no server.
    #[serde(skip)]
    pub(super) lacks_cache_info: bool,
}

impl ServerTotals {
    /// Totals of no answers.
    pub(super) fn new(server: &ServerReport) -> Self {
        Self {
            url: server.url.clone(),
            lacks_cache_info: server.lacks_cache_info,
            state: server.state.name(),
            reason: server.state.reason(),
            ..Self::default()
        }
    }

    /// Those that are not zero, for where there is no room for a table.
    pub(super) fn in_words(&self) -> String {
        let numbers = [
            ("asked", self.asked),
            ("cached", self.from_cache),
            ("has", self.available),
            ("lacks", self.missing),
            ("preparing", self.preparing),
            ("refused", self.refused),
            ("failed", self.failed),
        ];
        let numbers = numbers.iter().filter(|(_, number)| *number > 0);
        let words: Vec<String> = numbers
            .map(|(word, number)| format!("{word} {number}"))
            .collect();
        if words.is_empty() {
            "not asked".to_owned()
        } else {
            words.join(", ")
        }
    }

    pub(super) fn count(&mut self, answer: &ServerAnswer) {
        match answer.outcome {
            LookupOutcome::NotNeeded
            | LookupOutcome::Skipped(_)
            | LookupOutcome::OtherStore(_)
            | LookupOutcome::Offline => return,
            LookupOutcome::Authorized | LookupOutcome::Equivalent(_) => self.available += 1,
            LookupOutcome::Missing(_) => self.missing += 1,
            LookupOutcome::Preparing(_) => self.preparing += 1,
            LookupOutcome::Refused(_)
            | LookupOutcome::Unusable(_)
            | LookupOutcome::Unreadable(_) => self.refused += 1,
            LookupOutcome::NoResponse(_)
            | LookupOutcome::Failed(_)
            | LookupOutcome::LocalFailure(_)
            | LookupOutcome::NotAwaited => self.failed += 1,
        }

        match answer.origin {
            AnswerOrigin::Cache { .. } => self.from_cache += 1,
            AnswerOrigin::Network => self.asked += 1,
        }
    }

    pub(super) fn count_nar(&mut self, nar: Option<&NarProbe>) {
        match nar.and_then(NarProbe::is_hit) {
            Some(true) => self.nar_cache_hits += 1,
            Some(false) => self.nar_cache_misses += 1,
            None => {}
        }
    }
}
