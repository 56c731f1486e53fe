//! `subst query`: the table, the JSON, and which answers are cached.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{NOTHING, SLOW_LINE, UNREACHABLE};
use crate::support::sandbox::run;
use crate::support::{Kind, Reply, Sandbox, Server, item};

#[test]
fn query_prints_a_table_and_a_summary() {
    let sandbox = Sandbox::new();
    let (url, tools) = (Kind::Guix.url(), item("tools"));
    let arguments = ["query", SLOW_LINE, &tools, NOTHING];
    let query = sandbox.subst(&url, &arguments).exits(1);
    let lines: Vec<Vec<&str>> = query
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let available = ["available", "474", "B", "3.0", "KiB", &url, &tools];
    assert_eq!(
        lines,
        [&available[..], &["missing", "-", "-", "-", NOTHING]]
    );
    query.says(
        "subst: 1 of 2 available, 474 B to download as lzip, 3.0 KiB unpacked, 1 missing (2 requests",
    );
}

#[test]
fn every_sent_request_is_counted() {
    let (sandbox, tools) = (Sandbox::new(), item("tools"));
    let broken = Server::start(|_| Reply::new("500 Oh", ""));
    let query = sandbox
        .subst(&broken.url(), &["query", "--json", &tools])
        .exits(4)
        .json();
    let sent = broken.requests_for(".narinfo");
    assert!(sent > 1, "{sent}");
    assert_eq!(query["summary"]["requests"], sent);
    let url = Kind::Guix.url();
    sandbox
        .subst(&url, &["query", &tools])
        .exits(0)
        .says("(1 request, ");
}

#[test]
fn a_failed_row_names_the_server_once() {
    let sandbox = Sandbox::new();
    let query = sandbox
        .subst(UNREACHABLE, &["query", &item("tools")])
        .exits(4);
    assert_eq!(
        query.stdout.matches("127.0.0.1:1").count(),
        1,
        "{}",
        query.stdout
    );
    assert_eq!(query.stdout.lines().count(), 1, "{}", query.stdout);
}

#[test]
fn the_status_decides_the_exit_code() {
    let sandbox = Sandbox::new();
    let tools = item("tools");
    let url = Kind::Guix.url();
    sandbox.subst(&url, &["query", &tools]).exits(0);
    sandbox.subst(&url, &["query", NOTHING]).exits(1);
    let unknown = sandbox
        .subst(UNREACHABLE, &["query", "--json", &tools])
        .exits(4)
        .json();
    assert_eq!(unknown["items"][0]["status"], "unknown");
    // Without its key the server is not trusted.
    let mut command = sandbox.bare(&["query", "--json", &tools, "--substitute-urls", &url]);
    command.arg("--root").arg(sandbox.path("other"));
    let refused = run(command).exits(3).json();
    assert_eq!(refused["items"][0]["status"], "refused");
    assert_eq!(
        refused["items"][0]["answers"][0]["reason"],
        "unauthorized-key"
    );
    // The first of 1, 3 and 4 that is the largest.
    sandbox
        .subst(UNREACHABLE, &["query", &tools, NOTHING])
        .exits(4);
}

