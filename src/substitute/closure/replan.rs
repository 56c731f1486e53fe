//! An item is planned again: with another server's build of it, and what that refers to.
//!
//! The new references join the items under way; what is valid or under way already is used as it
//! is. Everything that was unpacked stays.

use std::collections::HashMap;
use std::sync::Arc;

use crate::format::store_path::StorePath;
use crate::substitute::closure::coordinator::{
    Coordinator, PlannedItemState, Replanning, check_space,
};
use crate::substitute::closure::failure::Failure;
use crate::substitute::closure::fetch::TICK;
use crate::substitute::closure::plan::{FetchPlan, PlanError, PlannedItem, saturating_sum};
use crate::substitute::install::ItemError;
use crate::substitute::progress::{ProgressEvent, with_ticks};

impl Coordinator<'_> {
    /// Goes on with the item's next build, since that of the plan failed with `error`; the resolver
    /// has selected the next one already. Returns the items that fail by that.
    ///
    /// # Errors
    /// No other build of the item can be had.
    pub(super) fn replan(
        &mut self,
        index: usize,
        error: ItemError,
    ) -> Result<Vec<Failure>, ItemError> {
        let item = self.items[index].path.clone();
        let plan = self.plan_again(&item)?;
        if self.fetch.installer.cancel.is_canceled() {
            return Err(ItemError::Interrupted);
        }
        if plan.valid.contains(&item) {
            self.becomes_valid(index);
            return Ok(Vec::new());
        }
        if plan.items.iter().any(|planned| planned.path == item) {
            check_space(self.fetch, self.not_started().chain(&plan.items))?;
            return Ok(self.adopt(index, plan, error));
        }

        // What its other builds refer to cannot be had.
        let why = plan.failed.into_iter().find(|(path, _)| *path == item);
        Err(match why {
            Some((_, why)) if why.is_of_reference() => error.and_then(why),
            _ => error,
        })
    }

    /// The items that no worker has had yet.
    fn not_started(&self) -> impl Iterator<Item = &PlannedItem> {
        let waiting = self.waiting.iter().chain(&self.busy);
        waiting.map(|index| &*self.items[*index])
    }

    fn plan_again(&self, item: &StorePath) -> Result<FetchPlan, PlanError> {
        let Replanning {
            planner,
            references,
            ..
        } = self.replanning;
        with_ticks(
            TICK,
            || self.fetch.installer.report_progress(),
            || planner.plan(std::slice::from_ref(item), references),
        )
    }

    /// Takes the item at `index`, and what its plan adds, into what is to be done; what fails, since
    /// its references have failed already.
    fn adopt(&mut self, index: usize, plan: FetchPlan, error: ItemError) -> Vec<Failure> {
        let error = error.after(self.earlier.remove(&index));
        self.earlier.insert(index, error);

        let known: HashMap<StorePath, usize> = self
            .items
            .iter()
            .enumerate()
            .map(|(index, item)| (item.path.clone(), index))
            .collect();
        let mut places = Vec::with_capacity(plan.items.len());
        let mut changed = Vec::new();
        for planned in plan.items {
            let needs = planned
                .needs
                .iter()
                .map(|need: &usize| places[*need])
                .collect();
            let place = known
                .get(&planned.path)
                .copied()
                .unwrap_or(self.items.len());
            places.push(place);
            if place != index && place < self.items.len() {
                continue;
            }
            let is_requested = place == index && self.items[index].is_requested;
            let planned = Arc::new(PlannedItem {
                needs,
                is_requested,
                ..planned
            });
            self.outcome.replanned.push(Arc::clone(&planned));
            if place == index {
                self.discard_ahead(index);
                self.items[index] = planned;
                self.states[index] = PlannedItemState::Waiting;
                // It may not have been started, or wait for another process.
                self.waiting.retain(|waiting| *waiting != index);
                self.busy.retain(|busy| *busy != index);
            } else {
                self.items.push(planned);
                self.states.push(PlannedItemState::Waiting);
            }
            self.waiting.push_back(place);
            changed.push(place);
        }

        self.report_plan();
        self.without_references(&changed)
    }

    /// Those of `items` that need what has failed already.
    fn without_references(&self, items: &[usize]) -> Vec<Failure> {
        let failures = items.iter().filter_map(|&index| {
            let mut needs = self.items[index].needs.iter();
            let failed = needs.find(|need| {
                matches!(
                    self.states[**need],
                    PlannedItemState::Failed | PlannedItemState::Unneeded
                )
            })?;
            let reference = self.items[*failed].path.clone();
            Some((index, ItemError::Reference(reference)))
        });
        failures.collect()
    }

    fn report_plan(&self) {
        let sizes = self
            .items
            .iter()
            .filter_map(|item| item.download()?.1.file_size);
        let download_size = saturating_sum(sizes);
        self.fetch.progress.event(ProgressEvent::Planned {
            items: self.items.len(),
            download_size,
        });
    }
}
