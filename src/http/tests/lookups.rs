//! Lookups over HTTP/1.1.

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::format::cache_info::CacheInfo;
use crate::format::server_list::ServerIndex;
use crate::format::server_url::ServerUrl;
use crate::http::error::HttpErrorKind;
use crate::http::options::Protocol;
use crate::http::testing::*;
use crate::http::*;

/// Asserts that nothing was requested twice.
fn assert_requested_once(server: &TestServer) {
    let requests = server.requests();
    let different: HashSet<_> = requests.iter().collect();
    assert_eq!(requests.len(), different.len(), "{requests:?}");
}

#[test]
fn one_connection_answers_everything() {
    let server = TestServer::answering(correct);
    let items = items(3000);
    let results = look_up(quick(), server.spec(), &items);
    results.assert_all_found(&items);
    assert_requested_once(&server);
    assert_eq!(server.connections(), 1);
    assert_eq!(server.requests()[0], "/nix-cache-info");
    assert_eq!(server.requests().len(), 3001);
    let info = results.cache_infos[0].as_ref().unwrap().as_ref().unwrap();
    assert_eq!(info.text, "StoreDir: /gnu/store\nWantMassQuery: 0\n");
    assert!(
        results
            .properties
            .contains(&ServerProperty::Protocol(Protocol::Http1))
    );
    assert!(
        results
            .properties
            .contains(&ServerProperty::Pipelining(PipeliningSupport::Works))
    );
    assert!(results.down.is_empty());
}

#[test]
fn requests_do_not_wait_for_the_cache_info() {
    let server = TestServer::start(|mut peer| {
        let paths: Vec<_> = (0..101).map(|_| peer.request().unwrap()).collect();
        paths
            .iter()
            .for_each(|path| assert!(peer.send(&correct(path))));
        peer.stall();
    });
    look_up(quick(), server.spec(), &items(100)).assert_all_found(&items(100));
    assert_requested_once(&server);
}

#[test]
fn requests_in_flight_are_limited() {
    let server = TestServer::start(|mut peer| {
        // The eleventh request comes only after an answer.
        let mut unanswered = Vec::new();
        while let Some(path) = peer.request() {
            unanswered.push(path);
            assert!(unanswered.len() <= 10);
            if !peer.has_more() {
                unanswered
                    .drain(..)
                    .for_each(|path| assert!(peer.send(&correct(&path))));
            }
        }
    });
    let options = Options {
        max_in_flight: 10,
        ..quick()
    };
    look_up(options, server.spec(), &items(200)).assert_all_found(&items(200));
}

#[test]
fn known_cache_info_is_not_requested() {
    let server = TestServer::answering(correct);
    let mut spec = server.spec();
    spec.cache_info = Some(CacheInfo::default());
    let results = look_up(quick(), spec, &items(5));
    results.assert_all_found(&items(5));
    assert!(results.cache_infos.is_empty());
    assert_eq!(server.requests().len(), 5);
}

#[test]
fn servers_that_want_mass_queries_get_several_connections() {
    let server = TestServer::start(|mut peer| {
        while let Some(path) = peer.request() {
            if path.ends_with("900.narinfo") {
                peer.wait_for_connections(2);
            }
            assert!(peer.send(&correct_with_mass_query(&path)));
        }
    });
    let results = look_up(quick(), server.spec(), &items(4000));
    results.assert_all_found(&items(4000));
    assert_requested_once(&server);
    assert!(
        (2..=4).contains(&server.connections()),
        "{}",
        server.connections()
    );
}

