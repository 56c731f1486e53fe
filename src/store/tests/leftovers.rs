//! What processes that have ended left in a store is removed when it is opened to be changed.

use std::collections::BTreeSet;

use super::peer::Peer;
use super::*;

/// Larger than any process id.
const PROCESS: &str = "4294967";

/// The text of a file of temp roots of this program.
fn announcement(names: &[&str]) -> String {
    let pairs = names.iter().map(|name| {
        let full = format!("/gnu/store/{HASH_PART}-{name}");
        format!("{full}\0{full}.tmp\0")
    });
    pairs.collect()
}

/// A store with a valid item `valid`, and what a process left that was working on `half`, `placed`
/// and `valid`.
fn store_with_leftovers(root: &Path) -> Layout {
    let store = guix_store(root);
    store
        .write_registrations(&[registration("valid", &[])], NOW)
        .unwrap();
    let layout = store.layout().clone();
    drop(store);

    for tree in ["half.tmp", "placed", "valid", "other.tmp"] {
        let tree = layout.store().join(format!("{HASH_PART}-{tree}"));
        std::fs::create_dir_all(tree.join("directory")).unwrap();
        std::fs::write(tree.join("directory/file"), vec![7; 10_000]).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o555);
        std::fs::set_permissions(tree.join("directory"), mode).unwrap();
    }
    for lock in ["half.lock", "placed.lock"] {
        std::fs::write(layout.store().join(format!("{HASH_PART}-{lock}")), "").unwrap();
    }
    for (tree, entry) in [
        ("placed", "left"),
        ("valid", "used"),
        ("placed", ".tmp-link-4294967-1"),
    ] {
        let file = layout
            .store()
            .join(format!("{HASH_PART}-{tree}/directory/file"));
        std::fs::hard_link(file, layout.links().join(entry)).unwrap();
    }
    std::fs::write(layout.links().join(".tmp-link-1-1"), "").unwrap();
    layout
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = directory.read_dir().unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

fn without_hash(names: BTreeSet<String>) -> BTreeSet<String> {
    let prefix = format!("{HASH_PART}-");
    let names = names.into_iter();
    names.map(|name| name.replace(&prefix, "")).collect()
}

#[test]
fn what_an_ended_process_announced_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let layout = store_with_leftovers(root.path());
    let roots = layout.temp_roots_dir().join(PROCESS);
    std::fs::write(&roots, announcement(&["half", "placed", "valid"])).unwrap();

    // A store opened for reading removes nothing.
    drop(Store::open(layout.clone(), OpenMode::ReadOnly, silent()).unwrap());
    assert!(roots.exists());

    let store = guix_store(root.path());
    assert!(!roots.exists());
    let left = without_hash(names(layout.store()));
    // Nothing announced `other.tmp`.
    assert_eq!(left, set([".links", "other.tmp", "valid"]));
    assert_eq!(names(&layout.links()), set([".tmp-link-1-1", "used"]));
    assert!(store.is_complete(&item("valid")).unwrap());
    remove_tree(layout.store(), item("valid").base()).unwrap();
    remove_tree(layout.store(), &format!("{HASH_PART}-other.tmp")).unwrap();
}

#[test]
fn nothing_of_a_live_process_or_of_another_program_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let layout = store_with_leftovers(root.path());
    let before = names(layout.store());
    let roots = layout.temp_roots_dir();
    let live = roots.join(PROCESS);
    std::fs::write(&live, announcement(&["half"])).unwrap();
    let mut peer = Peer::start();
    assert_eq!(peer.ask("lock-any", &live), "locked");
    // As guix-daemon announces items; and what is no file of temp roots.
    std::fs::write(
        roots.join("4294968"),
        format!("/gnu/store/{HASH_PART}-half\0/gnu/store/{HASH_PART}-placed\0"),
    )
    .unwrap();
    std::fs::write(roots.join("note"), announcement(&["half"])).unwrap();

    drop(guix_store(root.path()));
    assert_eq!(names(&roots), set([PROCESS, "4294968", "note"]));
    assert_eq!(names(layout.store()), before);

    // An item whose lock another process holds stays, with the file that announces it.
    peer.kill();
    let mut other = Peer::start();
    let lock = layout.lock_file(&item("half"));
    assert_eq!(other.ask("lock", &lock), "locked");
    drop(guix_store(root.path()));
    assert_eq!(names(layout.store()), before);
    for tree in ["half.tmp", "placed", "valid", "other.tmp"] {
        remove_tree(layout.store(), &format!("{HASH_PART}-{tree}")).unwrap();
    }
}
