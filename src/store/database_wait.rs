//! Operations on the store database are repeated while another process has locked it.
//!
//! SQLite waits a moment by itself. Between its attempts the wait is reported, and ends when the user
//! interrupts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::ErrorCode;

use super::error::StoreError;
use super::lock_holder::LockHolder;
use super::wait::{LockWait, StoreObserver};
use crate::sqlite::is_damage;

fn failure(action: &'static str, path: PathBuf, source: rusqlite::Error) -> StoreError {
    if is_damage(&source) {
        StoreError::DamagedDatabase { path, source }
    } else {
        StoreError::Database {
            action,
            path,
            source,
        }
    }
}

/// Does `work` with the database at `path`, again and again while another process has locked it.
pub(super) fn retried<T>(
    path: &Path,
    observer: &dyn StoreObserver,
    action: &'static str,
    mut work: impl FnMut() -> rusqlite::Result<T>,
) -> Result<T, StoreError> {
    let mut wait = None;
    loop {
        let source = match work() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let is_locked = source.sqlite_error_code() == Some(ErrorCode::DatabaseBusy);
        let wait = wait.get_or_insert_with(|| LockWait::new(observer, path));
        if !is_locked || wait.elapsed() > LOCKED_MAX {
            return Err(failure(action, path.to_owned(), source));
        }
        wait.pause(|| holder(path))?;
    }
}

/// The process that writes to the database at `path`. With a log, writers lock the index of it.
fn holder(path: &Path) -> Option<LockHolder> {
    let mut index = path.as_os_str().to_owned();
    index.push("-shm");
    LockHolder::writing(Path::new(&index)).or_else(|| LockHolder::writing(path))
}

/// A builder or collector of the daemon may hold the write lock for long on a slow disk;
/// giving up early would fail an item that is already unpacked.
const LOCKED_MAX: Duration = Duration::from_secs(3600);
