//! The user interrupts a run: it ends soon, with few words and a code of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::sandbox::Running;
use crate::support::{Kind, Reply, Run, Sandbox, Server, item, wait_until};

/// Runs the program until `server` has been asked for `part`, and interrupts it.
fn interrupted(sandbox: &Sandbox, server: &Server, part: &str, arguments: &[&str]) -> Run {
    let running = Running::start(sandbox.command(Kind::Guix, &server.url(), arguments), "");
    assert!(wait_until(|| server.requests_for(part) > 0));
    running.interrupt();
    running.end().exits(130)
}

/// A server that stops in the middle of what is at `part`.
fn stalling(part: &'static str) -> Server {
    Server::start(move |request| {
        let mut reply = Reply::file(&Kind::Guix.directory(), request);
        if request.path.contains(part) {
            reply.stall_at = Some(10);
        }
        reply
    })
}

#[test]
fn an_interrupt_ends_lookups() {
    let (sandbox, tools) = (Sandbox::new(), item("tools"));
    for arguments in [
        &["query", &*tools] as &[&str],
        &["fetch", "--dry-run", &tools],
    ] {
        let ended = interrupted(&sandbox, &stalling(".narinfo"), ".narinfo", arguments);
        assert_eq!((&*ended.stdout, &*ended.stderr), ("", ""));
    }
}

#[test]
fn an_interrupt_ends_the_servers_command() {
    let server = stalling("nix-cache-info");
    interrupted(&Sandbox::new(), &server, "nix-cache-info", &["servers"]).prints("");
}

#[test]
fn an_interrupt_ends_a_fetch_that_retries() {
    let (sandbox, tools) = (Sandbox::new(), item("tools"));
    let is_done = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&is_done);
    // Silent even before the head of its response.
    let server = Server::start(move |request| {
        let is_nar = request.path.contains("-tools-1.0");
        assert!(!is_nar || wait_until(|| done.load(Ordering::Relaxed)));
        Reply::file(&Kind::Guix.directory(), request)
    });
    for command in [&["fetch"][..], &["fetch", "--output", "tree"]] {
        let arguments = [command, &["--stall-timeout", "1", &tools]].concat();
        let before = server.requests_for("-tools-1.0");
        let running = Running::start(sandbox.command(Kind::Guix, &server.url(), &arguments), "");
        // The second request is the first retry.
        assert!(wait_until(|| server.requests_for("-tools-1.0") > before + 1));
        running.interrupt();
        running.end().exits(130).prints("");
    }
    is_done.store(true, Ordering::Relaxed);
}

#[test]
fn an_interrupted_fetch_prints_one_line() {
    let (sandbox, tools) = (Sandbox::new(), item("tools"));
    let server = stalling("/nar/");
    let ended = interrupted(&sandbox, &server, "/nar/", &["fetch", &tools]).prints("");
    assert_eq!(ended.stderr, "subst: interrupted: 0 of 2 items fetched\n");
    let server = stalling("/nar/");
    let arguments = ["fetch", "--output", "tree", &tools];
    let ended = interrupted(&sandbox, &server, "/nar/", &arguments).prints("");
    assert_eq!(ended.stderr, "subst: interrupted\n");
    assert!(!sandbox.path("tree").exists());
    let left = crate::support::listing::names(&sandbox.path(""));
    assert!(
        !left.iter().any(|name| name.contains(".subst-")),
        "{left:?}"
    );
}
