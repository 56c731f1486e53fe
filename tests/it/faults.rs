//! Faults of servers and machines: broken and silent connections, stale answers, killed and competing
//! processes, full disks. Either everything is complete and correct, or the run reports the failure
//! and leaves nothing behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::fixture::{base, flip};
use crate::support::listing::{self, items, names, sorted_lines};
use crate::support::{Fixture, Kind, Reply, Run, Sandbox, Server, item};

mod builds;
mod database;
mod early;
mod kept;
pub(crate) mod limits;
mod locks;
mod mirror;
mod offsets;
mod outages;
mod output;
mod pages;
mod polite;
mod preparing;
mod processes;
mod random_faults;
mod ranges;
mod read_ahead;
mod space;
mod stale;
mod sync;
mod terminal;
mod unannounced_ends;
mod unreadable;

/// A sandbox, and in it a copy of the Guix server that offers one method only.
fn only(method: &str) -> (Sandbox, Fixture) {
    let sandbox = Sandbox::new();
    let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
    fixture.only(method);
    (sandbox, fixture)
}

/// What is expected of the item with this name, as sorted lines.
fn expected(name: &str) -> Vec<String> {
    let path = item(name);
    let base = path.rsplit('/').next().unwrap().to_owned();
    let mut lines = sorted_lines(&Kind::Guix.directory().join("expected.txt"));
    lines.retain(|line| line.starts_with(&base));
    lines
}

/// Fetches `name` to `tree`, without a store.
fn output(sandbox: &Sandbox, url: &str, name: &str) -> Run {
    sandbox.subst(url, &["fetch", "--output", "tree", &item(name)])
}

/// Like [`output`], with a stall timeout of two seconds.
fn output_with_short_stall_timeout(sandbox: &Sandbox, url: &str, name: &str) -> Run {
    sandbox.subst(
        url,
        &[
            "fetch",
            "--output",
            "tree",
            &item(name),
            "--stall-timeout",
            "2",
        ],
    )
}

/// The tree that [`output`] made is correct.
#[track_caller]
fn assert_tree(sandbox: &Sandbox, name: &str) {
    let path = item(name);
    let base = path.rsplit('/').next().unwrap();
    assert_eq!(listing::tree(&sandbox.path("tree"), base), expected(name));
}

/// The store contains the whole closure and nothing else.
#[track_caller]
fn assert_complete(sandbox: &Sandbox) {
    let expected = sorted_lines(&Kind::Guix.directory().join("expected.txt"));
    assert_eq!(items(&sandbox.store()), expected);
    let rows = listing::rows(&sandbox.root().join("var/guix/db/db.sqlite"));
    assert_eq!(
        rows.iter().filter(|row| row.starts_with('/')).count(),
        7,
        "{rows:?}"
    );
}

/// Nothing was registered, and nothing is left in the store.
#[track_caller]
fn assert_nothing(sandbox: &Sandbox) {
    assert_eq!(items(&sandbox.store()), [""; 0]);
    assert!(listing::rows(&sandbox.root().join("var/guix/db/db.sqlite")).is_empty());
    assert_eq!(names(&sandbox.root().join("var/guix/temproots")), [""; 0]);
}

/// Places to cut a nar of `length` bytes at.
fn offsets(length: usize) -> [usize; 9] {
    [
        0,
        1,
        2,
        19,
        100,
        4096.min(length / 3),
        length / 2,
        length - 9,
        length - 1,
    ]
}

/// A server that breaks every connection of a nar at `offset` of the file, or only the first.
fn cutting(fixture: &Fixture, offset: usize, ranges: Ranges, times: usize) -> Server {
    let directory = fixture.dir.clone();
    let cuts = AtomicUsize::new(0);
    Server::start(move |request| {
        let reply = match ranges {
            Ranges::Work => Reply::file_or_range(&directory, request),
            Ranges::Ignored => Reply::file(&directory, request),
        };
        if !request.path.starts_with("/nar/") || cuts.fetch_add(1, Ordering::Relaxed) >= times {
            return reply;
        }
        let from = if ranges == Ranges::Work {
            request.from.unwrap_or(0)
        } else {
            0
        };
        reply.cut_at(offset.saturating_sub(from))
    })
}

/// Whether a server can give the rest of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ranges {
    Work,
    Ignored,
}

