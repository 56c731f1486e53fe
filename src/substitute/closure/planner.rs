//! Finds out what has to be fetched: what the store has, what servers have, in which order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::format::store_path::{StorePath, StorePathRef};
use crate::substitute::closure::ahead::ItemsAhead;
use crate::substitute::closure::plan::{FetchPlan, IncompleteItem, PlanError, References};
use crate::substitute::closure::sorting::{sort_out, unusable};
use crate::substitute::closure::store_view::{
    Inspection, MissingTrees, StoreSkipFilter, StoreView,
};
use crate::substitute::install::ItemError;
use crate::substitute::item_lookup::ItemLookup;
use crate::substitute::lookup::{LookupScope, Resolution, ResolveError, Resolver};
use crate::substitute::network::Network;

/// Everything that a plan needs.
pub(crate) struct Planner {
    /// What is there.
    pub(crate) store_view: StoreView,
    /// What to do about valid items whose trees are missing.
    pub(crate) missing_trees: MissingTrees,
    /// Looks up what the store does not have.
    pub(crate) resolver: Arc<Resolver>,
    /// The servers, and which of them may be used.
    pub(crate) network: Arc<Network>,
}

impl Planner {
    /// Finds out what is missing for `paths` to be valid, and which servers have it.
    ///
    /// # Errors
    /// The store cannot be read, or refuses temp roots; or the lookup ended without a result.
    pub(crate) fn plan(
        &self,
        paths: &[StorePath],
        references: References,
    ) -> Result<FetchPlan, PlanError> {
        self.plan_with(paths, references, None)
    }

    /// The same; `items_ahead` requests and unpacks what will probably be part of the plan as soon as it is looked up.
    ///
    /// # Errors
    /// As for [`Planner::plan`].
    pub(crate) fn plan_and_read_ahead(
        &self,
        paths: &[StorePath],
        references: References,
        items_ahead: &Arc<ItemsAhead>,
    ) -> Result<FetchPlan, PlanError> {
        items_ahead.unpack_during(|| self.plan_with(paths, references, Some(items_ahead)))
    }

    fn plan_with(
        &self,
        paths: &[StorePath],
        references: References,
        items_ahead: Option<&Arc<ItemsAhead>>,
    ) -> Result<FetchPlan, PlanError> {
        let repairs = repairs(self, references);
        let known = self.store_view.inspect(paths)?;
        let mut plan = FetchPlan {
            references,
            ..FetchPlan::default()
        };

        let mut wanted = Vec::new();
        for path in paths {
            let is_missing = known.missing().contains(path);
            let gaps = known.gaps(path);
            match self.missing_trees {
                MissingTrees::Report if is_missing => {}
                _ if is_missing || !known.is_recorded(path) => wanted.push(path.clone()),
                _ if repairs && !gaps.is_empty() => {
                    plan.incomplete.push(IncompleteItem {
                        path: path.clone(),
                        gaps,
                    });
                }
                _ => match gaps.into_iter().next() {
                    None => plan.valid.push(path.clone()),
                    Some(gap) => plan.failed.push((path.clone(), unusable(gap, references))),
                },
            }
        }

        let mut missing = known.missing().clone();
        if repairs {
            let others = known.missing().iter();
            wanted.extend(others.filter(|path| !paths.contains(path)).cloned());
        }

        if !wanted.is_empty() {
            let outside = plan_builds(self, &mut plan, &wanted, items_ahead)?;
            missing.extend(outside.missing().iter().cloned());
        }

        if self.missing_trees == MissingTrees::Report {
            let missing = missing.into_iter().map(|path| {
                let place = self.store_view.place_of(&path);
                (path, ItemError::MissingTree(place))
            });
            plan.failed.extend(missing);
        }
        Ok(plan)
    }
}

/// Whether items that are referred to and whose trees are missing are fetched again.
fn repairs(planner: &Planner, references: References) -> bool {
    planner.missing_trees == MissingTrees::FetchAgain && references == References::Fetch
}

