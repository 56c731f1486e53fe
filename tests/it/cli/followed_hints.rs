//! The commands in hints do what the hints promise when they are run as they stand.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::UNREACHABLE;
use crate::support::sandbox::{Run, run};
use crate::support::{Fixture, Kind, Reply, Sandbox, Server, item};

/// The program with `arguments`, on the root of `sandbox`, without any settings file.
fn subst(sandbox: &Sandbox, arguments: &[&str]) -> Run {
    let mut command = sandbox.bare(arguments);
    command.env_remove("SUBST_CONFIG");
    command.arg("--root").arg(sandbox.root());
    run(command)
}

/// The command between the first backquotes behind the last `word` in `text`.
#[track_caller]
fn command_behind(text: &str, word: &str) -> String {
    let behind = text
        .rsplit(word)
        .next()
        .filter(|behind| behind.len() < text.len());
    let command = behind.and_then(|behind| behind.split('`').nth(1));
    let command = command.unwrap_or_else(|| panic!("no command behind `{word}`: {text}"));
    command.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Runs `command` in a shell that finds the program.
fn follow(sandbox: &Sandbox, command: &str) -> Run {
    let program = Path::new(env!("CARGO_BIN_EXE_subst")).parent().unwrap();
    let mut shell = Command::new("/bin/sh");
    shell
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", program.display()))
        .env("HOME", sandbox.path("home"))
        .current_dir(sandbox.path(""))
        .args(["-c", command]);
    run(shell)
}

#[test]
fn a_key_of_nix_is_trusted_after_the_commands_of_the_hints() {
    let sandbox = Sandbox::new();
    let key = Kind::NixXz.expected().join("public-key");
    let said = subst(&sandbox, &["authorize", key.to_str().unwrap()]).exits(2);
    let for_nix = command_behind(&said.stderr, "hint:");

    // The last line of the file has no end.
    sandbox.write_config("root/etc/nix/nix.conf", "cores = 2");
    let said = follow(&sandbox, &for_nix).exits(2);
    follow(&sandbox, &command_behind(&said.stderr, "hint:")).exits(0);
    follow(&sandbox, &for_nix)
        .exits(0)
        .says("is already trusted");

    let (url, path) = (Kind::NixXz.url(), Kind::NixXz.item("tools"));
    let fetch = [
        "fetch",
        "--store-dir",
        "/nix/store",
        "--substitute-urls",
        &url,
        &path,
    ];
    subst(&sandbox, &fetch).exits(0);
}

#[test]
fn a_new_nix_conf_gets_its_directory_and_is_written_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let sandbox = Sandbox::new();
    let key = Kind::NixXz.expected().join("public-key");
    let arguments = ["authorize", "--store-dir=/nix/store", key.to_str().unwrap()];
    let mut system = sandbox.bare(&arguments);
    system.env("NIX_CONF_DIR", sandbox.path("etc/nix"));
    for (said, directory) in [
        (subst(&sandbox, &arguments), "root/etc/nix"),
        (run(system), "etc/nix"),
    ] {
        let command = command_behind(&said.exits(2).stderr, "hint:");
        // As sudo has it by default.
        let sudo = "sudo() { (umask 022; \"$@\"); }";
        follow(&sandbox, &format!("{sudo}; umask 002; {command}")).exits(0);

        let conf = sandbox.path(directory).join("nix.conf");
        for (path, expected) in [(conf.parent().unwrap(), 0o755), (&conf, 0o644)] {
            let mode = std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, expected, "{}: {command}", path.display());
        }
    }
}

