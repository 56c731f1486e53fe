//! Small files, gathered in memory and written together.
//!
//! One batch is one hand-over between threads: waking a writer for each of 50,000 files would
//! cost more than writing them. The bytes of all files of a batch lie in one buffer.

use std::io::BufRead;
use std::ops::Range;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use sha2::{Digest, Sha256};

use crate::format::nar::{self, EntryName, NarError};
use crate::store::canonical;
use crate::store::{DEDUPLICATE_MIN_BYTES, Linked};

use super::directory::{self, Directory};
use super::pool::CreatedModes;
use super::tree::{Pending, Tree};
use super::{UnpackError, WriterPool, c_name};

/// A batch is handed over when it holds this many bytes,
const BATCH_BYTES: usize = 256 << 10;
/// or this many files.
const BATCH_FILES: usize = 64;

/// Files of one tree, ready to be written.
pub(super) struct Batch {
    tree: Arc<Tree>,
    files: Vec<SmallFile>,
    bytes: Vec<u8>,
}

struct SmallFile {
    parent: Arc<Directory>,
    name: EntryName,
    executable: bool,
    contents: Range<usize>,
}

/// Fills batches and hands them to the pool.
pub(super) struct BatchWriter<'a> {
    pool: &'a WriterPool,
    batch: Batch,
}

impl<'a> BatchWriter<'a> {
    pub(super) fn new(pool: &'a WriterPool, tree: Arc<Tree>) -> Self {
        Self { batch: Batch { tree, files: Vec::new(), bytes: pool.buffer() }, pool }
    }

    /// Reads the `size` bytes of a file and adds it to the batch.
    pub(super) fn push<R: BufRead>(
        &mut self,
        parent: Arc<Directory>,
        name: EntryName,
        executable: bool,
        size: u64,
        mut contents: nar::Contents<'_, R>,
    ) -> Result<(), UnpackError> {
        let start = self.batch.bytes.len();
        self.batch.bytes.reserve(usize::try_from(size).unwrap_or(0));
        loop {
            let available = contents.fill_buf().map_err(NarError::from)?;
            if available.is_empty() {
                break;
            }
            self.batch.bytes.extend_from_slice(available);
            let taken = available.len();
            contents.consume(taken);
        }
        let contents = start..self.batch.bytes.len();
        self.batch.files.push(SmallFile { parent, name, executable, contents });
        if self.batch.bytes.len() >= BATCH_BYTES || self.batch.files.len() >= BATCH_FILES {
            self.hand_over();
        }
        Ok(())
    }

    /// Hands over what is left.
    pub(super) fn flush(mut self) {
        self.hand_over();
    }

    fn hand_over(&mut self) {
        let tree = Arc::clone(&self.batch.tree);
        let empty = Batch { tree, files: Vec::new(), bytes: self.pool.buffer() };
        let full = std::mem::replace(&mut self.batch, empty);
        if !full.files.is_empty() {
            let pending = full.tree.begin_batch();
            self.pool.write(Job { batch: full, pending });
        }
    }
}

/// A batch on its way, which its tree waits for.
pub(super) struct Job {
    batch: Batch,
    pending: Pending,
}

impl Job {
    /// Writes every file, tells the tree, and gives the buffer back for the next batch.
    pub(super) fn run(self) -> Vec<u8> {
        let (result, buffer) = self.batch.write();
        self.pending.end(result);
        buffer
    }
}

impl Batch {
    fn write(mut self) -> (Result<(), UnpackError>, Vec<u8>) {
        let mut result = Ok(());
        for file in self.files.drain(..) {
            if result.is_ok() && !self.tree.has_failed() {
                result = file.write(&self.tree, &self.bytes[file.contents.clone()]);
            }
            let released = directory::release(&self.tree, file.parent);
            result = result.and(released);
        }
        self.bytes.clear();
        (result, self.bytes)
    }
}

impl SmallFile {
    fn write(&self, tree: &Tree, contents: &[u8]) -> Result<(), UnpackError> {
        let size = contents.len() as u64;
        let Some(links) = tree.links.as_deref().filter(|_| size >= DEDUPLICATE_MIN_BYTES) else {
            return self.create(tree, contents);
        };
        let hash = self.deduplication_hash(contents);
        let name = c_name(&self.name);
        match links.link_existing(&hash, size, self.parent.fd(), &name)? {
            Linked::Linked => Ok(()),
            Linked::Unusable => self.create(tree, contents),
            Linked::Absent => {
                self.create(tree, contents)?;
                links.publish(&hash, self.parent.fd(), &name, size)?;
                Ok(())
            }
        }
    }

    fn create(&self, tree: &Tree, contents: &[u8]) -> Result<(), UnpackError> {
        let failed = |action| move |source| tree.error(action, &self.parent, &self.name, source);
        let mode = file_mode(self.executable);
        let file = create_file(&self.parent, &self.name, mode).map_err(failed("creating"))?;
        let mut rest = contents;
        while !rest.is_empty() {
            let written = rustix::io::write(&file, rest).map_err(failed("writing"))?;
            rest = &rest[written..];
        }
        settle_file(&file, mode, tree.created_modes).map_err(failed("closing"))
    }

    fn deduplication_hash(&self, contents: &[u8]) -> [u8; 32] {
        let size = contents.len() as u64;
        let mut hasher = Sha256::new();
        hasher.update(nar::file_header(self.executable, size));
        hasher.update(contents);
        hasher.update(nar::file_trailer(size));
        hasher.finalize().into()
    }
}

/// Makes a new file: never through a symlink, never an existing one.
pub(super) fn create_file(
    parent: &Directory,
    name: &EntryName,
    mode: Mode,
) -> rustix::io::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent.fd(), name.as_bytes(), flags, mode)
}

/// The mode of a file.
pub(super) fn file_mode(executable: bool) -> Mode {
    if executable { canonical::EXECUTABLE_MODE } else { canonical::FILE_MODE }
}

/// Gives a file that is complete its times, and its mode where the umask took some of it away.
pub(super) fn settle_file(
    file: &std::os::fd::OwnedFd,
    mode: Mode,
    modes: CreatedModes,
) -> rustix::io::Result<()> {
    match modes {
        CreatedModes::Exact => canonical::settle_times(file),
        CreatedModes::Masked => canonical::settle(file, mode),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A tree in `directory`, and the file `name` of it, of `size` bytes.
    fn one_file(directory: &std::path::Path, name: &str, size: usize) -> (Arc<Tree>, SmallFile) {
        let fd = super::super::open_directory(directory).unwrap();
        let parent = Arc::new(Directory::outside(fd));
        let name = EntryName::new(name.as_bytes()).unwrap();
        let file = SmallFile { parent, name, executable: false, contents: 0..size };
        (Arc::new(Tree::new(CreatedModes::Masked, None, directory)), file)
    }

    /// What the tree says in the end; a test that hangs says nothing.
    fn outcome(tree: Arc<Tree>) -> Result<(), UnpackError> {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        std::thread::spawn(move || sender.send(tree.wait()));
        receiver.recv_timeout(Duration::from_secs(20)).expect("the wait ends")
    }

    fn hand_over(pool: &WriterPool, tree: &Arc<Tree>, file: SmallFile, bytes: &[u8]) {
        let mut writer = BatchWriter::new(pool, Arc::clone(tree));
        writer.batch.files.push(file);
        writer.batch.bytes.extend(bytes);
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
