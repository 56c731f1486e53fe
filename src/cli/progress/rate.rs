//! The rate at which something arrives, over the last seconds.

use std::collections::VecDeque;
use std::time::Duration;

/// How far back the rate looks.
const WINDOW: Duration = Duration::from_secs(8);
/// The time between two samples that are kept.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);
/// A shorter time says nothing about the rate.
const TIME_MIN: Duration = Duration::from_millis(400);

/// Samples of a number of bytes that grows.
#[derive(Debug, Default)]
pub(super) struct RateWindow {
    samples: VecDeque<(Duration, u64)>,
}

impl RateWindow {
    /// Notes that `bytes` have arrived at the time `now`.
    pub(super) fn note(&mut self, now: Duration, bytes: u64) {
        let is_due = self
            .samples
            .back()
            .is_none_or(|(time, _)| now.saturating_sub(*time) >= SAMPLE_INTERVAL);
        if is_due {
            self.samples.push_back((now, bytes));
        }

        // The first one is kept until the second one is as old as the window.
        while self
            .samples
            .get(1)
            .is_some_and(|(time, _)| now.saturating_sub(*time) >= WINDOW)
        {
            self.samples.pop_front();
        }
    }

    /// Bytes per second, when `bytes` have arrived at the time `now`; `None` at the beginning.
    pub(super) fn rate(&self, now: Duration, bytes: u64) -> Option<f64> {
        let (start, bytes_at_start) = self.samples.front()?;
        let time = now.saturating_sub(*start);
        let arrived = bytes.saturating_sub(*bytes_at_start) as f64;
        (time >= TIME_MIN).then(|| arrived / time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut window = RateWindow::default();
        assert_eq!(window.rate(seconds(1.0), 0), None);
        window.note(seconds(1.0), 0);
        assert_eq!(window.rate(seconds(1.2), 500), None);
        window.note(seconds(2.0), 1000);
        assert_eq!(window.rate(seconds(2.0), 1000), Some(1000.0));

        for second in 3..=30 {
            window.note(seconds(f64::from(second)), 1000);
        }
        assert_eq!(window.rate(seconds(30.0), 1000), Some(0.0));
        assert!(window.samples.len() <= 10, "{window:?}");
    }
}
