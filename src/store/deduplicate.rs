//! Deduplication: equal files of the store are hard links to one entry of `.links`.
//!
//! An entry is named by the nix-base32 SHA-256 of the nar of the single file, so the
//! executable bit takes part and mode and times agree for all who share the inode. Entries
//! come and go meanwhile: the collector deletes those that only `.links` still names, and other
//! processes add the same ones. Nothing is checked first; every step is tried, and its failure tells
//! what to do. When a file cannot be deduplicated, it stays as it is.
//!
//! Every entry is a file of an item that was verified: [`Links::link_existing`] and
//! [`Links::link_written`] only use what is there, and [`Links::add_to_links`] is for files of trees
//! that are verified.
//!
//! Of an entry only what one `fstat` tells is checked: kind, size, mode, time and owner. Whether its
//! contents still have the hash of its name is for a verification of the store (`guix gc
//! --verify=contents`). A repair, where the entry may be damaged, compares contents: see
//! [`EntryCheck`].

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, linkat, renameat, statat, unlinkat};
use rustix::io::{self, Errno};

use super::canonical;
use super::entry_comparison::{ReplacedName, compared};
use super::error::{StoreError, on};
use super::fingerprint::Fingerprint;
use super::layout::LINKS;
use super::links_directory::{LinksDirectory, UnusedEntries, discard, temporary_link};
use super::remove::open_writable;
use super::wait::StoreObserver;
use crate::format::base32;

/// The store's `.links`, used by any number of threads.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    directory: Arc<LinksDirectory>,
    entry_check: EntryCheck,
}

/// What is checked of an entry before a file is linked to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryCheck {
    /// What `fstat` tells.
    Attributes,
    /// All: it has to equal a file that was just written, and is replaced where it does not.
    Contents,
}

/// What came of using an existing entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkOutcome {
    /// The name is now a hard link to the entry.
    Done,
    /// There is no entry that can be linked to; the file may become one.
    Absent,
    /// There is one, but it takes no more links, or there can be none at all.
    Unusable,
    /// In a repair: the file has to be written first, for [`Links::link_written`].
    NotCompared,
}

/// What came of offering a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryOutcome {
    /// It is an entry now.
    Added,
    /// There was an entry already; the name is a hard link to it now.
    ReplacedByExisting,
    /// It stays alone: a limit of the file system was reached.
    Skipped,
}

impl Links {
    pub(super) fn new(store: Arc<OwnedFd>) -> Self {
        Self {
            directory: Arc::new(LinksDirectory::new(store)),
            entry_check: EntryCheck::Attributes,
        }
    }

    /// Those of the store directory `store`, for who needs nothing else of the store.
    ///
    /// # Errors
    /// [`StoreError::Open`].
    pub(crate) fn open(store: &Path) -> Result<Self, StoreError> {
        let directory = std::fs::File::open(store)
            .map_err(on(store, |path, source| StoreError::Open { path, source }))?;
        Ok(Self::new(Arc::new(directory.into())))
    }

    /// The same for a repair, where an entry may be the very file that is damaged: none is
    /// linked to before it was compared with a new file, and one that differs gives way to it.
    #[must_use]
    pub(crate) fn for_repair(&self) -> Self {
        Self {
            directory: Arc::clone(&self.directory),
            entry_check: EntryCheck::Contents,
        }
    }

    /// Makes `name` in `dir`, which must not exist, a hard link to the entry of `file`, if there
    /// is one. An entry with other attributes is corrupt, and deleted; so that another user who can
    /// write to it does not change files of items. In a repair there is nothing yet to compare an
    /// entry with.
    ///
    /// # Errors
    /// [`StoreError::Deduplicate`] when the name cannot be made at all.
    pub(crate) fn link_existing(
        &self,
        file: &Fingerprint,
        dir: BorrowedFd<'_>,
        name: &CStr,
    ) -> Result<LinkOutcome, StoreError> {
        if self.entry_check == EntryCheck::Contents {
            return Ok(LinkOutcome::NotCompared);
        }
        self.try_link_existing(file, dir, name)
            .or_else(|error| self.without_entry(error))
            .map_err(|errno| failure(file_name(name), errno))
    }

    fn try_link_existing(
        &self,
        file: &Fingerprint,
        dir: BorrowedFd<'_>,
        name: &CStr,
    ) -> io::Result<LinkOutcome> {
        let links = self.directory.open()?;
        let entry = file.entry_name();
        linkat(&links, &entry, dir, name, AtFlags::empty())?;
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if file.is_of(&stat, self.directory.store_owner()) {
            return Ok(LinkOutcome::Done);
        }

        unlinkat(dir, name, AtFlags::empty())?;
        discard(&links, &entry)?;
        Ok(LinkOutcome::Absent)
    }

