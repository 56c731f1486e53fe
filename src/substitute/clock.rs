//! The time, handed down: the moment the program started, and how long that is ago.

use std::time::Instant;

/// A clock that was set once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started_at: u64,
    started: Instant,
}

impl Clock {
    /// A clock that shows `unix_seconds` now and goes on from there.
    #[must_use]
    pub(crate) fn starting_at(unix_seconds: u64) -> Self {
        Self {
            started_at: unix_seconds,
            started: Instant::now(),
        }
    }

    /// Seconds since 1970.
    #[must_use]
    pub(crate) fn unix_seconds(&self) -> u64 {
        self.started_at + self.started.elapsed().as_secs()
    }

    /// How long the program has been at work.
    #[must_use]
    pub(crate) fn elapsed(&self) -> std::time::Duration {
        self.started.elapsed()
    }
}
