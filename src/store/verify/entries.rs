//! Verifies the entries of `.links`: each is named by the hash of the nar of the file.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, Dir, statat};
use rustix::io::Errno;

use crate::format::base32;
use crate::store::links_directory::TEMPORARY_PREFIX;
use crate::sync::lock;

use super::attributes::StoreOwners;
use super::findings::{EntryFault, EntryFinding, VerifyTally};
use super::items::on_threads;
use super::noted_files::NotedFiles;
use super::tree::{TreeFailure, TreeReader};

/// Which entries are verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryScope {
    /// All.
    All,
    /// Those that are files of the items that were read.
    Noted,
}

/// The open `.links`, and what is known of its entries.
pub(super) struct EntryCheck<'a> {
    pub(super) links: &'a OwnedFd,
    pub(super) owners: StoreOwners,
    pub(super) noted: &'a NotedFiles,
    pub(super) scope: EntryScope,
    pub(super) tally: &'a VerifyTally,
}

/// An entry that has to be read: its inode, and the hash that is its name.
type EntryToRead = (u64, [u8; 32]);

impl EntryCheck<'_> {
    /// Compares the name of each entry with what was noted of its file, and reads those of which nothing
    /// was noted, or something else, on `workers` threads.
    ///
    /// # Errors
    /// `.links` cannot be listed.
    pub(super) fn run(&self, workers: usize) -> rustix::io::Result<Vec<EntryFinding>> {
        let (to_read, misnamed) = self.compare_names()?;
        let (next, findings) = (AtomicUsize::new(0), Mutex::new(misnamed));

        on_threads((0..workers.max(1)).collect(), |_| {
            let mut reader = TreeReader::new(self.links.as_fd(), self.owners, None, self.tally);
            while let Some(&(inode, hash)) = to_read.get(next.fetch_add(1, Ordering::Relaxed)) {
                let name = base32::encode(&hash);
                if let Some(fault) = entry_fault(&mut reader, &name, hash) {
                    let name = name.into();
                    lock(&findings).push(EntryFinding { name, inode, fault });
                }
                self.tally.add_entry();
            }
        });
        Ok(findings
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner))
    }

    /// The entries that have to be read, and those whose names are no hashes.
    fn compare_names(&self) -> rustix::io::Result<(Vec<EntryToRead>, Vec<EntryFinding>)> {
        let (mut to_read, mut misnamed) = (Vec::new(), Vec::new());
        for entry in Dir::read_from(self.links)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            if matches!(&*name, "." | "..") || name.starts_with(TEMPORARY_PREFIX) {
                continue;
            }

            // What the directory lists is another number on some file systems, such as FUSE.
            let inode = match statat(self.links, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat.st_ino,
                // The collector has removed it meanwhile.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            };
            let known = self.noted.hash_of(inode);
            match base32::decode(&name) {
                _ if self.scope == EntryScope::Noted && known.is_none() => {}
                Ok(hash) if known == Some(hash) => self.tally.add_entry(),
                Ok(hash) => to_read.push((inode, hash)),
                Err(_) => misnamed.push(EntryFinding {
                    name: OsStr::from_bytes(entry.file_name().to_bytes()).to_owned(),
                    inode,
                    fault: EntryFault::Name,
                }),
            }
        }
        Ok((to_read, misnamed))
    }
}

/// What is wrong with the entry `name`, which is the spelling of `hash`.
fn entry_fault(reader: &mut TreeReader<'_>, name: &str, hash: [u8; 32]) -> Option<EntryFault> {
    match reader.read(name) {
        // The collector has removed it meanwhile.
        Err(TreeFailure::Missing) => None,
        Err(TreeFailure::NotInNar(_)) => Some(EntryFault::Contents),
        Err(TreeFailure::Unreadable { source, .. }) => Some(EntryFault::Unreadable(source)),
        Ok(found) if *found.hash.as_bytes() != hash => Some(EntryFault::Contents),
        Ok(found) if found.attributes.is_empty() => None,
        Ok(found) => Some(EntryFault::Attributes(found.attributes)),
    }
}
