//! The directory `.links` itself: opening it, and the names in it.
//!
//! It is opened once, as a directory and not through a symbolic link, by which another user could
//! choose where files of the store are linked to. Entries are reached through it.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, linkat, openat, statat, unlinkat};
use rustix::io::{self, Errno};
use rustix::path;

use crate::no_follow::make_directory;
use crate::sync::lock;

use super::layout::LINKS;
use super::remove::{disk_bytes, link_count};
use super::wait::StoreObserver;

/// `.links` of a store.
#[derive(Debug)]
pub(super) struct LinksDirectory {
    store: Arc<OwnedFd>,
    opened: Mutex<Option<Arc<OwnedFd>>>,
    store_owner: u32,
    /// Set when the file system turns out to have no hard links.
    has_no_hard_links: AtomicBool,
}

impl LinksDirectory {
    pub(super) fn new(store: Arc<OwnedFd>) -> Self {
        Self {
            // Root is an owner that is trusted in any case.
            store_owner: fstat(&store).map_or(0, |stat| stat.st_uid),
            store,
            opened: Mutex::default(),
            has_no_hard_links: AtomicBool::new(false),
        }
    }

    /// The store directory.
    pub(super) fn store(&self) -> &Arc<OwnedFd> {
        &self.store
    }

    /// Who owns the store directory.
    pub(super) fn store_owner(&self) -> u32 {
        self.store_owner
    }

    /// Notes that the file system has no hard links.
    pub(super) fn note_no_hard_links(&self) {
        self.has_no_hard_links.store(true, Ordering::Relaxed);
    }

    /// Whether that was noted since the last call.
    pub(super) fn take_no_hard_links(&self) -> bool {
        self.has_no_hard_links.swap(false, Ordering::Relaxed)
    }

    /// The open directory.
    ///
    /// # Errors
    /// `ENOENT`: it is missing. `ENOTDIR`: it is no directory.
    pub(super) fn open(&self) -> io::Result<Arc<OwnedFd>> {
        let mut opened = lock(&self.opened);
        if let Some(directory) = &*opened {
            return Ok(Arc::clone(directory));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = Arc::new(openat(&self.store, LINKS, flags, Mode::empty())?);
        *opened = Some(Arc::clone(&directory));
        Ok(directory)
    }

    /// Removes what an ended `process` left in `.links`: its temporary names, and the files that
    /// `linked` has, with as many names in trees that are about to be removed as they have besides.
    pub(super) fn remove_left(&self, process: &str, linked: &HashMap<u64, u64>) -> io::Result<()> {
        let links = self.open()?;
        let temporary = format!("{TEMPORARY_PREFIX}{process}-");
        let listed = openat(&links, c".", LISTED, Mode::empty())?;
        let mut entries = Vec::new();
        for entry in Dir::new(listed)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if name.starts_with(&temporary) {
                discard(&links, name)?;
            } else if linked.contains_key(&entry.ino()) {
                entries.push(name.to_owned());
            }
        }

        // Only now, because temporary names count as well.
        for entry in entries {
            let stat = statat(&links, &entry, AtFlags::SYMLINK_NOFOLLOW)?;
            // What the directory lists is another number on some file systems, such as FUSE: there the
            // entries stay for the collector.
            let Some(&names) = linked.get(&stat.st_ino) else {
                continue;
            };
            // The type of the number of links depends on the machine.
            if u128::from(stat.st_nlink) == u128::from(names) + 1 {
                discard(&links, &entry)?;
            }
        }
        Ok(())
    }

    /// Deletes all entries that have no other name. A link that another process makes to one before it
    /// is deleted has the same content. One that cannot be deleted does not keep the others.
    pub(super) fn remove_unused(&self, observer: &dyn StoreObserver) -> io::Result<UnusedEntries> {
        let links = self.open()?;
        let listed = openat(&links, c".", LISTED, Mode::empty())?;
        let mut removed = UnusedEntries::default();
        for entry in Dir::new(listed)? {
            let entry = entry?;
            if observer.is_canceled() {
                removed.is_interrupted = true;
                break;
            }
            let name = entry.file_name();
            let stat = match statat(&links, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                stat => stat?,
            };
            // Guix and Nix have symlinks here, too.
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if is_directory || link_count(&stat) != 1 {
                continue;
            }
            match unlinkat(&links, name, AtFlags::empty()) {
                Ok(()) => {
                    removed.entries += 1;
                    removed.bytes += disk_bytes(&stat);
                }
                Err(Errno::NOENT) => {}
                Err(error) if removed.failures.len() < FAILURES_MAX => {
                    removed.failures.push((name.to_owned(), error));
                }
                Err(_) => {}
            }
        }
        Ok(removed)
    }

    /// Makes the directory if it is missing, also when it was deleted after it had been opened.
    pub(super) fn create(&self) -> io::Result<()> {
        *lock(&self.opened) = None;
        match make_directory(&self.store, LINKS) {
            Err(Errno::EXIST) => Ok(()),
            made => made,
        }
    }
}

/// Entries that were deleted.
#[derive(Debug, Default)]
pub(super) struct UnusedEntries {
    pub(super) entries: u64,
    /// What they took on the disk.
    pub(super) bytes: u64,
    /// The first ones that could not be deleted.
    pub(super) failures: Vec<(CString, Errno)>,
    /// Whether the user interrupted it.
    pub(super) is_interrupted: bool,
}

/// How many failures are told; all entries fail in a directory that cannot be written to.
const FAILURES_MAX: usize = 20;

/// To list `.links`, which is open as a mere handle.
pub(super) const LISTED: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// How temporary names in `.links` begin, before the process id.
pub(super) const TEMPORARY_PREFIX: &str = ".tmp-link-";

/// A new name in `links` for the file `name` in `dir`.
pub(super) fn temporary_link<P: path::Arg + Copy>(
    links: &OwnedFd,
    dir: BorrowedFd<'_>,
    name: P,
) -> io::Result<String> {
    loop {
        let temporary = format!(
            "{TEMPORARY_PREFIX}{}-{}",
            std::process::id(),
            fastrand::u32(..)
        );
        match linkat(dir, name, links, &temporary, AtFlags::empty()) {
            Ok(()) => return Ok(temporary),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Deletes the name `name` of `links`, if it is there.
pub(super) fn discard(links: &OwnedFd, name: &str) -> io::Result<()> {
    match unlinkat(links, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        discarded => discarded,
    }
}
