//! The lowest rate at which a server may send a nar.
//!
//! Silence has a timeout of its own; this is about servers that send a little now and then, which
//! would hold an item for hours. Only the time in which the client waits counts. Transfers that are
//! open at the same time may share a slow line: the minimum is for all of them together.

use std::sync::Arc;
use std::time::Duration;

use super::error::HttpErrorKind;

/// What is demanded of a server whose response could come another way: this rate, if that is more than
/// the minimum, and for no longer than the window less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateDemand {
    /// 0: the minimum is enough.
    pub(crate) bytes_per_second: u64,
    /// For how long a server may send less, and how soon its response has to begin.
    pub(crate) window: Duration,
}

/// A server that sends less in a window of waiting is too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MinimumRate {
    /// 0: there is no minimum.
    pub(crate) bytes_per_second: u64,
    /// For how long a server may send less.
    pub(crate) window: Duration,
}

impl Default for MinimumRate {
    fn default() -> Self {
        Self {
            bytes_per_second: 1 << 10,
            window: Duration::from_secs(30),
        }
    }
}

impl MinimumRate {
    /// The minimum with a further demand. Where there is no minimum, there is no demand.
    pub(super) fn with(self, demand: Option<RateDemand>) -> Self {
        match demand {
            Some(demand) if self.bytes_per_second > 0 => Self {
                bytes_per_second: self.bytes_per_second.max(demand.bytes_per_second),
                window: demand.window,
            },
            _ => self,
        }
    }

    /// The share of one of `transfers`.
    fn divided_by(self, transfers: usize) -> Self {
        let share = self.bytes_per_second / (transfers as u64).max(1);
        // A round number, for the message.
        let share = match share >> 10 {
            0 => share,
            kib => kib << 10,
        };
        Self {
            bytes_per_second: share.max(self.bytes_per_second.min(1)),
            ..self
        }
    }

    /// What a response that is slower fails with.
    pub(super) fn failure(self) -> HttpErrorKind {
        let Self {
            bytes_per_second,
            window,
        } = self;
        HttpErrorKind::TooSlow {
            bytes_per_second,
            window,
        }
    }
}

/// Counts the transfers that are open: the clones of a client's value.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenTransfers(Arc<()>);

impl OpenTransfers {
    fn count(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

/// Measures one response.
#[derive(Debug)]
pub(super) struct RateMeter {
    minimum: MinimumRate,
    transfers: OpenTransfers,
    /// The most transfers that were open at once in the current window.
    transfers_max: usize,
    /// Of the current window.
    waited: Duration,
    received: u64,
}

impl RateMeter {
    pub(super) fn new(minimum: MinimumRate, transfers: OpenTransfers) -> Self {
        Self {
            minimum,
            transfers_max: transfers.count(),
            transfers,
            waited: Duration::ZERO,
            received: 0,
        }
    }

    /// How long the client may wait before it has to call [`note`](Self::note).
    pub(super) fn window_left(&self) -> Duration {
        match self.minimum.bytes_per_second {
            0 => Duration::MAX,
            _ => self.minimum.window.saturating_sub(self.waited),
        }
    }

    /// Notes that the client waited for `bytes`.
    ///
    /// # Errors
    /// A window is complete, and brought too little.
    pub(super) fn note(&mut self, waited: Duration, bytes: u64) -> Result<(), HttpErrorKind> {
        self.waited += waited;
        self.received += bytes;
        self.transfers_max = self.transfers_max.max(self.transfers.count());
        if self.window_left() > Duration::ZERO {
            return Ok(());
        }

        let minimum = self.minimum.divided_by(self.transfers_max);
        let expected = minimum.bytes_per_second as f64 * minimum.window.as_secs_f64();
        if (self.received as f64) < expected {
            return Err(minimum.failure());
        }
        (self.waited, self.received) = (Duration::ZERO, 0);
        self.transfers_max = self.transfers.count();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn meter(bytes_per_second: u64) -> RateMeter {
        shared_meter(bytes_per_second, &OpenTransfers::default())
    }

    fn shared_meter(bytes_per_second: u64, transfers: &OpenTransfers) -> RateMeter {
        let minimum = MinimumRate {
            bytes_per_second,
            window: 3 * SECOND,
        };
        RateMeter::new(minimum, transfers.clone())
    }

    #[test]
    fn transfers_that_are_open_at_the_same_time_share_the_minimum() {
        let transfers = OpenTransfers::default();
        let mut first = shared_meter(100, &transfers);
        let second = shared_meter(100, &transfers);
        assert!(first.note(3 * SECOND, 150).is_ok());
        assert!(first.note(SECOND, 0).is_ok());

        // The other one ends within a window, and has used the line in it.
        drop(second);
        assert!(first.note(2 * SECOND, 150).is_ok());
        assert!(first.note(3 * SECOND, 299).is_err());

        let others = vec![transfers.clone(); 1000];
        let mut last = shared_meter(100, &transfers);
        assert!(last.note(3 * SECOND, 2).is_err(), "1 B/s is the least");
        drop(others);
    }

    #[test]
    fn each_window_has_to_bring_enough() {
        let mut meter = meter(100);
        assert_eq!(meter.window_left(), 3 * SECOND);
        for _ in 0..10 {
            assert!(meter.note(SECOND, 300).is_ok());
            assert!(meter.note(2 * SECOND, 0).is_ok(), "300 in 3 s");
        }
        assert!(meter.note(2 * SECOND, 299).is_ok(), "it is not complete");
        assert!(meter.note(SECOND, 0).is_err());
    }

    #[test]
    fn without_a_minimum_nothing_is_too_slow() {
        let mut meter = meter(0);
        assert!(meter.note(1000 * SECOND, 0).is_ok());
        assert_eq!(meter.window_left(), Duration::MAX);
    }
}
