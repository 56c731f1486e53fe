//! A tree outside any store gets its final name in one step, when it is complete and verified.
//!
//! It is unpacked beside its destination, at `.NAME.subst-RANDOM`, so that a process that is killed
//! leaves nothing incomplete at the final name. A lock (`flock`) on `.NAME.subst-RANDOM.lock`, which is
//! created before the tree and removed after it, tells a tree that a process is working on from
//! one that a dead process left; [`remove_leftovers`] removes only the latter, and only those of the
//! same user. A file system without locks keeps its leftovers, and so does root where others may rename.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, statat, unlinkat};
use rustix::io::{self, Errno};
use rustix::process::geteuid;

use crate::format::nar::EntryName;
use crate::trust::verdict::AuthorizedNarInfo;

use super::error::{StoreError, on};
use super::lock_kind::{LockKind, LockMode, Tried, is_stale};
use super::remove::remove_tree_at;
use super::sync_mode::SyncMode;
use super::unpack::{Checked, Destination};

/// A temporary name beside a destination, for as long as this lives. To be dropped after the tree
/// that is unpacked there.
#[derive(Debug)]
pub(crate) struct OutputStaging {
    destination: Destination,
    temporary: Destination,
    lock_name: EntryName,
    /// Locked, where the file system has locks.
    _lock: File,
}

impl OutputStaging {
    /// Reserves a temporary name beside `destination`.
    ///
    /// # Errors
    /// [`StoreError::Lock`]: no file can be created there.
    pub(crate) fn begin(destination: &Destination) -> Result<Self, StoreError> {
        let names = Names::of(destination.name());
        for _ in 0..ATTEMPTS {
            let id = format!("{:016x}", fastrand::u64(..));
            let lock_name = names.lock(&id);
            let lock = create_lock(destination.parent(), &lock_name).map_err(|source| {
                let path = destination.sibling(lock_name.clone()).path();
                StoreError::Lock {
                    path,
                    source: source.into(),
                }
            })?;
            let Some(lock) = lock else { continue };
            return Ok(Self {
                destination: destination.clone(),
                temporary: destination.sibling(names.tree(&id)),
                lock_name,
                _lock: lock,
            });
        }
        Err(StoreError::Locked(destination.path()))
    }

    /// Where the tree is to be unpacked.
    #[must_use]
    pub(crate) fn temporary(&self) -> &Destination {
        &self.temporary
    }

    /// Gives `checked`, which was unpacked at the temporary name, its final name, and waits until that is
    /// on the disk, as `sync` says.
    ///
    /// # Errors
    /// [`StoreError::Exists`]: something else has that name by now, and keeps it; or
    /// [`StoreError::Rename`]. The tree is removed. [`StoreError::Sync`]: it stays.
    pub(crate) fn publish(
        self,
        checked: Checked,
        sync: SyncMode,
    ) -> Result<Arc<AuthorizedNarInfo>, StoreError> {
        let authorized = checked.rename_noreplace(self.destination.name())?;
        self.destination.sync_name(sync)?;
        Ok(authorized)
    }
}

impl Drop for OutputStaging {
    fn drop(&mut self) {
        // When it stays, the next run with the same destination removes it.
        let name = self.lock_name.as_bytes();
        let _ = unlinkat(self.destination.parent(), name, AtFlags::empty());
    }
}

/// Removes what processes of this user that have ended left in the directory of `destination`, on
/// their way to any destination there.
///
/// # Errors
/// [`StoreError::Read`] or [`StoreError::Remove`]; the rest may still be there.
pub(crate) fn remove_leftovers(destination: &Destination) -> Result<(), StoreError> {
    let path = destination.parent_path();
    // They could give anything of root's the name of a leftover, and so have it removed.
    if geteuid().is_root() && others_may_rename(destination.parent()) {
        return Ok(());
    }

    let found = Names::all_in(destination.parent())
        .map_err(on(path, |path, source| StoreError::Read { path, source }))?;

    for (prefix, id) in found {
        let names = Names { prefix };
        let tree = destination.sibling(names.tree(&id));
        remove_if_abandoned(&tree, &names.lock(&id)).map_err(on(
            &tree.path(),
            |path, source| StoreError::Remove { path, source },
        ))?;
    }
    Ok(())
}

/// Whether other users can rename what is in `directory` and belongs to this user.
fn others_may_rename(directory: BorrowedFd<'_>) -> bool {
    let Ok(stat) = fstat(directory) else {
        return true;
    };
    let mode = Mode::from_raw_mode(stat.st_mode);
    let is_shared = mode.intersects(Mode::WGRP | Mode::WOTH) && !mode.contains(Mode::SVTX);
    // The sticky bit does not restrict the owner of the directory.
    is_shared || stat.st_uid != geteuid().as_raw()
}

