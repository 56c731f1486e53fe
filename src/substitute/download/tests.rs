//! The bytes of a file from servers that behave badly, in one way each or at random: all of
//! them, in order, or an error; and soon.
//!
//! The server of a seed has a few bad habits, and falls into them now and then. Its connections
//! are slow, so that large files are fetched in segments.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use fastrand::Rng;
use url::Url;

use super::body::{BodyRequest, ResumableBody};
use super::counters::TransferCounters;
use super::segments::SegmentConnections;
use crate::format::compression::Compression;
use crate::format::server_list::ServerIndex;
use crate::format::server_url::ServerUrl;
use crate::http::{Client, Options, Outage, RetryLimits};
use crate::substitute::cancel::Cancel;
use crate::substitute::download::retries::{ItemRetries, RetryContext};
use crate::substitute::network::{Network, NetworkReach};
use crate::substitute::progress::SilentProgress;
use crate::testing::seeds;

mod early_ends;
mod outages;
mod ranges;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// Breaks off somewhere in the body.
    Cut,
    /// Sends less than the requested range, and says so.
    ShortRange,
    /// Sends more than the requested range, and says so.
    LongRange,
    /// Sends another range than the requested one, and says so.
    OtherRange,
    /// Breaks off in the second half of the requested range.
    CutRange,
    /// Sends the whole file, whatever was requested.
    NoRange,
    /// Falls silent in the body.
    Silence,
    ServerError,
    /// Calls the same file another version.
    Renamed,
    HangUp,
}

const HABITS: [Habit; 10] = [
    Habit::Cut,
    Habit::ShortRange,
    Habit::LongRange,
    Habit::OtherRange,
    Habit::CutRange,
    Habit::NoRange,
    Habit::Silence,
    Habit::ServerError,
    Habit::Renamed,
    Habit::HangUp,
];

/// Enough to be worth several connections, after what a single one delivers first.
const FILE_BYTES: usize = 7 << 20;

/// What a connection delivers at once, and how long it waits then: slower than the client reads.
const PIECE_BYTES: usize = 64 << 10;
const PIECE_WAIT: Duration = Duration::from_millis(20);

/// How many servers.
const SEEDS: u64 = 16;

/// Servers that are tried at the same time: all they do is wait.
const SIDE_BY_SIDE: usize = 16;

/// A server of one file.
struct Slow {
    file: Arc<[u8]>,
    seed: u64,
    habits: Vec<Habit>,
    temper: f64,
    requests: AtomicU64,
    /// Answers with a part of the file.
    parts: AtomicU64,
    /// Bytes of the file.
    sent: AtomicU64,
}

