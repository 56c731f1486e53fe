//! Servers that send ten times what is accepted, or send too slowly: what is kept of them is bounded,
//! and so is the time that they take.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use url::Url;

use super::tls::{Http2Server, Reaction, TlsServer, insecure};
use crate::http::error::HttpErrorKind;
use crate::http::testing::*;
use crate::http::*;

/// Far longer than needed, and far shorter than the servers would take.
const SOON: Duration = Duration::from_secs(15);

const INTERIM: &str = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";

/// Some fail at once, and the server may be down after that.
fn first_error(results: &LookupResults, number: usize) -> &HttpErrorKind {
    results.error(item(number)).kind()
}

fn fetch(options: Options, url: &str) -> Result<Vec<u8>, HttpError> {
    fetch_request(options, NarRequest::new(Url::parse(url).unwrap()))
}

fn fetch_request(options: Options, request: NarRequest) -> Result<Vec<u8>, HttpError> {
    let mut body = Client::new(options)?.nar(request)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next_chunk()? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// A server that sends `piece` again and again, with a pause in between.
fn trickling(head: &'static str, piece: &'static str) -> TestServer {
    TestServer::start(move |mut peer| {
        peer.request();
        peer.send(head.as_bytes());
        while peer.send(piece.as_bytes()) {
            std::thread::sleep(Duration::from_millis(20));
        }
    })
}

#[test]
fn interim_responses_before_a_lookup_are_limited() {
    for (skipped, is_accepted) in [(INTERIM, false), ("\r\n", false), ("", true)] {
        let server = TestServer::answering(move |path| {
            let few = [INTERIM.repeat(8), "\r\n".repeat(8)].concat();
            let before = if is_accepted {
                few
            } else {
                skipped.repeat(160)
            };
            [before.into_bytes(), correct(path)].concat()
        });
        let results = look_up(quick(), server.spec(), &items(1));
        if is_accepted {
            results.assert_all_found(&items(1));
        } else {
            let kind = first_error(&results, 0);
            assert!(
                matches!(kind, HttpErrorKind::TooManyInterim(16)),
                "{kind:?}"
            );
        }
    }
}

#[test]
fn interim_responses_before_an_http2_lookup_are_limited() {
    for (count, is_accepted) in [(16, true), (160, false)] {
        let server = Http2Server::start(move |_, _, _| Reaction::AnswerAfterInterim(count));
        let results = look_up(insecure(quick()), server.tls.spec(), &items(3));
        if is_accepted {
            results.assert_all_found(&items(3));
        } else {
            let kind = first_error(&results, 0);
            assert!(
                matches!(kind, HttpErrorKind::TooManyInterim(16)),
                "{kind:?}"
            );
        }
    }
}

#[test]
fn lookups_that_trickle_end() {
    let options = Options {
        answer_timeout: Duration::from_secs(1),
        ..quick()
    };
    for (head, piece) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", "x"),
        ("HTTP/1.1 200 OK\r\n", "X: y\r\n"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "1;x=y\r\nx\r\n",
        ),
    ] {
        let server = trickling(head, piece);
        let start = Instant::now();
        let results = look_up(options.clone(), server.spec(), &items(3));
        let kind = results.down[0].kind();
        assert!(matches!(kind, HttpErrorKind::Stalled(_)), "{kind:?}");
        assert!(start.elapsed() < SOON);
    }
}

#[test]
fn http2_lookups_that_trickle_end() {
    let options = Options {
        answer_timeout: Duration::from_secs(1),
        ..insecure(quick())
    };
    // Empty frames are silence.
    let silent = Options {
        stall_timeout: Duration::from_secs(1),
        ..insecure(quick())
    };
    for (options, bytes) in [(options, 1), (silent, 0)] {
        let server = Http2Server::start(move |_, _, _| Reaction::Trickle(bytes));
        let start = Instant::now();
        let results = look_up(options, server.tls.spec(), &items(3));
        let kind = results.down[0].kind();
        // The library ends connections with many empty frames.
        assert!(
            bytes == 0 || matches!(kind, HttpErrorKind::Stalled(_)),
            "{bytes}: {kind:?}"
        );
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    }
}

