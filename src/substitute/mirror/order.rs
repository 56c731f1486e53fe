//! The order in which narinfos are written: each after those of its references. Pure.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// Items that are written as soon as all that they refer to is decided: written, or never to be.
pub(super) struct ReferenceOrder<T> {
    undecided: HashSet<T>,
    /// Items that can be written but for references, and the number of undecided references of each.
    waiting: HashMap<T, usize>,
    referrers: HashMap<T, Vec<T>>,
}

impl<T: Clone + Eq + Hash> ReferenceOrder<T> {
    /// An order for `items`, none of which is decided.
    pub(super) fn new(items: impl IntoIterator<Item = T>) -> Self {
        Self {
            undecided: items.into_iter().collect(),
            waiting: HashMap::new(),
            referrers: HashMap::new(),
        }
    }

    /// Notes that nothing but its `references` keeps `item` from being written: whether they do not
    /// either. References to itself do not count, nor do those that are none of the items.
    pub(super) fn is_next(&mut self, item: &T, references: &[T]) -> bool {
        let mut distinct: HashSet<&T> = references.iter().collect();
        distinct.retain(|reference| *reference != item && self.undecided.contains(reference));
        let count = distinct.len();
        for reference in distinct {
            let referrers = self.referrers.entry(reference.clone()).or_default();
            referrers.push(item.clone());
        }
        if count > 0 {
            self.waiting.insert(item.clone(), count);
        }
        count == 0
    }

    /// Notes that `item` is written, or never will be: the items that have waited for nothing else.
    pub(super) fn decide(&mut self, item: &T) -> Vec<T> {
        self.undecided.remove(item);
        let mut next = Vec::new();
        for referrer in self.referrers.remove(item).unwrap_or_default() {
            let Some(count) = self.waiting.get_mut(&referrer) else {
                continue;
            };
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(&referrer);
                next.push(referrer);
            }
        }
        next
    }

    /// The items that still wait. When there are no others, their references form a circle or lead
    /// to one.
    pub(super) fn waiting(self) -> impl Iterator<Item = T> {
        self.waiting.into_keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_come_before_referrers() {
        let mut order = ReferenceOrder::new(['a', 'b', 'c', 'd']);
        assert!(!order.is_next(&'a', &['b', 'c', 'a']));
        assert!(!order.is_next(&'b', &['c', 'z']));
        assert!(order.is_next(&'c', &[]));
        assert_eq!(order.decide(&'c'), ['b']);
        assert!(order.is_next(&'d', &['c', 'c']));
        assert!(order.decide(&'d').is_empty());
        assert_eq!(order.decide(&'b'), ['a']);
        assert!(order.decide(&'a').is_empty());
        assert_eq!(order.waiting().count(), 0);
    }

    #[test]
    fn circles_keep_waiting_with_what_leads_to_them() {
        let mut order = ReferenceOrder::new(['a', 'b', 'c', 'd']);
        assert!(!order.is_next(&'a', &['b']));
        assert!(!order.is_next(&'b', &['a']));
        assert!(!order.is_next(&'c', &['a']));
        assert!(order.is_next(&'d', &[]));
        assert!(order.decide(&'d').is_empty());
        let mut waiting: Vec<char> = order.waiting().collect();
        waiting.sort_unstable();
        assert_eq!(waiting, ['a', 'b', 'c']);
    }
}
