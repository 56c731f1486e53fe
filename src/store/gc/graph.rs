//! All valid items of a store, and which of them need which others. Pure data.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::format::store_path::StorePath;

use super::gc_item::GcItem;
use super::report::ClosureSize;

/// All valid items. An item *needs* what it refers to, and an output needs the derivation that it was
/// built by. Items are named by their positions.
#[derive(Debug)]
pub(in crate::store) struct ItemGraph {
    items: Vec<GcItem>,
    positions: HashMap<StorePath, usize>,
    needs: Vec<Vec<usize>>,
}

impl ItemGraph {
    /// The graph of `items`, where the first of each pair in `edges` needs the second.
    pub(super) fn new(items: Vec<GcItem>, edges: Vec<(usize, usize)>) -> Self {
        let positions = items.iter().enumerate();
        let positions = positions
            .map(|(at, item)| (item.path.clone(), at))
            .collect();
        let mut needs = vec![Vec::new(); items.len()];
        for (from, to) in edges {
            needs[from].push(to);
        }
        Self {
            items,
            positions,
            needs,
        }
    }

    pub(in crate::store) fn items(&self) -> &[GcItem] {
        &self.items
    }

    /// Where `path` is, if it is valid.
    pub(super) fn position(&self, path: &StorePath) -> Option<usize> {
        self.positions.get(path).copied()
    }

    /// For each item the value of the first of `starts` that is the item or needs it, transitively.
    pub(super) fn reached_from(
        &self,
        starts: impl IntoIterator<Item = (usize, usize)>,
    ) -> Vec<Option<usize>> {
        let mut reached = vec![None; self.items.len()];
        let mut stack = Vec::new();
        for (start, value) in starts {
            stack.push(start);
            while let Some(at) = stack.pop() {
                if reached[at].is_none() {
                    reached[at] = Some(value);
                    stack.extend(&self.needs[at]);
                }
            }
        }
        reached
    }

    /// How large the item at `start` is with everything it needs.
    pub(super) fn closure_size(&self, start: usize) -> ClosureSize {
        let reached = self.reached_from([(start, 0)]);
        let closure = self.items.iter().zip(reached);
        let sizes = closure.filter_map(|(item, reached)| reached.map(|_| item.nar_size));
        sizes.fold(ClosureSize::default(), |sum, nar_size| ClosureSize {
            items: sum.items + 1,
            nar_bytes: sum.nar_bytes.saturating_add(nar_size),
        })
    }

    /// All items, oldest first, where an item is as young as the youngest one that needs it. So an
    /// item always comes after those that need it.
    pub(super) fn oldest_first(&self) -> Vec<usize> {
        let mut youngest_first: Vec<usize> = (0..self.items.len()).collect();
        youngest_first.sort_unstable_by_key(|&at| Reverse(self.items[at].registered_at));
        let starts = youngest_first.iter().map(|&at| (at, at));
        let needed_by = self.reached_from(starts);

        let rank = self.ranks();
        let mut order = youngest_first;
        order.sort_by_key(|&at| {
            let youngest = needed_by[at].unwrap_or(at);
            (self.items[youngest].registered_at, Reverse(rank[at]))
        });
        order
    }

    /// Numbers that are lower for an item than for those that need it, unless they need each other.
    fn ranks(&self) -> Vec<usize> {
        let mut ranks = vec![usize::MAX; self.items.len()];
        let mut is_seen = vec![false; self.items.len()];
        let mut next_rank = 0;
        // A stack of its own, because closures are deeper than threads' stacks should have to be.
        let mut stack: Vec<(usize, usize)> = Vec::new();
        for start in 0..self.items.len() {
            if !is_seen[start] {
                is_seen[start] = true;
                stack.push((start, 0));
            }
            while let Some((at, next)) = stack.last_mut() {
                let at = *at;
                let Some(&needed) = self.needs[at].get(*next) else {
                    ranks[at] = next_rank;
                    next_rank += 1;
                    stack.pop();
                    continue;
                };
                *next += 1;
                if !is_seen[needed] {
                    is_seen[needed] = true;
                    stack.push((needed, 0));
                }
            }
        }
        ranks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(registered_at: &[u64], edges: &[(usize, usize)]) -> ItemGraph {
        let items = registered_at.iter().enumerate().map(|(at, time)| {
            let path = StorePath::parse(&format!("{}-item{at}", "a".repeat(32))).unwrap();
            GcItem {
                id: i64::try_from(at).unwrap(),
                path,
                registered_at: *time,
                nar_size: 10,
            }
        });
        ItemGraph::new(items.collect(), edges.to_vec())
    }

    #[test]
    fn an_item_is_as_young_as_the_youngest_that_needs_it() {
        // 0 is old and needed by 1, which is new; 2 is in between and needs 3, which is newer.
        let graph = graph(&[1, 9, 5, 7], &[(1, 0), (2, 3)]);
        assert_eq!(graph.oldest_first(), [2, 3, 1, 0]);
    }

    #[test]
    fn items_of_one_time_come_after_those_that_need_them() {
        let chain: Vec<_> = (0..9).map(|at| (at + 1, at)).collect();
        let graph = graph(&[5; 10], &chain);
        assert_eq!(graph.oldest_first(), (0..10).rev().collect::<Vec<_>>());
        let size = graph.closure_size(3);
        assert_eq!((size.items, size.nar_bytes), (4, 40));
    }

    #[test]
    fn the_first_keeper_counts_and_circles_end() {
        let graph = graph(&[1; 5], &[(0, 1), (1, 2), (2, 0), (3, 2)]);
        let reached = graph.reached_from([(3, 7), (0, 8)]);
        assert_eq!(reached, [Some(7), Some(7), Some(7), Some(7), None]);
        assert_eq!(graph.oldest_first().len(), 5);
    }
}
