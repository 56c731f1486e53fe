//! Obstacles are found in files of the kernel, of which a test makes its own.

use std::path::Path;

use super::is_in_place;
use super::obstacle::Obstacle;

/// Names of files below /proc, with their contents.
type KernelFiles<'a> = &'a [(&'a str, &'a str)];

/// What is found where there are these files.
fn obstacle_with(files: KernelFiles<'_>) -> Option<Obstacle> {
    let root = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        let file = root.path().join("proc").join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, contents).unwrap();
    }
    Obstacle::find(root.path())
}

#[test]
fn the_setting_that_forbids_namespaces_is_named() {
    const LIMIT: &str = "sys/user/max_user_namespaces";
    const SWITCH: &str = "sys/kernel/unprivileged_userns_clone";
    const APPARMOR: &str = "sys/kernel/apparmor_restrict_unprivileged_userns";
    const STATUS: &str = "self/status";
    let cases: [(KernelFiles<'_>, Obstacle, &str); 5] = [
        (
            &[(LIMIT, "0\n"), (SWITCH, "1\n")],
            Obstacle::Limit,
            "user.max_user_namespaces",
        ),
        (
            &[(LIMIT, "96551\n"), (SWITCH, "0\n")],
            Obstacle::Switch,
            "kernel.unprivileged_userns_clone",
        ),
        (
            &[(SWITCH, "1\n"), (APPARMOR, "1\n")],
            Obstacle::AppArmor,
            "kernel.apparmor_restrict_unprivileged_userns",
        ),
        (
            &[
                (APPARMOR, "0\n"),
                (STATUS, "Name:\tsubst\nSeccomp:\t2\nSeccomp_filters:\t1\n"),
            ],
            Obstacle::SystemCallFilter,
            "container",
        ),
        // The directory of the test is no mount.
        (&[(STATUS, "Seccomp:\t0\n")], Obstacle::Chroot, "chroot"),
    ];
    for (files, expected, name) in cases {
        assert_eq!(obstacle_with(files), Some(expected), "{files:?}");
        assert!(expected.to_string().contains(name), "{expected}");
        let remedy = expected.remedy();
        assert!(
            remedy.is_none_or(|remedy| remedy.contains(name)),
            "{remedy:?}"
        );
    }
    assert_eq!(Obstacle::find(Path::new("/proc")), None);
}

#[test]
fn a_store_that_is_reached_by_its_name_is_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let [store, link, other] = ["store", "link", "other"].map(|name| directory.path().join(name));
    std::fs::create_dir(&store).unwrap();
    std::fs::create_dir(&other).unwrap();
    std::os::unix::fs::symlink(&store, &link).unwrap();

    assert!(is_in_place(&store, &store) && is_in_place(&store, &link));
    assert!(!is_in_place(&store, &other));
    assert!(!is_in_place(&store, &directory.path().join("nothing")));
}
