//! How fast each server sends nars: measured over all transfers together while the run goes on.
//!
//! Transfers share a line, so that the rate of one of them says little. What counts is what all
//! have received, and the time in which at least one waited for the network: then the line was busy. A
//! transfer whose reader is slower does not wait, and while no transfer does, no time is counted.
//!
//! Older measurements fade, within seconds. Before the first one there is an assumption: the rate
//! of an earlier run, or a fast line.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use url::Origin;

use crate::sync::lock;

/// Before anything was measured: 200 MB/s. A fast line that is taken for a slow one costs seconds of
/// decoding, a slow one that is taken for fast some bytes of the first items.
pub(crate) const ASSUMED_LINE: f64 = 200e6;

/// How much an assumption weighs against what is measured.
const ASSUMED_BYTES: f64 = 256e3;
/// How far back measurements count, in seconds of waiting.
const MEMORY_SECONDS: f64 = 2.0;
/// The most that a single wait counts: an outage is not a slow line.
const WAIT_SECONDS_MAX: f64 = 0.5;
/// The line counts as measured after this many bytes,
const MEASURED_BYTES: u64 = 1 << 20;
/// or after this time of waiting for it.
const MEASURED_SECONDS: f64 = 0.25;

/// The rate of the line to a server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LineRate {
    /// What all transfers receive together.
    pub(crate) bytes_per_second: f64,
    /// Whether that was measured in this run, rather than assumed.
    pub(crate) is_measured: bool,
}

impl Default for LineRate {
    fn default() -> Self {
        Self {
            bytes_per_second: ASSUMED_LINE,
            is_measured: false,
        }
    }
}

/// Measures the lines to all servers. Clones measure together.
#[derive(Debug, Clone, Default)]
pub(crate) struct LineMeters(Arc<Mutex<HashMap<Origin, LineMeter>>>);

impl LineMeters {
    /// Notes the rate that an earlier run has measured.
    pub(crate) fn note_earlier(&self, server: Origin, bytes_per_second: u64) {
        let meter = LineMeter::assuming((bytes_per_second as f64).max(1.0));
        lock(&self.0).insert(server, meter);
    }

    /// The rate so far.
    #[must_use]
    pub(crate) fn rate(&self, server: &Origin) -> LineRate {
        let meters = lock(&self.0);
        meters.get(server).map(LineMeter::rate).unwrap_or_default()
    }

    /// A transfer from `server` begins.
    pub(super) fn transfer(&self, server: Origin) -> LineTransfer {
        LineTransfer {
            meters: self.clone(),
            server,
            is_waiting: false,
        }
    }

    fn change(&self, server: &Origin, change: impl FnOnce(&mut LineMeter)) {
        let mut meters = lock(&self.0);
        if !meters.contains_key(server) {
            meters.insert(server.clone(), LineMeter::default());
        }
        if let Some(meter) = meters.get_mut(server) {
            meter.advance(Instant::now());
            change(meter);
        }
    }
}

/// A transfer that takes part in a measurement.
#[derive(Debug)]
pub(super) struct LineTransfer {
    meters: LineMeters,
    server: Origin,
    is_waiting: bool,
}

impl LineTransfer {
    /// The transfer begins to wait for the network.
    pub(super) fn wait_begins(&mut self) {
        if !std::mem::replace(&mut self.is_waiting, true) {
            self.meters.change(&self.server, |meter| meter.waiting += 1);
        }
    }

    /// The wait has ended, with that many `bytes`.
    pub(super) fn received(&mut self, bytes: usize) {
        let has_waited = std::mem::take(&mut self.is_waiting);
        self.meters.change(&self.server, |meter| {
            meter.waiting -= usize::from(has_waited);
            meter.bytes += bytes as f64;
            meter.observed_bytes += bytes as u64;
        });
    }
}

impl Drop for LineTransfer {
    fn drop(&mut self) {
        if self.is_waiting {
            self.meters.change(&self.server, |meter| meter.waiting -= 1);
        }
    }
}

/// An estimate of bytes, without the fraction.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate"
)]
#[must_use]
pub(crate) fn whole_bytes(bytes: f64) -> u64 {
    bytes as u64
}

