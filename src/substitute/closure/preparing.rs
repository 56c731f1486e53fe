//! Fetches although servers are still preparing items: everything else first, and these later.

use std::collections::HashSet;
use std::sync::Arc;

use crate::format::store_path::StorePath;
use crate::store::StoreError;
use crate::substitute::closure::fetch::{ClosureFetch, FetchOutcome, OnFailure};
use crate::substitute::closure::plan::{FetchPlan, PlanError};
use crate::substitute::closure::planner::Planner;
use crate::substitute::install::ItemError;
use crate::substitute::lookup::ResolveError;
use crate::substitute::preparation::PreparationWait;
use crate::substitute::progress::ProgressEvent;

impl ClosureFetch {
    /// Carries `plan` for `paths` out like [`ClosureFetch::run`], and again for what servers were
    /// preparing, as long as `wait` allows. A failure for another reason ends the waiting.
    ///
    /// # Errors
    /// Those of planning.
    pub(crate) fn run_with_waits(
        &self,
        planner: &Planner,
        paths: &[StorePath],
        mut plan: FetchPlan,
        mut wait: PreparationWait,
        valid: &mut dyn FnMut(&StorePath),
    ) -> Result<FetchOutcome, StoreError> {
        let mut total = FetchOutcome::default();
        let mut earlier = HashSet::new();
        loop {
            let preparing = plan.preparing();
            if !earlier.is_subset(&preparing) {
                wait.restart();
            }
            let is_hopeless =
                self.on_failure == OnFailure::Stop && plan.failed.iter().any(is_final);
            if preparing.is_empty() || is_hopeless || !wait.has_time() {
                total.add(self.run(planner, plan, valid));
                return Ok(total);
            }

            let references = plan.references;
            let mut failed = std::mem::take(&mut plan.failed);
            total.add(self.run(planner, plan, valid));
            let has_failed = total.failed.iter().any(is_final);
            if !has_failed {
                // What depends on items that are being prepared is planned again.
                total.failed.clear();
                wait.wait(preparing.len(), &*self.progress);
            }
            if has_failed || self.installer.cancel.is_canceled() {
                self.progress.event(ProgressEvent::Finished);
                if self.installer.cancel.is_canceled() {
                    replace_preparing(&mut failed, ResolveError::Interrupted);
                }
                total.failed.extend(failed);
                return Ok(total);
            }

            for path in &preparing {
                planner.resolver.discard(path.clone());
            }
            earlier = preparing;
            plan = match planner.plan(paths, references) {
                Ok(plan) => plan,
                Err(PlanError::Store(error)) => return Err(error),
                Err(PlanError::Lookup(error)) => {
                    self.progress.event(ProgressEvent::Finished);
                    replace_preparing(&mut failed, error);
                    total.failed.extend(failed);
                    return Ok(total);
                }
            };
            total.leave_out_of(&mut plan);
        }
    }
}

/// Says of the items of `failed` that servers were preparing why they are not looked up again.
fn replace_preparing(failed: &mut [(StorePath, ItemError)], why: ResolveError) {
    for (_, error) in failed.iter_mut().filter(|(_, it)| it.is_preparing()) {
        *error = why.into();
    }
}

/// Whether waiting does not help.
fn is_final((_, error): &(StorePath, ItemError)) -> bool {
    !error.is_preparing() && !matches!(error, ItemError::Reference(_))
}

impl FetchPlan {
    /// The items that servers are preparing.
    fn preparing(&self) -> HashSet<StorePath> {
        let failed = self.failed.iter();
        failed
            .filter(|(_, error)| error.is_preparing())
            .map(|(path, _)| path.clone())
            .collect()
    }
}

impl FetchOutcome {
    fn add(&mut self, later: Self) {
        self.valid.extend(later.valid);
        self.registered.extend(later.registered);
        self.failed.extend(later.failed);
        self.replanned.extend(later.replanned);
    }

    /// Removes from a later plan what was reported before, and notes what the plan has beyond the
    /// first one.
    fn leave_out_of(&mut self, plan: &mut FetchPlan) {
        let known: HashSet<&StorePath> = self.valid.iter().chain(&self.registered).collect();
        plan.valid.retain(|path| !known.contains(path));
        let items = plan.items.iter().cloned().map(Arc::new);
        self.replanned.extend(items);
    }
}