impl Slow {
    fn start(self) -> (Arc<Self>, Url) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/nar", listener.local_addr().unwrap());
        let server = Arc::new(self);
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
            let number = self.requests.fetch_add(1, Ordering::Relaxed);
            let mut rng = Rng::with_seed(self.seed << 32 | number);
            let habit = (rng.f64() < self.temper).then(|| *rng.choice(&self.habits).unwrap());
            if !self.answer(&mut stream, range, habit, &mut rng)? {
                break;
            }
        }
        stream.shutdown(Shutdown::Both)
    }

    /// Whether the connection can be used again.
    fn answer(
        &self,
        stream: &mut TcpStream,
        range: Option<Part>,
        habit: Option<Habit>,
        rng: &mut Rng,
    ) -> std::io::Result<bool> {
        let total = self.file.len();
        let range = range.filter(|_| !matches!(habit, Some(Habit::NoRange | Habit::Renamed)));
        let mut part = match range {
            Some((start, end)) => start..end.unwrap_or(total).min(total),
            None => 0..total,
        };
        match habit {
            Some(Habit::HangUp) => return Ok(false),
            Some(Habit::ServerError) => {
                stream.write_all(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")?;
                return Ok(true);
            }
            Some(Habit::ShortRange) if range.is_some() => {
                part.end = part
                    .end
                    .min(part.start + rng.usize(PIECE_BYTES..=10 * PIECE_BYTES));
            }
            Some(Habit::LongRange) if range.is_some() => part.end = rng.usize(part.end..=total),
            Some(Habit::OtherRange) if range.is_some() => part.start = rng.usize(part.clone()),
            _ => {}
        }
        let tag = if habit == Some(Habit::Renamed) {
            "two"
        } else {
            "one"
        };
        let status = match range {
            Some(_) => {
                self.parts.fetch_add(1, Ordering::Relaxed);
                let (first, last) = (part.start, part.end - 1);
                format!("206 Partial Content\r\nContent-Range: bytes {first}-{last}/{total}")
            }
            None => "200 OK".to_owned(),
        };
        let length = part.len();
        let fields = format!("Accept-Ranges: bytes\r\nETag: \"{tag}\"\r\nContent-Length: {length}");
        stream.write_all(format!("HTTP/1.1 {status}\r\n{fields}\r\n\r\n").as_bytes())?;
        let stop = match habit {
            Some(Habit::Cut | Habit::Silence) => rng.usize(0..length),
            Some(Habit::CutRange) if range.is_some() && length > PIECE_BYTES => {
                rng.usize(length / 2..length)
            }
            _ => length,
        };
        for piece in self.file[part][..stop].chunks(PIECE_BYTES) {
            stream.write_all(piece)?;
            self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
            std::thread::sleep(PIECE_WAIT);
        }
        if habit == Some(Habit::Silence) {
            std::thread::sleep(Duration::from_secs(2));
        }
        Ok(stop == length)
    }
}

/// A part of the file: from here up to there, or to the end.
type Part = (usize, Option<usize>);

/// What the next request is for: a part, or everything.
fn read_request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Option<Part>>> {
    let mut fields = HashMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end().split_once(": ") {
            Some((name, value)) => {
                fields.insert(name.to_ascii_lowercase(), value.to_owned());
            }
            None if line == "\r\n" => break,
            None => {}
        }
    }
    let range = fields.get("range").and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((
            first.parse().ok()?,
            last.parse().ok().map(|last: usize| last + 1),
        ))
    });
    Ok(Some(range.filter(|_| {
        fields.get("if-range").is_none_or(|tag| tag == "\"one\"")
    })))
}

/// What comes from `url`, in the time that the most patient test needs.
fn read(url: Url, size: Option<u64>, stall: Duration) -> std::io::Result<Vec<u8>> {
    read_with(url, size, stall, RETRY_TIME)
}

/// What comes from `url`, across an outage of many seconds.
fn read_patiently(url: Url) -> std::io::Result<Vec<u8>> {
    read_with(url, None, PATIENT, Duration::from_secs(60))
}

fn read_with(
    url: Url,
    size: Option<u64>,
    stall: Duration,
    retry_time: Duration,
) -> std::io::Result<Vec<u8>> {
    in_time(move || read_all(url, size, None, stall, retry_time))
}

/// What `work` gives, which ends soon.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    std::thread::spawn(move || sender.send(work()));
    receiver
        .recv_timeout(Duration::from_secs(120))
        .expect("it ends")
}

fn read_all(
    url: Url,
    size: Option<u64>,
    file_size: Option<u64>,
    stall: Duration,
    retry_time: Duration,
) -> std::io::Result<Vec<u8>> {
    let retries = retries(&url, retry_time);
    read_retrying(url, size, file_size, stall, retries)
}

fn read_retrying(
    url: Url,
    size: Option<u64>,
    file_size: Option<u64>,
    stall: Duration,
    retries: Arc<ItemRetries>,
) -> std::io::Result<Vec<u8>> {
    let options = Options {
        stall_timeout: stall,
        ..Options::default()
    };
    let client = Arc::new(Client::new(options).unwrap());
    let wanted = BodyRequest {
        server: ServerIndex::FIRST,
        compression: Compression::None,
        retries,
        url,
        size,
        file_size,
        prefetched: None,
        kept: None,
        spool: None,
        connections: SegmentConnections::new(4),
        cancel: Cancel::default(),
    };
    let mut body = ResumableBody::open(client, wanted, Arc::new(TransferCounters::default()))
        .map_err(std::io::Error::other)?;
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes).map(|_| bytes)
}

