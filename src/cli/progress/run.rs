//! Receives the events of a run: counts them, and shows them as the user wants.

use std::sync::Mutex;
use std::time::Duration;

use crate::cli::output::{Verbosity, say};
use crate::substitute::clock::Clock;
use crate::substitute::progress::{Progress, ProgressEvent};
use crate::sync::lock;

use super::json::JsonProgress;
use super::live::LiveProgress;
use super::messages::event_message;
use super::plain::PlainProgress;
use super::tally::RunTally;
use super::totals::FetchTotals;

/// Counts and shows the events of a run.
pub(crate) struct RunProgress {
    clock: Clock,
    verbosity: Verbosity,
    state: Mutex<RunProgressState>,
}

struct RunProgressState {
    tally: RunTally,
    display: ProgressDisplay,
}

/// How progress is shown.
pub(super) enum ProgressDisplay {
    /// Nothing but messages, such as warnings.
    Messages,
    Live(LiveProgress),
    Plain(PlainProgress),
    Json(JsonProgress),
}

impl RunProgress {
    pub(super) fn new(clock: Clock, verbosity: Verbosity, display: ProgressDisplay) -> Self {
        let tally = RunTally::default();
        Self {
            clock,
            verbosity,
            state: Mutex::new(RunProgressState { tally, display }),
        }
    }

    /// What was fetched so far.
    #[must_use]
    pub(crate) fn fetched(&self) -> FetchTotals {
        lock(&self.state).tally.fetched().clone()
    }
}

impl Progress for RunProgress {
    fn event(&self, event: ProgressEvent<'_>) {
        let now = self.clock.elapsed();
        let mut state = lock(&self.state);
        let RunProgressState { tally, display } = &mut *state;
        tally.note(&event, now);
        display.show(&event, tally, now, self.verbosity);
    }
}

impl ProgressDisplay {
    fn show(
        &mut self,
        event: &ProgressEvent<'_>,
        tally: &RunTally,
        now: Duration,
        verbosity: Verbosity,
    ) {
        let is_text = !matches!(self, Self::Json(_));
        if is_text && let Some(line) = event_message(event, verbosity) {
            say(&line);
        }
        match self {
            Self::Messages => {}
            Self::Live(live) => live.show(event, tally, now),
            Self::Plain(plain) => plain.show(event, tally, now),
            Self::Json(json) => json.show(event, tally, now),
        }
    }
}
