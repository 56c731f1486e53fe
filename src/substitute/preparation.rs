//! The time spent waiting for items that servers are preparing, and when these are looked up again.
//!
//! A server such as `guix publish --cache` answers the first request for an item with status 404 and
//! `X-Baking`, prepares the nar, and has it some seconds later. Each wait takes longer than the last
//! one. When items turn out to be ready, the waits are short again, and the time starts over: what
//! they refer to may have to be prepared next.

use std::time::{Duration, Instant};

use crate::substitute::cancel::Cancel;
use crate::substitute::progress::{Progress, ProgressEvent};

/// The first and the longest wait.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(15);
/// How often an interrupt is noticed, and progress reported.
const TICK: Duration = Duration::from_millis(100);
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// What is shown while `items` are waited for.
#[must_use]
pub(crate) fn wait_text(items: usize, waited: Duration, limit: Duration) -> String {
    let subject = match items {
        1 => "1 item is".to_owned(),
        _ => format!("{items} items are"),
    };
    let (waited, limit) = (minutes(waited), minutes(limit));
    format!("{subject} being prepared by the server, waiting ({waited} of {limit})")
}

/// Such as `1:05`.
fn minutes(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// How long items may still be waited for.
#[derive(Debug)]
pub(crate) struct PreparationWait {
    limit: Duration,
    cancel: Cancel,
    waited: Duration,
    next: Duration,
}

impl PreparationWait {
    /// Waits for up to `limit` without progress; zero: not at all.
    #[must_use]
    pub(crate) fn new(limit: Duration, cancel: Cancel) -> Self {
        Self {
            limit,
            cancel,
            waited: Duration::ZERO,
            next: WAIT_MIN,
        }
    }

    /// Whether any time is left.
    #[must_use]
    pub(crate) fn has_time(&self) -> bool {
        self.waited < self.limit && !self.cancel.is_canceled()
    }

    /// Something was ready.
    pub(crate) fn restart(&mut self) {
        (self.waited, self.next) = (Duration::ZERO, WAIT_MIN);
    }

    /// Waits until `items` are to be looked up again, or for the rest of the time.
    pub(crate) fn wait(&mut self, items: usize, progress: &dyn Progress) {
        let start = Instant::now();
        let duration = self.next.min(self.limit.saturating_sub(self.waited));
        let mut reported = None;

        while start.elapsed() < duration && !self.cancel.is_canceled() {
            if reported.is_none_or(|at: Instant| at.elapsed() >= REPORT_INTERVAL) {
                progress.event(ProgressEvent::Preparing {
                    items,
                    waited: self.waited + start.elapsed(),
                    limit: self.limit,
                    is_first: reported.is_none(),
                });
                reported = Some(Instant::now());
            }
            std::thread::sleep(TICK.min(duration.saturating_sub(start.elapsed())));
        }

        self.waited += duration;
        self.next = (self.next * 3 / 2).min(WAIT_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::substitute::progress::SilentProgress;

    #[test]
    fn waits_grow_up_to_the_limit_and_start_over() {
        let cancel = Cancel::default();
        let mut wait = PreparationWait::new(Duration::from_secs(60), cancel.clone());
        // The waits themselves take no time.
        cancel.cancel();

        let mut waits = Vec::new();
        while wait.waited < wait.limit {
            let before = wait.waited;
            wait.wait(1, &SilentProgress);
            waits.push((wait.waited - before).as_secs_f64());
        }
        assert_eq!(waits[..3], [1.0, 1.5, 2.25]);
        assert!(waits.iter().all(|wait| *wait <= 15.0));
        assert!((waits.iter().sum::<f64>() - 60.0).abs() < 1e-6);

        wait.restart();
        assert_eq!((wait.waited, wait.next), (Duration::ZERO, WAIT_MIN));
    }

    #[test]
    fn the_text_counts_items_and_minutes() {
        let text = |items| wait_text(items, Duration::from_secs(65), Duration::from_secs(300));
        assert_eq!(
            text(1),
            "1 item is being prepared by the server, waiting (1:05 of 5:00)"
        );
        assert!(text(2).starts_with("2 items are being prepared"));
    }

    #[test]
    fn there_is_no_time_without_a_limit_or_after_an_interrupt() {
        let cancel = Cancel::default();
        assert!(!PreparationWait::new(Duration::ZERO, cancel.clone()).has_time());
        let wait = PreparationWait::new(Duration::from_secs(60), cancel.clone());
        assert!(wait.has_time());
        cancel.cancel();
        assert!(!wait.has_time());
    }
}
