//! Files that other users may change do not decide whom to trust.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use crate::support::sandbox::run;
use crate::support::{Kind, Sandbox, item};

const OTHER_USER: u32 = 12345;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The message about a fault of a file, and what causes the fault.
type FileDamage = (&'static str, fn(&Path));

/// What makes a file one that others decide on.
fn faults() -> Vec<FileDamage> {
    let mut faults: Vec<FileDamage> = vec![("writable by other users", |path| {
        chmod(path, 0o666);
    })];
    if is_root() {
        faults.push(("owned by user 12345", |path| {
            chown(path, Some(OTHER_USER), None).unwrap()
        }));
        faults.push(("writable by other users (mode 0664)", |path| {
            chmod(path, 0o664)
        }));
        faults.push(("owned by user 12345", |path| {
            chown(path.parent().unwrap(), Some(OTHER_USER), None).unwrap();
        }));
    }
    faults.push(("writable by other users (mode 0777)", |path| {
        chmod(path.parent().unwrap(), 0o777);
    }));
    faults
}

/// A sandbox with a directory of its own for one file.
fn place(text: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    for dir in ["home/.config", "home/.config/subst"] {
        std::fs::create_dir(sandbox.path(dir)).unwrap();
        chmod(&sandbox.path(dir), 0o755);
    }
    sandbox.write_safely("home/.config/subst/config.toml", text);
    sandbox
}

/// `subst ARGUMENTS` with the user's settings file, on a root of its own.
fn with_home(sandbox: &Sandbox, arguments: &[&str]) -> Command {
    let mut command = sandbox.bare(arguments);
    command
        .env_remove("SUBST_CONFIG")
        .arg("--root")
        .arg(sandbox.root());
    command.args(["--substitute-urls", &Kind::Guix.url()]);
    command
}

#[test]
fn an_unsafe_settings_file_is_ignored_unless_an_option_names_it() {
    for (words, damage) in faults() {
        let sandbox = place("");
        let acl = sandbox.path("acl").display().to_string();
        let file = sandbox.write_safely(
            "home/.config/subst/config.toml",
            &format!("acl = \"{acl}\"\n"),
        );
        let tools = item("tools");
        let fetch = || with_home(&sandbox, &["fetch", &tools]);
        assert_eq!(run(fetch()).exits(0).stderr.matches("warning").count(), 0);
        std::fs::remove_dir_all(sandbox.root().join("var")).unwrap();

        damage(&file);
        let said = run(fetch()).exits(3);
        let said = said
            .says("warning: the settings file")
            .says(&file.display().to_string());
        said.says("is ignored: ").says(words);
        let mut named = fetch();
        named.arg("--config").arg(&file);
        run(named).exits(0).says("is not safe: ").says(words);
        let mut named = fetch();
        named.env("SUBST_CONFIG", &file);
        run(named).exits(0).says("is not safe: ").says(words);
    }
}

#[test]
fn an_unsafe_acl_authorizes_no_key_unless_an_option_names_it() {
    for (words, damage) in faults() {
        let sandbox = place("");
        let text = std::fs::read_to_string(sandbox.path("acl")).unwrap();
        let acl = sandbox.write_safely("home/.config/acl", &text);
        let (tools, config) = (
            item("tools"),
            sandbox.path("home/.config/subst/config.toml"),
        );
        std::fs::write(&config, format!("acl = {acl:?}\n")).unwrap();
        damage(&acl);
        // The settings file is named, the ACL in it is not.
        let mut fetch = with_home(&sandbox, &["fetch", &tools]);
        fetch.arg("--config").arg(&config);
        run(fetch)
            .exits(3)
            .says("warning: the ACL")
            .says("is ignored: ")
            .says(words);
        let mut named = with_home(&sandbox, &["fetch", &tools, "--refresh"]);
        named.arg("--acl").arg(&acl);
        run(named)
            .exits(0)
            .says("warning: the ACL")
            .says("is not safe: ")
            .says(words);
    }
}

#[test]
fn in_a_root_only_the_acl_of_its_owner_is_used() {
    let tools = item("tools");
    let key = Kind::Guix.directory().join("signing-key.pub");
    let fetch = |sandbox: &Sandbox| run(with_home(sandbox, &["fetch", &tools]));
    let authorized = || {
        let sandbox = Sandbox::new();
        run(with_home(&sandbox, &["authorize", key.to_str().unwrap()])).exits(0);
        chmod(&sandbox.root().join("etc/guix/acl"), 0o644);
        sandbox
    };
    let sandbox = authorized();
    fetch(&sandbox).exits(0);

    let sandbox = authorized();
    let acl = sandbox.root().join("etc/guix/acl");
    chmod(&acl, 0o666);
    fetch(&sandbox)
        .exits(3)
        .says("is ignored: ")
        .says("writable by other users (mode 0666)");
    // Its keys do not become trusted by adding another.
    let authorize = with_home(&sandbox, &["authorize", key.to_str().unwrap()]);
    run(authorize)
        .exits(3)
        .says("is not safe")
        .says("hint: `chmod go-w ");
    assert_eq!(acl.metadata().unwrap().permissions().mode() & 0o777, 0o666);

    if is_root() {
        // The root of an ordinary user, and root works in it: it is his anyway.
        let sandbox = authorized();
        let all = Command::new("chown")
            .arg("-R")
            .arg(OTHER_USER.to_string())
            .arg(sandbox.root())
            .status();
        assert!(all.unwrap().success());
        fetch(&sandbox).exits(0);
        chown(sandbox.root(), Some(0), None).unwrap();
        fetch(&sandbox)
            .says("is ignored: ")
            .says("owned by user 12345");
    }
}

#[test]
fn an_unsafe_nix_conf_is_ignored() {
    let (sandbox, kind) = (Sandbox::new(), Kind::NixXz);
    let key = std::fs::read_to_string(kind.directory().parent().unwrap().join("public-key"));
    std::fs::create_dir_all(sandbox.root().join("etc/nix")).unwrap();
    for dir in ["root", "root/etc", "root/etc/nix"] {
        chmod(&sandbox.path(dir), 0o755);
    }
    let text = format!("trusted-public-keys = {}\n", key.unwrap().trim());
    let conf = sandbox.write_safely("root/etc/nix/nix.conf", &text);
    let fetch = |name: &str| {
        let mut command = sandbox.bare(&["fetch", &kind.item(name), "--store-dir", "/nix/store"]);
        command
            .arg("--root")
            .arg(sandbox.root())
            .args(["--substitute-urls", &kind.url()]);
        run(command)
    };
    fetch("notes").exits(0);
    chmod(&conf, 0o666);
    fetch("tools")
        .exits(3)
        .says("nix.conf is ignored: ")
        .says("writable by other users");
}

#[test]
fn planted_symlinks_are_not_followed() {
    let tools = item("tools");
    let key = Kind::Guix.directory().join("signing-key.pub");
    for (name, target) in [
        ("etc/guix/acl", "made"),
        ("etc/guix/acl.new", "made"),
        ("etc/guix/acl.new", "home/precious"),
        ("var/guix/db/schema.tmp", "made"),
        ("var/guix/db/schema.tmp", "home/precious"),
    ] {
        let sandbox = Sandbox::new();
        sandbox.write_safely("home/precious", "precious");
        let link = sandbox.root().join(name);
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(sandbox.path(target), &link).unwrap();
        run(with_home(&sandbox, &["fetch", &tools])).exits(3);
        run(with_home(&sandbox, &["authorize", key.to_str().unwrap()])).exits(0);
        run(with_home(&sandbox, &["fetch", &tools])).exits(0);
        let precious = std::fs::read_to_string(sandbox.path("home/precious")).unwrap();
        assert_eq!(precious, "precious", "{name}");
        assert!(!sandbox.path("made").exists(), "{name}");
    }
}

#[test]
fn a_place_without_a_settings_file_is_not_reported() {
    let sandbox = Sandbox::new();
    chmod(&sandbox.path("home"), 0o777);
    let mut command = sandbox.bare(&["fetch", &item("notes")]);
    command
        .env_remove("SUBST_CONFIG")
        .arg("--root")
        .arg(sandbox.root())
        .args(["--substitute-urls", &Kind::Guix.url(), "--acl"])
        .arg(sandbox.path("acl"));
    let said = run(command).exits(0).stderr;
    assert!(!said.contains("warning"), "{said}");
}