#[test]
fn an_http2_lookup_that_trickles_fails_alone() {
    let options = Options {
        answer_timeout: Duration::from_secs(2),
        ..insecure(quick())
    };
    let server = Http2Server::start(|path, _, _| match path.contains("0007") {
        true => Reaction::Trickle(1),
        false => Reaction::Answer,
    });
    let results = look_up(options, server.tls.spec(), &items(50));
    let kind = first_error(&results, 7);
    assert!(matches!(kind, HttpErrorKind::Stalled(_)), "{kind:?}");
    (0..50)
        .filter(|n| *n != 7)
        .for_each(|n| results.assert_found(item(n)));
}

#[test]
fn http2_lookups_have_time_while_others_are_answered() {
    let options = Options {
        answer_timeout: Duration::from_secs(2),
        ..insecure(quick())
    };
    let server = Http2Server::start(|_, _, count| {
        let turns = u32::try_from(count).unwrap();
        Reaction::AnswerAfter(turns * Duration::from_millis(200))
    });
    let results = look_up(options, server.tls.spec(), &items(25));
    results.assert_all_found(&items(25));
    server.assert_requested_once();
}

#[test]
fn nars_that_share_a_slow_line_share_the_minimum_rate() {
    // 640 B/s for each: too little for one alone.
    let server = TestServer::start(|mut peer| {
        peer.request();
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1920\r\n\r\n");
        for _ in 0..30 {
            peer.send(&[b'x'; 64]);
            std::thread::sleep(Duration::from_millis(100));
        }
        peer.close();
    });
    let options = Options {
        minimum_rate: MinimumRate {
            window: Duration::from_secs(1),
            ..MinimumRate::default()
        },
        ..quick()
    };
    let request = NarRequest {
        retry_policy: Some(RetryPolicy::once()),
        ..NarRequest::new(Url::parse(&server.url()).unwrap())
    };

    let client = Client::new(options.clone()).unwrap();
    let bodies: Vec<_> = (0..6)
        .map(|_| client.nar(request.clone()).unwrap())
        .collect();
    for mut body in bodies {
        let mut received = 0;
        while let Some(chunk) = body.next_chunk().unwrap() {
            received += chunk.len();
        }
        assert_eq!(received, 1920);
    }

    let error = fetch_request(options, request).unwrap_err();
    assert!(
        matches!(error.kind(), HttpErrorKind::TooSlow { .. }),
        "{error:?}"
    );
}

/// The demand of this rate within a second.
fn demand(bytes_per_second: u64) -> RateDemand {
    RateDemand {
        bytes_per_second,
        window: Duration::from_secs(1),
    }
}

#[test]
fn more_than_the_minimum_rate_may_be_demanded() {
    let server = trickling("HTTP/1.1 200 OK\r\n\r\n", "x");
    let options = Options {
        minimum_rate: MinimumRate {
            bytes_per_second: 1,
            window: Duration::from_secs(1),
        },
        ..quick()
    };
    let request = NarRequest {
        rate_demand: Some(demand(64 << 10)),
        retry_policy: Some(RetryPolicy::once()),
        ..NarRequest::new(Url::parse(&server.url()).unwrap())
    };
    let error = fetch_request(options, request).unwrap_err();
    let text = error.without_url().to_string();
    assert_eq!(text, "the server sent less than 64 KiB/s for 1 s");
}

#[test]
fn nars_that_trickle_are_too_slow() {
    let rates = [
        // A window of the options, and one of the request.
        (Duration::from_secs(1), None),
        (Duration::from_secs(600), Some(demand(0))),
    ];
    for (window, rate_demand) in rates {
        let options = Options {
            minimum_rate: MinimumRate {
                window,
                ..MinimumRate::default()
            },
            ..quick()
        };
        for head in [
            "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
        ] {
            let server = trickling(head, "x");
            let start = Instant::now();
            let request = NarRequest {
                rate_demand,
                retry_policy: Some(RetryPolicy::once()),
                ..NarRequest::new(Url::parse(&server.url()).unwrap())
            };
            let error = fetch_request(options.clone(), request).unwrap_err();
            assert!(
                matches!(error.kind(), HttpErrorKind::TooSlow { .. }),
                "{error:?}"
            );
            let text = error.without_url().to_string();
            assert_eq!(text, "the server sent less than 1 KiB/s for 1 s");
            assert!(error.outage().is_some(), "another server is used");
            assert!(start.elapsed() < SOON);
        }
    }
}

