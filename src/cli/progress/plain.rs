//! A line a second, for terminals without bars and for logs.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::cli::output::{Verbosity, say};
use crate::substitute::progress::{Progress, ProgressEvent};
use crate::sync::lock;

use super::tally::Tally;
use super::words;

/// One line a second.
pub(super) struct Plain {
    verbosity: Verbosity,
    state: Mutex<(Tally, Instant)>,
}

/// Between two lines: a second, less what its clock and that of whoever tells us may differ.
const INTERVAL: Duration = Duration::from_millis(900);

impl Plain {
    pub(super) fn new(verbosity: Verbosity) -> Self {
        Self {
            verbosity,
            state: Mutex::new((Tally::default(), Instant::now())),
        }
    }
}

impl Progress for Plain {
    fn event(&self, event: ProgressEvent<'_>) {
        if let Some(line) = words(&event, self.verbosity) {
            say(&line);
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
