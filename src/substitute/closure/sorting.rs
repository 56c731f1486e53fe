//! Sorts what was looked up into items to fetch and failures.

use std::collections::HashMap;
use std::sync::Arc;

use crate::format::store_path::{StorePath, StorePathRef};
use crate::substitute::closure::plan::{FetchPlan, PlannedItem, References};
use crate::substitute::closure::store_view::Inspection;
use crate::substitute::download::choice;
use crate::substitute::download::rates::MeasuredRates;
use crate::substitute::install::ItemError;
use crate::substitute::item_lookup::{Authority, ItemLookup, NarSource};
use crate::substitute::lookup::{Resolution, ServerReport};
use crate::substitute::network::Network;

/// What was looked up, sorted.
pub(super) struct SortedItems {
    /// What can be fetched, references first.
    pub(super) items: Vec<PlannedItem>,
    /// What cannot be had, and what depends on that.
    pub(super) failed: Vec<(StorePath, ItemError)>,
}

/// Sorts what was found into items to fetch and failures, references first. Items whose
/// references cannot be had fail with them.
pub(super) fn sort_out(
    network: &Network,
    plan: &FetchPlan,
    outside: &Inspection,
    repairs: bool,
) -> SortedItems {
    let items = plan.resolution.items.iter().enumerate();
    let dependencies = Dependencies {
        by_path: items
            .map(|(index, found)| (found.path.as_ref(), index))
            .collect(),
        outside,
        references: plan.references,
        repairs,
    };

    let mut state = Sorting {
        network,
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

    SortedItems {
        items: state.items,
        failed: state.failed,
    }
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
                    let found = gaps.iter().map(|gap| self.by_path.get(&gap.as_ref()));
                    needs.extend(found.flatten());
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
pub(super) fn unusable(gap: StorePath, references: References) -> ItemError {
    match references {
        References::Fetch => ItemError::Reference(gap),
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
    network: &'a Network,
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
        let authority = found
            .authority
            .as_ref()
            .and_then(Authority::verified_this_run);
        let authorized =
            Arc::clone(authority.ok_or_else(|| ItemError::unavailable(found, servers))?);
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
            is_requested: false,
        })
    }

    /// Whether the item may be downloaded at all: otherwise each that would have to be is reported,
    /// not only the first one that is tried.
    fn check_reach(&self, sources: &[NarSource]) -> Result<(), ItemError> {
        let (network, servers) = (self.network, self.network.servers());
        if sources
            .iter()
            .all(|source| network.reaches(servers[source.server].base()))
        {
            return Ok(());
        }

        let mut all = choice::candidates(sources, servers, &MeasuredRates::default(), None);
        choice::retain_reachable(&mut all, network).map_err(|url| ItemError::offline(&url))
    }
}
