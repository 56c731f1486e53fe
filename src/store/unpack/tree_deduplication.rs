//! Which files of a tree are links to others, and which are to become entries of `.links`.
//!
//! While a tree is unpacked its bytes are not verified yet. So its files may be links to entries of
//! `.links`, which were verified, and to each other, but new entries are added only after the nar has
//! been verified: see [`NewEntries::add_to_links`]. A run that fails or is killed before leaves nothing in
//! `.links`.
//!
//! Until then the new files are noted, in at most [`MAX_BYTES`] for each tree. What does not
//! fit is not deduplicated, which is allowed for every file.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::fs::{AtFlags, linkat, renameat, unlinkat};
use rustix::io::{self, Errno};

use crate::format::nar::EntryName;
use crate::store::deduplicate::{EntryOutcome, LinkOutcome, Links, is_limit};
use crate::store::error::StoreError;
use crate::store::fingerprint::Fingerprint;
use crate::sync::lock;

use super::directory::{Directory, c_name};

/// What new files of one tree may take in memory: enough for half a million of them.
const MAX_BYTES: usize = 64 << 20;

/// What the threads that write one tree share for its deduplication.
pub(super) struct TreeDeduplication {
    links: Arc<Links>,
    /// The directory that the tree is put into.
    parent_directory: Arc<OwnedFd>,
    new_files: Mutex<NewFiles>,
    /// Bytes of files that became links to equal ones.
    linked_bytes: AtomicU64,
}

/// Complete files of the tree that are not in `.links`.
#[derive(Debug, Default)]
struct NewFiles {
    /// No two of them are equal.
    files: Vec<NewFile>,
    /// Links to them.
    links: Vec<NewLink>,
    /// Their names below the directory that the tree is put into, each with a NUL at its end.
    paths: Vec<u8>,
    /// Their indexes, by the first bytes of their hashes.
    by_hash: HashMap<u64, u32>,
}

#[derive(Debug)]
struct NewFile {
    fingerprint: Fingerprint,
    /// Where its name begins.
    path: u32,
}

/// A link to a new file.
#[derive(Debug)]
struct NewLink {
    /// The index of the file.
    file: u32,
    /// Where the link's name begins.
    path: u32,
}

impl TreeDeduplication {
    pub(super) fn new(links: Arc<Links>, parent_directory: Arc<OwnedFd>) -> Self {
        Self {
            links,
            parent_directory,
            new_files: Mutex::default(),
            linked_bytes: AtomicU64::new(0),
        }
    }

    /// Makes `name` in `parent`, which must not exist, a link to an equal file, if there is one: an
    /// entry of `.links`, or an earlier file of the tree.
    pub(super) fn link(
        &self,
        file: &Fingerprint,
        parent: &Directory,
        name: &EntryName,
    ) -> Result<LinkOutcome, StoreError> {
        let c_name = c_name(name);
        let linked = self.links.link_existing(file, parent.fd(), &c_name)?;
        if !matches!(linked, LinkOutcome::Absent | LinkOutcome::NotCompared) {
            if linked == LinkOutcome::Done {
                self.count_linked(file);
            }
            return Ok(linked);
        }
        let Some((equal, path)) = self.new_files().find(file) else {
            return Ok(linked);
        };
        match linkat(
            &self.parent_directory,
            &path,
            parent.fd(),
            &c_name,
            AtFlags::empty(),
        ) {
            Ok(()) => {
                self.note_linked(file, equal, parent.path_below(name));
                Ok(LinkOutcome::Done)
            }
            Err(error) if is_limit(error) => Ok(LinkOutcome::Unusable),
            Err(error) => Err(failure(parent, name, error)),
        }
    }

    /// Replaces a file of the tree that was just written by a link to its entry in `.links`, if
    /// there is one, and else notes it. For files that could not be [linked](TreeDeduplication::link).
    pub(super) fn link_to_entry_or_note(
        &self,
        file: &Fingerprint,
        parent: &Directory,
        name: &EntryName,
    ) -> Result<(), StoreError> {
        match self.links.link_written(file, parent.fd(), &c_name(name))? {
            LinkOutcome::Absent | LinkOutcome::NotCompared => self.note_or_link(file, parent, name),
            LinkOutcome::Done => {
                self.count_linked(file);
                Ok(())
            }
            LinkOutcome::Unusable => Ok(()),
        }
    }

