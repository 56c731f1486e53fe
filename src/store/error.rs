//! What can fail in the local store: one variant per action, with the object it failed on.
//!
//! All of it is *local* trouble (disk, permissions, database, locks): asking another server
//! cannot help, so callers stop at once.

use std::io;
use std::path::{Path, PathBuf};

use crate::format::error_text::chain;

/// Why something could not be done to the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store does not exist, and it was not asked for one to be made.
    #[error("there is no store database in {}", .0.display())]
    NoStore(PathBuf),
    /// The database has a layout that this program does not know. Writing to it could damage
    /// it, so it is not even opened.
    #[error("{} has schema `{}`; this program supports {expected}", .file.display(), .found.escape_debug())]
    UnknownSchema {
        /// The file that holds the number.
        file: PathBuf,
        /// What stands in it.
        found: String,
        /// The number this program knows.
        expected: u32,
    },
    /// The store was opened for reading only.
    #[error("the store in {} was opened for reading only", .0.display())]
    ReadOnly(PathBuf),
    /// A directory could not be created.
    #[error("creating directory {}", path.display())]
    CreateDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or directory could not be opened.
    #[error("opening {}", path.display())]
    Open {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("writing {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was written could not be brought to the disk.
    #[error("waiting until {} is on the disk", path.display())]
    Sync {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A lock could not be taken, for another reason than that it is held.
    #[error("locking {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was made cannot get its name, because something else got it first.
    #[error("{} was created by another process meanwhile; it is left as it is", .0.display())]
    Exists(PathBuf),
    /// An item was to be published without holding its lock.
    #[error("{} is not locked by this process", .0.display())]
    NotLocked(PathBuf),
    /// A tree was to take the place of another one that does not have the same contents.
    #[error("{} has other contents in the database", .0.display())]
    OtherContents(PathBuf),
    /// The attributes of a file could not be corrected.
    #[error("correcting the attributes of {}", path.display())]
    Correct {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process holds a lock.
    #[error("{} is locked by another process", .0.display())]
    Locked(PathBuf),
    /// The user interrupted a wait for another process.
    #[error("interrupted")]
    Interrupted,
    /// Temp roots could not be announced. Going on without them would let the collector
    /// delete items in the middle of being made.
    #[error("announcing temp roots in {}", path.display())]
    TempRoots {
        /// The file of temp roots.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A database statement failed.
    #[error("{action} in {}", path.display())]
    Database {
        /// What was being done.
        action: &'static str,
        /// The database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The database is not sound, or does not have the tables of its schema. It is left as it is.
    #[error("the store database {} is damaged; it was left as it is", path.display())]
    DamagedDatabase {
        /// The database.
        path: PathBuf,
        /// What was found.
        source: rusqlite::Error,
    },
    /// The database contains an invalid value.
    #[error("{} has the {column} `{}` for {item}", path.display(), value.escape_debug())]
    Malformed {
        /// The database.
        path: PathBuf,
        /// Which column.
        column: &'static str,
        /// What stands there.
        value: String,
        /// Whose row it is.
        item: String,
    },
    /// An item refers to others that are neither valid nor registered along with it.
    #[error("{item} refers to {}, not valid in this store", missing.join(", "))]
    MissingReferences {
        /// The item.
        item: String,
        /// What it refers to.
        missing: Vec<String>,
    },
    /// Items refer to each other in a circle, which no build can produce.
    #[error("these items refer to each other in a circle: {}", .0.join(", "))]
    ReferenceCycle(Vec<String>),
    /// A derivation could not be understood, so its outputs cannot be recorded.
    #[error("{} is not a derivation that can be read", .0.display())]
    Derivation(PathBuf),
    /// A file could not be replaced by a link to its equal, or the other way round.
    #[error("deduplicating {}", path.display())]
    Deduplicate {
        /// The name inside its directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A tree could not be deleted.
    #[error("removing {}", path.display())]
    Remove {
        /// The tree.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A finished tree could not be given its final name.
    #[error("renaming {} to {}", from.display(), to.display())]
    Rename {
        /// Its temporary name.
        from: PathBuf,
        /// Its final name.
        to: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Roots could not be read, so what they keep is not known.
    #[error("these roots cannot be read, and may keep items: {}", shown_roots(.0))]
    UnreadableRoots(Vec<UnreadableRoot>),
    /// The read-only mount of the store could not be made writable for this process.
    #[error("making {} writable for this process", path.display())]
    Remount {
        /// The store directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A garbage collector root that cannot be read: the link, or the directory of links, and why.
pub(crate) type UnreadableRoot = (PathBuf, StoreError);

/// The links of `roots`, and why each cannot be read.
fn shown_roots(roots: &[UnreadableRoot]) -> String {
    let shown = roots.iter().take(SHOWN_ROOTS_MAX);
    let shown = shown.map(|(link, error)| format!("{} ({})", link.display(), chain(error)));
    let shown = shown.collect::<Vec<_>>().join(", ");
    match roots.len().saturating_sub(SHOWN_ROOTS_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Roots that an error names at most; `subst roots` names all.
const SHOWN_ROOTS_MAX: usize = 10;

/// What the user can do about a failure of the store; how to say it depends on the options in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy<'a> {
    /// Make a store, or use another one.
    MakeStore,
    /// Use a newer version of this program.
    NewerProgram,
    /// Get the right to write to the store.
    Privileges,
    /// Fetch the references as well.
    FetchReferences,
    /// Wait for another process.
    Wait,
    /// Free some space.
    Space,
    /// Repair or replace the database in this file.
    RepairDatabase(&'a Path),
    /// Write the number of the schema to its file, which has something else.
    RestoreSchema {
        /// The file.
        file: &'a Path,
        /// The number.
        number: u32,
    },
    /// Have the store's own program bring the database up to date.
    OlderStore,
    /// Make roots such as this one readable, or remove them.
    MendRoots(&'a Path),
}

impl StoreError {
    /// What the user can do about it, when that is known.
    #[must_use]
    pub(crate) fn remedy(&self) -> Option<Remedy<'_>> {
        match self {
            Self::NoStore(_) => return Some(Remedy::MakeStore),
            Self::UnknownSchema {
                file,
                found,
                expected,
            } => {
                return Some(match found.trim().parse::<u32>() {
                    Ok(number) if number > *expected => Remedy::NewerProgram,
                    Ok(number) if number > 0 => Remedy::OlderStore,
                    _ => Remedy::RestoreSchema {
                        file,
                        number: *expected,
                    },
                });
            }
            Self::ReadOnly(_) => return Some(Remedy::Privileges),
            Self::MissingReferences { .. } => return Some(Remedy::FetchReferences),
            Self::Locked(_) => return Some(Remedy::Wait),
            Self::DamagedDatabase { path, .. } => return Some(Remedy::RepairDatabase(path)),
            Self::UnreadableRoots(roots) => {
                return roots.first().map(|(link, _)| Remedy::MendRoots(link));
            }
            _ => {}
        }
        match self.io_kind()? {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Some(Remedy::Privileges)
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(Remedy::Space),
            _ => None,
        }
    }

    fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::CreateDirectory { source, .. }
            | Self::Open { source, .. }
            | Self::Read { source, .. }
            | Self::Write { source, .. }
            | Self::Sync { source, .. }
            | Self::Lock { source, .. }
            | Self::TempRoots { source, .. }
            | Self::Deduplicate { source, .. }
            | Self::Correct { source, .. }
            | Self::Remove { source, .. }
            | Self::Rename { source, .. }
            | Self::Remount { source, .. } => Some(source.kind()),
            Self::Database { source, .. } => match source.sqlite_error_code()? {
                rusqlite::ErrorCode::ReadOnly
                | rusqlite::ErrorCode::CannotOpen
                | rusqlite::ErrorCode::PermissionDenied => Some(io::ErrorKind::PermissionDenied),
                rusqlite::ErrorCode::DiskFull => Some(io::ErrorKind::StorageFull),
                // The file that the processes with this database share could not get its blocks.
                rusqlite::ErrorCode::SystemIoFailure if is_without_blocks(source) => {
                    Some(io::ErrorKind::StorageFull)
                }
                _ => None,
            },
            _ => None,
        }
    }
}

fn is_without_blocks(error: &rusqlite::Error) -> bool {
    let error = error.sqlite_error();
    error.is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

/// Adds the object to an I/O failure: `.map_err(on(path, |path, source| ...))`.
pub(super) fn on<E: Into<io::Error>>(
    path: &Path,
    variant: impl FnOnce(PathBuf, io::Error) -> StoreError,
) -> impl FnOnce(E) -> StoreError {
    move |source| variant(path.to_owned(), source.into())
}

/// The same for what cannot be deleted.
pub(super) fn not_removed<E: Into<io::Error>>(path: &Path) -> impl FnOnce(E) -> StoreError {
    on(path, |path, source| StoreError::Remove { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_remedies() {
        let denied = StoreError::Open {
            path: "/gnu/store".into(),
            source: io::ErrorKind::PermissionDenied.into(),
        };
        assert_eq!(denied.remedy(), Some(Remedy::Privileges));
        assert_eq!(denied.to_string(), "opening /gnu/store");
        let full = StoreError::Write {
            path: "x".into(),
            source: io::ErrorKind::StorageFull.into(),
        };
        assert_eq!(full.remedy(), Some(Remedy::Space));
        let other = StoreError::Write {
            path: "x".into(),
            source: io::ErrorKind::BrokenPipe.into(),
        };
        assert_eq!(other.remedy(), None);
    }
}
