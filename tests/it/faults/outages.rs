//! Servers that go away and come back, or fall silent: what is retried, for how long, what is
//! kept, and what the user sees.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{assert_complete, assert_nothing, only};
use crate::support::sandbox::Running;
use crate::support::{Fixture, Kind, Reply, Run, Sandbox, Server, item, wait_until};

const RETRYING: &str = "does not answer, retrying (";

/// A server that stops in the middle of each nar until it is killed. When it is restarted it sends all.
fn stopping(fixture: &Fixture) -> Server {
    let directory = fixture.dir.clone();
    Server::restartable(move |request| {
        let mut reply = Reply::file_or_range(&directory, request);
        if request.path.starts_with("/nar/") && request.restarts == 0 {
            reply.stall_at = Some(reply.body.len() / 2);
        }
        reply
    })
}

/// Starts to fetch the whole closure.
fn start(sandbox: &Sandbox, url: &str, arguments: &[&str]) -> Running {
    let top = item("sample");
    let arguments = [&["fetch", &top], arguments].concat();
    Running::start(sandbox.command(Kind::Guix, url, &arguments), "")
}

/// Items of the closure that [`start`] fetches.
const ITEMS: usize = 7;

/// Waits until the server was asked for everything about the closure, and the client probably has a part of a
/// nar. The first nars are requested while items are still looked up.
fn wait_for_nar(server: &Server) {
    assert!(
        wait_until(|| {
            server.requests_for("/nar/") > 0 && server.requests_for(".narinfo") >= ITEMS
        }),
        "{:?}",
        server.asked()
    );
    std::thread::sleep(Duration::from_secs(1));
}

fn lines_about_retries(run: &Run) -> usize {
    run.stderr.matches(RETRYING).count()
}

#[test]
fn a_server_restarted_in_mid_closure_is_retried() {
    let (sandbox, fixture) = only("zstd");
    let mut server = stopping(&fixture);
    let running = start(&sandbox, &server.url(), &["--retry-time", "60s"]);
    wait_for_nar(&server);
    server.kill();
    std::thread::sleep(Duration::from_secs(2));
    server.restart();
    let run = running.end().exits(0).says(RETRYING);
    assert_complete(&sandbox);
    assert_eq!(lines_about_retries(&run), 1, "{}", run.stderr);

    // What had been received was kept.
    let ranges = server.ranges_of("/nar/");
    assert!(
        ranges.iter().any(|from| from.is_some_and(|from| from > 0)),
        "{ranges:?}"
    );
}

#[test]
fn a_fetch_from_a_server_that_stays_down_fails_after_the_retry_time() {
    for arguments in [
        &["--retry-time", "2s"][..],
        &["--retry-time", "2", "--keep-going"],
    ] {
        let (sandbox, fixture) = only("zstd");
        let mut server = stopping(&fixture);
        let running = start(
            &sandbox,
            &server.url(),
            &[arguments, &["--jobs", "2"]].concat(),
        );
        wait_for_nar(&server);
        server.kill();
        let began = Instant::now();
        let run = running
            .end()
            .exits(4)
            .prints("")
            .says("every download failed");
        let elapsed = began.elapsed();
        assert!(
            elapsed >= Duration::from_millis(1500),
            "{elapsed:?}: {}",
            run.stderr
        );
        assert!(
            elapsed < Duration::from_secs(20),
            "{elapsed:?}: {}",
            run.stderr
        );
        assert_eq!(
            run.stderr.matches("cannot fetch").count(),
            1,
            "{}",
            run.stderr
        );
        assert_eq!(lines_about_retries(&run), 1, "{}", run.stderr);
    }
}

#[test]
fn without_retry_time_an_outage_ends_the_fetch() {
    let (sandbox, fixture) = only("zstd");
    let mut server = stopping(&fixture);
    let running = start(&sandbox, &server.url(), &["--retry-time", "0"]);
    wait_for_nar(&server);
    server.kill();
    let began = Instant::now();
    let run = running.end().exits(4).prints("");
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(lines_about_retries(&run), 0, "{}", run.stderr);
}

#[test]
fn without_retry_time_a_lookup_that_is_refused_is_not_sent_again() {
    for status in ["429 Too Many Requests", "503 Busy", "500 Oh"] {
        for option in ["--retry-time", "--retries"] {
            let sandbox = Sandbox::new();
            let server =
                Server::start(
                    move |request| match request.path.ends_with("/nix-cache-info") {
                        true => Reply::file(&Kind::Guix.directory(), request),
                        false => Reply::new(status, ""),
                    },
                );
            let arguments = ["fetch", &item("tools"), option, "0"];
            sandbox.subst(&server.url(), &arguments).exits(4);
            let sent = server.requests_for(".narinfo");
            assert_eq!(sent, 1, "{status}, {option}: {:?}", server.asked());
        }
    }
}

