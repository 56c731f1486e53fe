//! A machine that gives too little: threads, file descriptors, file sizes. A run ends with exit
//! code 5 or does with less; it never panics and never leaves anything unfinished.

use std::path::Path;
use std::process::Command;

use subst::format::nar::{EntryName, NarWriter};

use super::only;
use crate::support::fixture::base;
use crate::support::publisher::{Publisher, command};
use crate::support::sandbox::{make_writable, run};
use crate::support::{Fixture, Kind, Run, Sandbox, Server, item, listing};

/// Exit code 0 with everything there, or 5 with one error; nothing temporary is left.
#[track_caller]
fn assert_orderly(sandbox: &Sandbox, run: &Run) {
    assert!(matches!(run.code, Some(0 | 5)), "{run:?}");
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    let errors = run
        .stderr
        .lines()
        .filter(|line| line.starts_with("subst: error:"))
        .count();
    assert!(
        if run.code == Some(0) {
            errors == 0
        } else {
            errors >= 1
        },
        "{}",
        run.stderr
    );
    if sandbox.store().exists() {
        let left = listing::names(&sandbox.store());
        let is_rest = |name: &&String| name.ends_with(".tmp") || name.ends_with(".lock");
        assert_eq!(left.iter().find(is_rest), None, "{left:?}: {}", run.stderr);
    }
}

/// The program with `arguments`, below `wrapper`, on a copy of the fixtures that all users may
/// read.
fn wrapped(sandbox: &Sandbox, wrapper: &[&str], program: &Path, url: &str) -> Command {
    let mut command = Command::new(wrapper[0]);
    command
        .args(&wrapper[1..])
        .arg(program)
        .args(["fetch", "--substitute-urls", url, &item("sample")])
        .arg("--root")
        .arg(sandbox.root())
        .arg("--acl")
        .arg(sandbox.path("server/acl"))
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .env("HOME", sandbox.path("home"))
        .env("SUBST_CONFIG", sandbox.path("config.toml"))
        .current_dir(sandbox.path(""));
    command
}

/// The program, and the words before it by which at most `limit` threads can be started; `None`
/// where that cannot be had. The limit does not hold for root, so a copy is run as another user.
fn with_threads(sandbox: &Sandbox, limit: u32) -> Option<(std::path::PathBuf, Vec<String>)> {
    let program = Path::new(env!("CARGO_BIN_EXE_subst"));
    let limit = format!("--nproc={limit}");
    let (program, words) = if rustix::process::geteuid().is_root() {
        let user = "54321";
        let copy = sandbox.path("subst");
        if !copy.exists() {
            // By another process: a child of another test could inherit a descriptor of the copy that is
            // open for writing, and a program that is open for writing cannot be executed.
            let copied = Command::new("cp").arg(program).arg(&copy).status();
            assert!(copied.unwrap().success());
        }
        make_writable(&sandbox.path(""));
        let owned = Command::new("chown")
            .args(["-R", user])
            .arg(sandbox.path(""))
            .status();
        assert!(owned.unwrap().success());
        let words = [
            "setpriv",
            "--reuid",
            user,
            "--regid",
            user,
            "--clear-groups",
            "prlimit",
            &limit,
        ];
        (copy, words.map(str::to_owned).to_vec())
    } else {
        // In a user namespace of its own, threads of other processes do not count.
        let words = ["unshare", "-U", "prlimit", &limit].map(str::to_owned);
        (program.to_owned(), words.to_vec())
    };
    let works = Command::new(&words[0])
        .args(&words[1..words.len() - 1])
        .args(["--nproc", "true"])
        .output();
    if !works.is_ok_and(|output| output.status.success()) {
        eprintln!("left out: the number of threads cannot be limited here");
        return None;
    }
    Some((program, words))
}

#[test]
fn too_few_threads_are_enough_or_a_local_error() {
    let mut done = 0;
    for limit in 1..20 {
        let (sandbox, fixture) = only("zstd");
        let server = Server::of(fixture.dir.clone());
        let file = format!("file://{}", fixture.dir.display());
        for url in [server.url(), file] {
            let Some((program, words)) = with_threads(&sandbox, limit) else {
                return;
            };
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let ended = run(wrapped(&sandbox, &words, &program, &url));
            assert_orderly(&sandbox, &ended);
            done += usize::from(ended.code == Some(0));
        }
    }
    assert!(done > 0, "twenty threads are enough");
}

