//! Items that are unpacked while their references are still looked up.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::publisher::{Publisher, command, contents, file_nar, installed, name};
use crate::support::sandbox::{Running, run};
use crate::support::{Reply, Sandbox, Server, listing, wait_until};

/// Publishes a file of these `contents` as the item `digit`, with the size of its nar.
fn publish(publisher: &Publisher, digit: char, contents: &[u8], references: &str) -> String {
    let nar = file_nar(contents);
    let size = nar.len() as u64;
    std::fs::write(publisher.nar(digit), &nar).unwrap();
    let downloads = format!("URL: {digit}.nar\nCompression: none\nFileSize: {size}\n");
    publisher.describe(digit, &nar, size, references, &downloads)
}

/// Where the item `digit` is before it is part of the store.
fn temporary_tree(sandbox: &Sandbox, digit: char) -> PathBuf {
    let store = sandbox.root().join("gnu/store");
    store.join(format!("{}.tmp", name(digit)))
}

/// A server of `publisher` that answers the lookup of the item `held` when `is_reached`. `reply` may answer other
/// requests.
fn holding_server(
    publisher: &Publisher,
    held: char,
    is_reached: impl Fn() -> bool + Send + Sync + 'static,
    reply: impl Fn(&str) -> Option<Reply> + Send + Sync + 'static,
) -> Server {
    let directory = publisher.dir.clone();
    let held = format!("/{}.narinfo", &name(held)[..32]);
    Server::start(move |request| {
        if request.path == held && !wait_until(&is_reached) {
            return Reply::new("500 Internal Server Error", "not reached");
        }
        reply(&request.path).unwrap_or_else(|| Reply::file(&directory, request))
    })
}

fn publisher(sandbox: &Sandbox) -> Publisher {
    let publisher = Publisher::new(sandbox, "server", 1);
    Publisher::trust(sandbox, &[&publisher]);
    publisher
}

/// Nothing is in the store but an empty `.links`.
fn assert_nothing_left(sandbox: &Sandbox) {
    let store = sandbox.root().join("gnu/store");
    assert_eq!(listing::names(&store), [".links"]);
    assert_eq!(listing::names(&store.join(".links")), [""; 0]);
}

#[test]
fn a_nar_that_has_arrived_is_unpacked_while_references_are_looked_up() {
    let sandbox = Sandbox::new();
    let publisher = publisher(&sandbox);
    let reference = publish(&publisher, '2', b"reference", "");
    let top = publish(&publisher, '1', b"top", &name('2'));
    let tree = temporary_tree(&sandbox, '1');
    let server = holding_server(&publisher, '2', move || tree.exists(), |_| None);

    let arguments = ["fetch", "--progress", "json", &top];
    let ended = run(command(&sandbox, &server.url(), &arguments)).exits(0);
    assert!(contents(&sandbox, &top).contains("top"));
    assert!(installed(&sandbox, &reference).exists());
    assert_eq!(server.requests_for("/1.nar"), 1);

    // It is reported as any other download, when there is a plan.
    let events = ended.stderr.lines().map(|line| {
        let event: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        (text("event"), text("item"))
    });
    let events: Vec<(String, String)> = events.collect();
    let of_top: Vec<&str> = events
        .iter()
        .filter(|(event, item)| event == "planned" || *item == name('1'))
        .map(|(event, _)| event.as_str())
        .collect();
    assert_eq!(of_top, ["planned", "started", "unpacked", "registered"]);
}

