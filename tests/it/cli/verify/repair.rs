//! `subst verify --repair`: what is damaged is fetched again, and nothing gets worse.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::listing::{items, rows, sorted_lines};
use crate::support::sandbox::{Run, Running, make_writable, run};
use crate::support::{Fixture, Kind, Sandbox, Server, item};

use super::{files_with_contents, filled, flip, settle, tree, verify};

fn repair(sandbox: &Sandbox, url: &str, arguments: &[&str]) -> Run {
    sandbox.subst(url, &[&["verify", "--repair"], arguments].concat())
}

/// Everything is as stock Guix makes it, and nothing else is there.
#[track_caller]
fn assert_whole(sandbox: &Sandbox) {
    let expected = Kind::Guix.expected();
    let entries = sandbox.store().join(".links").read_dir().unwrap();
    let entries = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut entries: Vec<String> = entries.collect();
    entries.sort();
    assert_eq!(entries, sorted_lines(&expected.join("expected-links.txt")));
    assert_eq!(
        items(&sandbox.store()),
        sorted_lines(&expected.join("expected.txt"))
    );
    let expected = std::fs::read_to_string(expected.join("expected-rows.txt")).unwrap();
    let database = sandbox.root().join("var/guix/db/db.sqlite");
    assert_eq!(rows(&database), expected.lines().collect::<Vec<_>>());
    verify(sandbox, &[]).exits(0).prints("");
}

/// Removes the tree at `path`.
fn remove(path: &Path) {
    if path.symlink_metadata().unwrap().is_dir() {
        make_writable(path);
        std::fs::remove_dir_all(path).unwrap();
    } else {
        std::fs::remove_file(path).unwrap();
    }
}

/// All files of the items in `store`, with one name for each inode.
fn distinct_files(store: &Path) -> Vec<PathBuf> {
    let mut files = files_with_contents(store);
    files.retain(|path| !path.strip_prefix(store).unwrap().starts_with(".links"));
    files.sort_by_key(|path| path.metadata().unwrap().ino());
    files.dedup_by_key(|path| path.metadata().unwrap().ino());
    files
}

#[test]
fn a_store_in_which_every_file_is_damaged_is_repaired() {
    let server = Server::of(Kind::Guix.directory());
    let sandbox = filled(Kind::Guix);
    distinct_files(&sandbox.store())
        .iter()
        .for_each(|file| flip(file));
    remove(&tree(&sandbox, "link"));

    let done = repair(&sandbox, &server.url(), &[]).exits(0);
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert!(
        lines
            .iter()
            .all(|line| line.starts_with("repaired    /gnu/store/")),
        "{lines:?}"
    );
    // All items, and all entries of `.links`.
    assert_eq!(lines.len(), 7 + 11, "{lines:?}");
    done.says("17 damaged, 1 missing; 18 repaired");
    assert_whole(&sandbox);
}

#[test]
fn a_file_that_items_share_is_repaired_for_all_of_them() {
    let server = Server::of(Kind::Guix.directory());
    let sandbox = filled(Kind::Guix);
    flip(&tree(&sandbox, "copy").join("same-as-in-tree"));
    repair(&sandbox, &server.url(), &[])
        .exits(0)
        .says("3 damaged; 3 repaired");
    assert_eq!(server.requests_for("/nar/"), 2, "only what is damaged");
    assert_whole(&sandbox);

    // The other item keeps the damaged file when only one is repaired, but `.links` does not.
    flip(&tree(&sandbox, "copy").join("same-as-in-tree"));
    repair(&sandbox, &server.url(), &[&item("tree")]).exits(0);
    verify(&sandbox, &[]).exits(3).says(": 1 damaged");
    repair(&sandbox, &server.url(), &[]).exits(0);
    assert_whole(&sandbox);
}

