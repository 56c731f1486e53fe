//! The tables of the lookup cache, and which file holds them.
//!
//! The version is in the file's *name*: a program of another version uses another file and
//! neither has to understand the other's. The application id inside distinguishes our file from
//! another database that was put in its place.

use rusqlite::Connection;

/// The name of the file.
pub(super) const FILE_NAME: &str = "lookups-v1.sqlite";

/// The name of the file that is locked while the other one is open: shared by every user of it,
/// exclusively by the process that replaces a corrupt one.
pub(super) const LOCK_NAME: &str = "lookups-v1.lock";

/// Whether the database is ours already; if not, it is new.
///
/// # Errors
/// Those of SQLite; `NotADatabase` when another program made it.
pub(super) fn is_there(connection: &Connection) -> rusqlite::Result<bool> {
    match connection.pragma_query_value(None, "application_id", |row| row.get(0))? {
        APPLICATION_ID => Ok(true),
        0 => Ok(false),
        _ => Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB),
            Some("it is the database of another program".to_owned()),
        )),
    }
}

/// Makes the tables. Two processes may get here at once, so it may be done again.
///
/// # Errors
/// Those of SQLite.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {TABLES} {SWEEP_PROGRESS} PRAGMA application_id = {APPLICATION_ID}; COMMIT;"
    ))
}

/// Makes the table that files of earlier versions of this program do not have.
///
/// # Errors
/// Those of SQLite.
pub(super) fn add_sweep_progress(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(SWEEP_PROGRESS)
}

/// `subS`.
const APPLICATION_ID: i32 = 0x7375_6253;

/// Rows of `servers` are never deleted: another process may be about to use the id.
///
/// Entries are in a table of their own beside the index of their keys: rows of some 1,300 bytes
/// inside an index would take an overflow page each, which made the file three times as large
/// and lookups three times as slow.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS servers (
    id INTEGER PRIMARY KEY,
    url TEXT NOT NULL UNIQUE,
    info_text TEXT,
    info_asked_at INTEGER,
    info_expires_at INTEGER,
    down_since INTEGER,
    down_until INTEGER,
    down_reason TEXT,
    pipelining INTEGER,
    requests_per_connection INTEGER,
    protocol TEXT
);
CREATE TABLE IF NOT EXISTS lookups (
    server INTEGER NOT NULL,
    item TEXT NOT NULL,
    kind INTEGER NOT NULL,
    asked_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    server_said INTEGER NOT NULL,
    status INTEGER,
    text TEXT,
    vouched_by TEXT,
    digest BLOB,
    UNIQUE (server, item)
);
CREATE TABLE IF NOT EXISTS sweeps (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    swept_at INTEGER NOT NULL
);";

/// The row at which a sweep that is under way continues.
const SWEEP_PROGRESS: &str = "
CREATE TABLE IF NOT EXISTS sweep_progress (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    next_row INTEGER NOT NULL
);";
