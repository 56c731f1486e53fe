//! The keys of nix.conf, from all the places where Nix looks for it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::support::sandbox::run;
use crate::support::{Kind, Sandbox, item};

const KIND: Kind = Kind::NixXz;

fn key() -> String {
    let file = KIND.directory().parent().unwrap().join("public-key");
    std::fs::read_to_string(file).unwrap().trim().to_owned()
}

/// A fetch into a new root, whose own nix.conf has this text.
fn fetch(sandbox: &Sandbox, system: &str) -> Command {
    if sandbox.root().exists() {
        sandbox.remove_root();
    }
    sandbox.write_config("root/etc/nix/nix.conf", system);
    let mut command = sandbox.bare(&["fetch", &KIND.item("notes"), "--store-dir", "/nix/store"]);
    command
        .arg("--root")
        .arg(sandbox.root())
        .args(["--substitute-urls", &KIND.url()]);
    command
}

#[test]
fn a_variable_overrides_or_extends_the_files() {
    let (sandbox, key) = (Sandbox::new(), key());
    run(fetch(&sandbox, "")).exits(3);
    for text in [
        format!("extra-trusted-public-keys = {key}"),
        format!("sandbox = true\ntrusted-public-keys = {key} # the last one wins"),
        format!("binary-cache-public-keys = {key}"),
    ] {
        run(with_nix_config(fetch(&sandbox, ""), &text)).exits(0);
    }
    let system = format!("trusted-public-keys = {key}\n");
    run(with_nix_config(
        fetch(&sandbox, &system),
        "trusted-public-keys =",
    ))
    .exits(3);
    run(with_nix_config(
        fetch(&sandbox, &system),
        "extra-trusted-public-keys = x",
    ))
    .exits(2)
    .says("trusted-public-keys in NIX_CONFIG")
    .says("`x`");

    let included = sandbox.write_config("more.conf", &format!("trusted-public-keys = {key}\n"));
    let include = format!("include {}", included.display());
    run(with_nix_config(fetch(&sandbox, ""), &include)).exits(0);
}

fn with_nix_config(mut command: Command, text: &str) -> Command {
    command.env("NIX_CONFIG", text);
    command
}

/// Runs `command` as a user without privileges, who owns the sandbox.
fn as_ordinary_user(sandbox: &Sandbox, command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let owner = format!("{NOBODY}:{NOBODY}");
    let mut chown = Command::new("chown");
    chown.args(["-R", &owner]).arg(sandbox.path(""));
    assert!(chown.status().unwrap().success());
    command.uid(NOBODY).gid(NOBODY);
}

#[test]
fn included_files_that_this_user_may_not_read_are_skipped() {
    let (sandbox, key) = (Sandbox::new(), key());
    let trusted =
        format!("!include tokens.conf\ninclude tokens.conf\ntrusted-public-keys = {key}\n");
    let mut command = fetch(&sandbox, &trusted);
    let tokens = sandbox.write_config("root/etc/nix/tokens.conf", "access-tokens = x\n");
    as_ordinary_user(&sandbox, &mut command);
    close(&tokens);
    let ended = run(command).exits(0);
    assert!(!ended.stderr.contains("tokens.conf"), "{}", ended.stderr);
}

#[test]
fn a_netrc_of_the_settings_that_this_user_may_not_read_is_left_out() {
    let sandbox = Sandbox::new();
    let netrc = sandbox.write_config("netrc", "machine a login b password c\n");
    sandbox.write_config("config.toml", &format!("netrc-file = {netrc:?}\n"));
    let run_with = |option: bool| {
        let mut command =
            sandbox.bare(&["query", "--substitute-urls", &Kind::Guix.url(), "--root"]);
        command.arg(sandbox.root()).arg(item("tools"));
        if option {
            command.arg("--netrc-file").arg(&netrc);
        }
        as_ordinary_user(&sandbox, &mut command);
        close(&netrc);
        run(command)
    };
    let shown = netrc.display().to_string();
    let left_out = run_with(false);
    assert!(
        [0, 3].contains(&left_out.code.unwrap()),
        "{}",
        left_out.stderr
    );
    left_out.says("warning: ").says(&shown);
    run_with(true).exits(2).says(&shown);
}

/// Lets nobody but root read `file`.
fn close(file: &Path) {
    std::fs::set_permissions(file, Permissions::from_mode(0o000)).unwrap();
}

#[test]
fn the_files_of_an_ordinary_user_are_read_in_the_order_of_nix() {
    let (sandbox, key) = (Sandbox::new(), key());
    let none = "trusted-public-keys =\n";
    let trusted = format!("trusted-public-keys = {key}\n");
    let extra = format!("extra-trusted-public-keys = {key}\n");
    // What the files in the home, in two directories of the system, and named by the variable have.
    let cases = [
        (["", "", "", ""], 3),
        ([&extra, "", "", ""], 0),
        (["", &extra, "", ""], 0),
        (["", "", &extra, ""], 0),
        ([none, &trusted, "", ""], 3),
        ([&trusted, none, none, ""], 0),
        (["", none, &trusted, ""], 3),
        // The variable replaces the other places.
        ([&trusted, &trusted, &trusted, none], 3),
        ([none, none, none, &trusted], 0),
    ];
    for (texts, code) in cases {
        let mut command = fetch(&sandbox, "");
        let places = ["home/.config", "xdg-one", "xdg-two", "named"];
        for (place, text) in places.iter().zip(texts) {
            sandbox.write_config(&format!("{place}/nix/nix.conf"), text);
        }
        let directories =
            ["xdg-one", "xdg-two"].map(|name| sandbox.path(name).display().to_string());
        command.env("XDG_CONFIG_DIRS", directories.join(":"));
        if !texts[3].is_empty() {
            command.env("NIX_USER_CONF_FILES", sandbox.path("named/nix/nix.conf"));
        }
        as_ordinary_user(&sandbox, &mut command);
        let ended = run(command);
        assert_eq!(ended.code, Some(code), "{texts:?}: {}", ended.stderr);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let sandbox = Sandbox::new();
    let mut command = fetch(&sandbox, "include sub\n");
    std::fs::create_dir(sandbox.root().join("etc/nix/sub")).unwrap();
    as_ordinary_user(&sandbox, &mut command);
    run(command).exits(5).says("etc/nix/sub");

    let mut command = fetch(&sandbox, "");
    sandbox.write_config("home/.config/nix/nix.conf", "include missing.conf\n");
    as_ordinary_user(&sandbox, &mut command);
    run(command).exits(5).says("home/.config/nix/missing.conf");
}

#[test]
fn a_file_of_the_user_that_others_may_change_is_ignored() {
    let sandbox = Sandbox::new();
    let text = format!("trusted-public-keys = {}\n", key());
    let mut command = fetch(&sandbox, &text);
    let file = sandbox.write_config("home/.config/nix/nix.conf", "");
    as_ordinary_user(&sandbox, &mut command);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(file, mode).unwrap();
    run(command)
        .exits(3)
        .says("home/.config/nix/nix.conf is ignored: ");
}
