//! The name `guix`: `substitute` is ours, everything else is the real guix's. The same for the
//! script that guix-daemon starts, which also works without this program.

use std::os::unix::fs::symlink;
use std::process::Command;

use crate::support::{Sandbox, repository};

/// A sandbox with the program under the name guix, and a `guix` that prints how it was started.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    for name in ["ours", "real"] {
        std::fs::create_dir(sandbox.path(name)).unwrap();
    }
    symlink(env!("CARGO_BIN_EXE_subst"), sandbox.path("ours/guix")).unwrap();
    let script = "#!/bin/sh\nprintf '<%s>' \"$@\"\nprintf ' %s' \"$MARK\" >&4\nexit 42\n";
    write_real_guix(&sandbox, script);
    sandbox
}

/// Writes the script that is executed as the real guix.
fn write_real_guix(sandbox: &Sandbox, script: &str) {
    // Written by another process: one that another test is about to start would have the file
    // open for writing, and then it cannot be executed.
    let write = "printf %s \"$1\" > real/guix && chmod 755 real/guix";
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", write, "sh", script])
        .current_dir(sandbox.path(""));
    assert!(command.status().unwrap().success());
}

fn guix(sandbox: &Sandbox, path: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "exec 4>&1; exec ours/guix \"$@\"", "sh"])
        .current_dir(sandbox.path(""))
        .env_clear()
        .env("MARK", "kept")
        .env("PATH", path);
    command
}

#[test]
fn other_commands_reach_the_real_guix_unchanged() {
    let sandbox = sandbox();
    let path = ["ours", "real"]
        .map(|name| sandbox.path(name).display().to_string())
        .join(":");
    let run = guix(&sandbox, &path)
        .args(["gc", "--list-busy", "a b", ""])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(run.stdout).unwrap(),
        "<gc><--list-busy><a b><> kept"
    );
    assert_eq!(run.status.code(), Some(42));
}

#[test]
fn the_real_guix_can_be_set_by_a_variable() {
    let sandbox = sandbox();
    let mut command = guix(&sandbox, "/nonexistent");
    command
        .env("SUBST_REAL_GUIX", sandbox.path("real/guix"))
        .arg("authenticate");
    assert_eq!(command.output().unwrap().status.code(), Some(42));
}

#[test]
fn it_never_executes_itself() {
    let sandbox = sandbox();
    let mut command = guix(&sandbox, "/nonexistent");
    let run = command
        .env("SUBST_REAL_GUIX", sandbox.path("ours/guix"))
        .arg("gc")
        .output()
        .unwrap();
    let said = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(5), "{said}");
    assert!(said.contains("is this program itself"), "{said}");
}

#[test]
fn a_guix_that_executes_this_program_again_is_an_error() {
    let sandbox = sandbox();
    write_real_guix(&sandbox, "#!/bin/sh\nexec ours/guix \"$@\"\n");

    let mut command = guix(&sandbox, "/nonexistent");
    let run = command
        .env("SUBST_REAL_GUIX", sandbox.path("real/guix"))
        .arg("gc")
        .output()
        .unwrap();
    let said = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(5), "{said}");
    assert!(said.contains("instead of the real guix"), "{said}");
}

/// Runs guix with a real guix that starts this program as a child process, until `starts` of them
/// run in each other.
fn nested(starts: usize) -> std::process::Output {
    let sandbox = sandbox();
    let script = format!(
        "#!/bin/sh\n[ \"$STARTS\" = {starts} ] && exit 42\n\
         STARTS=$((STARTS + 1)) ours/guix \"$@\"\n"
    );
    write_real_guix(&sandbox, &script);
    guix(&sandbox, "/nonexistent")
        .env("SUBST_REAL_GUIX", sandbox.path("real/guix"))
        .env("STARTS", "1")
        .arg("gc")
        .output()
        .unwrap()
}

