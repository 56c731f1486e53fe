//! What processes that have ended left in a store: their file of temp roots, the items they were
//! working on, and the locks of these.
//!
//! A process that adds items announces each of them, and its temporary name, in its file of temp
//! roots before it creates anything. It has that file locked until it ends. So the files that are not
//! locked tell what may be left, and the store directory need not be searched. Of an item that is
//! announced so, under its lock, the temporary tree is garbage, and so is the tree in its place when
//! it is not valid. Files that announce anything else belong to guix-daemon or Nix, whose collector
//! removes them.
//!
//! The file is removed last, so that the next run continues when this one is killed.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{AtFlags, Dir, FileType, Stat, statat};
use tracing::debug;

use crate::format::store_path::{StoreDir, StorePath};

use super::db::Database;
use super::deduplicate::Links;
use super::error::{StoreError, on};
use super::fingerprint::DEDUPLICATE_MIN_BYTES;
use super::item_lock::{ItemLock, TriedItem};
use super::layout::Layout;
use super::lock_file::LockFile;
use super::lock_kind::{LockKind, LockMode, Tried};
use super::remove::remove_tree_at;
use super::tree_entries::visit_entries;

/// Files of temp roots that are looked at in one run.
const PROCESSES_MAX: usize = 1000;
/// More than a fetch of a hundred thousand items announces.
const ROOTS_MAX_BYTES: u64 = 32 << 20;

/// A store whose leftovers are removed.
pub(super) struct Leftovers<'a> {
    pub(super) layout: &'a Layout,
    pub(super) kind: LockKind,
    pub(super) links: &'a Links,
    pub(super) database: &'a mut Database,
    /// The directory of temp roots.
    pub(super) temp_roots: BorrowedFd<'a>,
}

impl Leftovers<'_> {
    /// Removes what can be removed; the rest is for another run.
    pub(super) fn remove(&mut self) {
        for name in process_files(self.temp_roots) {
            if let Err(error) = self.remove_of_process(&name) {
                debug!(process = name, %error, "leftovers stay");
            }
        }
    }

    /// Removes what the process with this file of temp roots has left, if it has ended.
    fn remove_of_process(&mut self, name: &str) -> Result<(), StoreError> {
        let path = self.layout.temp_roots_dir().join(name);
        let mut file = LockFile::open(self.kind, self.temp_roots, path)?;
        let is_alive = file.try_lock(LockMode::Exclusive)? == Tried::Busy;
        if is_alive || file.file().metadata().is_ok_and(|file| file.nlink() == 0) {
            return Ok(());
        }
        let Some(items) = self.announced_items(&mut file)? else {
            return Ok(());
        };

        let mut locks = Vec::new();
        for item in self.possibly_left(&items)? {
            let store = self.links.store();
            if let TriedItem::Acquired(lock) =
                ItemLock::try_acquire(self.kind, self.layout, store, &item)?
            {
                locks.push(lock);
            }
        }
        let process = name.split('-').next().unwrap_or(name);
        self.remove_items(process, &locks)?;
        drop(locks);

        debug!(process, "removed what an earlier process left");
        // A new process with the same id replaces the file of a dead one.
        file.remove_if_named(self.temp_roots)
    }

    /// The items that a file of temp roots announces together with their temporary names; `None` when
    /// it announces anything else.
    fn announced_items(&self, file: &mut LockFile) -> Result<Option<Vec<StorePath>>, StoreError> {
        let path = file.path().to_owned();
        let mut text = String::new();
        file.file()
            .take(ROOTS_MAX_BYTES)
            .read_to_string(&mut text)
            .map_err(on(&path, |path, source| StoreError::Read { path, source }))?;
        Ok(announced(&text, self.layout.store_dir()))
    }

    /// Those of `items` of which there is something in the store directory that is not valid.
    fn possibly_left(&mut self, items: &[StorePath]) -> Result<Vec<StorePath>, StoreError> {
        let valid = self.database.valid_among(items)?;
        let store = self.links.store();
        Ok(items
            .iter()
            .filter(|item| {
                exists(store.as_fd(), &Layout::temporary_name(item))
                    || exists(store.as_fd(), &format!("{item}.lock"))
                    || (!valid.contains(item) && exists(store.as_fd(), item.base()))
            })
            .cloned()
            .collect())
    }

    /// Removes the trees of locked items that are not valid, and what they and `process` alone have in
    /// `.links`.
    fn remove_items(&mut self, process: &str, locks: &[ItemLock]) -> Result<(), StoreError> {
        let items: Vec<StorePath> = locks.iter().map(|lock| lock.item().clone()).collect();
        let temporary = items.iter().map(Layout::temporary_name);
        // Looked up again under the locks: another process may have finished one.
        let mut valid = self.database.valid_among(&items)?;
        valid.extend(self.valid_temporary(&items)?);
        let names = items.iter().map(|item| item.base().to_owned());
        let left: Vec<String> = names
            .chain(temporary)
            .filter(|name| !valid.iter().any(|item| item.base() == name))
            .collect();

        let mut linked = HashMap::new();
        for name in &left {
            note_linked_files(self.layout, name, &mut linked);
        }
        // What stays in `.links` is for the collector.
        let _ = self.links.remove_left(process, &linked);
        for name in &left {
            let path = self.layout.store().join(name);
            remove_tree_at(self.links.store().as_fd(), name).map_err(on(
                &path,
                |path, source| StoreError::Remove { path, source },
            ))?;
        }
        Ok(())
    }

    /// Items whose own names are the temporary names of others.
    fn valid_temporary(&mut self, items: &[StorePath]) -> Result<HashSet<StorePath>, StoreError> {
        let names = items.iter().map(Layout::temporary_name);
        let paths: Vec<StorePath> = names.flat_map(|name| StorePath::parse(&name)).collect();
        self.database.valid_among(&paths)
    }
}