/// Few lookups, each of which takes long: they do not wait behind one another.
#[test]
fn slow_answers_are_distributed_over_the_connections() {
    for (answer, connections) in [
        (correct_with_mass_query as fn(&str) -> Vec<u8>, 4),
        (correct, 1),
    ] {
        let server = TestServer::start(move |mut peer| {
            while let Some(path) = peer.request() {
                std::thread::sleep(Duration::from_millis(650));
                if !peer.send(&answer(&path)) {
                    return;
                }
            }
        });
        let results = look_up(quick(), server.spec(), &items(12));
        results.assert_all_found(&items(12));
        assert!(results.down.is_empty());
        if connections == 1 {
            assert_requested_once(&server);
            assert_eq!(server.connections(), 1);
        } else {
            // The first connection is closed when the others take over what waited on it.
            let count = server.connections();
            assert!((connections..=connections + 2).contains(&count), "{count}");
            let requests = server.requests().len();
            assert!(requests <= 13 + 2, "{requests} requests");
        }
    }
}

#[test]
fn limits_of_requests_per_connection_are_detected() {
    for announced in [true, false] {
        let server = TestServer::start(move |mut peer| {
            for number in 1..=1000 {
                let Some(path) = peer.request() else { return };
                let mut answer = correct(&path);
                if announced && number == 1000 {
                    answer.splice(15..15, *b"\r\nConnection: close");
                }
                assert!(peer.send(&answer));
            }
            peer.close();
        });
        let items = items(5001);
        let results = look_up(quick(), server.spec(), &items);
        results.assert_all_found(&items);
        let properties = results
            .properties
            .contains(&ServerProperty::RequestsPerConnection(1000));
        assert!(properties, "{:?}", results.properties);
        assert!(
            !results
                .properties
                .contains(&ServerProperty::Pipelining(PipeliningSupport::Broken))
        );
        assert!(results.down.is_empty());
        assert!(server.connections() <= 7, "{}", server.connections());
        // Whatever a limited connection gets is answered; requests beyond the limit of the first
        // ones are not read by this server, so those it read were answered: none twice.
        assert_requested_once(&server);
    }
}

#[test]
fn a_known_limit_is_respected_and_can_be_wrong() {
    let server = TestServer::answering(correct);
    let spec = ServerSpec {
        requests_per_connection: Some(10),
        ..server.spec()
    };
    look_up(quick(), spec, &items(100)).assert_all_found(&items(100));
    assert_requested_once(&server);
    assert!(server.connections() <= 2, "{}", server.connections());
}

#[test]
fn one_request_per_connection() {
    for announced in [true, false] {
        let server = TestServer::start(move |mut peer| {
            let Some(path) = peer.request() else { return };
            let mut answer = correct(&path);
            if announced {
                answer.splice(15..15, *b"\r\nConnection: close");
            }
            assert!(peer.send(&answer));
            peer.close();
        });
        let results = look_up(quick(), server.spec(), &items(30));
        results.assert_all_found(&items(30));
        assert_requested_once(&server);
        assert!(results.down.is_empty());
    }
}

#[test]
fn responses_may_come_in_single_bytes() {
    let server = TestServer::start(|mut peer| {
        while let Some(path) = peer.request() {
            for byte in correct(&path) {
                assert!(peer.send(&[byte]));
            }
        }
    });
    look_up(quick(), server.spec(), &items(50)).assert_all_found(&items(50));
    assert_requested_once(&server);
}

