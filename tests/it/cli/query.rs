//! `subst query`: the table, the JSON, and which answers are cached.

use serde_json::json;

use super::{NOTHING, UNREACHABLE};
use crate::support::sandbox::run;
use crate::support::{Kind, Reply, Sandbox, Server, item};

#[test]
fn query_prints_a_table_and_a_summary() {
    let sandbox = Sandbox::new();
    let (url, tools) = (Kind::Guix.url(), item("tools"));
    let query = sandbox.subst(&url, &["query", &tools, NOTHING]).exits(1);
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
        .subst(&url, &["query", "--json", &tools, NOTHING])
        .exits(1)
        .json();
    let seconds = answer["summary"]["seconds"].take();
    assert!(
        seconds.as_f64().is_some_and(|seconds| seconds > 0.0),
        "{seconds}"
    );
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
            "from_cache": false, "expires_in": 129_600,
            "answers": [{
                "server": url, "answer": "available", "reason": null, "from_cache": false,
                "expires_in": 129_600,
            }],
        }, {
            "path": NOTHING, "status": "missing", "server": null, "url": null,
            "compression": null, "download_size": null, "nar_size": null, "references": null,
            "signed_by": null, "from_cache": false, "expires_in": null,
            "answers": [{
                "server": url, "answer": "missing", "reason": "HTTP 404", "from_cache": false,
                "expires_in": 120,
            }],
        }],
        "summary": {
            "available": 1, "missing": 1, "preparing": 0, "refused": 0, "unknown": 0,
            "download_size": 474, "nar_size": 3096, "cache_hits": 0, "cache_misses": 2,
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