#[test]
fn retries_are_limited_for_all_servers_and_for_one() {
    for (option, setting) in [
        (Some("0"), "retries = 9"),
        (None, "retries = 0"),
        (None, "retry-time = 0"),
    ] {
        let (sandbox, fixture) = only("zstd");
        let mut server = stopping(&fixture);
        let config = sandbox.path("config.toml");
        let table = format!("[[server]]\nurl = \"{}\"\n{setting}\n", server.url());
        std::fs::write(&config, table).unwrap();
        let mut arguments = vec!["--config", config.to_str().unwrap()];
        arguments.extend(option.iter().flat_map(|option| ["--retries", option]));

        let running = start(&sandbox, &server.url(), &arguments);
        wait_for_nar(&server);
        server.kill();
        let began = Instant::now();
        let run = running.end().exits(4).prints("");
        assert!(began.elapsed() < Duration::from_secs(20), "{setting}");
        assert_eq!(lines_about_retries(&run), 0, "{setting}: {}", run.stderr);
    }
}

#[test]
fn a_server_that_never_answered_is_not_retried() {
    let (sandbox, fixture) = only("zstd");
    let mut server = stopping(&fixture);
    sandbox
        .subst(&server.url(), &["query", "--closure", &item("sample")])
        .exits(0);
    server.kill();
    let began = Instant::now();
    let run = start(&sandbox, &server.url(), &["--retry-time", "60s"])
        .end()
        .exits(4)
        .prints("");
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!(lines_about_retries(&run), 0, "{}", run.stderr);
    assert_nothing(&sandbox);
}

#[test]
fn a_redirect_to_a_host_that_never_answered_is_not_retried() {
    let (sandbox, fixture) = only("zstd");
    let mut stopped = stopping(&fixture);
    stopped.kill();
    let (directory, target) = (fixture.dir.clone(), stopped.url());
    let server = Server::start(move |request| match request.path.starts_with("/nar/") {
        true => Reply::new("307 Temporary Redirect", "")
            .header(&format!("Location: {target}/bucket/x?signature=Sesame")),
        false => Reply::file(&directory, request),
    });
    let began = Instant::now();
    let run = start(&sandbox, &server.url(), &["--retry-time", "60s"])
        .end()
        .exits(4);
    assert!(began.elapsed() < Duration::from_secs(30));
    let run = run.says(&format!(
        "redirected to {}/bucket/x: cannot connect",
        stopped.url()
    ));
    assert!(!run.stderr.contains("Sesame"), "{}", run.stderr);
}

