//! A line a second, for terminals without bars and for logs.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::cli::output::{Verbosity, say};
use crate::substitute::preparation::wait_text;
use crate::substitute::progress::{Progress, ProgressEvent};
use crate::sync::lock;

use super::messages::event_message;
use super::tally::Tally;

/// One line a second.
pub(super) struct PlainProgress {
    verbosity: Verbosity,
    state: Mutex<(Tally, Instant)>,
}

/// The time between two lines: a second, less the tolerance for the clock of the events.
const INTERVAL: Duration = Duration::from_millis(900);

impl PlainProgress {
    pub(super) fn new(verbosity: Verbosity) -> Self {
        Self {
            verbosity,
            state: Mutex::new((Tally::default(), Instant::now())),
        }
    }
}

impl Progress for PlainProgress {
    fn event(&self, event: ProgressEvent<'_>) {
        if let Some(line) = event_message(&event, self.verbosity) {
            say(&line);
        }

        if let ProgressEvent::Preparing {
            items,
            waited,
            limit,
            is_first,
        } = event
        {
            if is_first {
                say(&format!("subst: {}", wait_text(items, waited, limit)));
            }
            return;
        }

        let mut state = lock(&self.state);
        let (tally, last) = &mut *state;
        tally.note(&event);
        if last.elapsed() >= INTERVAL
            && let Some(line) = tally.line()
        {
            *last = Instant::now();
            say(&format!("subst: {line}"));
        }
    }
}
