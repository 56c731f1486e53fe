//! Progress on terminals: of every width, resized, with little support, and closed.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::sandbox::first_line_of_stderr;
use crate::support::screen::Terminal;
use crate::support::{Fixture, Kind, Reply, Sandbox, Server, item, wait_until};

/// A server that sends the first 1000 bytes of the nar of `tools` and then nothing.
fn stalling(sandbox: &Sandbox) -> Server {
    let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
    fixture.only("none");
    Server::start(move |request| {
        let mut reply = Reply::file(&fixture.dir, request);
        if request.path.contains("-tools-1.0") {
            reply.stall_at = Some(1000);
        }
        reply
    })
}

/// Fetches `tools`, with its progress on `terminal`.
fn start(sandbox: &Sandbox, url: &str, terminal: &Terminal, variables: &[(&str, &str)]) -> Child {
    let arguments = ["fetch", "--stall-timeout", "5m", &item("tools")];
    let mut command = sandbox.command(Kind::Guix, url, &arguments);
    command
        .env_remove("SUBST_PROGRESS")
        .envs(variables.iter().copied())
        .stdin(terminal.stdio())
        .stdout(terminal.stdio())
        .stderr(terminal.stdio());
    command.spawn().unwrap()
}

/// Whether one of `rows` has all of `words`.
fn has_row(rows: &[String], words: &[&str]) -> bool {
    rows.iter()
        .any(|row| words.iter().all(|word| row.contains(word)))
}

