//! Plans the downloads of the items of a closure together: their compression methods.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::format::compression::Compression;
use crate::format::store_path::StorePath;
use crate::substitute::closure::plan::{PlannedItem, large_size};
use crate::substitute::download::choice;
use crate::substitute::download::plan::{DownloadPlan, PlanLoad, plan};
use crate::substitute::download::rates::{DownloadCost, MeasuredRates};
use crate::substitute::item_lookup::NarSource;
use crate::substitute::network::Network;
use crate::substitute::progress::DownloadSummary;

/// The planned downloads of a closure.
pub(crate) struct ClosureDownloads {
    /// The method of each item.
    pub(crate) methods: HashMap<StorePath, Compression>,
    /// What they are together.
    pub(crate) summary: DownloadSummary,
}

/// Plans the downloads of `items`, besides what is `under_way`.
#[must_use]
pub(crate) fn plan_downloads<'a>(
    items: impl Iterator<Item = &'a PlannedItem>,
    network: &Network,
    rates: &MeasuredRates,
    under_way: &PlanLoad,
) -> ClosureDownloads {
    let mut paths = Vec::new();
    let mut costs: Vec<Vec<DownloadCost>> = Vec::new();
    for item in items {
        let own = choice::candidates(first_source(item, network), network.servers(), rates, None);
        if !own.is_empty() {
            let nar_size = item.nar_size();
            costs.push(own.iter().map(|it| rates.cost(it, nar_size)).collect());
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
    bytes_by_method.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.name().cmp(b.0.name())));

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

/// The server that the item is downloaded from, if it does not fail: the first one, but those that are
/// known to be down or slow come last.
fn first_source<'a>(item: &'a PlannedItem, network: &Network) -> &'a [NarSource] {
    let is_reliable = |source: &NarSource| !network.health().is_unreliable(source.server);
    let first = item.sources.iter().position(is_reliable).unwrap_or(0);
    item.sources.get(first..=first).unwrap_or_default()
}

/// When the plan of a fetch is made again, and from what size on items are large.
pub(super) struct DownloadSchedule {
    pub(super) started: Instant,
    processor_time_at_start: Duration,
    pub(super) next_plan_at: Option<Instant>,
    pub(super) large_size: u64,
    /// Whether the plan knows the rate of the line.
    pub(super) is_measured: bool,
}

impl DownloadSchedule {
    /// How many cores this process has used since the fetch began, on average.
    pub(super) fn used_cores(&self) -> f64 {
        let used = processor_time().saturating_sub(self.processor_time_at_start);
        used.as_secs_f64() / self.started.elapsed().as_secs_f64().max(1e-3)
    }

    pub(super) fn new<'a>(items: impl Iterator<Item = &'a PlannedItem>) -> Self {
        Self {
            started: Instant::now(),
            processor_time_at_start: processor_time(),
            next_plan_at: None,
            large_size: large_size(items),
            is_measured: false,
        }
    }
}

/// The processor time of all threads of this process.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
