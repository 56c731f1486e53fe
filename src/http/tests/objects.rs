//! Requests that write to a bucket.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
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
        busy.put_all(&puts, None)
    });
    while server.requests().len() < 16 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (sender, written) = mpsc::channel();
    let own = bucket.with_own_gate();
    std::thread::spawn(move || sender.send(own.put_all(&[put("claim")], None).unwrap()));
    // Without a gate of its own it waits for as long as the others are repeated.
    let written = written.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(written, [PutOutcome::Written(None)]);
    assert_eq!(server.requests().len(), 17, "the others still wait");
}

fn put(key: &str) -> ObjectPut {
    ObjectPut::bytes(key, Vec::new(), "text/plain")
}

#[test]
fn nothing_is_removed_or_written_again_without_permission() {
    let server = TestServer::answering(|_| response("503 Slow Down", "", ""));
    let twice = || {
        let attempts = AtomicUsize::new(0);
        SendPermit::new(move || attempts.fetch_add(1, Ordering::Relaxed) < 2)
    };
    let bucket = bucket(&server.url());
    let removed = bucket.remove_all(&["a".to_owned()], Some(&twice()));
    let written = bucket.put_all(&[put("a")], Some(&twice()));
    let completed = bucket.complete_upload("a", "id", &[], Some(&twice()));
    let refused = [removed.err(), written.err(), completed.err()];
    for refused in refused.map(Option::unwrap) {
        assert!(matches!(refused.kind(), HttpErrorKind::Canceled));
    }
    assert_eq!(server.requests().len(), 6);
}

#[test]
fn a_list_without_end_is_given_up() {
    let pages = AtomicUsize::new(0);
    let server = TestServer::answering(move |_| {
        let page = pages.fetch_add(1, Ordering::Relaxed);
        if page == 50 {
            return response("404 Not Found", "", "");
        }
        let object = format!("<Key>{}</Key><Size>1</Size>", "k".repeat(1000));
        let next = "<IsTruncated>true</IsTruncated><NextContinuationToken>";
        let next = format!("{next}{page}</NextContinuationToken>");
        let objects = format!("<Contents>{object}</Contents>").repeat(100);
        let list = format!("<ListBucketResult>{objects}{next}</ListBucketResult>");
        response("200 OK", "", &list)
    });
    let failure = bucket(&server.url()).list("").unwrap_err();
    let is_no_list = matches!(failure.kind(), HttpErrorKind::Unexpected { .. });
    assert!(is_no_list, "{failure}");
}

/// Its system does not answer those who want to connect, since others wait to be accepted.
#[test]
fn an_object_store_that_has_answered_is_waited_for_when_connections_to_it_time_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let answer = move |stream: TcpStream| {
        let mut reader = std::io::BufReader::new(&stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if std::io::BufRead::read_line(&mut reader, &mut line).is_ok_and(|length| length == 0) {
                return;
            }
        }
        let _ = (&stream).write_all(&response("200 OK", "Connection: close\r\n", ""));
    };

    let (sender, kept_failing) = mpsc::channel();
    let observer = RetryObserver::new(move |error, _| {
        let is_connect = matches!(error.kind(), HttpErrorKind::ConnectTimeout(_));
        sender.send(is_connect).unwrap();
    });
    let options = Options {
        connect_timeout: Duration::from_millis(100),
        ..quick()
    };
    let url = format!("http://{address}");
    let bucket = bucket_with(&url, options, Duration::from_secs(600), Some(observer));
    let bucket = Arc::new(bucket);
    let putting = Arc::clone(&bucket);
    let first = std::thread::spawn(move || putting.put_all(&[put("first")], None));
    answer(listener.accept().unwrap().0);
    first.join().unwrap().unwrap();

    let waiting = TcpStream::connect(address).unwrap();
    let second = std::thread::spawn(move || bucket.put_all(&[put("second")], None));
    let is_connect = kept_failing.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(is_connect);
    drop(waiting);
    std::thread::spawn(move || {
        listener
            .incoming()
            .for_each(|stream| answer(stream.unwrap()))
    });
    let written = second.join().unwrap().unwrap();
    assert_eq!(written, [PutOutcome::Written(None)]);
}

#[test]
fn a_request_that_takes_longer_than_the_retry_time_is_repeated() {
    let requests = AtomicUsize::new(0);
    let server = TestServer::answering(move |_| {
        if requests.fetch_add(1, Ordering::Relaxed) == 0 {
            std::thread::sleep(Duration::from_secs(2));
            return response("500 Internal Server Error", "", "");
        }
        response("200 OK", "", "")
    });
    let bucket = bucket_with(&server.url(), quick(), Duration::from_secs(1), None);
    let written = bucket.put_all(&[put("a")], None).unwrap();
    assert_eq!(written, [PutOutcome::Written(None)]);
}

#[test]
fn without_retry_time_nothing_is_repeated() {
    let server = TestServer::answering(|_| response("500 Internal Server Error", "", ""));
    let bucket = bucket_with(&server.url(), quick(), Duration::ZERO, None);
    assert_eq!(bucket.put_all(&[put("a")], None).unwrap_err().attempts, 1);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn all_statuses_of_passing_trouble_are_repeated() {
    for status in [
        "425 Too Early",
        "409 Conflict",
        "504 Timeout",
        "520 Unknown",
        "530 Origin",
    ] {
        let requests = AtomicUsize::new(0);
        let server = TestServer::answering(move |_| {
            let is_first = requests.fetch_add(1, Ordering::Relaxed) == 0;
            response(if is_first { status } else { "200 OK" }, "", "")
        });
        let written = bucket(&server.url()).put_all(&[put("a")], None);
        assert_eq!(written.unwrap(), [PutOutcome::Written(None)], "{status}");
    }
}

/// The store sends the status before it knows what becomes of the request.
#[test]
fn an_upload_is_completed_again_as_long_as_errors_follow_the_status() {
    let failing = |failures: usize, code: &'static str| {
        let requests = AtomicUsize::new(0);
        TestServer::start(move |mut peer| {
            if peer.request().is_none() {
                return;
            }
            let is_complete = requests.fetch_add(1, Ordering::Relaxed) >= failures;
            let body = match is_complete {
                true => {
                    "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
                        .to_owned()
                }
                false => format!("<Error><Code>{code}</Code></Error>"),
            };
            peer.send(&response("200 OK", "Connection: close\r\n", &body));
            peer.close();
        })
    };
    let server = failing(6, "InternalError");
    let etag = bucket(&server.url()).complete_upload("a", "id", &[], None);
    assert_eq!(etag.unwrap().as_deref(), Some("e"));

    let server = failing(usize::MAX, "InvalidPart");
    let error = bucket(&server.url()).complete_upload("a", "id", &[], None);
    assert_eq!(error.unwrap_err().attempts, 1);

    let server = failing(usize::MAX, "InternalError");
    let bucket = bucket_with(&server.url(), quick(), Duration::from_millis(100), None);
    let error = bucket.complete_upload("a", "id", &[], None).unwrap_err();
    assert!(matches!(error.kind(), HttpErrorKind::Bucket(_)), "{error}");
    assert!(error.attempts > 1);
}