/// A shell that lowers its limit with `ulimit` before it becomes the program.
pub(crate) fn with_limit(sandbox: &Sandbox, limit: &str, url: &str) -> Run {
    let script = format!("ulimit {limit} && exec \"$0\" \"$@\"");
    let program = Path::new(env!("CARGO_BIN_EXE_subst"));
    run(wrapped(sandbox, &["sh", "-c", &script], program, url))
}

fn sandbox_with_server() -> (Sandbox, Fixture, Server) {
    let (sandbox, fixture) = only("zstd");
    let server = Server::of(fixture.dir.clone());
    (sandbox, fixture, server)
}

#[test]
fn too_few_file_descriptors_are_a_local_error() {
    for limit in 4..40 {
        let (sandbox, fixture, server) = sandbox_with_server();
        let file = format!("file://{}", fixture.dir.display());
        let url = if limit % 2 == 0 { server.url() } else { file };
        let ended = with_limit(&sandbox, &format!("-n {limit}"), &url);
        // With fewer the program cannot even be loaded.
        if ended.code != Some(127) {
            assert_orderly(&sandbox, &ended);
        }
    }
}

/// The names in a nar are chosen by whoever serves it.
#[test]
fn a_failure_deep_in_a_tree_is_told_in_few_words() {
    const LEVELS: usize = 300;
    let sandbox = Sandbox::new();
    let publisher = Publisher::new(&sandbox, "server", 1);
    Publisher::trust(&sandbox, &[&publisher]);
    let name = EntryName::new(&[b'n'; 255]).unwrap();
    let mut nar = NarWriter::new(Vec::new());
    nar.directory(None).unwrap();
    for _ in 0..LEVELS {
        nar.directory(Some(&name)).unwrap();
    }
    for _ in 0..=LEVELS {
        nar.end_directory().unwrap();
    }
    let nar = nar.finish().unwrap();
    let item = publisher.publish('1', &nar, nar.len() as u64, "");

    let script = "ulimit -n 100 && exec \"$0\" \"$@\"";
    let program = command(&sandbox, &publisher.url(), &["fetch", &item]);
    let mut limited = Command::new("sh");
    limited.args(["-c", script]).arg(program.get_program());
    limited.args(program.get_args()).env_clear();
    limited.envs(
        program
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let ended = run(limited).exits(5).says("Too many open files");
    assert!(ended.stderr.len() < 3000, "{}", ended.stderr);
    assert_orderly(&sandbox, &ended);
}

#[test]
fn a_limit_of_memory_is_a_local_error_or_enough() {
    for kibibytes in [60_000, 120_000, 160_000, 262_144, 400_000] {
        let (sandbox, _fixture, server) = sandbox_with_server();
        let ended = with_limit(&sandbox, &format!("-v {kibibytes}"), &server.url());
        assert_orderly(&sandbox, &ended);
        if kibibytes < 131_072 {
            let ended = ended.exits(5).says("limit of memory");
            assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        }
    }
}

/// Whether the tests can have `strace` make system calls fail.
pub(crate) fn has_strace() -> bool {
    let version = Command::new("strace").arg("-V").output();
    let is_there = version.is_ok_and(|ended| ended.status.success());
    if !is_there {
        eprintln!("left out: strace makes system calls fail, and is missing");
    }
    is_there
}

/// The words before a program by which `strace`, with these arguments too, makes its system calls fail.
fn strace<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["strace", "-f", "-qq", "-o", "/dev/null"], arguments].concat()
}

/// The program below `wrapper`, which fetches from the files of `fixture`.
fn wrapped_program(sandbox: &Sandbox, fixture: &Fixture, wrapper: &[&str]) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_subst"));
    let url = format!("file://{}", fixture.dir.display());
    wrapped(sandbox, wrapper, program, &url)
}

