//! What the daemon's client names on its command line is looked up early.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use crate::support::{Kind, Sandbox, Server, item, wait_until};

use super::Helper;

const NAMED: [&str; 3] = ["notes", "tree", "tools"];

/// A process that names items as `guix build` does. It ends with its input.
fn client() -> Child {
    Command::new("sh")
        .args([
            "-c",
            "read forever",
            "guix",
            "build",
            "--no-offload",
            "/etc/passwd",
        ])
        .args(NAMED.map(item))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A helper below a process that looks like guix-daemon's for that client: `sh SCRIPT`, where the
/// script's name is the client's number.
fn helper_for(client: &Child, sandbox: &Sandbox, server: &Server) -> Helper {
    let script = client.id().to_string();
    let text = "exec 4>&1 1>&2\n\"$@\"\nexit $?\n";
    std::fs::write(sandbox.path(&script), text).unwrap();
    let mut command = Command::new("sh");
    command
        .arg0("/usr/bin/guix-daemon")
        .args([
            &script,
            env!("CARGO_BIN_EXE_subst"),
            "substitute",
            "--query",
        ])
        .current_dir(sandbox.path(""));
    Helper::start_by(command, sandbox, &server.url(), "")
}

fn narinfo(name: &str) -> String {
    let path = item(name);
    format!("/{}.narinfo", &path["/gnu/store/".len()..][..32])
}

#[test]
fn the_first_request_starts_the_lookups_of_the_others() {
    let sandbox = Sandbox::new();
    let server = Server::of(Kind::Guix.directory());
    let mut client = client();
    let mut helper = helper_for(&client, &sandbox, &server);
    assert!(helper.info(&item("notes")).is_some());
    let is_asked_for = |name: &str| server.requests_for(&narinfo(name)) == 1;
    assert!(
        wait_until(|| NAMED.iter().all(|name| is_asked_for(name))),
        "{:?}",
        server.asked()
    );
    for name in NAMED {
        assert!(helper.info(&item(name)).is_some());
        assert!(is_asked_for(name), "{:?}", server.asked());
    }
    helper.end();
    client.kill().unwrap();
    client.wait().unwrap();
}

#[test]
fn items_of_another_client_are_not_looked_up() {
    let sandbox = Sandbox::new();
    let server = Server::of(Kind::Guix.directory());
    let mut client = client();
    let mut helper = helper_for(&client, &sandbox, &server);
    assert!(helper.info(&item("link")).is_some());
    // What the item refers to, and what that refers to, is looked up early in any case.
    assert!(
        wait_until(|| server.requests_for(&narinfo("notes")) == 1),
        "{:?}",
        server.asked()
    );
    helper.end();
    assert_eq!(
        server.requests_for(&narinfo("tree")),
        0,
        "{:?}",
        server.asked()
    );
    client.kill().unwrap();
    client.wait().unwrap();
}
