//! `subst mirror`: a directory that others fetch from, copied from servers.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use subst::format::base32;

use crate::support::publisher::{Publisher, command, file_nar, installed, name};
use crate::support::sandbox::{Run, run};
use crate::support::server::Reply;
use crate::support::{Kind, Sandbox, Server, files_below, item};

/// A mirror run of what `urls` have, to `mirror`.
pub(super) fn mirror(sandbox: &Sandbox, urls: &str, arguments: &[&str]) -> Run {
    run(mirror_command(sandbox, urls, arguments))
}

pub(super) fn mirror_command(sandbox: &Sandbox, urls: &str, arguments: &[&str]) -> Command {
    let mut command = command(sandbox, urls, &["mirror"]);
    command.arg("--to").arg(sandbox.path("mirror"));
    command.args(arguments);
    command
}

/// The files of `directory` by name, without those of the mirror's own directory.
pub(super) fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = files_below(directory, "").into_iter();
    let named = files.map(|file| {
        let name = file.strip_prefix(directory).unwrap().to_str().unwrap();
        (name.to_owned(), std::fs::read(&file).unwrap())
    });
    named
        .filter(|(name, _)| !name.starts_with("subst/"))
        .collect()
}

/// A publisher of a, which refers to b, over http.
pub(super) fn published(sandbox: &Sandbox) -> (Publisher, String) {
    let publisher = Publisher::new(sandbox, "server", 1);
    Publisher::trust(sandbox, &[&publisher]);
    let b = publisher.publish_file('b', "b", "");
    let a = publisher.publish_file('a', "a", &b["/gnu/store/".len()..]);
    (publisher, a)
}

fn nar_requests(server: &Server) -> usize {
    let requests = server.requests();
    requests
        .iter()
        .filter(|request| request.path.contains(".nar") && !request.path.ends_with("narinfo"))
        .count()
}

#[test]
fn a_closure_is_copied_byte_for_byte_and_others_fetch_it() {
    let sandbox = Sandbox::new();
    let (publisher, a) = published(&sandbox);
    let server = Server::of(publisher.dir.clone());
    mirror(&sandbox, &server.url(), &["--closure", &a])
        .exits(0)
        .says("2 items copied");

    let (mut copied, mut original) = (contents(&sandbox.path("mirror")), contents(&publisher.dir));
    copied.remove("nix-cache-info").unwrap();
    original.remove("nix-cache-info").unwrap();
    assert_eq!(copied, original);

    let url = format!("file://{}", sandbox.path("mirror").display());
    run(command(&sandbox, &url, &["fetch", &a])).exits(0);
    assert!(installed(&sandbox, &a).exists());
}

#[test]
fn a_second_run_downloads_no_nar() {
    let sandbox = Sandbox::new();
    let (publisher, a) = published(&sandbox);
    let server = Server::of(publisher.dir.clone());
    mirror(&sandbox, &server.url(), &["--closure", &a]).exits(0);
    let (before, files) = (nar_requests(&server), contents(&sandbox.path("mirror")));
    assert_eq!(before, 2);

    let json = mirror(&sandbox, &server.url(), &["--closure", &a, "--json"])
        .exits(0)
        .json();
    assert_eq!(json["summary"]["present"], 2);
    assert_eq!(json["summary"]["nar_bytes"], 0);
    assert_eq!(nar_requests(&server), before);
    assert_eq!(contents(&sandbox.path("mirror")), files);
}

#[test]
fn a_nar_that_a_killed_run_has_copied_is_not_downloaded_again() {
    let sandbox = Sandbox::new();
    let (publisher, a) = published(&sandbox);
    let server = Server::of(publisher.dir.clone());
    let target = sandbox.path("mirror");
    std::fs::create_dir_all(target.join("subst/incoming")).unwrap();
    std::fs::write(target.join("subst/incoming/7"), "half a nar").unwrap();
    std::fs::copy(publisher.nar('a'), target.join("a.nar")).unwrap();

    mirror(&sandbox, &server.url(), &["--closure", &a]).exits(0);
    assert_eq!(nar_requests(&server), 1);
    assert_eq!(target.join("subst/incoming").read_dir().unwrap().count(), 0);
}

