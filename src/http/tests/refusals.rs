//! Lookups at servers that refuse requests, or answer with errors that may pass.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::format::server_list::ServerIndex;
use crate::http::testing::*;
use crate::http::*;

#[test]
fn an_overloaded_server_is_paused() {
    // All that is sent ahead, and two more: three pauses, with a fourth it would be down.
    let refused = [11, 1, 1].into_iter().enumerate();
    let server = TestServer::start(move |mut peer| {
        let slow = response("429 Slow", "Retry-After: 0\r\n", "");
        for (number, count) in refused.clone() {
            for _ in 0..count {
                assert!(peer.request().is_some());
            }
            for _ in 0..count {
                // The first pause is over before the last answer comes.
                if number == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                assert!(peer.send(&slow));
            }
        }
        while let Some(path) = peer.request() {
            assert!(peer.send(&correct(&path)));
        }
    });
    let results = look_up(quick(), server.spec(), &items(10));
    results.assert_all_found(&items(10));
    assert!(results.down.is_empty());
}

/// As limits of requests in a second do it: some are answered at once, and all that come too soon after them are refused.
#[test]
fn a_server_that_answers_a_few_at_a_time_answers_all_in_the_end() {
    const BURST: usize = 8;
    const ITEMS: usize = 300;
    let refused = Arc::new(AtomicUsize::new(0));
    let server = TestServer::start({
        let refused = Arc::clone(&refused);
        move |mut peer| {
            let slow_down = response("503 Slow Down", "", "");
            let mut left = BURST;
            while let Some(path) = peer.request() {
                let answer = match left {
                    0 => &slow_down,
                    _ => &correct(&path),
                };
                refused.fetch_add(usize::from(left == 0), Ordering::Relaxed);
                left = match left {
                    0 if !peer.has_more() => BURST,
                    left => left.saturating_sub(1),
                };
                assert!(peer.send(answer));
            }
        }
    });
    let results = look_up(quick(), server.spec(), &items(ITEMS));
    results.assert_all_found(&items(ITEMS));
    assert!(results.down.is_empty());
    // All that were sent before the first refusal, and no more than a few for each that was answered.
    let refused = refused.load(Ordering::Relaxed);
    assert!((ITEMS / 2..3 * ITEMS).contains(&refused), "{refused}");
}

/// A status of the whole server, but for one item alone.
#[test]
fn an_item_that_is_always_refused_fails_alone() {
    let server = TestServer::answering(|path| match path.ends_with("3.narinfo") {
        true => response("503 Busy", "", ""),
        false => correct(path),
    });
    let results = look_up(quick(), server.spec(), &items(10));
    (0..10)
        .filter(|&n| n != 3)
        .for_each(|n| results.assert_found(item(n)));
    assert_eq!(status(&results, 3), Some(503));
    assert!(results.down.is_empty());
}

/// A refusal is final for the request alone, whether the server refuses it for one item or now and then.
#[test]
fn a_request_that_fails_at_once_leaves_the_others_their_answers() {
    for status_line in ["503 Busy", "429 Slow", "500 Oops"] {
        let server = TestServer::answering(move |path| match path.ends_with("3.narinfo") {
            true => response(status_line, "", ""),
            false => correct(path),
        });
        let results = look_up(quick(), failing_at_once(&server), &items(60));
        for n in 0..60 {
            match n % 10 {
                3 => assert!(status(&results, n).is_some(), "{status_line}"),
                _ => results.assert_found(item(n)),
            }
        }
        assert!(results.down.is_empty(), "{status_line}");
        // The items, and the `nix-cache-info`.
        assert_eq!(server.requests().len(), 61, "{status_line}");
    }
}

#[test]
fn a_redirected_request_that_fails_at_once_is_sent_once() {
    let elsewhere = TestServer::answering(|_| response("503 Busy", "", ""));
    let url = elsewhere.url();
    let server = TestServer::answering(move |path| match path {
        "/nix-cache-info" => correct(path),
        _ => response("302 There", &format!("Location: {url}/x\r\n"), ""),
    });
    let results = look_up(quick(), failing_at_once(&server), &items(1));
    assert_eq!(results.error(item(0)).status(), Some(503));
    assert_eq!(elsewhere.requests(), ["/x"]);
}

fn failing_at_once(server: &TestServer) -> ServerSpec {
    ServerSpec {
        fails_at_once: true,
        ..server.spec()
    }
}

#[test]
fn a_long_pause_is_reported() {
    let is_first = AtomicUsize::new(1);
    let server = TestServer::answering(move |path| match path.ends_with("0.narinfo") {
        true if is_first.swap(0, Ordering::Relaxed) == 1 => {
            response("429 Slow", "Retry-After: 2\r\n", "")
        }
        _ => correct(path),
    });
    let results = look_up(quick(), server.spec(), &items(1));
    results.assert_all_found(&items(1));
    assert!(results.awaited.iter().all(HttpError::is_overload));
    assert_eq!(results.awaited.len(), 1);
}

#[test]
fn a_long_retry_after_is_not_waited_for() {
    let server = TestServer::answering(|_| response("503 Busy", "Retry-After: 3600\r\n", ""));
    let results = look_up(quick(), server.spec(), &items(10));
    assert_eq!(results.down.len(), 1);
    assert_eq!(
        results.down[0].retry_after(),
        Some(Duration::from_secs(3600))
    );
    assert!(results.answers.values().all(|answer| answer.is_err()));
}

#[test]
fn a_request_with_an_error_status_is_repeated_then_fails() {
    let server = TestServer::answering(|path| match path.ends_with("3.narinfo") {
        true => response("500 Oops", "", ""),
        false => correct(path),
    });
    let results = look_up(quick(), server.spec(), &items(10));
    assert_eq!(status(&results, 3), Some(500));
    assert_eq!(results.error(item(3)).attempts, 4);
    assert!(results.down.is_empty());
}

/// The wait may end before the connection has begun to wait for its end.
#[test]
fn a_request_is_repeated_after_the_shortest_of_waits() {
    let requested = Mutex::new(HashSet::new());
    let server = TestServer::answering(move |path| {
        match requested.lock().unwrap().insert(path.to_owned()) {
            true => response("500 Oops", "", ""),
            false => correct(path),
        }
    });
    let mut options = quick();
    options.retry_policy.base = Duration::from_micros(100);
    let (lookups, mut events) = Client::new(options)
        .unwrap()
        .lookups(vec![server.spec()].into())
        .unwrap();
    let mut results = LookupResults::default();
    for (count, item) in (1..).zip(items(300)) {
        lookups.request(ServerIndex::FIRST, item);
        collect(&mut events, &mut results, count);
    }
    results.assert_all_found(&items(300));
}