#[test]
fn interim_responses_and_missing_lengths() {
    let server = TestServer::start(|mut peer| {
        while let Some(path) = peer.request() {
            let text = narinfo_text(&path);
            if path.ends_with("7.narinfo") {
                assert!(peer.send(format!("HTTP/1.1 200 OK\r\n\r\n{text}").as_bytes()));
                return peer.close();
            }
            assert!(peer.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\n"));
            assert!(peer.send(&correct(&path)));
        }
    });
    look_up(quick(), server.spec(), &items(40)).assert_all_found(&items(40));
    assert_requested_once(&server);
}

#[test]
fn statuses_become_answers() {
    let server = TestServer::answering(|path| match path.as_bytes().get(32).unwrap_or(&b'-') {
        b'0' => response("404 No", "Cache-Control: max-age=7\r\n", "gone"),
        b'1' => response("410 Gone", "", ""),
        b'2' => response("202 Later", "", ""),
        b'3' => response(
            "404 No",
            "X-Baking: 1\r\nCache-Control: max-age=300\r\n",
            "",
        ),
        b'4' => response("403 Forbidden", "", "<Error/>"),
        b'5' => response("200 OK", "Content-Encoding: br\r\n", "x"),
        b'6' => response("200 OK", "Cache-Control: no-cache\r\n", "NarHash: x"),
        b'8' => response("501 What", "", ""),
        _ => correct(path),
    });
    let results = look_up(quick(), server.spec(), &items(10));
    let answer = |n| results.answers[&item(n)].clone().unwrap();
    assert_eq!(
        answer(0),
        NarInfoAnswer::Missing {
            status: 404,
            max_age: Some(7)
        }
    );
    assert_eq!(
        answer(1),
        NarInfoAnswer::Missing {
            status: 410,
            max_age: None
        }
    );
    assert_eq!(
        answer(2),
        NarInfoAnswer::Preparing {
            status: 202,
            max_age: None
        }
    );
    assert_eq!(
        answer(3),
        NarInfoAnswer::Preparing {
            status: 404,
            max_age: Some(300)
        }
    );
    assert_eq!(status(&results, 4), Some(403));
    assert!(matches!(
        results.error(item(5)).kind(),
        HttpErrorKind::Unexpected { .. }
    ));
    assert_eq!(
        answer(6),
        NarInfoAnswer::Found {
            text: b"NarHash: x".to_vec(),
            max_age: Some(0)
        }
    );
    results.assert_found(item(7));
    assert_eq!(status(&results, 8), Some(501));
    assert_requested_once(&server);
}

#[test]
fn a_page_for_everything_says_nothing_about_the_server() {
    let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>";
    let server = TestServer::start(move |mut peer| {
        if peer.request().is_some() {
            peer.send(page.as_bytes());
            peer.close();
        }
    });
    let results = look_up(quick(), server.spec(), &items(5));
    for n in 0..5 {
        let error = results.error(item(n));
        assert!(error.is_unexpected_content(), "{error:?}");
        assert_eq!(error.class(), HttpErrorClass::Transient);
        assert_eq!(error.attempts, 1);
    }
    let error = results.cache_infos[0].as_ref().unwrap_err();
    let text = error.without_url().to_string();
    assert!(
        text.starts_with("the response is not nix-cache-info but `text/html`"),
        "{text}"
    );
    let is_limit =
        |property: &ServerProperty| matches!(property, ServerProperty::RequestsPerConnection(_));
    assert!(!results.properties.iter().any(is_limit));
    assert!(results.down.is_empty());
}

#[test]
fn oversized_responses_fail_only_their_request() {
    let server = TestServer::start(|mut peer| {
        while let Some(path) = peer.request() {
            let block = vec![b'x'; 64 << 10];
            if path.ends_with("3.narinfo") {
                peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n");
                while peer.send(&block) {}
                return;
            } else if path.ends_with("5.narinfo") {
                peer.send(b"HTTP/1.1 200 OK\r\n");
                while peer.send(b"X-Header: 0123456789012345678901234567890123456789\r\n") {}
                return;
            } else if path.ends_with("7.narinfo") {
                peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                while peer.send(b"10000\r\n") && peer.send(&block) && peer.send(b"\r\n") {}
                return;
            }
            assert!(peer.send(&correct(&path)));
        }
    });
    let results = look_up(quick(), server.spec(), &items(10));
    for n in [0, 1, 2, 4, 6, 8, 9] {
        results.assert_found(item(n));
    }
    for n in [3, 7] {
        assert_eq!(results.error(item(n)).class(), HttpErrorClass::Refused);
    }
    let header = results.error(item(5));
    assert!(
        matches!(header.kind(), HttpErrorKind::Malformed(_)),
        "{header:?}"
    );
    assert!(results.down.is_empty());
    assert!(
        !results
            .properties
            .contains(&ServerProperty::Pipelining(PipeliningSupport::Broken))
    );
}

#[test]
fn a_server_that_does_not_speak_http_is_down() {
    let server = TestServer::start(|mut peer| {
        while peer.request().is_some() {
            peer.send(b"<html>hello</html>\r\n\r\n");
        }
    });
    let results = look_up(quick(), server.spec(), &items(50));
    assert!(results.answers.values().all(Result::is_err));
    assert_eq!(results.down.len(), 1);
    assert!(server.connections() <= 10, "{}", server.connections());
}

#[test]
fn a_server_that_never_answers_costs_one_timeout() {
    let server = TestServer::start(Peer::stall);
    let client = Client::new(short_stall()).unwrap();
    let (lookups, mut events) = client.lookups(vec![server.spec()].into()).unwrap();
    items(20)
        .into_iter()
        .for_each(|item| lookups.request(ServerIndex::FIRST, item));
    let mut results = LookupResults::default();
    collect(&mut events, &mut results, 20);
    assert_eq!(results.down.len(), 1);
    assert!(matches!(results.down[0].kind(), HttpErrorKind::Stalled(_)));
    assert_eq!(results.cache_infos.len(), 1);
    assert_eq!(server.connections(), 1);
    lookups.request(ServerIndex::FIRST, item(99));
    collect(&mut events, &mut results, 21);
    assert_eq!(results.error(item(99)).class(), HttpErrorClass::Transient);
    assert_eq!((results.down.len(), server.connections()), (1, 1));
}

#[test]
fn a_refusing_server_is_down() {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let spec = ServerSpec::new(ServerUrl::parse(&format!("http://{address}")).unwrap());
    let results = look_up(quick(), spec, &items(20));
    assert_eq!(results.down.len(), 1);
    assert!(
        matches!(results.down[0].kind(), HttpErrorKind::Connect(_)),
        "{:?}",
        results.down
    );
    assert!(results.answers.values().all(|answer| answer.is_err()));
}

#[test]
fn an_unknown_host_is_down() {
    let spec = ServerSpec::new(ServerUrl::parse("http://no-such-host.invalid").unwrap());
    let nar = NarRequest::new(spec.url.nar_url("nar").unwrap());
    let results = look_up(quick(), spec, &items(1));
    let nar_error = Client::new(quick()).unwrap().nar(nar).unwrap_err();
    for error in [&results.down[0], &nar_error] {
        let text = error.without_url().to_string();
        let expected = "cannot resolve no-such-host.invalid: no such host, or no network";
        assert!(text.ends_with(expected), "{text}");
    }
    assert!(
        matches!(results.down[0].kind(), HttpErrorKind::Resolve { .. }),
        "{:?}",
        results.down
    );
}

#[test]
fn a_server_that_stops_reading_does_not_block() {
    // Requests of 8 KB and answers of 64 KB: neither side's buffers hold all of them.
    let server = TestServer::start(|mut peer| {
        let padding = "x".repeat(64 << 10);
        while let Some(path) = peer.request() {
            let body = narinfo_text(&path) + &padding;
            assert!(peer.send(&response("200 OK", "", &body)));
        }
    });
    let options = Options {
        user_agent: "a".repeat(8 << 10),
        ..quick()
    };
    look_up(options, server.spec(), &items(1000)).assert_all_found(&items(1000));
    assert_requested_once(&server);
}

#[test]
fn resets_inside_an_answer() {
    let server = TestServer::start(|mut peer| {
        for number in 0.. {
            let Some(path) = peer.request() else { return };
            let answer = correct(&path);
            if number == 20 && peer.number < 5 {
                peer.send(&answer[..answer.len() / 2]);
                return peer.reset();
            }
            assert!(peer.send(&answer));
        }
    });
    let results = look_up(quick(), server.spec(), &items(200));
    results.assert_all_found(&items(200));
    assert!(results.down.is_empty());
}

#[test]
fn a_request_that_breaks_every_connection_fails_alone() {
    let server = TestServer::start(|mut peer| {
        while let Some(path) = peer.request() {
            if path.ends_with("50.narinfo") {
                return peer.close();
            }
            assert!(peer.send(&correct(&path)));
        }
    });
    let results = look_up(quick(), server.spec(), &items(100));
    let error = results.error(item(50));
    assert!(matches!(error.kind(), HttpErrorKind::Closed), "{error:?}");
    assert_eq!(error.attempts, 4);
    (0..100)
        .filter(|&n| n != 50)
        .for_each(|n| results.assert_found(item(n)));
    assert!(results.down.is_empty());
    assert!(
        !results
            .properties
            .contains(&ServerProperty::Pipelining(PipeliningSupport::Broken))
    );
}

#[test]
fn a_server_that_closes_every_connection_is_down_after_some_attempts() {
    let server = TestServer::start(|mut peer| {
        peer.request();
        peer.close();
    });
    let results = look_up(quick(), server.spec(), &items(100));
    assert_eq!(results.down.len(), 1);
    assert_eq!(server.connections(), 4);
}

#[test]
fn mismatched_responses_turn_pipelining_off() {
    let server = TestServer::start(|mut peer| {
        let mut answered = 0;
        while let Some(path) = peer.request() {
            answered += 1;
            // Loses its third request when another one is waiting.
            if answered % 3 == 0 && peer.has_more() {
                continue;
            }
            assert!(peer.send(&correct(&path)));
        }
    });
    let results = look_up(short_stall(), server.spec(), &items(60));
    results.assert_all_found(&items(60));
    assert!(
        results
            .properties
            .contains(&ServerProperty::Pipelining(PipeliningSupport::Broken))
    );
    assert!(results.down.is_empty());
}

#[test]
fn dropped_pipelined_requests_turn_pipelining_off() {
    let server = TestServer::start(|mut peer| {
        while let Some(path) = peer.request() {
            while peer.has_more() {
                peer.request();
            }
            assert!(peer.send(&correct(&path)));
        }
    });
    let results = look_up(short_stall(), server.spec(), &items(20));
    results.assert_all_found(&items(20));
    assert!(
        results
            .properties
            .contains(&ServerProperty::Pipelining(PipeliningSupport::Broken))
    );
    assert!(results.down.is_empty());
}

#[test]
fn closing_pipelined_connections_turns_pipelining_off() {
    let server = TestServer::start(|mut peer| {
        while let Some(path) = peer.request() {
            if peer.has_more() {
                return peer.close();
            }
            assert!(peer.send(&correct(&path)));
        }
    });
    let results = look_up(quick(), server.spec(), &items(20));
    results.assert_all_found(&items(20));
    assert!(
        results
            .properties
            .contains(&ServerProperty::Pipelining(PipeliningSupport::Broken))
    );
    assert!(results.down.is_empty());
}

#[test]
fn known_servers_without_pipelining_get_one_request_at_a_time() {
    let server = TestServer::start(|mut peer| {
        while let Some(path) = peer.request() {
            assert!(!peer.has_more());
            assert!(peer.send(&correct(&path)));
        }
    });
    let spec = ServerSpec {
        pipelining: PipeliningSupport::Broken,
        ..server.spec()
    };
    look_up(quick(), spec, &items(50)).assert_all_found(&items(50));
    assert_eq!(server.connections(), 1);
    assert_requested_once(&server);
}

#[test]
fn a_narinfo_of_another_item_is_passed_on() {
    let server = TestServer::answering(|path| match path {
        "/nix-cache-info" => correct(path),
        _ if path.ends_with("5.narinfo") => correct("/99999999999999999999999999999999.narinfo"),
        _ => correct(path),
    });
    let results = look_up(quick(), server.spec(), &items(10));
    (0..10)
        .filter(|&n| n != 5)
        .for_each(|n| results.assert_found(item(n)));
    let Ok(NarInfoAnswer::Found { text, .. }) = &results.answers[&item(5)] else {
        panic!()
    };
    assert!(text.starts_with(b"StorePath: /gnu/store/9999"));
    assert!(
        !results
            .properties
            .contains(&ServerProperty::Pipelining(PipeliningSupport::Broken))
    );
}

/// After a pause one request at a time is sent, and a redirected one counts.
#[test]
fn a_redirect_that_leads_nowhere_does_not_block_other_requests() {
    let nowhere = TestServer::start(|peer| {
        std::thread::sleep(Duration::from_millis(100));
        drop(peer);
    });
    let (elsewhere, requested) = (nowhere.url(), Mutex::new(HashSet::new()));
    let server = TestServer::answering(move |path| match path {
        "/nix-cache-info" => response("302 Found", &format!("Location: {elsewhere}/x\r\n"), ""),
        _ if requested.lock().unwrap().insert(path.to_owned()) => {
            response("503 Busy", "Retry-After: 0\r\n", "")
        }
        _ => correct(path),
    });
    look_up(quick(), server.spec(), &items(1)).assert_all_found(&items(1));
}

#[test]
fn requests_two_redirects_away_fail_when_the_first_server_goes_down() {
    let reached = Arc::new(AtomicBool::new(false));
    let last = TestServer::start({
        let reached = Arc::clone(&reached);
        move |mut peer| {
            peer.request();
            reached.store(true, Ordering::Relaxed);
            peer.stall();
        }
    });
    let there = last.url();
    let middle = TestServer::answering(move |path| {
        response("307 There", &format!("Location: {there}{path}\r\n"), "")
    });
    let there = middle.url();
    let first = TestServer::answering(move |path| match path {
        "/nix-cache-info" => correct(path),
        _ if path.ends_with("9.narinfo") => {
            while !reached.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
            }
            response("429 Enough", "Retry-After: 3600\r\n", "")
        }
        _ => response("307 There", &format!("Location: {there}{path}\r\n"), ""),
    });
    let results = look_up(quick(), first.spec(), &items(10));
    assert_eq!(results.down.len(), 1);
    assert!(results.answers.values().all(|answer| answer.is_err()));
    assert!(last.connections() > 0);
}

