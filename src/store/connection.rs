//! Connecting to the store database, with the settings of guix-daemon.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rusqlite::config::DbConfig;
use rusqlite::ffi::{Error, SQLITE_BUSY};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::database_check::{DatabaseState, Tables, check, check_files, uri};
use super::schema;
use super::sync_mode::SyncMode;
use crate::format::store_path::Dialect;
use crate::sqlite::distrust_file;

/// What may be done with a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    /// Write; a transaction waits for the disk with [`SyncMode::Full`].
    Write(SyncMode),
    /// Write, and make the tables that are missing first.
    Create,
}

impl Access {
    /// How much SQLite waits for the disk: with `NORMAL`, a power cut may undo the last transactions,
    /// in their order.
    fn synchronous(self) -> &'static str {
        match self {
            Self::Write(SyncMode::Full) => "FULL",
            _ => "NORMAL",
        }
    }
}

/// A connection that is made anew when that is needed.
#[derive(Debug)]
pub(super) struct StoreConnection {
    connection: Connection,
    /// The version of the file if `connection` takes it for one that never changes.
    unchanging: Option<FileVersion>,
    path: PathBuf,
    dialect: Dialect,
    access: Access,
}

impl StoreConnection {
    /// As for [`open`].
    pub(super) fn open(path: &Path, dialect: Dialect, access: Access) -> rusqlite::Result<Self> {
        let (connection, unchanging) = open(path, dialect, access)?;
        Ok(Self {
            connection,
            unchanging,
            path: path.to_owned(),
            dialect,
            access,
        })
    }

    /// A connection to the file as it is.
    pub(super) fn current(&mut self) -> rusqlite::Result<&mut Connection> {
        if self.has_changed() {
            (self.connection, self.unchanging) = open(&self.path, self.dialect, self.access)?;
        }
        Ok(&mut self.connection)
    }

    /// The connection that was used last.
    pub(super) fn last(&self) -> &Connection {
        &self.connection
    }

    /// What was `done`, unless the file was written to although the connection takes it for one that never changes: what was
    /// read may be of several moments. That is an error as if another process had locked the file.
    pub(super) fn unless_changed<T>(&self, done: rusqlite::Result<T>) -> rusqlite::Result<T> {
        match self.has_changed() {
            true => Err(rusqlite::Error::SqliteFailure(
                Error::new(SQLITE_BUSY),
                None,
            )),
            false => done,
        }
    }

    fn has_changed(&self) -> bool {
        let version = self.unchanging.as_ref();
        version.is_some_and(|version| *version != file_version(&self.path))
    }
}

/// What tells that a database was written to: when, its size, and whether there is a log.
type FileVersion = (Option<SystemTime>, u64, bool);

/// The version of the database at `path`.
fn file_version(path: &Path) -> FileVersion {
    let has_log = has_log(path);
    let metadata = std::fs::metadata(path).ok();
    let modified = metadata.as_ref().and_then(|it| it.modified().ok());
    (modified, metadata.map_or(0, |it| it.len()), has_log)
}

/// Opens the database at `path`, if it is sound; one that is not stays as it is. If the connection takes it for a
/// file that never changes, its version is returned as well: it must not be used for another one.
fn open(
    path: &Path,
    dialect: Dialect,
    access: Access,
) -> rusqlite::Result<(Connection, Option<FileVersion>)> {
    let tables = match access {
        Access::Create => Tables::Any,
        Access::Read | Access::Write(_) => Tables::Complete(dialect),
    };
    let checked = check_files(path, tables)?;

    let flags = match access {
        Access::Read => return open_to_read(path),
        Access::Write(_) => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Access::Create => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    };
    let connection = Connection::open_with_flags(path, flags | FLAGS)?;
    set_up(&connection)?;
    if checked == DatabaseState::NotReadable {
        keep_files(&connection, true)?;
        check(&connection, tables)?;
        keep_files(&connection, false)?;
    }

    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "synchronous", access.synchronous())?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    if access == Access::Create {
        schema::create(&connection, dialect)?;
    }
    Ok((connection, None))
}

/// Whether `connection` leaves the log as it is when it is closed, and does not copy it to the database.
pub(super) fn keep_files(connection: &Connection, keep: bool) -> rusqlite::Result<()> {
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)
        .map(drop)
}

/// Makes a database at `path`, where there is none. It is not on the disk when this returns, but
/// all in this file.
pub(super) fn create(path: &Path, dialect: Dialect) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = Connection::open_with_flags(path, flags | FLAGS)?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    schema::create(&connection, dialect)?;
    // Only now, so that nothing has ever been in the log.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.close().map_err(|(_, error)| error)
}

