//! What has to be fetched for some items to be valid, references before their referrers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::format::narinfo::Download;
use crate::format::server_url::ServerUrl;
use crate::format::store_path::{StorePath, StorePathRef};
use crate::store::StoreError;
use crate::substitute::closure::store_view::{Inspection, MissingTrees, Present, Skipping};
use crate::substitute::download::choice::{self, Rates};
use crate::substitute::install::ItemError;
use crate::substitute::lookup::{Resolution, Resolver, ServerReport, Walk};
use crate::substitute::network::Network;
use crate::substitute::outcome::{Answer, Authority, Found, LATE, Said, Source, Status};
use crate::substitute::{chain, without_url};
use crate::trust::verdict::AuthorizedNarInfo;

/// Whether what an item refers to is fetched as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum References {
    /// Yes, transitively.
    #[default]
    Fetch,
    /// No: they must be valid already.
    MustBeValid,
}

/// Everything that a plan needs.
pub(crate) struct Planner {
    /// What is there.
    pub(crate) present: Present,
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
    pub(crate) sources: Vec<Source>,
    /// The items of this plan that it refers to.
    pub(crate) needs: Vec<usize>,
}

impl PlannedItem {
    /// The download that is announced for it, and whose it is.
    #[must_use]
    pub(crate) fn download(&self) -> Option<(&Source, &Download)> {
        choice::announced(&self.sources)
    }
}

/// A valid item that cannot be used before others have been fetched again.
#[derive(Debug, Clone)]
pub(crate) struct Incomplete {
    /// The item.
    pub(crate) path: StorePath,
    /// What it refers to, transitively, whose trees are missing.
    pub(crate) gaps: Vec<StorePath>,
}

/// What is to be done for some items to be valid.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Those that are valid already, of those asked for, with everything they refer to.
    pub(crate) valid: Vec<StorePath>,
    /// Those that are valid already, but refer to items whose trees are missing.
    pub(crate) incomplete: Vec<Incomplete>,
    /// What is to be fetched, references first.
    pub(crate) items: Vec<PlannedItem>,
    /// What cannot be had, and what depends on that.
    pub(crate) failed: Vec<(StorePath, ItemError)>,
    /// Everything that was looked up.
    pub(crate) resolution: Resolution,
    /// What was to be done about references.
    pub(crate) references: References,
}

impl Plan {
    /// Bytes of all nars.
    #[must_use]
    pub(crate) fn nar_size(&self) -> u64 {
        total(
            self.items
                .iter()
                .map(|item| item.authorized.narinfo().nar_size()),
        )
    }

    /// Bytes to download, as far as servers say.
    #[must_use]
    pub(crate) fn download_size(&self) -> u64 {
        total(
            self.items
                .iter()
                .filter_map(|item| item.download()?.1.file_size),
        )
    }
}

