//! The time, handed down: the moment the program started, and how long that is ago.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A clock that was set once. It goes on while the machine is suspended, as the time does by which answers
/// and waits expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clock {
    /// Since 1970.
    started_at: Duration,
    /// Since the machine was started.
    started: Duration,
}

impl Clock {
    /// A clock that shows the time `since_epoch`, counted from 1970, now and goes on from there.
    #[must_use]
    pub(crate) fn starting_at(since_epoch: Duration) -> Self {
        Self {
            started_at: since_epoch,
            started: since_boot(),
        }
    }

    /// The time since 1970.
    #[must_use]
    pub(crate) fn since_epoch(&self) -> Duration {
        self.started_at + self.elapsed()
    }

    /// Seconds since 1970.
    #[must_use]
    pub(crate) fn unix_seconds(&self) -> u64 {
        self.since_epoch().as_secs()
    }

    /// How long the program has been at work.
    #[must_use]
    pub(crate) fn elapsed(&self) -> Duration {
        since_boot().saturating_sub(self.started)
    }
}

/// The time since the machine was started, with the time that it was suspended.
fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::try_from(time).unwrap_or_default()
}
