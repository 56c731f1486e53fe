//! Progress on a terminal: live lines at the bottom, and a line above them for each item that was
//! fetched.

use std::time::Duration;

use crate::cli::live_lines::{self, TerminalSize};
use crate::substitute::progress::ProgressEvent;

use super::layout::{fetched_line, screen_lines};
use super::style::TerminalStyle;
use super::tally::RunTally;

/// The time between two drawings.
const INTERVAL: Duration = Duration::from_millis(100);
/// What is done sooner is not worth lines that vanish at once.
const DELAY: Duration = Duration::from_millis(200);

/// Shows progress with live lines.
pub(super) struct LiveProgress {
    style: TerminalStyle,
    /// When the lines are drawn next; `None` before the first event.
    next_drawing: Option<Duration>,
}

impl LiveProgress {
    pub(super) fn new(style: TerminalStyle) -> Self {
        Self {
            style,
            next_drawing: None,
        }
    }

    pub(super) fn show(&mut self, event: &ProgressEvent<'_>, tally: &RunTally, now: Duration) {
        if matches!(event, ProgressEvent::Unpacked { .. })
            && let Some(item) = tally.last_fetched()
        {
            let columns = TerminalSize::of_standard_error().columns.saturating_sub(1);
            live_lines::write_above(&fetched_line(item, columns, self.style));
        }

        let next_drawing = *self.next_drawing.get_or_insert(now + DELAY);
        if is_end(event) {
            live_lines::show(Vec::new());
        } else if now >= next_drawing {
            self.next_drawing = Some(now + INTERVAL);
            let size = TerminalSize::of_standard_error();
            live_lines::show(screen_lines(tally, now, size, self.style));
        }
    }
}

/// Whether nothing may be left on the screen, since no event may follow for long.
fn is_end(event: &ProgressEvent<'_>) -> bool {
    match event {
        ProgressEvent::Looking { done, total, .. } => done == total,
        ProgressEvent::Finished => true,
        _ => false,
    }
}

impl Drop for LiveProgress {
    fn drop(&mut self) {
        live_lines::show(Vec::new());
    }
}
