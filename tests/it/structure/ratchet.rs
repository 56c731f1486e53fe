//! Faults that exist, counted by directory: more of them fail a test.

use std::collections::{BTreeMap, BTreeSet};

use super::source::area_of;

/// How many files of each directory may have a fault. A directory that is not named may have none.
pub(super) type Allowed = &'static [(&'static str, usize)];

/// The directories of `files` that have more of them than `allowed`, with both numbers.
pub(super) fn beyond(allowed: Allowed, files: &BTreeSet<&str>) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for file in files {
        *counts.entry(area_of(file)).or_default() += 1;
    }

    let limit = |area: &str| {
        allowed
            .iter()
            .find(|(name, _)| *name == area)
            .map_or(0, |row| row.1)
    };
    counts.retain(|area, count| *count > limit(area));
    counts
        .iter()
        .map(|(area, count)| format!("{area}: {count} files, {} allowed", limit(area)))
        .collect()
}

#[test]
fn more_faults_than_allowed_are_reported() {
    let files = BTreeSet::from(["a.rs", "a/b.rs", "c/d.rs", "e/f.rs"]);
    let found = beyond(&[("a", 1), ("c", 1), ("g", 1)], &files);
    assert_eq!(found, ["a: 2 files, 1 allowed", "e: 1 files, 0 allowed"]);
}
