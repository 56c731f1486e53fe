//! Makes sure that files and directories of a tree have the mode that they were created with.
//!
//! The umask is not all that takes part in the mode of a new file. Where the directory has a
//! default ACL, that replaces the umask and is inherited; mount options such as `fmask`, or a
//! setgid parent, add and remove bits too. So the first file, executable and directory of a
//! tree are looked at. Once one has arrived as requested, all others of its kind do: they lie
//! in directories of the same tree, on the same file system. Until then each is looked at, and
//! corrected.
//!
//! What root makes in the store of another user is given to that user.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};

use crate::no_follow::Owner;
use crate::store::canonical;

/// The mode of a directory, or of a file in no directory of the tree, before it is complete:
/// no other user may see bytes that are not verified yet.
pub(super) const UNFINISHED_DIRECTORY: Mode = Mode::RWXU;
/// See [`UNFINISHED_DIRECTORY`].
pub(super) const UNFINISHED_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// For each kind of entry, whether one has arrived with the mode that was requested.
#[derive(Debug, Default)]
pub(super) struct CreatedModes {
    file: AtomicBool,
    executable: AtomicBool,
    directory: AtomicBool,
    /// To whom everything is given.
    owner: Option<Owner>,
}

impl CreatedModes {
    /// The same for a tree that is given to `owner`.
    pub(super) fn owned_by(owner: Option<Owner>) -> Self {
        Self {
            owner,
            ..Self::default()
        }
    }

    /// Gives a complete file its mode, where it does not have it from its creation, and its times; and
    /// closes it.
    pub(super) fn settle_file(&self, file: OwnedFd, executable: bool) -> io::Result<()> {
        let kind = if executable {
            &self.executable
        } else {
            &self.file
        };
        self.adopt(&file)?;
        ensure(kind, &file, canonical::file_mode(executable))?;
        canonical::settle_times(&file)?;
        // Network file systems write only now what was written, and tell only now that they are full.
        Ok(nix::unistd::close(file)?)
    }

    /// Whether what is made is given to another user.
    pub(super) fn are_given_away(&self) -> bool {
        self.owner.is_some()
    }

    /// The mode to make a directory with. If this process is killed before it has given the directory away, the
    /// collector of its owner has to be able to read it, empty as it is, before it can remove it.
    pub(super) fn of_new_directory(&self) -> Mode {
        match self.owner {
            Some(_) => canonical::DIRECTORY_MODE | Mode::WUSR,
            None => UNFINISHED_DIRECTORY,
        }
    }

    /// Gives a directory that was just made [`UNFINISHED_DIRECTORY`], where it does not have it.
    /// What is created in it afterward inherits no ACL from it.
    pub(super) fn adopt_directory(&self, directory: &OwnedFd) -> io::Result<()> {
        self.adopt(directory)?;
        ensure(&self.directory, directory, UNFINISHED_DIRECTORY)
    }

    /// Gives a symlink that was just made its times.
    pub(super) fn settle_symlink(
        &self,
        parent: BorrowedFd<'_>,
        name: &CStr,
    ) -> rustix::io::Result<()> {
        if self.owner.is_some() {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let symlink = openat(parent, name, flags, Mode::empty())?;
            // The owner may have put something else there.
            if FileType::from_raw_mode(fstat(&symlink)?.st_mode).is_symlink() {
                self.adopt(&symlink)?;
            }
        }
        canonical::settle_symlink(parent, name)
    }

    fn adopt(&self, entry: &OwnedFd) -> rustix::io::Result<()> {
        match self.owner {
            Some(owner) => owner.adopt(entry),
            None => Ok(()),
        }
    }
}

fn ensure(is_exact: &AtomicBool, file: impl AsFd, mode: Mode) -> io::Result<()> {
    if is_exact.load(Ordering::Relaxed) {
        return Ok(());
    }
    if canonical::has_exactly(&file, mode)? {
        is_exact.store(true, Ordering::Relaxed);
        return Ok(());
    }
    canonical::enforce_mode(file, mode)
}
