//! `subst authorize`: lists and removes keys, and fetches the key of a server.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::support::sandbox::{Run, Running, run};
use crate::support::tls::{Authority, Clients, TlsFront};
use crate::support::{Kind, Reply, Sandbox, Server, item, wait_until};

/// The first digits of the official servers' keys.
const CI: &str = "8D156F295D24B0D9";
const BORDEAUX: &str = "7D602902D3A2DBB8";

fn authorize(sandbox: &Sandbox, arguments: &[&str]) -> Command {
    let mut command = sandbox.bare(&["authorize"]);
    command.arg("--root").arg(sandbox.root()).args(arguments);
    command
}

fn listed(sandbox: &Sandbox) -> Vec<String> {
    let list = run(authorize(sandbox, &["--list"])).exits(0);
    list.stdout.lines().map(str::to_owned).collect()
}

/// The file with the fixtures' key, and its fingerprint.
fn fixture_key() -> (String, String) {
    let file = Kind::Guix.directory().join("signing-key.pub");
    let text = std::fs::read_to_string(&file).unwrap();
    let (_, digits) = text.split_once("(q #").unwrap();
    let fingerprint = digits[..64].to_owned();
    (file.display().to_string(), fingerprint)
}

/// Runs `command` with standard input in a terminal, where `typed` is typed.
fn run_at_terminal(command: Command, typed: &str) -> Run {
    let (mut master, running) = start_at_terminal(command);
    master.write_all(typed.as_bytes()).unwrap();
    running.end()
}

/// Starts `command` with standard input in a terminal, and gives what types there.
fn start_at_terminal(command: Command) -> (File, Running) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let name = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes())).to_owned();
    let terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .open(name)
        .unwrap();
    let running = Running::start_with(command, terminal, Stdio::piped());
    (File::from(master), running)
}

fn acl(sandbox: &Sandbox) -> Option<String> {
    std::fs::read_to_string(sandbox.root().join("etc/guix/acl")).ok()
}

#[test]
fn a_key_may_be_typed_after_a_word_about_it() {
    let sandbox = Sandbox::new();
    let (file, fingerprint) = fixture_key();
    let key = std::fs::read_to_string(file).unwrap();
    // Control-D at the start of a line.
    let typed = format!("{}\n\u{4}", key.trim_end());
    let added = run_at_terminal(authorize(&sandbox, &[]), &typed).exits(0);
    added.says("subst: reading a public key from the terminal; Ctrl-D ends it\n");
    assert!(listed(&sandbox).contains(&fingerprint));
}

#[test]
fn keys_are_listed_with_their_fingerprints() {
    let sandbox = Sandbox::new();
    let (file, fingerprint) = fixture_key();
    let official = listed(&sandbox);
    assert!(official[0].starts_with(CI) && official[0].ends_with("  ci.guix.gnu.org"));
    assert!(official[1].starts_with(BORDEAUX), "{official:?}");
    assert_eq!(acl(&sandbox), None, "listing creates nothing");

    run(authorize(&sandbox, &[&file])).exits(0);
    assert_eq!(listed(&sandbox)[2], fingerprint);
    let json = run(authorize(&sandbox, &["--list", "--json"]))
        .exits(0)
        .json();
    assert_eq!(json[2]["fingerprint"], fingerprint.as_str());
    assert_eq!(json[0]["server"], "ci.guix.gnu.org");

    let nix = [
        "--list",
        "--store-dir",
        "/nix/store",
        "--trusted-public-keys",
    ];
    let key = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
    let nix = authorize(&sandbox, &[&nix[..], &[key]].concat());
    run(nix).exits(0).prints(&format!("{key}\n"));
}

#[test]
fn a_removed_key_is_trusted_no_more() {
    let sandbox = Sandbox::new();
    let (file, fingerprint) = fixture_key();
    let fetch = |code| {
        let mut fetch = sandbox.bare(&["fetch", "--refresh", &item("notes")]);
        fetch.args(["--substitute-urls", &Kind::Guix.url()]);
        fetch.arg("--root").arg(sandbox.root());
        run(fetch).exits(code)
    };
    fetch(3);
    run(authorize(&sandbox, &[&file])).exits(0);
    run(authorize(&sandbox, &["--remove", &fingerprint[..16]]))
        .exits(0)
        .says("no longer authorized");
    fetch(3);

    run(authorize(&sandbox, &[&file])).exits(0);
    run(authorize(&sandbox, &["--remove", &file])).exits(0);
    fetch(3);
    run(authorize(&sandbox, &["--remove", &format!("guix:{CI}")])).exits(0);
    assert_eq!(listed(&sandbox).len(), 1);
    let before = acl(&sandbox);
    run(authorize(&sandbox, &["--remove", CI]))
        .exits(2)
        .says("no key in");
    run(authorize(&sandbox, &["--remove", "no-such-file"])).exits(5);
    assert_eq!(acl(&sandbox), before);
    run(authorize(&sandbox, &[&file])).exits(0);
    fetch(0);
}

