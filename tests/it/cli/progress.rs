//! Progress while servers are slow, as lines and as events, and the summary. Terminals are in
//! `terminal.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::NOTHING;
use crate::support::json_schema::violations;
use crate::support::publisher::{guix_secret, secret_file};
use crate::support::sandbox::first_line_of_stderr;
use crate::support::{Fixture, Kind, Reply, Run, Sandbox, Server, item, repository};

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
    let arguments = ["fetch", "--progress", "json", "--output", "tree", &tools];
    let told = events(&sandbox.subst(&server.url(), &arguments).exits(0));
    let mut names = names(&told);
    // They come in between, as often as once a second, and in the end.
    assert_eq!(names[names.len() - 2], "totals", "{told:#?}");
    names.retain(|name| *name != "totals");
    names.dedup();
    let wanted = [
        "looking",
        "planned",
        "started",
        "progressed",
        "unpacked",
        "finished",
    ];
    assert_eq!(names, wanted, "{told:#?}");
    let totals = &told[told.len() - 2];
    assert_eq!(
        (&totals["items_done"], &totals["items"]),
        (&1.into(), &1.into())
    );
    assert_eq!(
        (&totals["bytes_done"], &totals["bytes"]),
        (&3096.into(), &3096.into())
    );
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
    let server = silent();
    let arguments = [
        "query",
        "--progress",
        "plain",
        "--stall-timeout",
        "5m",
        &item("tools"),
    ];
    let command = sandbox.command(Kind::Guix, &server.url(), &arguments);
    let line = first_line_of_stderr(command);
    let expected = "subst: looked up 0/1 items (127.0.0.1:";
    assert!(line.starts_with(expected), "{line}");
}

/// What is wrong with an event.
fn event_violations(event: &Value) -> Vec<String> {
    let text = std::fs::read_to_string(repository().join("docs/schema/progress-event.json"));
    let schema: Value = serde_json::from_str(&text.unwrap()).unwrap();
    violations(&schema, &schema, event)
}

#[test]
fn events_are_as_the_schema_says() {
    let sandbox = Sandbox::new();
    let (good, tools) = (Kind::Guix.url(), item("tools"));
    let broken = Fixture::copy(Kind::Guix, sandbox.path("server"));
    std::fs::remove_dir_all(broken.dir.join("nar")).unwrap();
    let both = format!("{} {} {good}", broken.url(), super::UNREACHABLE);
    let runs: [(&str, &[&str]); 8] = [
        (&broken.url(), &["fetch", &item("notes")]),
        (&good, &["query", &tools]),
        (&good, &["query", "-vv", &tools]),
        (&both, &["fetch", "-v", &tools]),
        (&good, &["fetch", "--output", "tree", &tools]),
        (&good, &["fetch", "--dry-run", &item("sample")]),
        (super::UNREACHABLE, &["query", &tools]),
        (&good, &["cache", "flush"]),
    ];
    let mut names = BTreeSet::new();
    for (url, arguments) in runs {
        let run = sandbox.subst(url, &[arguments, &["--progress", "json"]].concat());
        for event in events(&run) {
            assert_eq!(event_violations(&event), [""; 0], "{event}");
            names.insert(event["event"].as_str().unwrap().to_owned());
        }
    }
    for name in [
        "started",
        "totals",
        "unpacked",
        "summary",
        "error",
        "log",
        "failed",
        "server-down",
    ] {
        assert!(names.contains(name), "{name}: {names:?}");
    }
}

#[test]
fn the_summary_of_every_command_is_as_the_schema_says() {
    let sandbox = Sandbox::new();
    secret_file(&sandbox, "key.sec", &guix_secret(1));
    let (url, tools) = (Kind::Guix.url(), item("tools"));
    let endorse = ["endorse", "--key=key.sec", "--to=out"];
    let runs: [&[&str]; 11] = [
        &["fetch", &tools],
        &["query", &tools],
        &["challenge", &tools],
        &["verify"],
        &["mirror", "--to=m", "--dry-run", "--closure", &tools],
        &["mirror", "--to=m", "--closure", &tools],
        &["mirror", "verify", "--to=m"],
        &["mirror", "gc", "--to=m", "--keep-days=0", "--grace=0"],
        &[&endorse[..], &["--nars", super::UNREACHABLE, &tools]].concat(),
        &["endorse", "--withdraw", "--to=out", &tools],
        &["gc"],
    ];
    for arguments in runs {
        let run = sandbox.subst(&url, &[arguments, &["--progress=json"]].concat());
        let mut told = events(&run);
        told.retain(|event| event["event"] == "summary");
        assert_eq!(told.len(), 1, "{arguments:?}: {run:?}");
        assert_eq!(
            event_violations(&told[0]),
            [""; 0],
            "{arguments:?}: {told:?}"
        );
    }
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
    let servers = summary["servers"].as_array().unwrap();
    assert_eq!((servers.len(), &servers[0]["items"]), (1, &2.into()));
    assert_eq!(servers[0]["downloaded"], summary["downloaded"]);
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

/// Also those that are tried again, or might be, since there is time to wait.
#[test]
fn every_failed_item_is_reported_once() {
    let sandbox = Sandbox::new();
    let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
    std::fs::remove_dir_all(fixture.dir.join("nar")).unwrap();
    let sample = item("sample");
    let words = ["fetch", "--progress", "json", "-k", "--wait", "1m", &sample];
    let run = sandbox.subst(&fixture.url(), &words);
    assert_ne!(run.code, Some(0));
    let told = events(&run);
    let failed = told.iter().filter(|event| event["event"] == "failed");
    let failed: Vec<_> = failed.map(|event| event["item"].to_string()).collect();
    let items: BTreeSet<_> = failed.iter().collect();
    assert_eq!(items.len(), failed.len(), "{failed:?}");
    assert!(items.len() > 1);
}

#[test]
fn items_that_no_server_has_are_reported_as_failed() {
    let sandbox = Sandbox::new();
    let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
    let output = sandbox.path("output").display().to_string();
    let fetches: [&[&str]; 4] = [
        &["--keep-going", &item("notes")],
        &[],
        &["--wait", "1s"],
        &["--output", &output],
    ];
    for arguments in fetches {
        let arguments = [&["fetch", "--progress", "json"], arguments, &[NOTHING]].concat();
        let told = events(&sandbox.subst(&fixture.url(), &arguments).exits(1));
        let failed = told.iter().filter(|event| event["event"] == "failed");
        let failed: Vec<_> = failed.map(|event| &event["reason"]).collect();
        assert_eq!(failed.len(), 1, "{arguments:?}: {told:#?}");
        assert!(
            failed[0].as_str().unwrap().starts_with("no server has it"),
            "{failed:?}"
        );
    }
}