#[test]
fn the_head_of_a_nar_has_to_come_in_time() {
    for (head, piece) in [
        ("", INTERIM),
        ("HTTP/1.1 200 OK\r\n", "X: y\r\n"),
        ("", "\r\n"),
    ] {
        let server = trickling(head, piece);
        let url = Url::parse(&server.url()).unwrap();
        let once = NarRequest {
            retry_policy: Some(RetryPolicy::once()),
            ..NarRequest::new(url)
        };
        let with_window = NarRequest {
            rate_demand: Some(demand(0)),
            ..once.clone()
        };
        let short = Options {
            answer_timeout: Duration::from_secs(1),
            ..quick()
        };
        for (options, request) in [(short, once), (quick(), with_window)] {
            let start = Instant::now();
            let error = fetch_request(options, request).unwrap_err();
            assert!(error.outage().is_some(), "{error:?}");
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "{:?}",
                start.elapsed()
            );
        }
    }
}

#[test]
fn chunks_of_one_byte_take_little_memory() {
    let count = 200_000;
    let server = TestServer::start(move |mut peer| {
        peer.request();
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        peer.send("1\r\nx\r\n".repeat(count).as_bytes());
        peer.send(b"0\r\n\r\n");
    });
    let url = Url::parse(&server.url()).unwrap();
    let mut body = Client::new(quick())
        .unwrap()
        .nar(NarRequest::new(url))
        .unwrap();
    let (mut bytes, mut chunks) = (0, 0);
    while let Some(chunk) = body.next_chunk().unwrap() {
        bytes += chunk.len();
        chunks += 1;
    }
    assert_eq!(bytes, count);
    assert!(chunks < count / 20, "{chunks} chunks");
}

#[test]
fn heads_are_limited() {
    let long = format!("X: {}\r\n", "x".repeat(640 << 10));
    let many = "X: y\r\n".repeat(5120);
    for fields in [long, many, format!("X: {}\r\n", "x".repeat(5 << 20))] {
        let server = TestServer::answering(move |_| response("200 OK", &fields, "x"));
        let results = look_up(quick(), server.spec(), &items(1));
        let kind = first_error(&results, 0);
        assert!(matches!(kind, HttpErrorKind::Malformed(_)), "{kind:?}");
    }
    for fields in [
        "X: y\r\n".repeat(5120),
        format!("X: {}\r\n", "x".repeat(5 << 20)),
    ] {
        let server = TestServer::answering(move |_| response("200 OK", &fields, "x"));
        fetch(quick(), &server.url()).unwrap_err();
    }
}

#[test]
fn http2_heads_are_limited() {
    for bytes in [70 << 10, 640 << 10] {
        let fields = format!("X: {}\r\n", "x".repeat(bytes));
        let http1 = TestServer::answering(move |path| match path.contains("0007") {
            true => response("200 OK", &fields, "x"),
            false => correct(path),
        });
        let server = Http2Server::beside(http1, move |path, _, _| match path.contains("0007") {
            true => Reaction::LongHead(bytes),
            false => Reaction::Answer,
        });
        let results = look_up(insecure(quick()), server.tls.spec(), &items(10));
        assert_eq!(results.answers.len(), 10);
        assert!(results.answers[&item(7)].is_err());
        let (http2, http1) = server.item_requests();
        assert!(http2 <= 10 && http1 <= 30, "{http2} and {http1}");
    }
}