#[test]
fn the_json_output_has_the_agreed_fields() {
    let sandbox = Sandbox::new();
    let (url, tools) = (Kind::Guix.url(), item("tools"));
    let mut answer = sandbox
        .subst(&url, &["query", "--json", SLOW_LINE, &tools, NOTHING])
        .exits(1)
        .json();
    let seconds = answer["summary"]["seconds"].take();
    assert!(
        seconds.as_f64().is_some_and(|seconds| seconds > 0.0),
        "{seconds}"
    );
    // They begin to count down before the answer is printed.
    for (place, limit) in [
        ("/items/0/expires_in", 129_600),
        ("/items/0/answers/0/expires_in", 129_600),
        ("/items/1/answers/0/expires_in", 120),
    ] {
        let left = answer.pointer_mut(place).unwrap().take();
        let is_fresh = left.as_u64().is_some_and(|left| left > 0 && left <= limit);
        assert!(is_fresh, "{place}: {left}");
    }
    let nar = format!("{url}/nar/lzip/{}", tools.trim_start_matches("/gnu/store/"));
    let expected = json!({
        "servers": [{
            "url": url, "store_dir": "/gnu/store", "want_mass_query": false, "priority": 100,
            "state": "up",
        }],
        "items": [{
            "path": tools, "status": "available", "server": url, "url": nar,
            "compression": "lzip", "download_size": 474, "nar_size": 3096,
            "references": [tools, item("notes")], "signed_by": "D54D3C624E416CF8",
            "from_cache": false, "expires_in": null,
            "answers": [{
                "server": url, "answer": "available", "reason": null, "from_cache": false,
                "expires_in": null,
            }],
        }, {
            "path": NOTHING, "status": "missing", "server": null, "url": null,
            "compression": null, "download_size": null, "nar_size": null, "references": null,
            "signed_by": null, "from_cache": false, "expires_in": null,
            "answers": [{
                "server": url, "answer": "missing", "reason": null, "from_cache": false,
                "expires_in": null,
            }],
        }],
        "summary": {
            "available": 1, "missing": 1, "preparing": 0, "refused": 0, "unknown": 0,
            "valid": 0, "download_size": 474, "nar_size": 3096, "cache_hits": 0, "cache_misses": 2,
            "requests": 2, "seconds": null,
        },
    });
    assert_eq!(answer, expected, "{answer:#}");
}

#[test]
fn answers_are_cached_unless_refresh_is_given() {
    let sandbox = Sandbox::new();
    let server = Server::of(Kind::Guix.directory());
    let tools = item("tools");
    let query = |more: &[&str]| {
        let arguments = [&["query", "--json", &tools, NOTHING], more].concat();
        sandbox.subst(&server.url(), &arguments).exits(1).json()
    };
    let first = query(&[]);
    assert_eq!(first["summary"]["cache_misses"], 2, "{first:#}");
    assert_eq!(server.requests_for(".narinfo"), 2);
    let second = query(&[]);
    assert_eq!(second["summary"]["cache_hits"], 2, "{second:#}");
    assert_eq!(second["summary"]["requests"], 0);
    assert_eq!(second["items"][0]["from_cache"], true);
    assert_eq!(server.requests_for(".narinfo"), 2);
    query(&["--offline"]);
    assert_eq!(server.requests_for(".narinfo"), 2);
    query(&["--refresh"]);
    assert_eq!(server.requests_for(".narinfo"), 4);
}

#[test]
fn a_refresh_that_fails_keeps_what_is_cached() {
    for status in ["500 Internal Server Error", "503 Service Unavailable"] {
        let sandbox = Sandbox::new();
        let fails = Arc::new(AtomicBool::new(false));
        let is_failing = Arc::clone(&fails);
        let server = Server::start(move |request| match is_failing.load(Ordering::Relaxed) {
            true => Reply::new(status, "").header("Retry-After: 600"),
            false => Reply::file(&Kind::Guix.directory(), request),
        });
        let tools = item("tools");
        let query = |option: &str| sandbox.subst(&server.url(), &["query", option, &tools]);
        query("--refresh").exits(0);
        fails.store(true, Ordering::Relaxed);
        assert_ne!(query("--refresh").code, Some(0), "{status}");
        query("--offline").exits(0);
    }
}

#[test]
fn a_closure_is_followed_to_its_end() {
    let sandbox = Sandbox::new();
    let arguments = ["query", "--closure", "--json", &item("sample")];
    let answer = sandbox.subst(&Kind::Guix.url(), &arguments).exits(0).json();
    assert_eq!(
        answer["items"].as_array().map(Vec::len),
        Some(7),
        "{answer:#}"
    );
    assert_eq!(answer["summary"]["nar_size"], 502_504);
}

