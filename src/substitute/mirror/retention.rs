//! Which items of a mirror a collection removes, and in which order. Pure.
//!
//! What a kept item refers to is kept. Items whose references form a circle are kept too: no order would
//! remove them without a hole, and copies do not write them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use super::key::MirrorKey;
use crate::format::store_path::{HashPart, StorePath};

/// What is to be kept. Without any of these, everything is.
#[derive(Debug, Default)]
pub(crate) struct MirrorRetention {
    /// These items.
    pub(crate) items: Option<HashSet<HashPart>>,
    /// Items whose narinfos were written at this time, in Unix seconds, or later.
    pub(crate) since: Option<u64>,
    /// Of the others, the newest that fit into so many bytes with them.
    pub(crate) max_bytes: Option<u64>,
}

/// An item of a mirror.
pub(super) struct RetainedItem {
    pub(super) path: StorePath,
    /// When its narinfo was written, in Unix seconds.
    pub(super) modified: u64,
    /// Bytes of its narinfo.
    pub(super) bytes: u64,
    pub(super) references: Vec<HashPart>,
    pub(super) nars: Vec<MirrorKey>,
}

/// The items that are removed, by their places: referrers before what they refer to. All of one group can
/// go at the same time.
pub(super) struct Removals {
    pub(super) groups: Vec<Vec<usize>>,
    /// Bytes of the items that stay.
    pub(super) left_bytes: u64,
}

/// What goes of `items`, whose nars have these `sizes`.
pub(super) fn removals(
    items: &[RetainedItem],
    sizes: &HashMap<MirrorKey, u64>,
    retention: &MirrorRetention,
) -> Removals {
    let places: HashMap<HashPart, usize> = items
        .iter()
        .enumerate()
        .map(|(place, item)| (item.path.hash_part(), place))
        .collect();
    let references: Vec<Vec<usize>> = items
        .iter()
        .enumerate()
        .map(|(place, item)| {
            let found = item
                .references
                .iter()
                .filter_map(|it| places.get(it).copied());
            let distinct: HashSet<usize> = found.filter(|it| *it != place).collect();
            distinct.into_iter().collect()
        })
        .collect();

    let is_kept = kept(items, &references, retention);
    let mut usage = Usage::of(items, sizes);
    let mut referrers = vec![0_usize; items.len()];
    references
        .iter()
        .flatten()
        .for_each(|place| referrers[*place] += 1);
    let mut depths = vec![0_usize; items.len()];
    let mut groups: Vec<Vec<usize>> = Vec::new();
    // The oldest of those that nothing refers to any more.
    let free = (0..items.len()).filter(|place| referrers[*place] == 0 && !is_kept[*place]);
    let mut next: BinaryHeap<_> = free
        .map(|place| Reverse((items[place].modified, place)))
        .collect();
    while retention.max_bytes.is_none_or(|max| usage.bytes > max) {
        let Some(Reverse((_, place))) = next.pop() else {
            break;
        };
        usage.remove(&items[place], sizes);
        if groups.len() <= depths[place] {
            groups.resize_with(depths[place] + 1, Vec::new);
        }
        groups[depths[place]].push(place);
        for reference in &references[place] {
            depths[*reference] = depths[*reference].max(depths[place] + 1);
            referrers[*reference] -= 1;
            if referrers[*reference] == 0 && !is_kept[*reference] {
                next.push(Reverse((items[*reference].modified, *reference)));
            }
        }
    }
    Removals {
        groups,
        left_bytes: usage.bytes,
    }
}

/// Which items are kept whatever their size.
fn kept(
    items: &[RetainedItem],
    references: &[Vec<usize>],
    retention: &MirrorRetention,
) -> Vec<bool> {
    let MirrorRetention {
        items: named,
        since,
        max_bytes,
    } = retention;
    let keeps_all = named.is_none() && since.is_none() && max_bytes.is_none();
    let mut is_kept = vec![false; items.len()];
    let mut next = Vec::new();
    for (place, item) in items.iter().enumerate() {
        let is_young = since.is_some_and(|since| item.modified >= since);
        let named = named.as_ref();
        let is_named = named.is_some_and(|named| named.contains(&item.path.hash_part()));
        if keeps_all || is_named || is_young {
            next.push(place);
        }
    }

    while let Some(place) = next.pop() {
        if !std::mem::replace(&mut is_kept[place], true) {
            next.extend(&references[place]);
        }
    }
    is_kept
}

/// The bytes of items, each nar counted once.
struct Usage<'a> {
    bytes: u64,
    /// How many items name each nar.
    names: HashMap<&'a MirrorKey, usize>,
}

