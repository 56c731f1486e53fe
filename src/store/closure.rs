//! What valid items refer to, transitively, as the database records it.
//!
//! A closure is data: whether the trees of its items are in place is for
//! [`Store::missing_trees`](super::Store::missing_trees) to find out.

use std::collections::{HashMap, HashSet};

use crate::format::store_path::StorePath;

/// Valid items and everything they refer to.
#[derive(Debug, Default)]
pub(crate) struct Closure {
    items: Vec<StorePath>,
    /// The references of each item, by position.
    references: Vec<Vec<usize>>,
    positions: HashMap<StorePath, usize>,
}

impl Closure {
    /// Adds `item`, whose references have or will have these positions.
    pub(super) fn add(&mut self, item: StorePath, references: Vec<usize>) {
        self.positions.insert(item.clone(), self.items.len());
        self.items.push(item);
        self.references.push(references);
    }

    /// All items, each once.
    #[must_use]
    pub(crate) fn items(&self) -> &[StorePath] {
        &self.items
    }

    /// Whether `item` is one of them, and so valid.
    #[must_use]
    pub(crate) fn contains(&self, item: &StorePath) -> bool {
        self.positions.contains_key(item)
    }

    /// Those of `wanted` that `item` refers to, transitively; not `item` itself.
    #[must_use]
    pub(crate) fn reached_from(
        &self,
        item: &StorePath,
        wanted: &HashSet<StorePath>,
    ) -> Vec<StorePath> {
        let Some(&start) = self.positions.get(item) else {
            return Vec::new();
        };
        let mut seen = HashSet::from([start]);
        let mut stack = self.references[start].clone();
        let mut reached = Vec::new();
        while let Some(position) = stack.pop() {
            if seen.insert(position) {
                reached.extend(Some(&self.items[position]).filter(|item| wanted.contains(item)));
                stack.extend(&self.references[position]);
            }
        }
        reached.into_iter().cloned().collect()
    }
}
