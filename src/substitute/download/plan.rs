//! Chooses the compression methods of many items together, so that line and processor are both
//! busy to the end. Pure.
//!
//! A fetch ends no earlier than the line has carried all bytes, the cores have done all work, and
//! the slowest item, which a single core decodes, is done. The plan begins with the smallest download of
//! each item. Then items change to downloads that take less of the processor, those first that
//! save most for a byte, as far as the fetch becomes shorter by it. Items that would be decoded when
//! everything else is done change before. The result is never worse, in these terms, than one method for all.

use std::collections::HashMap;

use crate::format::compression::Compression;
use crate::format::server_list::ServerIndex;
use crate::substitute::download::rates::{DownloadCost, overlapped};

/// The methods chosen for some items.
#[derive(Debug, Clone)]
pub(crate) struct DownloadPlan {
    /// For each item, which of its downloads.
    pub(crate) choices: Vec<usize>,
    /// What they cost together.
    pub(crate) load: PlanLoad,
}

/// What ends last, according to a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlanLimit {
    /// The line.
    Line,
    /// The cores.
    Processor,
    /// The item that takes longest to decode.
    SlowestItem,
}

/// What downloads cost together. Times are in seconds.
#[derive(Debug, Clone)]
pub(crate) struct PlanLoad {
    cores: f64,
    lines: HashMap<ServerIndex, f64>,
    processor: f64,
    slowest: f64,
}

impl PlanLoad {
    /// Nothing, for that many `cores`, or parts of one.
    #[must_use]
    pub(crate) fn new(cores: f64) -> Self {
        Self {
            cores,
            lines: HashMap::new(),
            processor: 0.0,
            slowest: 0.0,
        }
    }

    /// Adds a download.
    pub(crate) fn add(&mut self, cost: &DownloadCost) {
        *self.lines.entry(cost.server).or_default() += cost.line;
        self.processor += cost.processor;
        self.slowest = self.slowest.max(cost.decoding);
    }

    /// Replaces a download by another one, but for the slowest item.
    fn replace(&mut self, old: &DownloadCost, new: &DownloadCost) {
        *self.lines.entry(old.server).or_default() -= old.line;
        *self.lines.entry(new.server).or_default() += new.line;
        self.processor += new.processor - old.processor;
    }

    /// The server whose line takes longest.
    #[must_use]
    pub(crate) fn slowest_line(&self) -> Option<ServerIndex> {
        let lines = self.lines.iter();
        let slowest = lines.max_by(|(_, a), (_, b)| a.total_cmp(b));
        slowest.map(|(server, _)| *server)
    }

    fn line_seconds(&self) -> f64 {
        self.lines.values().copied().fold(0.0, f64::max)
    }

    fn processor_seconds(&self) -> f64 {
        self.processor / self.cores
    }

    /// How long the line and the cores take, the slowest item aside.
    fn shared_seconds(&self) -> f64 {
        overlapped(self.line_seconds(), self.processor_seconds())
    }

    /// How long all of it takes.
    #[must_use]
    pub(crate) fn seconds(&self) -> f64 {
        self.shared_seconds().max(self.slowest * SHARED_CORE)
    }

    /// What ends last.
    #[must_use]
    pub(crate) fn limit(&self) -> PlanLimit {
        let (line, processor) = (self.line_seconds(), self.processor_seconds());
        if self.slowest > line.max(processor) {
            PlanLimit::SlowestItem
        } else if line >= processor {
            PlanLimit::Line
        } else {
            PlanLimit::Processor
        }
    }
}

/// How much longer an item takes to decode than with a core of its own: others are decoded at the same time, and
/// it does not begin at once. If the line is taken for slower than it is, too, nothing makes up for the choice.
const SHARED_CORE: f64 = 1.25;

/// How often items that would be done last are looked for.
const ROUNDS: usize = 4;

/// Chooses one of the downloads of each of `items`, which have at least one each, besides what is
/// `under_way`.
#[must_use]
pub(crate) fn plan(items: &[Vec<DownloadCost>], under_way: &PlanLoad) -> DownloadPlan {
    let mut start: Vec<usize> = items
        .iter()
        .map(|downloads| position_of_least(downloads, |cost| (cost.line, cost.processor)))
        .collect();
    let mut best = shorten(items, &start, under_way);
    for _ in 0..ROUNDS {
        let has_changed = speed_up_slowest(items, &mut start, best.load.shared_seconds());
        if !has_changed {
            break;
        }
        keep_shorter(&mut best, shorten(items, &start, under_way));
    }

    let mut methods: Vec<Compression> = items.iter().flatten().map(|cost| cost.method).collect();
    methods.sort_unstable_by_key(|method| *method as u8);
    methods.dedup();
    for method in methods {
        let choices = items.iter().zip(&best.choices).map(|(downloads, chosen)| {
            let same = downloads.iter().position(|cost| cost.method == method);
            same.unwrap_or(*chosen)
        });
        let uniform = evaluate(items, choices.collect(), under_way);
        keep_shorter(&mut best, uniform);
    }
    best
}

