//! Opening a store's database: its schema, the lock that keeps the schema as it is, and the
//! making of a new one.
//!
//! The file that holds the schema's number is written last and at once, so a store without it
//! is one whose creation was interrupted.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, IFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;

use super::connection::{self, Access};
use super::db::Database;
use super::directory::make_directory;
use super::error::{StoreError, on};
use super::layout::Layout;
use super::lock::{LockKind, LockMode, Tried, open_lock_file};
use super::schema;
use super::sync_mode::SyncMode;

/// The big lock, held shared, and the database.
type Opened = Result<(Option<File>, Database), StoreError>;

/// Opens a database that may not be written, with no lock: its file may not be written either.
pub(super) fn read_only(layout: &Layout) -> Result<Database, StoreError> {
    check_schema(layout)?;
    Database::open(layout, Access::Read)
}

/// Opens a database that is there.
pub(super) fn existing(layout: &Layout, kind: LockKind, sync: SyncMode) -> Opened {
    // Looked at first, so that nothing is made where no store is; and again under the lock,
    // because it was taken from whoever changed the schema.
    check_schema(layout)?;
    let big_lock = lock_schema(layout, kind)?;
    check_schema(layout)?;
    Ok((Some(big_lock), Database::open(layout, Access::Write(sync))?))
}

/// Opens the database under the shared big lock, after making it under the exclusive one when
/// it is not there. Two processes may meet in this at a new store.
pub(super) fn or_create(layout: &Layout, kind: LockKind, sync: SyncMode) -> Opened {
    create_directories(layout)?;
    let big_lock = lock_schema(layout, kind)?;
    let path = layout.big_lock();
    let locking = || on(&path, |path, source| StoreError::Lock { path, source });
    loop {
        match check_schema(layout) {
            Ok(()) => return Ok((Some(big_lock), Database::open(layout, Access::Write(sync))?)),
            Err(StoreError::NoStore(_)) => {}
            Err(error) => return Err(error),
        }
        // Several who all wait for the others to let go of their shared locks would wait for
        // ever, so each lets go of its own first, and looks again.
        kind.unlock(&big_lock).map_err(locking())?;
        if kind
            .try_lock(&big_lock, LockMode::Exclusive)
            .map_err(locking())?
            == Tried::Acquired
            && matches!(check_schema(layout), Err(StoreError::NoStore(_)))
        {
            create_database(layout)?;
            write_schema_number(layout)?;
        } else {
            std::thread::sleep(Duration::from_millis(5));
        }
        kind.lock(&big_lock, LockMode::Shared).map_err(locking())?;
    }
}

/// Makes the database. It has a name of its own until it is complete and on the disk, which is
/// waited for once that way, and not with each step.
fn create_database(layout: &Layout) -> Result<(), StoreError> {
    let path = layout.database_file();
    if path.exists() {
        // Without the schema's number, but perhaps with items: whatever is missing is added.
        return Database::open(layout, Access::Create).map(drop);
    }
    let new = path.with_extension("new");
    for suffix in ["", "-journal", "-wal", "-shm"] {
        // What an interrupted process left.
        let mut name = new.clone().into_os_string();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::Write {
                    path: name.into(),
                    source,
                });
            }
            _ => {}
        }
    }
    connection::create(&new, layout.store_dir().dialect()).map_err(|source| {
        StoreError::Database {
            action: "making the store database",
            path: new.clone(),
            source,
        }
    })?;
    File::open(&new)
        .and_then(|file| file.sync_all())
        .and_then(|()| std::fs::rename(&new, &path))
        .map_err(on(&path, |path, source| StoreError::Write { path, source }))
}

fn lock_schema(layout: &Layout, kind: LockKind) -> Result<File, StoreError> {
    let path = layout.big_lock();
    let file = open_lock_file(&path)?;
    kind.lock(&file, LockMode::Shared)
        .map_err(on(&path, |path, source| StoreError::Lock { path, source }))?;
    Ok(file)
}