#[test]
fn redirects_are_followed_and_loops_end() {
    let target = TestServer::answering(correct);
    let elsewhere = target.url();
    let server = TestServer::answering(move |path| match path {
        "/nix-cache-info" => correct(path),
        _ if path.ends_with("1.narinfo") => response("302 Loop", "Location: /loop\r\n", ""),
        "/loop" => response("302 Loop", "Location: /loop\r\n", ""),
        _ if path.ends_with("2.narinfo") => {
            response("301 Bad", "Location: file:///etc/passwd\r\n", "")
        }
        _ => response("307 There", &format!("Location: {elsewhere}{path}\r\n"), ""),
    });
    let results = look_up(quick(), server.spec(), &items(6));
    [0, 3, 4, 5]
        .iter()
        .for_each(|&n| results.assert_found(item(n)));
    assert!(matches!(
        results.error(item(1)).kind(),
        HttpErrorKind::TooManyRedirects(_)
    ));
    assert!(matches!(
        results.error(item(2)).kind(),
        HttpErrorKind::BadRedirect(_)
    ));
    assert_eq!(target.requests().len(), 4);
}

#[test]
fn a_server_that_redirects_everything_costs_one_more_connection() {
    let target = TestServer::answering(correct);
    let elsewhere = target.url();
    let there =
        move |path: &str| response("301 There", &format!("Location: {elsewhere}{path}\r\n"), "");
    let server = TestServer::answering(there);
    let results = look_up(quick(), server.spec(), &items(3000));
    results.assert_all_found(&items(3000));
    assert!(results.cache_infos[0].is_ok());
    assert_requested_once(&server);
    assert_requested_once(&target);
    assert_eq!(server.connections(), 1);
    // The items on one, and `nix-cache-info`, which is followed by itself, on another.
    assert_eq!(target.connections(), 2);
    let protocols = results
        .properties
        .iter()
        .filter(|property| matches!(property, ServerProperty::Protocol(_)));
    assert_eq!(protocols.count(), 1);
}

