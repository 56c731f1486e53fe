//! A directory of the tree while entries are being put into it.
//!
//! It is shared by the reader of the nar and by every file still on its way to disk. The last owner
//! that releases it gives it its final mode and time: earlier, an unprivileged user could not add
//! entries, and each entry would change the time again.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io;

use crate::format::escape::bounded;
use crate::format::nar::EntryName;

use crate::store::canonical;
use crate::store::remove::open_writable;

use super::created_modes::CreatedModes;
use super::crowding::{self, Crowding};
use super::error::UnpackError;
use super::top_entry::TopEntry;

/// The longest name that Linux takes, with a NUL at its end.
const PATH_MAX: usize = 4096;
/// As many bytes of a name are kept in an error.
const PATH_SHOWN_MAX: usize = 512;

pub(super) struct Directory {
    fd: Arc<OwnedFd>,
    place: Place,
    /// Whether it has a flag by which directories in it are made elsewhere.
    is_scattering: AtomicBool,
}

/// Where a directory is.
enum Place {
    /// It is the directory that the tree is put into, which is not part of the tree.
    Outside { path: PathBuf, top: Arc<TopEntry> },
    /// It is part of the tree, and has this name in its parent.
    In(Arc<Directory>, EntryName),
}

impl Directory {
    /// The directory that the tree is put into, opened as `path`: not part of the tree, so never made
    /// canonical. `top` is told as soon as an entry is created in it, which a failure has to
    /// remove.
    pub(super) fn outside(fd: Arc<OwnedFd>, path: &Path, top: Arc<TopEntry>) -> Self {
        Self {
            fd,
            place: Place::Outside {
                path: path.to_owned(),
                top,
            },
            is_scattering: AtomicBool::new(false),
        }
    }

    /// Makes the directory `name` in `parent`, writable for now.
    pub(super) fn create(
        created_modes: &CreatedModes,
        crowding: &mut Crowding,
        parent: Arc<Self>,
        name: EntryName,
    ) -> Result<Arc<Self>, UnpackError> {
        let fd = parent
            .make(created_modes, crowding, &name)
            .map_err(|source| parent.error("making directory", &name, source))?;
        Ok(Arc::new(Self {
            fd: Arc::new(fd),
            place: Place::In(parent, name),
            is_scattering: AtomicBool::new(false),
        }))
    }

    /// Makes the directory `name` in this one, and opens it.
    fn make(
        &self,
        created_modes: &CreatedModes,
        crowding: &mut Crowding,
        name: &EntryName,
    ) -> std::io::Result<OwnedFd> {
        if self.is_outside() || created_modes.are_given_away() {
            // Flags are changed in this process's own trees only, and this directory is not part of one.
            let mode = created_modes.of_new_directory();
            rustix::fs::mkdirat(self.fd(), name.as_bytes(), mode)?;
        } else if crowding.make_directory(self.fd(), name.as_bytes())?
            == crowding::Parent::Scattering
        {
            self.is_scattering.store(true, Ordering::Relaxed);
        }
        self.note_created();

        let made = open_made(self.fd(), name)?;
        if let Place::Outside { top, .. } = &self.place {
            top.note_directory(&made);
        }
        created_modes.adopt_directory(&made)?;
        Ok(made)
    }

    /// An entry was created in this directory. Outside the tree, that is the top of it.
    pub(super) fn note_created(&self) {
        if let Place::Outside { top, .. } = &self.place {
            top.note_created();
        }
    }

    /// The error that `action` on the entry `name` failed with `source`.
    pub(super) fn error(
        &self,
        action: &'static str,
        name: &EntryName,
        source: impl Into<std::io::Error>,
    ) -> UnpackError {
        UnpackError::Write {
            action,
            path: self.shown_path(name),
            source: source.into(),
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether this is the directory that the tree is put into, which is not part of it.
    pub(super) fn is_outside(&self) -> bool {
        matches!(self.place, Place::Outside { .. })
    }

    /// The name of the entry `name` in this directory below the place that the tree is put into;
    /// `None` when no system call takes one that long.
    pub(super) fn path_below(&self, name: &EntryName) -> Option<CString> {
        let (mut names, mut next) = (vec![name.as_bytes()], self);
        let mut length = name.as_bytes().len();
        while let Place::In(parent, name) = &next.place {
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

    /// The full name of the entry `name`, for messages: cut, since a server may have made it as long as it likes.
    pub(super) fn shown_path(&self, name: &EntryName) -> PathBuf {
        let (mut names, mut next) = (vec![name], self);
        let mut path = loop {
            match &next.place {
                Place::Outside { path, .. } => break path.clone(),
                Place::In(parent, name) => {
                    names.push(name);
                    next = parent;
                }
            }
        };
        path.extend(names.into_iter().rev().map(EntryName::as_os_str));
        bounded(path.to_string_lossy().into_owned(), PATH_SHOWN_MAX).into()
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

/// Gives up a share in `directory`. The last owner closes it in its canonical form, and with it
/// every parent that has no other owner.
pub(super) fn release(directory: Arc<Directory>) -> Result<(), UnpackError> {
    let mut next = Some(directory);
    while let Some(directory) = next.take().and_then(Arc::into_inner) {
        let is_scattering = directory.is_scattering.load(Ordering::Relaxed);
        let Place::In(parent, name) = directory.place else {
            break;
        };

        let gathered = if is_scattering {
            crowding::gather(directory.fd.as_fd())
        } else {
            Ok(())
        };
        gathered
            .and_then(|()| canonical::settle(&directory.fd, canonical::DIRECTORY_MODE))
            .map_err(|source| parent.error("closing directory", &name, source))?;
        next = Some(parent);
    }
    Ok(())
}

/// `name` for system calls that do not take bytes.
pub(super) fn c_name(name: &EntryName) -> CString {
    CString::new(name.as_bytes()).expect("an entry name has no NUL")
}
