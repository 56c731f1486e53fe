//! Opening a store's database: its schema, the lock that keeps the schema as it is, and the
//! making of a new one.
//!
//! The file that holds the schema's number is written last and at once, so a store without it
//! is one whose creation was interrupted.

use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, IFlags};
use rustix::fs::{ioctl_getflags, ioctl_setflags, renameat, statat, unlinkat};
use rustix::io::Errno;

use crate::no_follow;

use super::connection::{self, Access};
use super::db::Database;
use super::directory;
use super::error::{StoreError, on};
use super::layout::{LINKS, Layout};
use super::lock_file::LockFile;
use super::lock_kind::{LockKind, LockMode, Tried};
use super::schema;
use super::sync_mode::SyncMode;
use super::wait::{LockWait, StoreObserver};

/// The big lock, held shared, and the database.
type Opened = Result<(Option<LockFile>, Database), StoreError>;

/// A database that is being opened, by its directory.
pub(super) struct DatabaseOpening<'a> {
    layout: &'a Layout,
    kind: LockKind,
    observer: &'a Arc<dyn StoreObserver>,
    directory: OwnedFd,
}

/// Opens a database that may not be written, with no lock: its file may not be written either.
pub(super) fn read_only(
    layout: &Layout,
    kind: LockKind,
    observer: &Arc<dyn StoreObserver>,
) -> Result<Database, StoreError> {
    let opening = DatabaseOpening::existing(layout, kind, observer)?;
    opening.check_schema()?;
    opening.open(Access::Read)
}

/// Whether there is a store, with the schema that this program knows. The database is not opened.
pub(super) fn check_schema(
    layout: &Layout,
    kind: LockKind,
    observer: &Arc<dyn StoreObserver>,
) -> Result<(), StoreError> {
    DatabaseOpening::existing(layout, kind, observer)?.check_schema()
}

/// Opens a database that is there.
pub(super) fn existing(
    layout: &Layout,
    kind: LockKind,
    sync: SyncMode,
    observer: &Arc<dyn StoreObserver>,
) -> Opened {
    // The schema is read first, so that nothing is made where there is no store; and again under the
    // lock, because another process may have changed it before.
    let opening = DatabaseOpening::existing(layout, kind, observer)?;
    opening.check_schema()?;
    let big_lock = opening.lock_schema()?;
    opening.check_schema()?;
    Ok((Some(big_lock), opening.open(Access::Write(sync))?))
}

/// Opens the database under the shared big lock, after making it under the exclusive one when
/// it is not there. Two processes may meet in this at a new store.
pub(super) fn or_create(
    layout: &Layout,
    kind: LockKind,
    sync: SyncMode,
    observer: &Arc<dyn StoreObserver>,
) -> Opened {
    create_directories(layout)?;
    let opening = DatabaseOpening::existing(layout, kind, observer)?;
    let big_lock = opening.lock_schema()?;
    let path = layout.big_lock();
    let mut wait = None;
    loop {
        match opening.check_schema() {
            Ok(()) => return Ok((Some(big_lock), opening.open(Access::Write(sync))?)),
            Err(StoreError::NoStore(_)) => {}
            Err(error) => return Err(error),
        }

        // Processes that all wait for the others to release their shared locks would wait for ever,
        // so each releases its own first, and reads the schema again.
        big_lock.unlock()?;
        if big_lock.try_lock(LockMode::Exclusive)? == Tried::Acquired {
            if matches!(opening.check_schema(), Err(StoreError::NoStore(_))) {
                opening.create_database()?;
                opening.write_schema_number()?;
            }
        } else {
            let wait = wait.get_or_insert_with(|| LockWait::new(&**observer, &path));
            wait.pause(|| big_lock.holder(LockMode::Exclusive))?;
        }
        big_lock.lock(LockMode::Shared, &**observer)?;
    }
}

