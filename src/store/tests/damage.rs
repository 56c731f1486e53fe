//! Damaged databases are recognized, and their files stay as they are.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use rusqlite::config::DbConfig;

use super::*;

/// How a database is damaged, given its path.
type Damage = fn(&Path);

const DAMAGES: &[(&str, Damage)] = &[
    ("no header", |path| overwrite(path, 0, &[b'x'; 16])),
    ("impossible page size", |path| overwrite(path, 16, &[0, 3])),
    ("half of the pages", |path| cut(path, 2)),
    ("a piece of the first page", |path| cut(path, 50)),
    ("an empty file", |path| cut(path, usize::MAX)),
    ("a malformed schema", |path| {
        edit_schema(path, "SET sql = 'CREATE TABLE Refs (' WHERE name = 'Refs'");
    }),
    ("an index of another table", |path| {
        edit_schema(
            path,
            "SET tbl_name = 'Refs' WHERE name = 'IndexDerivationOutputs'",
        );
    }),
    ("no table of references", |path| {
        execute(path, "DROP TABLE Refs")
    }),
    ("a view as a table", |path| {
        execute(path, "DROP TABLE Refs");
        execute(
            path,
            "CREATE VIEW Refs AS SELECT 1 AS referrer, 1 AS reference",
        );
    }),
    ("no column for sizes", |path| {
        execute(path, "ALTER TABLE ValidPaths DROP COLUMN narSize");
    }),
    ("an index full of garbage", |path| {
        overwrite(path, page_of(path, "IndexReferrer"), &[0xff; 1000]);
    }),
    ("a cell beyond its page", |path| {
        let page = page_of(path, "sqlite_autoindex_ValidPaths_1");
        overwrite(path, page + 8, &[0x0f, 0xff]);
    }),
    ("an index without its entries", |path| {
        let page = page_of(path, "IndexReference");
        // A leaf without cells, as if nothing had ever been in it.
        overwrite(path, page, &[10, 0, 0, 0, 0, 0x10, 0, 0]);
    }),
];

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

/// Leaves one of `parts` equal parts of the file.
fn cut(path: &Path, parts: usize) {
    let length = std::fs::metadata(path).unwrap().len() / parts as u64;
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(length).unwrap();
}

/// Executes `statement`, and leaves no log.
fn execute(path: &Path, statement: &str) {
    let connection = Connection::open(path).unwrap();
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false)
        .unwrap();
    connection.execute_batch(statement).unwrap();
}

fn edit_schema(path: &Path, change: &str) {
    let statement = format!("PRAGMA writable_schema = ON; UPDATE sqlite_schema {change};");
    execute(path, &statement);
}

/// Where the first page of the index `name` is in the file.
fn page_of(path: &Path, name: &str) -> u64 {
    let connection = Connection::open(path).unwrap();
    let page: i64 = connection
        .query_row(
            "SELECT rootpage FROM sqlite_schema WHERE name = ?1",
            [name],
            |row| row.get(0),
        )
        .unwrap();
    (u64::try_from(page).unwrap() - 1) * 4096
}

/// A store with a small database, whose layout it is.
fn small_store(root: &Path) -> Layout {
    let store = guix_store(root);
    store
        .write_registrations(&[registration("a", &[]), registration("b", &["a"])], NOW)
        .unwrap();
    store.layout().clone()
}

/// Replaces the database by a copy of it as a killed program leaves it: what was registered last is
/// in its log, which belongs to no running program.
fn leave_log(layout: &Layout) {
    let path = layout.database_file();
    let copied = layout.database().join("copied");
    std::fs::create_dir(&copied).unwrap();
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch("INSERT INTO FailedPaths VALUES ('x', 1)")
        .unwrap();

    let names = ["db.sqlite", "db.sqlite-wal", "db.sqlite-shm"];
    for name in names {
        std::fs::copy(layout.database().join(name), copied.join(name)).unwrap();
    }
    drop(connection);
    for name in names {
        std::fs::rename(copied.join(name), layout.database().join(name)).unwrap();
    }
    std::fs::remove_dir(copied).unwrap();
}

