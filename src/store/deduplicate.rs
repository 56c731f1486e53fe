//! Deduplication: equal files of the store are hard links to one entry of `.links`.
//!
//! An entry is named by the nix-base32 SHA-256 of the nar of the single file, so the
//! executable bit takes part and mode and times agree for all who share the inode. Entries
//! come and go while we work: the collector deletes those that only `.links` still names,
//! and other processes add the same ones. Nothing is checked first; every step is tried and
//! its failure understood. Whatever stands in the way, a file may always stay as it is.
//!
//! That an entry has the content that its name stands for is believed, as stock programs do,
//! but for its size. Where damage is what brings us here, it is not: see [`Entries`].
//!
//! The directories passed in must be writable; modes and times are set by whoever fills them.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::fs::{fstat, linkat, openat, renameat, statat, unlinkat};
use rustix::io::{Errno, pread};

use super::directory::make_directory;
use super::error::{StoreError, on};
use super::layout::LINKS;
use crate::format::base32;

/// Smaller files are not deduplicated, as guix-daemon would not.
pub const DEDUPLICATE_MIN_BYTES: u64 = 8192;

/// The store's `.links`, used by any number of threads.
#[derive(Debug)]
pub struct Links {
    store: Arc<OwnedFd>,
    entries: Entries,
}

/// What is believed of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entries {
    /// That it is what its name says.
    Believed,
    /// Nothing: it has to equal a file that was just written, and is replaced where it does not.
    Compared,
}

/// What came of using an existing entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linked {
    /// The name is now a hard link to the entry.
    Linked,
    /// There is no such entry; the file has to be written, and then [published](Links::publish).
    Absent,
    /// There is one, but it takes no more links; the file has to be written.
    Unusable,
}

/// What came of offering a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// It is an entry now.
    Published,
    /// Somebody was first; the name is a hard link to their entry now.
    ReplacedByExisting,
    /// It stays alone: a limit of the file system was reached.
    Skipped,
}

/// What gave way to the other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Replaced {
    File,
    Entry,
}

impl Links {
    pub(super) fn new(store: OwnedFd) -> Self {
        Self { store: Arc::new(store), entries: Entries::Believed }
    }

    /// Those of the store directory `store`, for who needs nothing else of the store.
    ///
    /// # Errors
    /// [`StoreError::Open`].
    pub fn open(store: &Path) -> Result<Self, StoreError> {
        let directory = std::fs::File::open(store)
            .map_err(on(store, |path, source| StoreError::Open { path, source }))?;
        Ok(Self::new(directory.into()))
    }

    /// The same for a repair, where an entry may be the very file that is damaged: none is
    /// linked to before it was compared with a new file, and one that differs gives way to it.
    #[must_use]
    pub fn for_repair(&self) -> Self {
        Self { store: Arc::clone(&self.store), entries: Entries::Compared }
    }

    /// Makes `name` in `dir`, which must not exist, a hard link to the entry of `hash`, if
    /// there is one with a size of `size` bytes. An entry of another size is corrupt, and deleted.
    /// In a repair there is nothing yet to compare an entry with, so it counts as absent.
    ///
    /// # Errors
    /// [`StoreError::Deduplicate`] when the name cannot be made at all.
    pub fn link_existing(
        &self,
        hash: &[u8; 32],
        size: u64,
        dir: BorrowedFd<'_>,
        name: &CStr,
    ) -> Result<Linked, StoreError> {
        if self.entries == Entries::Compared {
            return Ok(Linked::Absent);
        }
        let failed = |errno| failure(file_name(name), errno);
        let entry = entry_path(hash);
        match linkat(&self.store, &entry, dir, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(Linked::Absent),
            Err(error) if is_limit(error) => return Ok(Linked::Unusable),
            Err(error) => return Err(failed(error)),
        }
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        if is_sound(&stat, size) {
            return Ok(Linked::Linked);
        }
        unlinkat(dir, name, AtFlags::empty()).map_err(failed)?;
        self.discard(&entry)?;
        Ok(Linked::Absent)
    }

