//! Mirrors that were killed in the middle of a nar: the next run downloads only the rest, and what is on the
//! disk is never trusted.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::fixture::flip;
use crate::support::publisher::{Publisher, command, file_nar};
use crate::support::sandbox::{Running, Sandbox, run};
use crate::support::server::Request;
use crate::support::{Reply, Server, wait_until};

/// Bytes of the file: at the rate of the server, it takes 2 s.
const SIZE: usize = 3 << 20;
/// What the server sends at a time, and how long it waits then.
const PIECE: (usize, Duration) = (32 << 10, Duration::from_millis(20));
/// More than what is on its way, or in the server's own buffers when a run is killed.
const LOST_MAX: u64 = 512 << 10;

/// A slow server of two items, and a mirror of the first.
struct SlowMirror {
    sandbox: Sandbox,
    server: Server,
    item: String,
    other: String,
    nar: Vec<u8>,
}

impl SlowMirror {
    /// A server that answers requests for the nar with `respond` of its directory.
    fn start(respond: impl Fn(&Path, &Request) -> Reply + Send + Sync + 'static) -> Self {
        let sandbox = Sandbox::new();
        let publisher = Publisher::new(&sandbox, "server", 1);
        Publisher::trust(&sandbox, &[&publisher]);
        let mut rng = fastrand::Rng::with_seed(0);
        let contents: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(SIZE).collect();
        let nar = file_nar(&contents);
        let item = publisher.publish('1', &nar, nar.len() as u64, "");
        let other = publisher.publish_file('2', "other", "");

        let dir = publisher.dir;
        let server = Server::start(move |request| {
            if !request.path.ends_with("1.nar") {
                return Reply::file(&dir, request);
            }
            let mut reply = respond(&dir, request);
            reply.drip = Some(PIECE);
            reply
        });
        Self {
            sandbox,
            server,
            item,
            other,
            nar,
        }
    }

    fn mirror_of(&self, item: &str) -> Command {
        let mut command = command(&self.sandbox, &self.server.url(), &["mirror"]);
        command.arg("--to").arg(self.sandbox.path("mirror"));
        command.args(["--closure", item]);
        command
    }

    fn mirror(&self) -> Command {
        self.mirror_of(&self.item)
    }

    /// The files that are being written, or were.
    fn incoming(&self) -> Vec<PathBuf> {
        let directory = self.sandbox.path("mirror/subst/incoming");
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    fn incoming_bytes(&self) -> u64 {
        let incoming = self.incoming();
        let sizes = incoming
            .iter()
            .map(|file| file.metadata().map_or(0, |it| it.len()));
        sizes.sum()
    }

    /// Starts a run and waits until so many bytes are on the disk.
    fn run_until(&self, bytes: u64) -> Running {
        let running = Running::start(self.mirror(), "");
        let is_there = || self.incoming_bytes() >= bytes;
        assert!(wait_until(is_there), "{} of {bytes}", self.incoming_bytes());
        running
    }

    fn kill_at(&self, bytes: u64) {
        let mut running = self.run_until(bytes);
        running.kill();
        assert_eq!(running.end().code, None);
    }

    /// The only file that is left.
    fn only_incoming(&self) -> PathBuf {
        let [file] = &self.incoming()[..] else {
            panic!("{:?}", self.incoming());
        };
        file.clone()
    }

    /// Runs to the end, after which nothing is left but the nar.
    fn assert_mirrored(&self) {
        let ended = run(self.mirror()).exits(0);
        assert_eq!(
            ended.stderr.matches("subst:").count(),
            1,
            "{}",
            ended.stderr
        );
        assert!(std::fs::read(self.sandbox.path("mirror/1.nar")).unwrap() == self.nar);
        assert_eq!(self.incoming(), Vec::<PathBuf>::new());
    }

    fn whole_requests(&self) -> usize {
        let ranges = self.server.ranges_of("/1.nar");
        ranges.iter().filter(|range| range.is_none()).count()
    }
}

#[test]
fn after_kills_a_mirror_downloads_only_the_rest() {
    let single_bytes = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&single_bytes);
    let slow = SlowMirror::start(move |dir, request| {
        let from = request.from.unwrap_or_default();
        if request.has("range", &format!("bytes={from}-{from}")) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Reply::file_or_range(dir, request)
    });
    let kills = [700 << 10, 1300 << 10, 1400 << 10, 2500 << 10];
    for bytes in kills {
        slow.kill_at(bytes);
        assert!(!slow.sandbox.path("mirror/1.nar").exists());
    }
    slow.assert_mirrored();

    assert_eq!(slow.whole_requests(), 1);
    // While what is on the disk is read, nothing is sent that a kill would lose.
    assert!(single_bytes.load(Ordering::Relaxed) > 0);
    let most = SIZE as u64 + kills.len() as u64 * LOST_MAX;
    assert!(slow.server.sent() < most, "{} bytes", slow.server.sent());
}

