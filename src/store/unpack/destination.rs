//! Where a tree is put: named relative to a directory that is held open.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::format::nar::EntryName;
use crate::no_follow::Owner;
use crate::store::directory::{FreeSpace, free_space};
use crate::store::error::{StoreError, on};
use crate::store::sync_mode::SyncMode;

/// Where a tree goes: a directory, held open, and a name in it that does not exist yet.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    pub(super) parent: Arc<OwnedFd>,
    pub(super) parent_path: PathBuf,
    pub(super) name: EntryName,
    /// To whom the tree is given, if not to the user of this process.
    pub(super) owner: Option<Owner>,
}

impl Destination {
    /// The entry `name` of the directory `parent`, which was opened as `parent_path`.
    #[must_use]
    pub(crate) fn new(parent: Arc<OwnedFd>, parent_path: PathBuf, name: EntryName) -> Self {
        Self {
            parent,
            parent_path,
            name,
            owner: None,
        }
    }

    /// The same, for a tree that is given to the owner of the directory, if this process is root's.
    ///
    /// # Errors
    /// The directory cannot be looked at.
    pub(in crate::store) fn for_owner(self) -> rustix::io::Result<Self> {
        let owner = Owner::of(&self.parent)?;
        Ok(Self { owner, ..self })
    }

    /// The entry `name` of the same directory.
    pub(in crate::store) fn sibling(&self, name: EntryName) -> Self {
        Self {
            name,
            ..self.clone()
        }
    }

    /// The directory.
    pub(in crate::store) fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    /// The name in it.
    pub(in crate::store) fn name(&self) -> &EntryName {
        &self.name
    }

    /// What can still be written to the file system that it is in.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub(crate) fn free_space(&self) -> Result<FreeSpace, StoreError> {
        let path = &self.parent_path;
        free_space(self.parent())
            .map_err(on(path, |path, source| StoreError::Read { path, source }))
    }

    /// The directory, held open.
    pub(crate) fn directory(&self) -> &Arc<OwnedFd> {
        &self.parent
    }

    /// Waits until what was written to its file system is on the disk, if `sync` has items on it.
    ///
    /// # Errors
    /// [`StoreError::Sync`].
    pub(crate) fn sync_items(&self, sync: SyncMode) -> Result<(), StoreError> {
        sync.sync_items(self.parent()).map_err(self.sync_failure())
    }

    /// Waits until its name is on the disk, if `sync` has names on it.
    ///
    /// # Errors
    /// [`StoreError::Sync`].
    pub(in crate::store) fn sync_name(&self, sync: SyncMode) -> Result<(), StoreError> {
        sync.sync_names(self.parent()).map_err(self.sync_failure())
    }

    fn sync_failure(&self) -> impl FnOnce(Errno) -> StoreError {
        on(&self.parent_path, |path, source| StoreError::Sync {
            path,
            source,
        })
    }

    /// The directory's name, for messages.
    #[must_use]
    pub(crate) fn parent_path(&self) -> &Path {
        &self.parent_path
    }

    /// The destination's full name, for messages.
    #[must_use]
    pub(crate) fn path(&self) -> PathBuf {
        self.parent_path.join(self.name.as_os_str())
    }
}

/// Opens the directory at `path`, to put trees into it.
///
/// # Errors
/// It does not exist, is not a directory, or may not be opened.
pub(crate) fn open_directory(path: &Path) -> io::Result<Arc<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(Arc::new(rustix::fs::open(path, flags, Mode::empty())?))
}
