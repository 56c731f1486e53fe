//! `subst verify`: every fault of a store is found, and nothing else is reported.

use std::collections::BTreeSet;
use std::fs::{File, Permissions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::process::geteuid;
use serde_json::Value;

use crate::support::fixture::base;
use crate::support::listing::sorted_lines;
use crate::support::sandbox::{Run, make_writable, run};
use crate::support::{Kind, Sandbox, item};

use super::NOTHING;

mod repair;

/// A sandbox with all items of the fixtures.
fn filled(kind: Kind) -> Sandbox {
    let sandbox = Sandbox::new();
    run(sandbox.command(kind, &kind.url(), &["fetch", &kind.item("sample")])).exits(0);
    sandbox
}

fn verify(sandbox: &Sandbox, arguments: &[&str]) -> Run {
    let arguments = [&["verify"], arguments].concat();
    sandbox.subst(&Kind::Guix.url(), &arguments)
}

/// The tree of the item `name`.
fn tree(sandbox: &Sandbox, name: &str) -> PathBuf {
    sandbox.store().join(base(&item(name)))
}

/// Sets mode and time of a file as a store has them.
fn settle(path: &Path, mode: u32) {
    let file = File::open(path).unwrap();
    let second_one = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    file.set_modified(second_one).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Flips one bit in the middle of a file, and leaves its attributes as they are.
fn flip(path: &Path) {
    let mode = path.metadata().unwrap().permissions().mode();
    std::fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let middle = SeekFrom::Start(file.metadata().unwrap().len() / 2);
    let mut byte = [0];
    file.seek(middle).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(middle).unwrap();
    file.write_all(&[byte[0] ^ 0x10]).unwrap();
    drop(file);
    settle(path, mode & 0o7777);
}

/// All regular files below `directory` with contents.
fn files_with_contents(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_dir() {
            left.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
        } else if metadata.is_file() && metadata.len() > 0 {
            files.push(path);
        }
    }
    files
}

/// The findings of a run with `--json`: status, path, and files.
fn findings(run: &Run) -> BTreeSet<(String, String, Vec<String>)> {
    let json = run.json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let findings = json["findings"].as_array().unwrap().iter();
    findings
        .map(|finding| {
            let files = finding["files"].as_array().unwrap().iter().map(text);
            let (status, path) = (text(&finding["status"]), text(&finding["path"]));
            (status, path, files.collect())
        })
        .collect()
}

fn finding(status: &str, path: &str, files: &[&str]) -> (String, String, Vec<String>) {
    let files = files.iter().map(|file| (*file).to_owned()).collect();
    (status.to_owned(), path.to_owned(), files)
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    one.metadata().unwrap().ino() == other.metadata().unwrap().ino()
}

/// The full name of the entry of `.links` that has the inode of `file`.
fn entry_of(sandbox: &Sandbox, file: &Path) -> String {
    let entries = sandbox.store().join(".links").read_dir().unwrap();
    let mut entries = entries.map(Result::unwrap);
    let entry = entries.find(|entry| is_same_file(&entry.path(), file));
    format!("/gnu/store/.links/{}", entry.unwrap().file_name().display())
}

#[test]
fn a_sound_store_has_no_fault() {
    for kind in [Kind::Guix, Kind::NixZstd] {
        let sandbox = filled(kind);
        let lines = sorted_lines(&kind.expected().join("expected.txt"));
        let names = lines.iter().filter_map(|line| line.split('\t').next());
        let items = names.filter(|name| !name.contains('/')).count();
        let store = kind.item("sample");
        let store = Path::new(&store[1..]).parent().unwrap();
        let entries = sandbox
            .root()
            .join(store)
            .join(".links")
            .read_dir()
            .unwrap()
            .count();
        let done = run(sandbox.command(kind, &kind.url(), &["verify"])).exits(0);
        let done = done.prints("");
        let counts = format!("{items} items and {entries} entries of .links verified in ");
        done.says(&counts).says(": no fault found");

        let sample = kind.item("sample");
        let one = run(sandbox.command(kind, &kind.url(), &["verify", &sample])).exits(0);
        one.prints("")
            .says("subst: 1 item and ")
            .says(": no fault found");
    }
}

#[test]
fn a_flipped_bit_is_found_in_every_file() {
    let sandbox = filled(Kind::Guix);
    let store = sandbox.store();
    for file in files_with_contents(&store) {
        let below = file.strip_prefix(&store).unwrap().to_str().unwrap();
        let path = match below.split_once('/') {
            Some((".links", _)) => format!("/gnu/store/{below}"),
            Some((item, _)) => format!("/gnu/store/{item}"),
            None => format!("/gnu/store/{below}"),
        };

        flip(&file);
        let found = findings(&verify(&sandbox, &["--json"]).exits(3));
        assert!(
            found
                .iter()
                .any(|(status, found, _)| status == "damaged" && *found == path),
            "{below}: {found:?}"
        );
        flip(&file);
    }
    verify(&sandbox, &[]).exits(0);
}

#[test]
fn a_damaged_file_is_found_under_all_its_names() {
    let sandbox = filled(Kind::Guix);
    let file = tree(&sandbox, "copy").join("same-as-in-tree");
    let entry = entry_of(&sandbox, &file);
    let top = tree(&sandbox, "tree");
    // Of two equal files in an item, one may stay alone when another process or thread adds the same entry.
    let in_tree = files_with_contents(&top)
        .into_iter()
        .filter(|path| is_same_file(path, &file));
    let in_tree = in_tree.map(|path| {
        path.strip_prefix(&top)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    });
    let mut in_tree: Vec<String> = in_tree.collect();
    in_tree.sort();
    let in_tree: Vec<&str> = in_tree.iter().map(String::as_str).collect();
    assert_ne!(in_tree, [""; 0]);

    flip(&file);
    let expected = BTreeSet::from([
        finding("damaged", &item("copy"), &["same-as-in-tree"]),
        finding("damaged", &item("tree"), &in_tree),
        finding("damaged", &entry, &[]),
    ]);
    assert_eq!(findings(&verify(&sandbox, &["--json"]).exits(3)), expected);

    let text = verify(&sandbox, &[]).exits(3);
    let line = format!(
        "damaged     {}  same-as-in-tree: its contents do not have the recorded hash\n",
        item("copy")
    );
    assert!(text.stdout.contains(&line), "{}", text.stdout);
    text.says("3 damaged");

    // The same for one item.
    let one = verify(&sandbox, &["--json", &item("tree")]).exits(3);
    let expected = BTreeSet::from([
        finding("damaged", &item("tree"), &in_tree),
        finding("damaged", &entry, &[]),
    ]);
    assert_eq!(findings(&one), expected);
    verify(&sandbox, &[&item("notes")]).exits(0).prints("");
}

#[test]
fn faults_that_no_file_shows_are_found() {
    let sandbox = filled(Kind::Guix);
    let place = |name: &str| tree(&sandbox, name);
    make_writable(&place("tools"));
    std::fs::remove_file(place("tools").join("bin/display")).unwrap();
    symlink("other", place("tools").join("bin/display")).unwrap();
    make_writable(&place("sample"));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place("sample").join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o444),
        0,
    )
    .unwrap();
    std::fs::remove_file(place("link")).unwrap();
    std::fs::set_permissions(place("program"), Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(place("copy"), Permissions::from_mode(0o755)).unwrap();
    settle(&place("copy"), 0o700);

    let found = verify(&sandbox, &["--json"]).exits(3);
    let expected = BTreeSet::from([
        finding("damaged", &item("tools"), &[]),
        finding("damaged", &item("sample"), &["fifo"]),
        finding("missing", &item("link"), &[]),
        finding("attributes", &item("program"), &[]),
        finding("attributes", &item("copy"), &[]),
    ]);
    assert_eq!(findings(&found), expected);
    let text = verify(&sandbox, &[])
        .exits(3)
        .says("2 damaged, 1 missing, 2 with wrong attributes");
    let line = format!(
        "attributes  {}  its mode is 0755 instead of 0555\n",
        item("program")
    );
    assert!(text.stdout.contains(&line), "{}", text.stdout);
}