#[track_caller]
fn assert_cut_nar_is_completed(method: &str, ranges: Ranges) {
    let (sandbox, fixture) = only(method);
    let length = std::fs::read(fixture.nar(&item("tree"), method))
        .unwrap()
        .len();
    for offset in offsets(length) {
        let server = cutting(&fixture, offset, ranges, 1);
        output(&sandbox, &server.url(), "tree").exits(0);
        assert_tree(&sandbox, "tree");
        let done = sandbox.path(&format!("{offset}"));
        std::fs::rename(sandbox.path("tree"), done).unwrap();
        // A server without ranges answers the request for the rest with the whole file.
        let rest = (offset > 0).then_some(offset);
        let asked = server.ranges_of("/nar/");
        assert!(
            asked == [None, rest] || asked == [None, Some(0)],
            "{offset}: {asked:?}"
        );
    }
}

#[test]
fn a_cut_nar_is_resumed_zstd() {
    assert_cut_nar_is_completed("zstd", Ranges::Work);
}

#[test]
fn a_cut_nar_is_resumed_lzip() {
    assert_cut_nar_is_completed("lzip", Ranges::Work);
}

#[test]
fn a_cut_nar_is_resumed_uncompressed() {
    assert_cut_nar_is_completed("none", Ranges::Work);
}

#[test]
fn a_cut_nar_is_fetched_again_gzip() {
    assert_cut_nar_is_completed("gzip", Ranges::Ignored);
}

#[test]
fn a_cut_nar_is_fetched_again_xz() {
    assert_cut_nar_is_completed("xz", Ranges::Ignored);
}

#[test]
fn a_nar_that_is_always_cut_fails_cleanly() {
    let (sandbox, fixture) = only("zstd");
    let length = std::fs::read(fixture.nar(&item("tree"), "zstd"))
        .unwrap()
        .len();
    std::thread::scope(|scope| {
        for offset in offsets(length) {
            let (sandbox, fixture) = (&sandbox, &fixture);
            scope.spawn(move || {
                let server = cutting(fixture, offset, Ranges::Ignored, usize::MAX);
                let name = format!("out-{offset}");
                let arguments = ["fetch", "--output", &name, &item("tree")];
                let ended = sandbox.subst(&server.url(), &arguments).exits(4).prints("");
                ended.says("every download failed");
                assert!(!sandbox.path(&name).exists());
            });
        }
    });
    let left = names(&sandbox.path(""));
    assert!(left.iter().all(|name| !name.contains("out-")), "{left:?}");
}

#[test]
fn a_closure_is_fetched_from_a_server_that_cuts_every_response_once() {
    let (sandbox, fixture) = only("zstd");
    let server = cutting(&fixture, 100, Ranges::Work, 7);
    sandbox
        .subst(&server.url(), &["fetch", &item("sample")])
        .exits(0);
    assert_complete(&sandbox);
}

#[test]
fn a_broken_server_leaves_the_store_empty() {
    let (sandbox, fixture) = only("zstd");
    let server = cutting(&fixture, 50, Ranges::Ignored, usize::MAX);
    sandbox
        .subst(&server.url(), &["fetch", &item("sample")])
        .exits(4)
        .prints("");
    assert_nothing(&sandbox);
    // The second server has it.
    let both = format!("{} {}", server.url(), Kind::Guix.url());
    sandbox.subst(&both, &["fetch", &item("sample")]).exits(0);
    assert_complete(&sandbox);
}

/// A stale narinfo names a nar that does not exist: its cache entry is removed, and it is requested
/// once more.
#[test]
fn a_stale_narinfo_is_requested_again() {
    let (sandbox, fixture) = only("zstd");
    std::fs::remove_dir_all(fixture.dir.join("nar/zstd")).unwrap();
    let server = Server::of(fixture.dir.clone());
    let notes = item("notes");
    sandbox.subst(&server.url(), &["query", &notes]).exits(0);
    sandbox
        .subst(&server.url(), &["fetch", &notes])
        .exits(4)
        .prints("")
        .says("404");
    assert_eq!(server.requests_for(".narinfo"), 2, "{:?}", server.asked());
    assert_nothing(&sandbox);
    // The lookup cache no longer has it as available.
    let list = sandbox
        .subst(&server.url(), &["cache", "list"])
        .exits(0)
        .stdout;
    assert_eq!(list, "");
}

#[test]
fn the_same_failure_is_reported_once() {
    let (sandbox, fixture) = only("zstd");
    std::fs::remove_dir_all(fixture.dir.join("nar/zstd")).unwrap();
    let server = Server::of(fixture.dir.clone());
    let notes = item("notes");
    let told = sandbox
        .subst(&server.url(), &["fetch", &notes])
        .exits(4)
        .prints("")
        .stderr;
    let url = format!("{}/nar/zstd/{}", server.url(), base(&notes));
    let why = "the server does not have it (status 404)";
    let lines: Vec<&str> = told.lines().filter(|line| line.contains("404")).collect();
    let warning = format!("subst: warning: {} from {url}: {why}", base(&notes));
    assert_eq!(lines, [warning, format!("    {url}: {why}")], "{told}");
}