/// Readers of a database with a log take part in its shared memory, which they would have to make
/// when no other process has the database open, and may not. But then there is no log either, and the
/// file can be read as it is.
///
/// A reader that has to make the log removes it when it is closed, but only if its connection may
/// write. One that finds a log leaves it as it is.
fn open_to_read(path: &Path) -> rusqlite::Result<(Connection, Option<FileVersion>)> {
    let version = file_version(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | FLAGS;
    let connection = if log_of(path).symlink_metadata().is_ok() {
        Connection::open_with_flags(path, flags)?
    } else {
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | FLAGS)?;
        connection.pragma_update(None, "query_only", true)?;
        connection
    };
    set_up(&connection)?;
    match connection.query_row(PROBE, [], |_| Ok(())) {
        Ok(()) => Ok((connection, None)),
        Err(error) if is_refusal(&error) && !has_log(path) => {
            Ok((open_unchanging(path)?, Some(version)))
        }
        Err(error) => Err(error),
    }
}

/// Opens the database at `path` without locks, as a file that never changes.
fn open_unchanging(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | FLAGS;
    let connection = Connection::open_with_flags(uri(path, "?immutable=1"), flags)?;
    set_up(&connection)?;
    Ok(connection)
}

fn is_refusal(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly)
    )
}

/// Whether the database is not all in its file. A log that cannot be looked at counts as one.
fn has_log(path: &Path) -> bool {
    match std::fs::metadata(log_of(path)) {
        Ok(metadata) => metadata.len() > 0,
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    distrust_file(connection)?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    // The sandbox hides the directories for temporary files.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.busy_timeout(BUSY_TIMEOUT)
}

/// A connection is used by one thread at a time, and no link of another user leads to a database.
const FLAGS: OpenFlags = OpenFlags::SQLITE_OPEN_NO_MUTEX.union(OpenFlags::SQLITE_OPEN_NOFOLLOW);

/// How long SQLite waits by itself for a lock of another process. Then `Database` looks whether the
/// user has interrupted, and tries again.
const BUSY_TIMEOUT: Duration = Duration::from_millis(100);

/// The daemon's setting: checkpoints are rare, because each one stalls all writers.
const WAL_PAGES: u32 = 40_000;

const CACHED_STATEMENTS: usize = 32;

/// Reads the file, and is true of any.
const PROBE: &str = "SELECT count(*) FROM sqlite_master";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_waits_for_the_disk_as_the_mode_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db.sqlite");
        create(&path, Dialect::Guix).unwrap();
        // As SQLite numbers them: NORMAL and FULL.
        for (mode, expected) in [
            (SyncMode::None, 1),
            (SyncMode::Items, 1),
            (SyncMode::Full, 2),
        ] {
            let (connection, _) = open(&path, Dialect::Guix, Access::Write(mode)).unwrap();
            let level = connection.pragma_query_value(None, "synchronous", |row| row.get(0));
            assert_eq!(level, Ok(expected), "{mode:?}");
            let is_trusted =
                connection.pragma_query_value(None, "trusted_schema", |row| row.get(0));
            assert_eq!(is_trusted, Ok(false), "{mode:?}");
        }
    }

    fn name_of_a(connection: &Connection) -> rusqlite::Result<String> {
        connection.query_row("SELECT name FROM a WHERE id = 1", [], |row| row.get(0))
    }

    #[test]
    fn a_file_that_changes_after_all_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db.sqlite");
        create(&path, Dialect::Guix).unwrap();
        let writer = Connection::open(&path).unwrap();
        let rows = "CREATE TABLE a (id INTEGER PRIMARY KEY, name); INSERT INTO a VALUES (1, 'old')";
        writer.execute_batch(rows).unwrap();
        writer.close().unwrap();

        // As where the log cannot be made.
        let mut reader = StoreConnection {
            connection: open_unchanging(&path).unwrap(),
            unchanging: Some(file_version(&path)),
            path: path.clone(),
            dialect: Dialect::Guix,
            access: Access::Read,
        };
        assert_eq!(name_of_a(reader.current().unwrap()).unwrap(), "old");
        assert!(!reader.has_changed());

        std::thread::sleep(Duration::from_millis(50));
        let writer = Connection::open(&path).unwrap();
        writer.execute("UPDATE a SET name = 'new'", []).unwrap();
        writer.close().unwrap();
        let old = name_of_a(reader.last());
        assert_eq!(old.as_deref(), Ok("old"));
        let error = reader.unless_changed(old).unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy));
        assert_eq!(name_of_a(reader.current().unwrap()).unwrap(), "new");
        assert!(!reader.has_changed());
    }
}
