//! The helper during outages of servers: requests are retried, and the daemon's client sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::fixture::base;
use crate::support::{Fixture, Kind, Reply, Sandbox, Server, item, wait_until};

use super::{Helper, log, success};

/// A sandbox, and a server that stops in the middle of each nar until it is killed.
fn stopping() -> (Sandbox, Server) {
    let sandbox = Sandbox::new();
    let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
    fixture.only("zstd");
    let server = Server::restartable(move |request| {
        let mut reply = Reply::file_or_range(&fixture.dir, request);
        if request.path.starts_with("/nar/") && request.restarts == 0 {
            reply.stall_at = Some(reply.body.len() / 2);
        }
        reply
    });
    (sandbox, server)
}

/// Has a helper substitute an item from a server that is killed meanwhile, and restarted after a
/// while, if at all. What it answers.
fn substitute(
    sandbox: &Sandbox,
    server: &mut Server,
    arguments: &[&str],
    restart_after: Option<Duration>,
) -> String {
    let tools = item("tools");
    let mut helper = Helper::start_with(sandbox, &server.url(), arguments, "");
    let answer = std::thread::scope(|scope| {
        let answer = scope.spawn(|| helper.substitute(&tools, &sandbox.path("tools")));
        assert!(wait_until(|| server.requests_for("/nar/") > 0));
        std::thread::sleep(Duration::from_secs(1));
        server.kill();
        if let Some(time) = restart_after {
            std::thread::sleep(time);
            server.restart();
        }
        answer.join().unwrap()
    });
    helper.end();
    answer
}

#[test]
fn a_restarted_server_is_retried() {
    let (sandbox, mut server) = stopping();
    let arguments = ["--substitute", "--retry-time", "60s"];
    let restart = Some(Duration::from_millis(1500));
    let answer = substitute(&sandbox, &mut server, &arguments, restart);
    assert_eq!(answer, success(&item("tools")), "{}", log(&sandbox));
    assert!(
        log(&sandbox).contains("does not answer, retrying ("),
        "{}",
        log(&sandbox)
    );
    let ranges = server.ranges_of("/nar/");
    assert!(
        ranges.iter().any(|from| from.is_some_and(|from| from > 0)),
        "{ranges:?}"
    );
}

#[test]
fn a_server_that_stays_down_fails_after_the_retry_time() {
    let (sandbox, mut server) = stopping();
    let arguments = ["--substitute", "--retry-time", "2s"];
    let began = Instant::now();
    assert_eq!(
        substitute(&sandbox, &mut server, &arguments, None),
        "not-found"
    );
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!(
        log(&sandbox).matches("retrying (").count(),
        1,
        "{}",
        log(&sandbox)
    );
}

#[test]
fn a_server_that_was_only_slow_is_asked_for_what_others_do_not_have() {
    let sandbox = Sandbox::new();
    let is_slow = Arc::new(AtomicBool::new(true));
    let slow = Arc::clone(&is_slow);
    let preferred = Server::start(move |request| {
        wait_until(|| !slow.load(Ordering::Relaxed));
        Reply::file(&Kind::Guix.directory(), request)
    });
    let other = Server::start(|request| {
        let lacks = request.path.contains(&base(&item("tools"))[..32]);
        match lacks {
            true => Reply::not_found(),
            false => Reply::file(&Kind::Guix.directory(), request),
        }
    });
    let urls = format!("{} {}", preferred.url(), other.url());
    let (notes, tools) = (item("notes"), item("tools"));

    let mut helper = Helper::start(&sandbox, &urls, "--query", "");
    assert_eq!(helper.have(&[&notes]), [&*notes]);
    helper.end();
    is_slow.store(false, Ordering::Relaxed);
    let mut helper = Helper::start(&sandbox, &urls, "--query", "");
    assert_eq!(helper.have(&[&tools]), [&*tools], "{}", log(&sandbox));
    helper.end();
}

#[test]
fn an_item_is_looked_up_again_when_its_negative_answer_has_expired() {
    let sandbox = Sandbox::new();
    let is_there = Arc::new(AtomicBool::new(false));
    let available = Arc::clone(&is_there);
    let server = Server::start(move |request| match available.load(Ordering::Relaxed) {
        true => Reply::file(&Kind::Guix.directory(), request),
        false => Reply::not_found().header("Cache-Control: max-age=1"),
    });
    let mut helper = Helper::start(&sandbox, &server.url(), "--query", "");
    let notes = item("notes");
    assert!(helper.have(&[&notes]).is_empty());
    is_there.store(true, Ordering::Relaxed);
    assert!(wait_until(|| helper.have(&[&notes]) == [&*notes]));
    helper.end();
}