#[test]
fn a_narinfo_is_written_before_the_nars_of_other_items_are_copied() {
    let sandbox = Sandbox::new();
    let publisher = Publisher::new(&sandbox, "server", 1);
    Publisher::trust(&sandbox, &[&publisher]);
    let a = publisher.publish_file('a', "a", "");
    let b = publisher.publish_file('b', "b", &a["/gnu/store/".len()..]);
    let (dir, narinfo) = (
        publisher.dir.clone(),
        sandbox.path(&format!("mirror/{}.narinfo", "a".repeat(32))),
    );
    let is_early = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_early);
    let server = Server::start(move |request| {
        if request.path.ends_with("b.nar") {
            seen.store(narinfo.exists(), Ordering::Relaxed);
        }
        Reply::file(&dir, request)
    });
    mirror(
        &sandbox,
        &server.url(),
        &["--closure", &a, &b, "--jobs", "1"],
    )
    .exits(0);
    assert!(is_early.load(Ordering::Relaxed));
}

#[test]
fn a_nar_that_the_server_lacks_is_missing() {
    let sandbox = Sandbox::new();
    let (publisher, a) = published(&sandbox);
    std::fs::remove_file(publisher.nar('b')).unwrap();
    let server = Server::of(publisher.dir.clone());
    let output = mirror(&sandbox, &server.url(), &["--closure", &a]);
    output
        .exits(1)
        .says("hint: another server may have it: --substitute-urls");
    let files = contents(&sandbox.path("mirror"));
    assert_eq!(
        files.keys().collect::<Vec<_>>(),
        ["a.nar", "nix-cache-info"]
    );
}

#[test]
fn progress_counts_items_and_bytes() {
    let sandbox = Sandbox::new();
    let (publisher, a) = published(&sandbox);
    let arguments = ["--closure", &a, "--progress", "json"];
    let events = mirror(&sandbox, &publisher.url(), &arguments)
        .exits(0)
        .stderr;
    let events = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut mirroring = events.filter(|event| event["event"] == "mirroring");
    let last = mirroring.next_back().unwrap();
    let bytes = [file_nar(b"a"), file_nar(b"b")].concat().len();
    let counts = ["items_done", "items", "bytes_done", "bytes"].map(|name| &last[name]);
    assert_eq!(counts, [&json!(2), &json!(2), &json!(bytes), &json!(bytes)]);
}

#[test]
fn a_dry_run_creates_nothing() {
    let sandbox = Sandbox::new();
    let (publisher, a) = published(&sandbox);
    let output = mirror(&sandbox, &publisher.url(), &["--closure", &a, "--dry-run"]);
    output.exits(0).says("2 items to copy");
    assert!(!sandbox.path("mirror").exists());

    mirror(&sandbox, &publisher.url(), &["--closure", &a]).exits(0);
    let output = mirror(&sandbox, &publisher.url(), &["--closure", &a, "--dry-run"]);
    output.exits(0).says("0 items to copy");
}

#[test]
fn what_cannot_be_copied_is_skipped_with_all_that_refers_to_it() {
    let sandbox = Sandbox::new();
    let (publisher, a) = published(&sandbox);
    let c = publisher.publish_file('c', "c", "");
    std::fs::remove_file(publisher.narinfo('b')).unwrap();
    let url = publisher.url();
    mirror(&sandbox, &url, &["--closure", &a, &c])
        .exits(1)
        .says("is skipped");

    let names: Vec<String> = contents(&sandbox.path("mirror")).into_keys().collect();
    let hash = "c".repeat(32);
    assert_eq!(
        names,
        ["c.nar", &format!("{hash}.narinfo"), "nix-cache-info"]
    );
}

