//! What has to be fetched for some items to be valid, references before their referrers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::format::narinfo::Download;
use crate::format::store_path::{StorePath, StorePathRef};
use crate::store::StoreError;
use crate::substitute::answer::{Answer, Authority, Found, LATE, Said, Source, Status};
use crate::substitute::choose::{self, Rates};
use crate::substitute::install::ItemError;
use crate::substitute::lookup::{Resolution, ServerReport, Walk};
use crate::substitute::{chain, without_url};
use crate::trust::verdict::AuthorizedNarInfo;

use super::present::Skipping;
use super::{Planner, References};

/// An item that is to be fetched.
#[derive(Debug, Clone)]
pub struct PlannedItem {
    /// The item.
    pub path: StorePath,
    /// Who vouches for it.
    pub authorized: Arc<AuthorizedNarInfo>,
    /// Who has it.
    pub sources: Vec<Source>,
    /// The items of this plan that it refers to.
    pub needs: Vec<usize>,
}

impl PlannedItem {
    /// The download that is announced for it, and whose it is.
    #[must_use]
    pub fn download(&self) -> Option<(&Source, &Download)> {
        choose::announced(&self.sources)
    }
}

/// What is to be done for some items to be valid.
#[derive(Debug, Default)]
pub struct Plan {
    /// Those that are valid already, of those asked for.
    pub valid: Vec<StorePath>,
    /// What is to be fetched, references first.
    pub items: Vec<PlannedItem>,
    /// What cannot be had, and what depends on that.
    pub failed: Vec<(StorePath, ItemError)>,
    /// Everything that was looked up.
    pub resolution: Resolution,
}

impl Plan {
    /// Bytes of all nars.
    #[must_use]
    pub fn nar_size(&self) -> u64 {
        total(self.items.iter().map(|item| item.authorized.narinfo().nar_size()))
    }

    /// Bytes to download, as far as servers say.
    #[must_use]
    pub fn download_size(&self) -> u64 {
        total(self.items.iter().filter_map(|item| item.download()?.1.file_size))
    }
}

/// The sum of sizes that others claim: too large for any disk rather than wrapped around.
pub(super) fn total(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.fold(0, u64::saturating_add)
}

pub(super) fn make(
    planner: &Planner,
    paths: &[StorePath],
    references: References,
) -> Result<Plan, StoreError> {
    let valid = planner.present.among(paths)?;
    let wanted: Vec<StorePath> =
        paths.iter().filter(|path| !valid.contains(*path)).cloned().collect();
    let mut plan = Plan {
        valid: paths.iter().filter(|path| valid.contains(*path)).cloned().collect(),
        ..Plan::default()
    };
    if wanted.is_empty() {
        return Ok(plan);
    }
    let skipping = Arc::new(Skipping::new(planner.present.clone()));
    let walk = match references {
        References::Fetch => Walk::Closure(Some(skipping.skip())),
        References::MustBeValid => Walk::JustThese,
    };
    plan.resolution = planner.resolver.resolve(wanted, walk);
    skipping.into_result()?;
    let paths: Vec<StorePath> =
        plan.resolution.items.iter().map(|found| found.path.clone()).collect();
    planner.present.keep(&paths)?;
    let outside = match references {
        References::Fetch => HashSet::new(),
        References::MustBeValid => missing_references(planner, &plan.resolution)?,
    };
    sort_out(planner, &mut plan, &outside);
    Ok(plan)
}

/// References of the items found that are neither valid nor among them.
fn missing_references(
    planner: &Planner,
    resolution: &Resolution,
) -> Result<HashSet<StorePath>, StoreError> {
    let found: HashSet<StorePathRef<'_>> =
        resolution.items.iter().map(|item| item.path.as_ref()).collect();
    let narinfos = resolution.items.iter().filter_map(|item| item.authority.as_ref());
    let references: Vec<StorePath> = narinfos
        .flat_map(|authority| authority.narinfo().references())
        .filter(|path| !found.contains(path))
        .map(StorePathRef::to_path)
        .collect();
    let valid = planner.present.among(&references)?;
    Ok(references.into_iter().filter(|path| !valid.contains(path)).collect())
}

