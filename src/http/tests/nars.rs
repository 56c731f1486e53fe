//! Nars, probes, and fetching one `nix-cache-info`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use url::Url;

use crate::format::server_url::ServerUrl;
use crate::http::download::probe::ProbeResponse;
use crate::http::error::HttpErrorKind;
use crate::http::options::Protocol;
use crate::http::testing::*;
use crate::http::*;

fn request(server: &TestServer) -> NarRequest {
    NarRequest::new(Url::parse(&format!("{}/nar/x", server.url())).unwrap())
}

fn open(options: Options, request: NarRequest) -> Result<NarBody, HttpError> {
    Client::new(options).unwrap().nar(request)
}

/// Everything up to the end or the first error.
fn read(body: &mut NarBody) -> (Vec<u8>, Option<HttpError>) {
    let mut bytes = Vec::new();
    loop {
        match body.next_chunk() {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return (bytes, None),
            Err(error) => return (bytes, Some(error)),
        }
    }
}

const CONTENT: &str = "0123456789abcdefghijklmnopqrstuvwxyz";

#[test]
fn a_whole_nar() {
    let fields = "ETag: \"v1\"\r\nAccept-Ranges: bytes\r\nX-Cache: MISS\r\n";
    let server = TestServer::answering(move |_| response("200 OK", fields, CONTENT));
    let mut body = open(quick(), request(&server)).unwrap();
    assert_eq!(body.status(), BodyStatus::Full);
    assert_eq!(body.content_length(), Some(36));
    assert_eq!(body.validator(), Some("\"v1\""));
    assert_eq!(body.ranges(), RangeSupport::Announced);
    let (bytes, error) = read(&mut body);
    assert_eq!(bytes, CONTENT.as_bytes());
    assert!(error.is_none());
    assert!(body.next_chunk().unwrap().is_none());
}

#[test]
fn nars_without_a_length() {
    for fields in [
        "Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
        "\r\nabcd",
    ] {
        let server = TestServer::start(move |mut peer| {
            peer.request();
            peer.send(format!("HTTP/1.1 200 OK\r\n{fields}").as_bytes());
            peer.close();
        });
        let mut body = open(quick(), request(&server)).unwrap();
        assert_eq!((body.content_length(), body.validator()), (None, None));
        let (bytes, error) = read(&mut body);
        assert_eq!(bytes, b"abcd");
        assert!(error.is_none());
    }
}

#[test]
fn every_cut_is_an_error() {
    for cut in 0..CONTENT.len() {
        let server = TestServer::start(move |mut peer| {
            peer.request();
            let answer = response("200 OK", "", CONTENT);
            peer.send(&answer[..answer.len() - CONTENT.len() + cut]);
            peer.close();
        });
        let mut body = open(quick(), request(&server)).unwrap();
        let (bytes, error) = read(&mut body);
        assert_eq!(bytes, &CONTENT.as_bytes()[..cut]);
        let error = error.unwrap();
        let (received, expected) = (cut as u64, CONTENT.len() as u64);
        match *error.kind() {
            HttpErrorKind::Truncated {
                received: r,
                expected: e,
            } => {
                assert_eq!((r, e), (received, expected));
            }
            ref other => panic!("{other:?}"),
        }
        assert_eq!(error.class(), HttpErrorClass::Transient);
        assert!(body.next_chunk().is_err(), "the error stays");
    }
}

#[test]
fn a_cut_chunked_nar_is_an_error() {
    let server = TestServer::start(|mut peer| {
        peer.request();
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab");
        peer.close();
    });
    let (bytes, error) = read(&mut open(quick(), request(&server)).unwrap());
    assert_eq!(bytes, b"ab");
    assert!(matches!(error.unwrap().kind(), HttpErrorKind::Closed));
}

#[test]
fn a_stalled_nar_is_an_error() {
    let server = TestServer::start(|mut peer| {
        peer.request();
        let answer = response("200 OK", "", CONTENT);
        peer.send(&answer[..answer.len() - 3]);
        peer.stall();
    });
    let (bytes, error) = read(&mut open(short_stall(), request(&server)).unwrap());
    assert_eq!(bytes.len(), CONTENT.len() - 3);
    assert!(matches!(error.unwrap().kind(), HttpErrorKind::Stalled(_)));
}