    /// Offers the finished, canonical file `name` in `dir` as the entry of `hash`, or replaces
    /// it by a hard link to the entry there is.
    ///
    /// # Errors
    /// [`StoreError::Deduplicate`]; the file is untouched then.
    pub fn publish(
        &self,
        hash: &[u8; 32],
        dir: BorrowedFd<'_>,
        name: &CStr,
        size: u64,
    ) -> Result<Published, StoreError> {
        let failed = |errno| failure(file_name(name), errno);
        let entry = entry_path(hash);
        for _ in 0..ATTEMPTS {
            match linkat(dir, name, &self.store, &entry, AtFlags::empty()) {
                Ok(()) => return Ok(Published::Published),
                Err(Errno::NOENT) => {
                    // Either `.links` is missing, or the file itself.
                    statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
                    self.create_directory()?;
                    continue;
                }
                Err(Errno::EXIST) => {}
                Err(error) if is_limit(error) => return Ok(Published::Skipped),
                Err(error) => return Err(failed(error)),
            }
            match statat(&self.store, &entry, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if is_sound(&stat, size) => {}
                Ok(_) => {
                    self.discard(&entry)?;
                    continue;
                }
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failure(Path::new(&entry), error)),
            }
            match self.replace(&entry, dir, name) {
                Ok(Replaced::File) => return Ok(Published::ReplacedByExisting),
                Ok(Replaced::Entry) => return Ok(Published::Published),
                Err(Errno::NOENT) => {}
                Err(error) if is_limit(error) => return Ok(Published::Skipped),
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(Published::Skipped)
    }

    /// Puts a hard link to `entry` in the place of `name`, or, where the entry has to be compared
    /// and differs, one to `name` in the place of the entry. Both exist at every moment.
    fn replace(
        &self,
        entry: &str,
        dir: BorrowedFd<'_>,
        name: &CStr,
    ) -> rustix::io::Result<Replaced> {
        // The name under which the entry is looked at is the one that is moved: what stands in
        // its place by then is another matter.
        let temporary = self.temporary_link(self.store.as_fd(), entry)?;
        let replaced = match self.entries {
            Entries::Believed => Ok(Replaced::File),
            Entries::Compared => self.compared(&temporary, dir, name),
        };
        let replaced = replaced.and_then(|replaced| match replaced {
            Replaced::File => renameat(&self.store, &temporary, dir, name).map(|()| replaced),
            Replaced::Entry => Ok(replaced),
        });
        // When both names are links to one inode already, renaming does nothing at all and
        // succeeds, so the temporary one may be there in either case.
        let replaced = self.without(&temporary, replaced)?;
        if replaced == Replaced::Entry {
            let temporary = self.temporary_link(dir, name)?;
            let renamed = renameat(&self.store, &temporary, &self.store, entry);
            self.without(&temporary, renamed)?;
        }
        Ok(replaced)
    }

    /// A new name in `.links` for the file `name` in `dir`.
    fn temporary_link<P: rustix::path::Arg + Copy>(
        &self,
        dir: BorrowedFd<'_>,
        name: P,
    ) -> rustix::io::Result<String> {
        loop {
            let random = fastrand::u32(..);
            let temporary = format!("{LINKS}/.tmp-link-{}-{random}", std::process::id());
            match linkat(dir, name, &self.store, &temporary, AtFlags::empty()) {
                Ok(()) => return Ok(temporary),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// `result`, with the name `temporary` gone.
    fn without<T>(&self, temporary: &str, result: rustix::io::Result<T>) -> rustix::io::Result<T> {
        match unlinkat(&self.store, temporary, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => result,
            Err(error) => result.and(Err(error)),
        }
    }

    /// Which of the two has to go: the file `name` in `dir`, which is as it should be, when the
    /// entry at `temporary` equals it, else the entry.
    fn compared(
        &self,
        temporary: &str,
        dir: BorrowedFd<'_>,
        name: &CStr,
    ) -> rustix::io::Result<Replaced> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(dir, name, flags, Mode::empty())?;
        // An entry that cannot be read is not one to link to either.
        let Ok(entry) = openat(&self.store, temporary, flags, Mode::empty()) else {
            return Ok(Replaced::Entry);
        };
        let is_same_kind = fstat(&file)?.st_mode == fstat(&entry)?.st_mode;
        let is_equal = is_same_kind && have_equal_bytes(&file, &entry)?;
        Ok(if is_equal { Replaced::File } else { Replaced::Entry })
    }

    fn create_directory(&self) -> Result<(), StoreError> {
        match make_directory(&self.store, LINKS) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(failure(Path::new(LINKS), error)),
        }
    }

    fn discard(&self, entry: &str) -> Result<(), StoreError> {
        match unlinkat(&self.store, entry, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failure(Path::new(entry), error)),
        }
    }

    /// The store directory, for those who create items in it.
    #[must_use]
    pub fn store(&self) -> BorrowedFd<'_> {
        self.store.as_fd()
    }
}

fn entry_path(hash: &[u8; 32]) -> String {
    format!("{LINKS}/{}", base32::encode(hash))
}

/// An entry cut short by a crash, or damaged, must not spread to further items.
fn is_sound(stat: &Stat, size: u64) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && u64::try_from(stat.st_size) == Ok(size)
}

/// Whether `entry` can be read to its end, and is what `file` is.
fn have_equal_bytes(file: &OwnedFd, entry: &OwnedFd) -> rustix::io::Result<bool> {
    let [mut ours, mut theirs] = [(); 2].map(|()| vec![0; COMPARED_AT_ONCE_BYTES]);
    let mut offset = 0;
    loop {
        let count = pread(file, &mut ours[..], offset)?;
        let is_equal = match pread(entry, &mut theirs[..count.max(1)], offset) {
            Ok(found) => ours[..count] == theirs[..found],
            Err(_) => false,
        };
        if !is_equal || count == 0 {
            return Ok(is_equal);
        }
        offset += count as u64;
    }
}

/// Whether a link failed for a reason that leaves the file itself as good as ever: too many
/// links to the inode, a full directory index, `.links` on another file system, or the
/// kernel's rule against links to files of other owners.
fn is_limit(error: Errno) -> bool {
    matches!(error, Errno::MLINK | Errno::NOSPC | Errno::XDEV | Errno::PERM)
}

fn file_name(name: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(name.to_bytes()))
}

fn failure(path: &Path, source: Errno) -> StoreError {
    StoreError::Deduplicate { path: path.to_owned(), source: source.into() }
}

/// Bytes of each file that are in memory while two are compared.
const COMPARED_AT_ONCE_BYTES: usize = 64 << 10;

/// How often an entry may vanish or prove corrupt before the file is left alone.
const ATTEMPTS: usize = 8;
