//! The rate that all nars of a run may have together, whichever servers they come from.
//!
//! What was received is paid for before more is read, so that it stays with the server and the
//! kernel, and nothing is stored here. Time in which the client waits for its own limit is not the server's:
//! it counts neither as silence nor as a low rate. Lookups are not limited, as they are small.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::lock;

/// A limit of the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateLimit {
    /// Of all nars together; not 0.
    pub(crate) bytes_per_second: u64,
    /// When it applies; always if there are none.
    pub(crate) hours: Option<LimitHours>,
}

impl RateLimit {
    /// Whether it applied when the options were made.
    #[must_use]
    pub(crate) fn applies_at_start(&self) -> bool {
        self.hours.is_none_or(|hours| hours.include(Duration::ZERO))
    }
}

/// A part of each day, and the time of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LimitHours {
    /// When the part begins, since midnight,
    pub(crate) start: Duration,
    /// and when it ends; before `start`: on the next day.
    pub(crate) end: Duration,
    /// The time of the day when the options were made.
    pub(crate) now: Duration,
}

const DAY_SECONDS: u64 = 24 * 3600;

impl LimitHours {
    /// Whether the part of the day includes the time `elapsed` after the options were made.
    fn include(&self, elapsed: Duration) -> bool {
        let since_midnight = (self.now + elapsed).as_secs() % DAY_SECONDS;
        let (start, end) = (self.start.as_secs(), self.end.as_secs());
        if start <= end {
            (start..end).contains(&since_midnight)
        } else {
            since_midnight >= start || since_midnight < end
        }
    }
}

/// For how long the rate may be exceeded: what was not used before can be made up for.
const BURST: Duration = Duration::from_millis(100);

/// Distributes the limited rate among transfers.
#[derive(Debug)]
pub(super) struct RateLimiter {
    limit: RateLimit,
    started: Instant,
    /// Up to when everything that was received is paid for.
    paid_until: Mutex<Instant>,
}

impl RateLimiter {
    pub(super) fn new(limit: RateLimit) -> Self {
        let started = Instant::now();
        Self {
            limit,
            started,
            paid_until: Mutex::new(started),
        }
    }

    /// How long the transfer that has received `bytes` has to wait before it reads on.
    pub(super) fn wait_after(&self, bytes: usize) -> Duration {
        self.wait_after_at(bytes, Instant::now())
    }

    fn wait_after_at(&self, bytes: usize, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.started);
        if self
            .limit
            .hours
            .is_some_and(|hours| !hours.include(elapsed))
        {
            return Duration::ZERO;
        }

        let price = Duration::from_secs_f64(bytes as f64 / self.limit.bytes_per_second as f64);
        let mut paid_until = lock(&self.paid_until);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        *paid_until = (*paid_until).max(earliest) + price;
        paid_until.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Bytes that transfers receive in ten seconds, each in chunks of its own size.
    fn received_in_ten_seconds(limiter: &RateLimiter, chunks: &[usize]) -> usize {
        let mut ready = vec![Duration::ZERO; chunks.len()];
        let mut received = 0;
        loop {
            let (transfer, at) = ready
                .iter()
                .copied()
                .enumerate()
                .min_by_key(|(_, at)| *at)
                .unwrap();
            if at >= Duration::from_secs(10) {
                return received;
            }
            received += chunks[transfer];
            let wait = limiter.wait_after_at(chunks[transfer], limiter.started + at);
            ready[transfer] = at + wait.max(Duration::from_micros(10));
        }
    }

    #[test]
    fn all_transfers_together_keep_the_rate() {
        for chunks in [&[16 << 10][..], &[64 << 10; 6], &[4 << 10, 1 << 16, 300]] {
            let limit = RateLimit {
                bytes_per_second: 5 << 20,
                hours: None,
            };
            let received = received_in_ten_seconds(&RateLimiter::new(limit), chunks);
            let part = received as f64 / (50 << 20) as f64;
            assert!((0.95..1.05).contains(&part), "{part} for {chunks:?}");
        }
    }

    #[test]
    fn a_pause_is_made_up_for_only_a_moment() {
        let limiter = RateLimiter::new(RateLimit {
            bytes_per_second: 1000,
            hours: None,
        });
        let later = limiter.started + HOUR;
        assert_eq!(limiter.wait_after_at(100, later), Duration::ZERO);
        let wait = limiter.wait_after_at(1000, later);
        assert_eq!(wait.as_millis(), 1000);
    }

    #[test]
    fn a_limit_applies_in_its_hours() {
        let hours = |start, end, now| LimitHours {
            start: start * HOUR,
            end: end * HOUR,
            now: now * HOUR,
        };
        let day = hours(8, 18, 7);
        assert!(!day.include(Duration::ZERO) && day.include(HOUR) && day.include(10 * HOUR));
        assert!(!day.include(11 * HOUR) && day.include(25 * HOUR));
        let night = hours(22, 6, 23);
        assert!(night.include(Duration::ZERO) && night.include(6 * HOUR));
        assert!(!night.include(7 * HOUR) && !night.include(22 * HOUR));

        let limiter = RateLimiter::new(RateLimit {
            bytes_per_second: 1,
            hours: Some(day),
        });
        let start = limiter.started;
        assert_eq!(limiter.wait_after_at(10, start), Duration::ZERO);
        assert!(limiter.wait_after_at(10, start + HOUR) > Duration::from_secs(9));
    }
}