#[test]
fn servers_that_redirect_to_each_other_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let second = format!("http://{}", listener.local_addr().unwrap());
    let there = second.clone();
    let first = TestServer::answering(move |path| {
        response("302 There", &format!("Location: {there}{path}\r\n"), "")
    });
    let back = first.url();
    let second = TestServer::with(listener, move |mut peer| {
        while let Some(path) = peer.request() {
            let location = format!("Location: {back}{path}\r\n");
            assert!(peer.send(&response("302 Back", &location, "")));
        }
    });
    let results = look_up(quick(), first.spec(), &items(5));
    for n in 0..5 {
        let error = results.error(item(n));
        assert!(
            matches!(error.kind(), HttpErrorKind::TooManyRedirects(_)),
            "{error:?}"
        );
    }
    assert!(results.down.is_empty());
    assert!(second.connections() < 50);
}

#[test]
fn a_redirect_to_a_dead_server_fails_the_items_only() {
    let dead = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let server = TestServer::answering(move |path| match path.ends_with("3.narinfo") {
        true => response(
            "302 There",
            &format!("Location: http://{dead}{path}\r\n"),
            "",
        ),
        false => correct(path),
    });
    let results = look_up(quick(), server.spec(), &items(20));
    for n in 0..20 {
        if n % 10 == 3 {
            let error = results.error(item(n));
            let kind = error.kind().innermost();
            assert!(matches!(kind, HttpErrorKind::Connect(_)), "{error:?}");
            let text = error.without_url().to_string();
            let expected = format!("redirected to http://{dead}/");
            assert!(text.contains(&expected), "{text}");
        } else {
            results.assert_found(item(n));
        }
    }
    assert!(results.down.is_empty());
}

