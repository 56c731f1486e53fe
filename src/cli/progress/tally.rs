//! How far a run is, counted from its events. Reads no clock: the time of each event is given.

use std::time::Duration;

use crate::cli::output::{self, part_of_bytes, printable};
use crate::format::store_path::StorePath;
use crate::substitute::preparation::wait_text;
use crate::substitute::progress::{
    ComparisonProgress, MirrorProgress, ProgressEvent, ServerProgress, VerifyProgress,
};

use super::rate::RateWindow;
use super::totals::{FetchTotals, FetchedItem, short_address};

/// How far a run is. All times are since its start.
#[derive(Debug, Default)]
pub(super) struct RunTally {
    pub(super) lookups: LookupTally,
    /// What is shown instead of downloads, while servers prepare items, or a store is verified or compared.
    pub(super) status_line: Option<String>,
    planned: Option<PlannedTotals>,
    /// Items are being fetched: what was planned is not finished.
    is_fetching: bool,
    downloads: Vec<ActiveDownload>,
    fetched: FetchTotals,
    last_fetched: Option<FetchedItem>,
    /// Bytes that have arrived, those of failed downloads included.
    traffic: u64,
    rate: RateWindow,
    last_event: Duration,
}

/// How far lookups are.
#[derive(Debug, Default)]
pub(super) struct LookupTally {
    pub(super) done: usize,
    pub(super) total: usize,
    /// The servers, how each is doing.
    pub(super) servers: String,
}

impl LookupTally {
    /// Whether no answer is awaited.
    pub(super) fn is_done(&self) -> bool {
        self.done == self.total
    }
}

/// What is to be fetched in all, what was fetched before it was planned included.
#[derive(Debug, Clone, Copy)]
struct PlannedTotals {
    items: usize,
    /// As far as servers say. Another download than the announced one may be used, of another size.
    bytes: u64,
    items_before: usize,
    bytes_before: u64,
}

/// A download under way.
#[derive(Debug)]
pub(super) struct ActiveDownload {
    item: StorePath,
    pub(super) server: String,
    server_place: usize,
    pub(super) method: &'static str,
    pub(super) size: Option<u64>,
    /// What it counts for in the bytes that are planned.
    counted: u64,
    pub(super) received: u64,
    /// When the first download of the item started.
    started: Duration,
    rate: RateWindow,
    /// The item has failed, perhaps because of another one.
    has_failed: bool,
}

impl ActiveDownload {
    /// The item's name without its hash.
    pub(super) fn name(&self) -> &str {
        self.item.name()
    }

    /// Bytes per second.
    pub(super) fn rate(&self, now: Duration) -> Option<f64> {
        self.rate.rate(now, self.received)
    }
}

/// How far the fetch of everything is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FetchProgress {
    pub(super) items_done: usize,
    pub(super) items: usize,
    pub(super) bytes_done: u64,
    pub(super) bytes: u64,
    pub(super) bytes_per_second: Option<f64>,
    pub(super) seconds_left: Option<u64>,
}

impl RunTally {
    pub(super) fn note(&mut self, event: &ProgressEvent<'_>, now: Duration) {
        self.count_busy_servers(now);
        if !matches!(event, ProgressEvent::Warning(_) | ProgressEvent::Tick) {
            self.status_line = status_text(event);
        }

        match event {
            ProgressEvent::Looking {
                done,
                total,
                servers,
                ..
            } => {
                self.lookups = LookupTally {
                    done: *done,
                    total: *total,
                    servers: servers_line(servers),
                };
            }
            ProgressEvent::Planned {
                items,
                download_size,
            } => self.plan(*items, *download_size),
            ProgressEvent::Started { .. } => self.start(event, now),
            ProgressEvent::Progressed { item, downloaded } => self.receive(item, *downloaded, now),
            ProgressEvent::Unpacked {
                item,
                downloaded,
                deduplicated,
                ..
            } => self.finish(item, *downloaded, *deduplicated, now),
            ProgressEvent::Failed { item, .. } => self.fail(item),
            ProgressEvent::SourceFailed {
                server,
                is_repeated: true,
                ..
            } => self.fetched.add_repeated_failure(server),
            ProgressEvent::Tick => self.rate.note(now, self.traffic),
            ProgressEvent::Finished => {
                self.is_fetching = false;
                self.downloads.clear();
            }
            ProgressEvent::DownloadsPlanned(_)
            | ProgressEvent::Preparing { .. }
            | ProgressEvent::Verifying(_)
            | ProgressEvent::Comparing(_)
            | ProgressEvent::Mirroring(_)
            | ProgressEvent::Registered { .. }
            | ProgressEvent::ServerDown { .. }
            | ProgressEvent::Retrying { .. }
            | ProgressEvent::Warning(_)
            | ProgressEvent::SourceFailed { .. } => {}
        }
    }