#[track_caller]
fn interrupt(mut child: Child) {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn progress_follows_the_width_of_the_terminal() {
    let sandbox = Sandbox::new();
    let server = stalling(&sandbox);
    let terminal = Terminal::new(24, 120);
    terminal.show();
    let child = start(&sandbox, &server.url(), &terminal, &[("TERM", "xterm")]);
    let rows = terminal.wait_for(|rows| has_row(rows, &["subst-tools-1.0", "1.0/3.0 KiB", "B/s"]));
    assert!(
        has_row(&rows, &["[#", "-] ", "% ", "/2 items"]),
        "{rows:#?}"
    );
    assert!(
        has_row(&rows, &["subst-tools-1.0  127.0.0.1:"]),
        "{rows:#?}"
    );

    // Each size has a line that no other has.
    for (columns, words, others) in [
        (80, &["[#", "/2 items"][..], ""),
        (60, &["% ", "/2 items"], "["),
        (20, &["%"], "/2 items"),
        (40, &["% ", "/2 items"], "["),
        (120, &["[#", "/2 items"], ""),
    ] {
        terminal.resize(24, columns);
        let rows = terminal.wait_for(|rows| {
            let is_whole = others.is_empty() || !rows.iter().any(|row| row.contains(others));
            is_whole && has_row(rows, words) && has_row(rows, &["subst-to"])
        });
        let totals = rows.iter().filter(|row| row.contains('%')).count();
        assert_eq!(totals, 1, "{columns}: {rows:#?}");
    }

    interrupt(child);
    let rows = terminal.wait_for(|rows| has_row(rows, &["subst: interrupted: "]));
    assert!(!has_row(&rows, &["%"]), "{rows:#?}");
}

#[test]
fn fetched_items_stay_on_the_screen() {
    let sandbox = Sandbox::new();
    let terminal = Terminal::new(24, 80);
    terminal.show();
    let url = Kind::Guix.url();
    let mut child = start(&sandbox, &url, &terminal, &[("TERM", "xterm")]);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let rows = terminal.wait_for(|rows| has_row(rows, &["subst: 2 items fetched in "]));
    assert!(
        has_row(&rows, &["fetched subst-tools-1.0  ", "B in "]),
        "{rows:#?}"
    );
    assert!(rows.contains(&item("tools")), "{rows:#?}");
    assert!(!has_row(&rows, &["%"]), "{rows:#?}");
}

/// What is written to a terminal with these variables until the fetch is shown.
fn output_with(variables: &[(&str, &str)]) -> String {
    let sandbox = Sandbox::new();
    let server = stalling(&sandbox);
    let terminal = Terminal::new(24, 80);
    terminal.show();
    let child = start(&sandbox, &server.url(), &terminal, variables);
    terminal.wait_for(|rows| has_row(rows, &["/2 items"]));
    interrupt(child);
    terminal.output()
}

#[test]
fn colors_and_unicode_need_support() {
    let rich = output_with(&[("TERM", "xterm"), ("LANG", "C.UTF-8")]);
    assert!(rich.contains("\x1b[32m█"), "{rich:?}");
    let monochrome = output_with(&[("TERM", "xterm"), ("LANG", "C.UTF-8"), ("NO_COLOR", "1")]);
    assert!(monochrome.contains('█'), "{monochrome:?}");
    assert!(!monochrome.contains("\x1b[32m"), "{monochrome:?}");
    let ascii = output_with(&[("TERM", "xterm"), ("LANG", "C.UTF-8"), ("LC_ALL", "C")]);
    assert!(ascii.contains("[\x1b[32m#"), "{ascii:?}");
    assert!(ascii.is_ascii(), "{ascii:?}");
}

#[test]
fn without_a_terminal_that_changes_lines_there_are_plain_ones() {
    let for_dumb = || output_with(&[("TERM", "dumb"), ("LANG", "C.UTF-8")]);
    let for_ci = || output_with(&[("TERM", "xterm"), ("CI", "true")]);
    let outputs = std::thread::scope(|scope| {
        let dumb = scope.spawn(for_dumb);
        let ci = scope.spawn(for_ci);
        [dumb.join().unwrap(), ci.join().unwrap()]
    });
    for output in outputs {
        assert!(!output.contains('\x1b'), "{output:?}");
        assert!(
            output.starts_with("subst: 13.7/15.7 KiB 86% "),
            "{output:?}"
        );
    }
}

#[test]
fn a_pipe_gets_a_line_after_some_seconds() {
    let sandbox = Sandbox::new();
    let server = stalling(&sandbox);
    let arguments = ["fetch", "--stall-timeout", "5m", &item("tools")];
    let mut command = sandbox.command(Kind::Guix, &server.url(), &arguments);
    command.env_remove("SUBST_PROGRESS").env("TERM", "xterm");
    let start = Instant::now();
    let line = first_line_of_stderr(command);
    assert!(start.elapsed() >= Duration::from_secs(5), "{line}");
    assert!(line.starts_with("subst: 13.7/15.7 KiB 86% "), "{line}");
    assert!(line.ends_with(", 1/2 items\n"), "{line}");
}

/// A server whose answers for nars wait until the flag is up.
fn waiting(flag: &Arc<AtomicBool>) -> Server {
    let flag = Arc::clone(flag);
    Server::start(move |request| {
        let is_nar = request.path.starts_with("/nar/");
        assert!(!is_nar || wait_until(|| flag.load(Ordering::Relaxed)));
        Reply::file(&Kind::Guix.directory(), request)
    })
}

#[test]
fn a_terminal_that_is_closed_does_not_stop_the_fetch() {
    let sandbox = Sandbox::new();
    let may_send = Arc::default();
    let server = waiting(&may_send);
    let terminal = Terminal::new(24, 80);
    let arguments = ["fetch", &item("tools")];
    let mut command = sandbox.command(Kind::Guix, &server.url(), &arguments);
    command.env_remove("SUBST_PROGRESS").env("TERM", "xterm");
    let output = Stdio::null();
    let mut child = command
        .stdout(output)
        .stderr(terminal.stdio())
        .spawn()
        .unwrap();
    assert!(wait_until(|| server.requests_for("/nar/") > 0));
    drop(terminal);
    may_send.store(true, Ordering::Relaxed);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(sandbox.root().join(&item("tools")[1..]).exists());
}

#[test]
fn a_closed_pipe_does_not_stop_the_fetch() {
    for progress in ["plain", "json"] {
        let sandbox = Sandbox::new();
        let (reader, writer) = std::io::pipe().unwrap();
        let arguments = ["fetch", "--progress", progress, &item("tools")];
        let mut command: Command = sandbox.command(Kind::Guix, &Kind::Guix.url(), &arguments);
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        drop(reader);
        let status = command.status().unwrap();
        assert_eq!(status.code(), Some(0), "{progress}");
        assert!(sandbox.root().join(&item("tools")[1..]).exists());
    }
}
