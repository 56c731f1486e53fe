//! Bytes that are not verified leave nothing in the store, `.links` included, wherever in the nar
//! or in its compressed form they are wrong.

use crate::support::fixture::flip;
use crate::support::listing::{items, links, snapshot, unused_links};
use crate::support::{Fixture, Kind, Sandbox, item};

/// How many fetches have to be refused, for each compression method.
const REFUSED: usize = 100;

/// A server of `tree`, which has files that are deduplicated, by one method; and a store with
/// everything that it refers to.
fn prepare(method: &str) -> (Sandbox, Fixture) {
    let sandbox = Sandbox::new();
    let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
    fixture.only(method);
    sandbox
        .subst(&fixture.url(), &["fetch", &item("tools")])
        .exits(0);
    (sandbox, fixture)
}

#[track_caller]
fn corruption_leaves_nothing(method: &str) {
    let (mut sandbox, mut fixture) = prepare(method);
    let tree = item("tree");
    let length = std::fs::read(fixture.nar(&tree, method)).unwrap().len();
    let mut before = snapshot(&sandbox.root());
    let (mut refused, mut harmless) = (0, 0);
    // Both ends are included. A second round begins elsewhere.
    for round in 0..REFUSED * 2 {
        let position = round * (length - 1) / (REFUSED - 1) % length;
        let nar = fixture.nar(&tree, method);
        flip(&nar, position);
        let ended = sandbox.subst(&fixture.url(), &["fetch", &tree]);
        flip(&nar, position);
        if ended.code == Some(0) {
            // A byte that says nothing about the contents, such as a time in a header.
            harmless += 1;
            (sandbox, fixture) = prepare(method);
            before = snapshot(&sandbox.root());
            continue;
        }
        ended.prints("");
        assert_eq!(
            snapshot(&sandbox.root()),
            before,
            "{method}, byte {position} of {length}"
        );
        refused += 1;
        if refused == REFUSED {
            break;
        }
    }
    assert_eq!(refused, REFUSED, "{harmless} of {length} changed nothing");
}

#[test]
fn corrupt_uncompressed_nars_leave_nothing() {
    corruption_leaves_nothing("none");
}

#[test]
fn corrupt_gzip_nars_leave_nothing() {
    corruption_leaves_nothing("gzip");
}

#[test]
fn corrupt_xz_nars_leave_nothing() {
    corruption_leaves_nothing("xz");
}

#[test]
fn corrupt_lzip_nars_leave_nothing() {
    corruption_leaves_nothing("lzip");
}

#[test]
fn corrupt_zstd_nars_leave_nothing() {
    corruption_leaves_nothing("zstd");
}

/// What was verified is not kept in `.links` either when a reference could not be had.
#[test]
fn verified_items_without_their_references_leave_nothing() {
    for method in ["none", "zstd"] {
        let (sandbox, fixture) = prepare(method);
        let nar = fixture.nar(&item("tree"), method);
        let length = std::fs::read(&nar).unwrap().len();
        flip(&nar, length * 3 / 4);
        for arguments in [&["fetch"][..], &["fetch", "--keep-going"]] {
            let sample = item("sample");
            let arguments = [arguments, &[&*sample]].concat();
            sandbox.subst(&fixture.url(), &arguments).exits(3);
            assert_eq!(unused_links(&sandbox.store()), Vec::<String>::new());
        }
    }
}

#[test]
fn items_that_cannot_be_registered_leave_nothing() {
    let (sandbox, fixture) = prepare("zstd");
    let database = sandbox.root().join("var/guix/db/db.sqlite");
    let refusal = "create trigger refuse before insert on ValidPaths
        begin select raise(abort, 'no room'); end";
    rusqlite::Connection::open(database)
        .unwrap()
        .execute(refusal, ())
        .unwrap();
    // Entries of `.links` come and go, so its time is another one.
    let before = (items(&sandbox.store()), links(&sandbox.store()));
    sandbox
        .subst(&fixture.url(), &["fetch", &item("tree")])
        .exits(5)
        .says("no room");
    assert_eq!((items(&sandbox.store()), links(&sandbox.store())), before);
}
