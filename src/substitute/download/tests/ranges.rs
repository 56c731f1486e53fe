//! Servers that announce ranges and then refuse them, each in its own way: the bytes that a
//! slow or broken stream has delivered are kept.

use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use url::Url;

use crate::substitute::download::body::BROKEN_RANGES_MAX;

use super::{
    FILE_BYTES, ONE, PIECE_BYTES, PIECE_WAIT, assert_few_extra_bytes, file, read, read_patiently,
    read_request,
};

/// What is answered to a request for a range.
#[derive(Debug, Clone, Copy)]
enum RangeRefusal {
    HttpStatus(u16),
    /// Status 206 without saying which part of the file it is.
    NoContentRange,
    /// Status 206 with a part of the file that begins later.
    LaterPart,
    /// Status 206 with a part of the file that begins earlier.
    EarlierPart,
    /// Status 206 with a part in another unit than bytes.
    OtherUnit,
    /// Status 206 with the right part of a file of another length.
    OtherTotal,
    /// Status 206 with the right part of another version of the file.
    OtherVersion,
    Whole,
    Close,
    Silence,
    /// The requested part, broken off after a few bytes.
    BrokenOff,
    /// Status 503 with this `Retry-After` to as many requests, then the requested part.
    Overloaded {
        retry_after: usize,
        requests: usize,
    },
}

const REFUSALS: [RangeRefusal; 19] = [
    RangeRefusal::HttpStatus(400),
    RangeRefusal::HttpStatus(403),
    RangeRefusal::HttpStatus(404),
    RangeRefusal::HttpStatus(405),
    RangeRefusal::HttpStatus(412),
    RangeRefusal::HttpStatus(416),
    RangeRefusal::HttpStatus(429),
    RangeRefusal::HttpStatus(500),
    RangeRefusal::HttpStatus(501),
    RangeRefusal::HttpStatus(503),
    RangeRefusal::NoContentRange,
    RangeRefusal::LaterPart,
    RangeRefusal::EarlierPart,
    RangeRefusal::OtherUnit,
    RangeRefusal::OtherTotal,
    RangeRefusal::OtherVersion,
    RangeRefusal::Whole,
    RangeRefusal::Close,
    RangeRefusal::Silence,
];

/// A server of one file, slow, that refuses ranges.
struct RangeRefusingServer {
    file: Arc<[u8]>,
    refusal: RangeRefusal,
    /// Where the first response ends.
    cut_at: Option<usize>,
    ranged: AtomicUsize,
    whole: AtomicUsize,
    sent: AtomicU64,
    /// Connections that are kept open and silent.
    silent: Mutex<Vec<TcpStream>>,
}

