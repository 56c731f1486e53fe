//! The time, handed down: the moment the program started, and how long that is ago.

use std::time::{Duration, Instant};

/// A clock that was set once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clock {
    /// Since 1970.
    started_at: Duration,
    started: Instant,
}

impl Clock {
    /// A clock that shows the time `since_epoch`, counted from 1970, now and goes on from there.
    #[must_use]
    pub(crate) fn starting_at(since_epoch: Duration) -> Self {
        Self {
            started_at: since_epoch,
            started: Instant::now(),
        }
    }

    /// The time since 1970.
    #[must_use]
    pub(crate) fn since_epoch(&self) -> Duration {
        self.started_at + self.started.elapsed()
    }

    /// Seconds since 1970.
    #[must_use]
    pub(crate) fn unix_seconds(&self) -> u64 {
        self.since_epoch().as_secs()
    }

    /// How long the program has been at work.
    #[must_use]
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}