/// Network file systems such as NFS report a full disk or an exceeded quota when a file is closed.
#[test]
fn an_error_reported_when_a_file_is_closed_fails_its_item() {
    if !has_strace() {
        return;
    }
    for error in ["EDQUOT", "ENOSPC", "EIO"] {
        let (sandbox, fixture, _server) = sandbox_with_server();
        let name = format!("gnu/store/{}.tmp", base(&item("program")));
        // strace compares it with the name that /proc has, which is without links.
        let root = sandbox.path("").canonicalize().unwrap();
        let temporary = root.join(sandbox.root().file_name().unwrap()).join(&name);
        let inject = format!("inject=close:error={error}");
        let wrapper = strace(&[
            "-P",
            temporary.to_str().unwrap(),
            "-e",
            "trace=close",
            "-e",
            &inject,
        ]);

        let mut command = wrapped_program(&sandbox, &fixture, &wrapper);
        command.args(["--sync", "none"]);
        let ended = run(command).exits(5).says("closing").says(&name);
        assert_orderly(&sandbox, &ended);
    }
}

#[test]
fn a_file_system_without_hard_links_gets_copies_and_one_note() {
    if !has_strace() {
        return;
    }
    for error in ["EOPNOTSUPP", "ENOSYS", "EPERM", "EMLINK"] {
        let (sandbox, fixture, _server) = sandbox_with_server();
        let inject = format!("inject=linkat:error={error}");
        let wrapper = strace(&["-e", "trace=linkat", "-e", &inject]);
        let ended = run(wrapped_program(&sandbox, &fixture, &wrapper)).exits(0);
        super::assert_complete(&sandbox);
        let notes = ended.stderr.matches("without hard links").count();
        // The others may also mean that this very file cannot be linked.
        if ["EOPNOTSUPP", "ENOSYS"].contains(&error) {
            assert_eq!(notes, 1, "{error}: {}", ended.stderr);
        }
    }
}

#[test]
fn a_file_size_limit_is_an_error_and_does_not_kill() {
    for blocks in [0, 1, 8, 64, 200, 1000, 100_000] {
        let (sandbox, _fixture, server) = sandbox_with_server();
        let ended = with_limit(&sandbox, &format!("-f {blocks}"), &server.url());
        assert_orderly(&sandbox, &ended);
        // A block has 512 or 1024 bytes, as the shell likes it.
        assert!(
            blocks > 8 || ended.code == Some(5),
            "{blocks}: {}",
            ended.stderr
        );
        assert!(
            blocks < 100_000 || ended.code == Some(0),
            "{blocks}: {}",
            ended.stderr
        );
    }
}

#[test]
fn a_request_that_fails_locally_is_not_cached_as_a_server_failure() {
    let (sandbox, _fixture, server) = sandbox_with_server();
    let failed = with_limit(&sandbox, "-n 12", &server.url());
    assert_orderly(&sandbox, &failed);
    let query = sandbox.command(Kind::Guix, &server.url(), &["query", &item("sample")]);
    run(query).exits(0);
}

/// Too little memory is an error of this machine with one line, or there is enough for fewer
/// workers; and the next run completes what a killed one has left.
#[test]
fn too_little_memory_is_a_local_error_and_a_later_run_completes() {
    let mut codes = Vec::new();
    for method in ["zstd", "xz", "lzip"] {
        for mebibytes in [24, 48, 96, 160, 240, 360, 520, 2000] {
            let (sandbox, fixture) = only(method);
            let server = Server::of(fixture.dir.clone());
            let limit = format!("-v {}", mebibytes << 10);
            let ended = with_limit(&sandbox, &limit, &server.url());
            let told = ended.stderr.lines().filter(|line| !line.is_empty()).count();
            // With less than its code and data take, the program is aborted before it handles anything.
            let is_start_possible = mebibytes >= 48;
            assert!(
                matches!(ended.code, Some(0 | 5 | 127))
                    || !is_start_possible && ended.code.is_none(),
                "{mebibytes}: {ended:?}"
            );
            let has_told = matches!(ended.code, Some(0) | None) || told >= 1;
            assert!(has_told, "{mebibytes}: {ended:?}");
            assert!(!ended.stderr.contains("panicked"), "{mebibytes}: {ended:?}");
            codes.push(ended.code);

            sandbox
                .subst(&server.url(), &["fetch", &item("sample")])
                .exits(0);
            super::assert_complete(&sandbox);
            let left = listing::names(&sandbox.store());
            let is_rest = |name: &&String| name.ends_with(".tmp") || name.ends_with(".lock");
            assert_eq!(left.iter().find(is_rest), None, "{mebibytes}: {left:?}");
        }
    }
    assert!(
        codes.contains(&Some(0)) && codes.contains(&Some(5)),
        "{codes:?}"
    );
}
