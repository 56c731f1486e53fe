//! How much of the disk the entries of a store take, where files are shared by hard links: what is
//! free after some of them are deleted.
//!
//! A file is counted once, with the blocks it takes. It is freed with its last name outside of `.links`,
//! because the entry there is deleted then as well. What cannot be read counts as nothing.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Stat, statat};

use crate::no_follow::open_directory;
use crate::store::error::StoreError;
use crate::store::remove::{disk_bytes, link_count};
use crate::store::tree_entries::visit_entries;
use crate::store::wait::StoreObserver;

/// A file that has several names.
#[derive(Debug, Clone, Copy, Default)]
struct SharedFile {
    bytes: u64,
    /// Names in `.links`.
    links: u64,
    /// Names outside of `.links`.
    names: u64,
}

/// What the files of a store take that have several names, and which names are left.
#[derive(Debug, Default)]
pub(in crate::store) struct DiskUsage {
    /// By inode.
    shared: HashMap<u64, SharedFile>,
    /// Bytes of entries of `.links` that have no other name.
    pub(in crate::store) unused_bytes: u64,
    /// How many entries of `.links` have no other name.
    pub(super) unused_links: u64,
}

/// What an entry of the store directory takes.
#[derive(Debug, Default)]
pub(super) struct EntryUsage {
    /// Bytes of directories, and of files that have no other name.
    pub(super) own_bytes: u64,
    /// The inodes of the other files, each as often as it has a name in the entry.
    shared: Vec<u64>,
}

impl DiskUsage {
    /// Reads the entries of the directory `links`, which may be missing.
    ///
    /// # Errors
    /// [`StoreError::Interrupted`].
    pub(super) fn of_links(links: &Path, observer: &dyn StoreObserver) -> Result<Self, StoreError> {
        let mut usage = Self::default();
        let Ok(directory) = open_directory(links, links) else {
            return Ok(usage);
        };
        for entry in Dir::read_from(&directory).into_iter().flatten().flatten() {
            if observer.is_canceled() {
                return Err(StoreError::Interrupted);
            }
            let name = entry.file_name();
            let Ok(stat) = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                continue;
            }
            if link_count(&stat) == 1 {
                usage.unused_links += 1;
                usage.unused_bytes += disk_bytes(&stat);
            } else {
                // A temporary name in `.links` is one more entry of the same file.
                let file = usage.shared.entry(stat.st_ino).or_default();
                file.bytes = disk_bytes(&stat);
                file.links += 1;
                file.names = link_count(&stat).saturating_sub(file.links);
            }
        }
        Ok(usage)
    }

    /// Reads the entry `name` of the store directory `store`.
    pub(super) fn add_entry(&mut self, store: &Path, name: &OsStr) -> EntryUsage {
        let mut usage = EntryUsage::default();
        visit_entries(store, name, |_, _, stat| self.add(stat, &mut usage));
        usage
    }

    fn add(&mut self, stat: &Stat, usage: &mut EntryUsage) {
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_directory || link_count(stat) == 1 {
            usage.own_bytes += disk_bytes(stat);
            return;
        }
        // It may have got more names since it was read before.
        let file = self.shared.entry(stat.st_ino).or_default();
        file.bytes = disk_bytes(stat);
        file.names = link_count(stat).saturating_sub(file.links);
        usage.shared.push(stat.st_ino);
    }

    /// Bytes of all files that have several names, each counted once.
    pub(super) fn shared_bytes(&self) -> u64 {
        let files = self.shared.values().filter(|file| file.names > 0);
        files.map(|file| file.bytes).sum()
    }

    /// Takes the entry with this usage away; the bytes that are free then.
    pub(super) fn remove(&mut self, entry: &EntryUsage) -> u64 {
        let mut freed = entry.own_bytes;
        for inode in &entry.shared {
            if let Some(file) = self.shared.get_mut(inode)
                && file.names > 0
            {
                file.names -= 1;
                if file.names == 0 {
                    freed += file.bytes;
                }
            }
        }
        freed
    }
}