    /// Adds the time since the last event to the servers that were fetched from meanwhile.
    fn count_busy_servers(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.last_event);
        self.last_event = now;
        for (place, server) in self.fetched.servers.iter_mut().enumerate() {
            let mut downloads = self.downloads.iter();
            if downloads.any(|download| download.server_place == place && !download.has_failed) {
                server.busy += passed;
            }
        }
    }

    /// Notes what is to be fetched. Sent again for the same items when some are planned again, and for
    /// others after [`ProgressEvent::Finished`].
    fn plan(&mut self, items: usize, bytes: u64) {
        let continued = self.planned.filter(|_| self.is_fetching);
        let (items_before, bytes_before) = match continued {
            Some(planned) => (planned.items_before, planned.bytes_before),
            None => (self.fetched.items, self.fetched.downloaded),
        };
        self.planned = Some(PlannedTotals {
            items: items_before + items,
            bytes: bytes_before.saturating_add(bytes),
            items_before,
            bytes_before,
        });
        self.is_fetching = true;
    }

    /// A download of the item begins, perhaps another one than was announced.
    fn start(&mut self, event: &ProgressEvent<'_>, now: Duration) {
        let ProgressEvent::Started {
            item,
            server,
            compression,
            download_size,
            announced,
            ..
        } = event
        else {
            return;
        };
        let announced = announced.unwrap_or_default();
        let earlier = self.remove(item);

        let counted = download_size.unwrap_or(announced);
        let (before, started) = match &earlier {
            Some(earlier) => (earlier.counted, earlier.started),
            None => (announced, now),
        };
        self.count(before, counted);
        self.rate.note(now, self.traffic);
        let mut rate = RateWindow::default();
        rate.note(now, 0);
        self.downloads.push(ActiveDownload {
            item: (*item).clone(),
            server: printable(short_address(server)).into_owned(),
            server_place: self.fetched.server(server),
            method: compression.name(),
            size: *download_size,
            counted,
            received: 0,
            started,
            rate,
            has_failed: false,
        });
    }

    fn receive(&mut self, item: &StorePath, downloaded: u64, now: Duration) {
        let mut downloads = self.downloads.iter_mut();
        if let Some(download) = downloads.find(|download| download.item == *item) {
            self.traffic += downloaded.saturating_sub(download.received);
            download.received = downloaded;
            download.rate.note(now, downloaded);
        }
    }

    /// The item is unpacked, after a download of this size.
    fn finish(&mut self, item: &StorePath, downloaded: u64, deduplicated: u64, now: Duration) {
        self.last_fetched = None;
        let Some(download) = self.remove(item) else {
            return;
        };
        self.count(download.counted, downloaded);
        self.traffic += downloaded.saturating_sub(download.received);

        let fetched = FetchedItem {
            name: item.name().to_owned(),
            method: download.method,
            downloaded,
            duration: now.saturating_sub(download.started),
            server: self.fetched.servers[download.server_place].url.clone(),
        };
        self.fetched
            .add(download.server_place, &fetched, deduplicated);
        self.last_fetched = Some(fetched);
    }

    /// It may be an item whose references failed, and still be on its way.
    fn fail(&mut self, item: &StorePath) {
        let mut downloads = self.downloads.iter_mut();
        if let Some(download) = downloads.find(|download| download.item == *item) {
            (download.received, download.has_failed) = (0, true);
        }
    }

    fn remove(&mut self, item: &StorePath) -> Option<ActiveDownload> {
        let mut downloads = self.downloads.iter();
        let place = downloads.position(|download| download.item == *item)?;
        Some(self.downloads.remove(place))
    }

    /// What counted for `before` bytes turns out to be `now` bytes.
    fn count(&mut self, before: u64, now: u64) {
        if let Some(planned) = &mut self.planned {
            planned.bytes = planned.bytes.saturating_sub(before).saturating_add(now);
        }
    }

    /// How far everything is; `None` when nothing is being fetched.
    pub(super) fn progress(&self, now: Duration) -> Option<FetchProgress> {
        self.planned
            .filter(|_| self.is_fetching)
            .map(|planned| self.progress_of(planned, now))
    }

    /// How far everything is or was in the end; `None` when nothing was to be fetched.
    pub(super) fn last_progress(&self, now: Duration) -> Option<FetchProgress> {
        self.planned.map(|planned| self.progress_of(planned, now))
    }

    fn progress_of(&self, planned: PlannedTotals, now: Duration) -> FetchProgress {
        let under_way: u64 = self
            .downloads
            .iter()
            .map(|download| download.received)
            .sum();
        let bytes_done = self.fetched.downloaded + under_way;
        let bytes = planned.bytes.max(bytes_done);
        let bytes_per_second = self.rate.rate(now, self.traffic);

        let left = bytes - bytes_done;
        let seconds_left = bytes_per_second
            .filter(|rate| *rate >= 1.0 && left > 0)
            .map(|rate| Duration::try_from_secs_f64(left as f64 / rate))
            .and_then(Result::ok)
            .map(|duration| duration.as_secs() + u64::from(duration.subsec_nanos() > 0));
        FetchProgress {
            items_done: self.fetched.items,
            items: planned.items,
            bytes_done,
            bytes,
            bytes_per_second,
            seconds_left,
        }
    }

    /// The downloads under way, in the order in which they started.
    pub(super) fn downloads(&self) -> impl Iterator<Item = &ActiveDownload> {
        self.downloads
            .iter()
            .filter(|download| !download.has_failed)
    }

    /// What was fetched so far.
    pub(super) fn fetched(&self) -> &FetchTotals {
        &self.fetched
    }

    /// The item of the last [`ProgressEvent::Unpacked`].
    pub(super) fn last_fetched(&self) -> Option<&FetchedItem> {
        self.last_fetched.as_ref()
    }
}

