//! Nars whose size nothing tells, from a server that ends connections without a `close_notify` in TLS, which
//! may be the end of the nar.

use std::path::Path;

use super::{assert_tree, only};
use crate::support::publisher::{Publisher, file_nar};
use crate::support::sandbox::run;
use crate::support::tls::{Authority, TlsFront};
use crate::support::{Kind, Reply, Run, Sandbox, Server, item};

/// A server that gives the first half of a nar if it `cuts`, and the rest of it if it `gives_ranges`.
fn start(directory: &Path, cuts: bool, gives_ranges: bool) -> Server {
    let directory = directory.to_owned();
    Server::start(move |request| {
        let mut reply = match gives_ranges {
            true => Reply::file_or_range(&directory, request),
            false => Reply::file(&directory, request),
        };
        if request.path.ends_with(".narinfo") {
            let text = String::from_utf8(reply.body).unwrap();
            reply.body = text.replace("FileSize: ", "OtherSize: ").into();
        } else if request.path != "/nix-cache-info" {
            reply.has_no_length = true;
            if cuts && reply.is_ok() {
                reply.cut_at = Some(reply.body.len() / 2);
            }
        }
        reply
    })
}

/// How a fetch and a mirror of `item` end with `server`, each with the ranges of its requests for the nar.
fn runs(sandbox: &Sandbox, server: &Server, item: &str) -> [(Run, Vec<Option<usize>>); 2] {
    let authority = Authority::new();
    let front = TlsFront::without_close_notify(server, &authority);
    let file = sandbox.write_safely("authority.pem", &authority.pem());
    let mut seen = 0;
    let commands = [
        ["fetch", "--output", "tree", item],
        ["mirror", "--to=mirror", "--closure", item],
    ];
    commands.map(|arguments| {
        let mut command = sandbox.command(Kind::Guix, &front.url(), &arguments);
        command.env("SSL_CERT_FILE", &file);
        let run = run(command);
        let ranges = server.ranges_of(NAR).split_off(seen);
        seen += ranges.len();
        (run, ranges)
    })
}

/// In the URLs of the nars.
const NAR: &str = "-tree-";
const METHODS: [&str; 3] = ["zstd", "gzip", "lzip"];

#[test]
fn a_whole_nar_is_requested_once() {
    for method in METHODS {
        let (sandbox, fixture) = only(method);
        let server = start(&fixture.dir, false, false);
        for (run, ranges) in runs(&sandbox, &server, &item("tree")) {
            run.exits(0);
            assert_eq!(ranges, [None], "{method}");
        }
        assert_tree(&sandbox, "tree");
    }
}

#[test]
fn a_nar_that_is_cut_is_resumed() {
    for method in METHODS {
        let (sandbox, fixture) = only(method);
        let half = std::fs::read(fixture.nar(&item("tree"), method))
            .unwrap()
            .len()
            / 2;
        let server = start(&fixture.dir, true, true);
        for (run, ranges) in runs(&sandbox, &server, &item("tree")) {
            run.exits(0);
            // The first end may be that of the nar for all that is known.
            assert_eq!(ranges, [None, None, Some(half)], "{method}");
        }
        assert_tree(&sandbox, "tree");
    }
}

#[test]
fn a_nar_that_is_always_cut_fails_when_the_retry_time_is_over() {
    let sandbox = Sandbox::new();
    let publisher = Publisher::new(&sandbox, "server", 1);
    Publisher::trust(&sandbox, &[&publisher]);
    // Half of it is more than what counts as progress.
    let contents: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
        .take(1 << 20)
        .collect();
    let nar = file_nar(&contents);
    let compressed = zstd::encode_all(&nar[..], 3).unwrap();
    let name = format!("1{NAR}nar");
    std::fs::write(publisher.dir.join(&name), compressed).unwrap();
    let downloads = format!("URL: {name}\nCompression: zstd\n");
    let item = publisher.describe('1', &nar, nar.len() as u64, "", &downloads);

    let server = start(&publisher.dir, true, false);
    for (run, ranges) in runs(&sandbox, &server, &item) {
        run.exits(4);
        assert!(ranges.len() < 20, "{ranges:?}");
    }
}
