//! Symbolic links that another user has put into the root of a store are not followed.

use std::os::unix::fs::symlink;

use super::*;

/// Below the root: the directories and files of a store that this program makes.
const DIRECTORIES: [&str; 7] = [
    "gnu",
    "gnu/store",
    "var",
    "var/guix",
    "var/guix/db",
    "var/guix/temproots",
    "etc/guix",
];
const FILES: [&str; 6] = [
    "var/guix/db/big-lock",
    "var/guix/db/db.new",
    "var/guix/db/db.sqlite",
    "var/guix/db/schema",
    "var/guix/db/schema.tmp",
    "var/guix/gc.lock",
];

/// Uses the store below `base`, where a link is planted.
fn use_store(base: &Path) -> Result<(), StoreError> {
    let layout = layout(&base.join("root"), StoreDir::GUIX);
    let store = Store::open(layout, OpenMode::Create(SyncMode::None), silent())?;
    store.add_temp_roots(&[item("a")])?;
    store.try_lock(&item("a")).map(drop)
}

fn plant(base: &Path, place: &str, target: &str) {
    let link = base.join("root").join(place);
    std::fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink(base.join(target), link).unwrap();
}

#[test]
fn nothing_is_made_behind_a_link_at_a_directory() {
    for place in DIRECTORIES {
        let base = tempfile::tempdir().unwrap();
        let outside = base.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        plant(base.path(), place, "outside");

        let error = use_store(base.path()).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(
            source.contains("symbolic link"),
            "{place}: {error}: {source}"
        );
        assert_eq!(outside.read_dir().unwrap().count(), 0, "{place}");
    }
}

#[test]
fn a_link_at_a_file_changes_no_other_file() {
    let item_lock = format!("gnu/store/{HASH_PART}-a.lock");
    let temp_roots = format!("var/guix/temproots/{}", std::process::id());
    for place in FILES.into_iter().chain([&*item_lock, &*temp_roots]) {
        let base = tempfile::tempdir().unwrap();
        let victim = base.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        plant(base.path(), place, "victim");
        // It may fail, or replace the link.
        let _ = use_store(base.path());
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious", "{place}");

        let base = tempfile::tempdir().unwrap();
        plant(base.path(), place, "missing");
        let _ = use_store(base.path());
        assert!(!base.path().join("missing").exists(), "{place}");
    }
}