/// The servers in few words, such as `a.example 120, b.example down`.
fn servers_line(servers: &[ServerProgress<'_>]) -> String {
    let words = servers.iter().map(|server| {
        let name = printable(short_address(server.url));
        match (server.state, server.waiting) {
            ("not-asked", 0) => format!("{name} not used"),
            ("not-asked", _) => format!("{name} silent"),
            ("up", _) => format!("{name} {}", server.answered),
            (state, _) => format!("{name} {state}"),
        }
    });

    words.collect::<Vec<_>>().join(", ")
}

/// What is shown in place of downloads, if `event` says that.
fn status_text(event: &ProgressEvent<'_>) -> Option<String> {
    match event {
        ProgressEvent::Preparing {
            items,
            waited,
            limit,
            ..
        } => Some(wait_text(*items, *waited, *limit)),
        ProgressEvent::Verifying(progress) => Some(verify_text(progress)),
        ProgressEvent::Comparing(progress) => Some(compare_text(progress)),
        ProgressEvent::Mirroring(progress) => Some(mirror_text(progress)),
        _ => None,
    }
}

/// Such as `verified 1.2/75.6 MiB, 3/15 items`.
fn verify_text(progress: &VerifyProgress) -> String {
    let amount = part_of_bytes(progress.bytes, progress.expected_bytes);
    let (done, items) = (progress.items, progress.expected_items);
    format!("verified {amount}, {done}/{items} items")
}

/// Such as `compared 3/15 items, 30/45 answers, 75.6 MiB read`.
fn compare_text(progress: &ComparisonProgress) -> String {
    let ComparisonProgress {
        items,
        expected_items,
        answers,
        expected_answers,
        ..
    } = progress;
    let read = output::bytes(progress.bytes);
    format!(
        "compared {items}/{expected_items} items, {answers}/{expected_answers} answers, {read} read"
    )
}

/// Such as `copied 1.2/75.6 MiB, 3/15 items`.
fn mirror_text(progress: &MirrorProgress) -> String {
    let expected = progress.expected_bytes.max(progress.bytes);
    let amount = part_of_bytes(progress.bytes, expected);
    let (done, items) = (progress.items, progress.expected_items);
    format!("copied {amount}, {done}/{items} items")
}

#[cfg(test)]
mod tests;
