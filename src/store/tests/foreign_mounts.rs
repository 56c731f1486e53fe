//! Stores on an overlay, and mounts inside of stores: as root, in a thread of its own; skipped otherwise.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use nix::mount::{MsFlags, mount};

use super::*;
use crate::format::base32;
use crate::store::remove::remove_tree;
use crate::store::verify::{VerifyScope, VerifyTally, verify};
use crate::testing::on_tmpfs;

/// Runs `test` with the directory of an overlay whose lower layer `prepare` has filled.
fn on_overlay(prepare: impl FnOnce(&Path) + Send, test: impl FnOnce(&Path) + Send) {
    let root = tempfile::tempdir().unwrap();
    on_tmpfs(root.path(), "mode=755", || {
        let layers = ["lower", "upper", "work", "merged"].map(|name| root.path().join(name));
        for layer in &layers {
            std::fs::create_dir(layer).unwrap();
        }
        let [lower, upper, work, merged] = &layers;
        prepare(lower);

        let options = format!(
            "redirect_dir=off,lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        let (none, options) = (MsFlags::empty(), Some(&*options));
        match mount(Some("overlay"), merged, Some("overlay"), none, options) {
            Ok(()) => test(merged),
            Err(error) => eprintln!("skipped: no overlay can be mounted here: {error}"),
        }
    });
}

/// A tree with directories that are nested, empty, and next to one another.
fn make_tree(tree: &Path) {
    for directory in ["a/b/c/d", "a/b/empty", "e", ".moved-0/f"] {
        let directory = tree.join(directory);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("file"), "x").unwrap();
        std::fs::set_permissions(&directory, Permissions::from_mode(0o555)).unwrap();
    }
    std::fs::remove_file(tree.join("a/b/empty/file")).unwrap();
}

#[test]
fn a_tree_of_a_lower_layer_is_removed() {
    on_overlay(
        |lower| make_tree(&lower.join("tree")),
        |merged| {
            // Of both layers.
            make_tree(&merged.join("tree/a/b/c/upper"));
            make_tree(&merged.join("tree/e"));
            remove_tree(merged, "tree").unwrap();
            assert_eq!(merged.read_dir().unwrap().count(), 0);
        },
    );
}

#[test]
fn a_deep_tree_of_a_lower_layer_is_removed() {
    let names: PathBuf = std::iter::repeat_n("d", 300).collect();
    on_overlay(
        |lower| std::fs::create_dir_all(lower.join("tree").join(&names)).unwrap(),
        |merged| {
            remove_tree(merged, "tree").unwrap();
            assert_eq!(merged.read_dir().unwrap().count(), 0);
        },
    );
}

/// A store in which the tree of the item a has more than its contents.
fn fill_with_damage(lower: &Path) {
    let store = guix_store(lower);
    let (checked, lock) = publishing::checked_directory(&store, "a");
    let published = store.publish(checked, lock).unwrap();
    store.register(vec![published], NOW).unwrap();
    make_tree(&store.layout().item(&item("a")).join("damage"));
}

#[test]
fn a_damaged_tree_of_a_lower_layer_is_replaced() {
    on_overlay(fill_with_damage, |merged| {
        let store = guix_store(merged);
        let (checked, lock) = publishing::checked_directory(&store, "a");
        let recorded = store.recorded(&item("a")).unwrap().unwrap();
        store.replace_tree(checked, lock, &recorded).unwrap();
        let tree = store.layout().item(&item("a"));
        assert_eq!(tree.read_dir().unwrap().count(), 0);
    });
}

#[test]
fn what_is_mounted_in_a_tree_is_not_removed() {
    for place in ["tree", "tree/a", "tree/a/b"] {
        let root = tempfile::tempdir().unwrap();
        on_tmpfs(root.path(), "mode=755", || {
            let (mounted, outside) = (root.path().join(place), root.path().join("outside"));
            std::fs::create_dir_all(&mounted).unwrap();
            make_tree(&outside);
            let none = None::<&str>;
            // Both are on one file system.
            mount(Some(&outside), &mounted, none, MsFlags::MS_BIND, none).unwrap();

            let error = remove_tree(root.path(), "tree").unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(source.contains("busy"), "{place}: {source}");
            for file in ["a/b/c/d/file", "e/file", ".moved-0/f/file"] {
                assert!(outside.join(file).exists(), "{place}: {file}");
            }
        });
    }
}

#[test]
fn the_inode_of_a_damaged_entry_is_that_of_the_file() {
    let root = tempfile::tempdir().unwrap();
    on_tmpfs(root.path(), "mode=755", || {
        let store = guix_store(root.path());
        let links = store.layout().links();
        std::fs::create_dir_all(&links).unwrap();
        let (entry, other) = (links.join(base32::encode(&[7; 32])), root.path().join("f"));
        std::fs::write(&entry, "").unwrap();
        std::fs::write(&other, "").unwrap();
        // A directory lists the inode below a mount, as FUSE lists others than files have.
        let none = None::<&str>;
        mount(Some(&other), &entry, none, MsFlags::MS_BIND, none).unwrap();

        let found = verify(&store, VerifyScope::All, 1, &VerifyTally::default()).unwrap();
        let [finding] = &found.entries[..] else {
            panic!("{:?}", found.entries);
        };
        assert_eq!(finding.inode, other.metadata().unwrap().ino());
        assert!(store.repair_entry(finding).is_err(), "it is a mount");
    });
}

#[test]
fn another_size_than_the_recorded_one_is_a_fault_of_the_database() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    let (checked, lock) = publishing::checked_directory(&store, "a");
    let published = store.publish(checked, lock).unwrap();
    store.register(vec![published], NOW).unwrap();
    let connection = Connection::open(store.layout().database_file()).unwrap();
    connection
        .execute_batch("UPDATE ValidPaths SET narSize = narSize + 1")
        .unwrap();

    let found = verify(&store, VerifyScope::All, 1, &VerifyTally::default()).unwrap();
    assert!(found.items.is_empty(), "{:?}", found.items);
    let [fault] = &found.database[..] else {
        panic!("{:?}", found.database);
    };
    assert!(fault.contains(item("a").base()), "{fault}");
    assert!(fault.contains("97 bytes"), "{fault}");
}
