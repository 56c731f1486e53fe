//! Responses without a length that end before the file does: the size in the narinfo says so, and may
//! be wrong itself.

use std::io::{BufReader, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use url::Url;

use super::{PATIENT, in_time, read_all, read_request};

const FILE: &[u8] = b"0123456789abcdefghij";

/// How a body without a length ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyEnd {
    /// The connection is closed.
    Close,
    /// The connection is reset.
    Reset,
    /// The last chunk.
    LastChunk,
    /// The connection is closed before the last chunk.
    NoLastChunk,
}

const ENDS: [BodyEnd; 4] = [
    BodyEnd::Close,
    BodyEnd::Reset,
    BodyEnd::LastChunk,
    BodyEnd::NoLastChunk,
];

/// A server whose responses end at `end_of` their number, and which gives ranges if it `gives_ranges`.
fn start(
    body_end: BodyEnd,
    gives_ranges: bool,
    end_of: impl Fn(u64) -> usize + Send + 'static,
) -> (Url, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/nar", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let Ok(Some(range)) = read_request(&mut reader) else {
                continue;
            };
            let end = end_of(counter.fetch_add(1, Ordering::Relaxed));
            let start = range.filter(|_| gives_ranges).map(|(start, _)| start);
            let body = &FILE[start.unwrap_or(0).min(end)..end];
            // A client that goes away is no failure of the server's.
            let _ = stream.write_all(&response(body_end, start, body));
            if body_end == BodyEnd::Reset {
                set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
            }
        }
    });
    (Url::parse(&url).unwrap(), requests)
}

fn response(body_end: BodyEnd, start: Option<usize>, body: &[u8]) -> Vec<u8> {
    let (last, total) = (FILE.len() - 1, FILE.len());
    let mut head = match start {
        Some(start) => {
            format!("HTTP/1.1 206 Part\r\nContent-Range: bytes {start}-{last}/{total}\r\n")
        }
        None => "HTTP/1.1 200 OK\r\n".to_owned(),
    };
    head.push_str("ETag: \"one\"\r\n");
    if matches!(body_end, BodyEnd::Close | BodyEnd::Reset) {
        head.push_str("Connection: close\r\n\r\n");
        return [head.as_bytes(), body].concat();
    }

    head.push_str("Transfer-Encoding: chunked\r\n\r\n");
    let length = format!("{:x}\r\n", body.len());
    let mut response = [head.as_bytes(), length.as_bytes(), body, b"\r\n"].concat();
    if body_end == BodyEnd::LastChunk {
        response.extend_from_slice(b"0\r\n\r\n");
    }
    response
}

/// What comes from `url` for a file of which the narinfo says that it has `file_size` bytes.
fn read(url: Url, file_size: Option<u64>) -> std::io::Result<Vec<u8>> {
    in_time(move || read_all(url, None, file_size, PATIENT, Duration::from_secs(60)))
}

const SIZE: Option<u64> = Some(FILE.len() as u64);

#[test]
fn a_file_that_ends_before_its_size_is_resumed() {
    for end in ENDS {
        for gives_ranges in [true, false] {
            let (url, requests) = start(end, gives_ranges, |number| match number {
                0 => 10,
                _ => FILE.len(),
            });
            assert_eq!(read(url, SIZE).unwrap(), FILE, "{end:?}");
            assert_eq!(requests.load(Ordering::Relaxed), 2, "{end:?}");
        }
    }
}

#[test]
fn each_response_may_end_early() {
    for end in ENDS {
        let (url, _) = start(end, true, |number| {
            FILE.len().min(usize::try_from(number + 1).unwrap() * 6)
        });
        assert_eq!(read(url, SIZE).unwrap(), FILE, "{end:?}");
    }
}

#[test]
fn a_file_that_ends_at_its_size_is_complete() {
    for end in ENDS {
        let (url, requests) = start(end, true, |_| FILE.len());
        assert_eq!(read(url, SIZE).unwrap(), FILE, "{end:?}");
        assert_eq!(requests.load(Ordering::Relaxed), 1, "{end:?}");
    }
}

#[test]
fn a_size_that_no_response_reaches_is_wrong() {
    for end in [BodyEnd::Close, BodyEnd::LastChunk] {
        let (url, requests) = start(end, false, |_| FILE.len());
        assert_eq!(read(url, Some(1000)).unwrap(), FILE, "{end:?}");
        assert_eq!(requests.load(Ordering::Relaxed), 2, "{end:?}");
    }
}

#[test]
fn a_size_that_is_too_small_cuts_nothing() {
    for end in [BodyEnd::Close, BodyEnd::LastChunk] {
        let (url, requests) = start(end, true, |_| FILE.len());
        assert_eq!(read(url, Some(5)).unwrap(), FILE, "{end:?}");
        assert_eq!(requests.load(Ordering::Relaxed), 1, "{end:?}");
    }
}

#[test]
fn without_any_size_a_possible_end_is_the_end() {
    for end in [BodyEnd::Close, BodyEnd::Reset, BodyEnd::LastChunk] {
        let (url, requests) = start(end, true, |_| FILE.len());
        assert_eq!(read(url, None).unwrap(), FILE, "{end:?}");
        assert_eq!(requests.load(Ordering::Relaxed), 1, "{end:?}");
    }
}
