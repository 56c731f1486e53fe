//! Trees that were unpacked before there was a plan, and how much they may take.

use std::collections::{HashMap, HashSet};

use crate::format::store_path::StorePath;
use crate::store::{Checked, ItemLock};
use crate::substitute::install::HeldEvents;

/// Items with larger nars are left to the workers: they would take too long when the plan is there.
const NAR_BYTES_MAX: u64 = 8 << 20;
/// All nars together take one part in 32 of the free space at most.
const SPACE_PART: u64 = 32;
/// How many trees there are at most: for each, the lock of its item is an open file.
const TREES_MAX: usize = 192;

/// Trees that were unpacked before there was a plan.
#[derive(Default)]
pub(super) struct EarlyTrees {
    pub(super) trees: HashMap<StorePath, EarlyTree>,
    /// The items that are being unpacked, and the bytes of their nars.
    pub(super) unpacking: HashMap<StorePath, u64>,
}

/// A verified tree, at its temporary name.
pub(super) struct EarlyTree {
    // Dropped in this order: the tree is removed while it is locked.
    pub(super) checked: Checked,
    pub(super) lock: ItemLock,
    pub(super) events: HeldEvents,
}

impl EarlyTrees {
    /// How large a nar may be that is unpacked now, when there are `free` bytes.
    pub(super) fn room(&self, free: u64) -> u64 {
        if self.trees.len() + self.unpacking.len() >= TREES_MAX {
            return 0;
        }
        let trees = self.trees.values();
        let unpacked = trees.map(|tree| tree.checked.authorized().narinfo().nar_size());
        let used: u64 = unpacked.chain(self.unpacking.values().copied()).sum();
        NAR_BYTES_MAX.min((free / SPACE_PART).saturating_sub(used))
    }

    /// Whether `item` is unpacked, or being unpacked.
    pub(super) fn contains(&self, item: &StorePath) -> bool {
        self.trees.contains_key(item) || self.unpacking.contains_key(item)
    }

    /// Removes all trees but those of the `planned` items.
    pub(super) fn keep_only(&mut self, planned: &HashSet<&StorePath>) {
        self.trees.retain(|item, _| planned.contains(item));
    }

    /// Removes the tree of `item`.
    pub(super) fn discard(&mut self, item: &StorePath) {
        self.trees.remove(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unpacked_early_takes_a_small_part_of_the_free_space() {
        let item = |digit: usize| StorePath::parse(&format!("{digit:032}-item")).unwrap();
        let mut early = EarlyTrees::default();
        assert_eq!(early.room(320 << 20), NAR_BYTES_MAX);
        assert_eq!(early.room(32_000), 1000);

        early.unpacking.insert(item(0), 600);
        assert_eq!(early.room(32_000), 400);
        early.unpacking.insert(item(1), 600);
        assert_eq!(early.room(32_000), 0);

        early.unpacking = (0..TREES_MAX).map(|digit| (item(digit), 1)).collect();
        assert_eq!(early.room(320 << 20), 0);
    }
}
