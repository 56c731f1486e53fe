//! The terminal is closed in the middle of a fetch.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::{assert_complete, only};
use crate::support::{Kind, Reply, Sandbox, Server, item, listing, wait_until};

/// Both ends of a new terminal; `None` where there are none to have.
fn terminal() -> Option<(File, File)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let Ok(master) = openpt(flags) else {
        eprintln!("left out: no terminals here");
        return None;
    };
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    rustix::io::ioctl_fionbio(&master, true).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let flags = OFlags::NOCTTY.bits().cast_signed();
    let slave = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(name)
        .unwrap();
    Some((master.into(), slave))
}

/// A server that stops in the middle of the nar of `tree` until the flag is up.
fn gated() -> (Sandbox, Server, Arc<AtomicBool>) {
    let (sandbox, fixture) = only("none");
    let is_open = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&is_open);
    let server = Server::start(move |request| {
        let is_tree = request.path.starts_with("/nar/") && request.path.contains("-tree-");
        assert!(!is_tree || wait_until(|| opened.load(Ordering::Relaxed)));
        Reply::file_or_range(&fixture.dir, request)
    });
    (sandbox, server, is_open)
}

/// Starts `command` on a terminal, and closes that when bars are on it and `server` was asked for the
/// nar that it does not give yet.
fn with_terminal_closed(mut command: Command, server: &Server) -> Option<Child> {
    let (mut master, slave) = terminal()?;
    command.env("TERM", "xterm").env("SUBST_PROGRESS", "auto");
    let end = || Stdio::from(slave.try_clone().unwrap());
    let child = command
        .stdin(end())
        .stdout(end())
        .stderr(end())
        .spawn()
        .unwrap();
    drop(slave);
    let mut shown = Vec::new();
    let is_busy = || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = master.read(&mut bytes) {
            shown.extend_from_slice(&bytes[..count]);
        }
        server.requests_for("-tree-1.0") > 0 && String::from_utf8_lossy(&shown).contains("/7 items")
    };
    assert!(
        wait_until(is_busy),
        "no bars: {}",
        String::from_utf8_lossy(&shown)
    );
    drop(master);
    Some(child)
}

fn exit_code(mut child: Child) -> Option<i32> {
    let mut status = None;
    let ended = wait_until(|| {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    if !ended {
        child.kill().unwrap();
    }
    status.expect("it ends").code()
}

#[test]
fn a_fetch_continues_without_its_terminal() {
    let (sandbox, server, is_open) = gated();
    let arguments = ["fetch", "-v", &item("sample")];
    let command = sandbox.command(Kind::Guix, &server.url(), &arguments);
    let Some(child) = with_terminal_closed(command, &server) else {
        return;
    };
    is_open.store(true, Ordering::Relaxed);
    // Its output cannot be written.
    assert_eq!(exit_code(child), Some(5));
    assert_complete(&sandbox);
}

#[test]
fn a_hangup_interrupts_the_fetch() {
    let (sandbox, server, _is_open) = gated();
    let arguments = ["fetch", "-v", &item("sample")];
    let inner = sandbox.command(Kind::Guix, &server.url(), &arguments);
    // The leader of a session, whose terminal it is.
    let mut command = Command::new("setsid");
    command
        .args(["--ctty", "--wait"])
        .arg(inner.get_program())
        .args(inner.get_args());
    command.current_dir(inner.get_current_dir().unwrap());
    for (name, value) in inner.get_envs() {
        command.env(name, value.unwrap());
    }
    if Command::new("setsid").arg("--version").output().is_err() {
        eprintln!("left out: no setsid here");
        return;
    }
    let Some(child) = with_terminal_closed(command, &server) else {
        return;
    };
    assert_eq!(exit_code(child), Some(130));
    let left = listing::names(&sandbox.store());
    let is_rest = |name: &&String| name.ends_with(".tmp") || name.ends_with(".lock");
    assert_eq!(left.iter().find(is_rest), None, "{left:?}");
}