    /// Notes a file of the tree that was just written, or replaces it by a link to an equal one
    /// that another thread has written in the meantime.
    pub(super) fn note_or_link(
        &self,
        file: &Fingerprint,
        parent: &Directory,
        name: &EntryName,
    ) -> Result<(), StoreError> {
        let Some(path) = parent.path_below(name) else {
            return Ok(());
        };
        let Some((equal, equal_path)) = self.new_files().add(file, &path) else {
            return Ok(());
        };
        match replace(&self.parent_directory, &equal_path, parent.fd(), name) {
            Ok(()) => {
                self.note_linked(file, equal, Some(path));
                Ok(())
            }
            Err(error) if is_limit(error) => Ok(()),
            Err(error) => Err(failure(parent, name, error)),
        }
    }

    /// The new files, when all are added.
    pub(super) fn finish(&self) -> NewEntries {
        let files = std::mem::take(&mut *self.new_files());
        NewEntries {
            links: Arc::clone(&self.links),
            files,
            added: Vec::new(),
            linked_bytes: self.linked_bytes.load(Ordering::Relaxed),
        }
    }

    /// Notes that `path` is a link to the new file `equal`, if it is short enough.
    fn note_linked(&self, file: &Fingerprint, equal: u32, path: Option<CString>) {
        self.count_linked(file);
        if let Some(path) = path {
            self.new_files().add_link(equal, &path);
        }
    }

    fn count_linked(&self, file: &Fingerprint) {
        self.linked_bytes.fetch_add(file.size, Ordering::Relaxed);
    }

    fn new_files(&self) -> MutexGuard<'_, NewFiles> {
        lock(&self.new_files)
    }
}

fn failure(parent: &Directory, name: &EntryName, source: Errno) -> StoreError {
    StoreError::Deduplicate {
        path: parent.shown_path(name),
        source: source.into(),
    }
}

/// Puts a link to `equal` below `parent_directory` in the place of the file `name` in `parent`.
fn replace(
    parent_directory: &OwnedFd,
    equal: &CStr,
    parent: BorrowedFd<'_>,
    name: &EntryName,
) -> io::Result<()> {
    // The nar cannot contain this random name.
    let temporary = format!(".{:016x}", fastrand::u64(..));
    linkat(
        parent_directory,
        equal,
        parent,
        &temporary,
        AtFlags::empty(),
    )?;
    let renamed = renameat(parent, &temporary, parent, name.as_bytes());
    if renamed.is_err() {
        let _ = unlinkat(parent, &temporary, AtFlags::empty());
    }
    renamed
}

impl NewFiles {
    /// The index and the path of the file with this fingerprint.
    fn find(&self, file: &Fingerprint) -> Option<(u32, CString)> {
        let index = *self.by_hash.get(&short(file))?;
        let found = self.files.get(usize::try_from(index).ok()?)?;
        // Others may have the same first bytes. They are not deduplicated, and none is known.
        (found.fingerprint == *file).then(|| (index, self.path(found.path).to_owned()))
    }

    /// Adds a file, or finds an equal one.
    fn add(&mut self, file: &Fingerprint, path: &CStr) -> Option<(u32, CString)> {
        let equal = self.find(file);
        if equal.is_none()
            && let Ok(index) = u32::try_from(self.files.len())
            && let Some(path) = self.add_path(path, size_of::<NewFile>())
        {
            self.files.push(NewFile {
                fingerprint: *file,
                path,
            });
            self.by_hash.insert(short(file), index);
        }
        equal
    }

    fn add_link(&mut self, file: u32, path: &CStr) {
        if let Some(path) = self.add_path(path, size_of::<NewLink>()) {
            self.links.push(NewLink { file, path });
        }
    }

