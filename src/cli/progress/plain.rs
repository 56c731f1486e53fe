//! A line after a few seconds and then every ten, for logs and for terminals without a movable cursor.

use std::time::Duration;

use crate::cli::output::say;
use crate::substitute::progress::ProgressEvent;

use super::layout::{lookup_text, total_text};
use super::style::TerminalStyle;
use super::tally::RunTally;

/// When the first line is written, since the start of the run. Most runs end sooner.
const FIRST: Duration = Duration::from_secs(5);
/// The time between two lines.
const INTERVAL: Duration = Duration::from_secs(10);
/// Nothing is cut.
const STYLE: TerminalStyle = TerminalStyle {
    has_color: false,
    has_unicode: false,
};

/// Shows progress as lines.
pub(super) struct PlainProgress {
    next: Duration,
}

impl PlainProgress {
    pub(super) fn new() -> Self {
        Self { next: FIRST }
    }

    pub(super) fn show(&mut self, event: &ProgressEvent<'_>, tally: &RunTally, now: Duration) {
        if let Some(line) = self.line(event, tally, now) {
            say(&format!("subst: {line}"));
        }
    }

    /// The line that is due.
    fn line(
        &mut self,
        event: &ProgressEvent<'_>,
        tally: &RunTally,
        now: Duration,
    ) -> Option<String> {
        // A wait of minutes is announced at once.
        let is_first_wait = matches!(event, ProgressEvent::Preparing { is_first: true, .. });
        if now < self.next && !is_first_wait {
            return None;
        }

        let fetching = tally.progress(now);
        let line = match (&tally.status_line, fetching) {
            (Some(text), _) => Some(text.clone()),
            (None, Some(progress)) => Some(total_text(&progress, usize::MAX, STYLE)),
            (None, None) => lookup_text(tally).filter(|_| !tally.lookups.is_done()),
        };
        if line.is_some() {
            self.next = (now + INTERVAL).max(FIRST);
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds in which lines are written, and the lines, when `event` happens ten times a second.
    fn lines(event: &ProgressEvent<'_>, seconds: u64) -> Vec<(u64, String)> {
        let (mut plain, mut tally) = (PlainProgress::new(), RunTally::default());
        let planned = ProgressEvent::Planned {
            items: 15,
            download_size: 1 << 20,
        };
        tally.note(&planned, Duration::ZERO);

        let times = (0..seconds * 10).map(|tenths| Duration::from_millis(tenths * 100));
        times
            .filter_map(|now| {
                tally.note(event, now);
                let line = plain.line(event, &tally, now)?;
                Some((now.as_secs(), line))
            })
            .collect()
    }

    #[test]
    fn a_line_comes_after_five_seconds_and_then_every_ten() {
        let lines = lines(&ProgressEvent::Tick, 30);
        let text = "0.0/1.0 MiB 0% 0 B/s, 0/15 items";
        let expected = [5, 15, 25].map(|second| (second, text.to_owned()));
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_short_run_has_no_lines() {
        assert_eq!(lines(&ProgressEvent::Tick, 5), []);
    }
}
