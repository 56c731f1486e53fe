//! Processes that are killed, interrupted, or compete.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{assert_complete, assert_nothing, only};
use crate::support::listing::{names, unused_links};
use crate::support::sandbox::{Running, make_writable};
use crate::support::{Kind, Reply, Sandbox, Server, item, wait_until};

/// A server that stops in the middle of the nar of `tree` until it is released.
struct Gate {
    server: Server,
    is_open: Arc<AtomicBool>,
}

impl Gate {
    fn before(directory: PathBuf) -> Self {
        let is_open = Arc::new(AtomicBool::new(false));
        let opened = Arc::clone(&is_open);
        let server = Server::start(move |request| {
            let mut reply = Reply::file_or_range(&directory, request);
            let is_tree = request.path.starts_with("/nar/") && request.path.contains("-tree-");
            if is_tree && !opened.load(Ordering::Relaxed) {
                // More than one of the buffers between network and disk, less than all.
                reply.stall_at = Some(300_000);
            }
            reply
        });
        Self { server, is_open }
    }
}

/// Starts a fetch of everything and waits until half of `tree` is on disk.
fn stuck_in_tree(sandbox: &Sandbox, url: &str) -> Running {
    let arguments = ["fetch", &item("sample")];
    let running = Running::start(sandbox.command(Kind::Guix, url, &arguments), "");
    let temporary = sandbox.root().join(format!("{}.tmp", &item("tree")[1..]));
    let is_half = || temporary.join("names").is_dir() || temporary.join("deep").is_dir();
    assert!(wait_until(is_half), "{} did not come", temporary.display());
    running
}

#[test]
fn after_a_kill_the_next_run_succeeds() {
    let (sandbox, fixture) = only("none");
    let gate = Gate::before(fixture.dir.clone());
    let mut running = stuck_in_tree(&sandbox, &gate.server.url());
    let tree = sandbox.root().join(&item("tree")[1..]);
    let temporary = PathBuf::from(format!("{}.tmp", tree.display()));
    // A file that is large enough for `.links`, and one more behind it.
    let large = ["40000", "40000.again"].map(|name| temporary.join("sizes").join(name));
    assert!(wait_until(|| large.iter().all(|file| file.is_file())));
    running.kill();
    assert_eq!(running.end().code, None);
    // What is half done is not visible as an item.
    assert!(!tree.exists() && temporary.exists());
    // Nor is it in `.links`: all entries there are used by others.
    make_writable(&temporary);
    std::fs::remove_dir_all(&temporary).unwrap();
    assert_eq!(unused_links(&sandbox.store()), Vec::<String>::new());
    gate.is_open.store(true, Ordering::Relaxed);
    let top = item("sample");
    let ended = sandbox.subst(&gate.server.url(), &["fetch", &top]).exits(0);
    ended.prints(&format!("{top}\n"));
    assert_complete(&sandbox);
}

#[test]
fn what_a_killed_run_left_is_removed_by_a_fetch_of_another_item() {
    let (sandbox, fixture) = only("none");
    let gate = Gate::before(fixture.dir.clone());
    let mut running = stuck_in_tree(&sandbox, &gate.server.url());
    running.kill();
    assert_eq!(running.end().code, None);
    let temp_roots = sandbox.root().join("var/guix/temproots");
    assert_eq!(names(&temp_roots).len(), 1);

    sandbox
        .subst(&fixture.url(), &["fetch", &item("notes")])
        .exits(0);
    let left = names(&sandbox.store());
    let is_rest = |name: &&String| name.ends_with(".tmp") || name.ends_with(".lock");
    assert_eq!(left.iter().find(is_rest), None, "{left:?}");
    assert_eq!(names(&temp_roots), [""; 0]);
    assert_eq!(unused_links(&sandbox.store()), [""; 0]);
}

#[test]
fn an_interrupt_ends_the_run_and_leaves_only_complete_items() {
    let (sandbox, fixture) = only("none");
    let gate = Gate::before(fixture.dir.clone());
    let running = stuck_in_tree(&sandbox, &gate.server.url());
    let began = std::time::Instant::now();
    running.interrupt();
    let ended = running.end().exits(130).prints("");
    assert!(
        began.elapsed().as_secs() < 5,
        "{:?}: {}",
        began.elapsed(),
        ended.stderr
    );
    let left = crate::support::listing::names(&sandbox.store());
    let is_rest = |name: &&String| name.ends_with(".tmp") || name.ends_with(".lock");
    assert_eq!(left.iter().find(is_rest), None, "{left:?}");
    assert!(!sandbox.root().join(&item("tree")[1..]).exists());
}

#[test]
fn several_processes_fetch_each_item_once() {
    let (sandbox, fixture) = only("zstd");
    let server = Server::of(fixture.dir.clone());
    let top = item("sample");
    let start = || {
        let command = sandbox.command(Kind::Guix, &server.url(), &["fetch", &top]);
        Running::start(command, "")
    };
    let all: Vec<Running> = (0..4).map(|_| start()).collect();
    for running in all {
        running.end().exits(0).prints(&format!("{top}\n"));
    }
    assert_complete(&sandbox);
    assert_eq!(
        server.requests_for("/nar/"),
        7,
        "each nar once: {:?}",
        server.asked()
    );
}

#[test]
fn a_waiting_process_continues_after_one_that_was_killed() {
    let (sandbox, fixture) = only("none");
    let gate = Gate::before(fixture.dir.clone());
    let mut first = stuck_in_tree(&sandbox, &gate.server.url());
    let top = item("sample");
    let command = sandbox.command(Kind::Guix, &gate.server.url(), &["fetch", &top]);
    let second = Running::start(command, "");
    gate.is_open.store(true, Ordering::Relaxed);
    first.kill();
    first.end();
    second.end().exits(0).prints(&format!("{top}\n"));
    assert_complete(&sandbox);
}

#[test]
fn an_interrupt_before_the_first_byte_leaves_an_empty_store() {
    let (sandbox, fixture) = only("none");
    let directory = fixture.dir.clone();
    let server = Server::start(move |request| {
        let mut reply = Reply::file(&directory, request);
        if request.path.starts_with("/nar/") {
            reply.stall_at = Some(0);
        }
        reply
    });
    let command = sandbox.command(Kind::Guix, &server.url(), &["fetch", &item("notes")]);
    let running = Running::start(command, "");
    assert!(wait_until(|| server.requests_for("/nar/") > 0));
    running.interrupt();
    running.end().exits(130).prints("");
    assert_nothing(&sandbox);
}

#[test]
fn an_interrupt_while_a_server_is_silent_ends_the_lookup() {
    let (sandbox, fixture) = only("none");
    let directory = fixture.dir.clone();
    let server = Server::start(move |request| {
        let mut reply = Reply::file(&directory, request);
        reply.stall_at = Some(0);
        reply
    });
    for arguments in [&["fetch"][..], &["fetch", "--output", "tree"]] {
        let began = std::time::Instant::now();
        let notes = item("notes");
        let arguments = [arguments, &[&*notes]].concat();
        let command = sandbox.command(Kind::Guix, &server.url(), &arguments);
        let asked = server.asked().len();
        let running = Running::start(command, "");
        assert!(wait_until(|| server.asked().len() > asked));
        running.interrupt();
        running.end().exits(130).prints("");
        assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    }
}
