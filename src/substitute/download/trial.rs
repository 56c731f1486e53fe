//! Measures a single stream, to tell whether the network is what the decoder waits for.
//!
//! A new measurement begins whenever the stream does, so that the rate before an outage does not
//! count for the stream after it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::substitute::download::counters::TransferCounters;

/// The least that a stream has to deliver before more connections are considered,
const BYTES_MIN: u64 = 512 << 10;
/// and the least time for that.
const TIME_MIN: Duration = Duration::from_millis(300);

/// A connection takes about so many times as long to become fast as it takes to open: opening takes
/// two round trips, and each further one doubles what is under way at the same time.
const OPENINGS: u32 = 3;

/// The measurement of one stream.
pub(super) struct Trial {
    began: Instant,
    /// What the counters were when the stream began.
    streamed: u64,
    waited_micros: u64,
    /// How long the server took to begin the stream, from the request on, if that is known.
    opening: Duration,
    /// Bytes that the stream has to deliver. Doubled when segments break: what they have received
    /// ahead of the reader is requested again.
    bytes_min: u64,
}

impl Trial {
    /// The measurement of a file's first stream.
    pub(super) fn first() -> Self {
        Self {
            began: Instant::now(),
            streamed: 0,
            waited_micros: 0,
            opening: Duration::ZERO,
            bytes_min: BYTES_MIN,
        }
    }

    /// Measures another stream, which began `opening` after its request.
    pub(super) fn restart(&mut self, opening: Duration, counters: &TransferCounters) {
        self.began = Instant::now();
        self.opening = opening;
        self.streamed = counters.streamed.load(Ordering::Relaxed);
        self.waited_micros = counters.waited_micros.load(Ordering::Relaxed);
    }

    /// Segments broke: the next stream has to deliver more before they are requested again.
    pub(super) fn demand_more(&mut self) {
        self.bytes_min = self.bytes_min.saturating_mul(2);
    }

    /// The bytes that the stream delivers before another connection delivers as fast.
    pub(super) fn bytes_until_as_fast(&self, counters: &TransferCounters) -> u64 {
        let streamed = counters.streamed.load(Ordering::Relaxed) - self.streamed;
        let time = self.opening.saturating_mul(OPENINGS).as_millis();
        let bytes = u128::from(streamed) * time / self.began.elapsed().as_millis().max(1);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Whether the stream has delivered enough to decide, and most of the time was spent waiting.
    pub(super) fn is_slow(&self, counters: &TransferCounters) -> bool {
        let streamed = counters.streamed.load(Ordering::Relaxed) - self.streamed;
        let waited = counters.waited_micros.load(Ordering::Relaxed) - self.waited_micros;
        let elapsed = self.began.elapsed();

        streamed >= self.bytes_min
            && elapsed >= TIME_MIN
            && Duration::from_micros(waited) > elapsed / 2
    }
}
