//! Locks shared with guix-daemon and Nix: the two kinds, and the lock of one item.
//!
//! Guix takes POSIX record locks, Nix takes `flock`; neither sees the other kind. For Guix we
//! take open-file-description locks: they conflict with record locks both ways, but belong
//! to one open file instead of the process. A record lock would be lost as soon as *any*
//! thread closes *any* descriptor of that file, and two threads would not exclude each other.
//!
//! An item is locked through `ITEM.lock`. Its owner may unlink that file while others wait for
//! it, so whoever gets the lock has to look whether the file still counts: it is *stale* when
//! a byte was written to it (the last act of its owner) or it has no name any more.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{FlockOperation, OFlags, flock};

use tracing::debug;

use crate::format::store_path::{Dialect, StorePath};

use super::error::{StoreError, on};
use super::layout::Layout;

/// Which system call a store's locks are made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LockKind {
    /// Seen by `fcntl(F_SETLK)`: Guix.
    Record,
    /// Seen by `flock`: Nix.
    Flock,
}

/// Who else may hold the lock at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LockMode {
    /// Others that want it shared.
    Shared,
    /// None.
    Exclusive,
}

/// Whether a lock that was tried is ours now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tried {
    /// It is.
    Acquired,
    /// It is held elsewhere.
    Busy,
}

impl LockKind {
    /// The kind that the programs of `dialect` use.
    pub(super) fn of(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Guix => Self::Record,
            Dialect::Nix => Self::Flock,
        }
    }

    /// Takes the lock, or changes the mode of the one held, if that is possible at once.
    pub(super) fn try_lock(self, file: &File, mode: LockMode) -> io::Result<Tried> {
        let taken = retry_interrupted(|| match self {
            Self::Record => fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file(mode)))
                .map(|_| ())
                .map_err(Into::into),
            Self::Flock => flock(
                file,
                match mode {
                    LockMode::Shared => FlockOperation::NonBlockingLockShared,
                    LockMode::Exclusive => FlockOperation::NonBlockingLockExclusive,
                },
            )
            .map_err(Into::into),
        });
        match taken {
            Ok(()) => Ok(Tried::Acquired),
            // POSIX lets a record lock that is held elsewhere report either of the two.
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EACCES) => Ok(Tried::Busy),
                _ => Err(error),
            },
        }
    }

    /// Takes the lock, or changes the mode of the one held, however long that takes.
    pub(super) fn lock(self, file: &File, mode: LockMode) -> io::Result<()> {
        retry_interrupted(|| match self {
            Self::Record => fcntl(file, FcntlArg::F_OFD_SETLKW(&whole_file(mode)))
                .map(|_| ())
                .map_err(Into::into),
            Self::Flock => flock(
                file,
                match mode {
                    LockMode::Shared => FlockOperation::LockShared,
                    LockMode::Exclusive => FlockOperation::LockExclusive,
                },
            )
            .map_err(Into::into),
        })
    }

    /// Gives the lock up, if it is held.
    pub(super) fn unlock(self, file: &File) -> io::Result<()> {
        retry_interrupted(|| match self {
            Self::Record => {
                let nothing = record(libc::F_UNLCK);
                fcntl(file, FcntlArg::F_OFD_SETLK(&nothing))
                    .map(|_| ())
                    .map_err(Into::into)
            }
            Self::Flock => flock(file, FlockOperation::Unlock).map_err(Into::into),
        })
    }
}

/// The lock of one item: no other process or thread adds or deletes it. Released when dropped.
#[derive(Debug)]
pub struct ItemLock {
    file: File,
    path: PathBuf,
    item: StorePath,
}

impl ItemLock {
    /// The lock of `item`, or `None` when it is held elsewhere.
    pub(super) fn try_acquire(
        kind: LockKind,
        layout: &Layout,
        item: &StorePath,
    ) -> Result<Option<Self>, StoreError> {
        let path = layout.lock_file(item);
        loop {
            let file = open_lock_file(&path)?;
            match try_lock_unless_stale(kind, &file) {
                Ok(None) => {}
                Ok(Some(Tried::Busy)) => {
                    debug!(item = item.base(), "another process holds the lock");
                    return Ok(None);
                }
                Ok(Some(Tried::Acquired)) => {
                    let item = item.clone();
                    return Ok(Some(Self { file, path, item }));
                }
                Err(source) => return Err(StoreError::Lock { path, source }),
            }
        }
    }

    /// The item that is locked.
    pub(super) fn item(&self) -> &StorePath {
        &self.item
    }

    /// The lock file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Tries to take the exclusive lock; `None` when `file` was given up by its owner meanwhile.
fn try_lock_unless_stale(kind: LockKind, file: &File) -> io::Result<Option<Tried>> {
    let tried = kind.try_lock(file, LockMode::Exclusive)?;
    if tried == Tried::Acquired && is_stale(file)? {
        return Ok(None);
    }

    Ok(Some(tried))
}

impl Drop for ItemLock {
    /// Releases for good. The byte tells those who wait on this very file that it has lost its
    /// name, and the unlinking comes first so that no new one can begin to wait on it. Should
    /// either fail, the lock file stays behind unlocked, which is harmless.
    fn drop(&mut self) {
        if std::fs::remove_file(&self.path).is_ok() {
            let _ = self.file.write_all(b"d");
        }
    }
}

/// Opens a lock file, making it if need be; private to its owner, and never through a symlink.
pub(super) fn open_lock_file(path: &Path) -> Result<File, StoreError> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)
        .map_err(on(path, |path, source| StoreError::Open { path, source }))
}

/// Whether the owner before us has given this file up, so that a lock on it means nothing.
pub(super) fn is_stale(file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    Ok(metadata.size() != 0 || metadata.nlink() == 0)
}

fn whole_file(mode: LockMode) -> libc::flock {
    record(match mode {
        LockMode::Shared => libc::F_RDLCK,
        LockMode::Exclusive => libc::F_WRLCK,
    })
}

/// A request for a record lock over all of a file, whatever its length.
pub(super) fn record(kind: libc::c_int) -> libc::flock {
    #[expect(clippy::cast_possible_truncation, reason = "these constants are tiny")]
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn retry_interrupted(mut call: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