#[test]
fn wrong_nars_and_unauthorized_narinfos_are_refused() {
    let sandbox = Sandbox::new();
    let (publisher, a) = published(&sandbox);
    let stranger = Publisher::new(&sandbox, "stranger", 9);
    let c = stranger.publish_file('c', "c", "");
    std::fs::write(publisher.nar('b'), file_nar(b"other")).unwrap();
    let urls = format!("{} {}", publisher.url(), stranger.url());
    let output = mirror(&sandbox, &urls, &["--closure", &a, &c]).exits(3);
    assert!(output.stderr.contains("narinfo says"), "{}", output.stderr);
    assert!(
        output.stderr.contains("not authorized"),
        "{}",
        output.stderr
    );

    let names: Vec<String> = contents(&sandbox.path("mirror")).into_keys().collect();
    assert_eq!(names, ["a.nar", "nix-cache-info"]);
}

#[test]
fn no_url_of_a_server_leads_out_of_the_mirror() {
    let sandbox = Sandbox::new();
    let publisher = Publisher::new(&sandbox, "server", 1);
    Publisher::trust(&sandbox, &[&publisher]);
    let nar = file_nar(b"a");
    std::fs::write(publisher.nar('a'), &nar).unwrap();
    let server = Server::of(publisher.dir.clone());
    let url = format!("{}/a.nar", server.url());
    let downloads = format!("URL: {url}\nCompression: none\n");
    let a = publisher.describe('a', &nar, nar.len() as u64, "", &downloads);
    mirror(&sandbox, &server.url(), &["--closure", &a]).exits(0);

    let files = contents(&sandbox.path("mirror"));
    let (key, _) = files
        .first_key_value()
        .filter(|(key, _)| key.starts_with("a"))
        .unwrap();
    let text = String::from_utf8(files[key].clone()).unwrap();
    let moved = text
        .lines()
        .find_map(|line| line.strip_prefix("URL: "))
        .unwrap();
    assert!(
        moved.starts_with("nar/sha256-") && files[moved] == nar,
        "{text}"
    );
    mirror(&sandbox, &server.url(), &["--closure", &a])
        .exits(0)
        .says("1 there already");
}

#[test]
fn signatures_of_several_servers_are_merged_behind_the_first() {
    let sandbox = Sandbox::new();
    let publishers = [("one", 1), ("two", 2), ("three", 3)];
    let [one, two, three] = publishers.map(|(name, seed)| Publisher::new(&sandbox, name, seed));
    Publisher::trust(&sandbox, &[&one, &two]);
    let mut items = [&one, &two, &three].map(|it| it.publish_file('a', "a", ""));
    let urls = [&one, &two, &three].map(Publisher::url).join(" ");
    let a = std::mem::take(&mut items[0]);
    mirror(&sandbox, &urls, &["--closure", &a]).exits(0);

    let narinfo = sandbox.path(&format!("mirror/{}.narinfo", &name('a')[..32]));
    let read = || std::fs::read_to_string(&narinfo).unwrap();
    let signature = |publisher: &Publisher| {
        let text = std::fs::read_to_string(publisher.narinfo('a')).unwrap();
        let line = text.lines().find(|line| line.starts_with("Signature:"));
        format!("{}\n", line.unwrap())
    };
    let (first, second) = (signature(&one), signature(&two));
    assert!(
        read().contains(&format!("{first}{second}URL:")),
        "{}",
        read()
    );
    assert!(!read().contains(&signature(&three)));

    // What the mirror has stays when a server is gone.
    let before = read();
    mirror(&sandbox, &one.url(), &["--closure", &a]).exits(0);
    assert_eq!(read(), before);
}

#[test]
fn compression_chooses_among_what_the_servers_have() {
    let sandbox = Sandbox::new();
    let tools = item("tools");
    let to = sandbox.path("mirror");
    let mut command = sandbox.command(
        Kind::Guix,
        &Kind::Guix.url(),
        &["mirror", "--closure", &tools],
    );
    command.arg("--to").arg(&to).args(["--compression", "zstd"]);
    run(command).exits(0);
    let files = contents(&to);
    let nars: Vec<&String> = files
        .keys()
        .filter(|name| name.starts_with("nar/"))
        .collect();
    assert!(!nars.is_empty());
    for (name, text) in files.iter().filter(|(name, _)| name.ends_with(".narinfo")) {
        let text = String::from_utf8_lossy(text);
        let urls = text.lines().filter_map(|line| line.strip_prefix("URL: "));
        assert!(urls.count() == 1, "{name}: {text}");
    }
}