/// More servers than may answer in one's name at the same time: each of them is down at first.
#[test]
fn redirect_targets_that_were_down_are_used_when_they_are_up() {
    let is_up = Arc::new(AtomicBool::new(false));
    let is_library = Arc::new(AtomicBool::new(false));
    let targets: [TestServer; 16] = std::array::from_fn(|_| {
        let (is_up, is_library) = (Arc::clone(&is_up), Arc::clone(&is_library));
        TestServer::start(move |mut peer| {
            while let Some(path) = peer.request() {
                // The HTTP library has small letters here.
                is_library.fetch_or(!peer.head.contains("Host: "), Ordering::Relaxed);
                if !is_up.load(Ordering::Relaxed) || !peer.send(&correct(&path)) {
                    break;
                }
            }
        })
    });
    let urls = targets.each_ref().map(TestServer::url);
    let server = TestServer::answering(move |path| {
        let name = path.trim_start_matches('/').trim_end_matches(".narinfo");
        let Ok(number) = name.parse::<usize>() else {
            return correct(path);
        };
        let there = &urls[number % urls.len()];
        response("307 There", &format!("Location: {there}{path}\r\n"), "")
    });
    let options = Options {
        target_skip_time: Duration::ZERO,
        ..quick()
    };
    let (lookups, mut events) = Client::new(options)
        .unwrap()
        .lookups(vec![server.spec()].into())
        .unwrap();
    let mut results = LookupResults::default();
    for n in 0..24 {
        is_up.store(n >= 16, Ordering::Relaxed);
        lookups.request(ServerIndex::FIRST, item(n));
        collect(&mut events, &mut results, n + 1);
        match n {
            0..16 => assert!(results.error(item(n)).status().is_none()),
            _ => results.assert_found(item(n)),
        }
    }
    assert!(!is_library.load(Ordering::Relaxed), "followed one by one");
}

