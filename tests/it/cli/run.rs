//! `subst run`: a program of a store below a root runs as it would if the store were at its place.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::Command;

use super::{NOTHING, UNREACHABLE};
use crate::support::mounts::unshare_flags;
use crate::support::sandbox::{Run, Running, make_writable, run};
use crate::support::terminal::run_in_terminal;
use crate::support::{Kind, Sandbox, item, wait_until};

/// A sandbox in whose root is the closure of the fixtures; `None` where nothing can be mounted.
fn fetched(kind: Kind) -> Option<Sandbox> {
    unshare_flags()?;
    let sandbox = Sandbox::new();
    let fetch = sandbox.command(kind, &kind.url(), &["fetch", &kind.item("sample")]);
    run(fetch).exits(0);
    Some(sandbox)
}

/// `subst run` on the root of `sandbox` with `arguments`.
fn subst_run(sandbox: &Sandbox, arguments: &[&str]) -> Command {
    let mut command = sandbox.bare(&["run", "--root"]);
    command.arg(sandbox.root()).args(arguments);
    command
}

/// A shell that runs `script`, started by `subst run`.
fn shell(sandbox: &Sandbox, script: &str) -> Command {
    subst_run(sandbox, &[&item("tools"), "/bin/sh", "--", "-c", script])
}

/// The same without `subst`, in the same environment.
fn plain_shell(sandbox: &Sandbox, script: &str) -> Command {
    let model = sandbox.bare(&[]);
    let mut command = Command::new("/bin/sh");
    let variables = model.get_envs();
    command
        .env_clear()
        .envs(variables.filter_map(|(name, value)| Some((name, value?))))
        .current_dir(model.get_current_dir().unwrap())
        .args(["-c", script]);
    command
}

fn notes() -> String {
    let sandbox = Sandbox::new();
    let notes = item("notes");
    let output = sandbox.path("notes");
    let arguments = ["fetch", "--output", output.to_str().unwrap(), &notes];
    sandbox.subst(&Kind::Guix.url(), &arguments).exits(0);
    std::fs::read_to_string(output).unwrap()
}

/// `show` prints a file of another item, which it names by its place in the store.
#[test]
fn a_program_finds_what_it_refers_to() {
    let Some(sandbox) = fetched(Kind::Guix) else {
        return;
    };
    let tools = item("tools");
    for arguments in [
        &[&*tools, "show"][..],
        &[&tools, "bin/show"],
        &[&tools, &format!("{tools}/bin/show")],
        &[&format!("{tools}/bin/show")],
        // An item that is an executable file, and reaches the same over two others.
        &[&item("program")],
    ] {
        let ended = run(subst_run(&sandbox, arguments)).exits(0);
        assert_eq!((&ended.stderr, ended.stdout), (&String::new(), notes()));
    }
}

#[test]
fn a_program_of_nix_finds_what_it_refers_to() {
    let Some(sandbox) = fetched(Kind::NixXz) else {
        return;
    };
    let program = Kind::NixXz.item("program");
    let command = subst_run(&sandbox, &["--store-dir", "/nix/store", &program]);
    assert_eq!(run(command).exits(0).stdout, notes());
}

#[test]
fn which_programs_there_are_is_said() {
    let Some(sandbox) = fetched(Kind::Guix) else {
        return;
    };
    let tools = item("tools");
    run(subst_run(&sandbox, &[&tools]))
        .exits(2)
        .says(&format!("{tools} has 2 programs"))
        .says("name one of display, show");
    run(subst_run(&sandbox, &[&tools, "shwo"]))
        .exits(2)
        .says("has no program `shwo`")
        .says("it has display, show");
    run(subst_run(&sandbox, &[&tools, "share/empty-file"]))
        .exits(2)
        .says("share/empty-file is not an executable file");
    run(subst_run(&sandbox, &[&item("copy")]))
        .exits(2)
        .says("has no programs");
}

/// What a program can see of how it was started.
const SURROUNDINGS: &str = r#"
    printf '%s\n' "$PWD" "$(umask)" "$(ulimit -n)" "$(ulimit -v)" "$(id -u)" "$(id -g)" "$-"
    env | sort
    grep -E '^(Sig[BICP]|NoNewPrivs|Seccomp:|Threads|Umask)' /proc/self/status
    [ "$(id -u)" = 0 ] || grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status
    ls -l /proc/self/fd | grep -v /temproots/ | sed -n 's/.* \([0-9]*\) -> .*/\1/p'
    for directory in /bin /dev /etc /home /lib /proc /root /sys /tmp /usr /usr/bin /var; do
        echo "$directory" $(stat -c '%F %a' "$directory") "$(readlink "$directory")"
    done
    test -w /tmp && test -r /dev/null && cat /proc/self/mounts > /dev/null && echo > written && rm written && echo done