#[test]
fn modes_and_times_of_files_are_compared() {
    let sandbox = filled(Kind::Guix);
    let directory = tree(&sandbox, "tools").join("share");
    std::fs::set_permissions(directory.join("one-byte"), Permissions::from_mode(0o644)).unwrap();
    let file = File::options()
        .write(true)
        .open(directory.join("one-byte"))
        .unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(2))
        .unwrap();
    std::fs::set_permissions(directory.join("seven-bytes"), Permissions::from_mode(0o440)).unwrap();

    let found = verify(&sandbox, &["--json"]).exits(3);
    let files = ["share/one-byte", "share/seven-bytes"];
    let expected = BTreeSet::from([finding("attributes", &item("tools"), &files)]);
    assert_eq!(findings(&found), expected);
    let text = verify(&sandbox, &[]).exits(3);
    let line = "share/one-byte, share/seven-bytes: its mode is 0644 instead of 0444 \
                (2 other faults of attributes)";
    assert!(text.stdout.contains(line), "{}", text.stdout);
}

#[test]
fn what_is_not_valid_is_no_fault() {
    let sandbox = filled(Kind::Guix);
    let stray = "00000000000000000000000000000000-stray";
    let unregistered = sandbox.store().join(stray);
    std::fs::write(&unregistered, "no item").unwrap();
    std::fs::write(sandbox.store().join(format!("{stray}.lock")), "").unwrap();
    std::fs::create_dir(sandbox.store().join(format!("{stray}.tmp"))).unwrap();
    std::fs::create_dir(sandbox.store().join("trash")).unwrap();

    let json = verify(&sandbox, &["--json"]).exits(0).json();
    assert_eq!(
        json["unregistered"],
        serde_json::json!([format!("/gnu/store/{stray}")])
    );
    let temporary = ["lock", "tmp"].map(|suffix| format!("/gnu/store/{stray}.{suffix}"));
    assert_eq!(json["temporary"], serde_json::json!(temporary));
    assert_eq!(json["findings"], serde_json::json!([]));
    verify(&sandbox, &[])
        .exits(0)
        .says("1 item is in the store directory without being valid");

    let unknown = verify(&sandbox, &[NOTHING, &item("notes")]).exits(1);
    let line = format!("not-valid   {NOTHING}  it is not valid in this store\n");
    unknown
        .prints(&line)
        .says("subst: 1 item and ")
        .says(": 1 not valid\n");
}

