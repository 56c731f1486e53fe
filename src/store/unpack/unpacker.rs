//! Reads a nar and makes the tree that it describes.

use std::sync::Arc;

use crate::format::nar::{EntryName, NarEvent, NarReader, SymlinkTarget};
use crate::format::store_path::Dialect;
use crate::store::deduplicate::Links;
use crate::store::fingerprint::DEDUPLICATE_MIN_BYTES;

use super::batch::BatchWriter;
use super::crowding::Crowding;
use super::destination::Destination;
use super::directory::{self, Directory, c_name};
use super::error::UnpackError;
use super::hashed::{Chunks, FileContents, Hashed};
use super::large_file::LargeFile;
use super::pool::WriterPool;
use super::stages::Unpacked;
use super::temporary_tree::TemporaryTree;
use super::tree::Tree;
use super::tree_deduplication::TreeDeduplication;

/// Larger files are written while they stream by instead of from memory.
pub(crate) const SMALL_FILE_MAX_BYTES: u64 = 1 << 20;

/// Reads the nar `nar` for a store of `dialect` to its end and makes the tree it describes at `destination`. Files of
/// at least the deduplication size go through `links`, when given.
///
/// # Errors
/// The nar is malformed or unreadable, or the tree cannot be written; nothing is left behind.
pub(crate) fn unpack<R: Chunks>(
    nar: R,
    dialect: Dialect,
    destination: Destination,
    pool: &WriterPool,
    links: Option<Arc<Links>>,
) -> Result<Unpacked, UnpackError> {
    let deduplication =
        links.map(|links| TreeDeduplication::new(links, Arc::clone(&destination.parent)));
    let tree = Arc::new(Tree::new(deduplication, destination.owner));
    let mut guard = TemporaryTree {
        destination,
        top: Arc::default(),
        new_entries: None,
        reserve: Arc::clone(pool.reserve()),
    };

    let mut unpacker = Unpacker {
        nar: NarReader::new(Hashed::new(nar), dialect),
        open: Vec::new(),
        batch: BatchWriter::new(pool, Arc::clone(&tree)),
        tree: Arc::clone(&tree),
        crowding: Crowding::default(),
    };
    let read = unpacker.run(&guard);

    // Writers may still be at work below the destination: let them finish before anything
    // is removed, whether this succeeded or not.
    let Unpacker {
        nar, open, batch, ..
    } = unpacker;
    drop(open);
    batch.flush();
    let written = tree.wait();
    read.and(written)?;

    guard.new_entries = tree.deduplication.as_ref().map(TreeDeduplication::finish);
    Ok(Unpacked {
        guard,
        content: nar.into_inner().finish(),
    })
}

struct Unpacker<'a, R> {
    nar: NarReader<Hashed<R>>,
    /// The directories that are being read, outermost first.
    open: Vec<Arc<Directory>>,
    batch: BatchWriter<'a>,
    tree: Arc<Tree>,
    crowding: Crowding,
}

impl<R: Chunks> Unpacker<'_, R> {
    /// Reads the nar to its end, for the tree of `guard`.
    fn run(&mut self, guard: &TemporaryTree) -> Result<(), UnpackError> {
        let destination = &guard.destination;
        let outside = Arc::new(Directory::outside(
            Arc::clone(&destination.parent),
            &destination.parent_path,
            Arc::clone(&guard.top),
        ));

        while let Some(event) = self.nar.next()? {
            let parent = Arc::clone(self.open.last().unwrap_or(&outside));
            match event {
                NarEvent::Directory { name } => {
                    let name = name.unwrap_or_else(|| destination.name.clone());
                    self.open.push(Directory::create(
                        &self.tree.created_modes,
                        &mut self.crowding,
                        parent,
                        name,
                    )?);
                }
                NarEvent::DirectoryEnd => {
                    drop(parent);
                    if let Some(directory) = self.open.pop() {
                        directory::release(directory)?;
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
        if self.tree.deduplication.is_some() && size >= DEDUPLICATE_MIN_BYTES {
            contents = contents.hashed(executable);
        }

        if size <= SMALL_FILE_MAX_BYTES {
            return self.batch.push(parent, name, executable, size, contents);
        }
        let file = LargeFile {
            parent: &parent,
            name: &name,
            executable,
            size,
            pool: self.batch.pool(),
        };
        file.write(&self.tree, contents)?;
        directory::release(parent)
    }

    fn symlink(
        &self,
        parent: &Directory,
        name: &EntryName,
        target: &SymlinkTarget,
    ) -> Result<(), UnpackError> {
        rustix::fs::symlinkat(target.as_bytes(), parent.fd(), name.as_bytes())
            .inspect(|()| parent.note_created())
            .and_then(|()| {
                let created_modes = &self.tree.created_modes;
                created_modes.settle_symlink(parent.fd(), &c_name(name))
            })
            .map_err(|source| parent.error("making symlink", name, source))
    }
}