"#;

#[test]
fn a_program_sees_what_it_would_see_if_it_were_started_directly() {
    let Some(sandbox) = fetched(Kind::Guix) else {
        return;
    };
    let expected = run(plain_shell(&sandbox, SURROUNDINGS)).exits(0);
    let ended = run(shell(&sandbox, SURROUNDINGS)).exits(0);
    assert_eq!(ended.stdout, expected.stdout);
    assert_eq!(ended.stderr, expected.stderr);
    assert!(ended.stdout.ends_with("done\n"), "{}", ended.stdout);

    // A umask and limits of the caller's.
    let limited = "umask 077; ulimit -n 512; exec \"$@\"";
    let mut command = Command::new("/bin/sh");
    let program = shell(&sandbox, SURROUNDINGS);
    command
        .args(["-c", limited, "sh"])
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(sandbox.path(""));
    let ended = run(command).exits(0);
    assert!(ended.stdout.contains("\n0077\n512\n"), "{}", ended.stdout);
}

/// The output of `command` when it is started by the shell command `before`, in the same environment.
fn started_by(sandbox: &Sandbox, before: &str, command: &Command) -> String {
    let mut shell = plain_shell(sandbox, before);
    shell.arg("sh").arg(command.get_program());
    shell.args(command.get_args());
    run(shell).exits(0).stdout
}

/// The mask of signals in the line `field` of a process's status.
fn signals(status: &str, field: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix(field));
    u64::from_str_radix(mask.unwrap().trim(), 16).unwrap()
}

/// Signals that the caller ignores, and streams that it has closed, are so for the program.
#[test]
fn ignored_signals_and_closed_streams_are_inherited() {
    let Some(sandbox) = fetched(Kind::Guix) else {
        return;
    };
    let look = "grep -E '^Sig[BIC]' /proc/self/status
        ls -l /proc/self/fd | grep -v /temproots/ | sed -n 's/.* \\([0-9]*\\) -> .*/\\1/p'";
    for (before, ignored) in [
        ("trap '' PIPE HUP; exec \"$@\"", 0x1001),
        ("trap '' PIPE; exec \"$@\" < /dev/null", 0x1000),
        ("exec \"$@\" <&-", 0),
        ("exec \"$@\" 2>&-", 0),
    ] {
        let expected = started_by(&sandbox, before, &plain_shell(&sandbox, look));
        let found = started_by(&sandbox, before, &shell(&sandbox, look));
        assert_eq!(found, expected, "{before}");
        assert_eq!(signals(&found, "SigIgn:") & ignored, ignored, "{before}");
    }
}

#[test]
fn blocked_signals_are_inherited() {
    let Some(sandbox) = fetched(Kind::Guix) else {
        return;
    };
    let before = "env --block-signal=USR1 true 2> /dev/null || exit 0
        exec env --block-signal=USR1 \"$@\"";
    let mut look = subst_run(&sandbox, &[&item("tools"), "/usr/bin/env", "--"]);
    look.args(["grep", "SigBlk", "/proc/self/status"]);
    let found = started_by(&sandbox, before, &look);
    match found.as_str() {
        "" => eprintln!("skipped: `env` cannot block signals"),
        found => assert_eq!(signals(found, "SigBlk:") & 0x200, 0x200),
    }
}

/// A program that uses no file of the item itself, such as a shell that will start one later.
#[test]
fn the_collector_keeps_the_item_until_the_program_and_its_children_have_ended() {
    let Some(sandbox) = fetched(Kind::Guix) else {
        return;
    };
    let tree = sandbox.store().join(&item("tools")["/gnu/store/".len()..]);
    let collect = || sandbox.subst(UNREACHABLE, &["gc"]).exits(0).stdout;
    let loops = "while ! test -e stop-$0; do sleep 0.1; done";
    let script = format!("sh -c '{loops}' child & echo > started; {loops}");
    let mut command = shell(&sandbox, &script);
    command.arg("parent");
    let running = Running::start(command, "");
    assert!(wait_until(|| sandbox.path("started").exists()));

    let kept = sandbox.subst(UNREACHABLE, &["gc", "--dry-run"]).exits(0);
    let process = format!("temporary root of process {}", running.child.id());
    assert!(kept.stdout.contains(&process), "{}", kept.stdout);
    assert!(collect().contains(&item("sample")) && tree.exists());
    std::fs::write(sandbox.path("stop-parent"), "").unwrap();
    let ended = std::thread::spawn(|| running.end());
    collect();
    assert!(tree.exists());

    std::fs::write(sandbox.path("stop-child"), "").unwrap();
    ended.join().unwrap().exits(0);
    assert!(wait_until(|| collect().contains(&item("tools"))));
    assert!(!tree.exists());
}

