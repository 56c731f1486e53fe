//! Lookups at servers that answer some, and then fail as a whole for a time or for good; and a server that does not finish a
//! connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use url::Url;

use crate::format::server_list::ServerIndex;
use crate::format::server_url::ServerUrl;
use crate::format::store_path::HashPart;
use crate::http::error::HttpErrorKind;
use crate::http::testing::*;
use crate::http::tests::tls::insecure;
use crate::http::*;

const ANSWERED: usize = 5;
const OTHERS: usize = 20;

/// What happens to lookups of items that are requested after some were answered.
struct Outage {
    answered: LookupResults,
    others: LookupResults,
}

/// Looks up [`ANSWERED`] items, then calls `begin`, then looks up [`OTHERS`] more.
fn look_up_in_outage(server: &TestServer, retry_time: Duration, begin: impl FnOnce()) -> Outage {
    let spec = ServerSpec {
        retry_limits: RetryLimits {
            time: retry_time,
            ..RetryLimits::default()
        },
        ..server.spec()
    };
    let client = Client::new(quick()).unwrap();
    let (lookups, mut events) = client.lookups(vec![spec].into()).unwrap();
    let mut look_up = |items: &[HashPart]| {
        items
            .iter()
            .for_each(|&item| lookups.request(ServerIndex::FIRST, item));
        let mut results = LookupResults::default();
        collect(&mut events, &mut results, items.len());
        results
    };
    let answered = look_up(&items(ANSWERED));
    begin();
    let others = look_up(&others());
    Outage { answered, others }
}

fn others() -> Vec<HashPart> {
    (ANSWERED..ANSWERED + OTHERS).map(item).collect()
}

/// A server that answers as `failing` does as soon as the returned switch is on, to so many requests.
fn failing_server(
    failures: usize,
    failing: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> (TestServer, Arc<AtomicBool>) {
    let is_failing = Arc::new(AtomicBool::new(false));
    let left = AtomicUsize::new(failures);
    let switch = Arc::clone(&is_failing);
    let server = TestServer::answering(move |path| {
        let failure = failing(path).filter(|_| switch.load(Ordering::Relaxed));
        let less = |left: usize| left.checked_sub(1);
        match failure {
            Some(failure)
                if left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
                    .is_ok() =>
            {
                failure
            }
            _ => correct(path),
        }
    });
    (server, is_failing)
}

fn bad_gateway(_: &str) -> Option<Vec<u8>> {
    Some(response("502 Bad Gateway", "", ""))
}

fn switched_on(switch: &Arc<AtomicBool>) -> impl FnOnce() {
    || switch.store(true, Ordering::Relaxed)
}

/// A gateway whose servers restart answers everything with 502 meanwhile.
#[test]
fn a_server_that_answers_with_errors_for_a_time_is_waited_for() {
    let (server, switch) = failing_server(2 * OTHERS + 5, bad_gateway);
    let outage = look_up_in_outage(&server, Duration::from_secs(60), switched_on(&switch));
    outage.answered.assert_all_found(&items(ANSWERED));
    outage.others.assert_all_found(&others());
    assert!(outage.others.down.is_empty());
}

/// As what listens in the place of a server that is down: it takes connections, and ends them.
#[test]
fn a_server_whose_connections_end_for_a_time_is_waited_for() {
    let is_down = Arc::new(AtomicBool::new(false));
    let left = AtomicUsize::new(8);
    let switch = Arc::clone(&is_down);
    let server = TestServer::start(move |mut peer| {
        while let Some(path) = peer.request() {
            let less = |left: usize| left.checked_sub(1);
            if switch.load(Ordering::Relaxed)
                && left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
                    .is_ok()
            {
                return peer.close();
            }
            assert!(peer.send(&correct(&path)));
        }
    });
    let outage = look_up_in_outage(&server, Duration::from_secs(60), switched_on(&is_down));
    outage.others.assert_all_found(&others());
    assert!(outage.others.down.is_empty());
}

#[test]
fn a_server_that_fails_for_good_is_waited_for_as_long_as_allowed() {
    let (server, switch) = failing_server(usize::MAX, bad_gateway);
    let outage = look_up_in_outage(&server, Duration::from_secs(6), switched_on(&switch));
    assert_eq!(outage.others.down.len(), 1);
    assert!(
        !outage.others.awaited.is_empty(),
        "the user is told that it is waited for"
    );
    assert!(outage.others.answers.values().all(|answer| answer.is_err()));
}

#[test]
fn nothing_is_waited_for_without_retry_time() {
    let (server, switch) = failing_server(usize::MAX, bad_gateway);
    let outage = look_up_in_outage(&server, Duration::ZERO, switched_on(&switch));
    assert!(outage.others.awaited.is_empty());
    assert!(outage.others.answers.values().all(|answer| answer.is_err()));
}

/// A `nix-cache-info` is a file that may be there without a server that looks anything up.
#[test]
fn a_server_that_has_looked_up_nothing_is_not_waited_for() {
    let server = TestServer::answering(|path| match path {
        "/nix-cache-info" => correct(path),
        _ => response("502 Bad Gateway", "", ""),
    });
    let spec = ServerSpec {
        retry_limits: RetryLimits::default(),
        ..server.spec()
    };
    let results = look_up(quick(), spec, &items(3));
    (0..3).for_each(|n| assert_eq!(results.error(item(n)).attempts, 4));
    assert!(results.awaited.is_empty());
}

/// Nothing else is looked up that would show that the server answers.
#[test]
fn an_item_that_always_fails_fails_alone() {
    for cache_info in ["200 OK", "403 Forbidden", "404 Not Found", "500 Error"] {
        fails_alone_where_cache_info_is(cache_info);
    }
}

fn fails_alone_where_cache_info_is(cache_info: &'static str) {
    let failing = move |path: &str| match path {
        "/nix-cache-info" => Some(response(cache_info, "", "")),
        _ if path.ends_with("7.narinfo") => bad_gateway(path),
        _ => None,
    };
    let (server, switch) = failing_server(usize::MAX, failing);
    let outage = look_up_in_outage(&server, Duration::from_secs(6), switched_on(&switch));
    let results = outage.others;
    (others().into_iter())
        .filter(|it| !it.as_str().ends_with('7'))
        .for_each(|item| results.assert_found(item));
    assert_eq!(status(&results, 7), Some(502));
    assert!(results.error(item(7)).attempts <= 6);
    assert!(results.down.is_empty());
}

#[test]
fn a_server_has_its_own_time_to_connect_for_nars_too() {
    let server = TestServer::start(Peer::stall);
    let url = server.url().replace("http:", "https:");
    let options = Options {
        connect_timeout: Duration::from_secs(60),
        ..insecure(quick())
    };
    let connect = Duration::from_millis(100);
    let own = Timeouts {
        connect,
        stall: Duration::from_secs(5),
    };
    let options = Options {
        server_timeouts: vec![(ServerUrl::parse(&url).unwrap(), own)],
        ..options
    };
    let nar = Url::parse(&format!("{url}/nar")).unwrap();
    let error = Client::new(options).unwrap().nar(NarRequest::new(nar));
    let error = error.unwrap_err();
    let is_own = matches!(error.kind(), HttpErrorKind::ConnectTimeout(limit) if *limit == connect);
    assert!(is_own, "{error:?}");
}
