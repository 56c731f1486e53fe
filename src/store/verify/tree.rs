//! The hash of one tree, read from the disk as the nar that it is; and the attributes on the way.
//!
//! Everything is reached through directory descriptors, and no link is followed. One directory for each
//! level is open at a time.

use std::ffi::OsStr;
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::fs::{openat, readlinkat, statat};
use rustix::io::Errno;

use crate::format::hash::NarHash;
use crate::format::nar::{self, EntryName, NarWriter, SymlinkTarget};
use crate::format::sha256::Sha256;

use super::attributes::{AttributeFaults, StoreOwners, is_executable};
use super::findings::VerifyTally;
use super::noted_files::NotedFiles;

/// Bytes of a file that are read at once.
const BUFFER_BYTES: usize = 128 << 10;

/// Reads trees of one store, one after the other; each thread has its own.
pub(super) struct TreeReader<'a> {
    store: BorrowedFd<'a>,
    owners: StoreOwners,
    noted: Option<&'a NotedFiles>,
    tally: &'a VerifyTally,
    buffer: Vec<u8>,
}

/// What was found of a tree.
pub(super) struct TreeContent {
    pub(super) hash: NarHash,
    pub(super) size: u64,
    pub(super) attributes: AttributeFaults,
}

/// Why there is no hash of a tree.
#[derive(Debug)]
pub(super) enum TreeFailure {
    /// There is nothing of that name.
    Missing,
    /// Something in it has no place in a nar, such as a FIFO.
    NotInNar(PathBuf),
    /// Something in it cannot be read.
    Unreadable {
        /// Its name below the item; empty for the item itself.
        path: PathBuf,
        source: io::Error,
    },
}

/// A tree that is being read.
struct TreeWalk {
    nar: NarWriter<HashedNar>,
    /// From the top to the innermost one.
    directories: Vec<WalkedDirectory>,
    attributes: AttributeFaults,
}

struct WalkedDirectory {
    fd: OwnedFd,
    name: EntryName,
    /// What is left, the next one last.
    names: Vec<EntryName>,
}

impl TreeWalk {
    /// The name below the item of the entry `name` in the innermost directory.
    fn path_of(&self, name: &EntryName) -> PathBuf {
        let Some((_, below)) = self.directories.split_first() else {
            return PathBuf::new();
        };
        let names = below.iter().map(|directory| directory.name.as_os_str());
        names.chain([name.as_os_str()]).collect()
    }

    fn unreadable(&self, name: &EntryName, source: impl Into<io::Error>) -> TreeFailure {
        TreeFailure::Unreadable {
            path: self.path_of(name),
            source: source.into(),
        }
    }
}

impl<'a> TreeReader<'a> {
    /// Reads trees in the open directory `store`: that of the items, whose files with several names are
    /// `noted`, or `.links`, where each entry is a tree of one file.
    pub(super) fn new(
        store: BorrowedFd<'a>,
        owners: StoreOwners,
        noted: Option<&'a NotedFiles>,
        tally: &'a VerifyTally,
    ) -> Self {
        Self {
            store,
            owners,
            noted,
            tally,
            buffer: vec![0; BUFFER_BYTES],
        }
    }

    /// Reads the tree of the item with this base name.
    pub(super) fn read(&mut self, base: &str) -> Result<TreeContent, TreeFailure> {
        let top = EntryName::new(base.as_bytes()).ok_or(TreeFailure::Missing)?;
        let mut walk = TreeWalk {
            nar: NarWriter::new(HashedNar::default()),
            directories: Vec::new(),
            attributes: AttributeFaults::default(),
        };

        self.node(&mut walk, top)?;
        while let Some(directory) = walk.directories.last_mut() {
            if let Some(name) = directory.names.pop() {
                self.node(&mut walk, name)?;
                continue;
            }
            let name = directory.name.clone();
            let ended = walk.nar.end_directory();
            ended.map_err(|source| walk.unreadable(&name, source))?;
            walk.directories.pop();
        }

        let content = walk
            .nar
            .finish()
            .map_err(|source| TreeFailure::Unreadable {
                path: PathBuf::new(),
                source,
            })?;
        Ok(TreeContent {
            hash: NarHash::from_bytes(content.hash.finish()),
            size: content.size,
            attributes: walk.attributes,
        })
    }

