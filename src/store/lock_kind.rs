//! Locks shared with guix-daemon and Nix: the two kinds of system calls.
//!
//! Guix takes POSIX record locks, Nix takes `flock`; neither sees the other kind. For Guix we
//! take open-file-description locks: they conflict with record locks both ways, but belong
//! to one open file instead of the process. A record lock would be lost as soon as *any*
//! thread closes *any* descriptor of that file, and two threads would not exclude each other.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{FlockOperation, flock};

use crate::format::store_path::Dialect;

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

/// Whether the owner before us has given this file up, so that a lock on it means nothing.
pub(super) fn is_stale(file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    Ok(metadata.size() != 0 || metadata.nlink() == 0)
}

/// A request for a record lock in `mode` over all of a file.
pub(super) fn whole_file(mode: LockMode) -> libc::flock {
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