#[test]
fn ranges() {
    let server = TestServer::start(|mut peer| {
        while peer.request().is_some() {
            let head = peer.head.to_ascii_lowercase();
            let part = head.contains("range: bytes=10-19\r\n") && head.contains("if-range: \"v1\"");
            let rest = head.contains("range: bytes=30-\r\n");
            let answer = match (part, rest) {
                (true, _) => response(
                    "206 Part",
                    "Content-Range: bytes 10-19/36\r\n",
                    &CONTENT[10..20],
                ),
                (_, true) => response(
                    "206 Part",
                    "Content-Range: bytes 30-35/*\r\n",
                    &CONTENT[30..],
                ),
                _ => response("200 OK", "", CONTENT),
            };
            peer.send(&answer);
        }
    });
    let fetch_range = |range, version: &str| {
        let if_range = Some(version.to_owned()).filter(|version| !version.is_empty());
        let mut body = open(
            quick(),
            NarRequest {
                range,
                if_range,
                ..request(&server)
            },
        )
        .unwrap();
        (body.status(), String::from_utf8(read(&mut body).0).unwrap())
    };
    let part = BodyStatus::Partial {
        start: 10,
        total: Some(36),
    };
    assert_eq!(
        fetch_range(Some((10, Some(20))), "\"v1\""),
        (part, CONTENT[10..20].to_owned())
    );
    let rest = BodyStatus::Partial {
        start: 30,
        total: None,
    };
    assert_eq!(
        fetch_range(Some((30, None)), ""),
        (rest, CONTENT[30..].to_owned())
    );
    // Another version, or a server without ranges: everything, and the body says so.
    assert_eq!(
        fetch_range(Some((10, Some(20))), "\"v2\""),
        (BodyStatus::Full, CONTENT.to_owned())
    );
}

#[test]
fn wrong_ranges_are_refused() {
    for fields in [
        "Content-Range: bytes 11-20/36\r\n",
        "Content-Range: bytes 10-36/36\r\n",
        "Content-Range: bytes 10-9/36\r\n",
        "Content-Range: 10-19/36\r\n",
        "Content-Range: lines 10-19/36\r\n",
        "",
    ] {
        let server = TestServer::answering(move |_| response("206 Part", fields, "0123456789"));
        let ranged = NarRequest {
            range: Some((10, None)),
            ..request(&server)
        };
        let error = open(quick(), ranged).unwrap_err();
        assert_eq!(error.class(), HttpErrorClass::Refused, "{fields}");
        // A range that was not requested.
        assert_eq!(
            open(quick(), request(&server)).unwrap_err().class(),
            HttpErrorClass::Refused
        );
    }
}

#[test]
fn a_range_that_begins_earlier_says_where() {
    let fields = "Content-Range: bytes 9-18/36\r\n";
    let server = TestServer::answering(move |_| response("206 Part", fields, "0123456789"));
    let ranged = NarRequest {
        range: Some((10, None)),
        ..request(&server)
    };
    let total = Some(36);
    let status = open(quick(), ranged).unwrap().status();
    assert_eq!(status, BodyStatus::Partial { start: 9, total });
}

