//! The sandbox as users see it: on in every thread before the first request, with what the system's
//! resolver needs, and without it where the kernel lacks it.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::support::sandbox::{Running, run, run_with_input};
use crate::support::server::{Reply, Server};
use crate::support::{Fixture, Kind, Sandbox, item, wait_until};

/// Whether each thread of process `pid` has given up gaining privileges, which comes first, and the
/// capabilities that a store does not need.
fn confined_threads(pid: u32) -> Vec<bool> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let texts = tasks.flatten().filter_map(|task| {
        // A thread may have ended.
        std::fs::read_to_string(task.path().join("status")).ok()
    });
    texts
        .map(|text| text.contains("\nNoNewPrivs:\t1\n") && has_few_capabilities(&text))
        .collect()
}

/// Whether a thread with this /proc/PID/status can use only the first five capabilities, which are
/// those about the owners and modes of files.
fn has_few_capabilities(status: &str) -> bool {
    let mut sets = status.lines().filter_map(|line| {
        line.strip_prefix("CapEff:")
            .or(line.strip_prefix("CapPrm:"))
    });
    sets.all(|set| u64::from_str_radix(set.trim(), 16).unwrap() < 1 << 5)
}

/// Runs the program against a server that looks at its threads when the first request arrives.
fn threads_at_first_request(arguments: &[&str]) -> Vec<bool> {
    let sandbox = Sandbox::new();
    let client = Arc::new(Mutex::new(None));
    let seen = Arc::new(Mutex::new(None));
    let server = Server::start({
        let (client, seen) = (Arc::clone(&client), Arc::clone(&seen));
        move |request| {
            let mut seen = seen.lock().unwrap();
            if seen.is_none() {
                assert!(wait_until(|| client.lock().unwrap().is_some()));
                *seen = Some(confined_threads(client.lock().unwrap().unwrap()));
            }
            Reply::file(&Kind::Guix.directory(), request)
        }
    });

    let running = Running::start(sandbox.command(Kind::Guix, &server.url(), arguments), "");
    *client.lock().unwrap() = Some(running.child.id());
    running.end().exits(0);

    let seen = seen.lock().unwrap().take();
    seen.expect("there was a request")
}

#[test]
fn every_thread_is_confined_before_the_first_request() {
    let item = item("sample");
    for arguments in [
        &["fetch", &item][..],
        &["fetch", "--output", "tree", &item],
        &["fetch", "--dry-run", &item],
        &["query", &item],
        &["servers"],
    ] {
        let threads = threads_at_first_request(arguments);
        assert!(threads.len() > 1, "{threads:?}");
        assert!(
            threads.iter().all(|is_confined| *is_confined),
            "{arguments:?}: {threads:?}"
        );
    }
}

#[test]
fn it_can_be_switched_off() {
    let item = item("sample");
    let threads = threads_at_first_request(&["query", &item, "--sandbox", "off"]);
    assert!(
        threads.iter().all(|is_confined| !is_confined),
        "{threads:?}"
    );
}

#[test]
fn an_acl_from_a_pipe_keeps_the_sandbox() {
    let sandbox = Sandbox::new();
    let server = Server::start(|request| Reply::file(&Kind::Guix.directory(), request));
    let arguments = ["query", "--sandbox", "require", &item("sample")];
    let command = sandbox.command(Kind::Guix, &server.url(), &arguments);
    let acl = std::fs::read_to_string(sandbox.path("acl")).unwrap();
    std::fs::remove_file(sandbox.path("acl")).unwrap();
    std::os::unix::fs::symlink("/dev/stdin", sandbox.path("acl")).unwrap();
    run_with_input(command, &acl).exits(0);
}

#[test]
fn host_names_are_resolved_in_the_sandbox() {
    let sandbox = Sandbox::new();
    let server = Server::start(|request| Reply::file(&Kind::Guix.directory(), request));
    let url = server.url().replace("127.0.0.1", "localhost");
    assert!(url.contains("localhost"), "{url}");
    sandbox.subst(&url, &["query", &item("sample")]).exits(0);
}

/// Makes the kernel answer as one that has no Landlock.
#[expect(unsafe_code, reason = "seccomp filters have no safe interface here")]
fn without_landlock(command: &mut Command) {
    const CREATE_RULESET: u32 = 444;
    let return_value = |value| libc::sock_filter {
        code: 0x06,
        jt: 0,
        jf: 0,
        k: value,
    };
    let filter = [
        // Load the number of the system call; if it is that one, it fails.
        libc::sock_filter {
            code: 0x20,
            jt: 0,
            jf: 0,
            k: 0,
        },
        libc::sock_filter {
            code: 0x15,
            jt: 0,
            jf: 1,
            k: CREATE_RULESET,
        },
        return_value(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned()),
        return_value(libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let program = libc::sock_fprog {
            len: u16::try_from(filter.len()).unwrap_or_default(),
            filter: filter.as_ptr().cast_mut(),
        };
        // SAFETY: prctl reads the program, which outlives the calls, and changes nothing else.
        let failed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(
                    libc::PR_SET_SECCOMP,
                    libc::SECCOMP_MODE_FILTER,
                    &raw const program,
                ) != 0
        };
        if failed {
            Err(std::io::Error::last_os_error())
        } else {
            Ok(())
        }
    };
    // SAFETY: the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
}

#[test]
fn without_landlock_the_program_works_and_says_so_only_when_asked() {
    let sandbox = Sandbox::new();
    let server = Server::start(|request| Reply::file(&Kind::Guix.directory(), request));
    let reason = "this kernel has no Landlock, or a container does not allow it";
    let run_with = |arguments: &[&str]| {
        let mut command = sandbox.command(Kind::Guix, &server.url(), arguments);
        without_landlock(&mut command);
        run(command)
    };

    let quiet = run_with(&["query", &item("sample")]).exits(0);
    assert!(!quiet.stderr.contains("sandbox"), "{}", quiet.stderr);
    run_with(&["query", "-v", &item("sample")])
        .exits(0)
        .says(&format!(
            "subst: running without a complete sandbox: {reason}\n"
        ));
    run_with(&["query", "--sandbox", "require", &item("sample")])
        .exits(5)
        .says("--sandbox require: this process cannot be confined completely")
        .says(reason)
        .says("hint: --sandbox auto");
}

#[test]
fn an_unknown_mode_is_a_usage_error() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.bare(&["query", &item("sample")]);
    command.env("SUBST_SANDBOX", "maybe");
    run(command)
        .exits(2)
        .says("SUBST_SANDBOX: `maybe` is not `auto`, `require` or `off`");
}

#[test]
fn the_nars_of_a_directory_may_be_on_another_disk() {
    let sandbox = Sandbox::new();
    let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
    std::fs::rename(sandbox.path("server/nar"), sandbox.path("disk")).unwrap();
    std::os::unix::fs::symlink("../disk", sandbox.path("server/nar")).unwrap();
    sandbox
        .subst(&fixture.url(), &["fetch", &item("sample")])
        .exits(0);
}
