//! What downloads are expected to cost: time on the line, and time of a processor core.
//!
//! Rates of lines come from `http::LineMeters`. Decoders are measured in
//! processor time, so that transfers that share the cores do not make each other look slow.

use std::collections::HashMap;
use std::time::Duration;

use crate::format::compression::Compression;
use crate::format::server_list::ServerIndex;
use crate::http::{LineRate, whole_bytes};
use crate::substitute::download::candidate::DownloadCandidate;

/// What was measured in this run.
#[derive(Debug, Clone, Default)]
pub(crate) struct MeasuredRates {
    lines: HashMap<ServerIndex, LineRate>,
    decoders: HashMap<Compression, DecoderRate>,
    core_share: CoreShare,
}

/// How long something was worked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkTime {
    /// Time of a core.
    pub(crate) processor: Duration,
    /// The same and the time of waiting for a core.
    pub(crate) wall: Duration,
}

/// How much of a core decoders get while they have work, of late. Times are in seconds.
#[derive(Debug, Clone, Copy)]
struct CoreShare {
    processor: f64,
    wall: f64,
}

impl Default for CoreShare {
    /// Begins with a whole core, which counts little.
    fn default() -> Self {
        Self {
            processor: 0.1,
            wall: 0.1,
        }
    }
}

impl CoreShare {
    fn note(&mut self, time: WorkTime) {
        let wall = time.wall.max(time.processor).as_secs_f64();
        let kept = CORE_SHARE_SECONDS / (CORE_SHARE_SECONDS + wall);
        self.processor = self.processor * kept + time.processor.as_secs_f64();
        self.wall = self.wall * kept + wall;
    }
}

/// Bytes and the processor time they took, of late: each new observation lets older ones fade by
/// as many bytes as it has.
#[derive(Debug, Clone, Copy)]
struct DecoderRate {
    bytes: f64,
    seconds: f64,
}

impl DecoderRate {
    /// Begins with an assumption, which counts as little as [`ASSUMED_BYTES`].
    fn assumed(bytes_per_second: f64) -> Self {
        Self {
            bytes: ASSUMED_BYTES,
            seconds: ASSUMED_BYTES / bytes_per_second,
        }
    }

    fn note(&mut self, bytes: u64, seconds: f64) {
        let kept = REMEMBERED_BYTES / (REMEMBERED_BYTES + bytes as f64);
        self.bytes = self.bytes * kept + bytes as f64;
        self.seconds = self.seconds * kept + seconds;
    }

    fn bytes_per_second(self) -> f64 {
        self.bytes / self.seconds.max(SHORTEST_SECONDS)
    }
}

/// How much an assumption weighs against what is measured.
const ASSUMED_BYTES: f64 = 1e6;
/// How far back measurements count.
const REMEMBERED_BYTES: f64 = 64e6;
/// How far back measurements of the share of a core count.
const CORE_SHARE_SECONDS: f64 = 4.0;
/// Shorter times are not measurable.
const SHORTEST_SECONDS: f64 = 1e-6;

/// How long work takes that keeps the line busy for one of these times, and a processor for the other:
/// no less than the longer one. The nearer they come to each other the longer it takes, because the line
/// waits while the processor has too much to do, and the other way round. The exponent is that of fetches
/// over 50 MB/s (`tests/peers/bench/line`): with both busy for 4.0 s they took 4.1 to 4.3 s after the 0.17 s before
/// their first nar.
#[must_use]
pub(super) fn overlapped(line: f64, processor: f64) -> f64 {
    const EXPONENT: f64 = 15.0;
    let longer = line.max(processor);
    if longer == 0.0 {
        return 0.0;
    }
    let share = line.min(processor) / longer;
    longer * (1.0 + share.powf(EXPONENT)).powf(EXPONENT.recip())
}

/// Bytes of nar per second and core for everything but decoding: hashes, writing, system calls.
const UNPACKING: f64 = 410e6;

impl MeasuredRates {
    /// The same with these rates of `lines`.
    #[must_use]
    pub(crate) fn with_lines(mut self, lines: HashMap<ServerIndex, LineRate>) -> Self {
        self.lines = lines;
        self
    }

    /// Notes how fast a nar was decoded: `bytes` came out in that `time`.
    pub(crate) fn decoder_measured(&mut self, method: Compression, bytes: u64, time: WorkTime) {
        self.core_share.note(time);
        let assumed = DecoderRate::assumed(assumed(method).decoder);
        self.decoders
            .entry(method)
            .or_insert(assumed)
            .note(bytes, time.processor.as_secs_f64());
    }

    /// The line to `server`.
    #[must_use]
    pub(crate) fn line(&self, server: ServerIndex) -> LineRate {
        self.lines.get(&server).copied().unwrap_or_default()
    }

    /// Whether the line to a server has been measured in this run.
    #[must_use]
    pub(crate) fn has_measured_line(&self) -> bool {
        self.lines.values().any(|line| line.is_measured)
    }

    /// How many of `cores` there are for this process, which `uses` that many: less than all where
    /// others are at work. A decoder gets a part of a core then. It also does when this process
    /// itself has more to do than cores; what it gets together is no less than what it uses.
    #[must_use]
    pub(crate) fn available_cores(&self, cores: usize, uses: f64) -> f64 {
        let cores = cores.max(1) as f64;
        let share = self.core_share.processor / self.core_share.wall.max(SHORTEST_SECONDS);
        (cores * share).max(uses).clamp(0.1, cores)
    }