/// The sum of sizes that others claim: too large for any disk rather than wrapped around.
pub(super) fn total(sizes: impl Iterator<Item = u64>) -> u64 {
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
    ) -> Result<Plan, StoreError> {
        let repairs = repairs(self, references);
        let known = self.present.inspect(paths)?;
        let mut plan = Plan {
            references,
            ..Plan::default()
        };
        let mut wanted = Vec::new();
        for path in paths {
            let is_missing = known.missing().contains(path);
            let gaps = known.gaps(path);
            match self.missing_trees {
                MissingTrees::Report if is_missing => {}
                _ if is_missing || !known.is_recorded(path) => wanted.push(path.clone()),
                _ if repairs && !gaps.is_empty() => {
                    plan.incomplete.push(Incomplete {
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
                let place = self.present.place_of(&path);
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

/// Looks `wanted` up with what else has to be fetched; and inspects what they refer to beyond that.
fn resolve(
    planner: &Planner,
    mut wanted: Vec<StorePath>,
    references: References,
) -> Result<(Resolution, Inspection), StoreError> {
    loop {
        let skipping = Arc::new(Skipping::new(
            planner.present.clone(),
            planner.missing_trees,
        ));
        let walk = match references {
            References::Fetch => Walk::Closure(Some(skipping.skip())),
            References::MustBeValid => Walk::JustThese,
        };
        let resolution = planner.resolver.resolve(wanted.clone(), walk);
        skipping.into_result()?;
        let paths: Vec<StorePath> = resolution
            .items
            .iter()
            .map(|found| found.path.clone())
            .collect();
        planner.present.keep(&paths)?;

        // Valid items are not looked up, so what they refer to has not come up yet.
        let outside = planner.present.inspect(&references_outside(&resolution))?;
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
fn sort_out(planner: &Planner, plan: &mut Plan, outside: &Inspection, references: References) {
    let items = plan.resolution.items.iter().enumerate();
    let links = Links {
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
                state.place(index, &plan.resolution, &links);
            } else if state.placed[index].is_none() {
                state.placed[index] = Some(Placed::Open);
                stack.push((index, true));
                stack.extend(links.needs_of(found).into_iter().map(|need| (need, false)));
            }
        }
    }
    plan.items = state.items;
    plan.failed.extend(state.failed);
}

/// How the items found depend on each other and on what is valid already.
struct Links<'a> {
    by_path: HashMap<StorePathRef<'a>, usize>,
    /// What they refer to and was not found, because it is valid.
    outside: &'a Inspection,
    references: References,
    /// Whether the gaps of `outside` are among the items found.
    repairs: bool,
}

impl Links<'_> {
    /// The items found that have to be in place before `found` can be used.
    fn needs_of(&self, found: &Found) -> Vec<usize> {
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
    fn check_outside(&self, found: &Found) -> Result<(), ItemError> {
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
        References::Fetch => ItemError::Reference(gap),
        References::MustBeValid => ItemError::InvalidReference(gap),
    }
}

/// What `found` refers to, without itself.
fn other_references(found: &Found) -> impl Iterator<Item = StorePathRef<'_>> {
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
    fn place(&mut self, index: usize, resolution: &Resolution, links: &Links<'_>) {
        if !matches!(self.placed[index], Some(Placed::Open)) {
            return;
        }
        let found = &resolution.items[index];
        match self.item(found, &resolution.servers, links) {
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
        found: &Found,
        servers: &[ServerReport],
        links: &Links<'_>,
    ) -> Result<PlannedItem, ItemError> {
        let authority = found.authority.as_ref().and_then(Authority::checked);
        let authorized = Arc::clone(authority.ok_or_else(|| refusal(found, servers))?);
        self.check_reach(&found.sources)?;
        links.check_outside(found)?;
        let mut needs = Vec::new();
        for need in links.needs_of(found) {
            match self.placed[need] {
                Some(Placed::Item(item)) => needs.push(item),
                Some(Placed::Failed) => {
                    let missing = links.by_path.iter().find(|(_, index)| **index == need);
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
    fn check_reach(&self, sources: &[Source]) -> Result<(), ItemError> {
        let Planner {
            network, servers, ..
        } = self.planner;
        let is_reached = |source: &Source| network.reaches(servers[source.server].base());
        if sources.iter().all(is_reached) {
            return Ok(());
        }
        let all = choice::candidates(sources, servers, &Rates::default());
        network.within_reach(all).map(|_| ())
    }
}

/// Why an item without authority cannot be had; `servers` are those that were asked.
#[must_use]
pub(crate) fn refusal(found: &Found, servers: &[ServerReport]) -> ItemError {
    let first = found
        .answers
        .iter()
        .find_map(|Answer { said, .. }| match said {
            Said::Refused(refusal) => Some(refusal.clone()),
            _ => None,
        });
    let why = why(found, servers);
    match (found.status, first) {
        (Status::Refused, Some(first)) => ItemError::Refused { first, why },
        _ if found.is_local_failure() => ItemError::LookupFailed { why },
        (status, _) => ItemError::NotAvailable { status, why },
    }
}

/// What was said, server by server.
fn why(found: &Found, servers: &[ServerReport]) -> Vec<String> {
    let why = found
        .answers
        .iter()
        .zip(servers)
        .filter_map(|(answer, server)| {
            let words = match &answer.said {
                Said::Refused(refusal) => chain(refusal),
                Said::Missing(status) => format!("HTTP status {status}"),
                Said::Baking(_) => "it is being prepared".to_owned(),
                Said::Unreadable(why)
                | Said::Failed(why)
                | Said::LocalFailure(why)
                | Said::Skipped(why)
                | Said::OtherStore(why) => without_url(why).into_owned(),
                Said::Late => LATE.to_owned(),
                Said::Unusable(why) => {
                    format!("its narinfo has no download that can be used: {why}")
                }
                Said::Offline => "not in the lookup cache".to_owned(),
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