#[test]
fn http2_responses_together_are_limited() {
    let server = Http2Server::start(|_, _, _| Reaction::Unfinished(1 << 20));
    let options = Options {
        answer_timeout: Duration::from_secs(10),
        ..insecure(quick())
    };
    let results = look_up(options, server.tls.spec(), &items(160));
    let errors = results
        .answers
        .values()
        .map(|answer| answer.as_ref().unwrap_err());
    let too_large = errors.filter(|error| matches!(error.kind(), HttpErrorKind::TooLarge { .. }));
    // Sixteen are kept, while the others go on one by one.
    assert!(too_large.count() > 80);
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

#[test]
fn http2_frames_without_end_are_no_responses() {
    let floods = [
        ("settings", frame(4, 0, 0, &[0, 3, 0, 0, 0, 100])),
        (
            "large tables",
            frame(4, 0, 0, &[0, 1, 0xff, 0xff, 0xff, 0xff]),
        ),
        ("ping", frame(6, 0, 0, &[7; 8])),
        ("window update", frame(8, 0, 1, &[0, 0, 0, 1])),
        ("priority", frame(2, 0, 1, &[0, 0, 0, 0, 1])),
        ("unknown", frame(0xbb, 0, 1, &[0; 200])),
        ("empty data", frame(0, 0, 1, &[])),
        // Status 103, and fields that never end.
        ("interim", frame(1, 4, 1, b"\x08\x03103")),
        (
            "continuation",
            [frame(1, 0, 1, b"\x88"), frame(9, 0, 1, b"\x00\x01a\x01b")].concat(),
        ),
    ];
    for (name, flood) in floods {
        let first = [frame(4, 0, 0, &[]), flood.clone()].concat();
        // Only continuations follow a head that has not ended.
        let start_of_rest = if name == "continuation" {
            frame(1, 0, 1, b"\x88").len()
        } else {
            0
        };
        let again = flood[start_of_rest..].repeat(100);
        let server = TlsServer::start(&["h2"], move |_, mut stream| {
            let (first, again) = (first.clone(), again.clone());
            Box::pin(async move {
                let mut preface = [0; 24];
                let _ = stream.read_exact(&mut preface).await;
                let _ = stream.write_all(&first).await;
                while stream.write_all(&again).await.is_ok() {
                    // What the client sends, so that it does not block.
                    let mut input = [0; 4096];
                    let _ = timeout(Duration::from_millis(1), stream.read(&mut input)).await;
                }
            })
        });
        let options = Options {
            stall_timeout: Duration::from_secs(1),
            answer_timeout: Duration::from_secs(2),
            ..insecure(quick())
        };
        let start = Instant::now();
        let results = look_up(options, server.spec(), &items(3));
        assert!(results.answers.values().all(Result::is_err), "{name}");
        assert!(start.elapsed() < SOON, "{name}: {:?}", start.elapsed());
    }
}

#[test]
fn chunk_extensions_and_trailers_are_limited() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "x".repeat(40 << 10));
    let trailer = format!("1\r\nx\r\n0\r\n{}\r\n", "X: y\r\n".repeat(110_000));
    for rest in [extension, trailer] {
        let server = TestServer::answering(move |_| format!("{chunked}{rest}").into_bytes());
        let results = look_up(quick(), server.spec(), &items(1));
        let kind = first_error(&results, 0);
        assert!(matches!(kind, HttpErrorKind::Malformed(_)), "{kind:?}");
    }
    let extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "x".repeat(160 << 10));
    let server = TestServer::answering(move |_| format!("{chunked}{extension}").into_bytes());
    fetch(quick(), &server.url()).unwrap_err();
}