#[test]
fn nars_are_requested_when_others_have_arrived() {
    let sandbox = Sandbox::new();
    let publisher = publisher(&sandbox);
    publish(&publisher, '4', b"last", "");
    let names = ['2', '3', '4'].map(name).join(" ");
    publish(&publisher, '2', b"second", "");
    publish(&publisher, '3', b"third", "");
    let top = publish(&publisher, '1', b"top", &names);

    // One at a time, and nothing more is found before the last one is requested.
    let requested = Arc::new(AtomicUsize::new(0));
    let are_requested = {
        let requested = Arc::clone(&requested);
        move || requested.load(Ordering::Relaxed) == 3
    };
    let server = holding_server(&publisher, '4', are_requested, move |path| {
        let is_nar = path.ends_with(".nar");
        requested.fetch_add(usize::from(is_nar), Ordering::Relaxed);
        None
    });
    let mut command = command(&sandbox, &server.url(), &["fetch", &top]);
    command.env("SUBST_READ_AHEAD", "1");
    run(command).exits(0);
}

#[test]
fn what_was_unpacked_for_a_closure_with_a_missing_item_is_removed() {
    let sandbox = Sandbox::new();
    let publisher = publisher(&sandbox);
    let top = publish(&publisher, '1', b"top", &name('2'));
    let tree = temporary_tree(&sandbox, '1');
    let server = holding_server(&publisher, '2', move || tree.exists(), |_| None);
    let arguments = ["fetch", &top];
    run(command(&sandbox, &server.url(), &arguments))
        .exits(1)
        .says("2222");
    assert_nothing_left(&sandbox);
}

#[test]
fn an_interrupt_of_the_lookups_removes_what_was_unpacked() {
    let sandbox = Sandbox::new();
    let publisher = publisher(&sandbox);
    let top = publish(&publisher, '1', b"top", &name('2'));
    let has_ended = Arc::new(AtomicBool::new(false));
    let is_reached = {
        let has_ended = Arc::clone(&has_ended);
        move || has_ended.load(Ordering::Relaxed)
    };
    let server = holding_server(&publisher, '2', is_reached, |_| None);
    let running = Running::start(command(&sandbox, &server.url(), &["fetch", &top]), "");
    let tree = temporary_tree(&sandbox, '1');
    assert!(wait_until(|| tree.exists()));
    running.interrupt();
    running.end().exits(130);
    has_ended.store(true, Ordering::Relaxed);
    assert_nothing_left(&sandbox);
}

#[test]
fn the_tree_of_another_build_than_the_planned_one_is_not_used() {
    let sandbox = Sandbox::new();
    let first = Publisher::new(&sandbox, "first", 1);
    let second = Publisher::new(&sandbox, "second", 2);
    Publisher::trust(&sandbox, &[&first, &second]);
    // Its build is unpacked first, but refers to what cannot be had.
    let item = publish(&first, '1', b"first build", &name('9'));
    publish(&second, '1', b"second build", "");
    let tree = temporary_tree(&sandbox, '1');
    let server = holding_server(&first, '9', move || tree.exists(), |_| None);
    let other_server = Server::of(second.dir.clone());
    let urls = [server.url(), other_server.url()].join(" ");
    run(command(&sandbox, &urls, &["fetch", &item])).exits(0);
    assert_eq!(server.requests_for("/1.nar"), 1);
    assert!(contents(&sandbox, &item).contains("second build"));
}

#[test]
fn a_nar_that_could_not_be_unpacked_early_is_requested_again() {
    let sandbox = Sandbox::new();
    let publisher = publisher(&sandbox);
    publish(&publisher, '2', b"reference", "");
    let top = publish(&publisher, '1', b"top", &name('2'));
    let requests = Arc::new(AtomicUsize::new(0));
    let is_requested = {
        let requests = Arc::clone(&requests);
        move || requests.load(Ordering::Relaxed) == 1
    };
    let wrong = file_nar(b"pot");
    let server = holding_server(&publisher, '2', is_requested, move |path| {
        let is_first = path == "/1.nar" && requests.fetch_add(1, Ordering::Relaxed) == 0;
        is_first.then(|| Reply::new("200 OK", wrong.clone()))
    });
    run(command(&sandbox, &server.url(), &["fetch", &top])).exits(0);
    assert!(contents(&sandbox, &top).contains("top"));
}
