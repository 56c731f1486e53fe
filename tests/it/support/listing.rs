//! What is in a store, as sorted lines: to compare with what stock programs made, and with
//! what was there before.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use data_encoding::HEXLOWER;
use rusqlite::Connection;
use sha2::{Digest as _, Sha256};

/// The tree at `top` in the form of `expected.txt`, with names that begin with `name`. Every
/// modification time must be 1.
pub(crate) fn tree(top: &Path, name: &str) -> Vec<String> {
    let mut lines = Vec::new();
    walk(top, name.as_bytes(), &mut lines);
    lines.sort();
    lines
        .into_iter()
        .map(|line| String::from_utf8(line).unwrap())
        .collect()
}

fn walk(path: &Path, name: &[u8], lines: &mut Vec<Vec<u8>>) {
    let metadata = path.symlink_metadata().unwrap();
    assert_eq!(
        (metadata.mtime(), metadata.mtime_nsec()),
        (1, 0),
        "{}",
        path.display()
    );
    let mode = metadata.permissions().mode() & 0o7777;
    let facts = if metadata.is_symlink() {
        let target = std::fs::read_link(path).unwrap();
        [b"symlink\t-\t-\t", target.as_os_str().as_bytes()].concat()
    } else if metadata.is_dir() {
        format!("directory\t{mode:04o}\t-\t-").into_bytes()
    } else {
        let hash = HEXLOWER.encode(&Sha256::digest(std::fs::read(path).unwrap()));
        format!("regular\t{mode:04o}\t{}\t{hash}", metadata.len()).into_bytes()
    };
    lines.push([name, b"\t", &facts].concat());
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let name = [name, b"/", entry.file_name().as_bytes()].concat();
            walk(&entry.path(), &name, lines);
        }
    }
}

/// All items of a store, in the form of `expected.txt`.
pub(crate) fn items(store: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(store).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name != ".links" {
            lines.extend(tree(&store.join(&name), &name));
        }
    }
    lines.sort();
    lines
}

/// The names in `.links`.
pub(crate) fn links(store: &Path) -> Vec<String> {
    names(&store.join(".links"))
}

/// The names in `.links` of what is in no item.
pub(crate) fn unused_links(store: &Path) -> Vec<String> {
    let is_unused = |name: &String| {
        store
            .join(".links")
            .join(name)
            .symlink_metadata()
            .unwrap()
            .nlink()
            == 1
    };
    links(store).into_iter().filter(is_unused).collect()
}

/// The names in a directory.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| name(entry).into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What is registered, in the form of `expected-rows.txt`.
pub(crate) fn rows(database: &Path) -> Vec<String> {
    let db = Connection::open(database).unwrap();
    let mut items = db
        .prepare(
            "select id, path, hash, narSize, coalesce(deriver, '') from ValidPaths order by path",
        )
        .unwrap();
    let mut references = db
        .prepare("select path from Refs join ValidPaths on reference = id where referrer = ? order by path")
        .unwrap();
    let mut lines = Vec::new();
    let mut rows = items.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let text = |column: usize| row.get::<_, String>(column).unwrap();
        let size: i64 = row.get(3).unwrap();
        lines.push(format!("{}\t{}\t{size}\t{}", text(1), text(2), text(4)));
        let id: i64 = row.get(0).unwrap();
        let paths = references
            .query_map([id], |row| row.get::<_, String>(0))
            .unwrap();
        lines.extend(paths.map(|path| format!("\t{}", path.unwrap())));
    }
    lines
}

/// The lines of a file, sorted.
pub(crate) fn sorted_lines(file: &Path) -> Vec<String> {
    let mut lines: Vec<_> = std::fs::read_to_string(file)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

/// Everything that a failed fetch must not change: what lies in the store, with types, modes,
/// sizes, link counts and times, what is registered, and who keeps it from the collector.
pub(crate) fn snapshot(root: &Path) -> Vec<String> {
    let (store, state) = (root.join("gnu/store"), root.join("var/guix"));
    let mut lines = Vec::new();
    let mut open = vec![store];
    while let Some(path) = open.pop() {
        let metadata = path.symlink_metadata().unwrap();
        // Making and removing the temporary tree changes the time of the store itself.
        let time = if open.is_empty() && lines.is_empty() {
            0
        } else {
            metadata.mtime()
        };
        let (mode, links, size) = (metadata.mode(), metadata.nlink(), metadata.len());
        let size = if metadata.is_dir() { 0 } else { size };
        lines.push(format!("{} {mode:o} {links} {size} {time}", path.display()));
        if metadata.is_dir() {
            open.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
    lines.extend(rows(&state.join("db/db.sqlite")));
    lines.extend(names(&state.join("temproots")));
    lines.sort();
    lines
}