#[test]
fn what_the_store_has_is_valid() {
    let sandbox = Sandbox::new();
    let (url, tools, notes) = (Kind::Guix.url(), item("tools"), item("notes"));
    sandbox.subst(&url, &["fetch", &notes]).exits(0);

    let query = sandbox
        .subst(&url, &["query", SLOW_LINE, &tools, &notes])
        .exits(0);
    let lines: Vec<Vec<&str>> = query
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let valid = ["valid", "-", "12.7", "KiB", &url, &notes];
    assert_eq!(lines[1], valid, "{}", query.stdout);
    query.says(
        "subst: 1 of 2 available, 474 B to download as lzip, 3.0 KiB unpacked, 1 valid already (",
    );

    let json = sandbox
        .subst(&url, &["query", "--json", "--cache-miss-report", &notes])
        .exits(0)
        .json();
    assert_eq!(json["items"][0]["status"], "valid", "{json:#}");
    assert_eq!(json["items"][0]["answers"][0]["answer"], "available");
    let summary = &json["summary"];
    assert_eq!(
        (&summary["valid"], &summary["available"]),
        (&1.into(), &0.into())
    );
    assert_eq!(
        (&summary["download_size"], &summary["nar_size"]),
        (&0.into(), &0.into())
    );
    assert_eq!(json["report"]["items"][0]["group"], "valid");
    assert_eq!(json["report"]["items"][0]["must_be_built"], false);

    let report = ["query", "--cache-miss-report", &notes];
    let report = sandbox.subst(&url, &report).exits(0).stdout;
    assert!(
        report.starts_with("VALID, in the store already: 1\n"),
        "{report}"
    );
    // Whatever the servers say.
    sandbox.subst(UNREACHABLE, &["query", &notes]).exits(0);
}

#[test]
fn a_valid_item_without_its_tree_is_not_valid() {
    let (sandbox, url, notes) = (Sandbox::new(), Kind::Guix.url(), item("notes"));
    sandbox.subst(&url, &["fetch", &notes]).exits(0);
    std::fs::remove_file(sandbox.root().join(&notes[1..])).unwrap();
    let json = sandbox
        .subst(&url, &["query", "--json", &notes])
        .exits(0)
        .json();
    assert_eq!(json["items"][0]["status"], "available", "{json:#}");
}

#[test]
fn the_closure_of_a_valid_item_comes_from_the_store_where_no_server_has_it() {
    let (sandbox, sample) = (Sandbox::new(), item("sample"));
    sandbox
        .subst(&Kind::Guix.url(), &["fetch", &sample])
        .exits(0);
    let empty = Server::start(|_| Reply::not_found());
    let arguments = ["query", "--closure", "--json", &sample];
    let json = sandbox.subst(&empty.url(), &arguments).exits(0).json();
    assert_eq!(json["summary"]["valid"], 7, "{json:#}");
}

#[test]
fn the_summary_counts_the_downloads_that_a_fetch_would_choose() {
    let (sandbox, url, sample) = (Sandbox::new(), Kind::Guix.url(), item("sample"));
    // A slow line makes the smallest downloads the best, and a fast one others.
    let sums = ["--limit-rate=1k", "--limit-rate=10G"].map(|rate| {
        let arguments = ["query", "--closure", "--json", rate, &sample];
        let query = sandbox.subst(&url, &arguments).exits(0).json();
        let arguments = ["fetch", "--dry-run", "--json", rate, &sample];
        let plan = sandbox.subst(&url, &arguments).exits(0).json();

        let planned = plan["plan"]["bytes_by_method"].as_object().unwrap();
        let planned: u64 = planned.values().filter_map(Value::as_u64).sum();
        let items = query["items"].as_array().unwrap().iter();
        let shown: u64 = items
            .filter_map(|item| item["download_size"].as_u64())
            .sum();
        assert_eq!(
            query["summary"]["download_size"], planned,
            "{rate}: {query:#}"
        );
        assert_eq!(shown, planned, "{rate}: {query:#}");
        assert_eq!(plan["download_size"], planned, "{rate}: {plan:#}");
        planned
    });
    assert!(sums[0] < sums[1], "{sums:?}");
}