#[test]
fn the_store_directory_that_an_item_needs_is_added_to_the_command() {
    let sandbox = Sandbox::new();
    let key = Kind::NixXz.expected().join("public-key");
    let key = std::fs::read_to_string(key).unwrap();
    let (url, path) = (Kind::NixXz.url(), Kind::NixXz.item("tools"));
    let mut arguments = vec!["query", "--substitute-urls", &url];
    arguments.extend(["--trusted-public-keys", key.trim(), &path]);
    let said = subst(&sandbox, &arguments).exits(2).stderr;
    let command = command_behind(&said, "hint:");
    assert!(
        command.starts_with("subst query --store-dir /nix/store "),
        "{command}"
    );
    let followed = follow(&sandbox, &command).exits(0);
    assert!(followed.stdout.starts_with("available"), "{followed:?}");

    // An option that was given is replaced.
    let arguments = ["--store-dir=/gnu/store", "query", &path];
    let said = subst(&sandbox, &arguments).exits(2).stderr;
    let command = command_behind(&said, "hint:");
    assert!(
        command.starts_with("subst query --store-dir /nix/store "),
        "{command}"
    );
    assert!(!command.contains("/gnu/store"), "{command}");
}

#[test]
fn the_command_that_shows_servers_has_the_options_in_use() {
    let sandbox = Sandbox::new();
    let arguments = ["fetch", "--insecure-tls", "--substitute-urls", UNREACHABLE];
    let said = subst(&sandbox, &[&arguments[..], &[&item("tools")]].concat());
    let command = command_behind(&said.exits(4).stderr, "hint:");
    assert!(command.ends_with(" --insecure-tls"), "{command}");
    let followed = follow(&sandbox, &command).exits(4);
    assert!(followed.stdout.contains(UNREACHABLE), "{followed:?}");
}

#[test]
fn the_command_that_waits_for_an_item_fetches_it() {
    let sandbox = Sandbox::new();
    let answered = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let is_early =
            request.path.ends_with(".narinfo") && answered.fetch_add(1, Ordering::Relaxed) == 0;
        match is_early {
            true => Reply::not_found().header("X-Baking: 1"),
            false => Reply::file(&Kind::Guix.directory(), request),
        }
    });
    let (acl, url, notes) = (sandbox.path("acl"), server.url(), item("notes"));
    let mut arguments = vec![
        "query",
        "--cache-miss-report",
        "--acl",
        acl.to_str().unwrap(),
    ];
    arguments.extend(["--substitute-urls", &url, &notes]);
    let said = subst(&sandbox, &arguments).exits(1).stdout;
    let command = command_behind(&said, "hint:");
    assert!(command.starts_with("subst fetch --wait 5m "), "{command}");
    follow(&sandbox, &command)
        .exits(0)
        .prints(&format!("{notes}\n"));
}

#[test]
fn the_command_that_makes_an_acl_safe_does_so() {
    let sandbox = Sandbox::new();
    let key = Kind::Guix.directory().join("signing-key.pub");
    subst(&sandbox, &["authorize", key.to_str().unwrap()]).exits(0);
    let acl = sandbox.root().join("etc/guix/acl");
    std::fs::set_permissions(&acl, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();

    let (url, notes) = (Kind::Guix.url(), item("notes"));
    let arguments = ["fetch", "--substitute-urls", &url, &notes];
    let said = subst(&sandbox, &arguments).exits(3).stderr;
    follow(&sandbox, &command_behind(&said, "keys are trusted;")).exits(0);
    let again = subst(&sandbox, &arguments).exits(0);
    assert!(!again.stderr.contains("warning"), "{again:?}");
}

#[test]
fn the_commands_about_a_damaged_database_lead_to_a_store_that_works() {
    let sandbox = Sandbox::new();
    let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
    let (acl, url, notes) = (sandbox.path("acl"), fixture.url(), item("notes"));
    let mut arguments = vec!["fetch", "--acl", acl.to_str().unwrap()];
    arguments.extend(["--substitute-urls", &url, &notes]);
    subst(&sandbox, &arguments).exits(0);

    let database = sandbox.root().join("var/guix/db");
    std::fs::write(database.join("schema"), "x").unwrap();
    let said = subst(&sandbox, &arguments).exits(5).stderr;
    follow(&sandbox, &command_behind(&said, "hint:")).exits(0);
    subst(&sandbox, &arguments).exits(0);

    std::fs::write(database.join("db.sqlite"), "junk, and no database at all").unwrap();
    let said = subst(&sandbox, &arguments).exits(5).stderr;
    follow(&sandbox, &command_behind(&said, "hint:")).exits(0);
    subst(&sandbox, &arguments)
        .exits(0)
        .prints(&format!("{notes}\n"));
}
