//! What has to be fetched for some items to be valid, references before their referrers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::format::narinfo::Download;
use crate::format::server_url::ServerUrl;
use crate::format::store_path::{StorePath, StorePathRef};
use crate::store::StoreError;
use crate::substitute::closure::store_view::{
    Inspection, MissingTrees, StoreSkipFilter, StoreView,
};
use crate::substitute::download::choice::{self, MeasuredRates};
use crate::substitute::install::ItemError;
use crate::substitute::lookup::{LookupScope, Resolution, Resolver, ServerReport};
use crate::substitute::network::Network;
use crate::substitute::outcome::{
    Authority, ItemLookup, ItemStatus, LookupOutcome, NOT_AWAITED, NarSource, ServerAnswer,
};
use crate::substitute::{chain, without_url};
use crate::trust::verdict::AuthorizedNarInfo;

/// Whether what an item refers to is fetched as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum References {
    /// Yes, transitively.
    #[default]
    ClosureFetch,
    /// No: they must be valid already.
    MustBeValid,
}

/// Everything that a plan needs.
pub(crate) struct Planner {
    /// What is there.
    pub(crate) store_view: StoreView,
    /// What to do about valid items whose trees are missing.
    pub(crate) missing_trees: MissingTrees,
    /// Who has the rest.
    pub(crate) resolver: Arc<Resolver>,
    /// Whom to reach.
    pub(crate) network: Arc<Network>,
    /// The servers, in the user's order.
    pub(crate) servers: Vec<ServerUrl>,
}

/// An item that is to be fetched.
#[derive(Debug, Clone)]
pub(crate) struct PlannedItem {
    /// The item.
    pub(crate) path: StorePath,
    /// Who vouches for it.
    pub(crate) authorized: Arc<AuthorizedNarInfo>,
    /// Who has it.
    pub(crate) sources: Vec<NarSource>,
    /// The items of this plan that it refers to.
    pub(crate) needs: Vec<usize>,
}

impl PlannedItem {
    /// The download that is announced for it, and whose it is.
    #[must_use]
    pub(crate) fn download(&self) -> Option<(&NarSource, &Download)> {
        choice::announced(&self.sources)
    }
}

/// A valid item that cannot be used before others have been fetched again.
#[derive(Debug, Clone)]
pub(crate) struct IncompleteItem {
    /// The item.
    pub(crate) path: StorePath,
    /// What it refers to, transitively, whose trees are missing.
    pub(crate) gaps: Vec<StorePath>,
}

/// What is to be done for some items to be valid.
#[derive(Debug, Default)]
pub(crate) struct FetchPlan {
    /// Those that are valid already, of those asked for, with everything they refer to.
    pub(crate) valid: Vec<StorePath>,
    /// Those that are valid already, but refer to items whose trees are missing.
    pub(crate) incomplete: Vec<IncompleteItem>,
    /// What is to be fetched, references first.
    pub(crate) items: Vec<PlannedItem>,
    /// What cannot be had, and what depends on that.
    pub(crate) failed: Vec<(StorePath, ItemError)>,
    /// Everything that was looked up.
    pub(crate) resolution: Resolution,
    /// What was to be done about references.
    pub(crate) references: References,
}

impl FetchPlan {
    /// Bytes of all nars.
    #[must_use]
    pub(crate) fn nar_size(&self) -> u64 {
        saturating_sum(
            self.items
                .iter()
                .map(|item| item.authorized.narinfo().nar_size()),
        )
    }

    /// Bytes to download, as far as servers say.
    #[must_use]
    pub(crate) fn download_size(&self) -> u64 {
        saturating_sum(
            self.items
                .iter()
                .filter_map(|item| item.download()?.1.file_size),
        )
    }
}

/// The sum of sizes that others claim: too large for any disk rather than wrapped around.
pub(super) fn saturating_sum(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.fold(0, u64::saturating_add)
}

