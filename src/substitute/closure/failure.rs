//! An item cannot be had: what refers to it is planned again with another server's build, or fails
//! with it.
//!
//! Every new plan of an item rejects the build that it had, so there are at most as many plans of
//! an item as there are servers. A reference that cannot be had and that no build in use refers to
//! any more is no failure of the fetch.

use std::collections::HashSet;

use crate::substitute::closure::coordinator::{Coordinator, PlannedItemState};
use crate::substitute::closure::fetch::{OnFailure, TICK};
use crate::substitute::closure::preparing::is_final;
use crate::substitute::install::ItemError;
use crate::substitute::item_lookup::ItemLookup;
use crate::substitute::progress::with_ticks;

/// An item of the plan, and why it cannot be had as planned.
pub(super) type Failure = (usize, ItemError);

impl Coordinator<'_> {
    /// The item cannot be had, and so what refers to it cannot either, unless it has another build.
    pub(super) fn fail(&mut self, index: usize, error: ItemError) {
        self.fail_all(vec![(index, error)]);
    }

    /// The same for several items.
    pub(super) fn fail_all(&mut self, mut failures: Vec<Failure>) {
        let may_replan = self.may_replan(&failures);
        if may_replan {
            self.look_up_referrers(&failures);
        }

        let mut failed = Vec::new();
        while let Some((index, mut error)) = failures.pop() {
            if self.is_settled(index) {
                continue;
            }
            if may_replan && error.is_of_reference() {
                error = match self.plan_next_build(index, error) {
                    Ok(more) => {
                        failures.extend(more);
                        continue;
                    }
                    Err(error) => error,
                };
            }

            self.states[index] = PlannedItemState::Failed;
            self.discard_ahead(index);
            failed.push((index, error));
            let item = &self.items[index].path;
            let referrers = self.referrers(index).into_iter().rev();
            failures.extend(referrers.map(|it| (it, ItemError::Reference(item.clone()))));
        }
        self.record(failed);
    }

    /// Whether other servers may help with any of `failures`.
    fn may_replan(&self, failures: &[Failure]) -> bool {
        self.replanning.planner.network.servers().len() > 1
            && !self.has_stopped
            && !self.fetch.installer.cancel.is_canceled()
            && failures
                .iter()
                .any(|(_, error)| error.allows_another_build())
    }

    /// Looks up on all servers, side by side, whatever depends on the items of `failures`.
    fn look_up_referrers(&self, failures: &[Failure]) {
        let mut dependents = HashSet::new();
        let mut stack: Vec<usize> = failures.iter().map(|(index, _)| *index).collect();
        while let Some(index) = stack.pop() {
            let referrers = self.referrers(index).into_iter();
            stack.extend(referrers.filter(|referrer| dependents.insert(*referrer)));
        }

        let paths = dependents.into_iter().map(|it| self.items[it].path.clone());
        let paths = paths.collect();
        with_ticks(
            TICK,
            || self.fetch.installer.report_progress(),
            || drop(self.fetch.resolver.resolve_on_all_servers(paths)),
        );
    }

    /// The items that refer to the one at `index`, with the build that they are planned with.
    fn referrers(&self, index: usize) -> Vec<usize> {
        let items = self.items.iter().enumerate();
        let referrers = items.filter(|(_, item)| item.needs.contains(&index));
        referrers.map(|(referrer, _)| referrer).collect()
    }

    /// Plans the item with another server's build, since a reference of the one that it has cannot
    /// be had; what fails by that.
    fn plan_next_build(
        &mut self,
        index: usize,
        error: ItemError,
    ) -> Result<Vec<Failure>, ItemError> {
        let item = &self.items[index];
        let (path, narinfo) = (item.path.clone(), item.authorized.narinfo().clone());
        let resolver = &self.fetch.resolver;
        let found = resolver.resolve_on_all_servers(vec![path.clone()])?.items;
        let mut builds = found.into_iter().flat_map(ItemLookup::builds);
        if builds.all(|build| build.authority.narinfo().is_equivalent(&narinfo)) {
            return Err(error);
        }

        tracing::debug!(item = path.base(), "planning another build of the item");
        resolver.reject(path, vec![narinfo]);
        self.replan(index, error)
    }

    /// Whether nothing more will be done for the item.
    pub(super) fn is_settled(&self, index: usize) -> bool {
        matches!(
            self.states[index],
            PlannedItemState::Valid | PlannedItemState::Failed | PlannedItemState::Unneeded
        )
    }

    /// Reports what has failed and is needed.
    fn record(&mut self, failed: Vec<Failure>) {
        let needed = self.needed(&failed);
        let is_tried_later =
            self.replanning.has_successor && failed.iter().any(|(_, it)| it.is_preparing());
        for (index, error) in failed {
            let item = &self.items[index].path;
            if !needed.contains(&index) {
                tracing::debug!(item = item.base(), "no build in use refers to the item");
                self.states[index] = PlannedItemState::Unneeded;
                continue;
            }

            let error = error.after(self.earlier.remove(&index));
            let failure = (self.items[index].path.clone(), error);
            if is_tried_later && !is_final(&failure) {
                self.outcome.failed.push(failure);
                continue;
            }

            self.fetch.report_failures(std::slice::from_ref(&failure));
            self.outcome.failed.push(failure);
            self.has_stopped |= self.fetch.on_failure == OnFailure::Stop;
        }
    }

    /// Those of `failed` that are requested, or that a requested item needs.
    fn needed(&self, failed: &[Failure]) -> HashSet<usize> {
        let now: HashSet<usize> = failed.iter().map(|(index, _)| *index).collect();
        let mut stack: Vec<usize> = now.iter().copied().collect();
        stack.retain(|&index| {
            let mut referrers = self.referrers(index).into_iter();
            self.items[index].is_requested
                || referrers.any(|it| {
                    !now.contains(&it) && matches!(self.states[it], PlannedItemState::Failed)
                })
        });

        let mut needed = HashSet::new();
        while let Some(index) = stack.pop() {
            if needed.insert(index) {
                let needs = self.items[index].needs.iter();
                stack.extend(needs.filter(|need| now.contains(need)));
            }
        }
        needed
    }

    /// Fails what was not started, and what waits for references that never became valid; also because of
    /// a thread that has ended, which is named by its work.
    pub(super) fn give_up_rest(&mut self, ended_thread: Option<&'static str>) {
        let is_canceled = self.fetch.installer.cancel.is_canceled();
        for index in 0..self.items.len() {
            if self.is_settled(index) {
                continue;
            }
            self.states[index] = PlannedItemState::Failed;
            let error = match ended_thread {
                _ if is_canceled => ItemError::Interrupted,
                Some(thread) => ItemError::ThreadEnded(thread),
                None => ItemError::NotTried,
            };
            let path = self.items[index].path.clone();
            self.outcome.failed.push((path, error));
        }
    }
}
