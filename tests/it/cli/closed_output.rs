//! Standard output whose reader has ended: the rest of the run goes on, and its result is the same.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use crate::support::sandbox::{Run, Running, run};
use crate::support::{Kind, Sandbox, item};

use super::{NOTHING, UNREACHABLE};

/// Runs `command` with an output that nobody reads.
#[track_caller]
fn unread(command: Command) -> Run {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    Running::start_with(command, Stdio::null(), writer).end()
}

#[test]
fn a_failure_is_the_same_when_nobody_reads_the_output() {
    let sandbox = Sandbox::new();
    let (url, tools, notes) = (Kind::Guix.url(), item("tools"), item("notes"));
    sandbox.subst(&url, &["fetch", &notes]).exits(0);
    let damaged = sandbox.root().join(&notes[1..]);
    std::fs::set_permissions(&damaged, Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&damaged, "damaged").unwrap();

    let mirror = sandbox.path("mirror").display().to_string();
    for (url, arguments, code) in [
        (&*url, &["query", &tools, NOTHING] as &[&str], 1),
        (&url, &["fetch", "--dry-run", &tools, NOTHING], 1),
        (
            &url,
            &["mirror", "--to", &mirror, "--closure", &tools, NOTHING],
            1,
        ),
        (&url, &["verify"], 3),
        (UNREACHABLE, &["servers"], 4),
    ] {
        for form in [&[] as &[&str], &["--json"]] {
            let arguments = [arguments, form].concat();
            let command = || sandbox.command(Kind::Guix, url, &arguments);
            let read = run(command()).exits(code);
            let unread = unread(command()).exits(code);
            assert_eq!(
                unread.stderr.contains("error: "),
                read.stderr.contains("error: "),
                "{arguments:?}: {}",
                unread.stderr
            );
        }
    }
}

#[test]
fn a_fetch_whose_output_nobody_reads_makes_roots_and_fails_for_what_is_missing() {
    for form in [&[] as &[&str], &["--json"]] {
        let sandbox = Sandbox::new();
        let (url, tools) = (Kind::Guix.url(), item("tools"));
        let fetch = ["fetch", "--keep-going", "--gc-root", "mine", &tools];
        let command = |more: &[&str]| {
            let arguments = [&fetch, form, more].concat();
            sandbox.command(Kind::Guix, &url, &arguments)
        };
        unread(command(&[NOTHING])).exits(1).says("nothing");
        unread(command(&[])).exits(0);
        let roots = sandbox.subst(&url, &["roots"]).exits(0);
        assert!(roots.stdout.contains("mine"), "{}", roots.stdout);
    }
}

#[test]
fn a_full_disk_behind_the_output_is_a_failure() {
    let sandbox = Sandbox::new();
    let tools = item("tools");
    let command = sandbox.command(Kind::Guix, &Kind::Guix.url(), &["query", &tools]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let ended = Running::start_with(command, Stdio::null(), full).end();
    ended.exits(5).says("cannot write to standard output");
}
