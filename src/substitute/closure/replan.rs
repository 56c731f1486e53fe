//! An item is planned again: with another server's build of it, and what that refers to.
//!
//! The new references join the items under way; what is valid or under way already is used as it
//! is. Everything that was unpacked stays.

use std::collections::HashMap;
use std::sync::Arc;

use crate::format::store_path::StorePath;
use crate::store::StoreError;
use crate::substitute::closure::coordinator::{Coordinator, PlannedItemState, Replanning};
use crate::substitute::closure::fetch::TICK;
use crate::substitute::closure::plan::{FetchPlan, PlannedItem, saturating_sum};
use crate::substitute::install::ItemError;
use crate::substitute::item_lookup::Authority;
use crate::substitute::progress::{ProgressEvent, with_ticks};

impl Coordinator<'_> {
    /// Goes on with the item's next build, since that of the plan failed with `error`. The
    /// resolver goes by the next one already.
    pub(super) fn replan(&mut self, index: usize, mut error: ItemError) {
        if matches!(self.states[index], PlannedItemState::Failed) {
            return;
        }
        let item = self.items[index].path.clone();
        loop {
            let plan = match self.plan_again(&item) {
                Ok(plan) => plan,
                Err(store) => return self.fail(index, store.into()),
            };
            if self.fetch.installer.cancel.is_canceled() {
                return self.fail(index, ItemError::Interrupted);
            }
            if plan.valid.contains(&item) {
                return self.becomes_valid(index);
            }
            if plan.items.iter().any(|planned| planned.path == item) {
                return self.adopt(index, plan, error);
            }

            // What the build refers to cannot be had.
            let FetchPlan {
                failed, resolution, ..
            } = plan;
            let found = resolution
                .items
                .into_iter()
                .find(|found| found.path == item);
            let authority = found.and_then(|found| found.authority);
            let why = failed.into_iter().find(|(path, _)| *path == item);
            let (Some(authority), Some((_, why))) = (authority, why) else {
                return self.fail(index, error);
            };
            let narinfo = Arc::clone(Authority::narinfo(&authority));
            self.fetch.resolver.reject(item.clone(), vec![narinfo]);
            error = error.and_then(why);
        }
    }

    fn plan_again(&self, item: &StorePath) -> Result<FetchPlan, StoreError> {
        let Replanning {
            planner,
            references,
        } = self.replanning;
        with_ticks(
            TICK,
            || self.fetch.installer.report_progress(),
            || planner.plan(std::slice::from_ref(item), references),
        )
    }

    /// Takes the item at `index`, and what its plan adds, into what is to be done.
    fn adopt(&mut self, index: usize, plan: FetchPlan, error: ItemError) {
        let earlier = match self.earlier.remove(&index) {
            Some(earlier) => earlier.and_then(error),
            None => error,
        };

        self.earlier.insert(index, earlier);

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
            let planned = Arc::new(PlannedItem { needs, ..planned });
            self.outcome.replanned.push(Arc::clone(&planned));
            if place == index {
                self.items[index] = planned;
                self.states[index] = PlannedItemState::Waiting;
            } else {
                self.items.push(planned);
                self.states.push(PlannedItemState::Waiting);
            }
            self.waiting.push_back(place);
            changed.push(place);
        }

        self.fail_without_references(&changed);
        self.report_plan();
    }

    /// Fails those of `items` that need what has failed already.
    fn fail_without_references(&mut self, items: &[usize]) {
        for &index in items {
            let mut needs = self.items[index].needs.iter();
            let failed = needs.find(|need| matches!(self.states[**need], PlannedItemState::Failed));
            if let Some(&need) = failed {
                let reference = self.items[need].path.clone();
                self.fail(index, ItemError::Reference(reference));
            }
        }
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