impl RangeRefusingServer {
    fn start(refusal: RangeRefusal, cut_at: Option<usize>) -> (Arc<Self>, Url) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/nar", listener.local_addr().unwrap());
        let server = Arc::new(Self {
            file: file(),
            refusal,
            cut_at,
            ranged: AtomicUsize::new(0),
            whole: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            silent: Mutex::default(),
        });
        let shared = Arc::clone(&server);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let server = Arc::clone(&shared);
                // A client that goes away is no failure of the server's.
                std::thread::spawn(move || drop(server.serve(stream.unwrap())));
            }
        });
        (server, Url::parse(&url).unwrap())
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some(range) = read_request(&mut reader)? {
            let Some((start, _)) = range else {
                let is_first = self.whole.fetch_add(1, Ordering::Relaxed) == 0;
                let end = self.cut_at.filter(|_| is_first).unwrap_or(FILE_BYTES);
                self.send(&mut stream, "200 OK", "", end)?;
                if end < FILE_BYTES {
                    break;
                }
                continue;
            };
            let earlier = self.ranged.fetch_add(1, Ordering::Relaxed);
            match self.refusal {
                RangeRefusal::Overloaded {
                    retry_after,
                    requests,
                } if earlier < requests => {
                    let head = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After:";
                    write!(stream, "{head} {retry_after}\r\n\r\n")?;
                }
                RangeRefusal::Overloaded { .. } => {
                    self.send_beginning(&mut stream, start)?;
                    stream.write_all(&self.file[FILE_BYTES.min(start + 1000)..FILE_BYTES])?;
                }
                RangeRefusal::HttpStatus(status) => {
                    let head = format!("HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\nno");
                    stream.write_all(head.as_bytes())?;
                }
                RangeRefusal::NoContentRange
                | RangeRefusal::LaterPart
                | RangeRefusal::EarlierPart
                | RangeRefusal::OtherUnit
                | RangeRefusal::OtherTotal
                | RangeRefusal::OtherVersion => self.send_odd_part(&mut stream, start)?,
                RangeRefusal::Whole => self.send(&mut stream, "200 OK", "", FILE_BYTES)?,
                RangeRefusal::Close => break,
                RangeRefusal::BrokenOff => {
                    self.send_beginning(&mut stream, start)?;
                    break;
                }
                RangeRefusal::Silence => {
                    self.silent.lock().unwrap().push(stream);
                    return Ok(());
                }
            }
        }
        stream.shutdown(std::net::Shutdown::Both)
    }

    /// Answers a request for what begins at `start` with status 206.
    fn send_odd_part(&self, stream: &mut TcpStream, start: usize) -> std::io::Result<()> {
        let part = match self.refusal {
            RangeRefusal::NoContentRange => 0..100,
            RangeRefusal::LaterPart => start + 1..FILE_BYTES,
            RangeRefusal::EarlierPart => start - 1000..FILE_BYTES,
            _ => start..FILE_BYTES,
        };
        let range = match self.refusal {
            RangeRefusal::NoContentRange => String::new(),
            RangeRefusal::OtherTotal => content_range(&part, FILE_BYTES + 1),
            RangeRefusal::OtherUnit => content_range(&part, FILE_BYTES).replace("bytes", "lines"),
            _ => content_range(&part, FILE_BYTES),
        };
        let tag = match self.refusal {
            RangeRefusal::OtherVersion => "two",
            _ => "one",
        };

        let length = part.len();
        write!(
            stream,
            "HTTP/1.1 206 Part\r\nETag: \"{tag}\"\r\n{range}Content-Length: {length}\r\n\r\n"
        )?;
        self.send_slowly(stream, part)
    }

    /// Sends a thousand of the bytes from `start` on that it announces.
    fn send_beginning(&self, stream: &mut TcpStream, start: usize) -> std::io::Result<()> {
        let head = ONE.replace("200 OK", "206 Partial Content");
        let (last, length) = (FILE_BYTES - 1, FILE_BYTES - start);
        write!(
            stream,
            "{head}Content-Range: bytes {start}-{last}/{FILE_BYTES}\r\nContent-Length: {length}\r\n\r\n"
        )?;
        stream.write_all(&self.file[start..FILE_BYTES.min(start + 1000)])
    }

    fn send(
        &self,
        stream: &mut TcpStream,
        status: &str,
        fields: &str,
        end: usize,
    ) -> std::io::Result<()> {
        let head = ONE.replace("200 OK", status);
        stream
            .write_all(format!("{head}{fields}Content-Length: {FILE_BYTES}\r\n\r\n").as_bytes())?;
        self.send_slowly(stream, 0..end)
    }

    fn send_slowly(&self, stream: &mut TcpStream, part: Range<usize>) -> std::io::Result<()> {
        for piece in self.file[part].chunks(PIECE_BYTES) {
            stream.write_all(piece)?;
            self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
            std::thread::sleep(PIECE_WAIT);
        }
        Ok(())
    }
}

fn content_range(part: &Range<usize>, total: usize) -> String {
    format!(
        "Content-Range: bytes {}-{}/{total}\r\n",
        part.start,
        part.end - 1
    )
}

/// Downloads from a server for each refusal, all at the same time.
fn for_each_refusal(
    cut_at: Option<usize>,
    stall: Duration,
    check: impl Fn(RangeRefusal, &RangeRefusingServer) + Sync,
) {
    for_refusals(&REFUSALS, cut_at, stall, check);
}