#[test]
fn opening_is_retried() {
    let count = AtomicUsize::new(0);
    let server = TestServer::start(move |mut peer| {
        while peer.request().is_some() {
            match count.fetch_add(1, Ordering::SeqCst) {
                0 => return peer.reset(),
                1 => peer.send(&response("503 Busy", "Retry-After: 0\r\n", "")),
                2 => peer.send(&response("500 Oops", "", "")),
                _ => peer.send(&response("200 OK", "", CONTENT)),
            };
        }
    });
    let (bytes, error) = read(&mut open(quick(), request(&server)).unwrap());
    assert_eq!(bytes, CONTENT.as_bytes());
    assert!(error.is_none());
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn statuses_that_are_not_a_nar() {
    for (status, requested, class) in [
        ("404 No", 1, HttpErrorClass::Absent),
        ("410 Gone", 1, HttpErrorClass::Absent),
        ("403 No", 1, HttpErrorClass::Transient),
        ("416 Range", 1, HttpErrorClass::Transient),
        ("502 Bad", 4, HttpErrorClass::Transient),
    ] {
        let server = TestServer::answering(move |_| response(status, "", ""));
        let error = open(quick(), request(&server)).unwrap_err();
        assert_eq!(error.status().unwrap().to_string(), status[..3]);
        assert_eq!(
            (server.requests().len(), error.class()),
            (requested, class),
            "{status}"
        );
    }
    let server = TestServer::answering(|_| response("200 OK", "Content-Encoding: gzip\r\n", "x"));
    let (_, error) = read(&mut open(quick(), request(&server)).unwrap());
    let error = error.unwrap();
    assert!(matches!(
        error.kind(),
        HttpErrorKind::ContentEncoding { .. }
    ));
    assert_eq!(error.class(), HttpErrorClass::Refused);
    let server = TestServer::start(Peer::stall);
    let options = Options {
        connect_timeout: Duration::from_millis(50),
        stall_timeout: Duration::from_millis(50),
        ..quick()
    };
    let error = open(options, request(&server)).unwrap_err();
    assert!(
        matches!(error.kind(), HttpErrorKind::Stalled(_)),
        "{error:?}"
    );
    let server = TestServer::answering(|_| b"SSH-2.0-hello\r\n\r\n".to_vec());
    assert_eq!(
        open(quick(), request(&server)).unwrap_err().class(),
        HttpErrorClass::Transient
    );
}

#[test]
fn redirects() {
    let target = TestServer::answering(|_| response("200 OK", "", CONTENT));
    let there = format!("Location: {}/other\r\n", target.url());
    let server = TestServer::answering(move |_| response("302 There", &there, ""));
    let (bytes, _) = read(&mut open(quick(), request(&server)).unwrap());
    assert_eq!(bytes, CONTENT.as_bytes());
    assert_eq!(target.requests(), ["/other"]);

    let server = TestServer::answering(|_| response("302 Loop", "Location: /nar/x\r\n", ""));
    let error = open(quick(), request(&server)).unwrap_err();
    assert!(
        matches!(error.kind(), HttpErrorKind::TooManyRedirects(_)),
        "{error:?}"
    );
    let server =
        TestServer::answering(|_| response("302 Bad", "Location: file:///etc/passwd\r\n", ""));
    assert!(open(quick(), request(&server)).is_err());
}

#[test]
fn a_failure_names_the_redirect_target_without_its_query() {
    let target = TestServer::answering(|_| response("403 No", "", ""));
    let there = format!("Location: {}/bucket/x?Signature=Sesame\r\n", target.url());
    let server = TestServer::answering(move |_| response("302 There", &there, ""));
    let error = open(quick(), request(&server)).unwrap_err();
    assert_eq!(error.status(), Some(403));
    let expected = format!(
        "redirected to {}/bucket/x: the server answered with status 403: access is not allowed",
        target.url()
    );
    assert_eq!(error.without_url().to_string(), expected);
}

#[test]
fn dropping_the_body_ends_the_transfer() {
    let (sender, receiver) = mpsc::channel();
    let server = TestServer::start(move |mut peer| {
        peer.request();
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n");
        while peer.send(&[0; 4096]) {}
        sender.send(()).unwrap();
    });
    let client = Client::new(quick()).unwrap();
    let mut body = client.nar(request(&server)).unwrap();
    assert!(body.next_chunk().unwrap().is_some());
    drop(body);
    receiver
        .recv_timeout(Duration::from_secs(10))
        .expect("the server is hung up on");
}

#[test]
fn a_body_outlives_its_client() {
    let server = TestServer::answering(|_| response("200 OK", "", &"x".repeat(10 << 20)));
    let mut body = open(quick(), request(&server)).unwrap();
    let (bytes, error) = read(&mut body);
    assert_eq!(bytes.len(), 10 << 20);
    assert!(error.is_none());
}

#[test]
fn credentials_are_sent_but_not_shown() {
    let server = TestServer::start(|mut peer| {
        peer.request();
        let known = peer
            .head
            .to_ascii_lowercase()
            .contains("authorization: basic bwu6c2vjcmv0");
        peer.send(&response(if known { "404 No" } else { "401 Who" }, "", ""));
    });
    let url = server.url().replace("http://", "http://me:secret@");
    let error = open(quick(), NarRequest::new(Url::parse(&url).unwrap())).unwrap_err();
    assert_eq!(error.status(), Some(404));
    assert!(!format!("{error} {error:?}").contains("secret"));
}

#[test]
fn probes() {
    let server = TestServer::start(|mut peer| {
        while let Some(path) = peer.request() {
            let is_head = peer.head.starts_with("HEAD ");
            let answer = match (path.as_str(), is_head) {
                ("/plain", true) => {
                    "HTTP/1.1 200 OK\r\nContent-Length: 77\r\nAge: 5\r\n\
                    X-Cache-Status: HIT\r\nAccept-Ranges: bytes\r\n\r\n"
                }
                ("/no-head", true) => "HTTP/1.1 405 No\r\nContent-Length: 9\r\n\r\n",
                ("/no-head", false) => {
                    assert!(
                        peer.head
                            .to_ascii_lowercase()
                            .contains("range: bytes=0-0\r\n")
                    );
                    "HTTP/1.1 206 Part\r\nContent-Range: bytes 0-0/99\r\n\
                     Content-Length: 1\r\nCF-Cache-Status: MISS\r\n\r\nx"
                }
                // As guix publish: it has no HEAD and no ranges, and says 404 to the former.
                ("/no-head-404", false) => "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nx",
                ("/broken", _) => "HTTP/1.1 501 Oh\r\nContent-Length: 0\r\n\r\n",
                _ => "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n",
            };
            peer.send(answer.as_bytes());
        }
    });
    let client = Client::new(quick()).unwrap();
    let probe = |path: &str| {
        client
            .probe(&Url::parse(&format!("{}{path}", server.url())).unwrap())
            .unwrap()
    };
    let plain = ProbeResponse {
        status: 200,
        proxy_cache: Some("HIT".into()),
        age: Some(5),
        length: Some(77),
        accepts_ranges: true,
    };
    assert_eq!(probe("/plain"), plain);
    let no_head = ProbeResponse {
        status: 200,
        proxy_cache: Some("MISS".into()),
        age: None,
        length: Some(99),
        accepts_ranges: true,
    };
    assert_eq!(probe("/no-head"), no_head);
    let no_head = probe("/no-head-404");
    assert_eq!((no_head.status, no_head.length), (200, Some(99)));
    assert_eq!(probe("/broken").status, 501);
    assert_eq!(probe("/absent").status, 404);
}

#[test]
fn fetching_one_cache_info() {
    let server = TestServer::answering(|path| match path {
        "/a/nix-cache-info" => response("200 OK", "Cache-Control: max-age=9\r\n", "StoreDir: /s\n"),
        "/b/nix-cache-info" => response("404 No", "", ""),
        _ => response("401 Who", "", ""),
    });
    let client = Client::new(quick()).unwrap();
    let fetch_info = |path: &str| {
        let url = ServerUrl::parse(&format!("{}{path}", server.url())).unwrap();
        client.cache_info(&url).unwrap()
    };
    let a = fetch_info("/a");
    assert_eq!(
        (a.status, a.text.as_deref(), a.max_age),
        (200, Some("StoreDir: /s\n"), Some(9))
    );
    assert_eq!(a.protocol, Protocol::Http1);
    assert_eq!(
        (fetch_info("/b").status, fetch_info("/b").text),
        (404, None)
    );
    assert_eq!(fetch_info("/c").status, 401);
    let down = ServerUrl::parse("http://no-such-host.invalid").unwrap();
    assert!(client.cache_info(&down).is_err());
}
