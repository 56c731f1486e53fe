//! Selects how progress is shown.

use std::sync::Arc;

use crate::cli::output::{Verbosity, say};
use crate::cli::settings::ProgressMode;
use crate::substitute::progress::{Progress, ProgressEvent};

use super::bars::Bars;
use super::json::JsonProgress;
use super::messages::event_message;
use super::plain::PlainProgress;

/// The way of showing progress that `mode` selects. Bars need a terminal.
#[must_use]
pub(crate) fn for_mode(
    mode: ProgressMode,
    verbosity: Verbosity,
    is_terminal: bool,
) -> Arc<dyn Progress> {
    match mode {
        ProgressMode::Auto if is_terminal && verbosity > Verbosity::Quiet => {
            Arc::new(Bars::new(verbosity))
        }
        ProgressMode::Auto | ProgressMode::None => Arc::new(WarningsOnly { verbosity }),
        ProgressMode::Plain => Arc::new(PlainProgress::new(verbosity)),
        ProgressMode::Json => Arc::new(JsonProgress),
    }
}

/// Shows nothing but warnings.
struct WarningsOnly {
    verbosity: Verbosity,
}

impl Progress for WarningsOnly {
    fn event(&self, event: ProgressEvent<'_>) {
        if self.verbosity > Verbosity::Quiet
            && let Some(line) = event_message(&event, self.verbosity)
        {
            say(&line);
        }
    }
}