    /// Replaces the complete file `name` in `dir` by a hard link to the entry of `file`, if there
    /// is one. `dir` must be writable; entries are left as they are.
    ///
    /// # Errors
    /// [`StoreError::Deduplicate`]; the file is untouched then.
    pub(crate) fn link_written(
        &self,
        file: &Fingerprint,
        dir: BorrowedFd<'_>,
        name: &CStr,
    ) -> Result<LinkOutcome, StoreError> {
        let replaced = self
            .directory
            .open()
            .and_then(|links| self.replace_file(&links, file, dir, name));
        match replaced {
            Ok(ReplacedName::File) => Ok(LinkOutcome::Done),
            Ok(ReplacedName::Entry) => Ok(LinkOutcome::Absent),
            Err(error) => self
                .without_entry(error)
                .map_err(|errno| failure(file_name(name), errno)),
        }
    }

    /// The outcome when an entry cannot be reached or linked to.
    fn without_entry(&self, error: Errno) -> io::Result<LinkOutcome> {
        match error {
            Errno::NOENT => Ok(LinkOutcome::Absent),
            Errno::OPNOTSUPP | Errno::NOSYS => {
                self.directory.note_no_hard_links();
                Ok(LinkOutcome::Unusable)
            }
            error if is_limit(error) => Ok(LinkOutcome::Unusable),
            error => Err(error),
        }
    }

