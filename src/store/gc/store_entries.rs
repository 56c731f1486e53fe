//! What is in the store directory besides valid items: leftovers, and what live processes work on.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use crate::format::store_path::StorePath;
use crate::store::deduplicate::Links;
use crate::store::error::{StoreError, on};
use crate::store::layout::{LINKS, Layout};
use crate::store::lock_file::LockFile;
use crate::store::lock_kind::{LockKind, LockMode, Tried};
use crate::store::remove::link_count;

use super::graph::ItemGraph;
use super::temp_root_files::TempRootFiles;
use super::trash::TRASH;

/// How the names of what belongs to an item end while it is made.
const NEIGHBORS: [&str; 3] = [".lock", ".chroot", ".tmp"];

/// How the names of directories begin that Nix unpacks to before it knows an item's name.
const UNPACKED_PREFIX: &[u8] = b"tmp-";

/// The entries of the store directory.
#[derive(Debug)]
pub(super) struct StoreEntries {
    /// All of them, without `.links` and `trash`.
    pub(super) names: Vec<CString>,
    /// The base names of items that other processes have locked.
    pub(super) locked: HashSet<String>,
    /// What Nix unpacked to, locked so that no process takes it over while it is deleted.
    pub(super) unpacked: Vec<File>,
}

impl StoreEntries {
    /// Lists the store directory, and finds out which of the locks there are held. The locks of temp
    /// roots need not be tried; what is valid by `graph` is no lock.
    pub(super) fn read(
        layout: &Layout,
        kind: LockKind,
        links: &Links,
        temp_roots: &TempRootFiles,
        graph: &ItemGraph,
    ) -> Result<Self, StoreError> {
        let store = links.store();
        let path = layout.store();
        let entries = Dir::read_from(store).map_err(unreadable(path))?;
        let mut found = Self {
            names: Vec::new(),
            locked: HashSet::new(),
            unpacked: Vec::new(),
        };
        for entry in entries {
            let entry = entry.map_err(unreadable(path))?;
            let name = entry.file_name();
            if [".", "..", LINKS, TRASH]
                .map(str::as_bytes)
                .contains(&name.to_bytes())
            {
                continue;
            }
            if let Some(item) = item_of_lock(store.as_fd(), name)
                && temp_roots.process_of(item).is_none()
                && !is_valid(graph, name)
            {
                let place = path.join(OsStr::from_bytes(name.to_bytes()));
                let Some(file) = LockFile::open_existing(kind, store.as_fd(), place)? else {
                    continue;
                };
                if file.try_lock(LockMode::Exclusive)? == Tried::Busy {
                    found.locked.insert(item.to_owned());
                }
            }
            if kind == LockKind::Flock && name.to_bytes().starts_with(UNPACKED_PREFIX) {
                found.lock_unpacked(store.as_fd(), name);
            }
            found.names.push(name.to_owned());
        }
        Ok(found)
    }

    /// Locks the directory `name` of `store` as Nix does that unpacks to it, or notes that it is in use.
    fn lock_unpacked(&mut self, store: BorrowedFd<'_>, name: &CStr) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match openat(store, name, flags, Mode::empty()) {
            // Nothing that Nix has locked.
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => return,
            opened => opened.map(File::from).map_err(io::Error::from),
        };
        let locked = opened.and_then(|directory| {
            let tried = LockKind::Flock.try_lock(&directory, LockMode::Exclusive)?;
            Ok((tried, directory))
        });
        match locked {
            Ok((Tried::Acquired, directory)) => self.unpacked.push(directory),
            Ok((Tried::Busy, _)) | Err(_) => {
                self.locked.insert(name.to_string_lossy().into_owned());
            }
        }
    }

    /// The entries that belong to no valid item of `graph` and to no process.
    pub(super) fn leftovers(&self, graph: &ItemGraph, temp_roots: &TempRootFiles) -> Vec<CString> {
        let names = self.names.iter();
        names
            .filter(|name| {
                !is_valid(graph, name)
                    && !name
                        .to_str()
                        .is_ok_and(|name| self.is_in_use(name, temp_roots))
            })
            .cloned()
            .collect()
    }

    /// Whether a process works on what has the name `name`, or on the item that it belongs to.
    fn is_in_use(&self, name: &str, temp_roots: &TempRootFiles) -> bool {
        let owners = NEIGHBORS
            .iter()
            .map(|suffix| (suffix, name.strip_suffix(suffix)));
        let mut owners = owners.filter_map(|(suffix, owner)| Some((*suffix, owner?)));
        temp_roots.process_of(name).is_some()
            || self.locked.contains(name)
            || owners.any(|(suffix, owner)| {
                // A temporary tree is a temp root of its own.
                let is_kept = suffix != ".tmp" && temp_roots.process_of(owner).is_some();
                is_kept || self.locked.contains(owner)
            })
    }
}

/// The base name of the item whose lock is the file `name` of the directory `store`.
///
/// Items have such names as well (`HASH-Cargo.lock`). A lock is a file that its owner may write to, of
/// one byte at most, which has no other name; nothing else is to be opened, locked or marked.
pub(super) fn item_of_lock<'a>(store: BorrowedFd<'_>, name: &'a CStr) -> Option<&'a str> {
    let item = name.to_str().ok()?.strip_suffix(".lock")?;
    StorePath::parse(item).ok()?;
    let stat = statat(store, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let is_lock = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && Mode::from_raw_mode(stat.st_mode).contains(Mode::WUSR)
        && stat.st_size <= 1
        && link_count(&stat) == 1;
    is_lock.then_some(item)
}

/// Whether the entry `name` of the store directory is a valid item.
fn is_valid(graph: &ItemGraph, name: &CStr) -> bool {
    let path = name.to_str().ok().map(StorePath::parse);
    path.is_some_and(|path| path.is_ok_and(|path| graph.position(&path).is_some()))
}

fn unreadable(path: &Path) -> impl FnOnce(Errno) -> StoreError {
    on(path, |path, source| StoreError::Read { path, source })
}