    /// Where `path` begins now, if there is room for it and for `bytes` more.
    fn add_path(&mut self, path: &CStr, bytes: usize) -> Option<u32> {
        let start = u32::try_from(self.paths.len()).ok()?;
        let path = path.to_bytes_with_nul();
        let has_room = self.bytes() + bytes + path.len() <= MAX_BYTES;
        has_room.then(|| self.paths.extend_from_slice(path))?;
        Some(start)
    }

    fn bytes(&self) -> usize {
        let entries = size_of_val(&*self.files) + size_of_val(&*self.links);
        entries + self.paths.len()
    }

    /// The path that begins at `start`.
    fn path(&self, start: u32) -> &CStr {
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let rest = self.paths.get(start..).unwrap_or_default();
        CStr::from_bytes_until_nul(rest).expect("every path was added with its NUL")
    }
}

fn short(file: &Fingerprint) -> u64 {
    let [first, ..] = file.hash.as_chunks().0 else {
        return 0;
    };
    u64::from_le_bytes(*first)
}

/// New files of a tree, to be added to `.links` when it has been verified.
#[derive(Debug)]
pub(super) struct NewEntries {
    links: Arc<Links>,
    files: NewFiles,
    /// The hashes of those that became entries.
    added: Vec<[u8; 32]>,
    /// Bytes of the tree's files that are links to equal files, and take no space of their own.
    pub(super) linked_bytes: u64,
}

impl NewEntries {
    /// Adds all files of the verified tree, which is in the directory `parent_directory`, in the order in
    /// which they were written.
    pub(super) fn add_to_links(
        &mut self,
        parent_directory: BorrowedFd<'_>,
    ) -> Result<(), StoreError> {
        let new = std::mem::take(&mut self.files);
        // Files that have become links to entries that others added meanwhile.
        let mut replaced = HashSet::new();
        for (index, file) in (0..).zip(&new.files) {
            let path = new.path(file.path);
            match self
                .links
                .add_to_links(&file.fingerprint, parent_directory, path)?
            {
                EntryOutcome::Added => self.added.push(file.fingerprint.hash),
                EntryOutcome::ReplacedByExisting => {
                    self.linked_bytes += file.fingerprint.size;
                    replaced.insert(index);
                }
                EntryOutcome::Skipped => {}
            }
        }
        // The links to these are still links to what they were.
        let links = new.links.iter();
        for link in links.filter(|link| replaced.contains(&link.file)) {
            let file = usize::try_from(link.file).ok();
            if let Some(file) = file.and_then(|index| new.files.get(index)) {
                let path = new.path(link.path);
                self.links
                    .add_to_links(&file.fingerprint, parent_directory, path)?;
            }
        }
        Ok(())
    }

    /// Removes the added entries, after the tree has been removed, where no other file uses it.
    pub(super) fn withdraw(&self) {
        for hash in &self.added {
            // The collector removes what stays.
            let _ = self.links.remove_unused(hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(number: u64) -> (Fingerprint, CString) {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        let path = format!("item.tmp/share/directory/{number}");
        (
            Fingerprint {
                hash,
                size: 9000,
                executable: false,
            },
            CString::new(path).unwrap(),
        )
    }

    #[test]
    fn half_a_million_files_are_noted_and_the_rest_is_bounded() {
        let mut files = NewFiles::default();
        // More than fit, also where pointers and alignments are small.
        for number in 0..1_000_000 {
            let (file, path) = numbered(number);
            assert_eq!(files.add(&file, &path), None);
        }
        let (file, path) = numbered(500_000);
        let found = Some((500_000, path));
        assert_eq!(files.find(&file), found);
        assert_eq!(files.add(&file, c"another"), found);
        assert_eq!(files.find(&numbered(999_999).0), None);
        for _ in 0..1_000_000 {
            files.add_link(500_000, c"another");
        }
        assert!(files.bytes() <= MAX_BYTES);
    }

    #[test]
    fn files_whose_hashes_begin_alike_are_told_apart() {
        let (file, path) = numbered(1);
        let other = Fingerprint {
            executable: true,
            ..file
        };
        let mut files = NewFiles::default();
        files.add(&file, &path);
        assert_eq!(files.find(&other), None);
        assert_eq!(files.add(&other, c"other"), None);
        assert_eq!(files.find(&other), Some((1, c"other".to_owned())));
    }
}
