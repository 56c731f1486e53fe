//! Requests that write to a bucket.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crate::http::error::HttpErrorKind;
use crate::http::testing::*;
use crate::http::*;

#[test]
fn requests_with_a_gate_of_their_own_do_not_wait_for_others() {
    let server = TestServer::start(|mut peer| {
        while let Some(path) = peer.request() {
            // Without an answer, as if the request was still being sent.
            if path.contains("large") || !peer.send(&response("200 OK", "", "")) {
                std::thread::park();
            }
        }
    });
    let bucket = Arc::new(bucket(&server.url()));
    let busy = Arc::clone(&bucket);
    std::thread::spawn(move || {
        let puts: Vec<_> = (0..40)
            .map(|number| put(&format!("large{number}")))
            .collect();
        busy.put_all(&puts)
    });
    while server.requests().len() < 16 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (sender, written) = mpsc::channel();
    let own = bucket.with_own_gate();
    std::thread::spawn(move || sender.send(own.put_all(&[put("claim")]).unwrap()));
    // Without a gate of its own it waits for as long as the others are repeated.
    let written = written.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(written, [PutOutcome::Written(None)]);
    assert_eq!(server.requests().len(), 17, "the others still wait");
}

fn put(key: &str) -> ObjectPut {
    ObjectPut::bytes(key, Vec::new(), "text/plain")
}

#[test]
fn a_removal_is_not_sent_again_without_permission() {
    let server = TestServer::answering(|_| response("503 Slow Down", "", ""));
    let attempts = AtomicUsize::new(0);
    let permit = SendPermit::new(move || attempts.fetch_add(1, Ordering::Relaxed) < 2);
    let keys = ["a".to_owned()];
    let refused = bucket(&server.url()).remove_all(&keys, Some(&permit));
    assert!(matches!(
        refused.unwrap_err().kind(),
        HttpErrorKind::Canceled
    ));
    assert_eq!(server.requests().len(), 2);
}
