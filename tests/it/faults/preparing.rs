//! Servers that prepare items when they are first asked for: `--wait` fetches the rest meanwhile, and
//! these as soon as they are ready.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::publisher::{Publisher, command, contents, installed, name};
use crate::support::sandbox::{Running, run};
use crate::support::{Reply, Sandbox, Server, wait_until};

/// A publisher of a file `1` that refers to `2`, and of a file `3`. Its server prepares the first two
/// until each has been asked for `requests` times.
fn preparing(sandbox: &Sandbox, requests: usize) -> (Server, [String; 3]) {
    let (_, server, items) = preparing_publisher(sandbox, requests);
    (server, items)
}

/// The same, with the publisher.
fn preparing_publisher(sandbox: &Sandbox, requests: usize) -> (Publisher, Server, [String; 3]) {
    let publisher = Publisher::new(sandbox, "server", 1);
    Publisher::trust(sandbox, &[&publisher]);
    let items = [
        publisher.publish_file('1', "one", &name('2')),
        publisher.publish_file('2', "two", ""),
        publisher.publish_file('3', "three", ""),
    ];

    let dir = publisher.dir.clone();
    let asked: Mutex<Vec<String>> = Mutex::default();
    let server = Server::start(move |request| {
        let is_prepared = ["/1", "/2"]
            .iter()
            .any(|start| request.path.starts_with(start));
        if is_prepared && request.path.ends_with(".narinfo") {
            let mut asked = asked.lock().unwrap();
            asked.push(request.path.clone());
            if asked.iter().filter(|path| **path == request.path).count() <= requests {
                return Reply::not_found()
                    .header("X-Baking: 1")
                    .header("Cache-Control: max-age=300");
            }
        }
        Reply::file(&dir, request)
    });
    (publisher, server, items)
}

#[test]
fn items_are_fetched_once_they_are_ready_and_the_rest_before() {
    let sandbox = Sandbox::new();
    let (server, items) = preparing(&sandbox, 2);
    let mut fetch = command(&sandbox, &server.url(), &["fetch", "--wait", "5m"]);
    fetch.args(["--progress", "plain", &items[0], &items[2]]);
    let ended = run(fetch).exits(0);
    assert_eq!(contents(&sandbox, &items[0]), "one");
    assert_eq!(contents(&sandbox, &items[1]), "two");
    assert_eq!(ended.stdout, format!("{}\n{}\n", items[2], items[0]));
    let ended = ended.says("1 item is being prepared by the server, waiting (0:00 of 5:00)");
    // The time starts over for what the first item refers to.
    assert_eq!(ended.stderr.matches("(0:00 of").count(), 2, "{ended:?}");
    ended.says("3 items fetched");

    let asked = server.asked();
    let position = |part: &str| asked.iter().rposition(|line| line.contains(part)).unwrap();
    assert!(position("/3.nar") < position(&name('1')[..32]), "{asked:?}");
    for digit in ['1', '2'] {
        let narinfo = format!("{}.narinfo", &name(digit)[..32]);
        assert_eq!(server.requests_for(&narinfo), 3, "{asked:?}");
    }
}

#[test]
fn a_tree_is_fetched_once_its_item_is_ready() {
    let sandbox = Sandbox::new();
    let (server, items) = preparing(&sandbox, 1);
    let arguments = ["fetch", "--output", "tree", "--wait", "5m", &items[1]];
    run(command(&sandbox, &server.url(), &arguments)).exits(0);
    assert_eq!(std::fs::read(sandbox.path("tree")).unwrap(), b"two");
}

#[test]
fn the_wait_ends() {
    let sandbox = Sandbox::new();
    let (server, items) = preparing(&sandbox, usize::MAX);
    for arguments in [
        &["fetch"][..],
        &["fetch", "--output", "tree"],
        &["fetch", "--dry-run"],
    ] {
        let mut fetch = command(&sandbox, &server.url(), arguments);
        fetch.args([&*items[1], "--wait", "2s"]);
        run(fetch)
            .exits(1)
            .says("a server is preparing it, but does not have it yet")
            .says("--wait 10m")
            .says(" waits until it is ready");
    }

    // What is fetched meanwhile stays.
    let mut fetch = command(&sandbox, &server.url(), &["fetch", "--wait", "2s"]);
    fetch.args([&items[0], &items[2]]);
    run(fetch).exits(1).prints(&format!("{}\n", items[2]));
    assert!(installed(&sandbox, &items[2]).exists());
}