    /// Bytes of nar per second and core out of the decoder for `method`. What was not measured is
    /// assumed to suffer from a slow machine as much as what was.
    #[must_use]
    pub(crate) fn decoder(&self, method: Compression) -> f64 {
        if let Some(rate) = self.decoders.get(&method) {
            return rate.bytes_per_second();
        }
        let slowdowns = self
            .decoders
            .iter()
            .map(|(known, rate)| rate.bytes_per_second() / assumed(*known).decoder);
        assumed(method).decoder * slowdowns.fold(1.0, f64::min)
    }

    /// What `candidate` for a nar of `nar_size` bytes costs.
    #[must_use]
    pub(crate) fn cost(&self, candidate: &DownloadCandidate, nar_size: u64) -> DownloadCost {
        let bytes = candidate.file_size.unwrap_or_else(|| {
            let share = assumed(candidate.compression).share;
            whole_bytes(nar_size as f64 * share)
        });
        let decoding = nar_size as f64 / self.decoder(candidate.compression);
        DownloadCost {
            server: candidate.server,
            method: candidate.compression,
            bytes,
            line: bytes as f64 / self.line(candidate.server).bytes_per_second.max(1.0),
            decoding,
            processor: decoding + nar_size as f64 / UNPACKING,
        }
    }

    /// How long `candidate` would take if there were nothing else to do, in seconds.
    #[must_use]
    pub(crate) fn seconds(&self, candidate: &DownloadCandidate, nar_size: u64) -> f64 {
        let DownloadCost { line, decoding, .. } = self.cost(candidate, nar_size);
        overlapped(line, decoding)
    }
}

/// What a download costs. Times are in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct DownloadCost {
    /// From which server.
    pub(crate) server: ServerIndex,
    /// How it is compressed.
    pub(crate) method: Compression,
    /// Bytes to download.
    pub(crate) bytes: u64,
    /// On the line, if it were alone there.
    pub(crate) line: f64,
    /// Decoding, which is done by a single core.
    pub(crate) decoding: f64,
    /// Of all cores, everything included.
    pub(crate) processor: f64,
}

impl DownloadCost {
    /// What is left of it when that `part` is left.
    #[must_use]
    pub(crate) fn scaled(self, part: f64) -> Self {
        Self {
            bytes: whole_bytes(self.bytes as f64 * part),
            line: self.line * part,
            decoding: self.decoding * part,
            processor: self.processor * part,
            ..self
        }
    }
}

/// What is assumed of a compression method before anything was measured.
struct AssumedMethod {
    /// Bytes of nar per second and core, as measured with the decoders used here; estimated for br
    /// and lz4.
    decoder: f64,
    /// How much is left of a nar, typically, when the server does not say.
    share: f64,
    /// Orders downloads of unknown sizes, the densest method first.
    density_rank: u8,
}

const fn assumed(method: Compression) -> AssumedMethod {
    let (decoder, share, density_rank) = match method {
        Compression::None => (5e9, 1.0, 3),
        Compression::Lz4 => (1.5e9, 0.45, 1),
        Compression::Zstd => (800e6, 0.32, 1),
        Compression::Gzip => (360e6, 0.36, 2),
        Compression::Brotli => (200e6, 0.28, 1),
        Compression::Lzip => (85e6, 0.28, 0),
        Compression::Xz => (85e6, 0.28, 1),
        Compression::Bzip2 => (30e6, 0.32, 1),
    };
    AssumedMethod {
        decoder,
        share,
        density_rank,
    }
}

/// Orders downloads of unknown sizes, the densest method first.
#[must_use]
pub(super) fn density_rank(method: Compression) -> u8 {
    assumed(method).density_rank
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_and_processor_wait_for_each_other_when_both_are_busy() {
        assert_eq!(overlapped(0.0, 0.0), 0.0);
        assert_eq!(overlapped(3.0, 0.0), 3.0);
        assert_eq!(overlapped(1.0, 4.0), overlapped(4.0, 1.0));
        assert!((4.0..4.01).contains(&overlapped(4.0, 1.0)));
        assert!((4.1..4.3).contains(&overlapped(4.0, 4.0)));
    }

    const WORK: WorkTime = WorkTime {
        processor: Duration::from_millis(100),
        wall: Duration::from_millis(400),
    };

    #[test]
    fn a_slow_machine_slows_what_was_not_measured_as_well() {
        let mut rates = MeasuredRates::default();
        for _ in 0..100 {
            rates.decoder_measured(Compression::Zstd, 10_000_000, WORK);
        }
        assert!(rates.decoder(Compression::Zstd) < 110e6);
        assert!(rates.decoder(Compression::Lzip) < 15e6);
    }

    #[test]
    fn on_a_busy_machine_there_are_fewer_cores() {
        let mut rates = MeasuredRates::default();
        assert_eq!(rates.available_cores(4, 0.0), 4.0);
        for _ in 0..100 {
            rates.decoder_measured(Compression::Zstd, 10_000_000, WORK);
        }
        assert!((0.9..1.1).contains(&rates.available_cores(4, 0.5)));

        // This process itself keeps them busy.
        assert_eq!(rates.available_cores(4, 3.9), 3.9);
        assert_eq!(rates.available_cores(4, 4.1), 4.0);
    }
}
