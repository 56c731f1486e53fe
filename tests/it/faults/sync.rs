//! What is on the disk when an item becomes visible. Power cuts themselves are in `tests/peers`; here
//! the file system is asked (by `filefrag`) for which files it has not even chosen a place on the
//! disk yet. Left out with a message where it does not say so: ext4, XFS and btrfs do.

use std::path::Path;
use std::process::Command;

use crate::daemon::{Helper, success};
use crate::support::{Kind, Sandbox, item};

/// How many files below `dir` have bytes in memory that no place on the disk was chosen for.
fn unwritten_files(dir: &Path) -> usize {
    let script = "find \"$0\" -type f -size +0 -exec filefrag -v {} +";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(dir)
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .output()
        .unwrap();
    let extents = String::from_utf8_lossy(&output.stdout);
    extents.matches("delalloc").count()
}

/// The unwritten files of what `fetch` makes with `--sync WHAT`, in a new sandbox each.
fn unwritten_with(what: &str, fetch: fn(&Sandbox, &str)) -> usize {
    let sandbox = Sandbox::new();
    fetch(&sandbox, what);
    unwritten_files(&sandbox.path("made"))
}

/// With `--sync items` and `full` everything is on the disk, and without it is not.
#[track_caller]
fn assert_synced(fetch: fn(&Sandbox, &str)) {
    if unwritten_with("none", fetch) == 0 {
        eprintln!("left out: this file system does not tell what it has not written");
        return;
    }
    for what in ["items", "full"] {
        assert_eq!(unwritten_with(what, fetch), 0, "--sync {what}");
    }
}

fn url() -> String {
    format!("file://{}", Kind::Guix.directory().display())
}

#[test]
fn a_registered_closure_is_on_the_disk() {
    assert_synced(|sandbox, what| {
        let fetch = ["fetch", &item("sample"), "--sync", what];
        sandbox.subst(&url(), &fetch).exits(0);
        std::fs::rename(sandbox.store(), sandbox.path("made")).unwrap();
    });
}

#[test]
fn a_tree_without_a_store_is_on_the_disk() {
    assert_synced(|sandbox, what| {
        let fetch = ["fetch", &item("sample"), "--output", "made", "--sync", what];
        sandbox.subst(&url(), &fetch).exits(0);
    });
}

#[test]
fn what_guix_daemon_may_register_is_on_the_disk() {
    assert_synced(|sandbox, what| {
        let mode = ["--substitute", "--sync", what];
        let mut helper = Helper::start_with(sandbox, &url(), &mode, "");
        let reply = helper.substitute(&item("sample"), &sandbox.path("made"));
        assert_eq!(reply, success(&item("sample")));
        helper.end();
    });
}
