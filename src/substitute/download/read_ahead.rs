//! Requests nars before a worker takes their items.
//!
//! A worker that begins with an item waits for a round trip, and the line is idle unless other workers
//! keep it busy. With small items that is most of the time. So the nars of the next items are requested while the
//! workers are busy. They arrive in memory, which bounds how many there are. No signature covers the size of a
//! file: a transfer pauses when more than that waits to be read.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use crate::format::store_path::StorePath;
use crate::http::{NarRequest, RateDemand, whole_bytes};
use crate::substitute::cancel::Cancel;
use crate::substitute::download::body::request_without_retries;
use crate::substitute::download::candidate::DownloadCandidate;
use crate::substitute::download::prefetch::{EarlyDownload, NarPrefetcher, StartedDownload};
use crate::substitute::item_lookup::NarSource;
use crate::substitute::network::Network;
use crate::sync::lock;

/// Larger files are not requested ahead of time: compared with the rest of their time a round trip is short. A
/// transfer holds this much in memory, so that files arrive whole, and no connection waits.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// A transfer may hold so much, even if its file is said to be smaller: a packet or two are in memory anyway.
const HELD_BYTES_MIN: u64 = 64 << 10;
/// How many nars there are at most, with those that have arrived: for each, the lock of its item is an open file.
const NARS_HELD_MAX: usize = 64;
/// At least so many bytes are requested ahead.
const BYTES_MIN: u64 = 1 << 20;

/// What goes on while nars are requested: it decides how many bytes there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FetchPhase {
    /// Items are looked up. Only small ones are unpacked, so that there is memory.
    Lookup,
    /// Items are unpacked.
    Unpacking,
}

impl FetchPhase {
    /// As many bytes as the line carries in this time, in seconds: more than what the next round trips take;
    /// and the most.
    const fn limits(self) -> (f64, u64) {
        match self {
            Self::Lookup => (0.5, 10 << 20),
            Self::Unpacking => (0.1, 4 << 20),
        }
    }
}

/// A nar that is in memory as a whole.
pub(crate) struct ArrivedNar {
    /// The item.
    pub(crate) item: StorePath,
    /// Where it comes from.
    pub(crate) candidate: DownloadCandidate,
    /// The nar.
    pub(crate) nar: EarlyDownload,
}

/// Nars that were requested ahead of time.
pub(crate) struct ReadAhead {
    network: Arc<Network>,
    cancel: Cancel,
    nars_max: usize,
    started: Mutex<HashMap<StorePath, StartedDownload>>,
}

impl ReadAhead {
    /// Downloads at most `nars_max` at a time.
    #[must_use]
    pub(crate) fn new(network: Arc<Network>, cancel: Cancel, nars_max: usize) -> Self {
        Self {
            network,
            cancel,
            nars_max,
            started: Mutex::default(),
        }
    }

    /// Whether more nars may be requested.
    #[must_use]
    pub(crate) fn has_room(&self, phase: FetchPhase) -> bool {
        let mut started = lock(&self.started);
        if started.len() >= NARS_HELD_MAX {
            return false;
        }
        let ended = started.values_mut().map(StartedDownload::has_ended);
        if ended.filter(|has_ended| !has_ended).count() >= self.nars_max {
            return false;
        }

        let (seconds, most) = phase.limits();
        let lines = self.network.expected_line_rates();
        let fastest = lines.values().map(|line| line.bytes_per_second);
        let bytes = whole_bytes(fastest.fold(0.0, f64::max) * seconds);
        let sizes = started.values().map(|it| it.candidate.file_size);
        sizes.map(Option::unwrap_or_default).sum::<u64>() < bytes.clamp(BYTES_MIN, most)
    }

    /// Whether `candidate` may be requested ahead of time.
    #[must_use]
    pub(crate) fn is_for(candidate: &DownloadCandidate) -> bool {
        is_small(candidate.file_size) && candidate.url.scheme() != "file"
    }

    /// Whether any download of `sources` may be, as far as their sizes say: far cheaper than to rank them.
    #[must_use]
    pub(crate) fn may_be_for(sources: &[NarSource]) -> bool {
        let mut downloads = sources.iter().flat_map(|source| source.offer.downloads());
        downloads.any(|download| is_small(download.file_size))
    }

    /// Requests `candidate`, the nar of `item`; false when the system has no more threads.
    #[must_use]
    pub(crate) fn start(
        &self,
        item: &StorePath,
        candidate: DownloadCandidate,
        rate_demand: Option<RateDemand>,
    ) -> bool {
        tracing::debug!(item = item.base(), "requesting the nar ahead of time");
        let request = NarRequest {
            compression: Some(candidate.compression),
            queued_bytes_max: Some(held_bytes_max(candidate.file_size)),
            ..request_without_retries(&candidate.url, &self.cancel, rate_demand)
        };
        let download = StartedDownload::start(&self.network, candidate, request);
        let has_started = download.is_some();
        let entry = download.map(|download| (item.clone(), download));
        lock(&self.started).extend(entry);
        has_started
    }

    /// Whether the nar of `item` was requested, and not taken yet.
    #[must_use]
    pub(crate) fn has_started(&self, item: &StorePath) -> bool {
        lock(&self.started).contains_key(item)
    }

    /// Takes a nar out that is in memory as a whole, of an item that `is_wanted`.
    #[must_use]
    pub(crate) fn take_arrived(
        &self,
        is_wanted: impl Fn(&StorePath) -> bool,
    ) -> Option<ArrivedNar> {
        let mut started = lock(&self.started);
        let item = started.iter_mut().find_map(|(item, download)| {
            (download.has_arrived_whole() && is_wanted(item)).then(|| item.clone())
        })?;
        let download = started.remove(&item)?;
        drop(started);
        Some(ArrivedNar {
            item,
            candidate: download.candidate.clone(),
            nar: EarlyDownload::Response(download.wait()?.map(Box::new)),
        })
    }

    /// Ends all downloads but those of the `planned` items.
    pub(crate) fn keep_only(&self, planned: &HashSet<&StorePath>) {
        lock(&self.started).retain(|item, _| planned.contains(item));
    }

    /// Ends the download of `item`.
    pub(crate) fn discard(&self, item: &StorePath) {
        lock(&self.started).remove(item);
    }

    /// Ends all downloads that were not taken.
    pub(crate) fn clear(&self) {
        lock(&self.started).clear();
    }
}

/// Whether a file is known to have so few bytes that it may be requested ahead of time.
fn is_small(file_size: Option<u64>) -> bool {
    file_size.is_some_and(|size| size <= FILE_BYTES_MAX)
}

/// How much of a file of `file_size` bytes, as its server says, may wait in memory: all of it, with an eighth
/// more for what its chunks take.
fn held_bytes_max(file_size: Option<u64>) -> u32 {
    let file_size = file_size.unwrap_or_default();
    let bytes = file_size.saturating_add(file_size / 8);
    u32::try_from(bytes.max(HELD_BYTES_MIN)).unwrap_or(u32::MAX)
}

impl NarPrefetcher for ReadAhead {
    fn take(
        &self,
        item: &StorePath,
        candidates: &[DownloadCandidate],
    ) -> Option<(usize, EarlyDownload)> {
        let download = lock(&self.started).remove(item)?;
        let index = candidates
            .iter()
            .position(|candidate| candidate.url == download.candidate.url)?;
        let response = download.wait()?.map(Box::new);
        Some((index, EarlyDownload::Response(response)))
    }
}