#[test]
fn a_file_that_cannot_be_read_is_no_damage() {
    if geteuid().is_root() {
        eprintln!("skipped: root reads every file");
        return;
    }
    let sandbox = filled(Kind::Guix);
    let file = tree(&sandbox, "tools").join("share/one-byte");
    std::fs::set_permissions(file, Permissions::from_mode(0o000)).unwrap();
    let found = verify(&sandbox, &["--json"]).exits(5);
    let expected = finding("unreadable", &item("tools"), &["share/one-byte"]);
    assert_eq!(findings(&found), BTreeSet::from([expected]));
    let text = verify(&sandbox, &[]).exits(5);
    assert!(
        text.stdout.contains("share/one-byte: Permission denied"),
        "{}",
        text.stdout
    );
}

#[test]
fn rows_that_no_program_writes_are_faults_of_the_database() {
    let sandbox = filled(Kind::Guix);
    let database = sandbox.root().join("var/guix/db/db.sqlite");
    let connection = rusqlite::Connection::open(&database).unwrap();
    connection
        .execute(
            "UPDATE ValidPaths SET hash = 'sha256:x' WHERE path = ?1",
            [item("notes")],
        )
        .unwrap();
    connection
        .execute_batch("PRAGMA foreign_keys = OFF; INSERT INTO Refs VALUES (1, 99999)")
        .unwrap();
    drop(connection);

    let text = verify(&sandbox, &[])
        .exits(5)
        .says("2 faults of the database");
    for fault in [
        &*format!("the hash of {} is invalid", item("notes")),
        "a row of Refs refers to an item that has no row",
    ] {
        assert!(text.stdout.contains(fault), "{}", text.stdout);
    }
}

#[test]
fn nothing_is_changed_and_nothing_is_needed_but_the_right_to_read() {
    let sandbox = Sandbox::new();
    verify(&sandbox, &[])
        .exits(5)
        .says("there is no store database");
    assert!(!sandbox.root().exists());

    let sandbox = filled(Kind::Guix);
    let listed = || {
        let mut names = Vec::new();
        let mut left = vec![sandbox.root()];
        while let Some(path) = left.pop() {
            let metadata = path.symlink_metadata().unwrap();
            if metadata.is_dir() {
                left.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
            }
            names.push((
                path,
                metadata.mode(),
                metadata.mtime(),
                metadata.mtime_nsec(),
            ));
        }
        names.sort();
        names
    };
    let before = listed();
    verify(&sandbox, &[]).exits(0);
    let is_same = |entry: &(PathBuf, u32, i64, i64)| !entry.0.ends_with("var/guix/db");
    let [before, after] = [before, listed()].map(|names| {
        let kept = names.into_iter().filter(is_same);
        kept.collect::<Vec<_>>()
    });
    assert_eq!(before, after);
}
