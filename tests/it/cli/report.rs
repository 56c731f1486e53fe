//! `subst query --cache-miss-report`: what it says of each kind of miss, and what to do about it.

use super::{NOTHING, UNREACHABLE};
use crate::support::sandbox::run;
use crate::support::terminal::run_in_terminal;
use crate::support::{Kind, Reply, Sandbox, Server, item};

/// The report on `path`, which must end with `code`.
fn report(sandbox: &Sandbox, urls: &str, path: &str, code: i32) -> String {
    let report = sandbox
        .subst(urls, &["query", "--cache-miss-report", path])
        .exits(code)
        .stdout;
    // Lines are broken where words allow it.
    report.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn assert_says(report: &str, words: &[&str], others: &[&str]) {
    for words in words {
        assert!(report.contains(words), "{words} is not in {report}");
    }
    for words in others {
        assert!(!report.contains(words), "{words} is in {report}");
    }
}

/// A server that begins each answer and never ends it.
fn silent() -> Server {
    Server::start(|_| {
        let mut reply = Reply::new("200 OK", "x");
        reply.stall_at = Some(0);
        reply
    })
}

#[test]
fn the_report_names_every_miss() {
    let (sandbox, url) = (Sandbox::new(), Kind::Guix.url());
    let arguments = ["query", "--cache-miss-report", &item("tools"), NOTHING];
    let report = sandbox.subst(&url, &arguments).exits(1).stdout;
    assert_says(
        &report,
        &["MISSING", NOTHING, "does not have it\n", "hint: ", &url],
        &["HTTP"],
    );
    let json = sandbox
        .subst(&url, &[&arguments[..], &["--json"]].concat())
        .exits(1)
        .json();
    assert!(json["report"].is_object(), "{json:#}");
}

#[test]
fn a_missing_nar_is_not_reported_as_available() {
    let sandbox = Sandbox::new();
    let server = Server::start(|request| {
        if request.path.starts_with("/nar/") {
            Reply::new("500 Oh", "")
                .header("X-Cache: HIT")
                .header("Age: 9")
        } else {
            Reply::file(&Kind::Guix.directory(), request)
        }
    });
    for times in ["asked just now", "ago, expires in"] {
        let arguments = [
            "query",
            "--cache-miss-report",
            "--probe-nars",
            &item("tools"),
        ];
        let report = sandbox.subst(&server.url(), &arguments).exits(0).stdout;
        assert_says(
            &report,
            &["nar: not available: HTTP 500", times],
            &["proxy"],
        );
    }
}

#[test]
fn a_slow_server_is_not_reported_as_down() {
    let (sandbox, silent) = (Sandbox::new(), silent());
    let urls = format!("{} {}", silent.url(), Kind::Guix.url());
    let now = report(&sandbox, &urls, &item("tools"), 0);
    let words = [
        "asked, but not waited for: no answer while another server had answered everything",
        "hint: the first server is slow",
    ];
    assert_says(&now, &words, &["not asked", "nothing to do"]);
    let arguments = [
        "query",
        "--cache-miss-report",
        "--json",
        "--refresh",
        &item("tools"),
    ];
    let json = sandbox.subst(&urls, &arguments).exits(0).json();
    assert_eq!(json["items"][0]["answers"][0]["answer"], "late");
    assert_eq!(json["report"]["servers"][0]["asked"], 1);
    // What no other server has is still asked for there.
    let arguments = [
        "query",
        "--cache-miss-report",
        "--stall-timeout",
        "1s",
        NOTHING,
    ];
    let asked = sandbox.subst(&urls, &arguments).exits(4).stdout;
    assert_says(&asked, &["the server sent nothing for 1 s"], &["not asked"]);
    // Later runs find it in the lookup cache as down.
    let later = report(&sandbox, &urls, NOTHING, 4);
    let words = [
        "was down a moment ago: 1",
        "not asked, it was down: the server sent nothing for 1 s",
        "--refresh sends",
    ];
    assert_says(&later, &words, &[]);
}

#[test]
fn a_server_for_another_store_is_neither_down_nor_retried() {
    let (sandbox, nix) = (Sandbox::new(), Kind::NixZstd.url());
    // Stored by the first run, read by the second.
    for _ in 0..2 {
        let alone = report(&sandbox, &nix, &item("tools"), 4);
        let words = [
            "no server is for this store: 1",
            "its items are for /nix/store",
            "--store-dir",
        ];
        assert_says(&alone, &words, &["was down", "is unreachable", "--refresh"]);
    }
    let urls = format!("{nix} {}", Kind::Guix.url());
    let missing = report(&sandbox, &urls, NOTHING, 1);
    assert_says(
        &missing,
        &["MISSING, no server has it: 1"],
        &["was down", "UNKNOWN"],
    );
    let elsewhere = report(&sandbox, &urls, &item("tools"), 0);
    assert_says(
        &elsewhere,
        &["hint: the first server is for another store"],
        &["nothing to do"],
    );
}

#[test]
fn the_hint_depends_on_the_answer_of_the_first_server() {
    let sandbox = Sandbox::new();
    let down = report(
        &sandbox,
        &format!("{UNREACHABLE} {}", Kind::Guix.url()),
        &item("tools"),
        0,
    );
    assert_says(
        &down,
        &["not from the first server: 1", "`subst servers --root "],
        &["nothing to do"],
    );
    let empty = Server::start(|_| Reply::not_found());
    let urls = format!("{} {}", empty.url(), Kind::Guix.url());
    let lacks_it = report(&Sandbox::new(), &urls, &item("tools"), 0);
    assert_says(
        &lacks_it,
        &["not from the first server: 1", "hint: nothing to do"],
        &[],
    );
}

#[test]
fn the_hint_about_a_key_depends_on_the_kind_of_signature() {
    let (sandbox, kind) = (Sandbox::new(), Kind::NixXz);
    let tools = kind.item("tools");
    let without_its_key = |arguments: &[&str]| {
        let mut command = sandbox.bare(arguments);
        command.arg("--root").arg(sandbox.root());
        command.args([
            "--store-dir",
            "/nix/store",
            "--substitute-urls",
            &kind.url(),
        ]);
        run(command).exits(3)
    };
    let report = without_its_key(&["query", "--cache-miss-report", &tools]).stdout;
    let fetch = without_its_key(&["fetch", &tools]).stderr;
    for said in [report, fetch] {
        assert_says(
            &said,
            &["--trusted-public-keys", "nix.conf"],
            &["subst authorize"],
        );
    }
}

#[test]
fn the_report_fits_a_narrow_terminal_and_counts_unknown_apart_from_missing() {
    let (sandbox, tools, notes) = (Sandbox::new(), item("tools"), item("notes"));
    // One item is missing, one available, and of one nothing is known.
    let hash = notes["/gnu/store/".len()..][..32].to_owned();
    let server = Server::start(move |request| {
        if request.path.contains(&hash) {
            Reply::new("500 Oh", "")
        } else {
            Reply::file(&Kind::Guix.directory(), request)
        }
    });
    let arguments = ["query", "--cache-miss-report", NOTHING, &tools, &notes];
    let report = |columns| {
        let command = sandbox.command(Kind::Guix, &server.url(), &arguments);
        run_in_terminal(command, columns).exits(4).stdout
    };

    for columns in [40, 60, 79] {
        let text = report(columns);
        let is_too_long = |line: &&str| line.len() > usize::from(columns);
        // Commands stay in one piece.
        let long: Vec<&str> = text.lines().filter(is_too_long).collect();
        assert!(long.iter().all(|line| line.contains('`')), "{text}");
        for line in [
            "to be built now: 1 item, unless",
            "unknown: 1 item, which servers that",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
    assert!(
        report(40).contains("\n  0000000...-nothing\n"),
        "{}",
        report(40)
    );
    assert!(
        report(79).contains(&format!("\n  {NOTHING}\n")),
        "{}",
        report(79)
    );

    let json = [&arguments[..], &["--json"]].concat();
    let json = sandbox.subst(&server.url(), &json).exits(4).json();
    let report = &json["report"];
    assert_eq!(
        (&report["to_build"], &report["unknown"]),
        (&1.into(), &1.into())
    );
}