impl Planner {
    /// Finds out what is missing for `paths` to be valid, and who has it.
    ///
    /// # Errors
    /// The store cannot be read, or refuses temp roots.
    pub(crate) fn plan(
        &self,
        paths: &[StorePath],
        references: References,
    ) -> Result<FetchPlan, StoreError> {
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
            let is_new = |path: &&StorePath| !paths.contains(path);
            wanted.extend(known.missing().iter().filter(is_new).cloned());
        }
        if !wanted.is_empty() {
            let (resolution, outside) = resolve(self, wanted, references)?;
            missing.extend(outside.missing().iter().cloned());
            plan.resolution = resolution;
            sort_out(self, &mut plan, &outside, references);
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
    planner.missing_trees == MissingTrees::FetchAgain && references == References::ClosureFetch
}

/// Looks `wanted` up with what else has to be fetched; and inspects what they refer to beyond that.
fn resolve(
    planner: &Planner,
    mut wanted: Vec<StorePath>,
    references: References,
) -> Result<(Resolution, Inspection), StoreError> {
    loop {
        let skip_filter = Arc::new(StoreSkipFilter::new(
            planner.store_view.clone(),
            planner.missing_trees,
        ));
        let walk = match references {
            References::ClosureFetch => LookupScope::Closure(Some(skip_filter.skip())),
            References::MustBeValid => LookupScope::ItemsOnly,
        };
        let resolution = planner.resolver.resolve(wanted.clone(), walk);
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

/// Sorts what was found into items to fetch and failures, references first. Items whose
/// references cannot be had fail with them.
fn sort_out(planner: &Planner, plan: &mut FetchPlan, outside: &Inspection, references: References) {
    let items = plan.resolution.items.iter().enumerate();
    let dependencies = Dependencies {
        by_path: items
            .map(|(index, found)| (found.path.as_ref(), index))
            .collect(),
        outside,
        references,
        repairs: repairs(planner, references),
    };
    let mut state = Sorting {
        planner,
        placed: vec![None; plan.resolution.items.len()],
        items: Vec::new(),
        failed: Vec::new(),
    };
    for start in 0..plan.resolution.items.len() {
        // An explicit stack: closures can be deeper than the thread's.
        let mut stack = vec![(start, false)];
        while let Some((index, is_expanded)) = stack.pop() {
            let found = &plan.resolution.items[index];
            if is_expanded {
                state.place(index, &plan.resolution, &dependencies);
            } else if state.placed[index].is_none() {
                state.placed[index] = Some(Placed::Open);
                stack.push((index, true));
                stack.extend(
                    dependencies
                        .needs_of(found)
                        .into_iter()
                        .map(|need| (need, false)),
                );
            }
        }
    }
    plan.items = state.items;
    plan.failed.extend(state.failed);
}

/// How the items found depend on each other and on what is valid already.
struct Dependencies<'a> {
    by_path: HashMap<StorePathRef<'a>, usize>,
    /// What they refer to and was not found, because it is valid.
    outside: &'a Inspection,
    references: References,
    /// Whether the gaps of `outside` are among the items found.
    repairs: bool,
}

impl Dependencies<'_> {
    /// The items found that have to be in place before `found` can be used.
    fn needs_of(&self, found: &ItemLookup) -> Vec<usize> {
        let mut needs = Vec::new();
        for reference in other_references(found) {
            match self.by_path.get(&reference) {
                Some(index) => needs.push(*index),
                None if self.repairs => {
                    let gaps = self.outside.gaps(&reference.to_path());
                    let position = |gap: &StorePath| self.by_path.get(&gap.as_ref()).copied();
                    needs.extend(gaps.iter().filter_map(position));
                }
                None => {}
            }
        }
        needs
    }

    /// What `found` refers to cannot be used, and is not to be fetched.
    fn check_outside(&self, found: &ItemLookup) -> Result<(), ItemError> {
        if self.repairs {
            return Ok(());
        }
        for reference in other_references(found).filter(|path| !self.by_path.contains_key(path)) {
            if let Some(gap) = self.outside.gaps(&reference.to_path()).into_iter().next() {
                return Err(unusable(gap, self.references));
            }
        }
        Ok(())
    }
}

/// Something refers to `gap`, which is not fetched.
fn unusable(gap: StorePath, references: References) -> ItemError {
    match references {
        References::ClosureFetch => ItemError::Reference(gap),
        References::MustBeValid => ItemError::InvalidReference(gap),
    }
}

/// What `found` refers to, without itself.
fn other_references(found: &ItemLookup) -> impl Iterator<Item = StorePathRef<'_>> {
    let narinfo = found.authority.as_ref().map(Authority::narinfo);
    let references = narinfo.into_iter().flat_map(|narinfo| narinfo.references());
    references.filter(|path| *path != found.path.as_ref())
}

#[derive(Clone, Copy)]
enum Placed {
    /// On the way down to its references.
    Open,
    /// Is this item of the plan.
    Item(usize),
    /// Cannot be had.
    Failed,
}

