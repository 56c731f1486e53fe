//! Whether to try again, and when.
//!
//! Pure: the failure, the number of attempts, the time they took and a random number come in,
//! a decision goes out; sleeping happens elsewhere. The wait is drawn from zero to a limit that
//! doubles ("full jitter"), so that many clients of a server that comes back do not arrive
//! together. A server's `Retry-After` is the shortest wait; when it is longer than allowed, there
//! is no retry rather than an early one.

use std::time::Duration;

use super::error::HttpErrorKind;

/// How often, and after which waits, a failed request is repeated.
///
/// The default is for lookups and other small requests. Downloads of nars into a store are
/// requested with [`RetryPolicy::once`] (`substitute::download::body::request_without_retries`):
/// they are repeated, and resumed, in `substitute::download::retries`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RetryPolicy {
    /// Attempts in all, the first included.
    pub(crate) attempts: u32,
    /// The longest first wait; it doubles with each further one.
    pub(crate) base: Duration,
    /// The longest first wait after 429 or 503.
    pub(crate) overload_base: Duration,
    /// No wait is longer, unless the server requires it.
    pub(crate) cap: Duration,
    /// The longest `Retry-After` that is accepted.
    pub(crate) retry_after_cap: Duration,
    /// No new attempt once this much time has passed since the first.
    pub(crate) total: Duration,
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetryDecision {
    /// Give up.
    Stop,
    /// Make another attempt after this time.
    After(Duration),
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 4,
            base: Duration::from_millis(100),
            overload_base: Duration::from_millis(1000),
            cap: Duration::from_secs(10),
            retry_after_cap: Duration::from_secs(30),
            total: Duration::from_secs(60),
        }
    }
}

impl RetryPolicy {
    /// A single attempt.
    #[must_use]
    pub(crate) fn once() -> Self {
        Self {
            attempts: 1,
            ..Self::default()
        }
    }

    /// What to do after the `attempts`-th attempt failed, `elapsed` after the first one began.
    /// `random` is a number from 0 to 1.
    #[must_use]
    pub(crate) fn next(
        &self,
        failure: &HttpErrorKind,
        attempts: u32,
        elapsed: Duration,
        random: f64,
    ) -> RetryDecision {
        if !failure.is_worth_repeating() || attempts >= self.attempts {
            return RetryDecision::Stop;
        }
        let (base, floor) = match failure.innermost() {
            HttpErrorKind::Status {
                status: 429 | 503,
                retry_after,
            } => (self.overload_base, retry_after.unwrap_or_default()),
            HttpErrorKind::Status { retry_after, .. } => {
                (self.base, retry_after.unwrap_or_default())
            }
            _ => (self.base, Duration::ZERO),
        };

        let wait = self.backoff(base, attempts, random).max(floor);
        if floor > self.retry_after_cap || elapsed.saturating_add(wait) > self.total {
            return RetryDecision::Stop;
        }
        RetryDecision::After(wait)
    }

    /// A wait of up to `base`, doubled for each attempt after the first.
    pub(super) fn backoff(&self, base: Duration, attempts: u32, random: f64) -> Duration {
        let doublings = attempts.saturating_sub(1).min(16);
        base.saturating_mul(1 << doublings)
            .min(self.cap)
            .mul_f64(random.clamp(0.0, 1.0))
    }
}

/// The wait of a `Retry-After` field: a number of seconds or a date. A date is compared with the
/// server's own `Date`, so that a wrong clock on either side does not matter.
pub(in crate::http) fn parse_retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = httpdate::parse_http_date(value).ok()?;
    let now = httpdate::parse_http_date(date?).ok()?;
    Some(then.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16, retry_after: Option<u64>) -> HttpErrorKind {
        HttpErrorKind::Status {
            status,
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    fn next(failure: &HttpErrorKind, attempts: u32, random: f64) -> RetryDecision {
        RetryPolicy::default().next(failure, attempts, Duration::ZERO, random)
    }

    #[test]
    fn waits_double_until_the_last_attempt() {
        let failure = status(500, None);
        let waits = [1, 2, 3].map(|attempts| next(&failure, attempts, 1.0));
        assert_eq!(
            waits,
            [100, 200, 400].map(|ms| RetryDecision::After(Duration::from_millis(ms)))
        );
        assert_eq!(next(&failure, 4, 1.0), RetryDecision::Stop);
        assert_eq!(next(&failure, 1, 0.0), RetryDecision::After(Duration::ZERO));
        assert_eq!(
            next(&failure, 1, 0.5),
            RetryDecision::After(Duration::from_millis(50))
        );
    }

    #[test]
    fn retry_after_is_the_shortest_wait_up_to_a_limit() {
        assert_eq!(
            next(&status(429, Some(7)), 1, 1.0),
            RetryDecision::After(Duration::from_secs(7))
        );
        assert_eq!(
            next(&status(503, Some(0)), 1, 1.0),
            RetryDecision::After(Duration::from_secs(1))
        );
        assert_eq!(next(&status(503, Some(31)), 1, 0.0), RetryDecision::Stop);
    }

    #[test]
    fn definite_failures_are_not_repeated() {
        for failure in [
            status(404, None),
            status(403, None),
            HttpErrorKind::Canceled,
        ] {
            assert_eq!(next(&failure, 1, 0.5), RetryDecision::Stop, "{failure:?}");
        }
    }

    #[test]
    fn the_total_time_is_bounded() {
        let policy = RetryPolicy::default();
        let late = policy.total;
        assert_eq!(
            policy.next(&status(503, Some(1)), 1, late, 0.0),
            RetryDecision::Stop
        );
    }
}