fn exists(store: BorrowedFd<'_>, name: &str) -> bool {
    statat(store, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// The names of files of temp roots: a process id, or one with a number behind it.
fn process_files(directory: BorrowedFd<'_>) -> Vec<String> {
    let Ok(entries) = Dir::read_from(directory) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str().ok().map(str::to_owned))
        .filter(|name| name.splitn(2, '-').all(|part| part.parse::<u32>().is_ok()))
        .take(PROCESSES_MAX)
        .collect()
}

/// How names end that belong to an item that is being made.
const NEIGHBORS: [&str; 3] = [".tmp", ".lock", ".chroot"];

/// The items in the text of a file of temp roots, each of which is followed by its temporary name;
/// `None` when there is anything else. The last name may be cut off.
fn announced(text: &str, store_dir: &StoreDir) -> Option<Vec<StorePath>> {
    let complete = &text[..text.rfind('\0').map_or(0, |end| end + 1)];
    let names: Vec<&str> = complete.split_terminator('\0').collect();
    let mut items = Vec::new();
    for pair in names.chunks(2) {
        let item = store_dir.parse_path(pair[0]).ok()?.to_path();
        let temporary = Layout::temporary_name(&item);
        if let Some(name) = pair.get(1)
            && name.rsplit('/').next() != Some(&*temporary)
        {
            return None;
        }
        // What another process works on may have such a name, and any user can have a daemon announce it.
        // Items may, too: theirs stay for the collector.
        if !NEIGHBORS.iter().any(|suffix| item.base().ends_with(suffix)) {
            items.push(item);
        }
    }
    Some(items)
}

/// Adds the files of the tree `name` that may be entries of `.links` to `linked`: by inode, how many
/// names they have in trees that are removed. What cannot be read stays in `.links`, for the collector.
fn note_linked_files(layout: &Layout, name: &str, linked: &mut HashMap<u64, u64>) {
    visit_entries(layout.store(), OsStr::new(name), |_, _, stat| {
        note_if_linked(stat, linked);
    });
}

fn note_if_linked(stat: &Stat, linked: &mut HashMap<u64, u64>) {
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    let is_large = u64::try_from(stat.st_size).unwrap_or(0) >= DEDUPLICATE_MIN_BYTES;
    if is_file && is_large && stat.st_nlink > 1 {
        *linked.entry(stat.st_ino).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEM: &str = "/gnu/store/0f9qzp1g3jy45al4zspzqah9f8d5bisp-a";

    #[test]
    fn only_files_of_this_program_are_understood() {
        let store_dir = StoreDir::parse(StoreDir::GUIX).unwrap();
        let count = |text: &str| announced(text, &store_dir).map(|items| items.len());
        assert_eq!(count(""), Some(0));
        assert_eq!(count(&format!("{ITEM}\0{ITEM}.tmp\0")), Some(1));
        // Cut off by a full disk or a kill.
        assert_eq!(count(&format!("{ITEM}\0{ITEM}.tm")), Some(1));
        assert_eq!(count(&format!("{ITEM}\0{ITEM}b\0")), None);
        // A neighbor of an item, such as a lock that is held.
        for suffix in NEIGHBORS {
            let neighbor = format!("{ITEM}{suffix}");
            assert_eq!(count(&format!("{neighbor}\0")), Some(0));
            let both = format!("{neighbor}\0{neighbor}.tmp\0{ITEM}\0{ITEM}.tmp\0");
            assert_eq!(count(&both), Some(1));
        }
        assert_eq!(count("/etc/passwd\0/etc/passwd.tmp\0"), None);
    }
}