/// The files of the database, without locks.
fn files(layout: &Layout) -> BTreeMap<OsString, Vec<u8>> {
    let entries = layout.database().read_dir().unwrap().map(Result::unwrap);
    entries
        .filter(|entry| entry.file_name() != "big-lock")
        .map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

#[track_caller]
fn assert_refused(layout: &Layout, what: &str) {
    let before = files(layout);
    for mode in [
        OpenMode::Create(SyncMode::None),
        OpenMode::Existing(SyncMode::Full),
        OpenMode::ReadOnly,
    ] {
        let error = Store::open(layout.clone(), mode, silent())
            .map(drop)
            .unwrap_err();
        assert!(
            matches!(error, StoreError::DamagedDatabase { .. }),
            "{what}, {mode:?}: {error:?}"
        );
        assert!(files(layout) == before, "{what}, {mode:?}: a file changed");
    }
}

#[test]
fn every_kind_of_damage_is_recognized_before_anything_is_written() {
    for &(what, damage) in DAMAGES {
        let root = tempfile::tempdir().unwrap();
        let layout = small_store(root.path());
        damage(&layout.database_file());
        assert_refused(&layout, what);
    }
}

#[test]
fn a_damaged_database_keeps_the_log_of_a_killed_program() {
    for &(what, damage) in DAMAGES {
        // A statement leaves a database that is sound but for its tables, and has no log.
        if what.contains("table") || what.contains("column") || what.contains("schema") {
            continue;
        }
        let root = tempfile::tempdir().unwrap();
        let layout = small_store(root.path());
        let broken = root.path().join("broken");
        std::fs::copy(layout.database_file(), &broken).unwrap();
        damage(&broken);

        leave_log(&layout);
        std::fs::copy(&broken, layout.database_file()).unwrap();
        assert_refused(&layout, what);
    }
}

#[test]
fn a_sound_database_with_the_log_of_a_killed_program_is_used() {
    for mode in [
        OpenMode::Create(SyncMode::None),
        OpenMode::Existing(SyncMode::None),
        OpenMode::ReadOnly,
    ] {
        for has_shared_memory in [true, false] {
            let root = tempfile::tempdir().unwrap();
            let layout = small_store(root.path());
            leave_log(&layout);
            if !has_shared_memory {
                std::fs::remove_file(layout.database().join("db.sqlite-shm")).unwrap();
            }
            let store = Store::open(layout, mode, silent()).unwrap();
            assert!(store.is_valid(&item("b")).unwrap(), "{mode:?}");
        }
    }
}

/// A store with too many items for its whole database to be checked, and the place of the last page of
/// the index of their names.
fn large_store(root: &Path) -> (Layout, u64) {
    let store = guix_store(root);
    let items: Vec<Registration> = (0..9000)
        .map(|number| registration(&format!("item-{number:05}"), &[]))
        .collect();
    store.write_registrations(&items, NOW).unwrap();
    let layout = store.layout().clone();
    drop(store);

    let bytes = std::fs::read(layout.database_file()).unwrap();
    let name = layout.store_dir().full_name(&item("item-08999"));
    // The rows are in another table, whose pages begin otherwise.
    let pages = bytes.chunks(4096).enumerate();
    let leaf = pages
        .filter(|(_, page)| page[0] == 10)
        .find(|(_, page)| {
            page.windows(name.len())
                .any(|window| window == name.as_bytes())
        })
        .unwrap();
    (layout, leaf.0 as u64 * 4096)
}

#[test]
fn damage_that_is_found_in_use_stops_the_use() {
    let root = tempfile::tempdir().unwrap();
    let (layout, leaf) = large_store(root.path());
    leave_log(&layout);
    overwrite(&layout.database_file(), leaf, &[0xff; 4096]);
    let path: PathBuf = layout.database_file();
    let before = std::fs::read(&path).unwrap();

    for mode in [OpenMode::Existing(SyncMode::None), OpenMode::ReadOnly] {
        let store = Store::open(layout.clone(), mode, silent()).unwrap();
        assert!(store.is_valid(&item("item-00001")).unwrap());
        let error = store.is_valid(&item("item-08999")).unwrap_err();
        assert!(
            matches!(error, StoreError::DamagedDatabase { .. }),
            "{error:?}"
        );
        drop(store);
        assert!(
            std::fs::read(&path).unwrap() == before,
            "{mode:?}: it changed"
        );
    }
}
