//! Small files, gathered in memory and written together.
//!
//! A batch is handed to a writer thread as a whole: waking a writer for each of 50,000 files would
//! cost more than writing them. A file that is in one chunk of the nar is written from there; one
//! that continues in the next chunk is copied to a buffer of its batch.
//!
//! Chunks come from a pool that all decoders wait for. A batch never keeps more than one of them
//! while its reader waits for the next: see [`BatchWriter::push`].

use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::OFlags;

use crate::format::nar::{EntryName, NarError};
use crate::store::canonical;
use crate::store::deduplicate::LinkOutcome;
use crate::store::fingerprint::Fingerprint;

use super::created_modes::UNFINISHED_FILE;
use super::directory::{self, Directory};
use super::error::UnpackError;
use super::hashed::{Chunks, FileContents};
use super::pool::WriterPool;
use super::tree::Tree;

/// A batch is handed over when it holds this many bytes,
const BATCH_BYTES: usize = 256 << 10;
/// or this many files.
const BATCH_FILES: usize = 64;

/// Files of one tree, ready to be written.
pub(super) struct Batch {
    tree: Arc<Tree>,
    files: Vec<SmallFile>,
    /// How many bytes they have together.
    bytes: usize,
    /// The number of the chunk that their shared bytes are in.
    chunk: u64,
    /// The bytes of its first file, if those are in no chunk alone.
    copied: Option<Vec<u8>>,
}

struct SmallFile {
    parent: Arc<Directory>,
    name: EntryName,
    executable: bool,
    contents: Contents,
    /// For `.links`; `None` when the file does not go there.
    digest: Option<[u8; 32]>,
}

/// Where the bytes of a file are.
enum Contents {
    /// In a chunk of the nar.
    Shared(Bytes),
    /// This many bytes, in the buffer of the batch.
    Copied(usize),
}

/// Fills batches and hands them to the pool.
pub(super) struct BatchWriter<'a> {
    pool: &'a WriterPool,
    batch: Batch,
}

impl<'a> BatchWriter<'a> {
    pub(super) fn new(pool: &'a WriterPool, tree: Arc<Tree>) -> Self {
        Self {
            batch: Batch::new(tree),
            pool,
        }
    }

    /// What writes the batches.
    pub(super) fn pool(&self) -> &'a WriterPool {
        self.pool
    }

    /// Reads the `size` bytes of a file and adds it to the batch. A batch with files of an earlier
    /// chunk is handed over first.
    pub(super) fn push<R: Chunks>(
        &mut self,
        parent: Arc<Directory>,
        name: EntryName,
        executable: bool,
        size: u64,
        mut contents: FileContents<'_, R>,
    ) -> Result<(), UnpackError> {
        let first = contents.next_bytes().map_err(NarError::from)?;
        let is_whole = first.len() as u64 == size;
        if self.batch.chunk != contents.chunk() || !is_whole {
            self.hand_over();
        }
        let bytes = if is_whole {
            Contents::Shared(first)
        } else {
            self.copy(&first, size, &mut contents)?
        };
        self.batch.chunk = contents.chunk();
        let digest = contents.digest();
        self.batch.bytes += bytes.len();
        self.batch.files.push(SmallFile {
            parent,
            name,
            executable,
            contents: bytes,
            digest,
        });
        if self.batch.bytes >= BATCH_BYTES || self.batch.files.len() >= BATCH_FILES {
            self.hand_over();
        }
        Ok(())
    }

    /// Copies `first` and what follows of `contents`, `size` bytes in all, to a buffer for the batch,
    /// which has no files.
    fn copy<R: Chunks>(
        &mut self,
        first: &[u8],
        size: u64,
        contents: &mut FileContents<'_, R>,
    ) -> Result<Contents, UnpackError> {
        let copied = self.batch.copied.insert(self.pool.buffer());
        copied.reserve(usize::try_from(size).unwrap_or_default());
        copied.extend_from_slice(first);
        loop {
            let bytes = contents.next_bytes().map_err(NarError::from)?;
            if bytes.is_empty() {
                return Ok(Contents::Copied(copied.len()));
            }
            copied.extend_from_slice(&bytes);
        }
    }

    /// Hands over what is left.
    pub(super) fn flush(mut self) {
        self.hand_over();
    }

    fn hand_over(&mut self) {
        if self.batch.files.is_empty() {
            return;
        }
        let empty = Batch::new(Arc::clone(&self.batch.tree));
        let full = std::mem::replace(&mut self.batch, empty);
        let pending = full.tree.begin_batch();
        self.pool.count_written(full.bytes);
        self.pool.run(move || {
            let (result, buffer) = full.write();
            pending.end(result);
            buffer
        });
    }
}

impl Contents {
    fn len(&self) -> usize {
        match self {
            Self::Shared(bytes) => bytes.len(),
            Self::Copied(length) => *length,
        }
    }
}

