//! Downloads that are kept on disk for the next run: after kills and interrupts only the rest is
//! downloaded, and what is kept is never trusted.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::mounts::unshare_flags;
use crate::support::publisher::{Publisher, command, file_nar, installed};
use crate::support::sandbox::{Run, Running, Sandbox, run};
use crate::support::{Reply, Server, wait_until};

/// Bytes of the file: at the rate of the server, it takes 7 s. What takes more than 5 s is kept.
const SIZE: usize = 3 << 20;
/// What the server sends at a time, and how long it waits then.
const PIECE: (usize, Duration) = (32 << 10, Duration::from_millis(75));
/// More than what is in memory, on its way, or in the server's own buffers when a run is killed.
const LOST_MAX: u64 = 640 << 10;

/// A slow server of one item.
struct Slow {
    sandbox: Sandbox,
    server: Server,
    item: String,
    nar: Vec<u8>,
}

impl Slow {
    /// A server of which each answer for the nar is changed by `edit`.
    fn start(
        edit: impl Fn(&crate::support::server::Request, Reply) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let sandbox = Sandbox::new();
        let publisher = Publisher::new(&sandbox, "server", 1);
        Publisher::trust(&sandbox, &[&publisher]);
        let mut rng = fastrand::Rng::with_seed(0);
        let contents: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(SIZE).collect();
        let nar = file_nar(&contents);
        let item = publisher.publish('1', &nar, nar.len() as u64, "");

        let dir = publisher.dir;
        let server = Server::start(move |request| {
            let mut reply = Reply::file_or_range(&dir, request);
            if request.path.ends_with(".nar") {
                reply.drip = Some(PIECE);
                reply = edit(request, reply);
            }
            reply
        });
        Self {
            sandbox,
            server,
            item,
            nar,
        }
    }

    /// The program, with one connection: the test server sends the rest of a file when a segment is
    /// requested.
    fn command(&self, arguments: &[&str]) -> Command {
        let url = self.server.url();
        let mut command = command(&self.sandbox, &url, arguments);
        command.args(["--connections", "1"]);
        command
    }

    fn fetch(&self) -> Command {
        self.command(&["fetch", &self.item])
    }

    /// The files of partial downloads.
    fn kept(&self) -> Vec<PathBuf> {
        let directory = self.sandbox.root().join("var/guix/subst/partial");
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    fn kept_bytes(&self) -> u64 {
        let sizes = self
            .kept()
            .into_iter()
            .map(|file| file.metadata().map_or(0, |it| it.len()));
        sizes.sum()
    }

    /// Starts `command` and waits until so many bytes are kept.
    fn run_until_kept(&self, command: Command, bytes: u64) -> Running {
        let running = Running::start(command, "");
        let is_kept = || self.kept_bytes() >= bytes;
        assert!(
            wait_until(is_kept),
            "{} of {bytes} bytes",
            self.kept_bytes()
        );
        running
    }

    /// Keeps the first megabyte.
    fn kill_once(&self, command: Command) {
        let mut running = self.run_until_kept(command, 1 << 20);
        running.kill();
        running.end();
    }

    fn sent(&self) -> u64 {
        self.server.sent()
    }

    /// Fetches the item to its end, after which nothing is kept.
    fn assert_fetched(&self) -> Run {
        let ended = run(self.fetch()).exits(0);
        self.assert_installed();
        ended
    }

    fn assert_installed(&self) {
        let contents = std::fs::read(installed(&self.sandbox, &self.item)).unwrap();
        assert!(
            self.nar
                .windows(contents.len())
                .any(|part| part == contents)
        );
        assert_eq!(contents.len(), SIZE);
        assert_eq!(self.kept(), Vec::<PathBuf>::new());
    }

    fn whole_requests(&self) -> usize {
        let ranges = self.server.ranges_of("/1.nar");
        ranges.iter().filter(|range| range.is_none()).count()
    }
}

#[test]
fn after_kills_only_the_rest_is_downloaded() {
    let single_bytes = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&single_bytes);
    let slow = Slow::start(move |request, reply| {
        let from = request.from.unwrap_or_default();
        if request.has("range", &format!("bytes={from}-{from}")) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        reply
    });
    let kills = [700 << 10, 1300 << 10, 1400 << 10, 2500 << 10];
    for bytes in kills {
        let mut running = slow.run_until_kept(slow.fetch(), bytes);
        running.kill();
        assert_eq!(running.end().code, None);
    }
    slow.assert_fetched();
    assert_eq!(slow.whole_requests(), 1);
    // While what is on disk is read, nothing is sent that a kill would lose.
    assert!(single_bytes.load(Ordering::Relaxed) > 0);
    let most = SIZE as u64 + kills.len() as u64 * LOST_MAX;
    assert!(slow.sent() < most, "{} bytes", slow.sent());
}

#[test]
fn an_interrupt_says_what_is_kept() {
    let slow = Slow::start(|_, reply| reply);
    for (output, bytes) in [(None, 1 << 20), (Some("tree"), 3 << 19)] {
        let mut fetch = slow.fetch();
        fetch.args(output.map(|output| format!("--output={output}")));
        let running = slow.run_until_kept(fetch, bytes);
        running.interrupt();
        let ended = running.end().exits(130);
        let words = match output {
            None => "subst: interrupted: 0 of 1 item fetched, 1.",
            Some(_) => "subst: interrupted, 1.",
        };
        assert!(ended.stderr.starts_with(words), "{}", ended.stderr);
        ended.says(" MiB kept for the next run\n");
    }

    // A fetch continues what --output has begun.
    slow.assert_fetched();
    assert_eq!(slow.whole_requests(), 1);
    assert!(
        slow.sent() < SIZE as u64 + 2 * LOST_MAX,
        "{} bytes",
        slow.sent()
    );
}

