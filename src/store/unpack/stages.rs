//! How far a tree has come: unpacked, then checked against what was signed.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::fs::{openat, renameat, renameat_with, statat};
use rustix::io::Errno;

use crate::format::nar::EntryName;
use crate::format::sha256::Sha256;
use crate::store::error::{StoreError, on};
use crate::store::remove::remove_tree_at;
use crate::store::rename_noreplace::rename_noreplace;
use crate::trust::verdict::AuthorizedNarInfo;

use super::destination::Destination;
use super::directory::c_name;
use super::error::{CheckError, NarMismatch};
use super::hashed::NarContent;
use super::temporary_tree::TemporaryTree;

/// A complete tree at a temporary name. Removed when dropped before it is kept.
#[derive(Debug)]
pub struct Unpacked {
    pub(super) guard: TemporaryTree,
    pub(super) content: NarContent,
}

impl Unpacked {
    /// Accepts the tree when the bytes it was made of are those that `authorized` describes.
    ///
    /// # Errors
    /// Hash, size or content address differ, or the tree cannot be read; it is removed.
    pub fn check(self, authorized: Arc<AuthorizedNarInfo>) -> Result<Checked, CheckError> {
        let narinfo = authorized.narinfo();
        let (expected, found) = (narinfo.nar_hash(), self.content.hash);
        if expected != found {
            return Err(NarMismatch::Hash { expected, found }.into());
        }
        let (expected, found) = (narinfo.nar_size(), self.content.size);
        if expected != found {
            return Err(NarMismatch::Size { expected, found }.into());
        }
        if let Some(expected) = authorized.file_hash() {
            let found = self.file_hash().map_err(|source| CheckError::Read {
                path: self.guard.destination.path(),
                source,
            })?;
            if found != Some(expected) {
                return Err(NarMismatch::ContentAddress.into());
            }
        }

        Ok(Checked {
            guard: self.guard,
            authorized,
        })
    }