#[test]
fn nothing_is_waited_for_when_something_else_fails() {
    let sandbox = Sandbox::new();
    let (server, items) = preparing(&sandbox, usize::MAX);
    let unknown = format!("/gnu/store/{}", name('4'));
    let mut fetch = command(&sandbox, &server.url(), &["fetch", "--wait", "1h"]);
    fetch.args([&items[0], &unknown]);
    run(fetch).exits(1).says("no server has it");
}

#[test]
fn a_fetch_that_keeps_going_waits_although_something_else_failed() {
    let sandbox = Sandbox::new();
    let (publisher, server, items) = preparing_publisher(&sandbox, 2);
    let unknown = format!("/gnu/store/{}", name('4'));
    let broken = publisher.publish_file('5', "five", "");
    std::fs::remove_file(publisher.nar('5')).unwrap();
    let referrer = publisher.publish_file('6', "six", &name('5'));

    let mut fetch = command(&sandbox, &server.url(), &["fetch", "-k", "--wait", "5m"]);
    fetch.args([
        "--progress",
        "plain",
        &items[0],
        &unknown,
        &referrer,
        &items[2],
    ]);
    let ended = run(fetch).exits(4);
    assert_eq!(ended.stdout, format!("{}\n{}\n", items[2], items[0]));
    assert_eq!(contents(&sandbox, &items[1]), "two");
    let ended = ended
        .says("waiting (0:00 of 5:00)")
        .says("no server has it")
        .says("1 item was not fetched because of that")
        .says("3 of 5 items fetched");
    // Each failure is reported as one, in the end.
    let failures = format!("cannot fetch {broken}");
    assert_eq!(ended.stderr.matches(&failures).count(), 1, "{ended:?}");
    // Its narinfo might have been out of date; not again after each wait.
    assert_eq!(server.requests_for("/5.nar"), 2, "{:?}", server.asked());
}

#[test]
fn an_item_that_a_server_has_given_up_fails_once() {
    let sandbox = Sandbox::new();
    let (publisher, server, items) = preparing_publisher(&sandbox, 2);
    let gone = publisher.publish_file('5', "five", "");
    run(command(&sandbox, &server.url(), &["query", &gone])).exits(0);
    std::fs::remove_file(publisher.nar('5')).unwrap();
    std::fs::remove_file(publisher.narinfo('5')).unwrap();

    let arguments = ["fetch", "-k", "--wait", "5m", "--json", &items[0], &gone];
    let ended = run(command(&sandbox, &server.url(), &arguments));
    let of_gone = format!("cannot fetch {gone}");
    assert_eq!(ended.stderr.matches(&of_gone).count(), 1, "{ended:?}");
    let json = ended.json();
    let paths = json["items"].as_array().unwrap().iter();
    assert_eq!(
        paths.filter(|item| item["path"] == *gone).count(),
        1,
        "{json}"
    );
    assert_eq!(contents(&sandbox, &items[0]), "one");
}

/// A publisher of files `1` and `2`, whose cache has lost the nar of the first since that was looked up:
/// it is prepared anew, until its narinfo has been asked for three times more.
fn expired(sandbox: &Sandbox) -> (Server, [String; 2]) {
    let publisher = Publisher::new(sandbox, "server", 1);
    Publisher::trust(sandbox, &[&publisher]);
    let items = [
        publisher.publish_file('1', "one", ""),
        publisher.publish_file('2', "two", ""),
    ];

    let dir = publisher.dir;
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |request| match &*request.path {
        "/1.nar" if asked.load(Ordering::Relaxed) < 4 => Reply::not_found(),
        path if path.starts_with("/1") && path.ends_with(".narinfo") => {
            match asked.fetch_add(1, Ordering::Relaxed) {
                1 | 2 => Reply::not_found().header("X-Baking: 1"),
                _ => Reply::file(&dir, request),
            }
        }
        _ => Reply::file(&dir, request),
    });
    run(command(sandbox, &server.url(), &["query", &items[0]])).exits(0);
    (server, items)
}