#[test]
fn another_version_of_the_file_is_downloaded_whole() {
    let slow = Slow::start(|_, reply| reply);
    slow.kill_once(slow.fetch());
    let [file] = &slow.kept()[..] else {
        panic!("{:?}", slow.kept());
    };
    let bytes = std::fs::read(file).unwrap();
    let is_tag = |part: &[u8]| part == b"\"one\"";
    let at = bytes.windows(5).position(is_tag).unwrap();
    let file = std::fs::File::options().write(true).open(file).unwrap();
    file.write_all_at(b"\"old\"", at as u64).unwrap();
    drop(file);

    slow.assert_fetched();
    assert_eq!(
        slow.whole_requests(),
        1,
        "the range was requested if it is the version that was kept"
    );
    assert_eq!(slow.server.ranges_of("/1.nar").len(), 2);
    assert!(slow.sent() > SIZE as u64 + (1 << 20));
}

#[test]
fn wrong_bytes_on_the_disk_are_not_blamed_on_the_server() {
    let slow = Slow::start(|_, reply| reply);
    slow.kill_once(slow.fetch());
    let [file] = &slow.kept()[..] else {
        panic!("{:?}", slow.kept());
    };
    crate::support::fixture::flip(file, 600 << 10);
    let ended = slow.assert_fetched();
    assert_eq!(
        ended.stderr.matches("subst:").count(),
        1,
        "{}",
        ended.stderr
    );
    assert_eq!(
        slow.whole_requests(),
        2,
        "{:?}",
        slow.server.ranges_of("/1.nar")
    );
}

#[test]
fn what_a_power_cut_left_is_not_trusted() {
    let slow = Slow::start(|_, reply| reply);
    slow.kill_once(slow.fetch());
    let [file] = &slow.kept()[..] else {
        panic!("{:?}", slow.kept());
    };
    // The length of the file reached the disk, its contents did not.
    let file = std::fs::File::options().write(true).open(file).unwrap();
    let header = 4096;
    file.set_len(header + (300 << 10)).unwrap();
    file.set_len(header + (2 << 20)).unwrap();
    drop(file);
    slow.assert_fetched();
    assert_eq!(slow.whole_requests(), 2);
}

#[test]
fn two_runs_do_not_write_to_the_same_file() {
    let slow = Slow::start(|_, reply| reply);
    let output = |name: &str| slow.command(&["fetch", "--output", name, &slow.item]);
    let first = slow.run_until_kept(output("first"), 600 << 10);
    let second = run(output("second"));
    first.end().exits(0);
    second.exits(0);
    for name in ["first", "second"] {
        let contents = std::fs::read(slow.sandbox.path(name)).unwrap();
        assert!(
            slow.nar.windows(SIZE).any(|part| part == contents),
            "{name}"
        );
    }
    assert_eq!(slow.whole_requests(), 2);
    assert_eq!(slow.kept(), Vec::<PathBuf>::new());
}

#[test]
fn nothing_is_kept_when_it_is_disabled_and_the_cache_can_be_cleared() {
    let slow = Slow::start(|_, reply| reply);
    slow.kill_once(slow.fetch());
    let cache = |arguments: &[&str]| run(slow.command(&[&["cache"], arguments].concat())).exits(0);
    let info = cache(&["info", "--json"]).json();
    assert_eq!(info["partial_downloads"]["files"], 1);
    assert_eq!(info["partial_downloads"]["bytes"], slow.kept_bytes());
    assert!(
        cache(&["info"])
            .stdout
            .contains("unfinished 1 download, 1.")
    );
    cache(&["clear"]).says("1 unfinished download removed");
    assert_eq!(slow.kept_bytes(), 0);

    let mut fetch = slow.fetch();
    fetch.env("SUBST_PARTIAL_MAX_SIZE", "0");
    let before = slow.sent();
    let mut running = Running::start(fetch, "");
    assert!(wait_until(|| slow.sent() > before + (1 << 20)));
    running.kill();
    running.end();
    assert_eq!(slow.kept_bytes(), 0);
}

#[test]
fn a_full_disk_only_ends_the_keeping() {
    let slow = Slow::start(|_, reply| reply);
    let fetch = slow.fetch();
    let script = "mount -t tmpfs -o size=24m none root || exit 77
        \"$0\" \"$@\" &
        while [ \"$(cat root/var/guix/subst/partial/* 2> /dev/null | wc -c)\" -lt 2000000 ]; do
            kill -0 $! || exit 1
            sleep 0.1
        done
        dd if=/dev/zero of=root/fill bs=64k 2> /dev/null
        wait $!
        status=$?
        ls root/var/guix/subst/partial
        exit $status";
    let Some(flags) = unshare_flags() else {
        return;
    };

    std::fs::create_dir(slow.sandbox.root()).unwrap();
    let mut command = Command::new("unshare");
    command.args([flags, "sh", "-c", script]);
    command.arg(fetch.get_program()).args(fetch.get_args());
    let variables = fetch
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    command.envs(variables).current_dir(slow.sandbox.path(""));
    run(command).exits(0).prints(&format!("{}\n", slow.item));
}