    /// Reads the entry `name` of the innermost directory, or the top. The entries of a directory are
    /// only listed.
    fn node(&mut self, walk: &mut TreeWalk, name: EntryName) -> Result<(), TreeFailure> {
        let is_top = walk.directories.is_empty();
        let stat = match statat(
            self.parent(walk),
            name.as_bytes(),
            AtFlags::SYMLINK_NOFOLLOW,
        ) {
            Ok(stat) => stat,
            Err(Errno::NOENT) if is_top => return Err(TreeFailure::Missing),
            Err(error) => return Err(walk.unreadable(&name, error)),
        };
        let wrong = self.owners.wrong_attributes(&stat);
        if !wrong.is_empty() {
            let path = walk.path_of(&name);
            walk.attributes.add(&wrong, || path.clone());
        }

        let read = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(walk, &name, &stat),
            FileType::Symlink => self.symlink(walk, &name),
            FileType::Directory => self.directory(walk, &name),
            _ => return Err(TreeFailure::NotInNar(walk.path_of(&name))),
        };
        match read {
            Ok(None) => Ok(()),
            Ok(Some(directory)) => {
                walk.directories.push(directory);
                Ok(())
            }
            Err(source) => Err(walk.unreadable(&name, source)),
        }
    }

    /// The directory that the next entry of `walk` is in.
    fn parent<'w>(&self, walk: &'w TreeWalk) -> BorrowedFd<'w>
    where
        'a: 'w,
    {
        let innermost = walk.directories.last();
        innermost.map_or(self.store, |directory| directory.fd.as_fd())
    }

    fn file(
        &mut self,
        walk: &mut TreeWalk,
        name: &EntryName,
        stat: &Stat,
    ) -> io::Result<Option<WalkedDirectory>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = openat(self.parent(walk), name.as_bytes(), flags, Mode::empty())?;
        let mut file = std::fs::File::from(opened);
        let (is_executable, size) = (is_executable(stat), stat_size(stat));
        let noted = self.noted.filter(|noted| noted.wants(stat));
        let mut own = noted.map(|_| FileHash::new(is_executable, size));

        let entry = Some(name).filter(|_| !walk.directories.is_empty());
        walk.nar.begin_file(entry, is_executable, size)?;
        let mut left = size;
        while left > 0 {
            let wanted = usize::try_from(left).map_or(BUFFER_BYTES, |left| left.min(BUFFER_BYTES));
            let count = file.read(&mut self.buffer[..wanted])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let bytes = &self.buffer[..count];
            match &mut own {
                Some(own) => walk.nar.stream().add_with(bytes, &mut own.hash),
                None => walk.nar.stream().add(bytes),
            }
            left -= count as u64;
            self.tally.add_bytes(count as u64);
        }
        walk.nar.end_file(size)?;

        if let (Some(noted), Some(own)) = (noted, own) {
            noted.note(stat.st_ino, own.finish());
        }
        Ok(None)
    }

    fn symlink(
        &mut self,
        walk: &mut TreeWalk,
        name: &EntryName,
    ) -> io::Result<Option<WalkedDirectory>> {
        let target = symlink_target(self.parent(walk), name.as_bytes())?;
        let entry = Some(name).filter(|_| !walk.directories.is_empty());
        walk.nar.symlink(entry, &target)?;
        Ok(None)
    }

    fn directory(
        &mut self,
        walk: &mut TreeWalk,
        name: &EntryName,
    ) -> io::Result<Option<WalkedDirectory>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(self.parent(walk), name.as_bytes(), flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&fd)? {
            names.extend(EntryName::new(entry?.file_name().to_bytes()));
        }
        names.sort_unstable_by(|one, other| other.cmp(one));

        let entry = Some(name).filter(|_| !walk.directories.is_empty());
        walk.nar.directory(entry)?;
        Ok(Some(WalkedDirectory {
            fd,
            name: name.clone(),
            names,
        }))
    }
}

/// The target of the symlink `name` in `directory`.
fn symlink_target(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<SymlinkTarget> {
    let target = readlinkat(directory, OsStr::from_bytes(name), Vec::new())?;
    SymlinkTarget::new(target.to_bytes()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The length of a file.
fn stat_size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// The hash of the nar of one file, which names it in `.links`.
struct FileHash {
    hash: Sha256,
    size: u64,
}

impl FileHash {
    fn new(is_executable: bool, size: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(&nar::file_header(is_executable, size));
        Self { hash, size }
    }

    fn finish(mut self) -> [u8; 32] {
        self.hash.update(nar::file_trailer(self.size));
        self.hash.finish()
    }
}

/// A nar of which only the hash and the size are kept.
#[derive(Default)]
struct HashedNar {
    hash: Sha256,
    size: u64,
}

impl HashedNar {
    fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// The same, and `other` hashes the bytes too, in step.
    fn add_with(&mut self, bytes: &[u8], other: &mut Sha256) {
        self.hash.update_both(bytes, other, bytes);
        self.size += bytes.len() as u64;
    }
}

impl Write for HashedNar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