fn keep_shorter(best: &mut DownloadPlan, other: DownloadPlan) {
    if other.load.seconds() < best.load.seconds() {
        *best = other;
    }
}

fn position_of_least(
    downloads: &[DownloadCost],
    key: impl Fn(&DownloadCost) -> (f64, f64),
) -> usize {
    (0..downloads.len())
        .min_by(|a, b| {
            let (a, b) = (key(&downloads[*a]), key(&downloads[*b]));
            a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
        })
        .unwrap_or(0)
}

fn evaluate(
    items: &[Vec<DownloadCost>],
    choices: Vec<usize>,
    under_way: &PlanLoad,
) -> DownloadPlan {
    let mut load = under_way.clone();
    for (downloads, chosen) in items.iter().zip(&choices) {
        load.add(&downloads[*chosen]);
    }
    DownloadPlan { choices, load }
}

/// Changes the choices of items that alone take longer to decode than `seconds` to the next faster
/// downloads; whether there were any.
fn speed_up_slowest(items: &[Vec<DownloadCost>], start: &mut [usize], seconds: f64) -> bool {
    let mut has_changed = false;
    for (downloads, chosen) in items.iter().zip(start) {
        let now = downloads[*chosen].decoding;
        let faster = (0..downloads.len()).filter(|other| downloads[*other].decoding < now);
        let smallest = faster.min_by(|a, b| downloads[*a].line.total_cmp(&downloads[*b].line));
        if let Some(faster) = smallest.filter(|_| now * SHARED_CORE > seconds) {
            *chosen = faster;
            has_changed = true;
        }
    }
    has_changed
}

/// A change of an item to a download that takes less of the processor.
struct Change {
    item: usize,
    download: usize,
    /// Seconds saved on the processor for each one added on the line.
    worth: f64,
}

/// The changes from `start`, the most worthwhile first.
fn changes(items: &[Vec<DownloadCost>], start: &[usize]) -> Vec<Change> {
    let mut changes = Vec::new();
    for (item, downloads) in items.iter().enumerate() {
        let from = &downloads[start[item]];
        for (download, to) in downloads.iter().enumerate() {
            let (saved, added) = (from.processor - to.processor, to.line - from.line);
            if saved > 0.0 {
                let worth = if added > 0.0 {
                    saved / added
                } else {
                    f64::INFINITY
                };
                changes.push(Change {
                    item,
                    download,
                    worth,
                });
            }
        }
    }
    changes.sort_unstable_by(|a, b| b.worth.total_cmp(&a.worth));
    changes
}

/// Makes the most worthwhile changes from `start`: as many as give the shortest fetch.
fn shorten(items: &[Vec<DownloadCost>], start: &[usize], under_way: &PlanLoad) -> DownloadPlan {
    let changes = changes(items, start);
    let first = evaluate(items, start.to_vec(), under_way);
    let (mut load, mut choices) = (first.load.clone(), first.choices);
    let (mut least, mut made) = (load.shared_seconds(), 0);
    for (index, change) in changes.iter().enumerate() {
        if make(items, &mut choices, &mut load, change) && load.shared_seconds() < least {
            (least, made) = (load.shared_seconds(), index + 1);
        }
    }

    let (mut load, mut choices) = (first.load, start.to_vec());
    for change in &changes[..made] {
        make(items, &mut choices, &mut load, change);
    }
    evaluate(items, choices, under_way)
}

