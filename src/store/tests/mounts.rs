//! What needs a mount or another user: run in a thread of its own, as root; skipped otherwise.

use std::os::unix::fs::PermissionsExt as _;

use nix::mount::{MsFlags, mount};

use super::*;
use crate::testing::on_tmpfs;

/// Runs `test` in a thread that has lost root's rights, with a directory of its own.
fn unprivileged(test: impl FnOnce(&Path) + Send) {
    let dir = tempfile::tempdir().unwrap();
    let in_thread = || {
        if rustix::process::geteuid().is_root() {
            let unprivileged_user = rustix::process::Uid::from_raw(65_534);
            std::os::unix::fs::chown(dir.path(), Some(unprivileged_user.as_raw()), None).unwrap();
            rustix::thread::set_thread_uid(unprivileged_user).unwrap();
        }
        test(dir.path());
    };
    std::thread::scope(|scope| scope.spawn(in_thread).join().unwrap());
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_store_mounted_read_only_becomes_writable_for_us() {
    let root = tempfile::tempdir().unwrap();
    on_tmpfs(root.path(), "mode=755", || {
        let none = None::<&str>;
        let store = root.path().join("store");
        std::fs::create_dir(&store).unwrap();
        mount(Some(&store), &store, none, MsFlags::MS_BIND, none).unwrap();
        let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(none, &store, none, read_only | MsFlags::MS_NOSUID, none).unwrap();
        assert!(std::fs::write(store.join("a"), "").is_err());

        make_store_writable(&store).unwrap();
        std::fs::write(store.join("a"), "").unwrap();
        let flags = rustix::fs::statvfs(&store).unwrap().f_flag;
        assert!(flags.contains(rustix::fs::StatVfsMountFlags::NOSUID));
        make_store_writable(&store).unwrap();
    });
    make_store_writable(&root.path().join("absent")).unwrap();
}

#[test]
fn a_full_disk_is_told_with_a_hint() {
    let root = tempfile::tempdir().unwrap();
    on_tmpfs(root.path(), "size=400k", || {
        let store = guix_store(root.path());
        let filler: Vec<u8> = vec![1; 1 << 20];
        let _ = std::fs::write(root.path().join("filler"), filler);
        let batch: Vec<_> = (0..2000)
            .map(|index| registration(&format!("n{index}"), &[]))
            .collect();
        let error = store.write_registrations(&batch, NOW).unwrap_err();
        assert_eq!(error.remedy(), Some(Remedy::Space), "{error:?}");
        std::fs::remove_file(root.path().join("filler")).unwrap();
        assert!(
            !store.is_valid(&item("n0")).unwrap(),
            "nothing of the batch is valid"
        );
    });
}

#[test]
fn trees_without_permissions_are_removed_by_their_owner() {
    unprivileged(|dir| {
        std::fs::create_dir_all(dir.join("tree/a/b")).unwrap();
        std::fs::write(dir.join("tree/a/b/file"), "").unwrap();
        std::fs::create_dir(dir.join("tree/closed")).unwrap();
        for (path, mode) in [
            ("tree/a/b/file", 0o444),
            ("tree/a/b", 0o555),
            ("tree/closed", 0),
            ("tree/a", 0o111),
        ] {
            set_mode(&dir.join(path), mode);
        }
        set_mode(&dir.join("tree"), 0o555);
        remove_tree(dir, "tree").unwrap();
        assert_eq!(dir.read_dir().unwrap().count(), 0);
    });
}

#[test]
fn an_embedded_store_needs_no_privileges() {
    unprivileged(|dir| {
        let store = guix_store(dir);
        store.add_temp_roots(&[item("a")]).unwrap();
        let (checked, lock) = publishing::checked_directory(&store, "a");
        let published = store.publish(checked, lock).unwrap();
        store.register(vec![published], NOW).unwrap();
        remove_tree(store.layout().store(), item("a").base()).unwrap();
    });
}

#[test]
fn a_store_of_others_is_refused_with_a_hint_but_can_be_read() {
    let root = tempfile::tempdir().unwrap();
    set_mode(root.path(), 0o755);
    // First kept open, as by a daemon: the files of the log stay in place.
    let owner = guix_store(root.path());
    owner
        .write_registrations(&[registration("a", &[])], NOW)
        .unwrap();
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can make a store that is not ours");
        return;
    }
    let try_as_other = || {
        unprivileged(|_| {
            let layout = layout(root.path(), StoreDir::GUIX);
            let error = Store::open(layout.clone(), OpenMode::Existing(SyncMode::None), silent())
                .unwrap_err();
            assert_eq!(error.remedy(), Some(Remedy::Privileges), "{error:?}");
            let store = Store::open(layout, OpenMode::ReadOnly, silent()).unwrap();
            assert!(store.is_valid(&item("a")).unwrap());
        });
    };
    try_as_other();
    drop(owner);
    try_as_other();
}

#[test]
fn deep_trees_are_removed_with_few_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let mut at = rustix::fs::open(
        dir.path(),
        rustix::fs::OFlags::DIRECTORY,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    for depth in 0..5000 {
        let name = if depth == 0 { "tree" } else { "d" };
        rustix::fs::mkdirat(&at, name, rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(
            &at,
            name,
            rustix::fs::OFlags::DIRECTORY,
            rustix::fs::Mode::empty(),
        )
        .unwrap();
        if depth % 1000 == 0 {
            rustix::fs::mkdirat(&at, ".moved-0", rustix::fs::Mode::RWXU).unwrap();
            rustix::fs::symlinkat("/", &at, "root").unwrap();
        }
    }
    drop(at);
    remove_tree(dir.path(), "tree").unwrap();
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    remove_tree(dir.path(), "tree").unwrap();
    remove_tree(&dir.path().join("absent"), "tree").unwrap();
}