fn for_refusals(
    refusals: &[RangeRefusal],
    cut_at: Option<usize>,
    stall: Duration,
    check: impl Fn(RangeRefusal, &RangeRefusingServer) + Sync,
) {
    std::thread::scope(|scope| {
        for &refusal in refusals {
            let check = &check;
            scope.spawn(move || {
                let (server, url) = RangeRefusingServer::start(refusal, cut_at);
                let bytes = read(url, None, stall);
                let bytes = bytes.unwrap_or_else(|error| panic!("{refusal:?}: {error}"));
                assert!(bytes == *server.file, "{refusal:?}: {} bytes", bytes.len());
                check(refusal, &server);
            });
        }
    });
}

#[test]
fn a_slow_stream_goes_on_when_segments_are_refused() {
    let requested = AtomicUsize::new(0);
    for_each_refusal(None, Duration::from_secs(20), |refusal, server| {
        requested.fetch_add(server.ranged.load(Ordering::Relaxed), Ordering::Relaxed);
        assert_eq!(
            server.whole.load(Ordering::Relaxed),
            1,
            "{refusal:?}: one stream is enough"
        );
        assert!(
            server.ranged.load(Ordering::Relaxed) <= 1,
            "{refusal:?}: it was requested again"
        );

        assert_few_extra_bytes(&format!("{refusal:?}"), &server.sent);
    });
    assert!(
        requested.into_inner() > 0,
        "the streams were too fast for segments"
    );
}

#[test]
fn a_cut_stream_goes_on_when_the_rest_is_refused() {
    for_each_refusal(Some(100_000), Duration::from_secs(2), |refusal, server| {
        // Where the rest is of use, segments may be requested after it.
        let (whole, ranged) = match refusal {
            RangeRefusal::EarlierPart => (1, 1..=2),
            RangeRefusal::Whole => (1, 1..=1),
            _ => (2, 1..=1),
        };
        assert_eq!(server.whole.load(Ordering::Relaxed), whole, "{refusal:?}");
        let requests = server.ranged.load(Ordering::Relaxed);
        assert!(ranged.contains(&requests), "{refusal:?}: {requests}");
    });
}

#[test]
fn a_slow_stream_goes_on_when_segments_break_off() {
    for_refusals(
        &[RangeRefusal::BrokenOff],
        None,
        Duration::from_secs(20),
        |_, server| {
            assert_eq!(server.whole.load(Ordering::Relaxed), 1);
            assert!(server.ranged.load(Ordering::Relaxed) > 0);
        },
    );
}

#[test]
fn a_file_is_requested_whole_when_each_range_breaks_off() {
    for_refusals(
        &[RangeRefusal::BrokenOff],
        Some(100_000),
        Duration::from_secs(2),
        |_, server| {
            assert_eq!(server.whole.load(Ordering::Relaxed), 2);
        },
    );
}

/// The whole files and the ranges that are requested until a file has arrived, which broke off once.
fn requests_to(overloaded: RangeRefusal) -> (usize, usize) {
    let (server, url) = RangeRefusingServer::start(overloaded, Some(100_000));
    assert!(read_patiently(url).unwrap() == *server.file);
    let counts = [&server.whole, &server.ranged].map(|count| count.load(Ordering::Relaxed));
    counts.into()
}

#[test]
fn an_overloaded_server_is_not_asked_for_the_whole_file_instead_of_the_rest() {
    let overloaded = RangeRefusal::Overloaded {
        retry_after: 1,
        requests: 1,
    };
    assert_eq!(requests_to(overloaded), (1, 2));
}

#[test]
fn a_file_is_requested_whole_when_the_server_is_overloaded_for_each_range() {
    let overloaded = RangeRefusal::Overloaded {
        retry_after: 0,
        requests: usize::MAX,
    };
    let (whole, ranged) = requests_to(overloaded);
    // One more may be for a segment of the whole file.
    let expected = BROKEN_RANGES_MAX as usize;
    assert!(
        whole == 2 && (expected..=expected + 1).contains(&ranged),
        "{whole} {ranged}"
    );
}