#[test]
fn the_key_of_a_server_needs_its_fingerprint_or_a_user_who_agrees() {
    let sandbox = Sandbox::new();
    let server = Server::of(Kind::Guix.directory());
    let (_, fingerprint) = fixture_key();
    run(authorize(&sandbox, &[&server.url()]))
        .exits(2)
        .says("--fingerprint");
    assert_eq!(server.requests().len(), 0);

    let other = "0".repeat(64);
    for (given, code) in [(other.as_str(), 3), (&fingerprint[..16], 2), ("x", 2)] {
        let arguments = [&server.url(), "--fingerprint", given];
        run(authorize(&sandbox, &arguments)).exits(code);
        assert_eq!(acl(&sandbox), None, "{given}");
    }
    for refusal in ["\n", "n\n", "maybe\n"] {
        let refused = run_at_terminal(authorize(&sandbox, &[&server.url()]), refusal);
        refused.exits(3).says(&fingerprint).says("not encrypted");
        assert_eq!(acl(&sandbox), None);
    }

    let agreed = run_at_terminal(authorize(&sandbox, &[&server.url()]), "y\n");
    agreed.exits(0).says("is authorized now");
    assert_eq!(listed(&sandbox).len(), 3);
    run(authorize(&sandbox, &["--remove", &fingerprint])).exits(0);
    let url = format!("{}/signing-key.pub", server.url().trim_end_matches('/'));
    let given = fingerprint.to_lowercase();
    run(authorize(&sandbox, &[&url, "--fingerprint", &given])).exits(0);
    assert!(listed(&sandbox).contains(&fingerprint));

    let directory = Kind::Guix.url();
    let elsewhere = Sandbox::new();
    run(authorize(
        &elsewhere,
        &[&directory, "--fingerprint", &fingerprint],
    ))
    .exits(0);
    assert!(listed(&elsewhere).contains(&fingerprint));
}

#[test]
fn a_change_during_the_question_is_kept() {
    let sandbox = Sandbox::new();
    let server = Server::of(Kind::Guix.directory());
    let (_, fingerprint) = fixture_key();
    let (mut master, running) = start_at_terminal(authorize(&sandbox, &[&server.url()]));
    assert!(wait_until(|| !server.requests().is_empty()));

    run(authorize(&sandbox, &["--remove", CI])).exits(0);
    master.write_all(b"y\n").unwrap();
    running.end().exits(0).says("is authorized now");
    let listed = listed(&sandbox);
    assert!(listed.contains(&fingerprint), "{listed:?}");
    assert!(!listed.iter().any(|key| key.starts_with(CI)), "{listed:?}");
}

#[test]
fn a_key_over_an_unverified_connection_is_shown_with_a_warning() {
    let sandbox = Sandbox::new();
    let server = Server::of(Kind::Guix.directory());
    let front = TlsFront::before(&server, &Authority::new(), Clients::Anonymous);
    let asked = authorize(&sandbox, &[&front.url(), "--insecure-tls"]);
    run_at_terminal(asked, "n\n")
        .exits(3)
        .says("certificate of the server was not verified");
}

#[test]
fn what_is_no_key_is_not_authorized() {
    let sandbox = Sandbox::new();
    let (_, fingerprint) = fixture_key();
    let page = Reply::new("200 OK", "<html>(not a key)</html>");
    let endless = Reply::new("200 OK", vec![b'('; 100_000]).endless();
    let private = Reply::new(
        "200 OK",
        "(private-key (ecc (curve Ed25519) (q #00#) (d #00#)))",
    );
    for (reply, code) in [
        (page, 2),
        (endless, 2),
        (private, 2),
        (Reply::new("200 OK", ""), 2),
        (Reply::not_found(), 1),
    ] {
        let server = Server::start(move |_| reply.clone());
        let arguments = [&server.url(), "--fingerprint", &fingerprint];
        run(authorize(&sandbox, &arguments)).exits(code);
        assert_eq!(acl(&sandbox), None);
    }
    let down = ["http://127.0.0.1:1", "--fingerprint", &fingerprint];
    run(authorize(&sandbox, &down)).exits(4);
    let offline = [&down[..], &["--offline"]].concat();
    run(authorize(&sandbox, &offline)).exits(4);
    run(authorize(&sandbox, &["ftp://127.0.0.1/"])).exits(2);
}

#[test]
fn a_fingerprint_is_not_ignored_for_a_key_of_nix() {
    let sandbox = Sandbox::new();
    let key = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
    let arguments = ["--store-dir", "/nix/store", "--fingerprint", "00", key];
    run(authorize(&sandbox, &arguments))
        .exits(2)
        .says("--fingerprint");
}

#[test]
fn a_nix_conf_in_the_store_is_not_to_be_changed() {
    let sandbox = Sandbox::new();
    let conf = sandbox.write_config("root/nix/store/x-nix.conf", "");
    std::fs::create_dir_all(sandbox.path("root/etc/nix")).unwrap();
    std::os::unix::fs::symlink(conf, sandbox.path("root/etc/nix/nix.conf")).unwrap();
    let key = "a:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
    let ended = run(authorize(&sandbox, &["--store-dir", "/nix/store", key]));
    assert!(!ended.stderr.contains(">>"), "{}", ended.stderr);
    ended.exits(2).says(&format!(
        "add {key} to `nix.settings.extra-trusted-public-keys`"
    ));
}
