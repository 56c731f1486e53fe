//! A nar becomes a tree on disk, at a temporary name, in canonical form.
//!
//! One thread reads the nar and makes directories and symlinks; files up to
//! [`SMALL_FILE_MAX_BYTES`] are handed in batches to the [`WriterPool`], larger ones are
//! written as they stream by. Everything happens relative to directory descriptors, with
//! `O_EXCL` and `O_NOFOLLOW`, so that no name in a nar can reach outside the tree.
//!
//! A file costs four system calls (open with its final mode, write, set times, close; the first
//! ones are also checked to have that mode, see `created_modes`), a
//! file that `.links` already holds costs two (link, check). A directory gets its final mode
//! and time when its last entry is in place: whoever finishes that entry closes it.
//!
//! Nothing here decides whether the bytes are the right ones: see [`Unpacked::check`]. What is
//! not known to be right is not added to `.links`: see `sharing`.

mod batch;
mod created_modes;
mod crowding;
mod destination;
mod directory;
mod hashed;
mod large_file;
mod pool;
mod reserve;
mod sharing;
mod temporary_tree;
#[cfg(test)]
mod tests;
mod tree;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rustix::io::Errno;

use crate::format::hash::NarHash;
use crate::format::nar::{self, EntryName, NarEvent, SymlinkTarget};
use crate::trust::verdict::AuthorizedNarInfo;

use super::rename::rename_noreplace;
use super::{DEDUPLICATE_MIN_BYTES, Links, StoreError, canonical};

use batch::BatchWriter;
use crowding::Crowding;
use directory::Directory;
use hashed::{FileContents, Hashed};
use sharing::Sharing;
use temporary_tree::TemporaryTree;
use tree::Tree;

pub(crate) use destination::Destination;
pub(crate) use pool::WriterPool;

/// Larger files are written while they stream by instead of from memory.
pub(crate) const SMALL_FILE_MAX_BYTES: u64 = 1 << 20;

/// Why a nar could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// The nar is malformed, or its bytes could not be had.
    #[error("reading the nar")]
    Nar(#[from] nar::NarError),
    /// A file, directory or link of the tree could not be made.
    #[error("{action} {}", path.display())]
    Write {
        /// What was tried.
        action: &'static str,
        /// On which entry of the tree.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file could not be deduplicated.
    #[error(transparent)]
    Deduplicate(#[from] StoreError),
    /// Files of the tree are missing, because the thread that was to write them has panicked.
    #[error("writing files: a thread has panicked")]
    Panicked,
}

/// A nar that arrives in buffers.
pub(crate) trait Chunks {
    /// The next bytes; none at the end. They may be held on to, but of those given out before
    /// only one chunk is when the next one is asked for, apart from what is being written.
    ///
    /// # Errors
    /// The nar breaks off.
    fn next_chunk(&mut self) -> io::Result<Bytes>;
}

impl<C: Chunks + ?Sized> Chunks for &mut C {
    fn next_chunk(&mut self) -> io::Result<Bytes> {
        (**self).next_chunk()
    }
}

/// The digest of the nar bytes that went by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NarContent {
    /// SHA-256 over all of them.
    hash: NarHash,
    /// Their number.
    size: u64,
}

/// The bytes are not those that the signed narinfo describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NarMismatch {
    /// Another hash.
    #[error("the nar's hash is {found}, but {expected} is what was signed")]
    Hash {
        /// Signed.
        expected: NarHash,
        /// Received.
        found: NarHash,
    },
    /// Another size.
    #[error("the nar has {found} bytes, but its narinfo says {expected}")]
    Size {
        /// Promised by the narinfo.
        expected: u64,
        /// Received.
        found: u64,
    },
}

/// A complete tree at a temporary name. Removed when dropped without having been published.
#[derive(Debug)]
pub(crate) struct Unpacked {
    guard: TemporaryTree,
    content: NarContent,
}

impl Unpacked {
    /// Accepts the tree when the bytes it was made of are those that `authorized` vouches for.
    ///
    /// # Errors
    /// Hash or size differ; the tree is removed.
    pub(crate) fn check(self, authorized: Arc<AuthorizedNarInfo>) -> Result<Checked, NarMismatch> {
        let narinfo = authorized.narinfo();
        let (expected, found) = (narinfo.nar_hash(), self.content.hash);
        if expected != found {
            return Err(NarMismatch::Hash { expected, found });
        }
        let (expected, found) = (narinfo.nar_size(), self.content.size);
        if expected != found {
            return Err(NarMismatch::Size { expected, found });
        }
        Ok(Checked {
            guard: self.guard,
            authorized,
        })
    }
}

/// A tree whose content a signature covers. Still at its temporary name; removed, along with what
/// it added to `.links`, when dropped without having been [kept](Checked::keep).
#[derive(Debug)]
pub(crate) struct Checked {
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
            new_entries.publish(self.guard.destination.parent.as_fd())?;
        }
        Ok(self)
    }

    /// Gives the tree the name `to` in the directory that it is in, for good, unless something has
    /// that name.
    ///
    /// # Errors
    /// [`StoreError::Exists`] or [`StoreError::Rename`]; the tree is removed.
    pub(super) fn publish(self, to: &EntryName) -> Result<Arc<AuthorizedNarInfo>, StoreError> {
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
        self.guard.is_ours.store(false, Ordering::Relaxed);
        Arc::clone(&self.authorized)
    }
}