    /// The hash of the tree, if it is a file that is not executable. Read from the disk, as few items
    /// need it.
    fn file_hash(&self) -> io::Result<Option<[u8; 32]>> {
        let destination = &self.guard.destination;
        let (parent, name) = (destination.parent(), c_name(destination.name()));
        let mode = statat(parent, &name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode;
        let executable = Mode::XUSR | Mode::XGRP | Mode::XOTH;
        let is_executable = Mode::from_raw_mode(mode).intersects(executable);
        if FileType::from_raw_mode(mode) != FileType::RegularFile || is_executable {
            return Ok(None);
        }

        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(openat(parent, &name, flags, Mode::empty())?);
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(Some(hash.finish())),
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
    /// The narinfo that describes the tree.
    #[must_use]
    pub(crate) fn authorized(&self) -> &Arc<AuthorizedNarInfo> {
        &self.authorized
    }

    /// Bytes of the tree's files that are links to equal files of the store or of the tree, and take no
    /// space of their own.
    #[must_use]
    pub(crate) fn linked_bytes(&self) -> u64 {
        let new_entries = self.guard.new_entries.as_ref();
        new_entries.map_or(0, |entries| entries.linked_bytes)
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

    /// Gives the tree the name `place`, for good, in one step in which what had that name gets the
    /// temporary one; then removes that. The caller holds the lock of the item.
    ///
    /// A file system that cannot exchange names is given the two steps after each other: whoever
    /// is killed between them leaves an item that is missing instead of a damaged one.
    ///
    /// # Errors
    /// [`StoreError::Rename`]; the tree is removed. [`StoreError::Remove`]: what had the name is left
    /// at the temporary name, or is still in its place.
    pub(in crate::store) fn exchange_with(mut self, place: Destination) -> Result<(), StoreError> {
        let old = self.guard.destination.clone();
        let (from, to) = (c_name(old.name()), c_name(place.name()));
        match renameat_with(
            old.parent(),
            &from,
            place.parent(),
            &to,
            RenameFlags::EXCHANGE,
        ) {
            Ok(()) => {
                self.keep();
                remove_at(&old)
            }
            // Nothing has the name, the file system or the kernel does not know the call, or what has
            // the name is in a lower layer of an overlay and cannot be moved.
            Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::XDEV) => {
                remove_at(&place)?;
                self.rename_to(place)?;
                self.keep();
                Ok(())
            }
            Err(source) => Err(StoreError::Rename {
                from: old.path(),
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
        self.guard.top.keep();
        Arc::clone(&self.authorized)
    }
}

/// Removes what is at `destination`, if there is anything.
fn remove_at(destination: &Destination) -> Result<(), StoreError> {
    let removed = remove_tree_at(destination.parent(), destination.name().as_os_str());
    removed.map_err(on(&destination.path(), |path, source| StoreError::Remove {
        path,
        source,
    }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::format::content_address::{ContentAddress, HashedContent};
    use crate::format::hash::NarHash;
    use crate::format::nar::{NarWriter, SymlinkTarget};
    use crate::format::narinfo::NarInfo;
    use crate::format::store_path::{StoreDir, StorePathRef};
    use crate::store::unpack::error::CheckError;
    use crate::store::unpack::{Chunks, WriterPool, open_directory, unpack};
    use crate::trust::acl::AuthorizedKeys;
    use crate::trust::nix::TrustedKeys;
    use crate::trust::verdict::authorize;

    struct WholeNar(bytes::Bytes);

    impl Chunks for WholeNar {
        fn next_chunk(&mut self) -> io::Result<bytes::Bytes> {
            Ok(std::mem::take(&mut self.0))
        }
    }

    fn file_nar(is_executable: bool, contents: &[u8]) -> Vec<u8> {
        let mut nar = NarWriter::new(Vec::new());
        let size = contents.len() as u64;
        nar.file(None, is_executable, size, contents).unwrap();
        nar.finish().unwrap()
    }

    /// Unpacks `nar` as the item `foo` of `directory`.
    fn unpacked(directory: &Path, nar: &[u8]) -> Unpacked {
        let parent = open_directory(directory).unwrap();
        let name = EntryName::new(b"foo").unwrap();
        let destination = Destination::new(parent, directory.to_owned(), name);
        let nix = StoreDir::parse(StoreDir::NIX).unwrap().dialect();
        let pool = WriterPool::new(1).unwrap();
        let nar = WholeNar(bytes::Bytes::copy_from_slice(nar));
        unpack(nar, nix, destination, &pool, None).unwrap()
    }

    /// A narinfo without a signature of an item whose store path proves the content `bar`, and which
    /// is said to have the nar `nar`.
    fn authorized(nar: &[u8]) -> Arc<AuthorizedNarInfo> {
        let nix = StoreDir::parse(StoreDir::NIX).unwrap();
        let mut hash = Sha256::new();
        hash.update(b"bar");
        let hash = hash.finish();
        let content = HashedContent::Text;
        let item = ContentAddress { content, hash }
            .item_base("foo", &[], &nix)
            .unwrap();

        let mut nar_hash = Sha256::new();
        nar_hash.update(nar);
        let text = format!(
            "StorePath: /nix/store/{item}\nURL: x\nNarHash: {}\nNarSize: {}\nReferences: \n\
             CA: text:{}\n",
            NarHash::from_bytes(nar_hash.finish()),
            nar.len(),
            NarHash::from_bytes(hash),
        );
        let narinfo = Arc::new(NarInfo::parse(text, &nix).unwrap());
        let keys = AuthorizedKeys::Nix(TrustedKeys::parse("").unwrap());
        let asked = StorePathRef::parse(&item).unwrap();
        Arc::new(authorize(narinfo, asked, &keys, &nix).unwrap())
    }

    #[test]
    fn a_content_address_covers_one_file_that_is_not_executable() {
        let mut link = NarWriter::new(Vec::new());
        link.symlink(None, &SymlinkTarget::new(b"bar").unwrap())
            .unwrap();
        let mut directory = NarWriter::new(Vec::new());
        directory.directory(None).unwrap();
        directory.end_directory().unwrap();

        for (nar, is_right) in [
            (file_nar(false, b"bar"), true),
            (file_nar(true, b"bar"), false),
            (file_nar(false, b"baz"), false),
            (link.finish().unwrap(), false),
            (directory.finish().unwrap(), false),
        ] {
            let store = tempfile::tempdir().unwrap();
            match unpacked(store.path(), &nar).check(authorized(&nar)) {
                Ok(_) => assert!(is_right),
                Err(CheckError::Mismatch(NarMismatch::ContentAddress)) => assert!(!is_right),
                Err(error) => panic!("{error}"),
            }
            assert!(!store.path().join("foo").exists(), "it was not kept");
        }
    }

    /// Such as too few descriptors, or a disk with bad blocks.
    #[test]
    fn a_file_that_cannot_be_read_again_is_no_fault_of_the_server() {
        let store = tempfile::tempdir().unwrap();
        let nar = file_nar(false, b"bar");
        let unpacked = unpacked(store.path(), &nar);
        std::fs::remove_file(store.path().join("foo")).unwrap();
        let error = unpacked.check(authorized(&nar)).unwrap_err();
        assert!(matches!(error, CheckError::Read { .. }), "{error}");
        assert!(error.to_string().ends_with("/foo"), "{error}");
    }
}
