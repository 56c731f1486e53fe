//! Progress while servers are slow: a line a second, or events.

use std::time::Duration;

use serde_json::Value;

use super::NOTHING;
use crate::support::{Fixture, Kind, Reply, Run, Sandbox, Server, item};

/// A server of uncompressed nars, which takes a second for that of `tools`.
fn slow(sandbox: &Sandbox) -> Server {
    let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
    fixture.only("none");
    Server::start(move |request| {
        let mut reply = Reply::file_or_range(&fixture.dir, request);
        if request.path.starts_with("/nar/") {
            reply.drip = Some((64, Duration::from_millis(25)));
        }
        reply
    })
}

/// A server that never answers.
fn silent() -> Server {
    Server::start(|_| {
        let mut reply = Reply::new("200 OK", "-");
        reply.stall_at = Some(0);
        reply
    })
}

/// The lines of standard error, each of which must be an event.
#[track_caller]
fn events(run: &Run) -> Vec<Value> {
    let event = |line: &str| -> Value {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    run.stderr.lines().map(event).collect()
}

/// The names of the events, each only where another one came before.
fn names(events: &[Value]) -> Vec<&str> {
    let mut names: Vec<&str> = events
        .iter()
        .filter_map(|event| event["event"].as_str())
        .collect();
    names.dedup();
    names
}

#[test]
fn output_reports_progress() {
    let sandbox = Sandbox::new();
    let (server, tools) = (slow(&sandbox), item("tools"));
    let fetch = |how: &str, output: &str| {
        let arguments = ["fetch", "--progress", how, "--output", output, &tools];
        sandbox.subst(&server.url(), &arguments).exits(0)
    };
    fetch("plain", "one")
        .says("subst: unpacked 0 of 1, ")
        .says(" of 3.0 KiB downloaded\n");
    let told = events(&fetch("json", "two"));
    let names = names(&told);
    let wanted = [
        "looking",
        "planned",
        "started",
        "progressed",
        "unpacked",
        "finished",
    ];
    assert_eq!(names, wanted, "{told:#?}");
    let planned = told
        .iter()
        .find(|event| event["event"] == "planned")
        .unwrap();
    assert_eq!(
        (&planned["items"], &planned["download_size"]),
        (&1.into(), &3096.into())
    );
}

#[test]
fn slow_lookups_are_reported() {
    let sandbox = Sandbox::new();
    let (server, tools) = (silent(), item("tools"));
    let query = |how: &str| {
        let arguments = ["query", "--progress", how, "--stall-timeout", "2.5", &tools];
        sandbox.subst(&server.url(), &arguments).exits(4)
    };
    let ended = query("plain").says("subst: looked up 0 of 1, 0 answers (127.0.0.1:");
    assert!(
        ended.stderr.matches("looked up 0 of 1").count() >= 2,
        "{}",
        ended.stderr
    );
    assert!(
        !ended.stderr.contains("unpacked 0 of 0"),
        "{}",
        ended.stderr
    );
}

#[test]
fn json_progress_writes_only_events() {
    let sandbox = Sandbox::new();
    let (url, tools) = (Kind::Guix.url(), item("tools"));
    let run = |url: &str, arguments: &[&str], code| {
        let run = sandbox
            .subst(url, &[arguments, &["--progress", "json"]].concat())
            .exits(code);
        events(&run)
    };
    let told = run(&url, &["query", &tools], 0);
    let summary = told.last().unwrap();
    assert_eq!(
        (&summary["event"], &summary["available"]),
        (&"summary".into(), &1.into())
    );
    let told = run(&url, &["fetch", NOTHING], 1);
    let error = told.last().unwrap();
    assert_eq!(error["event"], "error", "{told:#?}");
    assert_eq!(error["text"], format!("cannot fetch {NOTHING}"));
    assert!(
        error["causes"][0]
            .as_str()
            .unwrap()
            .starts_with("no server has it\n")
    );
    assert!(error["hint"].is_string());
    let told = run(&url, &["fetch", &tools], 0);
    let summary = told.last().unwrap();
    assert_eq!(
        (&summary["event"], &summary["fetched"]),
        (&"summary".into(), &2.into())
    );
    run(&url, &["cache", "prune"], 0)
        .iter()
        .for_each(|note| assert_eq!(note["event"], "note"));
    let told = run("ftp://example.org", &["fetch", &tools], 2);
    assert_eq!(told[0]["event"], "error");
}

#[test]
fn a_failed_item_is_reported_with_its_reason() {
    let sandbox = Sandbox::new();
    let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
    std::fs::remove_dir_all(fixture.dir.join("nar")).unwrap();
    let arguments = ["fetch", "--progress", "json", &item("notes")];
    let told = events(&sandbox.subst(&fixture.url(), &arguments).exits(4));
    let failed = told
        .iter()
        .find(|event| event["event"] == "failed")
        .unwrap();
    assert!(
        failed["reason"]
            .as_str()
            .unwrap()
            .starts_with("every download failed"),
        "{failed}"
    );
}
