//! How much of the disk the entries of a store take, where files are shared by hard links: what is
//! free after some of them are deleted.
//!
//! A file is counted once, with the blocks it takes. It is freed with its last name outside of `.links`,
//! because the entry there is deleted then as well. What cannot be read counts as nothing.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Stat, statat};

use crate::no_follow::open_directory;
use crate::store::remove::{disk_bytes, link_count};

/// A file that has several names.
#[derive(Debug, Clone, Copy)]
struct SharedFile {
    bytes: u64,
    /// Names outside of `.links`.
    names: u64,
}

/// What the files of a store take that have several names, and which names are left.
#[derive(Debug, Default)]
pub(super) struct DiskUsage {
    /// By inode.
    shared: HashMap<u64, SharedFile>,
    /// Bytes of entries of `.links` that have no other name.
    pub(super) unused_bytes: u64,
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
    pub(super) fn of_links(links: &Path) -> Self {
        let mut usage = Self::default();
        let Ok(directory) = open_directory(links, links) else {
            return usage;
        };
        for entry in Dir::read_from(&directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Ok(stat) = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                continue;
            }
            let names = link_count(&stat).saturating_sub(1);
            if names == 0 {
                usage.unused_links += 1;
                usage.unused_bytes += disk_bytes(&stat);
            } else {
                // A temporary name in `.links` is one more entry of the same file.
                let bytes = disk_bytes(&stat);
                let file = usage.shared.entry(stat.st_ino);
                file.and_modify(|file| file.names = file.names.saturating_sub(1))
                    .or_insert(SharedFile { bytes, names });
            }
        }
        usage
    }

    /// Reads the entry `name` of the store directory `store`.
    pub(super) fn of_entry(&mut self, store: &Path, name: &CStr) -> EntryUsage {
        let mut usage = EntryUsage::default();
        let top = store.join(OsStr::from_bytes(name.to_bytes()));
        let Ok(stat) = statat(CWD, &top, AtFlags::SYMLINK_NOFOLLOW) else {
            return usage;
        };
        self.add(&stat, &mut usage);

        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let mut directories = if is_directory { vec![top] } else { Vec::new() };
        while let Some(path) = directories.pop() {
            let Ok(directory) = open_directory(store, &path) else {
                continue;
            };
            for entry in Dir::read_from(&directory).into_iter().flatten().flatten() {
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                let Ok(stat) = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
                    continue;
                };
                self.add(&stat, &mut usage);
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    directories.push(path.join(OsStr::from_bytes(name.to_bytes())));
                }
            }
        }
        usage
    }

    fn add(&mut self, stat: &Stat, usage: &mut EntryUsage) {
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_directory || link_count(stat) == 1 {
            usage.own_bytes += disk_bytes(stat);
            return;
        }
        let file = SharedFile {
            bytes: disk_bytes(stat),
            names: link_count(stat),
        };
        self.shared.entry(stat.st_ino).or_insert(file);
        usage.shared.push(stat.st_ino);
    }

    /// Bytes of all files that have several names, each counted once.
    pub(super) fn shared_bytes(&self) -> u64 {
        self.shared.values().map(|file| file.bytes).sum()
    }

    /// Takes the entry with this usage away; the bytes that are free then.
    pub(super) fn remove(&mut self, entry: &EntryUsage) -> u64 {
        let mut freed = entry.own_bytes;
        for inode in &entry.shared {
            if let Some(file) = self.shared.get_mut(inode) {
                file.names = file.names.saturating_sub(1);
                if file.names == 0 {
                    freed += file.bytes;
                    self.shared.remove(inode);
                }
            }
        }
        freed
    }
}