/// How long a server is retried without progress.
const RETRY_TIME: Duration = Duration::from_secs(1);

/// Retries for `time` without progress, of the only server, which has the file at `url`.
fn retries(url: &Url, time: Duration) -> Arc<ItemRetries> {
    let context = RetryContext {
        network: Arc::new(Network::new(
            Options::default(),
            NetworkReach::AllServers,
            Arc::new(vec![ServerUrl::parse(url.as_str()).unwrap()].into()),
        )),
        limits: vec![RetryLimits {
            time,
            ..RetryLimits::default()
        }]
        .into(),
        progress: Arc::new(SilentProgress),
        cancel: Cancel::default(),
    };
    Arc::new(ItemRetries::new(context, Box::new(Vec::new)))
}

/// The file of every server.
fn file() -> Arc<[u8]> {
    static FILE: LazyLock<Arc<[u8]>> = LazyLock::new(|| {
        let mut rng = Rng::with_seed(0);
        let words = std::iter::repeat_with(|| rng.u64(..)).take(FILE_BYTES / 8);
        words.flat_map(u64::to_le_bytes).collect()
    });
    Arc::clone(&FILE)
}

/// How reading from a server of this seed went, and the server.
fn try_server(
    file: &Arc<[u8]>,
    seed: u64,
    habits: Vec<Habit>,
    temper: f64,
    stall: Duration,
) -> (std::io::Result<Vec<u8>>, Arc<Slow>) {
    let file = Arc::clone(file);
    let [requests, parts, sent] = std::array::from_fn(|_| AtomicU64::new(0));
    let (server, url) = Slow {
        file,
        seed,
        habits,
        temper,
        requests,
        parts,
        sent,
    }
    .start();
    (read(url, None, stall), server)
}

/// It may have been on its way when the server fell silent, or have come as slowly as all.
#[test]
fn a_small_file_is_no_proof_that_a_silent_server_has_recovered() {
    for (outage, small, large) in [
        (Outage::Silent(Duration::from_secs(3)), 1, 0),
        (Outage::Unreachable, 0, 0),
    ] {
        for (length, down) in [(1000, small), (100_000, large)] {
            let text = format!(
                "{ONE}Content-Length: {length}\r\n\r\n{}",
                "a".repeat(length)
            );
            let (url, _) = answering(move |_, _| text.clone());
            let retries = retries(&url, RETRY_TIME);
            let health = Arc::clone(retries.health());
            health.failed(ServerIndex::FIRST, outage);
            let read = in_time(move || read_retrying(url, None, None, PATIENT, retries));
            assert_eq!(read.unwrap().len(), length);
            assert_eq!(health.down().len(), down, "{outage:?}, {length}");
            // It is retried for as long as ever.
            assert_eq!(health.failing_for(ServerIndex::FIRST), Duration::ZERO);
        }
    }
}

/// A server that closes each connection after one answer, which `answer` makes of the number of the
/// request and the first requested byte.
fn answering(answer: impl Fn(u64, usize) -> String + Send + 'static) -> (Url, Arc<AtomicU64>) {
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
            let number = counter.fetch_add(1, Ordering::Relaxed);
            // A client that goes away is no failure of the server's.
            let _ =
                stream.write_all(answer(number, range.map_or(0, |(start, _)| start)).as_bytes());
        }
    });
    (Url::parse(&url).unwrap(), requests)
}

const ONE: &str = "HTTP/1.1 200 OK\r\nAccept-Ranges: bytes\r\nETag: \"one\"\r\n";
const PATIENT: Duration = Duration::from_secs(10);

/// Whether the server has sent the file once, and less than a twentieth of it more.
fn has_few_extra_bytes(sent: &AtomicU64) -> bool {
    let file = FILE_BYTES as u64;
    sent.load(Ordering::Relaxed) < file + file / 20
}

