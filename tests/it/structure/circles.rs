//! No files import from each other in a circle.

use std::collections::{BTreeMap, BTreeSet};

use super::arrows::{Arrow, arrows, planted};
use super::ratchet::{Allowed, beyond};
use super::source::sources;

/// How many files of each directory are in circles. Lower a number when a circle is gone, and
/// remove the line at 0.
const FILES_IN_CIRCLES: Allowed = &[];

/// Groups of files that all reach each other, with two members at least.
pub(super) fn circles(arrows: &BTreeSet<Arrow>) -> Vec<BTreeSet<String>> {
    let mut targets: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for arrow in arrows.iter().filter(|arrow| arrow.from != arrow.to) {
        targets.entry(&arrow.from).or_default().insert(&arrow.to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> = targets
        .keys()
        .map(|file| (*file, reachable(file, &targets)))
        .collect();

    let mut found: Vec<BTreeSet<String>> = Vec::new();
    for (file, reached_from_file) in &reached {
        let is_in_circle_with = |other: &&&str| {
            reached
                .get(**other)
                .is_some_and(|reached| reached.contains(file))
        };
        let circle: BTreeSet<String> = reached_from_file
            .iter()
            .filter(is_in_circle_with)
            .map(|file| (*file).to_owned())
            .collect();
        if circle.len() > 1 && !found.contains(&circle) {
            found.push(circle);
        }
    }
    found
}

fn reachable<'a>(
    file: &'a str,
    targets: &BTreeMap<&'a str, BTreeSet<&'a str>>,
) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![file];
    while let Some(file) = open.pop() {
        for target in targets.get(file).into_iter().flatten() {
            if reached.insert(*target) {
                open.push(target);
            }
        }
    }
    reached
}

/// A circle and the arrows inside it, one on each line.
pub(super) fn description(circle: &BTreeSet<String>, arrows: &BTreeSet<Arrow>) -> String {
    let mut text = format!("circle of {} files:\n", circle.len());
    for arrow in arrows {
        let is_inside = circle.contains(&arrow.from) && circle.contains(&arrow.to);
        if is_inside && arrow.from != arrow.to {
            text.push_str(&format!(
                "  {} -> {}: {}\n",
                arrow.from, arrow.to, arrow.item
            ));
        }
    }
    text
}

#[test]
fn no_files_import_from_each_other_in_a_circle() {
    let arrows = arrows(sources());
    let found = circles(&arrows);
    let files: BTreeSet<&str> = found.iter().flatten().map(String::as_str).collect();
    let beyond = beyond(FILES_IN_CIRCLES, &files);
    let descriptions: Vec<String> = found
        .iter()
        .map(|circle| description(circle, &arrows))
        .collect();
    assert!(beyond.is_empty(), "{beyond:?}\n{}", descriptions.join("\n"));
}

#[test]
fn a_planted_circle_is_found() {
    let files = planted(&[
        ("lib.rs", "mod a;\n"),
        ("a.rs", "mod b;\nmod c;\nmod d;\n"),
        ("a/b.rs", "fn f() { super::c::g(); }\n"),
        ("a/c.rs", "use crate::a::{d};\nfn g() { d::h(); }\n"),
        ("a/d.rs", "use super::b::f;\nuse super::c;\n"),
    ]);
    let arrows = arrows(&files);
    let found = circles(&arrows);
    assert_eq!(found.len(), 1, "{arrows:?}");
    assert_eq!(
        found[0],
        ["a/b.rs", "a/c.rs", "a/d.rs"].map(str::to_owned).into()
    );
    assert!(description(&found[0], &arrows).contains("a/d.rs -> a/b.rs: crate::a::b::f\n"));
}

#[test]
fn arrows_without_a_circle_are_not_one() {
    let files = planted(&[
        ("lib.rs", "mod a;\nmod b;\n"),
        ("a.rs", "use crate::b::{C, d};\n"),
        (
            "b.rs",
            "mod d;\npub(crate) struct C;\npub(crate) use d::e;\n",
        ),
        ("b/d.rs", "pub(crate) fn e() { std::process::abort() }\n"),
    ]);
    assert!(circles(&arrows(&files)).is_empty());
}