#[test]
fn an_interrupt_ends_a_retry_delay_at_once() {
    let (sandbox, fixture) = only("zstd");
    let mut server = stopping(&fixture);
    let running = start(&sandbox, &server.url(), &["--retry-time", "60s"]);
    wait_for_nar(&server);
    server.kill();
    std::thread::sleep(Duration::from_secs(1));
    running.interrupt();
    let began = Instant::now();
    running.end().exits(130);
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn json_progress_reports_retries() {
    let (sandbox, fixture) = only("zstd");
    let mut server = stopping(&fixture);
    let running = start(
        &sandbox,
        &server.url(),
        &["--progress", "json", "--retry-time", "2s"],
    );
    wait_for_nar(&server);
    server.kill();
    let run = running.end().exits(4);
    let events = run
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let events: Vec<serde_json::Value> = events
        .filter(|event: &serde_json::Value| event["event"] == "retrying")
        .collect();
    assert_eq!(events.len(), 1, "{}", run.stderr);
    assert_eq!(
        format!("http://{}", events[0]["server"].as_str().unwrap()),
        server.url()
    );
    assert!(
        events[0]["seconds"].is_u64() && events[0]["reason"].is_string(),
        "{events:?}"
    );
}

#[test]
fn of_two_servers_that_are_down_the_restarted_one_is_used() {
    let (sandbox, fixture) = only("zstd");
    let mut servers = [stopping(&fixture), stopping(&fixture)];
    let urls = format!("{} {}", servers[0].url(), servers[1].url());
    let running = start(&sandbox, &urls, &["--retry-time", "60s"]);
    wait_for_nar(&servers[0]);
    for server in &mut servers {
        server.kill();
    }
    std::thread::sleep(Duration::from_secs(2));
    servers[1].restart();
    running.end().exits(0).says(RETRYING);
    assert_complete(&sandbox);
    assert!(servers[1].requests_for("/nar/") > 0);
}

#[test]
fn a_server_that_goes_down_is_replaced_by_an_unused_one() {
    let (sandbox, fixture) = only("zstd");
    let mut first = stopping(&fixture);
    let (directory, is_open) = (fixture.dir.clone(), Arc::new(AtomicBool::new(false)));
    let gate = Arc::clone(&is_open);
    let second = Server::start(move |request| {
        // The first server's answers decide.
        while request.path.ends_with(".narinfo") && !gate.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Reply::file(&directory, request)
    });
    let urls = format!("{} {}", first.url(), second.url());
    let running = start(&sandbox, &urls, &["--retry-time", "60s"]);
    wait_for_nar(&first);
    first.kill();
    is_open.store(true, Ordering::Relaxed);
    let run = running.end().exits(0);
    assert_complete(&sandbox);
    assert_eq!(lines_about_retries(&run), 0, "{}", run.stderr);
    assert!(second.requests_for("/nar/") > 0, "{:?}", second.asked());
}

/// Where a server falls silent that had answered every lookup.
#[derive(Debug, Clone, Copy)]
enum Silence {
    BeforeHead,
    AfterHead,
    InBody,
}

#[test]
fn a_silent_server_costs_one_stall_timeout_beside_a_good_one() {
    for silence in [Silence::BeforeHead, Silence::AfterHead, Silence::InBody] {
        let (sandbox, fixture) = only("zstd");
        let directory = fixture.dir.clone();
        let silent = Server::start(move |request| {
            let mut reply = Reply::file(&directory, request);
            if request.path.starts_with("/nar/") {
                match silence {
                    Silence::BeforeHead => reply.is_silent = true,
                    Silence::AfterHead => reply.stall_at = Some(0),
                    Silence::InBody => reply.stall_at = Some(reply.body.len() / 2),
                }
            }
            reply
        });
        let good = Server::of(fixture.dir.clone());
        let urls = format!("{} {}", silent.url(), good.url());
        let timeouts = ["--stall-timeout", "2", "--connect-timeout", "1"];
        let arguments = [&timeouts[..], &["--jobs", "2", "--connections", "2"]].concat();
        start(&sandbox, &urls, &arguments).end().exits(0);
        assert_complete(&sandbox);

        // Those that were under way at the same time, and none after them.
        let asked = silent.ranges_of("/nar/");
        assert!(asked.len() <= 2, "{silence:?}: {asked:?}");
    }
}

#[test]
fn a_download_that_waited_for_its_turn_is_not_requested_from_a_server_found_silent() {
    let (sandbox, fixture) = only("zstd");
    let directory = fixture.dir.clone();
    let silent = Server::start(move |request| {
        let mut reply = Reply::file(&directory, request);
        reply.is_silent = request.path.starts_with("/nar/");
        reply
    });
    let good = Server::of(fixture.dir.clone());
    let urls = format!("{} {}", silent.url(), good.url());
    let timeouts = ["--stall-timeout", "2", "--connect-timeout", "1"];
    let arguments = [&timeouts[..], &["--jobs", "6", "--connections", "1"]].concat();
    start(&sandbox, &urls, &arguments).end().exits(0);
    assert_complete(&sandbox);
    assert_eq!(silent.requests_for("/nar/"), 1, "{:?}", silent.asked());
}

#[test]
fn no_nar_is_requested_from_a_silent_server_twice() {
    let (sandbox, fixture) = only("zstd");
    let directory = fixture.dir.clone();
    let silent = Server::start(move |request| {
        let mut reply = Reply::file(&directory, request);
        reply.is_silent = request.path.starts_with("/nar/");
        reply
    });
    let good = Server::of(fixture.dir.clone());
    let urls = format!("{} {}", silent.url(), good.url());
    let timeouts = ["--stall-timeout", "2", "--connect-timeout", "1"];
    start(&sandbox, &urls, &timeouts).end().exits(0);
    assert_complete(&sandbox);

    let mut nars = silent.asked();
    nars.retain(|path| path.starts_with("/nar/"));
    let different: HashSet<&String> = nars.iter().collect();
    assert_eq!(different.len(), nars.len(), "{nars:?}");
}

#[test]
fn the_next_run_does_not_wait_for_a_silent_server() {
    let (sandbox, fixture) = only("zstd");
    let directory = fixture.dir.clone();
    let silent = Server::start(move |request| {
        let mut reply = Reply::file(&directory, request);
        reply.is_silent = request.path.starts_with("/nar/");
        reply
    });
    let good = Server::of(fixture.dir.clone());
    let urls = format!("{} {}", silent.url(), good.url());
    let fetch = |name: &str| {
        let arguments = ["fetch", &item(name), "--stall-timeout", "2", "--jobs", "1"];
        Running::start(sandbox.command(Kind::Guix, &urls, &arguments), "")
            .end()
            .exits(0);
    };

    // The lookup cache has the answers of both for all items.
    let query = ["query", "--closure", &item("sample")];
    sandbox.subst(&urls, &query).exits(0);
    fetch("tools");
    let asked = silent.requests_for("/nar/");
    assert!(asked > 0, "{:?}", silent.asked());
    fetch("sample");
    assert_eq!(silent.requests_for("/nar/"), asked);
}

#[test]
fn a_trickling_server_costs_a_moment_beside_a_good_one() {
    let (sandbox, fixture) = only("none");
    let directory = fixture.dir.clone();
    let trickling = Server::start(move |request| {
        let mut reply = Reply::file(&directory, request);
        if request.path.starts_with("/nar/") {
            reply.drip = Some((400, Duration::from_millis(100)));
        }
        reply
    });
    let good = Server::of(fixture.dir.clone());
    let urls = format!("{} {}", trickling.url(), good.url());
    let began = Instant::now();
    start(&sandbox, &urls, &["--jobs", "2"]).end().exits(0);
    assert_complete(&sandbox);

    // It would take two minutes.
    let elapsed = began.elapsed();
    assert!(elapsed < Duration::from_secs(40), "{elapsed:?}");
    assert!(good.requests_for("/nar/") > 0, "{:?}", good.asked());
}

#[test]
fn a_fetch_from_a_server_that_stays_silent_fails_after_the_retry_time() {
    for silence in [Silence::BeforeHead, Silence::AfterHead] {
        let (sandbox, fixture) = only("zstd");
        let directory = fixture.dir.clone();
        let server = Server::start(move |request| {
            let mut reply = Reply::file_or_range(&directory, request);
            if request.path.starts_with("/nar/") {
                reply.is_silent = matches!(silence, Silence::BeforeHead);
                reply.stall_at = Some(0);
            }
            reply
        });
        let timeouts = [
            "--stall-timeout",
            "1",
            "--connect-timeout",
            "1",
            "--retry-time",
            "3s",
        ];
        let began = Instant::now();
        let run = start(&sandbox, &server.url(), &timeouts)
            .end()
            .exits(4)
            .prints("");
        assert!(began.elapsed() < Duration::from_secs(30), "{silence:?}");
        assert_eq!(lines_about_retries(&run), 1, "{}", run.stderr);
        assert_nothing(&sandbox);
    }
}

/// A server that does not say how long nars are, and ends their first `cut_responses` responses early.
fn without_length(fixture: &Fixture, cut_responses: usize) -> Server {
    let (directory, requests) = (fixture.dir.clone(), AtomicUsize::new(0));
    Server::start(move |request| {
        let mut reply = Reply::file_or_range(&directory, request);
        if request.path.starts_with("/nar/") {
            reply.has_no_length = true;
            if requests.fetch_add(1, Ordering::Relaxed) < cut_responses {
                reply.cut_at = Some(100);
            }
        }
        reply
    })
}

#[test]
fn a_nar_without_length_that_ends_early_is_resumed() {
    let (sandbox, fixture) = only("zstd");
    let server = without_length(&fixture, 1);
    start(&sandbox, &server.url(), &[]).end().exits(0);
    assert_complete(&sandbox);
    let ranges = server.ranges_of("/nar/");
    assert!(ranges.contains(&Some(100)), "{ranges:?}");
}

#[test]
fn a_nar_that_always_ends_early_is_no_corrupt_one() {
    for method in ["zstd", "lzip", "gzip"] {
        for has_size in [true, false] {
            let (sandbox, fixture) = only(method);
            let directory = fixture.dir.clone();
            let server = Server::start(move |request| {
                let mut reply = Reply::file(&directory, request);
                if request.path.ends_with(".narinfo") && !has_size {
                    let text = String::from_utf8(reply.body).unwrap();
                    reply.body = text.replace("FileSize: ", "OtherSize: ").into();
                }
                if request.path.starts_with("/nar/") {
                    reply.has_no_length = true;
                    reply.cut_at = Some(100);
                }
                reply
            });
            let run = start(&sandbox, &server.url(), &[]).end().exits(4);
            run.says("the server ended the download");
            assert_nothing(&sandbox);
        }
    }
}

#[test]
fn a_file_is_requested_whole_when_its_ranges_are_damaged() {
    let (sandbox, fixture) = only("zstd");
    let directory = fixture.dir.clone();
    let asked = Mutex::new(HashSet::new());
    let server = Server::start(move |request| {
        let mut reply = Reply::file_or_range(&directory, request);
        let is_nar = request.path.starts_with("/nar/");
        match request.from {
            Some(from) if is_nar && from > 0 => reply.body.fill(0),
            _ if is_nar => {
                let is_first = asked.lock().unwrap().insert(request.path.clone());
                reply.cut_at = is_first.then_some(reply.body.len() / 2);
            }
            _ => {}
        }
        reply
    });
    start(&sandbox, &server.url(), &[]).end().exits(0);
    assert_complete(&sandbox);
    let ranges = server.ranges_of("/nar/");
    assert!(ranges.iter().any(Option::is_some), "{ranges:?}");
}