#[test]
fn a_nar_that_is_prepared_anew_is_waited_for() {
    let sandbox = Sandbox::new();
    let (server, items) = expired(&sandbox);
    let mut fetch = command(&sandbox, &server.url(), &["fetch", "--wait", "5m"]);
    fetch.args(["--progress", "plain"]).args(&items);
    let ended = run(fetch).exits(0);
    assert_eq!(ended.stdout, format!("{}\n{}\n", items[1], items[0]));
    ended.says("1 item is being prepared by the server, waiting (0:00 of 5:00)");
    assert_eq!(contents(&sandbox, &items[0]), "one");

    let sandbox = Sandbox::new();
    let (server, items) = expired(&sandbox);
    let arguments = ["fetch", "--output", "tree", "--wait", "5m", &items[0]];
    let mut fetch = command(&sandbox, &server.url(), &arguments);
    fetch.args(["--progress", "plain"]);
    run(fetch)
        .exits(0)
        .says("1 item is being prepared by the server, waiting (0:00 of 5:00)");
    assert_eq!(std::fs::read(sandbox.path("tree")).unwrap(), b"one");

    let sandbox = Sandbox::new();
    let (server, items) = expired(&sandbox);
    run(command(&sandbox, &server.url(), &["fetch", &items[0]]))
        .exits(1)
        .says("a server is preparing it, but does not have it yet")
        .says("--wait 10m");
}

#[test]
fn the_wait_for_nars_that_never_come_ends() {
    let sandbox = Sandbox::new();
    let publisher = Publisher::new(&sandbox, "server", 1);
    Publisher::trust(&sandbox, &[&publisher]);
    let item = publisher.publish_file('1', "one", "");
    let dir = publisher.dir;
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let is_narinfo = request.path.ends_with(".narinfo");
        if is_narinfo && asked.fetch_add(1, Ordering::Relaxed) % 2 == 1 {
            return Reply::not_found().header("X-Baking: 1");
        }
        match request.path.ends_with(".nar") {
            true => Reply::not_found(),
            false => Reply::file(&dir, request),
        }
    });

    for arguments in [&["fetch"][..], &["fetch", "--output", "tree"]] {
        let mut fetch = command(&sandbox, &server.url(), arguments);
        fetch.args([&*item, "--wait", "2s"]);
        run(fetch).exits(1).says("a server is preparing it");
    }
}

#[test]
fn what_is_valid_already_is_reported_before_the_wait() {
    let sandbox = Sandbox::new();
    let (server, items) = preparing(&sandbox, usize::MAX);
    run(command(&sandbox, &server.url(), &["fetch", &items[2]])).exits(0);

    let mut fetch = command(&sandbox, &server.url(), &["fetch", "--wait", "1h"]);
    fetch.args([&items[0], &items[2]]);
    let running = Running::start(fetch, "");
    assert!(wait_until(|| server.requests_for("narinfo") > 1));
    std::thread::sleep(Duration::from_millis(500));
    running.interrupt();
    let ended = running.end().exits(130).prints(&format!("{}\n", items[2]));
    assert!(
        ended.stderr.contains("subst: interrupted\n"),
        "{}",
        ended.stderr
    );
}

#[test]
fn an_interrupt_ends_the_wait() {
    let sandbox = Sandbox::new();
    let (server, items) = preparing(&sandbox, usize::MAX);
    for arguments in [&["fetch"][..], &["fetch", "--output", "tree"]] {
        let before = server.requests_for("narinfo");
        let mut fetch = command(&sandbox, &server.url(), arguments);
        fetch.args(["--wait", "1h", "--refresh", &items[0]]);
        let running = Running::start(fetch, "");
        assert!(wait_until(|| server.requests_for("narinfo") > before));
        std::thread::sleep(Duration::from_millis(500));
        running.interrupt();
        running.end().exits(130);
    }
}

#[test]
fn an_interrupt_of_the_lookup_after_the_wait_is_no_success() {
    let sandbox = Sandbox::new();
    let publisher = Publisher::new(&sandbox, "server", 1);
    Publisher::trust(&sandbox, &[&publisher]);
    let item = publisher.publish_file('1', "one", "");
    let dir = publisher.dir;
    let requests = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        if !request.path.ends_with(".narinfo") {
            return Reply::file(&dir, request);
        }
        let mut reply = Reply::not_found().header("X-Baking: 1");
        reply.is_silent = requests.fetch_add(1, Ordering::Relaxed) > 0;
        reply
    });

    let arguments = ["fetch", "--wait", "1h", &item];
    let running = Running::start(command(&sandbox, &server.url(), &arguments), "");
    assert!(wait_until(|| server.requests_for("narinfo") > 1));
    running.interrupt();
    let ended = running.end().exits(130).prints("");

    assert_eq!(ended.stderr.matches("interrupted").count(), 1, "{ended:?}");
    assert!(!installed(&sandbox, &item).exists());
}
