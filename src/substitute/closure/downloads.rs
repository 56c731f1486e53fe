//! Plans the downloads of the items of a closure together: their compression methods.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::format::compression::Compression;
use crate::format::narinfo::Download;
use crate::format::store_path::StorePath;
use crate::substitute::closure::plan::{PlannedItem, large_size};
use crate::substitute::download::choice;
use crate::substitute::download::plan::{DownloadPlan, PlanLoad, plan};
use crate::substitute::download::rates::{DownloadCost, MeasuredRates};
use crate::substitute::item_lookup::NarSource;
use crate::substitute::network::Network;
use crate::substitute::progress::DownloadSummary;

/// What a plan of downloads has to know of an item.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ItemToDownload<'a> {
    /// The item.
    pub(crate) path: &'a StorePath,
    /// The servers that have it.
    pub(crate) sources: &'a [NarSource],
    /// Bytes of its nar.
    pub(crate) nar_size: u64,
}

impl<'a> From<&'a PlannedItem> for ItemToDownload<'a> {
    fn from(item: &'a PlannedItem) -> Self {
        Self {
            path: &item.path,
            sources: &item.sources,
            nar_size: item.nar_size(),
        }
    }
}

/// The planned downloads of a closure.
pub(crate) struct ClosureDownloads {
    /// The method of each item.
    pub(crate) methods: HashMap<StorePath, Compression>,
    /// What they are together.
    pub(crate) summary: DownloadSummary,
}

impl ClosureDownloads {
    /// The planned download of `item`, and the server that it is of; `None` when none was planned.
    #[must_use]
    pub(crate) fn download_of<'a>(
        &self,
        item: ItemToDownload<'a>,
        network: &Network,
    ) -> Option<(&'a NarSource, &'a Download)> {
        let method = self.methods.get(item.path)?;
        let source = first_source(item.sources, network).first()?;
        let downloads = source.offer.downloads().iter();
        let planned = downloads.filter(|download| download.compression.as_ref() == Ok(method));
        let smallest = planned.min_by_key(|download| download.file_size.unwrap_or(u64::MAX));
        Some((source, smallest?))
    }
}

/// Plans the downloads of `items`, besides what is `under_way`.
#[must_use]
pub(crate) fn plan_downloads<'a>(
    items: impl Iterator<Item = ItemToDownload<'a>>,
    network: &Network,
    rates: &MeasuredRates,
    under_way: &PlanLoad,
) -> ClosureDownloads {
    let mut paths = Vec::new();
    let mut costs: Vec<Vec<DownloadCost>> = Vec::new();
    for item in items {
        let own = choice::candidates(
            first_source(item.sources, network),
            network.servers(),
            rates,
            None,
        );
        if !own.is_empty() {
            let costs_of_item = own.iter().map(|it| rates.cost(it, item.nar_size));
            costs.push(costs_of_item.collect());
            paths.push(item.path.clone());
        }
    }

    let DownloadPlan { choices, load } = plan(&costs, under_way);
    let chosen = costs
        .iter()
        .zip(&choices)
        .map(|(own, chosen)| &own[*chosen]);
    let mut bytes: HashMap<Compression, u64> = HashMap::new();
    for cost in chosen.clone() {
        let sum = bytes.entry(cost.method).or_default();
        *sum = sum.saturating_add(cost.bytes);
    }
    let mut bytes_by_method: Vec<(Compression, u64)> = bytes.into_iter().collect();
    bytes_by_method.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.name().cmp(b.0.name())));

    let slowest_line = load.slowest_line().map(|server| rates.line(server));
    ClosureDownloads {
        methods: paths
            .into_iter()
            .zip(chosen.map(|cost| cost.method))
            .collect(),
        summary: DownloadSummary {
            bytes_by_method,
            seconds: load.seconds(),
            limit: load.limit(),
            line: slowest_line.unwrap_or_default(),
        },
    }
}

/// The server that an item is downloaded from, if it does not fail: the first one, but those that are
/// known to be down or slow come last.
fn first_source<'a>(sources: &'a [NarSource], network: &Network) -> &'a [NarSource] {
    let is_reliable = |source: &NarSource| !network.health().is_unreliable(source.server);
    let first = sources.iter().position(is_reliable).unwrap_or(0);
    sources.get(first..=first).unwrap_or_default()
}

/// When the plan of a fetch is made again, and from what size on items are large.
pub(super) struct DownloadSchedule {
    pub(super) started: Instant,
    processor_use: ProcessorUse,
    pub(super) next_plan_at: Option<Instant>,
    pub(super) large_size: u64,
    /// Whether the plan knows the rate of the line.
    pub(super) is_measured: bool,
}

impl DownloadSchedule {
    /// How many cores this process uses, of late.
    pub(super) fn used_cores(&mut self) -> f64 {
        self.processor_use.cores(Instant::now(), processor_time())
    }

    pub(super) fn new<'a>(items: impl Iterator<Item = &'a PlannedItem>) -> Self {
        Self {
            started: Instant::now(),
            processor_use: ProcessorUse::new(Instant::now(), processor_time()),
            next_plan_at: None,
            large_size: large_size(items),
            is_measured: false,
        }
    }
}

/// How much of the processor this process uses. Older times fade.
struct ProcessorUse {
    noted: (Instant, Duration),
    /// Of late, in seconds.
    processor: f64,
    wall: f64,
}

/// How far back the use of the processor counts.
const PROCESSOR_USE_SECONDS: f64 = 0.5;

impl ProcessorUse {
    fn new(now: Instant, processor_time: Duration) -> Self {
        Self {
            noted: (now, processor_time),
            processor: 0.0,
            wall: 0.0,
        }
    }

    /// The cores in use on average, when this process has used `processor_time` in all.
    fn cores(&mut self, now: Instant, processor_time: Duration) -> f64 {
        let wall = now.saturating_duration_since(self.noted.0).as_secs_f64();
        let processor = processor_time.saturating_sub(self.noted.1).as_secs_f64();
        self.noted = (now, processor_time);

        let kept = PROCESSOR_USE_SECONDS / (PROCESSOR_USE_SECONDS + wall);
        self.processor = self.processor * kept + processor;
        self.wall = self.wall * kept + wall;
        self.processor / self.wall.max(1e-3)
    }
}

/// The processor time of all threads of this process.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_use_of_the_processor_is_that_of_late() {
        let start = Instant::now();
        let mut processor_use = ProcessorUse::new(start, Duration::ZERO);
        let seconds = Duration::from_secs;
        assert_eq!(processor_use.cores(start, Duration::ZERO), 0.0);
        assert!(processor_use.cores(start + seconds(10), seconds(1)) < 0.2);

        // Since then both cores are busy.
        let used = (1..=30).map(|tenth| {
            let busy = Duration::from_millis(100 * tenth);
            processor_use.cores(start + seconds(10) + busy, seconds(1) + 2 * busy)
        });
        assert!(used.last().unwrap() > 1.8);
    }
}
