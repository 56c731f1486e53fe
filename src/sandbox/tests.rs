//! What a confined process can still do. A sandbox is never left again, so each test confines another
//! process of this test binary.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;

/// Where the process of a test works.
const DIRECTORY: &str = "SANDBOX_TEST_DIRECTORY";
/// The file there that the process has as its standard input, if there is one.
pub(crate) const INPUT: &str = "input";
/// A program that every system has.
const PROGRAM: &str = "/bin/sh";

/// Runs the ignored test `name` in a process of its own, on `directory`.
#[track_caller]
pub(crate) fn run_alone(name: &str, directory: &Path) {
    let input = File::open(directory.join(INPUT));
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", name])
        .env_clear()
        .env(DIRECTORY, directory)
        .stdin(input.map_or_else(|_| Stdio::null(), Stdio::from))
        .output()
        .unwrap();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{stdout}{stderr}");
    assert!(stdout.contains("1 passed"), "no such test: {stdout}");
}

/// The directory of [`run_alone`].
#[expect(clippy::disallowed_methods, reason = "the other process of a test")]
pub(crate) fn directory_of_test() -> PathBuf {
    std::env::var_os(DIRECTORY).unwrap().into()
}

/// Whether this kernel supports the sandbox; prints why a test is skipped.
pub(crate) fn is_supported() -> bool {
    // In a thread of its own: the others stay as they are.
    let tried = std::thread::spawn(|| {
        let ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::SoftRequirement)
            .handle_access(AccessFs::from_all(ABI::V2))
            .and_then(|ruleset| ruleset.create())
            .and_then(|ruleset| ruleset.restrict_self());
        ruleset.is_ok_and(|status| status.ruleset != RulesetStatus::NotEnforced)
    });
    let supported = tried.join().unwrap();
    if !supported {
        eprintln!("skipped: this kernel does not support the sandbox");
    }
    supported
}

/// Tries to leave the sandbox: to write and to read elsewhere in the directory `outside`, which has
/// a file `secret`, to read a file of the system, and to execute a program. Each must be refused.
#[track_caller]
pub(crate) fn assert_confined(outside: &Path) {
    assert_refused(&File::create(outside.join("new")));
    assert_refused(&File::options().append(true).open(outside.join("secret")));
    assert_refused(&std::fs::remove_file(outside.join("secret")));
    assert_refused(&std::fs::create_dir(outside.join("new")));
    assert_refused(&symlink("/", outside.join("new")));
    assert_refused(&std::fs::read(outside.join("secret")));
    assert_refused(&std::fs::read_dir(outside));
    assert_refused(&std::fs::read("/etc/shadow"));
    assert_refused(&Command::new(PROGRAM).args(["-c", "exit"]).status());
    // Threads that are started later are confined too.
    let outside = outside.to_owned();
    let from_thread = std::thread::spawn(move || std::fs::read(outside.join("secret")));
    assert_refused(&from_thread.join().unwrap());
}

/// What [`assert_confined`] finds refused is possible otherwise.
#[track_caller]
pub(crate) fn assert_not_confined(outside: &Path) {
    File::create(outside.join("new")).unwrap();
    std::fs::remove_file(outside.join("new")).unwrap();
    std::fs::read(outside.join("secret")).unwrap();
    let status = Command::new(PROGRAM).args(["-c", "exit"]).status();
    assert!(status.unwrap().success());
}

#[track_caller]
fn assert_refused<T>(tried: &io::Result<T>) {
    let kind = tried.as_ref().err().map(io::Error::kind);
    // A file that is not there cannot be read either.
    let is_refused = matches!(
        kind,
        Some(io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound)
    );
    assert!(is_refused, "{kind:?}");
}

/// A directory `outside` with a file `secret`, and beside it directories for rules.
fn places() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["outside", "readable", "writable/below"] {
        std::fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    for name in ["outside/secret", "readable/file", "writable/file"] {
        std::fs::write(dir.path().join(name), "text").unwrap();
    }
    dir
}

#[test]
fn only_what_the_rules_name_can_be_used() {
    if is_supported() {
        let dir = places();
        run_alone("sandbox::tests::use_what_the_rules_name", dir.path());
    }
}

#[test]
#[ignore = "is the other process of the test above"]
fn use_what_the_rules_name() {
    let dir = directory_of_test();
    let outside = dir.join("outside");
    assert_not_confined(&outside);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();

    enter(&SandboxRules {
        readable: vec![dir.join("readable"), dir.join("missing")],
        writable: vec![dir.join("writable")],
    })
    .unwrap();

    assert_confined(&outside);
    std::fs::read(dir.join("readable/file")).unwrap();
    assert_refused(&File::create(dir.join("readable/new")));
    let writable = dir.join("writable");
    std::fs::write(writable.join("file"), "other").unwrap();
    // As deduplication, renaming into place, and the prefetch socket do.
    std::fs::hard_link(writable.join("file"), writable.join("below/link")).unwrap();
    std::fs::rename(writable.join("below/link"), writable.join("link")).unwrap();
    symlink("anywhere", writable.join("symlink")).unwrap();
    std::os::unix::net::UnixListener::bind(writable.join("socket")).unwrap();
    std::fs::remove_dir(writable.join("below")).unwrap();
    // Nothing gets out of the sandbox by a link.
    symlink(outside.join("secret"), writable.join("escape")).unwrap();
    assert_refused(&std::fs::read(writable.join("escape")));
    TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert!(is_privileged_no_more());
}

/// Whether this thread has `no_new_privs`.
fn is_privileged_no_more() -> bool {
    rustix::thread::no_new_privs().unwrap()
}

#[test]
fn listening_on_a_port_is_refused() {
    let accesses = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessNet::BindTcp);
    if is_supported() && accesses.is_ok() {
        let dir = places();
        run_alone("sandbox::tests::listen_on_a_port", dir.path());
    }
}

#[test]
#[ignore = "is the other process of the test above"]
fn listen_on_a_port() {
    enter(&SandboxRules::default()).unwrap();
    assert_refused(&TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
}