/// Whether the database has the schema we know.
fn check_schema(layout: &Layout) -> Result<(), StoreError> {
    let file = layout.schema_file();
    let expected = schema::version(layout.store_dir().dialect());
    match std::fs::read_to_string(&file) {
        Ok(text) if text.trim().parse() == Ok(expected) => Ok(()),
        Ok(found) => Err(StoreError::UnknownSchema {
            file,
            found,
            expected,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(StoreError::NoStore(layout.database().to_owned()))
        }
        Err(source) => Err(StoreError::Read { path: file, source }),
    }
}

/// Announces the finished database. The file appears with its content or not at all: an
/// empty one would be read as a schema of number 0.
fn write_schema_number(layout: &Layout) -> Result<(), StoreError> {
    let path = layout.schema_file();
    let temporary = path.with_extension("tmp");
    let number = schema::version(layout.store_dir().dialect()).to_string();
    // What an interrupted process left, or a link that leads elsewhere.
    match std::fs::remove_file(&temporary) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(StoreError::Write {
                path: temporary,
                source,
            });
        }
        _ => {}
    }
    File::create_new(&temporary)
        .and_then(|mut file| {
            file.write_all(number.as_bytes())
                .and_then(|()| file.sync_all())
        })
        .and_then(|()| std::fs::rename(&temporary, &path))
        .map_err(on(&path, |path, source| StoreError::Write { path, source }))
}

/// The collector's `gcroots` is left to guix-daemon: it makes that directory together with the
/// link to the profiles inside, and would believe one that is there to be complete.
fn create_directories(layout: &Layout) -> Result<(), StoreError> {
    let (links, temp_roots) = (layout.links(), layout.temp_roots_dir());
    let is_new = !layout.store().exists();
    for path in [layout.database(), layout.config(), &links, &temp_roots] {
        create_directory(path).map_err(on(path, |path, source| StoreError::CreateDirectory {
            path,
            source,
        }))?;
    }
    if is_new {
        spread_items(layout.store());
    }
    Ok(())
}

/// Makes the directory `path`, and those above it that are missing.
fn create_directory(path: &Path) -> io::Result<()> {
    match make_directory(CWD, path) {
        Err(Errno::NOENT) => {
            let parent = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            create_directory(parent.ok_or(Errno::NOENT)?)?;
            create_directory(path)
        }
        Err(_) if path.is_dir() => Ok(()),
        made => Ok(made?),
    }
}

/// Tells the file system that what is in this directory has nothing to do with each other, what
/// `chattr +T` is for. Without it ext4 keeps everything in one place, as long as that has room; where
/// ext4 has no journal that place may be crowded with deleted files, which every new one has to pass
/// over. What is crowded nevertheless the unpacker evades, for the subdirectories of an item.
fn spread_items(store: &Path) {
    // Other file systems do not know the flag, and no store needs it.
    let _ = File::open(store).and_then(|directory| {
        let flags = ioctl_getflags(&directory)?;
        Ok(ioctl_setflags(&directory, flags | IFlags::TOPDIR)?)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::store_path::StoreDir;

    #[test]
    fn what_an_interrupted_process_left_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::embedded(root.path(), StoreDir::parse(StoreDir::GUIX).unwrap());
        create_directories(&layout).unwrap();
        for name in ["db.new", "db.new-journal", "db.new-wal", "db.new-shm"] {
            std::fs::write(layout.database().join(name), [7; 5000]).unwrap();
        }
        let (_lock, mut database) = or_create(&layout, LockKind::Record, SyncMode::None).unwrap();
        assert!(database.valid_among(&[]).unwrap().is_empty());
        let left = std::fs::read_dir(layout.database())
            .unwrap()
            .map(|e| e.unwrap().file_name());
        let left: Vec<_> = left
            .filter(|name| name.as_encoded_bytes().starts_with(b"db.n"))
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