impl Batch {
    fn new(tree: Arc<Tree>) -> Self {
        Self {
            tree,
            files: Vec::new(),
            bytes: 0,
            chunk: 0,
            copied: None,
        }
    }

    fn write(mut self) -> (Result<(), UnpackError>, Option<Vec<u8>>) {
        let mut result = Ok(());
        let copied = self.copied.as_deref().unwrap_or_default();
        for file in self.files.drain(..) {
            if result.is_ok() && !self.tree.has_failed() {
                let contents = match &file.contents {
                    Contents::Shared(bytes) => bytes,
                    Contents::Copied(length) => &copied[..*length],
                };
                result = file.write(&self.tree, contents);
            }
            result = result.and(directory::release(file.parent));
        }
        (result, self.copied)
    }
}

impl SmallFile {
    fn write(&self, tree: &Tree, contents: &[u8]) -> Result<(), UnpackError> {
        let (Some(deduplication), Some(hash)) = (&tree.deduplication, self.digest) else {
            return self.create(tree, contents);
        };
        let file = Fingerprint {
            hash,
            size: contents.len() as u64,
            executable: self.executable,
        };

        match deduplication.link(&file, &self.parent, &self.name)? {
            LinkOutcome::Done => self.parent.note_created(),
            LinkOutcome::Unusable => self.create(tree, contents)?,
            LinkOutcome::Absent => {
                self.create(tree, contents)?;
                deduplication.note_or_link(&file, &self.parent, &self.name)?;
            }
            LinkOutcome::NotCompared => {
                self.create(tree, contents)?;
                deduplication.link_to_entry_or_note(&file, &self.parent, &self.name)?;
            }
        }
        Ok(())
    }

    fn create(&self, tree: &Tree, contents: &[u8]) -> Result<(), UnpackError> {
        let file = create_file(&self.parent, &self.name, self.executable)?;

        let mut rest = contents;
        while !rest.is_empty() {
            let written = rustix::io::write(&file, rest)
                .map_err(|source| self.parent.error("writing", &self.name, source))?;
            rest = &rest[written..];
        }

        tree.created_modes
            .settle_file(file, self.executable)
            .map_err(|source| self.parent.error("closing", &self.name, source))
    }
}

/// Makes a new file: never through a symlink, never an existing one. It has its final mode at
/// once, because directories of the tree are private until the end.
pub(super) fn create_file(
    parent: &Directory,
    name: &EntryName,
    executable: bool,
) -> Result<OwnedFd, UnpackError> {
    let mode = if parent.is_outside() {
        UNFINISHED_FILE
    } else {
        canonical::file_mode(executable)
    };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(parent.fd(), name.as_bytes(), flags, mode)
        .map_err(|source| parent.error("creating", name, source))?;
    parent.note_created();
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A tree in `directory`, and the file `name` of it, of `size` bytes.
    fn one_file(directory: &std::path::Path, name: &str, size: usize) -> (Arc<Tree>, SmallFile) {
        let fd = super::super::open_directory(directory).unwrap();
        let parent = Arc::new(Directory::outside(fd, directory, Arc::default()));
        let name = EntryName::new(name.as_bytes()).unwrap();
        let file = SmallFile {
            parent,
            name,
            executable: false,
            contents: Contents::Copied(size),
            digest: None,
        };
        (Arc::new(Tree::new(None, None)), file)
    }

    /// The result of the tree; fails when there is none in time.
    fn outcome(tree: Arc<Tree>) -> Result<(), UnpackError> {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        std::thread::spawn(move || sender.send(tree.wait()));
        receiver
            .recv_timeout(Duration::from_secs(20))
            .expect("the tree has a result")
    }

    fn hand_over(pool: &WriterPool, tree: &Arc<Tree>, file: SmallFile, bytes: &[u8]) {
        let mut writer = BatchWriter::new(pool, Arc::clone(tree));
        writer.batch.files.push(file);
        writer.batch.copied = Some(bytes.to_vec());
        writer.flush();
    }

    #[test]
    fn a_writer_that_panics_is_a_failure_of_the_tree_not_the_end_of_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let pool = WriterPool::new(1).unwrap();
        // Three bytes are promised, none are there.
        let (tree, file) = one_file(directory.path(), "torn", 3);
        hand_over(&pool, &tree, file, b"");
        assert!(matches!(outcome(tree), Err(UnpackError::Panicked)));
    }

    #[test]
    fn the_others_are_written_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let pool = WriterPool::new(1).unwrap();
        let (torn, file) = one_file(directory.path(), "torn", 3);
        hand_over(&pool, &torn, file, b"");
        for name in ["queued", "later"] {
            let (tree, file) = one_file(directory.path(), name, 3);
            hand_over(&pool, &tree, file, b"abc");
            outcome(tree).unwrap();
            assert_eq!(std::fs::read(directory.path().join(name)).unwrap(), b"abc");
        }
    }
}