/// The owner of the store has to be able to lock and remove the file by which root keeps the item.
#[test]
fn root_keeps_the_item_from_the_collector_of_another_user() {
    const OWNER: u32 = 54321;

    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give a store away");
        return;
    }
    let Some(sandbox) = fetched(Kind::Guix) else {
        return;
    };
    let root = sandbox.root();
    let readable = PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(sandbox.path(""), readable).unwrap();
    let mut give = Command::new("chown");
    give.args(["-hR", &OWNER.to_string()]).arg(&root);
    let mut reach = Command::new("test");
    reach.arg("-w").arg(&root).uid(OWNER);
    let given = give.status().unwrap().success();
    if !given || !reach.status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: another user cannot have a store here");
        return;
    }

    let script = "echo > started; while ! test -e stop; do sleep 0.1; done";
    let command = shell(&sandbox, script);
    let running = Running::start(command, "");
    assert!(wait_until(|| sandbox.path("started").exists()));
    let name = format!("var/guix/temproots/{}-run", running.child.id());
    let file = root.join(name).metadata().unwrap();
    let collected = sandbox.subst(UNREACHABLE, &["gc", "--dry-run"]).exits(0);
    std::fs::write(sandbox.path("stop"), "").unwrap();
    running.end().exits(0);
    assert_eq!(file.uid(), OWNER);
    assert!(collected.stdout.contains("temporary root of process"));
}

/// The files that keep items do not add up.
#[test]
fn what_earlier_programs_have_left_is_removed() {
    let Some(sandbox) = fetched(Kind::Guix) else {
        return;
    };
    let files = || {
        let directory = sandbox.root().join("var/guix/temproots");
        directory.read_dir().unwrap().count()
    };
    for _ in 0..3 {
        run(subst_run(&sandbox, &[&item("tools"), "show"])).exits(0);
        assert_eq!(files(), 1);
    }
    sandbox.subst(UNREACHABLE, &["gc"]).exits(0);
    assert_eq!(files(), 0);
}

