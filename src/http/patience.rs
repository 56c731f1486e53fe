//! How long a server is retried that has answered in this run and then fails, and after which waits.
//!
//! Servers restart and routes change, so such failures pass. A server that has not answered is not waited for: it may
//! never answer.

use std::time::Duration;

/// What limits the retries of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RetryLimits {
    /// The most retries in a row without progress.
    pub(crate) retries: u32,
    /// How long it is retried without progress. None at all: failures are final.
    pub(crate) time: Duration,
}

impl RetryLimits {
    /// Failures are final.
    pub(crate) const NONE: Self = Self {
        retries: 0,
        time: Duration::ZERO,
    };

    /// Whether failures are final.
    #[must_use]
    pub(crate) fn allow_none(self) -> bool {
        self.retries == 0 || self.time.is_zero()
    }
}

impl Default for RetryLimits {
    fn default() -> Self {
        Self {
            retries: u32::MAX,
            time: Duration::from_secs(60),
        }
    }
}

/// Retries that need no reason and no message: connections break now and then.
pub(crate) const QUICK_RETRIES: u32 = 3;

/// The longest first wait. It doubles with each further one,
pub(crate) const FIRST_WAIT: Duration = Duration::from_millis(100);
/// up to this.
const WAIT_MAX: Duration = Duration::from_secs(4);

/// The wait before a retry, `waits` of them included: between a half and the whole of a limit
/// that doubles, so that many requests do not return together. `random` is a number from 0 to 1.
pub(crate) fn backoff(waits: u32, random: f64) -> Duration {
    let doublings = waits.saturating_sub(1).min(16);
    let limit = FIRST_WAIT.saturating_mul(1 << doublings).min(WAIT_MAX);
    limit.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit() {
        for (waits, least, most) in [
            (1, 50, 100),
            (2, 100, 200),
            (3, 200, 400),
            (4, 400, 800),
            (7, 2000, 4000),
            (100, 2000, 4000),
        ] {
            assert_eq!(backoff(waits, 0.0), Duration::from_millis(least));
            assert_eq!(backoff(waits, 1.0), Duration::from_millis(most));
        }
    }
}