#[test]
fn all_items_of_a_directory_are_copied() {
    let sandbox = Sandbox::new();
    let (publisher, _) = published(&sandbox);
    mirror(&sandbox, &publisher.url(), &["--all"])
        .exits(0)
        .says("2 items copied");
    mirror(&sandbox, "http://127.0.0.1:1", &["--all"])
        .exits(2)
        .says("no list of its items");

    let list = sandbox.path("list");
    std::fs::write(&list, format!("/gnu/store/{}\n", name('a'))).unwrap();
    let list = list.to_str().unwrap();
    mirror(&sandbox, &publisher.url(), &["--list", list])
        .exits(0)
        .says("2 there already");
}

#[test]
fn a_mirror_of_another_store_is_refused() {
    let sandbox = Sandbox::new();
    let (publisher, a) = published(&sandbox);
    std::fs::create_dir(sandbox.path("mirror")).unwrap();
    std::fs::write(
        sandbox.path("mirror/nix-cache-info"),
        "StoreDir: /nix/store\n",
    )
    .unwrap();
    let output = mirror(&sandbox, &publisher.url(), &["--closure", &a]);
    output.exits(2).says("is a mirror for `/nix/store`");
}

#[test]
fn what_no_signature_covers_is_compared_with_the_file() {
    let sandbox = Sandbox::new();
    let publisher = Publisher::new(&sandbox, "server", 1);
    Publisher::trust(&sandbox, &[&publisher]);
    let (nar, size) = (file_nar(b"a"), file_nar(b"a").len());
    let wrong_hash = base32::encode(&[7; 32]);
    for (downloads, file, message) in [
        (
            format!("FileSize: {}\n", size + 1),
            nar.clone(),
            "its narinfo says",
        ),
        (
            format!("FileHash: sha256:{wrong_hash}\n"),
            nar.clone(),
            "the file has the hash",
        ),
        (String::new(), [&nar[..], b"more"].concat(), "longer than"),
        (String::new(), nar[..size - 8].to_vec(), "its narinfo says"),
    ] {
        std::fs::write(publisher.nar('a'), &file).unwrap();
        let downloads = format!("URL: a.nar\nCompression: none\n{downloads}");
        let a = publisher.describe('a', &nar, size as u64, "", &downloads);
        let output = mirror(&sandbox, &publisher.url(), &["--closure", &a]);
        assert!(matches!(output.code, Some(3 | 4)), "{output:?}");
        output.says(message);
        let files = contents(&sandbox.path("mirror"));
        assert_eq!(
            files.keys().collect::<Vec<_>>(),
            ["nix-cache-info"],
            "{downloads}"
        );
    }
}

#[test]
fn one_process_at_a_time_writes_to_a_mirror() {
    let sandbox = Sandbox::new();
    let (publisher, a) = published(&sandbox);
    mirror(&sandbox, &publisher.url(), &["--closure", &a]).exits(0);
    let lock = std::fs::File::open(sandbox.path("mirror/subst/lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let output = mirror(&sandbox, &publisher.url(), &["--closure", &a]);
    output
        .exits(5)
        .says("another process is writing to the mirror");

    // To look at it needs no lock.
    mirror(&sandbox, &publisher.url(), &["--closure", &a, "-n"]).exits(0);
}

#[test]
fn another_file_under_the_name_of_a_nar_is_kept() {
    let sandbox = Sandbox::new();
    let (publisher, a) = published(&sandbox);
    std::fs::create_dir(sandbox.path("mirror")).unwrap();
    std::fs::write(sandbox.path("mirror/a.nar"), "of an older narinfo").unwrap();
    mirror(&sandbox, &publisher.url(), &["--closure", &a]).exits(0);

    let files = contents(&sandbox.path("mirror"));
    assert_eq!(files["a.nar"], b"of an older narinfo");
    let url = format!("file://{}", sandbox.path("mirror").display());
    run(command(&sandbox, &url, &["fetch", &a])).exits(0);
}