impl<'a> Usage<'a> {
    fn of(items: &'a [RetainedItem], sizes: &HashMap<MirrorKey, u64>) -> Self {
        let mut usage = Self {
            bytes: 0,
            names: HashMap::new(),
        };
        for item in items {
            usage.bytes = usage.bytes.saturating_add(item.bytes);
            for nar in &item.nars {
                let count = usage.names.entry(nar).or_default();
                *count += 1;
                if *count == 1 {
                    let size = sizes.get(nar).copied().unwrap_or(0);
                    usage.bytes = usage.bytes.saturating_add(size);
                }
            }
        }
        usage
    }

    fn remove(&mut self, item: &RetainedItem, sizes: &HashMap<MirrorKey, u64>) {
        self.bytes = self.bytes.saturating_sub(item.bytes);
        for nar in &item.nars {
            let Some(count) = self.names.get_mut(nar) else {
                continue;
            };
            *count -= 1;
            if *count == 0 {
                let size = sizes.get(nar).copied().unwrap_or(0);
                self.bytes = self.bytes.saturating_sub(size);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(digit: char) -> StorePath {
        StorePath::parse(&format!("{}-x", digit.to_string().repeat(32))).unwrap()
    }

    /// An item of 10 bytes and a nar of 100 that no other one has.
    fn item(digit: char, references: &str, modified: u64) -> RetainedItem {
        RetainedItem {
            path: path(digit),
            modified,
            bytes: 10,
            references: references.chars().map(|it| path(it).hash_part()).collect(),
            nars: vec![MirrorKey::of_nar(&format!("nar/{digit}")).unwrap()],
        }
    }

    fn groups(items: &[RetainedItem], retention: &MirrorRetention) -> (Vec<String>, u64) {
        let nars = items.iter().flat_map(|item| &item.nars);
        let sizes = nars.map(|nar| (nar.clone(), 100)).collect();
        let removals = removals(items, &sizes, retention);
        let digit = |place: &usize| items[*place].path.base().chars().next().unwrap();
        let groups = removals.groups.iter();
        let groups = groups.map(|group| {
            let mut digits: Vec<char> = group.iter().map(digit).collect();
            digits.sort_unstable();
            digits.into_iter().collect()
        });
        (groups.collect(), removals.left_bytes)
    }

    /// a refers to b and c, b to c; d to c; the older ones are first in the alphabet.
    fn sample() -> [RetainedItem; 4] {
        [
            item('a', "abc", 1),
            item('b', "c", 2),
            item('c', "", 3),
            item('d', "c", 4),
        ]
    }

    #[test]
    fn referrers_go_before_what_they_refer_to() {
        let mut retention = MirrorRetention::default();
        assert_eq!(groups(&sample(), &retention), (vec![], 440));
        retention.items = Some(HashSet::new());
        let expected = ["ad", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!(groups(&sample(), &retention), (expected, 0));
        retention.items = Some([path('b').hash_part()].into());
        assert_eq!(groups(&sample(), &retention), (vec!["ad".into()], 220));
    }

    #[test]
    fn what_is_young_is_kept_with_all_that_it_refers_to() {
        let retention = MirrorRetention {
            since: Some(4),
            ..MirrorRetention::default()
        };
        let expected = ["a", "b"].map(str::to_owned).to_vec();
        assert_eq!(groups(&sample(), &retention), (expected, 220));
    }

    #[test]
    fn the_oldest_go_until_the_rest_fits() {
        for (max_bytes, expected, left) in [
            (440, vec![], 440),
            (439, vec!["a"], 330),
            (329, vec!["a", "b"], 220),
            (219, vec!["ad", "b"], 110),
            (0, vec!["ad", "b", "c"], 0),
        ] {
            let retention = MirrorRetention {
                max_bytes: Some(max_bytes),
                ..MirrorRetention::default()
            };
            let expected = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(
                groups(&sample(), &retention),
                (expected, left),
                "{max_bytes}"
            );
        }
    }

    #[test]
    fn a_nar_that_another_item_names_frees_nothing() {
        let mut items = sample();
        items[0].nars = items[2].nars.clone();
        let retention = MirrorRetention {
            max_bytes: Some(330),
            ..MirrorRetention::default()
        };
        let expected = vec!["a".to_owned()];
        assert_eq!(groups(&items, &retention), (expected, 330));
    }

    #[test]
    fn circles_stay() {
        let items = [item('a', "b", 1), item('b', "a", 2), item('c', "a", 3)];
        let retention = MirrorRetention {
            items: Some(HashSet::new()),
            ..MirrorRetention::default()
        };
        assert_eq!(groups(&items, &retention), (vec!["c".to_owned()], 220));
    }
}