#[test]
fn the_rest_is_that_of_the_version_whose_range_was_answered() {
    let slow = SlowMirror::start(Reply::file_or_range);
    slow.kill_at(1 << 20);
    slow.assert_mirrored();
    let requests = slow.server.requests();
    let last = requests.iter().rfind(|it| it.path.ends_with("1.nar"));
    assert!(last.unwrap().has("if-range", "\"one\""));
}

#[test]
fn a_nar_that_is_complete_on_the_disk_is_not_requested() {
    let slow = SlowMirror::start(Reply::file_or_range);
    slow.kill_at(1 << 20);
    std::fs::write(slow.only_incoming(), &slow.nar).unwrap();
    let requests = slow.server.requests_for("/1.nar");
    slow.assert_mirrored();
    assert_eq!(slow.server.requests_for("/1.nar"), requests);
}

#[test]
fn wrong_bytes_on_the_disk_are_replaced_and_not_blamed_on_the_server() {
    let slow = SlowMirror::start(Reply::file_or_range);
    let damages: [&dyn Fn(&Path); 3] = [
        &|file| flip(file, 600 << 10),
        // After a power cut: the length of the file is on the disk, its contents are not.
        &|file| std::fs::write(file, vec![0; 2 << 20]).unwrap(),
        &|file| std::fs::write(file, vec![7; SIZE + 8192]).unwrap(),
    ];
    for damage in damages {
        slow.kill_at(1 << 20);
        damage(&slow.only_incoming());
        let before = slow.whole_requests();
        slow.assert_mirrored();
        assert_eq!(slow.whole_requests(), before + 1);
        std::fs::remove_dir_all(slow.sandbox.path("mirror")).unwrap();
    }
}

#[test]
fn a_server_without_ranges_sends_the_nar_from_the_start() {
    let refuse_ranges = |dir: &Path, request: &Request| match request.from {
        Some(_) => Reply::new("416 Range Not Satisfiable", ""),
        None => Reply::file(dir, request),
    };
    for respond in [Reply::file, refuse_ranges] {
        let slow = SlowMirror::start(respond);
        slow.kill_at(1 << 20);
        slow.assert_mirrored();
        assert!(slow.server.sent() > SIZE as u64 + (1 << 20));
    }
}

#[test]
fn a_download_that_breaks_off_is_continued_by_the_next_run() {
    let is_broken = Arc::new(AtomicBool::new(true));
    let breaks = Arc::clone(&is_broken);
    let slow = SlowMirror::start(move |dir, request| {
        let reply = Reply::file_or_range(dir, request);
        match breaks.load(Ordering::Relaxed) {
            true => reply.cut_at(1 << 20),
            false => reply,
        }
    });
    let mut mirror = slow.mirror();
    mirror.args(["--retry-time", "0s"]);
    run(mirror).exits(4);
    assert_eq!(slow.incoming_bytes(), 1 << 20);

    is_broken.store(false, Ordering::Relaxed);
    slow.assert_mirrored();
    assert_eq!(slow.whole_requests(), 1);
}

#[test]
fn an_interrupt_says_what_a_mirror_keeps() {
    let slow = SlowMirror::start(Reply::file_or_range);
    let running = slow.run_until(1 << 20);
    running.interrupt();
    let ended = running.end().exits(130);
    assert!(
        ended.stderr.starts_with("subst: interrupted, 1."),
        "{}",
        ended.stderr
    );
    ended.says(" MiB kept for the next run\n");
    slow.assert_mirrored();
    assert_eq!(slow.whole_requests(), 1);
}

#[test]
fn what_is_not_wanted_any_more_is_removed() {
    let slow = SlowMirror::start(Reply::file_or_range);
    slow.kill_at(1 << 20);
    run(slow.mirror_of(&slow.other)).exits(0);
    assert_eq!(slow.incoming(), Vec::<PathBuf>::new());
}

/// The server has answered a lookup, and then fails as a whole.
#[test]
fn an_interrupt_ends_the_wait_for_lookups_at_once() {
    let sandbox = Sandbox::new();
    let publisher = Publisher::new(&sandbox, "server", 1);
    Publisher::trust(&sandbox, &[&publisher]);
    let other = publisher.publish_file('2', "other", "");
    let item = publisher.publish_file('1', "item", other.rsplit('/').next().unwrap());
    let dir = publisher.dir;
    let server = Server::start(move |request| match request.path.contains("1.narinfo") {
        true => Reply::file(&dir, request),
        false => Reply::new("502 Bad Gateway", ""),
    });

    let mut command = command(&sandbox, &server.url(), &["mirror", "--retry-time", "60s"]);
    command.arg("--to").arg(sandbox.path("mirror"));
    command.args(["--closure", &item]);
    let running = Running::start(command, "");
    assert!(wait_until(|| server.requests_for("2.narinfo") > 5));
    running.interrupt();
    let began = Instant::now();
    running.end().exits(130);
    assert!(began.elapsed() < Duration::from_secs(20));
}
