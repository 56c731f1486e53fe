//! `--offline`: nothing but the lookup cache, and directories.

use crate::support::{Kind, Sandbox, Server, item};

/// A server whose answers about everything are in the sandbox's lookup cache, and how often it
/// was asked for them.
fn known(sandbox: &Sandbox) -> (Server, usize) {
    let server = Server::of(Kind::Guix.directory());
    let paths = [item("tools"), item("notes")];
    sandbox
        .subst(&server.url(), &["query", &paths[0], &paths[1]])
        .exits(0);
    let asked = server.asked().len();
    (server, asked)
}

#[test]
fn fetch_lists_what_would_have_to_be_downloaded() {
    let sandbox = Sandbox::new();
    let (server, asked) = known(&sandbox);
    let (tools, notes) = (item("tools"), item("notes"));
    let arguments = ["fetch", "--offline", &tools];
    let ended = sandbox.subst(&server.url(), &arguments).exits(4).prints("");
    let words = format!(
        "offline: it would have to be downloaded from {}/nar/",
        server.url()
    );
    assert_eq!(ended.stderr.matches(&words).count(), 2, "{}", ended.stderr);
    ended
        .says(&format!("cannot fetch {tools}\n"))
        .says(&format!("cannot fetch {notes}\n"));
    let arguments = ["fetch", "--offline", "--output", "tree", &notes];
    sandbox
        .subst(&server.url(), &arguments)
        .exits(4)
        .prints("")
        .says(&words);
    assert!(!sandbox.path("tree").exists());
    assert_eq!(server.asked().len(), asked, "{:?}", server.asked());
}

#[test]
fn file_servers_work_offline() {
    let sandbox = Sandbox::new();
    let (url, notes) = (Kind::Guix.url(), item("notes"));
    sandbox.subst(&url, &["query", &notes]).exits(0);
    sandbox
        .subst(&url, &["fetch", "--offline", &notes])
        .exits(0)
        .prints(&format!("{notes}\n"));
    // Where both have it, the directory is taken without a word about the server.
    let sandbox = Sandbox::new();
    let (server, asked) = known(&sandbox);
    sandbox.subst(&url, &["query", &notes]).exits(0);
    let both = format!("{} {url}", server.url());
    let ended = sandbox
        .subst(&both, &["fetch", "--offline", &notes])
        .exits(0);
    assert!(!ended.stderr.contains("warning"), "{}", ended.stderr);
    assert_eq!(server.asked().len(), asked, "{:?}", server.asked());
}

#[test]
fn nars_are_not_probed_offline() {
    let sandbox = Sandbox::new();
    let (server, asked) = known(&sandbox);
    let tools = item("tools");
    let arguments = [
        "query",
        "--offline",
        "--cache-miss-report",
        "--probe-nars",
        &tools,
    ];
    sandbox
        .subst(&server.url(), &arguments)
        .exits(2)
        .prints("")
        .says("--offline");
    assert_eq!(server.asked().len(), asked, "{:?}", server.asked());
}

#[test]
fn servers_are_shown_from_the_lookup_cache() {
    let sandbox = Sandbox::new();
    let new = Server::of(Kind::Guix.directory());
    sandbox
        .subst(&new.url(), &["servers", "--offline"])
        .exits(0);
    assert_eq!(new.asked(), [""; 0]);
    let (server, asked) = known(&sandbox);
    let both = format!("{} {}", server.url(), new.url());
    let text = sandbox
        .subst(&both, &["servers", "--offline"])
        .exits(0)
        .stdout;
    let (before, after) = text
        .split_once("  no request sent: offline; its status ")
        .unwrap();
    assert_eq!(before.lines().count(), 1, "{text}");
    assert!(
        after
            .split_once(" s ago:\n")
            .unwrap()
            .1
            .starts_with("  store /gnu/store"),
        "{text}"
    );
    assert!(text.ends_with("  no request sent: offline\n"), "{text}");
    let rows = sandbox
        .subst(&both, &["servers", "--offline", "--json"])
        .exits(0)
        .json();
    assert_eq!(
        (&rows[0]["state"], &rows[1]["reason"]),
        (&"not-asked".into(), &"offline".into())
    );
    assert_eq!((server.asked().len(), new.asked().len()), (asked, 0));
}