/// Looks `wanted` up with what else has to be fetched, and sorts it into `plan`. An item whose
/// references cannot be had is planned with its next build, as long as there is one: each turn
/// rejects at least one narinfo, so that there are fewer turns than narinfos.
fn plan_builds(
    planner: &Planner,
    plan: &mut FetchPlan,
    wanted: &[StorePath],
    items_ahead: Option<&Arc<ItemsAhead>>,
) -> Result<Inspection, PlanError> {
    let repairs = repairs(planner, plan.references);
    let mut earlier: HashMap<StorePath, ItemError> = HashMap::new();
    loop {
        let (resolution, outside) =
            resolve(planner, wanted.to_vec(), plan.references, items_ahead)?;
        plan.resolution = resolution;
        let sorted = sort_out(&planner.network, plan, &outside, repairs);
        let rejected = reject_builds(planner, plan, &sorted.failed)?;
        if rejected.is_empty() {
            plan.items = sorted.items;
            let requested: HashSet<&StorePath> = wanted.iter().collect();
            for item in &mut plan.items {
                item.is_requested = requested.contains(&item.path);
            }
            for (path, error) in sorted.failed {
                let error = error.after(earlier.remove(&path));
                plan.failed.push((path, error));
            }
            return Ok(outside);
        }

        if let Some(items_ahead) = items_ahead {
            let planned = sorted.items.iter().map(|item| &item.path);
            items_ahead.keep_only(&planned.collect());
        }
        for (path, error) in sorted.failed {
            if rejected.contains(&path) {
                let error = error.after(earlier.remove(&path));
                earlier.insert(path, error);
            }
        }
    }
}

/// Rejects the builds of those `failed` items that have another one, and whose references have not:
/// with those, the items may do as they are. Returns the items.
fn reject_builds(
    planner: &Planner,
    plan: &FetchPlan,
    failed: &[(StorePath, ItemError)],
) -> Result<HashSet<StorePath>, ResolveError> {
    let paths = failed.iter().filter(|(_, error)| error.is_of_reference());
    let paths: Vec<StorePath> = paths.map(|(path, _)| path.clone()).collect();
    if paths.is_empty() || planner.network.servers().len() < 2 {
        return Ok(HashSet::new());
    }

    let found = planner.resolver.resolve_on_all_servers(paths)?.items;
    let found = found.into_iter().map(|found| (found.path.clone(), found));
    let others: HashMap<StorePath, ItemLookup> = found
        .filter(|(_, found)| !found.alternatives.is_empty())
        .collect();

    let mut rejected = HashSet::new();
    for (path, error) in failed {
        let (ItemError::Reference(reference) | ItemError::InvalidReference(reference)) = error
        else {
            continue;
        };
        let has_other = others.contains_key(path) && !others.contains_key(reference);
        let planned = plan.resolution.items.iter().find(|it| it.path == *path);
        let authority = planned.and_then(|found| found.authority.as_ref());
        if let Some(authority) = authority.filter(|_| has_other) {
            tracing::debug!(item = path.base(), "planning another build of the item");
            let narinfo = Arc::clone(authority.narinfo());
            planner.resolver.reject(path.clone(), vec![narinfo]);
            rejected.insert(path.clone());
        }
    }
    Ok(rejected)
}

/// Looks `wanted` up with what else has to be fetched; and inspects what they refer to beyond that.
fn resolve(
    planner: &Planner,
    mut wanted: Vec<StorePath>,
    references: References,
    items_ahead: Option<&Arc<ItemsAhead>>,
) -> Result<(Resolution, Inspection), PlanError> {
    loop {
        let skip_filter = Arc::new(StoreSkipFilter::new(
            planner.store_view.clone(),
            planner.missing_trees,
        ));
        let walk = match references {
            References::Fetch => LookupScope::Closure(Some(skip_filter.skip())),
            References::MustBeValid => LookupScope::ItemsOnly,
        };
        let resolver = &planner.resolver;
        let resolution = resolver.resolve_and_observe(
            wanted.clone(),
            walk,
            items_ahead.map(ItemsAhead::observer),
        );
        let resolution = resolution?;
        skip_filter.into_result()?;
        let paths: Vec<StorePath> = resolution
            .items
            .iter()
            .map(|found| found.path.clone())
            .collect();
        planner.store_view.keep(&paths)?;

        // Valid items are not looked up, so what they refer to has not come up yet.
        let outside = planner
            .store_view
            .inspect(&references_outside(&resolution))?;
        let known: HashSet<&StorePath> = paths.iter().chain(&wanted).collect();
        let gaps: Vec<StorePath> = outside
            .missing()
            .iter()
            .filter(|path| !known.contains(path))
            .cloned()
            .collect();
        if gaps.is_empty() || !repairs(planner, references) {
            return Ok((resolution, outside));
        }
        wanted.extend(gaps);
    }
}

/// What the items found refer to without being found themselves.
fn references_outside(resolution: &Resolution) -> Vec<StorePath> {
    let found: HashSet<StorePathRef<'_>> = resolution
        .items
        .iter()
        .map(|item| item.path.as_ref())
        .collect();
    let narinfos = resolution
        .items
        .iter()
        .filter_map(|item| item.authority.as_ref());
    let references: HashSet<StorePath> = narinfos
        .flat_map(|authority| authority.narinfo().references())
        .filter(|path| !found.contains(path))
        .map(StorePathRef::to_path)
        .collect();
    references.into_iter().collect()
}