#[track_caller]
fn assert_few_extra_bytes(case: &str, sent: &AtomicU64) {
    assert!(
        has_few_extra_bytes(sent),
        "{case}: {sent:?} bytes of {FILE_BYTES}"
    );
}

#[test]
fn a_byte_for_each_request_is_no_progress() {
    let (url, requests) = answering(|number, start| match number {
        0 => format!("{ONE}Content-Length: 100\r\n\r\n0"),
        _ => format!(
            "HTTP/1.1 206 Part\r\nContent-Range: bytes {start}-{start}/100\r\n\
             Content-Length: 1\r\n\r\n1"
        ),
    });
    read(url, None, PATIENT).unwrap_err();
    assert!(requests.load(Ordering::Relaxed) < 10);
}

#[test]
fn another_version_of_the_file_ends_where_it_ends() {
    let (url, requests) = answering(|number, _| match number {
        0 => format!("{ONE}Content-Length: 30\r\n\r\n0123456789"),
        _ => "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n0123456789abcdefghij".to_owned(),
    });
    assert_eq!(read(url, None, PATIENT).unwrap(), b"0123456789abcdefghij");
    assert_eq!(requests.load(Ordering::Relaxed), 2);
}

#[test]
fn a_file_whose_length_only_the_narinfo_has_is_taken_up_again() {
    let (url, requests) = answering(|number, _| match number {
        0 => format!("{ONE}\r\n0123456789"),
        _ => "HTTP/1.1 206 Part\r\nContent-Range: bytes 10-19/20\r\n\r\nabcdefghij".to_owned(),
    });
    assert_eq!(
        read(url, Some(20), PATIENT).unwrap(),
        b"0123456789abcdefghij"
    );
    assert_eq!(requests.load(Ordering::Relaxed), 2);
}

#[test]
fn odd_parts_cost_few_extra_bytes() {
    let file = file();
    std::thread::scope(|scope| {
        for habit in [
            Habit::ShortRange,
            Habit::LongRange,
            Habit::NoRange,
            Habit::CutRange,
        ] {
            let file = &file;
            scope.spawn(move || {
                // Unless everything arrived before segments were considered, or a busy machine took the
                // connection for a slow one too late.
                let is_cheap = (0..10).any(|_| {
                    let (outcome, server) = try_server(file, 0, vec![habit], 1.0, PATIENT);
                    assert!(outcome.unwrap() == **file, "{habit:?}");
                    server.requests.load(Ordering::Relaxed) > 1 && has_few_extra_bytes(&server.sent)
                });
                assert!(is_cheap, "{habit:?}");
            });
        }
    });
}

#[test]
fn random_faults_of_a_server_do_not_change_the_bytes() {
    let file = file();
    let in_parts = AtomicU64::new(0);
    let seeds = seeds(SEEDS);
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                let all = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
                for seed in all.take_while(|seed| seeds.contains(seed)) {
                    in_parts.fetch_add(try_seed(&file, seed), Ordering::Relaxed);
                }
            });
        }
    });
    assert!(in_parts.into_inner() > 0);
}

/// Reads from a server with the faults of `seed`; how many parts of the file it sent.
fn try_seed(file: &Arc<[u8]>, seed: u64) -> u64 {
    let mut rng = Rng::with_seed(seed);
    let habits: Vec<Habit> = (0..rng.usize(1..4))
        .map(|_| *rng.choice(&HABITS).unwrap())
        .collect();
    let temper = rng.f64().powi(2);
    println!("seed {seed}: {habits:?}, {temper:.2}");

    let stall = Duration::from_millis(300);
    let (outcome, server) = try_server(file, seed, habits, temper, stall);
    if let Ok(bytes) = outcome {
        let (received, expected) = (bytes.len(), file.len());
        assert!(
            bytes == **file,
            "seed {seed}: {received} of {expected} bytes"
        );
    }
    server.parts.load(Ordering::Relaxed)
}
