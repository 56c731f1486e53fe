//! Opening the file, judging who could have written it, and replacing a damaged one.
//!
//! Every process that uses the file holds a shared lock on the lock file beside it. Replacing takes
//! the exclusive lock: SQLite opens its `-wal` file by name when it first needs it, so a
//! process that still had the old database open would otherwise write into the new one's.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::sqlite::{distrust_file, is_damage};

use super::error::CacheError;
use super::{db, schema};

/// A database file in use.
#[derive(Debug)]
pub(super) struct CacheFile {
    pub(super) path: PathBuf,
    /// Whether only this user and root can have written what stands in it.
    pub(super) is_ours: bool,
    /// Held shared for as long as the file is open.
    lock: File,
}

/// The database in `dir`, and a warning when it had to be created again.
pub(super) fn open_file(
    dir: &Path,
) -> Result<(Connection, CacheFile, Option<CacheError>), CacheError> {
    let mut path = dir.join(schema::FILE_NAME);
    let mut file = CacheFile::create(dir).map_err(|source| CacheError::Unusable {
        path: path.clone(),
        source,
    })?;

    path.clone_from(&file.path);
    let damage = match connect(&path) {
        Ok(connection) => return Ok((connection, file, None)),
        Err(source) if is_damage(&source) => source,
        Err(source) => return Err(file.failed(source)),
    };
    file.set_aside()?;
    private_file(&path).map_err(|source| file.unusable(source))?;
    file.is_ours = true;

    let connection = connect(&path).map_err(|source| file.failed(source))?;
    let source = damage;
    Ok((connection, file, Some(CacheError::Rebuilt { path, source })))
}

impl CacheFile {
    /// Creates the directory and the files that are missing, and takes the shared lock.
    fn create(dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
        // SQLite opens files by name: no part of the name may be a link by then.
        let path = dir.canonicalize()?.join(schema::FILE_NAME);
        let lock = private_file(&dir.join(schema::LOCK_NAME))?;
        flock(&lock, FlockOperation::LockShared)?;

        let is_ours = only_we_write(&private_file(&path)?)? && only_we_write(&File::open(dir)?)?;
        Ok(Self {
            path,
            is_ours,
            lock,
        })
    }

    /// Moves the damaged database out of the way, if no other process uses it. The caller has closed
    /// it. Holds the shared lock again afterward.
    pub(super) fn set_aside(&self) -> Result<(), CacheError> {
        match flock(&self.lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let in_use = io::Error::other("it is damaged, and in use by another process");
                return Err(self.unusable(in_use));
            }
            Err(error) => return Err(self.unusable(error.into())),
        }

        // The log goes first: beside a new database an old log would be replayed into it.
        let moved = remove_if_there(&sibling(&self.path, "-wal"))
            .and_then(|()| remove_if_there(&sibling(&self.path, "-shm")))
            .and_then(|()| std::fs::rename(&self.path, damaged_file(&self.path)));
        let relocked = flock(&self.lock, FlockOperation::LockShared);
        moved
            .and(relocked.map_err(io::Error::from))
            .map_err(|source| self.unusable(source))
    }

    /// The size of the database and its log.
    pub(super) fn bytes(&self) -> u64 {
        let files = [self.path.clone(), sibling(&self.path, "-wal")];
        let sizes = files.map(|path| std::fs::metadata(path).map_or(0, |metadata| metadata.len()));
        sizes.iter().sum()
    }

    fn unusable(&self, source: io::Error) -> CacheError {
        CacheError::Unusable {
            path: self.path.clone(),
            source,
        }
    }

    fn failed(&self, source: rusqlite::Error) -> CacheError {
        CacheError::Failed {
            action: "opening the file",
            path: self.path.clone(),
            source,
        }
    }
}

