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

/// How a network answers before the user has logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Portal {
    Page,
    Redirect,
    Status,
}

fn login_page(status: &'static str) -> Reply {
    Reply::new(status, PAGE).header("Content-Type: text/html")
}

impl Portal {
    fn reply(self, login_url: &str) -> Reply {
        match self {
            Self::Page => login_page("200 OK").header("Connection: close"),
            Self::Redirect => {
                Reply::new("302 Found", "").header(&format!("Location: {login_url}/login"))
            }
            Self::Status => login_page("511 Network Authentication Required"),
        }
    }

    /// What is said of it.
    fn reason(self, login_url: &str) -> String {
        let page = "the response is not a narinfo but `text/html`";
        match self {
            Self::Page => page.to_owned(),
            Self::Redirect => format!("redirected to {login_url}/login: {page}"),
            Self::Status => "a login to the network is required (status 511)".to_owned(),
        }
    }
}

#[test]
fn a_login_page_is_no_answer_and_is_not_cached() {
    for portal in [Portal::Page, Portal::Redirect, Portal::Status] {
        let sandbox = Sandbox::new();
        let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
        let login = Server::start(|_| login_page("200 OK"));
        let is_open = Arc::new(AtomicBool::new(false));
        let (directory, login_url) = (fixture.dir.clone(), login.url());
        let may_pass = Arc::clone(&is_open);
        let server = Server::start(move |request| {
            if may_pass.load(Ordering::Relaxed) {
                Reply::file_or_range(&directory, request)
            } else {
                portal.reply(&login_url)
            }
        });

        let arguments = ["query", "--json", &item("tools")];
        let queried = sandbox.subst(&server.url(), &arguments).exits(4);
        let found = &queried.json()["items"][0];
        assert_eq!(found["status"], "unknown", "{found}");
        let answer = &found["answers"][0];
        assert_eq!(answer["answer"], "failed", "{found}");
        let reason = answer["reason"].as_str().unwrap();
        let expected = portal.reason(&login.url());
        assert!(reason.starts_with(&expected), "{portal:?}: {reason}");
        sandbox
            .subst(&server.url(), &["fetch", &item("tools")])
            .exits(4)
            .says(&format!("{}: ", server.url()))
            .says(&expected);

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