    /// Offers the file `path` below `dir`, part of a verified tree in canonical form, as the entry
    /// of `file`, or replaces it by a hard link to the entry there is.
    ///
    /// # Errors
    /// [`StoreError::Deduplicate`]; the file is untouched then.
    pub(crate) fn add_to_links(
        &self,
        file: &Fingerprint,
        dir: BorrowedFd<'_>,
        path: &CStr,
    ) -> Result<EntryOutcome, StoreError> {
        let entry = file.entry_name();
        for _ in 0..ATTEMPTS {
            let added = self
                .directory
                .open()
                .and_then(|links| linkat(dir, path, links, &entry, AtFlags::empty()));
            let offered = match added {
                Ok(()) => return Ok(EntryOutcome::Added),
                Err(Errno::EXIST) => self.replace(file, dir, path),
                Err(error) if means_no_hard_links(error) => {
                    self.directory.note_no_hard_links();
                    return Ok(EntryOutcome::Skipped);
                }
                Err(Errno::NOENT) => {
                    // Either `.links` is missing, or the file itself.
                    statat(dir, path, AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(|errno| failure(file_name(path), errno))?;
                    self.directory
                        .create()
                        .map_err(|errno| entry_failure("", errno))?;
                    continue;
                }
                Err(error) => Err(error),
            };
            match offered {
                Ok(ReplacedName::File) => return Ok(EntryOutcome::ReplacedByExisting),
                Ok(ReplacedName::Entry) => return Ok(EntryOutcome::Added),
                // The entry has been deleted meanwhile.
                Err(Errno::NOENT) => {}
                Err(error) if is_limit(error) => return Ok(EntryOutcome::Skipped),
                Err(error) => return Err(failure(file_name(path), error)),
            }
        }
        Ok(EntryOutcome::Skipped)
    }

    /// Whether it has turned out since the last call that the file system has no hard links.
    pub(super) fn take_no_hard_links(&self) -> bool {
        self.directory.take_no_hard_links()
    }

    /// Deletes the entry with this hash when nothing but `.links` names it.
    pub(super) fn remove_unused(&self, hash: &[u8; 32]) -> io::Result<()> {
        let links = self.directory.open()?;
        let entry = base32::encode(hash);
        let stat = statat(&links, &entry, AtFlags::SYMLINK_NOFOLLOW)?;
        // A link that another process makes to it before it is deleted has the same content.
        if stat.st_nlink == 1 {
            discard(&links, &entry)
        } else {
            Ok(())
        }
    }

    /// Deletes all entries that nothing but `.links` names.
    pub(super) fn remove_all_unused(
        &self,
        observer: &dyn StoreObserver,
    ) -> io::Result<UnusedEntries> {
        match self.directory.remove_unused(observer) {
            Err(Errno::NOENT) => Ok(UnusedEntries::default()),
            removed => removed,
        }
    }

    /// See [`LinksDirectory::remove_left`].
    pub(super) fn remove_left(&self, process: &str, linked: &HashMap<u64, u64>) -> io::Result<()> {
        self.directory.remove_left(process, linked)
    }

    /// Puts one of the two in the place of the other: the file `path` below `dir` and the entry of
    /// `file`. The directory of the file is writable meanwhile, and has its canonical form again
    /// afterward. Both names exist at every moment.
    fn replace(
        &self,
        file: &Fingerprint,
        dir: BorrowedFd<'_>,
        path: &CStr,
    ) -> io::Result<ReplacedName> {
        let links = self.directory.open()?;
        let replaced_name = match split(path) {
            None => self.replace_file(&links, file, dir, path),
            Some((parent, name)) => {
                let parent = open_writable(dir, &parent)?;
                let replaced = self.replace_file(&links, file, parent.as_fd(), &name);
                let settled = canonical::settle(&parent, canonical::DIRECTORY_MODE);
                replaced.and_then(|replaced_name| settled.map(|()| replaced_name))
            }
        }?;
        if replaced_name == ReplacedName::Entry {
            let temporary = temporary_link(&links, dir, path)?;
            let renamed = renameat(&links, &temporary, &links, file.entry_name());
            without(&links, &temporary, renamed)?;
        }
        Ok(replaced_name)
    }

    /// Puts a hard link to the entry of `file` in the place of `name`, unless the entry is corrupt,
    /// or has to be compared and differs.
    fn replace_file(
        &self,
        links: &OwnedFd,
        file: &Fingerprint,
        dir: BorrowedFd<'_>,
        name: &CStr,
    ) -> io::Result<ReplacedName> {
        // The name under which the entry is looked at is the one that is moved: what stands in
        // its place by then is another matter.
        let temporary = temporary_link(links, links.as_fd(), &*file.entry_name())?;
        let replaced = self
            .name_to_replace(links, &temporary, file, dir, name)
            .and_then(|replaced_name| match replaced_name {
                ReplacedName::File => {
                    renameat(links, &temporary, dir, name).map(|()| replaced_name)
                }
                ReplacedName::Entry => Ok(replaced_name),
            });
        // When both names are links to one inode already, renaming does nothing at all and
        // succeeds, so the temporary one may be there in either case.
        without(links, &temporary, replaced)
    }

    /// Which of the two has to go: the file `name` in `dir`, or its entry, linked at `temporary`.
    fn name_to_replace(
        &self,
        links: &OwnedFd,
        temporary: &str,
        file: &Fingerprint,
        dir: BorrowedFd<'_>,
        name: &CStr,
    ) -> io::Result<ReplacedName> {
        let entry = statat(links, temporary, AtFlags::SYMLINK_NOFOLLOW)?;
        match self.entry_check {
            _ if !file.is_of(&entry, self.directory.store_owner()) => Ok(ReplacedName::Entry),
            EntryCheck::Attributes => Ok(ReplacedName::File),
            EntryCheck::Contents => compared(links, temporary, dir, name),
        }
    }

    /// The open `.links`, as a handle.
    pub(super) fn directory(&self) -> io::Result<Arc<OwnedFd>> {
        self.directory.open()
    }

    /// The store directory, for those who create items in it.
    #[must_use]
    pub(super) fn store(&self) -> &Arc<OwnedFd> {
        self.directory.store()
    }
}

/// `result`, with the name `temporary` gone.
fn without<T>(links: &OwnedFd, temporary: &str, result: io::Result<T>) -> io::Result<T> {
    let discarded = discard(links, temporary);
    result.and_then(|value| discarded.map(|()| value))
}

/// The directory and the last name of `path`, if there is more than a name.
fn split(path: &CStr) -> Option<(CString, CString)> {
    let bytes = path.to_bytes();
    let at = bytes.iter().rposition(|&byte| byte == b'/')?;
    let [parent, name] = [&bytes[..at], &bytes[at + 1..]]
        .map(|part| CString::new(part).expect("no NUL in a part of a C string"));
    Some((parent, name))
}

/// Whether a link failed for a reason that leaves the file itself as good as ever: too many
/// links to the inode, a full directory index or quota, `.links` that is no directory or on another
/// file system, the kernel's rule against links to files of other owners, or a file system without
/// hard links.
pub(super) fn is_limit(error: Errno) -> bool {
    let full = [Errno::MLINK, Errno::NOSPC, Errno::DQUOT];
    let elsewhere = [Errno::XDEV, Errno::NOTDIR, Errno::LOOP, Errno::ACCESS];
    full.contains(&error) || elsewhere.contains(&error) || means_no_hard_links(error)
}

/// Whether a link to a file of this process failed because the file system has none.
fn means_no_hard_links(error: Errno) -> bool {
    [Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS].contains(&error)
}

fn file_name(name: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(name.to_bytes()))
}

fn entry_failure(entry: &str, source: Errno) -> StoreError {
    failure(&Path::new(LINKS).join(entry), source)
}

fn failure(path: &Path, source: Errno) -> StoreError {
    StoreError::Deduplicate {
        path: path.to_owned(),
        source: source.into(),
    }
}

/// How often an entry may vanish or prove corrupt before the file is left alone.
const ATTEMPTS: usize = 8;
