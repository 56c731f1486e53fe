//! Whether a store database is sound, found out without writing to it.
//!
//! To open a database for writing is to change its files: SQLite resets the shared memory, replays
//! the log and copies it to the database in the end. So a database is looked at first, in a way that
//! changes none of its files; only one that is sound is opened.
//!
//! Checked are the header, the number of pages, the schema, the tables and columns that are used, the
//! roots of their indexes, and of a small database everything. The rest of a large one is
//! not read: what is damaged there is found when it is used.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};

use crate::format::store_path::Dialect;
use crate::sqlite::{distrust_file, is_damage};

/// What a database has to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tables {
    /// Those of its schema.
    Complete(Dialect),
    /// Any: its creation may have been interrupted.
    Any,
}

/// Whether a database could be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DatabaseState {
    /// It is sound.
    Sound,
    /// Only a connection that may write can read it: its log has no shared memory, so that it
    /// belongs to no running program, or the file cannot be opened at all.
    NotReadable,
}

/// Checks the database at `path` and changes none of its files.
///
/// # Errors
/// It is damaged.
pub(super) fn check_files(path: &Path, tables: Tables) -> rusqlite::Result<DatabaseState> {
    let mut attempts = ATTEMPTS;
    loop {
        attempts -= 1;
        match check_once(path, tables) {
            Ok(checked) => return Ok(checked),
            // Another program may have copied its log to the database meanwhile.
            Err(error) if is_damage(&error) && attempts > 0 => std::thread::sleep(PAUSE),
            Err(error) if is_damage(&error) => return Err(error),
            Err(_) => return Ok(DatabaseState::NotReadable),
        }
    }
}

fn check_once(path: &Path, tables: Tables) -> rusqlite::Result<DatabaseState> {
    if length(path, "") == Some(0) && length(path, "-wal") > Some(0) {
        // SQLite would delete the log.
        return Err(corrupt("it is empty, but there is a log"));
    }

    let Some(parameters) = parameters_to_look(path) else {
        return Ok(DatabaseState::NotReadable);
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri(path, parameters), flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    distrust_file(&connection)?;
    check(&connection, tables)?;
    Ok(DatabaseState::Sound)
}

/// With which parameters the database can be read without changes to its files.
fn parameters_to_look(path: &Path) -> Option<&'static str> {
    if length(path, "-wal") > Some(0) {
        // Without shared memory SQLite would make it.
        return length(path, "-shm").map(|_| "?readonly_shm=1");
    }
    if length(path, "-journal") > Some(0) {
        // A program without a log is writing, or was interrupted: its locks count.
        return Some("");
    }
    // Without a log all of the database is in its file, and it would be created.
    Some("?immutable=1")
}

/// The length of the file beside `path` whose name has `suffix`, if there is one.
fn length(path: &Path, suffix: &str) -> Option<u64> {
    let mut name = OsString::from(path);
    name.push(suffix);
    std::fs::metadata(name).ok().map(|metadata| metadata.len())
}

/// Checks what `connection` is connected to.
///
/// # Errors
/// It is damaged, or cannot be read.
pub(super) fn check(connection: &Connection, tables: Tables) -> rusqlite::Result<()> {
    // Reads header and schema.
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;

    if let Tables::Complete(dialect) = tables {
        let columns = match dialect {
            Dialect::Guix => GUIX_COLUMNS,
            Dialect::Nix => NIX_COLUMNS,
        };
        // Each goes from the root of an index or table to a leaf.
        for statement in columns.iter().chain(BOTH_COLUMNS) {
            connection.prepare(statement)?.exists([])?;
        }
    }

    if pages <= PAGES_CHECKED_MAX {
        let found: String =
            connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            return Err(corrupt(&found));
        }
    }
    Ok(())
}

fn corrupt(found: &str) -> rusqlite::Error {
    let error = ffi::Error::new(ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(error, Some(found.to_owned()))
}

/// `path` as a URI for SQLite, with `parameters`.
pub(super) fn uri(path: &Path, parameters: &str) -> String {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            write!(uri, "%{byte:02x}").expect("writing to a string cannot fail");
        }
    }
    uri.push_str(parameters);
    uri
}

/// How often damage has to be found.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(20);

/// A database of at most this many pages is read whole: 1 MiB, which takes some milliseconds.
const PAGES_CHECKED_MAX: i64 = 256;

const GUIX_COLUMNS: &[&str] =
    &["SELECT id, path, hash, registrationTime, deriver, narSize FROM ValidPaths WHERE path = ''"];
const NIX_COLUMNS: &[&str] = &[
    "SELECT id, path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca
     FROM ValidPaths WHERE path = ''",
];
const BOTH_COLUMNS: &[&str] = &[
    "SELECT path FROM ValidPaths WHERE id = 0",
    "SELECT reference FROM Refs WHERE referrer = 0",
    "SELECT referrer FROM Refs WHERE reference = 0",
    "SELECT id, path FROM DerivationOutputs WHERE drv = 0",
    "SELECT drv FROM DerivationOutputs WHERE path = ''",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_characters_stay_part_of_the_path() {
        let path = Path::new("/a b/100%?x=1#y/db.sqlite");
        assert_eq!(
            uri(path, "?immutable=1"),
            "file:/a%20b/100%25%3fx%3d1%23y/db.sqlite?immutable=1"
        );
    }
}
