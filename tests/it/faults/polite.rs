//! Limits that the user sets to the load on the network and on servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::only;
use crate::support::publisher::{Publisher, command, file_nar};
use crate::support::sandbox::run;
use crate::support::{Fixture, Kind, Reply, Sandbox, Server, item, wait_until};

#[test]
fn a_limited_rate_is_kept_and_is_no_fault_of_the_server() {
    let (sandbox, fixture) = only("none");
    let size = std::fs::read(fixture.nar(&item("tree"), "none"))
        .unwrap()
        .len();
    let server = Server::of(fixture.dir.clone());
    let rate = (size / 3).to_string();
    let start = Instant::now();
    let arguments = [
        "fetch",
        "--output",
        "tree",
        &item("tree"),
        "--limit-rate",
        &rate,
        // A server that sent at this rate of its own would be given up.
        "--stall-timeout",
        "1s",
        "--minimum-rate",
        "1000000",
    ];
    sandbox.subst(&server.url(), &arguments).exits(0);
    assert!(start.elapsed() > Duration::from_secs(2));
    assert_eq!(server.requests_for("/nar/"), 1);
}

/// They would not be faster, and the stream would overtake them.
#[test]
fn a_limited_rate_is_no_reason_for_segments() {
    let sandbox = Sandbox::new();
    let publisher = Publisher::new(&sandbox, "server", 1);
    Publisher::trust(&sandbox, &[&publisher]);
    let mut rng = fastrand::Rng::with_seed(0);
    let contents: Vec<u8> = std::iter::repeat_with(|| rng.u8(..))
        .take(12 << 20)
        .collect();
    let nar = file_nar(&contents);
    let path = publisher.publish('1', &nar, nar.len() as u64, "");
    let dir = publisher.dir;
    let server = Server::start(move |request| Reply::file_or_range(&dir, request));
    let arguments = ["fetch", "--limit-rate", "3M", &path];
    run(command(&sandbox, &server.url(), &arguments)).exits(0);
    assert_eq!(server.requests_for("/1.nar"), 1);
}

#[test]
fn nars_of_one_server_at_a_time_are_limited() {
    let sandbox = Sandbox::new();
    let directory = Fixture::copy(Kind::Guix, sandbox.path("server"))
        .dir
        .clone();
    let (open, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let server = Server::start({
        let most = Arc::clone(&most);
        move |request| {
            if request.path.starts_with("/nar/") {
                let now = open.fetch_add(1, Ordering::Relaxed) + 1;
                most.fetch_max(now, Ordering::Relaxed);
                // Time for other requests, and longer until there was one.
                std::thread::sleep(Duration::from_millis(200));
                wait_until(|| most.load(Ordering::Relaxed) > 1);
                open.fetch_sub(1, Ordering::Relaxed);
            }
            Reply::file_or_range(&directory, request)
        }
    });
    let names = [
        "tree", "tools", "sample", "link", "notes", "copy", "program",
    ];
    let items = names.map(item);
    let mut arguments = vec!["fetch", "--jobs", "6", "--connections", "2"];
    arguments.extend(items.iter().map(String::as_str));
    sandbox.subst(&server.url(), &arguments).exits(0);
    assert_eq!(most.load(Ordering::Relaxed), 2);
}

#[test]
fn a_dry_run_shows_the_plan_of_the_downloads() {
    let sandbox = Sandbox::new();
    let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
    let server = Server::of(fixture.dir.clone());
    let run = sandbox.subst(&server.url(), &["fetch", "--dry-run", &item("tree")]);
    run.exits(0).says("subst: plan: ");

    let verbose = sandbox.subst(&server.url(), &["fetch", "-v", &item("tree")]);
    verbose.exits(0).says("subst: plan: ");
}
