//! The items of a run: each once, by its place and by its hash part.
//!
//! Servers answer for a hash part, which items with different names may share: those are linked
//! to each other, so that every answer reaches all of them.

use std::collections::HashMap;
use std::ops::{Index, IndexMut};

use crate::format::store_path::{HashPart, StorePath};
use crate::substitute::lookup::item::LookupItem;

/// The place of an item among those of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ItemIndex(u32);

#[cfg(test)]
impl ItemIndex {
    pub(super) const fn at(place: u32) -> Self {
        Self(place)
    }
}

/// An item, and who waits for it.
pub(super) struct ItemRecord {
    pub(super) lookup: LookupItem,
    /// Requests that wait for it; empty when decided.
    pub(super) waiting: Vec<usize>,
    pub(super) is_decided: bool,
    /// When it was decided, in Unix seconds.
    pub(super) decided_at: u64,
    /// Another item with the same hash part and another name.
    same_hash_part_item: Option<ItemIndex>,
}

/// All items of a run. They are never removed.
#[derive(Default)]
pub(super) struct LookupItems {
    records: Vec<ItemRecord>,
    by_hash_part: HashMap<HashPart, ItemIndex>,
}

impl LookupItems {
    /// Adds an item that is not among them.
    pub(super) fn insert(&mut self, lookup: LookupItem) -> ItemIndex {
        let count = u32::try_from(self.records.len()).expect("a run has fewer than 2^32 items");
        let item = ItemIndex(count);
        let same_hash_part_item = self.by_hash_part.insert(lookup.path.hash_part(), item);

        self.records.push(ItemRecord {
            lookup,
            waiting: Vec::new(),
            is_decided: false,
            decided_at: 0,
            same_hash_part_item,
        });
        item
    }

    /// The item with this name.
    pub(super) fn find(&self, path: &StorePath) -> Option<ItemIndex> {
        self.sharing(&path.hash_part())
            .find(|&item| self[item].lookup.path == *path)
    }

    /// Every item with this hash part.
    pub(super) fn with_hash_part(&self, hash_part: &HashPart) -> Vec<ItemIndex> {
        self.sharing(hash_part).collect()
    }

    fn sharing(&self, hash_part: &HashPart) -> impl Iterator<Item = ItemIndex> {
        let first = self.by_hash_part.get(hash_part).copied();
        std::iter::successors(first, |&item| self[item].same_hash_part_item)
    }

    /// The places of all items.
    pub(super) fn indices(&self) -> impl Iterator<Item = ItemIndex> + use<> {
        let count = u32::try_from(self.records.len()).unwrap_or(u32::MAX);
        (0..count).map(ItemIndex)
    }

    /// The items that are not decided.
    pub(super) fn undecided(&self) -> impl Iterator<Item = (ItemIndex, &ItemRecord)> {
        let items = self.indices().zip(&self.records);
        items.filter(|(_, record)| !record.is_decided)
    }
}

impl Index<ItemIndex> for LookupItems {
    type Output = ItemRecord;

    fn index(&self, item: ItemIndex) -> &ItemRecord {
        &self.records[item.0 as usize]
    }
}

impl IndexMut<ItemIndex> for LookupItems {
    fn index_mut(&mut self, item: ItemIndex) -> &mut ItemRecord {
        &mut self.records[item.0 as usize]
    }
}
