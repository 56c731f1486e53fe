//! Fetches although servers are still preparing items: everything else first, and these later.

use std::collections::HashSet;
use std::sync::Arc;

use crate::format::store_path::StorePath;
use crate::store::StoreError;
use crate::substitute::closure::fetch::{ClosureFetch, FetchOutcome, OnFailure};
use crate::substitute::closure::plan::{FetchPlan, PlanError};
use crate::substitute::closure::planner::Planner;
use crate::substitute::install::{FailureClass, ItemError};
use crate::substitute::lookup::ResolveError;
use crate::substitute::preparation::PreparationWait;
use crate::substitute::progress::ProgressEvent;

impl ClosureFetch {
    /// Carries `plan` for `paths` out like [`ClosureFetch::run`], and again for what servers were
    /// preparing, as long as `wait` allows. What fails for another reason is not tried again; it ends
    /// the waiting, unless the fetch is to go on without it.
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
        // Its failures are those that are not tried again.
        let mut total = FetchOutcome::default();
        let (mut earlier, mut late) = (HashSet::new(), HashSet::new());
        loop {
            let mut preparing = preparing(&plan.failed);
            if !earlier.is_subset(&preparing) {
                wait.restart();
            }
            let is_last = self.is_hopeless(&plan) || !wait.has_time();
            plan.has_successor = !is_last;
            if is_last {
                total.add(self.run(planner, plan, valid));
                return Ok(total);
            }

            let references = plan.references;
            let mut failed = std::mem::take(&mut plan.failed);
            let mut outcome = self.run(planner, plan, valid);
            let later = std::mem::take(&mut outcome.failed);
            total.add(outcome);

            // Narinfos of these were there, but their nars were not any more. They do not count as
            // ready when a server has narinfos again, so that the waiting comes to an end.
            let now_late = self::preparing(&later);
            late.extend(now_late.iter().cloned());
            earlier = preparing.difference(&late).cloned().collect();
            preparing.extend(now_late);
            let goes_on = !later.iter().any(|failure| self.ends_waiting(failure));
            let (given_up, later): (Vec<_>, Vec<_>) = later.into_iter().partition(is_final);
            total.failed.extend(given_up);
            failed.extend(later);

            let goes_on = goes_on && !preparing.is_empty();
            if goes_on {
                wait.wait(preparing.len(), &*self.progress);
            }
            if !goes_on || self.installer.cancel.is_canceled() {
                return Ok(self.end(total, failed, None));
            }

            for path in preparing {
                planner.resolver.discard(path);
            }
            // What depends on items that were being prepared is planned again.
            plan = match planner.plan(paths, references) {
                Ok(plan) => plan,
                Err(PlanError::Store(error)) => return Err(error),
                Err(PlanError::Lookup(error)) => return Ok(self.end(total, failed, Some(error))),
            };
            total.leave_out_of(&mut plan);
        }
    }

    /// Whether nothing of the plan can be had, whatever is waited for.
    fn is_hopeless(&self, plan: &FetchPlan) -> bool {
        let waits = plan.failed.iter().any(|(_, error)| error.is_preparing());
        self.on_failure == OnFailure::Stop
            && (plan.failed.iter().any(is_final) || !(waits || plan.failed.is_empty()))
    }

    /// Whether nothing is waited for after this failure.
    fn ends_waiting(&self, failure: &(StorePath, ItemError)) -> bool {
        let is_of_machine = failure.1.class() >= FailureClass::Local;
        is_final(failure) && (is_of_machine || self.on_failure == OnFailure::Stop)
    }

    /// The outcome of a fetch that waited in vain for what `failed`, for one reason or `another`.
    fn end(
        &self,
        mut total: FetchOutcome,
        mut failed: Vec<(StorePath, ItemError)>,
        another: Option<ResolveError>,
    ) -> FetchOutcome {
        let is_canceled = self.installer.cancel.is_canceled();
        if let Some(why) = another.or(is_canceled.then_some(ResolveError::Interrupted)) {
            replace_preparing(&mut failed, why);
        }
        self.report_failures(&failed);
        self.progress.event(ProgressEvent::Finished);
        total.failed.extend(failed);
        total
    }
}

/// Says of the items of `failed` that servers were preparing why they are not looked up again.
fn replace_preparing(failed: &mut [(StorePath, ItemError)], why: ResolveError) {
    for (_, error) in failed.iter_mut().filter(|(_, it)| it.is_preparing()) {
        *error = why.into();
    }
}

/// Whether waiting does not help.
pub(super) fn is_final((_, error): &(StorePath, ItemError)) -> bool {
    !error.is_preparing() && !matches!(error, ItemError::Reference(_))
}

/// The items of `failed` that servers are preparing.
fn preparing(failed: &[(StorePath, ItemError)]) -> HashSet<StorePath> {
    let preparing = failed.iter().filter(|(_, error)| error.is_preparing());
    preparing.map(|(path, _)| path.clone()).collect()
}

impl FetchPlan {
    /// Takes the items of `given_up` out, and with them what depends on them.
    fn give_up(&mut self, given_up: &[(StorePath, ItemError)]) {
        self.failed
            .retain(|(path, _)| given_up.iter().all(|(gone, _)| gone != path));
        let mut places: Vec<Result<usize, StorePath>> = Vec::new();
        for mut item in std::mem::take(&mut self.items) {
            let path = item.path.clone();
            let needs = item.needs.iter().map(|need| places[*need].clone());
            let needs: Result<Vec<usize>, StorePath> = needs.collect();
            places.push(match needs {
                _ if given_up.iter().any(|(gone, _)| *gone == path) => Err(path),
                Ok(needs) => {
                    item.needs = needs;
                    self.items.push(item);
                    Ok(self.items.len() - 1)
                }
                Err(gone) => {
                    self.failed.push((path.clone(), ItemError::Reference(gone)));
                    Err(path)
                }
            });
        }
    }
}

impl FetchOutcome {
    fn add(&mut self, later: Self) {
        self.valid.extend(later.valid);
        self.registered.extend(later.registered);
        self.failed.extend(later.failed);
        self.replanned.extend(later.replanned);
    }

    /// Removes from a later plan what was reported before, and what is not tried again; and notes what
    /// the plan has beyond the first one.
    fn leave_out_of(&mut self, plan: &mut FetchPlan) {
        plan.give_up(&self.failed);
        let known: HashSet<&StorePath> = self.valid.iter().chain(&self.registered).collect();
        plan.valid.retain(|path| !known.contains(path));
        let items = plan.items.iter().cloned().map(Arc::new);
        self.replanned.extend(items);
    }
}
