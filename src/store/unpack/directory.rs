//! A directory of the tree while entries are being put into it.
//!
//! It is shared by the reader of the nar and by every file still on its way to disk. The
//! owner who lets go of it last gives it its final mode and time: earlier, entries could not
//! be added by an unprivileged user and would change the time again.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io;

use crate::format::nar::EntryName;

use crate::store::canonical;
use crate::store::remove::open_writable;

use super::created_modes::UNFINISHED_DIRECTORY;
use super::crowding::{self, Crowding};
use super::error::UnpackError;
use super::tree::Tree;

/// The longest name that Linux takes, with a NUL at its end.
const PATH_MAX: usize = 4096;

pub(super) struct Directory {
    fd: Arc<OwnedFd>,
    /// The name in the parent; `None` for the directory that the tree is put into.
    place: Option<(Arc<Directory>, EntryName)>,
    /// Whether it has a flag by which directories in it are made elsewhere.
    is_scattering: AtomicBool,
}

impl Directory {
    /// The directory that the tree is put into: not part of it, so never made canonical.
    pub(super) fn outside(fd: Arc<OwnedFd>) -> Self {
        Self {
            fd,
            place: None,
            is_scattering: AtomicBool::new(false),
        }
    }

    /// Makes the directory `name` in `parent`, writable for now.
    pub(super) fn create(
        tree: &Tree,
        crowding: &mut Crowding,
        parent: Arc<Self>,
        name: EntryName,
    ) -> Result<Arc<Self>, UnpackError> {
        let failed = |source| tree.error("making directory", &parent, &name, source);
        parent.make(crowding, name.as_bytes()).map_err(failed)?;
        tree.note_created_in(&parent);

        let fd = open_made(parent.fd(), &name).map_err(failed)?;
        tree.created_modes
            .adopt_directory(&fd)
            .map_err(|source| tree.error("making directory", &parent, &name, source))?;
        let is_scattering = AtomicBool::new(false);
        Ok(Arc::new(Self {
            fd: Arc::new(fd),
            place: Some((parent, name)),
            is_scattering,
        }))
    }

    /// Makes the directory `name` in this one.
    fn make(&self, crowding: &mut Crowding, name: &[u8]) -> io::Result<()> {
        if self.is_outside() {
            // Not part of the tree: its flags are not ours to change.
            return rustix::fs::mkdirat(self.fd(), name, UNFINISHED_DIRECTORY);
        }
        if crowding.make_directory(self.fd(), name)? == crowding::Parent::Scattering {
            self.is_scattering.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether this is the directory that the tree is put into, which is not part of it.
    pub(super) fn is_outside(&self) -> bool {
        self.place.is_none()
    }

    /// The name of the entry `name` in this directory below the place that the tree is put into;
    /// `None` when no system call takes one that long.
    pub(super) fn path_below(&self, name: &EntryName) -> Option<CString> {
        let (mut names, mut next) = (vec![name.as_bytes()], self);
        let mut length = name.as_bytes().len();
        while let Some((parent, name)) = &next.place {
            names.push(name.as_bytes());
            length += name.as_bytes().len() + 1;
            if length >= PATH_MAX {
                return None;
            }
            next = parent;
        }
        names.reverse();
        CString::new(names.join(&b'/')).ok()
    }

    /// The directory's name below the place that the tree is put into.
    pub(super) fn path(&self) -> PathBuf {
        match &self.place {
            Some((parent, name)) => parent.path().join(name.as_os_str()),
            None => PathBuf::new(),
        }
    }
}

/// Opens the directory `name` that was just made in `parent`.
fn open_made(parent: BorrowedFd<'_>, name: &EntryName) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name.as_bytes(), flags, Mode::empty()) {
        // The umask, or what stands in for it, left nothing for its owner.
        Err(io::Errno::ACCESS) => open_writable(parent, &c_name(name)),
        opened => opened,
    }
}

/// Lets go of `directory`. The last owner closes it in its canonical form, and with it every
/// parent that nobody else holds any more.
pub(super) fn release(tree: &Tree, directory: Arc<Directory>) -> Result<(), UnpackError> {
    let mut next = Some(directory);
    while let Some(directory) = next.take().and_then(Arc::into_inner) {
        let Some((parent, name)) = directory.place else {
            break;
        };
        let is_scattering = directory.is_scattering.load(Ordering::Relaxed);
        let gathered = if is_scattering {
            crowding::gather(directory.fd.as_fd())
        } else {
            Ok(())
        };
        gathered
            .and_then(|()| canonical::settle(&directory.fd, canonical::DIRECTORY_MODE))
            .map_err(|source| tree.error("closing directory", &parent, &name, source))?;
        next = Some(parent);
    }
    Ok(())
}

/// `name` for system calls that do not take bytes.
pub(super) fn c_name(name: &EntryName) -> CString {
    CString::new(name.as_bytes()).expect("an entry name has no NUL")
}
