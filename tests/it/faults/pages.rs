//! Networks that answer everything with a page (captive portals), and stores that send what they hold
//! encoded.

use std::collections::HashSet;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use flate2::write::GzEncoder;

use super::{assert_complete, only};
use crate::support::{Fixture, Kind, Reply, Sandbox, Server, item};

const PAGE: &str = "<!DOCTYPE html><html><body>Please log in</body></html>";

/// What the network lets through while nobody has logged in.
fn portal(request_path: &str, portal_url: &str) -> Reply {
    match request_path {
        "/login" => Reply::new("200 OK", PAGE).header("Content-Type: text/html"),
        _ => Reply::new("302 Found", "").header(&format!("Location: {portal_url}/login")),
    }
}

#[test]
fn a_login_page_is_no_answer_and_is_not_cached() {
    for redirects in [false, true] {
        let sandbox = Sandbox::new();
        let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
        let login = Server::start(|request| portal(&request.path, ""));
        let is_open = Arc::new(AtomicBool::new(false));
        let (directory, portal_url) = (fixture.dir.clone(), login.url());
        let may_pass = Arc::clone(&is_open);
        let server = Server::start(move |request| {
            if may_pass.load(Ordering::Relaxed) {
                Reply::file_or_range(&directory, request)
            } else if redirects {
                portal(&request.path, &portal_url)
            } else {
                portal("/login", "").header("Connection: close")
            }
        });

        let arguments = ["query", "--json", &item("tools")];
        let queried = sandbox.subst(&server.url(), &arguments).exits(4);
        let found = &queried.json()["items"][0];
        assert_eq!(found["status"], "unknown", "{found}");
        let answer = &found["answers"][0];
        assert_eq!(answer["answer"], "failed", "{found}");
        let reason = answer["reason"].as_str().unwrap();
        assert!(reason.contains("not a narinfo but `text/html`"), "{reason}");
        let target = format!("redirected to {}/login: ", login.url());
        assert_eq!(reason.contains(&target), redirects, "{reason}");
        sandbox
            .subst(&server.url(), &["fetch", &item("tools")])
            .exits(4)
            .says(&format!("{}: ", server.url()))
            .says("text/html");

        // Neither the answer nor the server's properties were kept.
        is_open.store(true, Ordering::Relaxed);
        let before = server.requests_for("nix-cache-info");
        sandbox
            .subst(&server.url(), &["fetch", &item("tools")])
            .exits(0);
        assert_eq!(server.requests_for("nix-cache-info"), before + 1);
    }
}

#[test]
fn encoded_narinfos_and_nars_are_decoded() {
    let sandbox = Sandbox::new();
    let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
    let directory = fixture.dir.clone();
    let server = Server::start(move |request| {
        let mut reply = Reply::file(&directory, request).header("Content-Encoding: gzip");
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&reply.body).unwrap();
        reply.body = encoder.finish().unwrap();
        reply
    });
    sandbox
        .subst(&server.url(), &["fetch", &item("sample")])
        .exits(0);
    assert_complete(&sandbox);
    assert_eq!(server.requests_for("/nar/"), 7, "{:?}", server.asked());
}

#[test]
fn encoded_nars_that_break_off_are_requested_whole() {
    let (sandbox, fixture) = only("zstd");
    let directory = fixture.dir.clone();
    let seen = Mutex::new(HashSet::new());
    let server = Server::start(move |request| {
        let mut reply = Reply::file_or_range(&directory, request);
        if request.path.starts_with("/nar/") {
            reply = reply.header("Content-Encoding: gzip");
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::none());
            encoder.write_all(&reply.body).unwrap();
            reply.body = encoder.finish().unwrap();
            if seen.lock().unwrap().insert(request.path.clone()) {
                let half = reply.body.len() / 2;
                reply = reply.cut_at(half);
            }
        }
        reply
    });
    sandbox
        .subst(&server.url(), &["fetch", &item("sample")])
        .exits(0);
    assert_complete(&sandbox);
    let ranges = server.ranges_of("/nar/");
    assert_eq!(ranges, [None; 14], "{:?}", server.asked());
}

/// As Apache does with `AddEncoding x-gzip .gz`.
#[test]
fn the_encoding_of_a_compressed_file_may_be_named() {
    let (sandbox, fixture) = only("gzip");
    let directory = fixture.dir.clone();
    let server = Server::start(move |request| {
        let reply = Reply::file(&directory, request);
        if request.path.starts_with("/nar/gzip/") {
            reply.header("Content-Encoding: x-gzip")
        } else {
            reply
        }
    });
    sandbox
        .subst(&server.url(), &["fetch", &item("sample")])
        .exits(0);
    assert_complete(&sandbox);
}
