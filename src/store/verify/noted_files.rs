//! The hashes of files with several names, taken while their items are read.

use std::collections::HashMap;
use std::sync::Mutex;

use rustix::fs::Stat;

use crate::sync::lock;

/// Files that are noted at most, which takes 43 MiB. What is beyond is read once more as an entry of
/// `.links`.
const NOTED_FILES_MAX: usize = 900_000;

/// The hashes, as entries of `.links` are named by them, by inode. Inodes of other file systems than
/// that of `.links` do no harm: an entry that does not agree with what is noted is read.
#[derive(Debug, Default)]
pub(super) struct NotedFiles {
    hashes: Mutex<HashMap<u64, [u8; 32]>>,
}

impl NotedFiles {
    /// Whether the file is to be hashed on its own.
    pub(super) fn wants(&self, stat: &Stat) -> bool {
        if stat.st_nlink < 2 {
            return false;
        }
        let hashes = lock(&self.hashes);
        hashes.len() < NOTED_FILES_MAX && !hashes.contains_key(&stat.st_ino)
    }

    /// Notes the hash of the file with this inode.
    pub(super) fn note(&self, inode: u64, hash: [u8; 32]) {
        lock(&self.hashes).insert(inode, hash);
    }

    /// What was noted.
    pub(super) fn hash_of(&self, inode: u64) -> Option<[u8; 32]> {
        lock(&self.hashes).get(&inode).copied()
    }

    /// Whether nothing was noted.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.hashes).is_empty()
    }
}