#[test]
fn programs_that_start_each_other_as_children_for_ever_are_an_error() {
    let run = nested(200);
    let message = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(5), "{message}");
    assert!(message.contains("instead of the real guix"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn a_guix_may_start_another_one() {
    // As `guix shell -- guix build` does.
    assert_eq!(nested(9).status.code(), Some(42));
}

#[test]
fn the_substitute_command_is_served_by_subst() {
    let sandbox = sandbox();
    let mut command = guix(&sandbox, "/nonexistent");
    command
        .args(["substitute", "--query"])
        .env("SUBST_CONFIG", sandbox.path("config.toml"));
    command
        .env("GUIX_STATE_DIRECTORY", sandbox.path("state"))
        .stdin(std::process::Stdio::null());
    let run = command.output().unwrap();
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
}

/// The script that guix-daemon starts, installed below `prefix` in the sandbox, with `arguments`
/// and replies on descriptor 4.
fn installed_script(sandbox: &Sandbox, arguments: &[&str]) -> std::process::Output {
    let script = repository().join("packaging/guix-daemon/guix");
    let install = "mkdir -p prefix/lib/subst && cp \"$1\" prefix/lib/subst/guix && shift &&
        exec 4>&1 && exec \"$PWD/prefix/lib/subst/guix\" \"$@\"";
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", install, "sh"])
        .arg(script)
        .args(arguments)
        .current_dir(sandbox.path(""))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("MARK", "kept")
        .env("SUBST_REAL_GUIX", sandbox.path("real/guix"))
        .env("SUBST_CONFIG", sandbox.path("config.toml"))
        .env("GUIX_STATE_DIRECTORY", sandbox.path("state"))
        .stdin(std::process::Stdio::null());
    command.output().unwrap()
}

#[test]
fn the_installed_script_starts_subst_for_substitutes_only() {
    let sandbox = sandbox();
    std::fs::create_dir_all(sandbox.path("prefix/bin")).unwrap();
    symlink(
        env!("CARGO_BIN_EXE_subst"),
        sandbox.path("prefix/bin/subst"),
    )
    .unwrap();

    let served = installed_script(&sandbox, &["substitute", "--query"]);
    let messages = String::from_utf8(served.stderr).unwrap();
    assert_eq!(served.status.code(), Some(0), "{messages}");
    assert_eq!(String::from_utf8(served.stdout).unwrap(), "");

    let passed = installed_script(&sandbox, &["gc", "--list-busy", "a b", ""]);
    assert_eq!(passed.status.code(), Some(42));
    let output = String::from_utf8(passed.stdout).unwrap();
    assert_eq!(output, "<gc><--list-busy><a b><> kept");
}

#[test]
fn the_installed_script_starts_the_real_guix_after_subst_was_removed() {
    let sandbox = sandbox();
    let run = installed_script(&sandbox, &["substitute", "--query"]);
    assert_eq!(run.status.code(), Some(42));
    let output = String::from_utf8(run.stdout).unwrap();
    assert_eq!(output, "<substitute><--query> kept");
}

/// Drop-ins of guix-daemon.service, and what is left of them without the Debian package.
const DROP_INS: [(&str, &str, Option<&str>); 5] = [
    (
        "quoted.conf",
        "# x\n[Service]\n  Environment=\"GUIX=/usr/lib/subst/guix\"\n\n",
        None,
    ),
    (
        "subst.conf",
        "[Service]\nEnvironment=GUIX=/usr/lib/subst/guix\n",
        None,
    ),
    (
        "override.conf",
        "[Service]\nEnvironment=A=b GUIX=/usr/lib/subst/guix C=d\n\
         Environment='GUIX=/usr/lib/subst/guix'\n  Environment=GUIX=/usr/lib/subst/guix \"X=y z\"\n",
        Some("[Service]\nEnvironment=A=b  C=d\n  Environment= \"X=y z\"\n"),
    ),
    (
        "commented.conf",
        "[Service]\n# Environment=GUIX=/usr/lib/subst/guix once\nEnvironment=GUIX=/usr/lib/subst/guix A=b\n",
        Some("[Service]\n# Environment=GUIX=/usr/lib/subst/guix once\nEnvironment= A=b\n"),
    ),
    (
        "other.conf",
        "[Service]\n#Environment=GUIX=/usr/lib/subst/guix\nEnvironment=GUIX=/opt/guix\n",
        Some("[Service]\n#Environment=GUIX=/usr/lib/subst/guix\nEnvironment=GUIX=/opt/guix\n"),
    ),
];

#[test]
fn removing_the_debian_package_gives_the_daemon_its_own_helper_back() {
    let sandbox = sandbox();
    let places = ["etc/systemd", "run/systemd", "usr/local/lib/systemd"];
    let directories = places.map(|place| {
        let system = sandbox.path("system").join(place);
        system.join("system/guix-daemon.service.d")
    });
    for directory in &directories {
        std::fs::create_dir_all(directory).unwrap();
        for (name, text, _) in DROP_INS {
            std::fs::write(directory.join(name), text).unwrap();
        }
    }

    for action in ["upgrade", "remove", "remove"] {
        let mut command = Command::new("/bin/sh");
        command
            .arg(repository().join("packaging/deb/prerm"))
            .arg(action)
            .env("DPKG_ROOT", sandbox.path("system"));
        assert!(command.status().unwrap().success());
        for (name, text, left) in DROP_INS {
            let expected = if action == "upgrade" {
                Some(text)
            } else {
                left
            };
            for directory in &directories {
                let found = std::fs::read_to_string(directory.join(name)).ok();
                assert_eq!(found.as_deref(), expected, "{action} {name}");
            }
        }
    }
}
