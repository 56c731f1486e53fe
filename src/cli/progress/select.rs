//! Selects how progress is shown.

use crate::cli::output::Verbosity;
use crate::cli::settings::ProgressMode;
use crate::substitute::clock::Clock;

use super::json::JsonProgress;
use super::live::LiveProgress;
use super::plain::PlainProgress;
use super::run::{ProgressDisplay, RunProgress};
use super::style::TerminalStyle;

/// The way of showing progress that `mode` selects. `terminal` is what the terminal on standard error can
/// show; `None` when there is none, or when its cursor cannot be moved.
#[must_use]
pub(crate) fn for_mode(
    mode: ProgressMode,
    verbosity: Verbosity,
    terminal: Option<TerminalStyle>,
    clock: Clock,
) -> RunProgress {
    let display = match (mode, terminal) {
        (ProgressMode::Auto, _) if verbosity == Verbosity::Quiet => ProgressDisplay::Messages,
        (ProgressMode::Auto, Some(style)) => ProgressDisplay::Live(LiveProgress::new(style)),
        (ProgressMode::Auto, None) | (ProgressMode::Plain, _) => {
            ProgressDisplay::Plain(PlainProgress::new())
        }
        (ProgressMode::None, _) => ProgressDisplay::Messages,
        (ProgressMode::Json, _) => ProgressDisplay::Json(JsonProgress::new(clock)),
    };
    RunProgress::new(clock, verbosity, display)
}
