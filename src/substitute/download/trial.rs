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

/// The measurement of one stream.
pub(super) struct Trial {
    began: Instant,
    /// What the counters were when the stream began.
    streamed: u64,
    waited_micros: u64,
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
            bytes_min: BYTES_MIN,
        }
    }

    /// Measures another stream.
    pub(super) fn restart(&mut self, counters: &TransferCounters) {
        self.began = Instant::now();
        self.streamed = counters.streamed.load(Ordering::Relaxed);
        self.waited_micros = counters.waited_micros.load(Ordering::Relaxed);
    }

    /// Segments broke: the next stream has to deliver more before they are requested again.
    pub(super) fn demand_more(&mut self) {
        self.bytes_min = self.bytes_min.saturating_mul(2);
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
