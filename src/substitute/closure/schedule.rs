//! When downloads are planned, and what waits for a measurement.
//!
//! The plan is made before the first download and again while the fetch goes on, as rates become
//! known. A large item whose method depends on the line waits a moment until others have measured
//! it: that choice cannot be made up for later.

use std::time::{Duration, Instant};

use crate::substitute::closure::coordinator::{Coordinator, PlannedItemState};
use crate::substitute::closure::downloads::{ItemToDownload, plan_downloads};
use crate::substitute::closure::plan::PlannedItem;
use crate::substitute::progress::ProgressEvent;
use crate::sync::lock;

/// How often the plan is made again, at most,
const REPLANNING_INTERVAL: Duration = Duration::from_millis(100);
/// and so many times what it takes: planning thousands of items is work, too.
const REPLANNING_FACTOR: u32 = 50;
/// How many of the next items are considered for a request ahead of time.
const ITEMS_AHEAD: usize = 64;
/// The longest wait of a large item for a measurement.
const MEASUREMENT_TIME: Duration = Duration::from_millis(300);

impl Coordinator<'_> {
    /// Plans the downloads of the items that are not under way, if that was not done just before or
    /// the line has been measured since then.
    pub(super) fn plan_downloads(&mut self) {
        let started = Instant::now();
        let installer = &self.fetch.installer;
        let rates = installer.rates();
        let has_become_measured = !self.schedule.is_measured && rates.has_measured_line();
        let is_due = self.schedule.next_plan_at.is_none_or(|at| started >= at);
        if !is_due && !has_become_measured {
            return;
        }

        let open = self.items.iter().zip(&self.states).filter(|(_, state)| {
            matches!(
                state,
                PlannedItemState::Waiting | PlannedItemState::Working(_)
            )
        });
        let used_cores = self.schedule.used_cores();
        let cores = rates.available_cores(installer.cores, used_cores);
        let load = installer.in_flight.load(&rates, cores);
        let planned = plan_downloads(
            open.map(|(item, _)| &**item)
                .filter(|item| !installer.in_flight.contains(&item.path))
                .map(ItemToDownload::from),
            &installer.network,
            &rates,
            &load,
        );

        if self.schedule.next_plan_at.is_none() || has_become_measured {
            self.fetch
                .progress
                .event(ProgressEvent::DownloadsPlanned(&planned.summary));
        }
        self.schedule.is_measured |= has_become_measured;
        tracing::debug!(
            cores,
            used_cores,
            seconds = planned.summary.seconds,
            limit = ?planned.summary.limit,
            "downloads planned"
        );
        *lock(&installer.planned_methods) = planned.methods;
        let pause = REPLANNING_INTERVAL.max(started.elapsed() * REPLANNING_FACTOR);
        self.schedule.next_plan_at = Some(Instant::now() + pause);
    }

    /// Requests the nars of the next items, so that they arrive while workers are busy with others.
    pub(super) fn start_ahead(&self) {
        let items_ahead = &self.fetch.items_ahead;
        for index in self.waiting.iter().take(ITEMS_AHEAD) {
            if !items_ahead.has_room() {
                break;
            }
            let item = &self.items[*index];
            items_ahead.start(&item.path, &item.authorized, &item.sources);
        }
    }

    /// The place of the next item in the queue; `None` while what is left waits for a measurement.
    pub(super) fn next_waiting(&self) -> Option<usize> {
        let is_measured =
            self.schedule.is_measured || self.schedule.started.elapsed() >= MEASUREMENT_TIME;
        if is_measured {
            return (!self.waiting.is_empty()).then_some(0);
        }

        let mut waiting = self.waiting.iter();
        let free = waiting.position(|index| !self.waits_for_measurement(&self.items[*index]));
        free.or((self.working == 0 && !self.waiting.is_empty()).then_some(0))
    }

    fn waits_for_measurement(&self, item: &PlannedItem) -> bool {
        let downloads = item.sources.first().map(|source| source.offer.downloads());
        item.nar_size() > self.schedule.large_size && downloads.is_some_and(|all| all.len() > 1)
    }
}