#[test]
fn attributes_are_corrected_in_place() {
    let server = Server::of(Kind::Guix.directory());
    let sandbox = filled(Kind::Guix);
    let inode = || tree(&sandbox, "tools").metadata().unwrap().ino();
    let before = inode();
    let tools = tree(&sandbox, "tools");
    for (path, mode) in [
        (tools.join("share/one-byte"), 0o600),
        (tools, 0o700),
        (tree(&sandbox, "program"), 0o755),
    ] {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    let entries = sandbox.store().join(".links").read_dir().unwrap();
    let mut entries = entries.map(|entry| entry.unwrap().path());
    let entry = entries.find(|path| path.metadata().unwrap().mode() & 0o777 == 0o444);
    let entry = entry.unwrap();
    std::fs::set_permissions(&entry, Permissions::from_mode(0o644)).unwrap();

    repair(&sandbox, &server.url(), &[])
        .exits(0)
        .says("with wrong attributes; ");
    assert_eq!(server.requests_for("/nar/"), 0);
    assert_eq!(inode(), before);
    assert_whole(&sandbox);
}

#[test]
fn what_is_not_a_tree_any_more_is_replaced() {
    let server = Server::of(Kind::Guix.directory());
    let sandbox = filled(Kind::Guix);
    let (notes, tools, link) = (
        tree(&sandbox, "notes"),
        tree(&sandbox, "tools"),
        tree(&sandbox, "link"),
    );
    [&notes, &tools, &link]
        .into_iter()
        .for_each(|path| remove(path));
    std::fs::create_dir_all(notes.join("a/b")).unwrap();
    std::fs::write(notes.join("a/file"), "x").unwrap();
    settle(&notes.join("a"), 0);
    std::fs::write(&tools, "no directory").unwrap();
    std::fs::create_dir(&link).unwrap();
    repair(&sandbox, &server.url(), &[]).exits(0);
    assert_whole(&sandbox);
}

#[test]
fn other_contents_than_the_recorded_ones_are_refused() {
    let server = Server::of(Kind::Guix.directory());
    let sandbox = filled(Kind::Guix);
    let database = sandbox.root().join("var/guix/db/db.sqlite");
    let connection = rusqlite::Connection::open(&database).unwrap();
    let hash = format!("sha256:{}", "1".repeat(64));
    let changed = connection.execute(
        "UPDATE ValidPaths SET hash = ?1 WHERE path = ?2",
        [&hash, &item("notes")],
    );
    assert_eq!(changed, Ok(1));
    drop(connection);
    let before = items(&sandbox.store());

    let refused = repair(&sandbox, &server.url(), &[]).exits(3);
    refused
        .says(&format!("cannot repair {}", item("notes")))
        .says("with other contents only than those that were registered")
        .says("1 damaged\n");
    assert_eq!(server.requests_for("/nar/"), 0);
    assert_eq!(items(&sandbox.store()), before);
}

#[test]
fn what_cannot_be_had_stays_as_it_is_and_the_rest_is_repaired() {
    let sandbox = filled(Kind::Guix);
    let partial = Fixture::copy(Kind::Guix, sandbox.path("partial"));
    std::fs::remove_file(partial.narinfo(&item("copy"))).unwrap();
    flip(&tree(&sandbox, "copy").join("same-as-in-tree"));

    let failed = repair(&sandbox, &partial.url(), &[]).exits(3);
    failed
        .says("no server has it")
        .says("3 damaged; 2 repaired");
    verify(&sandbox, &[]).exits(3).says(": 1 damaged");

    let server = Server::of(Kind::Guix.directory());
    let offline = repair(&sandbox, &server.url(), &["--offline"]).exits(4);
    offline.says("leave out --offline");
    repair(&sandbox, &Kind::Guix.url(), &["--offline"]).exits(0);
    assert_whole(&sandbox);
}

#[test]
fn an_unauthorized_key_repairs_nothing() {
    let sandbox = filled(Kind::Guix);
    flip(&tree(&sandbox, "notes"));
    sandbox.write_safely("acl", "(acl)");
    repair(&sandbox, &Kind::Guix.url(), &[])
        .exits(3)
        .says("no server's narinfo can be trusted");
    verify(&sandbox, &[]).exits(3);
}

#[test]
fn the_system_store_is_left_to_its_daemon() {
    let sandbox = Sandbox::new();
    let guix = run(sandbox.bare(&["verify", "--repair"])).exits(2);
    guix.says("--repair is for stores below --root")
        .says("`guix gc --verify=contents,repair`");
    let nix = run(sandbox.bare(&["verify", "--repair", "--store-dir", "/nix/store"])).exits(2);
    nix.says("`nix-store --verify --check-contents --repair`");
    for root in ["/", "/usr/..", "/proc/self/root"] {
        run(sandbox.bare(&["verify", "--repair", "--root", root]))
            .exits(2)
            .says("--repair is for stores below --root");
    }
}

/// Whether the file system can exchange two names in one step.
fn exchanges_names(sandbox: &Sandbox) -> bool {
    let [one, other] = ["one", "other"].map(|name| sandbox.path(name));
    std::fs::write(&one, "").unwrap();
    std::fs::create_dir(&other).unwrap();
    let directory = rustix::fs::CWD;
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    let is_exchanged = rustix::fs::renameat_with(directory, &one, directory, &other, flags).is_ok();
    if !is_exchanged {
        eprintln!("left out: this file system cannot exchange names in one step");
    }
    is_exchanged
}

#[test]
fn a_repair_that_is_killed_leaves_nothing_worse() {
    let sandbox = filled(Kind::Guix);
    let is_atomic = exchanges_names(&sandbox);
    distinct_files(&sandbox.store())
        .iter()
        .for_each(|file| flip(file));
    for kills in 0..8 {
        let arguments = ["verify", "--repair"];
        let mut running = Running::start(
            sandbox.command(Kind::Guix, &Kind::Guix.url(), &arguments),
            "",
        );
        std::thread::sleep(Duration::from_millis(12 * kills));
        running.kill();
        running.end();
        let found = verify(&sandbox, &["--json"]).json();
        let mut findings = found["findings"].as_array().unwrap().iter();
        let is_missing = findings.any(|finding| finding["status"] == "missing");
        assert!(!is_missing || !is_atomic, "{found}");
    }
    repair(&sandbox, &Kind::Guix.url(), &[]).exits(0);
    assert_whole(&sandbox);
}

#[test]
fn two_repairs_at_once_do_the_work_once() {
    let server = Server::of(Kind::Guix.directory());
    let sandbox = filled(Kind::Guix);
    distinct_files(&sandbox.store())
        .iter()
        .for_each(|file| flip(file));
    let started = [(); 2].map(|()| {
        let command = sandbox.command(Kind::Guix, &server.url(), &["verify", "--repair"]);
        Running::start(command, "")
    });
    for running in started {
        running.end().exits(0);
    }
    assert_whole(&sandbox);
}