/// Removes `tree` and its lock file when both are this user's and no process holds the lock.
fn remove_if_abandoned(tree: &Destination, lock_name: &EntryName) -> io::Result<()> {
    let parent = tree.parent();
    // Held until both are removed, so that no other process works on them.
    let _lock = match open_lock(parent, lock_name) {
        Some(Lock::Ours(file)) => Some(file),
        // The lock file is removed last, so its owner has ended, or could not remove the tree.
        Some(Lock::Absent) => None,
        None => return Ok(()),
    };
    match statat(parent, tree.name().as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if stat.st_uid != geteuid().as_raw() => return Ok(()),
        Ok(_) => remove_tree_at(parent, tree.name().as_os_str())?,
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    match unlinkat(parent, lock_name.as_bytes(), AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        removed => removed,
    }
}

/// The lock of a tree that no process works on.
enum Lock {
    /// It is held by this process now.
    Ours(File),
    /// There is no lock file.
    Absent,
}

/// The lock `name` in `parent`, unless a process holds it, it is another user's, or cannot be
/// used: then nothing is known about its tree.
fn open_lock(parent: BorrowedFd<'_>, name: &EntryName) -> Option<Lock> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(parent, name.as_bytes(), flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Some(Lock::Absent),
        Err(_) => return None,
    };
    let stat = rustix::fs::fstat(&file).ok()?;
    let is_usable = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_uid == geteuid().as_raw();
    let locked = is_usable && matches!(try_lock(&file), Ok(Tried::Acquired));
    locked.then_some(Lock::Ours(file))
}

/// A new lock file, locked; `None` when the name is taken, or a process that removes leftovers was
/// faster than the lock.
fn create_lock(parent: BorrowedFd<'_>, name: &EntryName) -> io::Result<Option<File>> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match openat(parent, name.as_bytes(), flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => File::from(file),
        Err(Errno::EXIST) => return Ok(None),
        Err(error) => return Err(error),
    };
    match try_lock(&file) {
        Ok(Tried::Acquired) if !is_stale(&file).unwrap_or(true) => Ok(Some(file)),
        Ok(_) => Ok(None),
        // A file system without locks: no process can take this one, so the tree is left alone.
        Err(_) => Ok(Some(file)),
    }
}

fn try_lock(file: &File) -> std::io::Result<Tried> {
    LockKind::Flock.try_lock(file, LockMode::Exclusive)
}

/// The temporary names that belong to a destination.
struct Names {
    /// Such as `.NAME.subst-`.
    prefix: Vec<u8>,
}

impl Names {
    /// A long name is cut, so that a temporary name is not longer than a file system allows.
    fn of(name: &EntryName) -> Self {
        let name = name.as_bytes();
        let mut length = name.len().min(NAME_MAX_BYTES);
        // Some file systems refuse half a character.
        while length > 0 && length < name.len() && name[length] & 0xc0 == 0x80 {
            length -= 1;
        }
        Self {
            prefix: [b".", &name[..length], MARK].concat(),
        }
    }

    fn tree(&self, id: &str) -> EntryName {
        Self::entry([&*self.prefix, id.as_bytes()].concat())
    }

    fn lock(&self, id: &str) -> EntryName {
        Self::entry([&*self.prefix, id.as_bytes(), LOCK_SUFFIX].concat())
    }

    fn entry(name: Vec<u8>) -> EntryName {
        EntryName::new(&name).expect("a part of an entry name with these affixes is one too")
    }

    /// The prefixes and ids of all temporary names in `parent`, of trees and of locks.
    fn all_in(parent: BorrowedFd<'_>) -> io::Result<BTreeSet<(Vec<u8>, String)>> {
        let mut found = BTreeSet::new();
        for entry in Dir::read_from(parent)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let name = name.strip_suffix(LOCK_SUFFIX).unwrap_or(name);
            let Some((prefix, id)) = name.split_at_checked(name.len().saturating_sub(ID_BYTES))
            else {
                continue;
            };
            if prefix.starts_with(b".") && prefix.len() > MARK.len() && prefix.ends_with(MARK) {
                found.extend(parse_id(id).map(|id| (prefix.to_vec(), id)));
            }
        }
        Ok(found)
    }
}

/// Exactly the sixteen digits that [`OutputStaging::begin`] writes.
fn parse_id(id: &[u8]) -> Option<String> {
    let is_id = id.len() == ID_BYTES && id.iter().all(|digit| b"0123456789abcdef".contains(digit));
    is_id.then(|| String::from_utf8_lossy(id).into_owned())
}

const LOCK_SUFFIX: &[u8] = b".lock";
/// Behind the name of the destination, before the digits.
const MARK: &[u8] = b".subst-";
const ID_BYTES: usize = 16;
/// With `.`, `.subst-`, sixteen digits and `.lock`, 255 bytes.
const NAME_MAX_BYTES: usize = 226;
/// A name is taken by chance once in 2^64 times.
const ATTEMPTS: u32 = 16;

#[cfg(test)]
mod tests;