impl<'a> DatabaseOpening<'a> {
    fn existing(
        layout: &'a Layout,
        kind: LockKind,
        observer: &'a Arc<dyn StoreObserver>,
    ) -> Result<Self, StoreError> {
        match directory::open_directory(layout, layout.database()) {
            Ok(directory) => Ok(Self {
                layout,
                kind,
                observer,
                directory,
            }),
            Err(StoreError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::NoStore(layout.database().to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    fn open(&self, access: Access) -> Result<Database, StoreError> {
        Database::open(self.layout, self.directory.as_fd(), access, self.observer)
    }

    fn lock_schema(&self) -> Result<LockFile, StoreError> {
        let path = self.layout.big_lock();
        let file = LockFile::open(self.kind, self.directory.as_fd(), path)?;
        file.lock(LockMode::Shared, &**self.observer)?;
        Ok(file)
    }

    /// Whether the database has the schema we know.
    fn check_schema(&self) -> Result<(), StoreError> {
        let file = self.layout.schema_file();
        let expected = schema::version(self.layout.store_dir().dialect());
        match read_schema(self.directory.as_fd(), &file) {
            Ok(text) if text.trim().parse() == Ok(expected) => Ok(()),
            Ok(found) => Err(StoreError::UnknownSchema {
                file,
                found,
                expected,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::NoStore(self.layout.database().to_owned()))
            }
            Err(source) => Err(StoreError::Read { path: file, source }),
        }
    }

    /// Makes the database. It has a name of its own until it is complete and on the disk, which is
    /// waited for once that way, and not with each step.
    fn create_database(&self) -> Result<(), StoreError> {
        let path = self.layout.database_file();
        let name = path.file_name().unwrap_or_default();
        if statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            // Without the schema's number, but perhaps with items: whatever is missing is added.
            return self.open(Access::Create).map(drop);
        }

        let new = path.with_extension("new");
        self.remove_unfinished()
            .map_err(on(&new, |path, source| StoreError::Write { path, source }))?;
        let real = no_follow::real_path(self.directory.as_fd(), self.layout.database())
            .map_err(on(&new, |path, source| StoreError::Write { path, source }))?;
        let new_name = new.file_name().unwrap_or_default();
        connection::create(&real.join(new_name), self.layout.store_dir().dialect()).map_err(
            |source| StoreError::Database {
                action: "making the store database",
                path: new.clone(),
                source,
            },
        )?;

        no_follow::open_file(self.directory.as_fd(), new_name)
            .and_then(|file| file.sync_all())
            .and_then(|()| Ok(renameat(&self.directory, new_name, &self.directory, name)?))
            .map_err(on(&path, |path, source| StoreError::Write { path, source }))
    }

    /// Removes what an interrupted process left of a new database. The big lock is held exclusively.
    fn remove_unfinished(&self) -> rustix::io::Result<()> {
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if !is_unfinished(entry.file_name().to_bytes()) {
                continue;
            }
            match unlinkat(&self.directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Announces the finished database. The file appears with its content or not at all: an
    /// empty one would be read as a schema of number 0.
    fn write_schema_number(&self) -> Result<(), StoreError> {
        let path = self.layout.schema_file();
        let number = schema::version(self.layout.store_dir().dialect()).to_string();
        let name = path.file_name().unwrap_or_default();
        no_follow::replace_file(
            self.directory.as_fd(),
            name,
            number.as_bytes(),
            no_follow::FOR_ALL,
        )
        .map_err(on(&path, |path, source| StoreError::Write { path, source }))
    }
}

/// Whether `name` is that of a new database, or of a file that is to replace the schema's.
fn is_unfinished(name: &[u8]) -> bool {
    let is_new = ["db.new", "db.new-journal", "db.new-wal", "db.new-shm"]
        .iter()
        .any(|new| new.as_bytes() == name);
    is_new || name.starts_with(b"schema.")
}

/// The text of the schema file, as far as there may be any.
fn read_schema(directory: BorrowedFd<'_>, path: &Path) -> io::Result<String> {
    let mut text = String::new();
    no_follow::open_file(directory, path.file_name().unwrap_or_default())?
        .take(SCHEMA_MAX_BYTES)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// The collector's `gcroots` is left to guix-daemon: it makes that directory together with the
/// link to the profiles inside, and takes one that is there to be complete.
fn create_directories(layout: &Layout) -> Result<(), StoreError> {
    let temp_roots = layout.temp_roots_dir();
    let is_new = !layout.store().exists();
    for path in [layout.database(), layout.config(), &temp_roots] {
        directory::create_directory(layout, path)?;
    }

    let store = directory::create_directory(layout, layout.store())?;
    match no_follow::make_directory(&store, LINKS) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(source) => {
            let (path, source) = (layout.links(), source.into());
            return Err(StoreError::CreateDirectory { path, source });
        }
    }
    if is_new {
        spread_items(&store);
    }
    Ok(())
}

/// Tells the file system that the entries of this directory are independent of each other, which is
/// what `chattr +T` does. Without it ext4 keeps all of them in one part of the disk while that has
/// room; where ext4 has no journal, that part may be crowded with deleted inodes, which every new one
/// has to pass over. For subdirectories of an item, see `unpack::crowding`.
fn spread_items(store: &OwnedFd) {
    // Other file systems do not know the flag, and no store needs it.
    let _ = ioctl_getflags(store).and_then(|flags| ioctl_setflags(store, flags | IFlags::TOPDIR));
}

/// More than any schema file has.
const SCHEMA_MAX_BYTES: u64 = 4096;

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::format::store_path::StoreDir;

    #[test]
    fn what_an_interrupted_process_left_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::embedded(root.path(), StoreDir::parse(StoreDir::GUIX).unwrap());
        create_directories(&layout).unwrap();
        for name in [
            "db.new",
            "db.new-journal",
            "db.new-wal",
            "db.new-shm",
            "schema.0f",
        ] {
            std::fs::write(layout.database().join(name), [7; 5000]).unwrap();
        }
        let observer = crate::store::tests::silent();
        let (_lock, mut database) =
            or_create(&layout, LockKind::Record, SyncMode::None, &observer).unwrap();
        assert!(database.valid_among(&[]).unwrap().is_empty());
        let left = std::fs::read_dir(layout.database())
            .unwrap()
            .map(|e| e.unwrap().file_name());
        let left: Vec<_> = left
            .filter(|name| is_unfinished(name.as_encoded_bytes()))
            .collect();
        assert_eq!(left, Vec::<std::ffi::OsString>::new());
    }

    #[test]
    fn a_new_store_is_the_top_of_trees_and_one_that_is_there_stays_as_it_is() {
        let sample = tempfile::tempdir().unwrap();
        let directory = File::open(sample.path()).unwrap();
        if ioctl_setflags(&directory, IFlags::TOPDIR).is_err() {
            eprintln!("skipped: {} is on no ext4", sample.path().display());
            return;
        }
        for is_new in [true, false] {
            let root = tempfile::tempdir().unwrap();
            let store_dir = StoreDir::parse(StoreDir::GUIX).unwrap();
            let layout = Layout::embedded(root.path(), store_dir);
            if !is_new {
                std::fs::create_dir_all(layout.store()).unwrap();
            }
            create_directories(&layout).unwrap();
            let flags = ioctl_getflags(File::open(layout.store()).unwrap()).unwrap();
            assert_eq!(flags.contains(IFlags::TOPDIR), is_new);
        }
    }
}
