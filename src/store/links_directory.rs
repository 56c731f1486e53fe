//! The directory `.links` itself: opening it, and the names in it.
//!
//! It is opened once, as a directory and not through a symbolic link, by which another user could
//! choose where files of the store are linked to. Entries are reached through it.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, Mode, OFlags, linkat, openat, unlinkat};
use rustix::io::{self, Errno};
use rustix::path;

use crate::no_follow::make_directory;
use crate::sync::lock;

use super::layout::LINKS;

/// `.links` of a store.
#[derive(Debug)]
pub(super) struct LinksDirectory {
    store: Arc<OwnedFd>,
    opened: Mutex<Option<Arc<OwnedFd>>>,
}

impl LinksDirectory {
    pub(super) fn new(store: Arc<OwnedFd>) -> Self {
        Self {
            store,
            opened: Mutex::default(),
        }
    }

    /// The store directory.
    pub(super) fn store(&self) -> &Arc<OwnedFd> {
        &self.store
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

    /// Makes the directory if it is missing, also when it was deleted after it had been opened.
    pub(super) fn create(&self) -> io::Result<()> {
        *lock(&self.opened) = None;
        match make_directory(&self.store, LINKS) {
            Err(Errno::EXIST) => Ok(()),
            made => made,
        }
    }
}

/// A new name in `links` for the file `name` in `dir`.
pub(super) fn temporary_link<P: path::Arg + Copy>(
    links: &OwnedFd,
    dir: BorrowedFd<'_>,
    name: P,
) -> io::Result<String> {
    loop {
        let temporary = format!(".tmp-link-{}-{}", std::process::id(), fastrand::u32(..));
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
