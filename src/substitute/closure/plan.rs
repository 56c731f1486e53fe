//! What has to be fetched for some items to be valid, references before their referrers.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::format::narinfo::Download;
use crate::format::store_path::StorePath;
use crate::store::StoreError;
use crate::substitute::download::choice;
use crate::substitute::install::ItemError;
use crate::substitute::item_lookup::NarSource;
use crate::substitute::lookup::{Resolution, ResolveError};
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

/// An item that is to be fetched.
#[derive(Debug, Clone)]
pub(crate) struct PlannedItem {
    /// The item.
    pub(crate) path: StorePath,
    /// Its narinfo, signed by an authorized key.
    pub(crate) authorized: Arc<AuthorizedNarInfo>,
    /// The servers that have it.
    pub(crate) sources: Vec<NarSource>,
    /// The items of this plan that it refers to.
    pub(crate) needs: Vec<usize>,
    /// Whether it is fetched for its own sake, and not only because others refer to it.
    pub(crate) is_requested: bool,
}

impl PlannedItem {
    /// Bytes of its nar.
    #[must_use]
    pub(crate) fn nar_size(&self) -> u64 {
        self.authorized.narinfo().nar_size()
    }

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

/// Why no plan can be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// The store cannot be read, or refuses temp roots.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The lookup of the items ended without a result.
    #[error(transparent)]
    Lookup(#[from] ResolveError),
}

impl From<PlanError> for ItemError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Store(error) => error.into(),
            PlanError::Lookup(error) => error.into(),
        }
    }
}

/// What is to be done for some items to be valid.
#[derive(Debug, Default)]
pub(crate) struct FetchPlan {
    /// Those that are valid already, of those requested, with everything they refer to.
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
    /// Whether a later plan fetches what servers turn out to be preparing.
    pub(crate) has_successor: bool,
}

impl FetchPlan {
    /// Bytes of all nars.
    #[must_use]
    pub(crate) fn nar_size(&self) -> u64 {
        saturating_sum(self.items.iter().map(PlannedItem::nar_size))
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

/// Items of more bytes than this are a good part of all.
pub(super) fn large_size<'a>(items: impl Iterator<Item = &'a PlannedItem>) -> u64 {
    const GOOD_PART: u64 = 64;
    saturating_sum(items.map(PlannedItem::nar_size)) / GOOD_PART
}

/// The order in which workers get the items: the large ones early, the largest before, because one that is left
/// for last is unpacked alone, while line and cores are idle. Those whose nars have arrived take turns with
/// them: they need no line, while large nars are only requested. The rest, which is small, in the order of the
/// plan, references first, so that what is done can be registered soon.
pub(super) fn work_order(
    items: &[Arc<PlannedItem>],
    has_started: impl Fn(&StorePath) -> bool,
) -> VecDeque<usize> {
    let large_size = large_size(items.iter().map(|item| &**item));
    let (started, rest): (Vec<usize>, Vec<usize>) =
        (0..items.len()).partition(|&index| has_started(&items[index].path));
    let (mut large, rest): (Vec<usize>, Vec<usize>) = rest
        .into_iter()
        .partition(|&index| items[index].nar_size() > large_size);
    large.sort_unstable_by_key(|&index| (Reverse(items[index].nar_size()), index));

    let mut order = VecDeque::with_capacity(items.len());
    let (mut large, mut started) = (large.into_iter(), started.into_iter());
    loop {
        let next = [large.next(), started.next()];
        if next == [None, None] {
            break;
        }
        order.extend(next.into_iter().flatten());
    }
    order.extend(rest);
    order
}