/// A database in memory with the same tables.
pub(super) fn open_memory() -> Connection {
    Connection::open_in_memory()
        .and_then(|connection| schema::create(&connection).map(|()| connection))
        .expect("a database in memory depends on nothing but memory")
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    distrust_file(&connection)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;

    let is_new = !schema::is_there(&connection)?;
    if is_new {
        // Otherwise it would wait for the disk ten times before the first question.
        connection.pragma_update(None, "synchronous", "OFF")?;
        // Freed pages go back to the file system after a sweep; comes before the first table.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }

    switch_to_wal(&connection)?;
    connection.pragma_update(None, "cache_size", CACHE_KIB)?;
    // The sandbox hides the directories for temporary files.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "journal_size_limit", JOURNAL_BYTES)?;
    if is_new {
        schema::create(&connection)?;
    }
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    db::check_tables(&connection)?;
    Ok(connection)
}

/// A database that already is in this mode stays in it without any lock. To switch a new one
/// takes all locks, and SQLite does not wait for those of another process that does the same.
fn switch_to_wal(connection: &Connection) -> rusqlite::Result<()> {
    let mut attempts = WAL_ATTEMPTS;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                attempts -= 1;
                if attempts == 0 {
                    return Err(error);
                }
                std::thread::sleep(WAL_PAUSE);
            }
            switched => return switched,
        }
    }
}

/// Opens `path` for writing, creating it if it is missing, private to its owner: URLs of servers may hold
/// passwords. A symlink is not followed: its target is up to the user that created it.
fn private_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(format!(
            "{} is not a file",
            path.display()
        )));
    }
    Ok(file)
}

fn only_we_write(file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    let ours = metadata.uid() == 0 || metadata.uid() == rustix::process::geteuid().as_raw();
    Ok(ours && metadata.mode() & 0o022 == 0)
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The place where the database `path` is moved if it is damaged.
pub(super) fn damaged_file(path: &Path) -> PathBuf {
    path.with_extension("damaged")
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writers hold the lock for some tens of milliseconds; one that takes this long is stopped
/// or on a hanging disk, and memory is better than waiting for it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pages kept in memory, in KiB; negative is how SQLite tells KiB from pages. Enough for some
/// thousand entries, which a closure is made of.
const CACHE_KIB: i64 = -16 * 1024;

const WAL_ATTEMPTS: u32 = 500;
const WAL_PAUSE: Duration = Duration::from_millis(5);

/// What is left of the log file after a checkpoint.
const JOURNAL_BYTES: i64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// `NORMAL`, as SQLite numbers it.
    const NORMAL: u32 = 1;

    #[test]
    fn no_link_is_followed_to_where_a_file_would_be_made() {
        for name in [schema::FILE_NAME, schema::LOCK_NAME] {
            let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let target = elsewhere.path().join("file");
            std::os::unix::fs::symlink(&target, dir.path().join(name)).unwrap();
            let opened = open_file(dir.path());
            assert!(matches!(opened, Err(CacheError::Unusable { .. })), "{name}");
            assert!(!target.exists(), "{name}");
        }
    }

    #[test]
    fn a_link_that_comes_after_the_check_is_not_followed() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let target = elsewhere.path().join("file");
        std::fs::write(&target, "").unwrap();
        let path = dir.path().join(schema::FILE_NAME);
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(connect(&path).is_err());
        assert_eq!(target.metadata().unwrap().len(), 0);
    }

    #[test]
    fn the_directory_may_be_reached_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        let (_, file, warning) = open_file(&link).unwrap();
        assert!(warning.is_none());
        assert!(file.path.ends_with("real/lookups-v1.sqlite"));
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        for name in [schema::FILE_NAME, schema::LOCK_NAME] {
            let dir = tempfile::tempdir().unwrap();
            let mode = nix::sys::stat::Mode::S_IRWXU;
            nix::unistd::mkfifo(&dir.path().join(name), mode).unwrap();
            let opened = open_file(dir.path());
            assert!(matches!(opened, Err(CacheError::Unusable { .. })), "{name}");
        }
    }

    #[test]
    fn a_new_file_is_as_durable_as_one_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let (connection, _file, warning) = open_file(dir.path()).unwrap();
            assert!(warning.is_none());
            let level = connection.pragma_query_value(None, "synchronous", |row| row.get(0));
            assert_eq!(level, Ok(NORMAL));
        }
    }
}