/// Reads the nar `nar` to its end and makes the tree it describes at `destination`. Files of
/// at least the deduplication size go through `links`, when given.
///
/// # Errors
/// The nar is malformed or unreadable, or the tree cannot be written; nothing is left behind.
pub(crate) fn unpack<R: Chunks>(
    nar: R,
    destination: Destination,
    pool: &WriterPool,
    links: Option<Arc<Links>>,
) -> Result<Unpacked, UnpackError> {
    let sharing = links.map(|links| Sharing::new(links, Arc::clone(&destination.parent)));
    let tree = Arc::new(Tree::new(sharing, &destination.parent_path));
    let (is_ours, reserve) = (Arc::clone(&tree.top_is_ours), Arc::clone(pool.reserve()));
    let mut guard = TemporaryTree {
        destination,
        is_ours,
        new_entries: None,
        reserve,
    };
    let mut unpacker = Unpacker {
        nar: nar::NarReader::new(Hashed::new(nar)),
        open: Vec::new(),
        batch: BatchWriter::new(pool, Arc::clone(&tree)),
        tree: Arc::clone(&tree),
        crowding: Crowding::default(),
    };
    let read = unpacker.run(&guard.destination);
    // Writers may still be at work below the destination: let them finish before anything
    // is removed, whether this succeeded or not.
    let Unpacker {
        nar, open, batch, ..
    } = unpacker;
    drop(open);
    batch.flush();
    let written = tree.wait();
    read.and(written)?;
    guard.new_entries = tree.sharing.as_ref().map(Sharing::finish);
    Ok(Unpacked {
        guard,
        content: nar.into_inner().finish(),
    })
}

struct Unpacker<'a, R> {
    nar: nar::NarReader<Hashed<R>>,
    /// The directories that are being read, outermost first.
    open: Vec<Arc<Directory>>,
    batch: BatchWriter<'a>,
    tree: Arc<Tree>,
    crowding: Crowding,
}

impl<R: Chunks> Unpacker<'_, R> {
    fn run(&mut self, destination: &Destination) -> Result<(), UnpackError> {
        let root = Arc::new(Directory::outside(Arc::clone(&destination.parent)));
        while let Some(event) = self.nar.next()? {
            let parent = Arc::clone(self.open.last().unwrap_or(&root));
            match event {
                NarEvent::Directory { name } => {
                    let name = name.unwrap_or_else(|| destination.name.clone());
                    let crowding = &mut self.crowding;
                    self.open
                        .push(Directory::create(&self.tree, crowding, parent, name)?);
                }
                NarEvent::DirectoryEnd => {
                    drop(parent);
                    if let Some(directory) = self.open.pop() {
                        directory::release(&self.tree, directory)?;
                    }
                }
                NarEvent::Symlink { name, target } => {
                    let name = name.unwrap_or_else(|| destination.name.clone());
                    self.symlink(&parent, &name, &target)?;
                }
                NarEvent::File {
                    name,
                    executable,
                    size,
                } => {
                    let name = name.unwrap_or_else(|| destination.name.clone());
                    self.file(parent, name, executable, size)?;
                }
            }
            self.tree.check()?;
        }
        Ok(())
    }

    fn file(
        &mut self,
        parent: Arc<Directory>,
        name: EntryName,
        executable: bool,
        size: u64,
    ) -> Result<(), UnpackError> {
        let mut contents = FileContents::new(self.nar.contents(), size);
        if self.tree.sharing.is_some() && size >= DEDUPLICATE_MIN_BYTES {
            contents = contents.hashed(executable);
        }
        if size <= SMALL_FILE_MAX_BYTES {
            return self.batch.push(parent, name, executable, size, contents);
        }
        let file = large_file::LargeFile {
            parent: &parent,
            name: &name,
            executable,
            size,
        };
        file.write(&self.tree, contents)?;
        directory::release(&self.tree, parent)
    }

    fn symlink(
        &self,
        parent: &Directory,
        name: &EntryName,
        target: &SymlinkTarget,
    ) -> Result<(), UnpackError> {
        let failed =
            |source: rustix::io::Errno| self.tree.error("making symlink", parent, name, source);
        rustix::fs::symlinkat(target.as_bytes(), parent.fd(), name.as_bytes()).map_err(failed)?;
        self.tree.note_created_in(parent);
        canonical::settle_symlink(parent.fd(), &c_name(name)).map_err(failed)
    }
}

/// `name` for system calls that do not take bytes.
fn c_name(name: &EntryName) -> CString {
    CString::new(name.as_bytes()).expect("an entry name has no NUL")
}

/// Opens the directory at `path`, to put trees into it.
///
/// # Errors
/// It does not exist, is not a directory, or may not be opened.
pub(crate) fn open_directory(path: &Path) -> io::Result<Arc<OwnedFd>> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(Arc::new(rustix::fs::open(path, flags, Mode::empty())?))
}
