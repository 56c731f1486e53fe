//! guix-daemon's helper, spoken to as the daemon does: requests on descriptor 0, replies on
//! descriptor 4. Wherever the stock helper would end, this one answers and goes on.

mod ahead;
mod buckets;
mod client;
mod dispatch;
mod file_servers;
mod kept;
mod outages;
mod preparing;
mod quorum;
mod random_faults;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::support::fixture::{base, flip};
use crate::support::listing::{sorted_lines, tree};
use crate::support::sandbox::Running;
use crate::support::{Fixture, Kind, Sandbox, Server, files_below, item};

const UNKNOWN: &str = "/gnu/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-unknown";

/// A helper under way.
pub(crate) struct Helper {
    child: Child,
    requests: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
}

impl Helper {
    /// Starts it with `--query` or `--substitute`, asking the servers at `urls`.
    pub(crate) fn start(sandbox: &Sandbox, urls: &str, mode: &str, options: &str) -> Self {
        Self::start_with(sandbox, urls, &[mode], options)
    }

    /// The same with further arguments.
    pub(crate) fn start_with(
        sandbox: &Sandbox,
        urls: &str,
        arguments: &[&str],
        options: &str,
    ) -> Self {
        let mut command = Command::new("sh");
        command
            .args(["-c", "exec 4>&1 1>&2; exec \"$0\" substitute \"$@\""])
            .arg(env!("CARGO_BIN_EXE_subst"))
            .args(arguments);
        Self::start_by(command, sandbox, urls, options)
    }