#[test]
fn what_is_kept_of_headers_is_limited() {
    let long = "x".repeat(40 << 10);
    let fields = format!("Location: /{long}\r\n");
    let redirecting = TestServer::answering(move |_| response("302 There", &fields, ""));
    let results = look_up(quick(), redirecting.spec(), &items(1));
    let lookup = results.error(item(0)).clone();
    let nar = fetch(quick(), &redirecting.url()).unwrap_err();
    for error in [lookup, nar] {
        assert!(
            matches!(error.kind(), HttpErrorKind::BadRedirect(_)),
            "{error:?}"
        );
        assert!(format!("{error:?}").len() < 1000);
    }

    // An unknown encoding is ignored.
    let half = "x".repeat(20 << 10);
    let fields = format!("Content-Type: {half}\r\nContent-Encoding: {half}\r\n");
    let encoding = TestServer::answering(move |_| response("200 OK", &fields, "x"));
    let results = look_up(quick(), encoding.spec(), &items(1));
    let error = results.error(item(0));
    assert!(error.is_unexpected_content(), "{error:?}");
    assert!(format!("{error:?}").len() < 1000);
    assert_eq!(fetch(quick(), &encoding.url()).unwrap(), b"x");

    let long = &"x".repeat(10 << 10);
    let fields = format!("ETag: \"{long}\"\r\nX-Cache: {long}\r\n");
    let server = TestServer::answering(move |_| response("200 OK", &fields, "x"));
    let (client, url) = (
        Client::new(quick()).unwrap(),
        Url::parse(&server.url()).unwrap(),
    );
    assert_eq!(
        client
            .nar(NarRequest::new(url.clone()))
            .unwrap()
            .validator(),
        None
    );
    let proxy_cache = client.probe(&url).unwrap().proxy_cache.unwrap();
    assert_eq!(proxy_cache.len(), 256);
}

/// Each response leads further down, to a place that has the item under the same name.
#[test]
fn redirects_open_a_limited_number_of_servers() {
    let server = TestServer::answering(|path| {
        if path == "/nix-cache-info" {
            return correct(path);
        }
        let (place, name) = path.rsplit_once('/').unwrap();
        let number: usize = name.trim_end_matches(".narinfo").parse().unwrap();
        let location = format!("Location: {place}/{}/{name}\r\n", number % 80);
        response("302 There", &location, "")
    });
    let results = look_up(quick(), server.spec(), &items(80));
    assert_eq!(results.answers.len(), 80);
    assert!(results.answers.values().all(Result::is_err));
    // One for each server, and the library's own for what is followed one by one.
    let connections = server.connections();
    assert!(connections < 60, "{connections} connections");
    let different: HashSet<_> = server.requests().into_iter().collect();
    assert!(
        different.len() <= 1 + 80 * 20,
        "{} requests",
        different.len()
    );
}

#[test]
fn https_is_not_left_by_a_redirect() {
    let insecure_target = TestServer::answering(correct);
    let to = insecure_target.url();
    let same_name = TestServer::answering(move |path| {
        response("301 There", &format!("Location: {to}{path}\r\n"), "")
    });
    let to = insecure_target.url();
    let other_name = TestServer::answering(move |_| {
        response("301 There", &format!("Location: {to}/other?secret\r\n"), "")
    });
    for backend in [&same_name, &other_name] {
        let server = TlsServer::before(backend);
        let results = look_up(insecure(quick()), server.spec(), &items(1));
        let lookup = results.error(item(0)).clone();
        let nar = fetch(insecure(quick()), &format!("{}/nar", server.url())).unwrap_err();
        for error in [lookup, nar] {
            let text = error.without_url().to_string();
            let expected = format!("redirected from https to {}/", insecure_target.url());
            assert!(text.contains(&expected), "{text}");
            assert!(
                text.ends_with(": a redirect to http is not followed"),
                "{text}"
            );
            assert!(!text.contains("secret"), "{text}");
        }
    }
    assert!(insecure_target.requests().is_empty());
}

#[test]
fn encoded_narinfos_are_decoded() {
    let server = TestServer::answering(|path| {
        let text = match path {
            "/nix-cache-info" => "StoreDir: /gnu/store\n".to_owned(),
            _ => narinfo_text(path),
        };
        let body = zstd::encode_all(text.as_bytes(), 3).unwrap();
        let length = body.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: zstd\r\nContent-Length: {length}\r\n\r\n"
        );
        [head.into_bytes(), body].concat()
    });
    let results = look_up(quick(), server.spec(), &items(100));
    results.assert_all_found(&items(100));
    let info = results.cache_infos[0].as_ref().unwrap().as_ref().unwrap();
    assert_eq!(info.text, "StoreDir: /gnu/store\n");
}