#[derive(Debug)]
struct LineMeter {
    /// Transfers that wait for bytes.
    waiting: usize,
    /// Up to when time has been counted.
    counted_until: Instant,
    /// What came, and how long a transfer waited for it, of late.
    bytes: f64,
    seconds: f64,
    /// What came in all, and the time of all waits.
    observed_bytes: u64,
    observed_seconds: f64,
}

impl Default for LineMeter {
    fn default() -> Self {
        Self::assuming(ASSUMED_LINE)
    }
}

impl LineMeter {
    fn assuming(bytes_per_second: f64) -> Self {
        Self {
            waiting: 0,
            counted_until: Instant::now(),
            bytes: ASSUMED_BYTES,
            seconds: ASSUMED_BYTES / bytes_per_second,
            observed_bytes: 0,
            observed_seconds: 0.0,
        }
    }

    /// Counts the time until `now`.
    fn advance(&mut self, now: Instant) {
        let seconds = now
            .saturating_duration_since(self.counted_until)
            .as_secs_f64();
        self.counted_until = now;
        if self.waiting == 0 {
            return;
        }

        let seconds = seconds.min(WAIT_SECONDS_MAX);
        let kept = MEMORY_SECONDS / (MEMORY_SECONDS + seconds);
        self.bytes *= kept;
        self.seconds = self.seconds * kept + seconds;
        self.observed_seconds += seconds;
    }

    fn rate(&self) -> LineRate {
        LineRate {
            bytes_per_second: self.bytes / self.seconds.max(1e-6),
            is_measured: self.observed_bytes >= MEASURED_BYTES
                || self.observed_seconds >= MEASURED_SECONDS,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use url::Url;

    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// The rate after each of `transfers` has waited all the time for its share of a line of 10 MB/s.
    fn rate_of_shared_line(transfers: usize, milliseconds: u32) -> LineRate {
        let mut meter = LineMeter::default();
        let start = meter.counted_until;
        meter.waiting = transfers;
        for tick in 1..=milliseconds {
            meter.advance(start + tick * MILLISECOND);
            meter.bytes += 10e3;
            meter.observed_bytes += 10_000;
        }
        meter.rate()
    }

    #[test]
    fn the_rate_is_that_of_the_line_however_many_transfers_share_it() {
        for transfers in [1, 2, 6] {
            let rate = rate_of_shared_line(transfers, 500);
            assert!(rate.is_measured);
            let megabytes = rate.bytes_per_second / 1e6;
            assert!((9.0..11.0).contains(&megabytes), "{megabytes} MB/s");
        }
        assert!(!rate_of_shared_line(1, 50).is_measured);
    }

    #[test]
    fn time_in_which_no_transfer_waits_is_not_the_lines() {
        let server = Url::parse("http://h/nar").unwrap().origin();
        let meters = LineMeters::default();
        assert_eq!(meters.rate(&server), LineRate::default());
        meters.note_earlier(server.clone(), 5_000_000);
        assert_eq!(meters.rate(&server).bytes_per_second.round(), 5e6);

        let mut busy = meters.transfer(server.clone());
        std::thread::sleep(50 * MILLISECOND);
        for _ in 0..100 {
            busy.received(1 << 14);
        }
        let rate = meters.rate(&server);
        assert!(rate.is_measured && rate.bytes_per_second > 30e6, "{rate:?}");
    }

    #[test]
    fn a_transfer_that_ends_does_not_wait_any_more() {
        let server = Url::parse("http://h/nar").unwrap().origin();
        let meters = LineMeters::default();
        let mut transfer = meters.transfer(server.clone());
        transfer.wait_begins();
        transfer.wait_begins();
        assert_eq!(lock(&meters.0)[&server].waiting, 1);
        drop(transfer);
        assert_eq!(lock(&meters.0)[&server].waiting, 0);
    }

    #[test]
    fn an_outage_and_older_rates_fade() {
        let mut meter = LineMeter::default();
        let start = meter.counted_until;
        meter.waiting = 1;
        meter.advance(start + Duration::from_secs(60));
        for tick in 1..=8000 {
            meter.advance(start + Duration::from_secs(60) + tick * MILLISECOND);
            meter.bytes += 50e3;
        }
        let megabytes = meter.rate().bytes_per_second / 1e6;
        assert!((45.0..51.0).contains(&megabytes), "{megabytes} MB/s");
    }
}
