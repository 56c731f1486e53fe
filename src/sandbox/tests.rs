//! What a confined process can still do. A sandbox is never left again, so each test confines another
//! process of this test binary.

use std::fs::{File, Permissions};
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::Resource;

use super::*;

/// Where the process of a test works.
const DIRECTORY: &str = "SANDBOX_TEST_DIRECTORY";
/// The file there that the process has as its standard input, if there is one.
pub(crate) const INPUT: &str = "input";

/// Executes a program: that of these tests, since a build environment may have no `/bin/sh`.
fn execute() -> io::Result<ExitStatus> {
    let program = std::env::current_exe().unwrap();
    Command::new(program)
        .args(["--list", "--exact", "none"])
        .status()
}

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
            .handle_access(AccessFs::from_all(ABI::V3))
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
    assert_refused(&execute());
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
    assert!(execute().unwrap().success());
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
    assert_few_capabilities();
    std::thread::spawn(assert_few_capabilities).join().unwrap();
}

#[test]
fn what_has_no_place_in_a_file_system_needs_no_rule() {
    if is_supported() {
        run_alone("sandbox::tests::read_a_pipe", places().path());
    }
}

#[test]
#[ignore = "is the other process of the test above"]
fn read_a_pipe() {
    let outside = directory_of_test().join("outside");
    let (mut pipe, mut writer) = io::pipe().unwrap();
    let memory = rustix::fs::memfd_create("memory", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut memory = File::from(memory);
    for file in [&mut writer as &mut dyn io::Write, &mut memory] {
        file.write_all(b"text").unwrap();
    }
    drop(writer);
    let path = |fd: RawFd| PathBuf::from(format!("/dev/fd/{fd}"));
    let (pipe_path, memory_path) = (path(pipe.as_raw_fd()), path(memory.as_raw_fd()));

    enter(&SandboxRules {
        readable: vec![pipe_path.clone(), memory_path.clone()],
        writable: Vec::new(),
    })
    .unwrap();

    assert_confined(&outside);
    assert_eq!(std::fs::read(pipe_path).unwrap(), b"text");
    assert_eq!(std::fs::read(memory_path).unwrap(), b"text");
    assert_eq!(pipe.read(&mut [0]).unwrap(), 0);
}

#[test]
fn no_privileges_are_gained_even_if_the_rules_cannot_be_set_up() {
    run_alone("sandbox::tests::have_no_descriptors", places().path());
}

#[test]
#[ignore = "is the other process of the test above"]
fn have_no_descriptors() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = Some(3);
    rustix::process::setrlimit(Resource::Nofile, limit).unwrap();

    enter(&SandboxRules::default()).unwrap_err();
    assert!(is_privileged_no_more());
    assert_few_capabilities();
}

/// This thread has no capability that a store does not need, and cannot get one back.
fn assert_few_capabilities() {
    let had = capabilities(None).unwrap();
    for set in [had.effective, had.permitted, had.inheritable] {
        assert!(KEPT_CAPABILITIES.contains(set), "{set:?}");
    }

    // Landlock has no rule about this.
    assert_eq!(rustix::process::chroot("/"), Err(Errno::PERM));
    let more = CapabilitySets {
        effective: had.effective | CapabilitySet::SYS_ADMIN,
        permitted: had.permitted | CapabilitySet::SYS_ADMIN,
        inheritable: CapabilitySet::empty(),
    };
    assert_eq!(set_capabilities(None, more), Err(Errno::PERM));
}

#[test]
fn a_kernel_that_does_not_restrict_truncation_confines_only_in_part() {
    let check_version = |effective_abi| {
        let landlock = LandlockStatus::Available {
            effective_abi,
            kernel_abi: None,
        };
        check_enforcement(RulesetStatus::PartiallyEnforced, landlock)
    };
    let error = check_version(ABI::V2).unwrap_err();
    assert!(matches!(error, SandboxError::Truncation), "{error:?}");
    check_version(ABI::V3).unwrap();
}

#[test]
fn root_keeps_what_a_store_needs() {
    if is_supported() && rustix::process::geteuid().is_root() {
        let dir = places();
        run_alone("sandbox::tests::change_files_of_another_user", dir.path());
    }
}

#[test]
#[ignore = "is the other process of the test above"]
fn change_files_of_another_user() {
    let writable = directory_of_test().join("writable");
    let file = writable.join("file");
    for path in [&writable, &file] {
        chown(path, Some(12_345), None).unwrap();
        std::fs::set_permissions(path, Permissions::from_mode(0o500)).unwrap();
    }
    enter(&SandboxRules {
        readable: Vec::new(),
        writable: vec![writable.clone()],
    })
    .unwrap();

    std::fs::write(&file, "other").unwrap();
    std::fs::hard_link(&file, writable.join("link")).unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o444)).unwrap();
    chown(&file, Some(0), Some(12_345)).unwrap();
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