/// Makes a change, unless an earlier one has saved more; whether it did.
fn make(
    items: &[Vec<DownloadCost>],
    choices: &mut [usize],
    load: &mut PlanLoad,
    change: &Change,
) -> bool {
    let downloads = &items[change.item];
    let (old, new) = (
        &downloads[choices[change.item]],
        &downloads[change.download],
    );
    if new.processor >= old.processor {
        return false;
    }
    load.replace(old, new);
    choices[change.item] = change.download;
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const METHODS: [(Compression, f64); 3] = [
        (Compression::Lzip, 85e6),
        (Compression::Zstd, 800e6),
        (Compression::Gzip, 360e6),
    ];

    /// The downloads of a nar of `nar_size` bytes, each of a share of it, over a line of `rate`.
    fn downloads(nar_size: f64, shares: &[f64], rate: f64) -> Vec<DownloadCost> {
        let methods = METHODS.iter().zip(shares);
        methods
            .map(|((method, decoder), share)| DownloadCost {
                server: ServerIndex::FIRST,
                method: *method,
                bytes: 0,
                line: nar_size * share / rate,
                decoding: nar_size / decoder,
                processor: nar_size / decoder + nar_size / 410e6,
            })
            .collect()
    }

    /// A closure like that of the benchmark: one item of 500 MB, and 370 MB in a hundred others.
    fn closure(rate: f64) -> Vec<Vec<DownloadCost>> {
        let sizes = std::iter::once(505e6).chain((1..=100).map(|number| number as f64 * 73e3));
        sizes
            .map(|size| downloads(size, &[0.185, 0.215], rate))
            .collect()
    }

    fn count(items: &[Vec<DownloadCost>], plan: &DownloadPlan, method: Compression) -> usize {
        let chosen = items.iter().zip(&plan.choices);
        chosen
            .filter(|(downloads, chosen)| downloads[**chosen].method == method)
            .count()
    }

    #[test]
    fn the_line_decides_what_is_chosen() {
        let nothing = PlanLoad::new(2.0);
        for (rate, lzip) in [(2.5e6, 101..102), (12.5e6, 101..102), (1e9, 0..1)] {
            let items = closure(rate);
            let plan = plan(&items, &nothing);
            let count = count(&items, &plan, Compression::Lzip);
            assert!(lzip.contains(&count), "{rate}: {count} items with lzip");
        }

        // In between the small items keep the line short, and the large one is decoded in time.
        let items = closure(30e6);
        let slower = plan(&items, &nothing);
        assert_eq!(items[0][slower.choices[0]].method, Compression::Zstd);
        assert!(count(&items, &slower, Compression::Lzip) > 30);
        assert_eq!(slower.load.limit(), PlanLimit::Line);

        // The cores keep some time to spare, so that the line does not wait for them.
        let faster = plan(&closure(50e6), &nothing);
        for DownloadPlan { load, .. } in [slower, faster] {
            assert!(
                load.processor_seconds() < 0.9 * load.line_seconds(),
                "{load:?}"
            );
        }
    }

    #[test]
    fn what_is_under_way_counts() {
        let items = vec![downloads(20e6, &[0.185, 0.215], 12.5e6)];
        let mut busy_cores = PlanLoad::new(2.0);
        busy_cores.processor = 10.0;
        let plan_alone = plan(&items, &PlanLoad::new(2.0));
        assert_eq!(
            items[0][plan_alone.choices[0]].method,
            Compression::Lzip,
            "{plan_alone:?}"
        );
        let plan_busy = plan(&items, &busy_cores);
        assert_eq!(items[0][plan_busy.choices[0]].method, Compression::Zstd);
        assert_eq!(plan_busy.load.limit(), PlanLimit::Processor);
    }

    #[test]
    fn without_items_there_is_nothing_to_do() {
        let plan = plan(&[], &PlanLoad::new(2.0));
        assert!(plan.choices.is_empty() && plan.load.seconds() == 0.0);
    }

    fn some_items() -> impl Strategy<Value = Vec<(f64, Vec<f64>)>> {
        let shares = prop::collection::vec(0.01..1.0f64, 1..=3);
        prop::collection::vec((1e3..1e9f64, shares), 0..40)
    }

    proptest! {
        #[test]
        fn a_plan_is_never_worse_than_one_method_for_all(
            sizes in some_items(), rate in 1e5..1e9f64, cores in 1usize..16,
        ) {
            let items: Vec<_> =
                sizes.iter().map(|(size, shares)| downloads(*size, shares, rate)).collect();
            let nothing = PlanLoad::new(cores as f64);
            let planned = plan(&items, &nothing);
            prop_assert_eq!(planned.choices.len(), items.len());

            let again = evaluate(&items, planned.choices.clone(), &nothing);
            prop_assert!((again.load.seconds() - planned.load.seconds()).abs() < 1e-6);
            for method in 0..3 {
                // An item that has no such download takes its first one, which is lzip.
                let uniform = items.iter().map(|it| if method < it.len() { method } else { 0 });
                let uniform = evaluate(&items, uniform.collect(), &nothing);
                if items.iter().all(|it| method < it.len()) {
                    prop_assert!(planned.load.seconds() <= uniform.load.seconds() + 1e-9);
                }
            }
        }

        #[test]
        fn a_plan_takes_at_least_the_lower_bound(
            sizes in some_items(), rate in 1e5..1e9f64, cores in 1usize..16,
        ) {
            let items: Vec<_> =
                sizes.iter().map(|(size, shares)| downloads(*size, shares, rate)).collect();
            let planned = plan(&items, &PlanLoad::new(cores as f64));
            let smallest: f64 = items
                .iter()
                .map(|it| it.iter().map(|cost| cost.line).fold(f64::INFINITY, f64::min))
                .sum();
            let easiest: f64 = items
                .iter()
                .map(|it| it.iter().map(|cost| cost.processor).fold(f64::INFINITY, f64::min))
                .sum();
            prop_assert!(planned.load.seconds() >= smallest.max(easiest / cores as f64) - 1e-9);
        }
    }
}