#[test]
fn the_failures_of_a_server_are_one_line() {
    let sandbox = Sandbox::new();
    let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
    std::fs::remove_dir_all(fixture.dir.join("nar")).unwrap();
    let server = Server::of(fixture.dir.clone());
    let arguments = ["fetch", "--keep-going", &item("sample")];
    let said = sandbox.subst(&server.url(), &arguments).exits(4).stderr;
    let why = "the server does not have it (status 404)";
    let lines: Vec<&str> = said.lines().filter(|line| line.contains(why)).collect();
    let [warning, cause] = lines[..] else {
        panic!("not one warning and one cause: {said}");
    };
    assert!(warning.starts_with("subst: warning: "), "{said}");
    assert!(cause.ends_with(&format!(" and 2 others: {why}")), "{said}");
    assert_eq!(said.matches("subst: error: ").count(), 1, "{said}");
}

#[test]
fn a_stale_narinfo_is_replaced_by_the_current_one() {
    let sandbox = Sandbox::new();
    let directory = Kind::Guix.directory();
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let reply = Reply::file_or_range(&directory, request);
        let is_first = || asked.fetch_add(1, Ordering::Relaxed) == 0;
        if request.path.ends_with(".narinfo") && is_first() {
            let text = std::fs::read_to_string(directory.join(&request.path[1..])).unwrap();
            return Reply::new("200 OK", text.replace("URL: nar/", "URL: moved/"));
        }
        reply
    });
    let notes = item("notes");
    sandbox
        .subst(&server.url(), &["fetch", &notes])
        .exits(0)
        .prints(&format!("{notes}\n"));
    assert_eq!(server.requests_for(".narinfo"), 2, "{:?}", server.asked());
}

#[test]
fn output_requests_a_stale_narinfo_again() {
    let (sandbox, fixture) = only("zstd");
    let nar = fixture.nar(&item("tree"), "zstd");
    let server = Server::of(fixture.dir.clone());
    sandbox
        .subst(&server.url(), &["query", &item("tree")])
        .exits(0);
    std::fs::create_dir(fixture.dir.join("moved")).unwrap();
    std::fs::rename(&nar, fixture.dir.join("moved/tree")).unwrap();
    let (old, new) = (
        format!("URL: nar/zstd/{}", base(&item("tree"))),
        "URL: moved/tree",
    );
    fixture.edit(&item("tree"), |text| text.replace(&old, new));
    output(&sandbox, &server.url(), "tree").exits(0).says("404");
    assert_tree(&sandbox, "tree");
    assert_eq!(server.requests_for(".narinfo"), 2, "{:?}", server.asked());
}

#[test]
fn output_uses_the_next_server_after_a_damaged_nar() {
    let (sandbox, fixture) = only("zstd");
    flip(&fixture.nar(&item("tree"), "zstd"), 100);
    let (damaged, good) = (
        Server::of(fixture.dir.clone()),
        Server::of(Kind::Guix.directory()),
    );
    output(&sandbox, &damaged.url(), "tree").exits(3).prints("");
    assert!(!sandbox.path("tree").exists());
    let both = format!("{} {}", damaged.url(), good.url());
    output(&sandbox, &both, "tree")
        .exits(0)
        .says(&damaged.url())
        .prints("tree\n");
    assert_tree(&sandbox, "tree");
    assert_eq!(
        (damaged.requests_for("/nar/"), good.requests_for("/nar/")),
        (2, 1)
    );
}

#[test]
fn a_server_with_a_late_answer_is_used_after_a_damaged_nar() {
    let (sandbox, fixture) = only("zstd");
    flip(&fixture.nar(&item("tree"), "zstd"), 100);
    let directory = fixture.dir.clone();
    let is_needed = Arc::new(AtomicBool::new(false));
    let damaged = Server::start({
        let is_needed = Arc::clone(&is_needed);
        move |request| {
            is_needed.fetch_or(request.path.starts_with("/nar/"), Ordering::Relaxed);
            Reply::file(&directory, request)
        }
    });
    let late = Server::start(move |request| {
        while request.path.ends_with(".narinfo") && !is_needed.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Long enough to find the damage first; any length is correct.
        std::thread::sleep(Duration::from_millis(300));
        Reply::file(&Kind::Guix.directory(), request)
    });
    let both = format!("{} {}", late.url(), damaged.url());
    output(&sandbox, &both, "tree")
        .exits(0)
        .says(&damaged.url())
        .prints("tree\n");
    assert_tree(&sandbox, "tree");
    assert_eq!(
        (damaged.requests_for("/nar/"), late.requests_for("/nar/")),
        (1, 1)
    );
}

