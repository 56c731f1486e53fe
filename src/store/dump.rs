//! The nar of an item, read from its tree on the disk.
//!
//! Nothing is taken from the database, and no link is followed. One directory is open at a time,
//! so that no tree is too deep: the one above is opened again through `..`, and must be the same.
//! Entries are listed and sorted in memory, one directory for each level.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::vec;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::fs::{fstat, openat, readlinkat, statat};

use super::handle::Store;
use crate::format::hash::NarHash;
use crate::format::nar::{EntryName, NarWriter, SymlinkTarget};
use crate::format::sha256::Sha256;
use crate::format::store_path::StorePath;

/// Bytes that are read from a file at a time.
const BUFFER_BYTES: usize = 128 << 10;

impl Store {
    /// Writes the nar of the tree of `item` to `out`. Whether the item is valid is not checked.
    ///
    /// # Errors
    /// The tree cannot be read, or has an entry that no nar can have; or `out` fails.
    pub(crate) fn dump(&self, item: &StorePath, out: impl Write) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
        dump_tree(self.links().store().as_fd(), item.base(), &mut out)?;
        out.flush()
    }

    /// The hash and the size of the nar of the tree of `item`. Each byte is added to `bytes` when it is
    /// read.
    ///
    /// # Errors
    /// The tree cannot be read, or has an entry that no nar can have.
    pub(crate) fn hash_of_tree(
        &self,
        item: &StorePath,
        bytes: &AtomicU64,
    ) -> io::Result<(NarHash, u64)> {
        let mut hasher = HashingWriter {
            hash: Sha256::new(),
            size: 0,
            bytes,
        };
        self.dump(item, &mut hasher)?;
        Ok((NarHash::from_bytes(hasher.hash.finish()), hasher.size))
    }
}

/// Hashes and counts what is written.
struct HashingWriter<'a> {
    hash: Sha256,
    size: u64,
    /// Bytes of all nars.
    bytes: &'a AtomicU64,
}

impl Write for HashingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A directory whose entries are being written.
struct DumpedDirectory {
    /// Those that have not been written yet, in the order of a nar.
    entries: vec::IntoIter<EntryName>,
    /// Its device and inode.
    identity: (u64, u64),
}

impl DumpedDirectory {
    fn read(directory: &OwnedFd) -> io::Result<Self> {
        let mut entries = Vec::new();
        for entry in Dir::read_from(directory)? {
            // This leaves out `.` and `..`, which are no names of entries.
            entries.extend(EntryName::new(entry?.file_name().to_bytes()));
        }
        entries.sort_unstable();

        Ok(Self {
            entries: entries.into_iter(),
            identity: identity(&fstat(directory)?),
        })
    }

    /// Opens this directory again, from one of those in it.
    fn reopen(&self, below: &OwnedFd) -> io::Result<OwnedFd> {
        let directory = openat(below, "..", DIRECTORY, Mode::empty())?;
        if identity(&fstat(&directory)?) != self.identity {
            return Err(io::Error::other("a directory was moved meanwhile"));
        }
        Ok(directory)
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Writes the nar of the entry `name` of `parent`.
fn dump_tree(parent: BorrowedFd<'_>, name: &str, out: &mut impl Write) -> io::Result<()> {
    let mut writer = NarWriter::new(out);
    let Some(mut current) = write_node(&mut writer, parent, OsStr::new(name), None)? else {
        return writer.finish().map(drop);
    };

    let mut levels = vec![DumpedDirectory::read(&current)?];
    while let Some(level) = levels.last_mut() {
        if let Some(entry) = level.entries.next() {
            let name = entry.as_os_str();
            if let Some(below) = write_node(&mut writer, current.as_fd(), name, Some(&entry))? {
                levels.push(DumpedDirectory::read(&below)?);
                current = below;
            }
            continue;
        }

        writer.end_directory()?;
        levels.pop();
        if let Some(above) = levels.last() {
            current = above.reopen(&current)?;
        }
    }

    writer.finish().map(drop)
}

/// Writes the file or symlink `name` of `parent`, or the beginning of a directory, which is
/// returned.
fn write_node<W: Write>(
    writer: &mut NarWriter<W>,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    shown: Option<&EntryName>,
) -> io::Result<Option<OwnedFd>> {
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            // A FIFO that has taken its place must not stop the program.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = File::from(openat(parent, name, flags, Mode::empty())?);
            let stat = fstat(&file)?;
            let is_executable = Mode::from_raw_mode(stat.st_mode).contains(Mode::XUSR);
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            writer.file(shown, is_executable, size, file)?;
            Ok(None)
        }
        FileType::Symlink => {
            let target = readlinkat(parent, name, Vec::new())?;
            let target = SymlinkTarget::new(target.as_bytes());
            let target = target.ok_or_else(|| io::Error::other("a symlink has no target"))?;
            writer.symlink(shown, &target)?;
            Ok(None)
        }
        FileType::Directory => {
            let directory = openat(parent, name, DIRECTORY, Mode::empty())?;
            writer.directory(shown)?;
            Ok(Some(directory))
        }
        _ => Err(io::Error::other(
            "an entry is neither a file, a directory nor a symlink",
        )),
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn dumped(directory: &std::path::Path, name: &str) -> Vec<u8> {
        let parent = File::open(directory).unwrap();
        let mut nar = Vec::new();
        dump_tree(parent.as_fd(), name, &mut nar).unwrap();
        nar
    }

    #[test]
    fn the_nar_of_a_tree_has_its_entries_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("top");
        std::fs::create_dir_all(top.join("b/c")).unwrap();
        std::fs::write(top.join("b/file"), "text").unwrap();
        std::fs::write(top.join("program"), "run").unwrap();
        std::fs::set_permissions(top.join("program"), PermissionsExt::from_mode(0o755)).unwrap();
        symlink("b/file", top.join("a")).unwrap();

        let name = |text: &str| EntryName::new(text.as_bytes()).unwrap();
        let mut expected = NarWriter::new(Vec::new());
        expected.directory(None).unwrap();
        let target = SymlinkTarget::new(b"b/file").unwrap();
        expected.symlink(Some(&name("a")), &target).unwrap();
        expected.directory(Some(&name("b"))).unwrap();
        expected.directory(Some(&name("c"))).unwrap();
        expected.end_directory().unwrap();
        expected
            .file(Some(&name("file")), false, 4, &b"text"[..])
            .unwrap();
        expected.end_directory().unwrap();
        expected
            .file(Some(&name("program")), true, 3, &b"run"[..])
            .unwrap();
        expected.end_directory().unwrap();

        assert_eq!(dumped(directory.path(), "top"), expected.finish().unwrap());
    }

    #[test]
    fn a_deep_tree_needs_few_descriptors() {
        const LEVELS: usize = 1500;
        let directory = tempfile::tempdir().unwrap();
        let mut at = OwnedFd::from(File::open(directory.path()).unwrap());
        for _ in 0..LEVELS {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = openat(&at, "d", DIRECTORY, Mode::empty()).unwrap();
        }
        let nar = dumped(directory.path(), "d");
        let count = nar.windows(9).filter(|bytes| bytes == b"directory").count();
        assert_eq!(count, LEVELS);
        super::super::remove::remove_tree(directory.path(), "d").unwrap();
    }
}