#[test]
fn an_idle_connection_may_be_closed() {
    let server = TestServer::start(|mut peer| {
        for _ in 0..11 {
            let Some(path) = peer.request() else { return };
            assert!(peer.send(&correct(&path)));
        }
        peer.close();
    });
    let client = Client::new(quick()).unwrap();
    let (lookups, mut events) = client.lookups(vec![server.spec()].into()).unwrap();
    let mut results = LookupResults::default();
    for round in 0..5 {
        (0..10).for_each(|n| lookups.request(ServerIndex::FIRST, item(10 * round + n)));
        collect(&mut events, &mut results, 10 * round + 10);
    }
    results.assert_all_found(&items(50));
    assert_requested_once(&server);
    assert!(results.down.is_empty());
}

#[test]
fn dropping_the_handles_ends_the_events() {
    let server = TestServer::start(Peer::stall);
    let client = Client::new(quick()).unwrap();
    let (lookups, mut events) = client.lookups(vec![server.spec()].into()).unwrap();
    lookups.clone().request(ServerIndex::FIRST, item(0));
    drop(lookups);
    drop(client);
    while events.recv().is_some() {}
    assert!(events.queue().try_recv().unwrap_err().is_disconnected());
}

/// A server with answers of a megabyte.
fn verbose_server() -> TestServer {
    TestServer::answering(|path| {
        response("200 OK", "", &(narinfo_text(path) + &"x".repeat(1_000_000)))
    })
}