#[test]
fn arguments_and_input_arrive_as_they_are() {
    let Some(sandbox) = fetched(Kind::Guix) else {
        return;
    };
    let arguments: [&[u8]; 9] = [
        b"",
        b" ",
        b"a b",
        b"--",
        b"-x",
        b"--root",
        b"\xff\xfe",
        b"$(x)\n'",
        b"\xc3\xbc",
    ];
    let mut command = shell(&sandbox, r#"cat; printf '<%s>' "$@" | od -An -c"#);
    command.arg("sh");
    command.args(arguments.map(OsStr::from_bytes));
    let mut direct = plain_shell(&sandbox, r#"cat; printf '<%s>' "$@" | od -An -c"#);
    direct.arg("sh").args(arguments.map(OsStr::from_bytes));

    let [ended, expected] =
        [command, direct].map(|it| Running::start(it, "input\n").end().exits(0));
    assert!(ended.stdout.starts_with("input\n"), "{}", ended.stdout);
    assert_eq!(ended.stdout, expected.stdout);
}

#[test]
fn the_exit_status_is_that_of_the_program() {
    let Some(sandbox) = fetched(Kind::Guix) else {
        return;
    };
    for code in [0, 1, 5, 77, 130, 255] {
        run(shell(&sandbox, &format!("exit {code}"))).exits(code);
    }
    let mut killed = shell(&sandbox, "kill -KILL $$");
    assert_eq!(killed.status().unwrap().signal(), Some(9));
    // The reader of a pipe has ended.
    let piped = run(shell(&sandbox, "yes | head -n 1; exit 3"));
    assert_eq!((piped.code, &*piped.stderr), (Some(3), ""));
}

/// The program has the process ID of `subst`, so that signals, also those that cannot be forwarded, reach it.
#[test]
fn signals_reach_the_program_itself() {
    use rustix::process::Signal;

    let Some(sandbox) = fetched(Kind::Guix) else {
        return;
    };
    let script = "trap 'exit 42' USR1; echo $$ > started.new; mv started.new started; while :; do sleep 0.1; done";
    let started = sandbox.path("started");
    for (signal, code) in [
        (Signal::USR1, Some(42)),
        (Signal::TERM, None),
        (Signal::INT, None),
    ] {
        let running = Running::start(shell(&sandbox, script), "");
        assert!(wait_until(|| started.exists()), "it did not start");
        let process = std::fs::read_to_string(&started).unwrap();
        assert_eq!(process.trim(), running.child.id().to_string());
        std::fs::remove_file(&started).unwrap();
        running.signal(signal);
        assert_eq!(running.end().code, code, "{signal:?}");
    }
}

#[test]
fn a_terminal_stays_a_terminal() {
    let Some(sandbox) = fetched(Kind::Guix) else {
        return;
    };
    let command = shell(&sandbox, "test -t 1 && stty size < /proc/self/fd/1");
    run_in_terminal(command, 123).exits(0).prints("24 123\n");
}

/// Of what it makes for the program, nothing is left.
#[test]
fn nothing_changes_outside() {
    let Some(sandbox) = fetched(Kind::Guix) else {
        return;
    };
    let listing = || {
        let list = "grep -F \"$PWD\" /proc/self/mountinfo; ls -A root root/gnu root/gnu/store; test -e /gnu; echo $?";
        run(plain_shell(&sandbox, list)).exits(0).stdout
    };
    let before = listing();
    run(shell(&sandbox, "true")).exits(0);
    assert_eq!(listing(), before);
}

/// A program that makes namespaces itself can do so, `subst run` among them.
#[test]
fn a_run_inside_a_run() {
    let Some(sandbox) = fetched(Kind::Guix) else {
        return;
    };
    let script = format!(
        "exec '{}' run --root root {} show",
        env!("CARGO_BIN_EXE_subst"),
        item("tools")
    );
    let ended = run(shell(&sandbox, &script)).exits(0);
    assert_eq!(ended.stdout, notes());
}

#[test]
fn an_item_that_is_not_in_the_store_is_fetched_by_the_command_in_the_hint() {
    let sandbox = Sandbox::new();
    let tools = item("tools");
    let mut command = subst_run(&sandbox, &[&tools, "show"]);
    command.args(["--substitute-urls", &Kind::Guix.url()]);
    command.arg("--acl").arg(sandbox.path("acl"));
    let said = run(command).exits(1).prints("");
    let said = said.says(&format!("{tools} is not in the store below "));
    let hint = said.stderr.split('`').nth(1).unwrap().to_owned();
    assert!(!sandbox.root().exists(), "nothing was made");

    let script = hint.replacen("subst ", "\"$program\" ", 1);
    let mut follow = plain_shell(&sandbox, &script);
    follow.env("program", env!("CARGO_BIN_EXE_subst"));
    run(follow).exits(0).prints(&format!("{tools}\n"));
    let tree = sandbox.store().join(&tools["/gnu/store/".len()..]);
    assert!(tree.exists());

    // Only the database still has it.
    make_writable(&tree);
    std::fs::remove_dir_all(&tree).unwrap();
    let lost = subst_run(&sandbox, &[&tools, "show"]);
    run(lost).exits(1).says("is not in the store below ");
    run(subst_run(&sandbox, &[NOTHING])).exits(1);
}

/// Without namespaces it says what forbids them, and how to run the program all the same.
#[test]
fn what_forbids_namespaces_is_said() {
    let Some(sandbox) = fetched(Kind::Guix) else {
        return;
    };
    let Some(ended) = without_namespaces(&sandbox, &[&item("tools"), "show"]) else {
        return;
    };
    let store = sandbox.store().canonicalize().unwrap();
    let bind = format!("--bind {} /gnu/store", store.display());
    ended
        .exits(5)
        .says("at /gnu/store")
        .says("user.max_user_namespaces is 0")
        .says("sysctl user.max_user_namespaces=10000")
        .says(&format!(
            "proot -b {}:/gnu/store {}/bin/show",
            store.display(),
            item("tools")
        ))
        .says(&bind);

    let itself = without_namespaces(&sandbox, &[&item("program")]).unwrap();
    let command = format!(
        "proot -b {}:/gnu/store {}`",
        store.display(),
        item("program")
    );
    itself.exits(5).says(&command);
}

/// `subst run` with `arguments`, where user namespaces are forbidden; `None` if they cannot be.
fn without_namespaces(sandbox: &Sandbox, arguments: &[&str]) -> Option<Run> {
    let program = subst_run(sandbox, arguments);
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces || exit 77
        exec setpriv --bounding-set=-all --inh-caps=-all \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["-rm", "sh", "-c", forbid, "sh"])
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(sandbox.path(""));
    let ended: Run = run(command);
    if ended.code == Some(77)
        || ended.stderr.contains("unshare: ")
        || ended.stderr.contains("setpriv: ")
    {
        eprintln!(
            "left out: user namespaces cannot be forbidden here: {}",
            ended.stderr
        );
        return None;
    }
    Some(ended)
}
