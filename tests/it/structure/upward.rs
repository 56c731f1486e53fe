//! No file imports from the root module of its own folder, or of a folder above: `store/lock.rs`
//! not from `store.rs`. The root module declares, re-exports and documents; what the files of a
//! folder share has a file of its own.

use std::collections::BTreeSet;

use super::arrows::{Arrow, arrows, planted};
use super::ratchet::{Allowed, beyond};
use super::source::sources;

/// How many files of each directory import from a root module above them. Lower a number when a
/// file no longer does, and remove the line at 0.
const FILES_IMPORTING_UPWARD: Allowed = &[];

/// The arrows that lead to a root module above, or through its re-exports.
pub(super) fn upward(arrows: &BTreeSet<Arrow>) -> Vec<&Arrow> {
    let mut found: Vec<&Arrow> = arrows
        .iter()
        .filter(|arrow| {
            let ends = arrow.through.iter().chain([&arrow.to]);
            ends.into_iter()
                .any(|file| is_root_above(file, &arrow.from))
        })
        .collect();
    found.sort();
    found
}

/// Is `root` (`store.rs`) the root module of a folder that `file` (`store/lock.rs`) is in?
fn is_root_above(root: &str, file: &str) -> bool {
    let folder = root.trim_end_matches(".rs");
    file.strip_prefix(folder)
        .is_some_and(|rest| rest.starts_with('/'))
}

#[test]
fn no_file_imports_from_the_root_module_of_its_folder() {
    let arrows = arrows(sources());
    let found = upward(&arrows);
    let files: BTreeSet<&str> = found.iter().map(|arrow| &*arrow.from).collect();
    let beyond = beyond(FILES_IMPORTING_UPWARD, &files);
    let lines: Vec<String> = found
        .iter()
        .map(|arrow| format!("  {} uses {}", arrow.from, arrow.item))
        .collect();
    assert!(beyond.is_empty(), "{beyond:?}\n{}", lines.join("\n"));
}

#[test]
fn planted_imports_from_the_root_module_are_found() {
    let files = planted(&[
        ("lib.rs", "mod a;\n"),
        (
            "a.rs",
            "mod b;\nmod c;\npub(crate) struct Own;\npub(crate) use c::Reexported;\n",
        ),
        ("a/b.rs", "mod deep;\nuse super::Own;\n"),
        (
            "a/b/deep.rs",
            "fn f() { crate::a::Reexported::new(); super::super::c::g(); }\n",
        ),
        (
            "a/c.rs",
            "use super::b;\npub(crate) struct Reexported;\nfn g() { b::h() }\n",
        ),
    ]);
    let arrows = arrows(&files);
    let found: Vec<String> = upward(&arrows)
        .iter()
        .map(|arrow| format!("{} uses {}", arrow.from, arrow.item))
        .collect();
    assert_eq!(
        found,
        [
            "a/b.rs uses crate::a::Own",
            "a/b/deep.rs uses crate::a::Reexported"
        ]
    );
}