/// Waits until the server is not read from any more; how many requests it has read by then.
fn wait_for_standstill(server: &TestServer) -> usize {
    let mut before = 0;
    while server.requests().len() > before {
        before = server.requests().len();
        std::thread::sleep(Duration::from_millis(100));
    }
    before
}

#[test]
fn a_server_is_not_read_while_the_caller_takes_no_answers() {
    let server = verbose_server();
    let client = Client::new(quick()).unwrap();
    let (lookups, mut events) = client.lookups(vec![server.spec()].into()).unwrap();
    items(200)
        .into_iter()
        .for_each(|item| lookups.request(ServerIndex::FIRST, item));
    let mut results = LookupResults::default();
    collect(&mut events, &mut results, 1);
    let kept = wait_for_standstill(&server);
    assert!(kept < 100, "{kept} answers are kept");
    collect(&mut events, &mut results, 200);
    results.assert_all_found(&items(200));
}

#[test]
fn a_single_server_can_have_its_own_timeouts() {
    let server = TestServer::start(Peer::stall);
    let timeouts = Timeouts {
        connect: Duration::from_secs(1),
        stall: Duration::from_millis(50),
    };
    let spec = ServerSpec {
        timeouts: Some(timeouts),
        ..server.spec()
    };
    let results = look_up(quick(), spec, &items(1));
    assert!(matches!(results.down[0].kind(), HttpErrorKind::Stalled(_)));
}

#[test]
fn a_stall_weighs_more_than_one_attempt_and_is_reported_as_one() {
    let server = TestServer::start(|mut peer| {
        while let Some(path) = peer.request() {
            if path.ends_with("3.narinfo") {
                return peer.stall();
            }
            assert!(peer.send(&correct(&path)));
        }
    });
    let results = look_up(short_stall(), server.spec(), &items(10));
    let sent = server
        .requests()
        .iter()
        .filter(|path| path.ends_with("3.narinfo"))
        .count();
    assert_eq!(results.error(item(3)).attempts as usize, sent);
}

#[test]
fn a_response_whose_bytes_come_too_slowly_ends() {
    let server = TestServer::start(|mut peer| {
        peer.request();
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        while peer.send(b"x") {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let options = Options {
        answer_timeout: Duration::from_millis(100),
        stall_timeout: Duration::MAX,
        ..quick()
    };
    let results = look_up(options, server.spec(), &items(3));
    assert!(matches!(results.down[0].kind(), HttpErrorKind::Stalled(_)));
}