/// Sorts what was found into items to fetch and failures, references first. Items whose
/// references cannot be had fail with them; `outside` are references that are neither valid nor
/// to be fetched.
fn sort_out(planner: &Planner, plan: &mut Plan, outside: &HashSet<StorePath>) {
    let by_path: HashMap<StorePathRef<'_>, usize> = plan
        .resolution
        .items
        .iter()
        .enumerate()
        .map(|(index, found)| (found.path.as_ref(), index))
        .collect();
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
                state.place(index, &plan.resolution, &by_path, outside);
            } else if state.placed[index].is_none() {
                state.placed[index] = Some(Placed::Open);
                stack.push((index, true));
                let needs = needs_of(found, &by_path);
                stack.extend(needs.map(|need| (need, false)));
            }
        }
    }
    plan.items = state.items;
    plan.failed = state.failed;
}

fn needs_of<'a>(
    found: &'a Found,
    by_path: &'a HashMap<StorePathRef<'_>, usize>,
) -> impl Iterator<Item = usize> + 'a {
    let narinfo = found.authority.as_ref().map(Authority::narinfo);
    let references = narinfo.into_iter().flat_map(|narinfo| narinfo.references());
    references
        .filter(|path| *path != found.path.as_ref())
        .filter_map(|path| by_path.get(&path).copied())
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
    fn place(
        &mut self,
        index: usize,
        resolution: &Resolution,
        by_path: &HashMap<StorePathRef<'_>, usize>,
        outside: &HashSet<StorePath>,
    ) {
        if !matches!(self.placed[index], Some(Placed::Open)) {
            return;
        }
        let found = &resolution.items[index];
        match self.item(found, &resolution.servers, by_path, outside) {
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
        by_path: &HashMap<StorePathRef<'_>, usize>,
        outside: &HashSet<StorePath>,
    ) -> Result<PlannedItem, ItemError> {
        let authority = found.authority.as_ref().and_then(Authority::checked);
        let authorized = Arc::clone(authority.ok_or_else(|| refusal(found, servers))?);
        self.check_reach(&found.sources)?;
        let is_missing = |path: &StorePathRef<'_>| outside.contains(&path.to_path());
        if let Some(missing) = authorized.narinfo().references().find(is_missing) {
            return Err(ItemError::InvalidReference(missing.to_path()));
        }
        let mut needs = Vec::new();
        for need in needs_of(found, by_path) {
            match self.placed[need] {
                Some(Placed::Item(item)) => needs.push(item),
                Some(Placed::Failed) => {
                    let missing = by_path.iter().find(|(_, index)| **index == need);
                    let path = missing.map_or_else(|| found.path.clone(), |(p, _)| p.to_path());
                    return Err(ItemError::Reference(path));
                }
                // A circle, which no build can produce; registering it will say so.
                Some(Placed::Open) | None => {}
            }
        }
        let sources = found.sources.clone();
        Ok(PlannedItem { path: found.path.clone(), authorized, sources, needs })
    }

    /// Whether the item may be downloaded at all: otherwise each that would have to be is told,
    /// not only the first one that is tried.
    fn check_reach(&self, sources: &[Source]) -> Result<(), ItemError> {
        let Planner { network, servers, .. } = self.planner;
        let is_reached = |source: &Source| network.reaches(servers[source.server].base());
        if sources.iter().all(is_reached) {
            return Ok(());
        }
        let all = choose::candidates(sources, servers, &Rates::default());
        network.within_reach(all).map(|_| ())
    }
}

/// Why an item without authority cannot be had; `servers` are those that were asked.
#[must_use]
pub fn refusal(found: &Found, servers: &[ServerReport]) -> ItemError {
    let first = found.answers.iter().find_map(|Answer { said, .. }| match said {
        Said::Refused(refusal) => Some(refusal.clone()),
        _ => None,
    });
    let why = why(found, servers);
    match (found.status, first) {
        (Status::Refused, Some(first)) => ItemError::Refused { first, why },
        (status, _) => ItemError::NotAvailable { status, why },
    }
}

/// What was said, server by server.
fn why(found: &Found, servers: &[ServerReport]) -> Vec<String> {
    let why = found.answers.iter().zip(servers).filter_map(|(answer, server)| {
        let words = match &answer.said {
            Said::Refused(refusal) => chain(refusal),
            Said::Missing(status) => format!("HTTP status {status}"),
            Said::Baking(_) => "it is being prepared".to_owned(),
            Said::Unreadable(why)
            | Said::Failed(why)
            | Said::Skipped(why)
            | Said::OtherStore(why) => without_url(why).into_owned(),
            Said::Late => LATE.to_owned(),
            Said::Unusable => "its narinfo names no download that can be used".to_owned(),
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
