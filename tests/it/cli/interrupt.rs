//! The user interrupts a run: it ends soon, with few words and a code of its own.

use std::io::PipeWriter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{OFlags, fcntl_setfl};

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

/// The items might have been found there.
#[test]
fn an_interrupted_mirror_does_not_doubt_the_address_of_a_server() {
    let (sandbox, tools) = (Sandbox::new(), item("tools"));
    let server = Server::start(|request| {
        let mut reply = Reply::not_found();
        reply.is_silent = request.path.contains(".narinfo");
        reply
    });
    let arguments = ["mirror", "--to", "mirror", "--closure", &tools];
    let running = Running::start(sandbox.command(Kind::Guix, &server.url(), &arguments), "");
    assert!(wait_until(|| server.requests_for(".narinfo") > 0));
    // The answer about nix-cache-info has arrived by then, or the test shows nothing.
    std::thread::sleep(std::time::Duration::from_millis(300));
    running.interrupt();
    let ended = running.end().exits(130);
    assert!(!ended.stderr.contains("address"), "{}", ended.stderr);
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
    // The first nars are requested while others are looked up, when the number of items is not known.
    let expected = ["", ": 0 of 2 items fetched"].map(|text| format!("subst: interrupted{text}\n"));
    assert!(expected.contains(&ended.stderr), "{}", ended.stderr);
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

/// Waits until the program reads from, or writes to, its descriptor `number`; it is `false` where the
/// system does not show this.
fn is_blocked_at(running: &Running, number: u32) -> bool {
    let file = format!("/proc/{}/syscall", running.child.id());
    let descriptor = format!(" {number:#x} ");
    let mut is_shown = true;
    let is_blocked = wait_until(|| {
        let call = std::fs::read_to_string(&file);
        is_shown = call.is_ok();
        // The number of the system call, then its first argument. Read and write are the calls with
        // small numbers, 63 and 64 on some processors.
        call.is_ok_and(|call| {
            let (name, arguments) = call.split_once(' ').unwrap_or_default();
            ["0", "1", "3", "4", "63", "64"].contains(&name)
                && format!(" {arguments}").starts_with(&descriptor)
        }) || !is_shown
    });
    assert!(is_blocked);
    if !is_shown {
        eprintln!("left out: the system does not show what a process waits for");
    }
    is_shown
}

#[test]
fn an_interrupt_ends_the_wait_for_standard_input() {
    let sandbox = Sandbox::new();
    for command in ["fetch", "query"] {
        let (reader, _writer) = std::io::pipe().unwrap();
        let command = sandbox.command(Kind::Guix, &Kind::Guix.url(), &[command, "-"]);
        let running = Running::start_with(command, reader, std::process::Stdio::piped());
        if is_blocked_at(&running, 0) {
            running.interrupt();
            running.end().exits(130).prints("");
        }
    }
}

/// A pipe that takes no more bytes.
fn full_pipe() -> (std::io::PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    for size in [4096, 1] {
        while std::io::Write::write(&mut writer, &vec![b'.'; size]).is_ok() {}
    }
    fcntl_setfl(&writer, OFlags::empty()).unwrap();
    (reader, writer)
}

#[test]
fn an_interrupt_ends_the_wait_for_a_reader_of_the_output() {
    let (sandbox, tools) = (Sandbox::new(), item("tools"));
    let tree = ["fetch", "--output", "tree", &tools];
    let commands: [&[&str]; 4] = [
        &["query", &tools],
        &["fetch", "--dry-run", &tools],
        &["fetch", "--json", &tools],
        &tree,
    ];
    for arguments in commands {
        let (_reader, writer) = full_pipe();
        let command = sandbox.command(Kind::Guix, &Kind::Guix.url(), arguments);
        let running = Running::start_with(command, std::process::Stdio::null(), writer);
        if is_blocked_at(&running, 1) {
            running.interrupt();
            running.end().exits(130);
        }
    }
    assert!(sandbox.path("tree").exists());
}
