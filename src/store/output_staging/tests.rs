//! Leftovers of dead processes are told from what live ones work on, and from what is not theirs.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use super::*;
use crate::store::unpack::open_directory;

fn destination(directory: &Path, name: &str) -> Destination {
    let parent = open_directory(directory).unwrap();
    Destination::new(
        parent,
        directory.to_owned(),
        EntryName::new(name.as_bytes()).unwrap(),
    )
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn leftovers_of_dead_processes_are_removed_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in [
        ".tree.subst-0000000000000001",
        ".tree.subst-0000000000000002",
        // On the way to another destination.
        ".other.subst-0000000000000001",
    ] {
        std::fs::create_dir(at(name)).unwrap();
        std::fs::write(at(name).join("half"), "").unwrap();
    }
    std::fs::write(at(".tree.subst-0000000000000001.lock"), "").unwrap();
    std::fs::write(at(".tree.subst-0000000000000003.lock"), "").unwrap();
    let others = [
        ".subst-0000000000000001",
        ".tree.subst-000000000000000g",
        ".tree.subst-1",
        ".tree.subst-0000000000000001.log",
        "tree.subst-0000000000000001",
    ];
    for name in others {
        std::fs::write(at(name), "").unwrap();
    }
    remove_leftovers(&destination(directory.path(), "tree")).unwrap();
    let mut others: Vec<String> = others.map(str::to_owned).into();
    others.sort();
    assert_eq!(names(directory.path()), others);
}

#[test]
fn what_a_live_process_works_on_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let destination = destination(directory.path(), "tree");
    let staging = OutputStaging::begin(&destination).unwrap();
    std::fs::write(staging.temporary().path(), "").unwrap();
    remove_leftovers(&destination).unwrap();
    assert_eq!(names(directory.path()).len(), 2);
    std::fs::remove_file(staging.temporary().path()).unwrap();
    drop(staging);
    assert!(names(directory.path()).is_empty());
}

#[test]
fn what_is_no_lock_file_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("precious"), "").unwrap();
    for (number, is_link) in [(1, true), (2, false)] {
        let tree = at(&format!(".tree.subst-{number:016}"));
        std::fs::create_dir(&tree).unwrap();
        let lock = at(&format!(".tree.subst-{number:016}.lock"));
        if is_link {
            std::os::unix::fs::symlink(at("precious"), lock).unwrap();
        } else {
            std::fs::create_dir(lock).unwrap();
        }
    }
    remove_leftovers(&destination(directory.path(), "tree")).unwrap();
    assert_eq!(names(directory.path()).len(), 5);
}

#[test]
fn the_longest_names_have_temporary_ones_too() {
    for name in ["x".repeat(255), "ä".repeat(127), "ä".repeat(113) + "x"] {
        let directory = tempfile::tempdir().unwrap();
        let destination = destination(directory.path(), &name);
        let staging = OutputStaging::begin(&destination).unwrap();
        std::fs::write(staging.temporary().path(), "").unwrap();
        std::mem::forget(staging);
        assert_eq!(names(directory.path()).len(), 2, "the names are text");
    }
}

/// Other users could give anything of root's the name of a leftover.
#[test]
fn root_removes_leftovers_only_where_no_other_user_may_rename() {
    let is_root = geteuid().is_root();
    let unprivileged_user = 65_534;
    let cases = [
        (0o755, None, true),
        (0o1777, None, true),
        (0o777, None, false),
        (0o770, None, false),
        (0o755, Some(unprivileged_user), false),
        (0o1777, Some(unprivileged_user), false),
    ];
    for (mode, owner, removed_by_root) in cases {
        if owner.is_some() && !is_root {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::create_dir(path.join(".tree.subst-0000000000000001")).unwrap();
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        chown(path, owner, None).unwrap();

        remove_leftovers(&destination(path, "tree")).unwrap();
        let is_removed = names(path).is_empty();
        assert_eq!(
            is_removed,
            removed_by_root || !is_root,
            "{mode:o} {owner:?}"
        );
    }
}