struct Sorting<'a> {
    planner: &'a Planner,
    placed: Vec<Option<Placed>>,
    items: Vec<PlannedItem>,
    failed: Vec<(StorePath, ItemError)>,
}

impl Sorting<'_> {
    fn place(&mut self, index: usize, resolution: &Resolution, dependencies: &Dependencies<'_>) {
        if !matches!(self.placed[index], Some(Placed::Open)) {
            return;
        }
        let found = &resolution.items[index];
        match self.item(found, &resolution.servers, dependencies) {
            Ok(item) => {
                self.placed[index] = Some(Placed::Item(self.items.len()));
                self.items.push(item);
            }
            Err(error) => {
                self.placed[index] = Some(Placed::Failed);
                self.failed.push((found.path.clone(), error));
            }
        }
    }

    fn item(
        &self,
        found: &ItemLookup,
        servers: &[ServerReport],
        dependencies: &Dependencies<'_>,
    ) -> Result<PlannedItem, ItemError> {
        let authority = found.authority.as_ref().and_then(Authority::checked);
        let authorized = Arc::clone(authority.ok_or_else(|| refusal(found, servers))?);
        self.check_reach(&found.sources)?;
        dependencies.check_outside(found)?;
        let mut needs = Vec::new();
        for need in dependencies.needs_of(found) {
            match self.placed[need] {
                Some(Placed::Item(item)) => needs.push(item),
                Some(Placed::Failed) => {
                    let missing = dependencies
                        .by_path
                        .iter()
                        .find(|(_, index)| **index == need);
                    let path = missing.map_or_else(|| found.path.clone(), |(p, _)| p.to_path());
                    return Err(ItemError::Reference(path));
                }
                // A circle, which no build can produce; registering it will say so.
                Some(Placed::Open) | None => {}
            }
        }
        let sources = found.sources.clone();
        Ok(PlannedItem {
            path: found.path.clone(),
            authorized,
            sources,
            needs,
        })
    }

    /// Whether the item may be downloaded at all: otherwise each that would have to be is told,
    /// not only the first one that is tried.
    fn check_reach(&self, sources: &[NarSource]) -> Result<(), ItemError> {
        let Planner {
            network, servers, ..
        } = self.planner;
        let is_reached = |source: &NarSource| network.reaches(servers[source.server].base());
        if sources.iter().all(is_reached) {
            return Ok(());
        }
        let all = choice::candidates(sources, servers, &MeasuredRates::default());
        network.within_reach(all).map(|_| ())
    }
}

/// Why an item without authority cannot be had; `servers` are those that were asked.
#[must_use]
pub(crate) fn refusal(found: &ItemLookup, servers: &[ServerReport]) -> ItemError {
    let first = found
        .answers
        .iter()
        .find_map(|ServerAnswer { outcome, .. }| match outcome {
            LookupOutcome::Refused(refusal) => Some(refusal.clone()),
            _ => None,
        });
    let why = why(found, servers);
    match (found.status, first) {
        (ItemStatus::Refused, Some(first)) => ItemError::Refused { first, why },
        _ if found.is_local_failure() => ItemError::LookupFailed { why },
        (status, _) => ItemError::NotAvailable { status, why },
    }
}

/// What was said, server by server.
fn why(found: &ItemLookup, servers: &[ServerReport]) -> Vec<String> {
    let why = found
        .answers
        .iter()
        .zip(servers)
        .filter_map(|(answer, server)| {
            let words = match &answer.outcome {
                LookupOutcome::Refused(refusal) => chain(refusal),
                LookupOutcome::Missing(status) => format!("HTTP status {status}"),
                LookupOutcome::Preparing(_) => "it is being prepared".to_owned(),
                LookupOutcome::Unreadable(why)
                | LookupOutcome::Failed(why)
                | LookupOutcome::LocalFailure(why)
                | LookupOutcome::Skipped(why)
                | LookupOutcome::OtherStore(why) => without_url(why).into_owned(),
                LookupOutcome::NotAwaited => NOT_AWAITED.to_owned(),
                LookupOutcome::Unusable(why) => {
                    format!("its narinfo has no download that can be used: {why}")
                }
                LookupOutcome::Offline => "not in the lookup cache".to_owned(),
                _ => return None,
            };
            Some(format!("{}: {words}", server.url))
        });
    let mut why: Vec<String> = why.collect();
    if servers.is_empty() {
        why.push("no server is configured".to_owned());
    }
    why
}