    /// Starts it by `command`, which lacks the ACL: the sandbox's own, or that of the fixtures.
    fn start_by(mut command: Command, sandbox: &Sandbox, urls: &str, options: &str) -> Self {
        std::fs::create_dir_all(sandbox.path("state")).unwrap();
        command
            .arg("--acl")
            .arg(sandbox.path("acl"))
            .env_clear()
            .env("SUBST_CONFIG", sandbox.path("config.toml"))
            .env("SUBST_RETRY_TIME", "2s")
            .env("SUBST_SYNC", "none")
            .env("GUIX_STATE_DIRECTORY", sandbox.path("state"))
            .env("_NIX_OPTIONS", format!("substitute-urls={urls}\n{options}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(sandbox.path("log")).unwrap());
        let mut child = command.spawn().unwrap();
        let requests = child.stdin.take();
        let replies = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            requests,
            replies,
        }
    }

    fn send(&mut self, request: &str) {
        writeln!(self.requests.as_mut().unwrap(), "{request}").unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(
            self.replies.read_line(&mut line).unwrap(),
            0,
            "the helper has ended"
        );
        line.trim_end_matches('\n').to_owned()
    }

    /// The lines of the reply to `have`.
    fn have(&mut self, paths: &[&str]) -> Vec<String> {
        self.send(&format!("have {} ", paths.join(" ")));
        self.until_empty()
    }

    fn until_empty(&mut self) -> Vec<String> {
        std::iter::from_fn(|| Some(self.line()).filter(|line| !line.is_empty())).collect()
    }

    /// The references in the reply to `info`; `None` if there is no substitute.
    pub(crate) fn info(&mut self, path: &str) -> Option<Vec<String>> {
        self.send(&format!("info {path} "));
        let first = self.line();
        if first.is_empty() {
            return None;
        }
        assert_eq!(first, path);
        let deriver = self.line();
        assert!(deriver.is_empty() || deriver.ends_with(".drv"), "{deriver}");
        let count: usize = self.line().parse().unwrap();
        let references = (0..count).map(|_| self.line()).collect();
        let sizes = [self.line(), self.line()].map(|size| size.parse::<u64>().unwrap());
        assert!(sizes[1] > 0);
        assert_eq!(self.line(), "");
        Some(references)
    }

    /// The reply to `substitute`.
    pub(crate) fn substitute(&mut self, path: &str, destination: &std::path::Path) -> String {
        self.send(&format!("substitute {path} {}", destination.display()));
        self.line()
    }

    /// Ends its input; it must end well.
    pub(crate) fn end(mut self) {
        self.requests = None;
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The reply of the helper after it has unpacked `path`.
pub(crate) fn success(path: &str) -> String {
    let narinfo = Kind::Guix
        .directory()
        .join(format!("{}.narinfo", &base(path)[..32]));
    let text = std::fs::read_to_string(narinfo).unwrap();
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
    };
    format!("success {} {}", field("NarHash: "), field("NarSize: "))
}

fn every_item() -> Vec<String> {
    let rows = sorted_lines(&Kind::Guix.directory().join("expected-rows.txt"));
    let paths = rows.iter().filter(|row| row.starts_with('/'));
    paths
        .map(|row| row.split('\t').next().unwrap().to_owned())
        .collect()
}

fn log(sandbox: &Sandbox) -> String {
    std::fs::read_to_string(sandbox.path("log")).unwrap()
}

#[test]
fn a_closure_is_looked_up_request_by_request() {
    let sandbox = Sandbox::new();
    let mut helper = Helper::start(&sandbox, &Kind::Guix.url(), "--query", "");
    let mut found = vec![item("sample")];
    let mut next = 0;
    while next < found.len() {
        for reference in helper.info(&found[next].clone()).unwrap() {
            if !found.contains(&reference) {
                found.push(reference);
            }
        }
        next += 1;
    }
    found.sort();
    assert_eq!(found, every_item());
    assert_eq!(helper.info(UNKNOWN), None);
    helper.end();
}

#[test]
fn have_lists_what_can_be_substituted() {
    let sandbox = Sandbox::new();
    let mut helper = Helper::start(&sandbox, &Kind::Guix.url(), "--query", "");
    let (tools, notes) = (item("tools"), item("notes"));
    assert_eq!(
        helper.have(&[&tools, UNKNOWN, "/etc/passwd", &notes]),
        [tools, notes]
    );
    helper.end();
}

#[test]
fn invalid_requests_are_answered_and_the_next_one_is_served() {
    let sandbox = Sandbox::new();
    let mut helper = Helper::start(&sandbox, &Kind::Guix.url(), "--query", "");
    for invalid in [
        "",
        "wtf",
        "info",
        "have /tmp/x",
        "substitute a b",
        "info \u{1b}[2J",
    ] {
        helper.send(invalid);
        assert_eq!(helper.line(), "", "{invalid}");
    }
    assert!(helper.info(&item("tools")).is_some());
    helper.end();
    let mut helper = Helper::start(&sandbox, &Kind::Guix.url(), "--substitute", "");
    for invalid in [
        "",
        "wtf",
        "substitute",
        "substitute /tmp/x /tmp/y",
        "info x",
    ] {
        helper.send(invalid);
        assert_eq!(helper.line(), "not-found", "{invalid}");
    }
    let tools = item("tools");
    assert_eq!(
        helper.substitute(&tools, &sandbox.path("tools")),
        success(&tools)
    );
    helper.end();
}

#[test]
fn trees_equal_those_of_the_stock_helper() {
    let sandbox = Sandbox::new();
    let mut helper = Helper::start(&sandbox, &Kind::Guix.url(), "--substitute", "");
    let mut lines = Vec::new();
    for path in every_item() {
        let destination = sandbox.path(base(&path));
        assert_eq!(helper.substitute(&path, &destination), success(&path));
        lines.extend(tree(&destination, base(&path)));
    }
    helper.end();
    lines.sort();
    assert_eq!(
        lines,
        sorted_lines(&Kind::Guix.directory().join("expected.txt"))
    );
}

/// Another process may own the destination by then.
#[test]
fn requests_of_a_daemon_that_ended_before_its_helper_began_are_not_carried_out() {
    let sandbox = Sandbox::new();
    let server = Server::of(Kind::Guix.directory());
    let (notes, place) = (item("notes"), sandbox.path("notes"));
    std::fs::write(&place, "of another process").unwrap();
    let (replies_reader, replies) = std::io::pipe().unwrap();
    drop(replies_reader);
    for (mode, request) in [
        ("--query", format!("have {notes}")),
        (
            "--substitute",
            format!("substitute {notes} {}", place.display()),
        ),
    ] {
        let mut command = sandbox.bare(&["substitute", mode, "--substitute-urls", &server.url()]);
        command.arg("--acl").arg(sandbox.path("acl"));
        let (requests, mut writer) = std::io::pipe().unwrap();
        writeln!(writer, "{request}").unwrap();
        let helper = Running::start_with(command, requests, replies.try_clone().unwrap());
        helper.end().exits(0);
        assert_eq!(server.asked(), Vec::<String>::new(), "{mode}");
        let left = std::fs::read_to_string(&place).unwrap();
        assert_eq!(left, "of another process");
    }
}

#[test]
fn leftovers_of_an_earlier_failure_are_removed_first() {
    let sandbox = Sandbox::new();
    let (notes, place) = (item("notes"), sandbox.path("notes"));
    std::fs::create_dir_all(place.join("left/over")).unwrap();
    let mut helper = Helper::start(&sandbox, &Kind::Guix.url(), "--substitute", "");
    assert_eq!(helper.substitute(&notes, &place), success(&notes));
    assert!(place.is_file());
    helper.end();
}

#[test]
fn failures_that_end_the_stock_helper_do_not_end_this_one() {
    let sandbox = Sandbox::new();
    let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
    let (tools, notes, copy) = (item("tools"), item("notes"), item("copy"));
    std::fs::write(fixture.narinfo(&copy), "%%% no narinfo").unwrap();
    for nar in files_below(&fixture.dir.join("nar"), base(&tools)) {
        let length = std::fs::metadata(&nar).unwrap().len();
        std::fs::File::options()
            .write(true)
            .open(&nar)
            .unwrap()
            .set_len(length / 2)
            .unwrap();
    }
    let mut helper = Helper::start(&sandbox, &fixture.url(), "--query", "");
    assert_eq!(helper.have(&[&copy, &notes]), std::slice::from_ref(&notes));
    helper.end();
    let mut helper = Helper::start(&sandbox, &fixture.url(), "--substitute", "");
    for path in [UNKNOWN, copy.as_str(), tools.as_str()] {
        assert_eq!(
            helper.substitute(path, &sandbox.path("none")),
            "not-found",
            "{path}"
        );
        assert!(!sandbox.path("none").exists());
    }
    assert_eq!(
        helper.substitute(&notes, &sandbox.path("notes")),
        success(&notes)
    );
    helper.end();
}

#[test]
fn after_a_corrupt_nar_the_next_url_and_the_next_server_are_tried() {
    let sandbox = Sandbox::new();
    let bad = Fixture::copy(Kind::Guix, sandbox.path("bad"));
    let notes = item("notes");
    flip(&bad.nar(&notes, "zstd"), 300);
    let mut helper = Helper::start(&sandbox, &bad.url(), "--substitute", "");
    assert_eq!(
        helper.substitute(&notes, &sandbox.path("one")),
        success(&notes)
    );
    helper.end();
    bad.only("zstd");
    let urls = format!("{} {}", bad.url(), Kind::Guix.url());
    let mut helper = Helper::start(&sandbox, &urls, "--substitute", "");
    assert_eq!(
        helper.substitute(&notes, &sandbox.path("two")),
        success(&notes)
    );
    helper.end();
    assert!(log(&sandbox).contains("failed"), "{}", log(&sandbox));
}

#[test]
fn another_nar_is_a_hash_mismatch() {
    let sandbox = Sandbox::new();
    let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
    let (notes, link) = (item("notes"), item("link"));
    fixture.only("none");
    std::fs::copy(fixture.nar(&link, "none"), fixture.nar(&notes, "none")).unwrap();
    let mut helper = Helper::start(&sandbox, &fixture.url(), "--substitute", "");
    let hash = |path: &str| {
        let said = success(path);
        said.split(' ')
            .nth(1)
            .unwrap()
            .strip_prefix("sha256:")
            .unwrap()
            .to_owned()
    };
    let expected = format!("hash-mismatch sha256 {} {}", hash(&notes), hash(&link));
    assert_eq!(helper.substitute(&notes, &sandbox.path("notes")), expected);
    assert!(!sandbox.path("notes").exists());
    helper.end();
}

#[test]
fn the_trace_has_the_format_that_the_client_expects() {
    let sandbox = Sandbox::new();
    let options = "print-extended-build-trace=1";
    let mut helper = Helper::start(&sandbox, &Kind::Guix.url(), "--substitute", options);
    let notes = item("notes");
    let place = sandbox.path("notes");
    helper.substitute(&notes, &place);
    helper.end();
    let log = log(&sandbox);
    let lines: Vec<Vec<&str>> = log.lines().map(|line| line.split(' ').collect()).collect();
    let place = place.to_str().unwrap();
    let mut events: Vec<&str> = lines
        .iter()
        .filter(|line| line[0] == "@")
        .map(|l| l[1])
        .collect();
    // The number of trace lines depends on the time that the download takes.
    events.dedup();
    assert_eq!(
        events,
        [
            "download-started",
            "download-progress",
            "download-succeeded"
        ]
    );
    for line in lines.iter().filter(|line| line[0] == "@") {
        assert_eq!(line[2], place);
        assert!(line[3].starts_with("file:///"), "{log}");
        assert!(line[4].parse::<u64>().unwrap() > 0);
    }
    assert!(log.ends_with("\n\n"), "an empty line ends it: {log}");
}

#[test]
fn invalid_server_urls_are_skipped() {
    let sandbox = Sandbox::new();
    let urls = format!("nonsense ftp://x {}", Kind::Guix.url());
    let mut helper = Helper::start(&sandbox, &urls, "--query", "");
    assert!(helper.info(&item("notes")).is_some());
    helper.end();
    assert!(log(&sandbox).contains("nonsense"));
}

#[test]
fn settings_for_another_store_are_ignored_and_named_in_the_log() {
    let sandbox = Sandbox::new();
    let root = sandbox.root();
    let text = format!("root = {root:?}\nstore-dir = \"/nix/store\"\nprogress = \"json\"\n");
    sandbox.write_safely("config.toml", &text);
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "exec 4>&1 1>&2; export SUBST_ROOT=/elsewhere; exec \"$0\" substitute --query \"$@\"",
        ])
        .arg(env!("CARGO_BIN_EXE_subst"));
    let mut helper = Helper::start_by(command, &sandbox, &Kind::Guix.url(), "");
    assert!(helper.info(&item("tools")).is_some(), "{}", log(&sandbox));
    helper.end();
    let log = log(&sandbox);
    let config = sandbox.path("config.toml").display().to_string();
    let expected = format!(
        "subst: warning: SUBST_ROOT, {config}:1: root, {config}:2: store-dir are ignored: "
    );
    let lines = log.lines().filter(|line| line.contains(&expected));
    assert_eq!(lines.count(), 1, "{log}");
    assert_eq!(log.matches("ignored").count(), 1, "{log}");
    assert!(!root.exists());
}
