//! How far a tree has come: unpacked, then checked against what was signed.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{Mode, OFlags, openat, renameat};
use rustix::io::Errno;

use crate::format::nar::EntryName;
use crate::format::sha256::Sha256;
use crate::store::error::StoreError;
use crate::store::rename_noreplace::rename_noreplace;
use crate::trust::verdict::AuthorizedNarInfo;

use super::destination::Destination;
use super::directory::c_name;
use super::error::NarMismatch;
use super::hashed::NarContent;
use super::temporary_tree::TemporaryTree;

/// A complete tree at a temporary name. Removed when dropped before it is kept.
#[derive(Debug)]
pub struct Unpacked {
    pub(super) guard: TemporaryTree,
    pub(super) content: NarContent,
}

impl Unpacked {
    /// Accepts the tree when the bytes it was made of are those that `authorized` vouches for.
    ///
    /// # Errors
    /// Hash, size or content address differ; the tree is removed.
    pub fn check(self, authorized: Arc<AuthorizedNarInfo>) -> Result<Checked, NarMismatch> {
        let narinfo = authorized.narinfo();
        let (expected, found) = (narinfo.nar_hash(), self.content.hash);
        if expected != found {
            return Err(NarMismatch::Hash { expected, found });
        }
        let (expected, found) = (narinfo.nar_size(), self.content.size);
        if expected != found {
            return Err(NarMismatch::Size { expected, found });
        }
        if let Some(expected) = authorized.file_hash()
            && self.file_hash().ok() != Some(expected)
        {
            return Err(NarMismatch::ContentAddress);
        }

        Ok(Checked {
            guard: self.guard,
            authorized,
        })
    }

    /// The hash of the tree, which has to be a file that is not executable. Read from the disk, as
    /// few items need it.
    fn file_hash(&self) -> io::Result<[u8; 32]> {
        let destination = &self.guard.destination;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let name = c_name(destination.name());
        let mut file = File::from(openat(destination.parent(), &name, flags, Mode::empty())?);
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.permissions().mode() & 0o111 != 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }

        let mut hash = Sha256::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hash.finish()),
                count => hash.update(&buffer[..count]),
            }
        }
    }
}

/// A tree whose content a signature covers. Still at its temporary name; removed, along with what
/// it added to `.links`, when dropped without having been kept.
#[derive(Debug)]
pub struct Checked {
    guard: TemporaryTree,
    authorized: Arc<AuthorizedNarInfo>,
}

impl Checked {
    /// The narinfo that vouches for the tree.
    #[must_use]
    pub(crate) fn authorized(&self) -> &Arc<AuthorizedNarInfo> {
        &self.authorized
    }

    /// Adds the tree's files to the `.links` that it was unpacked with.
    ///
    /// # Errors
    /// [`StoreError::Deduplicate`]; the tree is removed.
    pub(crate) fn deduplicate(mut self) -> Result<Self, StoreError> {
        if let Some(new_entries) = &mut self.guard.new_entries {
            new_entries.add_to_links(self.guard.destination.parent.as_fd())?;
        }
        Ok(self)
    }

    /// Renames the tree to `place`, which does not exist, or is a file that it may replace. Still
    /// removed when dropped, from there. The caller holds the lock of the item, `ITEM.lock`, so
    /// that no other process creates `place` at the same time.
    ///
    /// # Errors
    /// [`StoreError::Rename`].
    pub(in crate::store) fn rename_to(&mut self, place: Destination) -> Result<(), StoreError> {
        let temporary = &self.guard.destination;
        let (from, to) = (temporary.name().as_bytes(), place.name().as_bytes());
        match renameat(temporary.parent(), from, place.parent(), to) {
            Ok(()) => {
                self.guard.destination = place;
                Ok(())
            }
            Err(source) => Err(StoreError::Rename {
                from: temporary.path(),
                to: place.path(),
                source: source.into(),
            }),
        }
    }

    /// Gives the tree the name `to` in the directory that it is in, for good, unless something has
    /// that name.
    ///
    /// # Errors
    /// [`StoreError::Exists`] or [`StoreError::Rename`]; the tree is removed.
    pub(in crate::store) fn rename_noreplace(
        self,
        to: &EntryName,
    ) -> Result<Arc<AuthorizedNarInfo>, StoreError> {
        let temporary = &self.guard.destination;
        match rename_noreplace(temporary.parent(), &c_name(&temporary.name), &c_name(to)) {
            Ok(()) => Ok(self.keep()),
            Err(Errno::EXIST) => Err(StoreError::Exists(temporary.sibling(to.clone()).path())),
            Err(source) => {
                let (from, to) = (temporary.path(), temporary.sibling(to.clone()).path());
                Err(StoreError::Rename {
                    from,
                    to,
                    source: source.into(),
                })
            }
        }
    }

    /// Leaves the tree where it is, for good; the caller has moved it or wants it there. Until then
    /// what it added to `.links` is removed in case of a failure.
    pub(crate) fn keep(self) -> Arc<AuthorizedNarInfo> {
        self.guard.remove_on_drop.store(false, Ordering::Relaxed);
        Arc::clone(&self.authorized)
    }
}