/// A server that answers `status` `times` times before its normal answer.
fn failing_at_first(
    fixture: &Fixture,
    part: &'static str,
    status: &'static str,
    times: usize,
) -> Server {
    let directory = fixture.dir.clone();
    let failed = AtomicUsize::new(0);
    Server::start(move |request| {
        if request.path.contains(part) && failed.fetch_add(1, Ordering::Relaxed) < times {
            return Reply::new(status, "try again");
        }
        Reply::file_or_range(&directory, request)
    })
}

#[test]
fn temporary_errors_are_retried() {
    let (sandbox, fixture) = only("zstd");
    for status in ["500 Internal Server Error", "502 Bad Gateway"] {
        let server = failing_at_first(&fixture, "/nar/", status, 2);
        output(&sandbox, &server.url(), "notes").exits(0);
        assert_eq!(server.requests_for("/nar/"), 3);
        std::fs::remove_file(sandbox.path("tree")).unwrap();
    }
}

#[test]
fn permanent_errors_are_reported() {
    let (sandbox, fixture) = only("zstd");
    let server = failing_at_first(&fixture, "/nar/", "500 Internal Server Error", usize::MAX);
    sandbox
        .subst(&server.url(), &["fetch", &item("notes")])
        .exits(4)
        .prints("")
        .says("500");
    assert_nothing(&sandbox);
    let server = failing_at_first(
        &fixture,
        ".narinfo",
        "500 Internal Server Error",
        usize::MAX,
    );
    sandbox
        .subst(&server.url(), &["fetch", &item("notes")])
        .exits(4)
        .prints("")
        .says("500");
    assert_nothing(&sandbox);
}

#[test]
fn a_slow_drip_is_not_a_stall() {
    let (sandbox, fixture) = only("none");
    let directory = fixture.dir.clone();
    let server = Server::start(move |request| {
        let mut reply = Reply::file_or_range(&directory, request);
        // In total longer than the stall timeout.
        reply.drip = Some((64, Duration::from_millis(80)));
        reply
    });
    output_with_short_stall_timeout(&sandbox, &server.url(), "tools").exits(0);
    assert_tree(&sandbox, "tools");
    assert_eq!(server.requests_for("/nar/"), 1);
}

#[test]
fn a_stalled_download_is_resumed() {
    let (sandbox, fixture) = only("none");
    let directory = fixture.dir.clone();
    let stalls = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let mut reply = Reply::file_or_range(&directory, request);
        if request.path.starts_with("/nar/") && stalls.fetch_add(1, Ordering::Relaxed) == 0 {
            reply.stall_at = Some(1000);
        }
        reply
    });
    output_with_short_stall_timeout(&sandbox, &server.url(), "tools").exits(0);
    assert_tree(&sandbox, "tools");
    assert_eq!(server.ranges_of("/nar/"), [None, Some(1000)]);
}

#[test]
fn a_server_that_stays_silent_is_an_error() {
    let (sandbox, fixture) = only("none");
    for part in ["/nar/", ".narinfo"] {
        let directory = fixture.dir.clone();
        let server = Server::start(move |request| {
            let mut reply = Reply::file(&directory, request);
            if request.path.contains(part) {
                reply.stall_at = Some(10);
            }
            reply
        });
        output_with_short_stall_timeout(&sandbox, &server.url(), "tools")
            .exits(4)
            .prints("");
        assert!(!sandbox.path("tree").exists());
    }
}

#[test]
fn retry_after_is_respected() {
    let busy = |what: &'static str| {
        let directory = Kind::Guix.directory();
        Server::start(move |request| {
            if request.path.contains(what) {
                Reply::new("503 Service Unavailable", "").header("Retry-After: 3600")
            } else {
                Reply::file(&directory, request)
            }
        })
    };
    let sandbox = Sandbox::new();
    let server = busy("/nar/");
    let run = sandbox
        .subst(&server.url(), &["fetch", &item("notes")])
        .exits(4);
    assert!(
        run.stderr.contains("(retry after 3600 s)"),
        "{}",
        run.stderr
    );
    let copy = Fixture::copy(Kind::Guix, sandbox.path("server"));
    let narinfo = std::fs::read_to_string(copy.narinfo(&item("notes"))).unwrap();
    assert!(
        narinfo.matches("URL: ").count() > 1,
        "it could have been asked for another nar"
    );
    assert_eq!(server.requests_for("/nar/"), 1);

    let sandbox = Sandbox::new();
    let server = busy(".narinfo");
    sandbox
        .subst(&server.url(), &["query", &item("notes")])
        .exits(4);
    let list = sandbox
        .subst(&server.url(), &["cache", "list"])
        .exits(0)
        .stdout;
    assert!(
        list.contains("59 min left") || list.contains("1 h left"),
        "{list}"
    );
}
