//! One partial download on disk: a header that says what it is of, and the first bytes of the file.
//!
//! The file is locked as long as it is open, so that two processes never write to the same one. Its
//! contents are only a saving: after a power cut they may be anything. Whoever uses them verifies
//! the nar that results, and removes the file when that is wrong.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, fstatvfs, openat, unlinkat};
use rustix::io::Errno;

use crate::format::store_path::StorePath;
use crate::substitute::download::kept_beginning::KeptBeginning;

/// What a partial download is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SpoolHeader {
    /// The item whose nar it is.
    pub(super) item: StorePath,
    /// Names the URL, which may contain a password.
    pub(super) url_digest: String,
    /// Names the version of the file; empty when the server does not.
    pub(super) validator: String,
    /// Bytes of the whole file.
    pub(super) size: u64,
}

impl SpoolHeader {
    /// The header as it is written; `None` when it is too long.
    fn to_bytes(&self) -> Option<[u8; HEADER_BYTES]> {
        let Self {
            item,
            url_digest,
            validator,
            size,
        } = self;
        let text = format!("{MAGIC}\n{item}\n{url_digest}\n{size}\n{validator}\n");
        let mut bytes = [0; HEADER_BYTES];
        bytes
            .get_mut(..text.len())?
            .copy_from_slice(text.as_bytes());
        Some(bytes)
    }

    /// Names the version of the file, if the server does.
    pub(super) fn validator(&self) -> Option<String> {
        Some(self.validator.clone()).filter(|validator| !validator.is_empty())
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.trim_end_matches('\0').strip_suffix('\n')?.split('\n');
        if lines.next()? != MAGIC {
            return None;
        }

        let header = Self {
            item: StorePath::parse(lines.next()?).ok()?,
            url_digest: lines.next()?.to_owned(),
            size: lines.next()?.parse().ok()?,
            validator: lines.next()?.to_owned(),
        };
        lines.next().is_none().then_some(header)
    }
}

/// What was found under the name of a partial download.
#[derive(Debug)]
pub(super) enum FoundSpool {
    /// It is locked for this process now.
    Usable(SpoolFile),
    /// Another process uses it.
    Busy,
    /// There is none, or one that is not usable and was removed.
    Missing,
}

/// An open partial download.
#[derive(Debug)]
pub(super) struct SpoolFile {
    directory: Arc<OwnedFd>,
    name: String,
    file: Arc<File>,
    header: SpoolHeader,
    /// Bytes of the download that are in the file.
    bytes: AtomicU64,
    /// The most that it may have.
    limit: u64,
    /// They were used in place of a download.
    is_resumed: AtomicBool,
    is_removed: AtomicBool,
}

impl SpoolFile {
    /// Creates the file `name` of `directory`, for at most `limit` bytes.
    ///
    /// # Errors
    /// There is something of that name, or the header cannot be written; then no file is left.
    pub(super) fn create(
        directory: &Arc<OwnedFd>,
        name: &str,
        header: SpoolHeader,
        limit: u64,
    ) -> io::Result<Self> {
        let bytes = header.to_bytes().ok_or(io::ErrorKind::InvalidInput)?;
        let flags = OPEN_FLAGS | OFlags::CREATE | OFlags::EXCL;
        let file = openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?;
        let spool = Self::new(directory, name, file.into(), header, 0, limit);

        // Another process that looks at it meanwhile has it locked, and removes it.
        flock(&spool.file, FlockOperation::NonBlockingLockExclusive)?;
        if let Err(error) = spool.file.write_all_at(&bytes, 0) {
            spool.remove();
            return Err(error);
        }
        Ok(spool)
    }

    fn new(
        directory: &Arc<OwnedFd>,
        name: &str,
        file: File,
        header: SpoolHeader,
        bytes: u64,
        limit: u64,
    ) -> Self {
        Self {
            directory: Arc::clone(directory),
            name: name.to_owned(),
            file: Arc::new(file),
            header,
            bytes: AtomicU64::new(bytes),
            limit,
            is_resumed: AtomicBool::new(false),
            is_removed: AtomicBool::new(false),
        }
    }

    /// Opens and locks the file `name` of `directory`, for at most `limit` bytes. What another user may
    /// have written, and what is not a partial download, is removed.
    ///
    /// # Errors
    /// Those of the system calls.
    pub(super) fn open(directory: &Arc<OwnedFd>, name: &str, limit: u64) -> io::Result<FoundSpool> {
        let file = match openat(directory, name, OPEN_FLAGS, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(FoundSpool::Missing),
            // A link, a directory, a file without the right to read it, a socket.
            Err(Errno::LOOP | Errno::ISDIR | Errno::ACCESS | Errno::NXIO) => {
                remove_name(directory, name);
                return Ok(FoundSpool::Missing);
            }
            // The file may be good: what failed may be this machine, at this moment.
            Err(error) => return Err(error.into()),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(FoundSpool::Busy),
            Err(error) => return Err(error.into()),
        }

        let metadata = file.metadata()?;
        // Its owner before this process has removed it.
        if metadata.nlink() == 0 {
            return Ok(FoundSpool::Missing);
        }
        let is_ours = metadata.is_file()
            && metadata.nlink() == 1
            && metadata.uid() == rustix::process::geteuid().as_raw()
            && metadata.mode() & 0o077 == 0;
        let bytes = metadata.len().saturating_sub(HEADER_BYTES as u64);
        let header = is_ours.then(|| read_header(&file)).flatten();
        let Some(header) = header.filter(|header| bytes <= header.size) else {
            remove_name(directory, name);
            return Ok(FoundSpool::Missing);
        };

        let spool = Self::new(directory, name, file, header, bytes, limit);
        Ok(FoundSpool::Usable(spool))
    }

    /// What it is of.
    pub(super) fn header(&self) -> &SpoolHeader {
        &self.header
    }

    /// Bytes of the download that it has.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The most that it will take on the disk.
    pub(super) fn reserved_bytes(&self) -> u64 {
        self.header.size.min(self.limit)
    }

    /// A transfer reads its bytes and downloads only the rest.
    pub(super) fn note_resumed(&self) {
        self.is_resumed.store(true, Ordering::Relaxed);
    }

    /// Whether a transfer has read its bytes.
    pub(super) fn is_resumed(&self) -> bool {
        self.is_resumed.load(Ordering::Relaxed)
    }

    /// Whether it was removed, so that nothing is kept of it.
    pub(super) fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::SeqCst)
    }

    /// Adds the next bytes of the download.
    ///
    /// # Errors
    /// They cannot be written, or are too many, or the file was removed; some of them may be in the file.
    pub(super) fn append(&self, bytes: &[u8]) -> io::Result<()> {
        if self.is_removed() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let end = self.bytes();
        if end + bytes.len() as u64 > self.reserved_bytes() {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.file.write_all_at(bytes, HEADER_BYTES as u64 + end)?;
        // It may have been removed while this was written.
        if self.is_removed() {
            self.file.set_len(0)?;
            return Err(io::ErrorKind::NotFound.into());
        }
        self.bytes
            .store(end + bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// What it has now of the download.
    pub(super) fn beginning(&self) -> KeptBeginning {
        KeptBeginning::new(Arc::clone(&self.file), HEADER_BYTES as u64, self.bytes())
    }

    /// Bytes that are free on its file system.
    ///
    /// # Errors
    /// Those of the system call.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        let disk = fstatvfs(&self.file)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Removes the file and gives its space back, also while it is used: nothing more is written to it.
    pub(super) fn remove(&self) {
        if self.is_removed.swap(true, Ordering::SeqCst) {
            return;
        }
        remove_name(&self.directory, &self.name);
        // Whoever has it open still keeps its space otherwise.
        let _ = self.file.set_len(0);
    }
}

/// The header of a file, if it has one.
fn read_header(file: &File) -> Option<SpoolHeader> {
    let mut bytes = [0; HEADER_BYTES];
    file.read_exact_at(&mut bytes, 0).ok()?;
    SpoolHeader::parse(&bytes)
}

fn remove_name(directory: &OwnedFd, name: &str) {
    if let Err(error) = unlinkat(directory.as_fd(), name, AtFlags::empty()) {
        tracing::debug!(name, %error, "a partial download cannot be removed");
    }
}

/// A FIFO of that name must not stop the program.
const OPEN_FLAGS: OFlags = OFlags::RDWR
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// The first line of the header.
const MAGIC: &str = "subst partial download 1";

/// What the header takes: a page, so that the pages of the download are whole.
const HEADER_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// What may have been done to a file.
    type Damage = dyn Fn(&std::path::Path);

    const NAME: &str = "name";

    fn header() -> SpoolHeader {
        SpoolHeader {
            item: StorePath::parse("0f9qzp1g3jy45al4zspzqah9f8d5bisp-a").unwrap(),
            url_digest: "digest".to_owned(),
            validator: "\"a tag\"".to_owned(),
            size: 10,
        }
    }

    fn directory(path: &std::path::Path) -> Arc<OwnedFd> {
        Arc::new(File::open(path).unwrap().into())
    }

    fn open(directory: &Arc<OwnedFd>) -> FoundSpool {
        SpoolFile::open(directory, NAME, 100).unwrap()
    }

    #[test]
    fn what_was_written_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let directory = directory(dir.path());
        assert!(matches!(open(&directory), FoundSpool::Missing));
        let spool = SpoolFile::create(&directory, NAME, header(), 100).unwrap();
        spool.append(b"0123").unwrap();
        spool.append(b"45").unwrap();
        assert!(matches!(open(&directory), FoundSpool::Busy));
        drop(spool);

        let FoundSpool::Usable(spool) = open(&directory) else {
            panic!("it is not found");
        };
        assert_eq!(spool.header(), &header());
        assert_eq!(spool.bytes(), 6);
        spool.append(b"6789").unwrap();
        spool.append(b"a").unwrap_err();
        assert_eq!(spool.beginning().next_chunk().unwrap(), b"0123456789"[..]);
        let mode = dir.path().join(NAME).metadata().unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        spool.remove();
        assert!(!dir.path().join(NAME).exists());
    }

    #[test]
    fn what_is_not_a_partial_download_of_this_user_is_removed() {
        let damage: [(&str, &Damage); 6] = [
            ("nothing", &|path| std::fs::write(path, "").unwrap()),
            ("zeros", &|path| std::fs::write(path, [0; 5000]).unwrap()),
            ("too long", &|path| {
                let file = File::options().write(true).open(path).unwrap();
                file.set_len(HEADER_BYTES as u64 + 11).unwrap();
            }),
            ("others may write", &|path| {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o620)).unwrap();
            }),
            ("another name", &|path| {
                std::fs::hard_link(path, path.with_file_name("other")).unwrap();
            }),
            ("a link", &|path| {
                std::fs::rename(path, path.with_file_name("target")).unwrap();
                symlink("target", path).unwrap();
            }),
        ];
        let another_user: &Damage = &|path| {
            std::os::unix::fs::chown(path, Some(65534), None).unwrap();
        };
        // Only root may give a file away.
        let is_root = rustix::process::geteuid().is_root();
        let another_user = is_root.then_some(("of another user", another_user));
        for (what, damage) in damage.into_iter().chain(another_user) {
            let dir = tempfile::tempdir().unwrap();
            let directory = directory(dir.path());
            drop(SpoolFile::create(&directory, NAME, header(), 100).unwrap());
            damage(&dir.path().join(NAME));
            assert!(matches!(open(&directory), FoundSpool::Missing), "{what}");
            let path = dir.path().join(NAME);
            assert!(path.symlink_metadata().is_err(), "{what}");
        }
    }

    #[test]
    fn nothing_is_replaced_and_a_header_has_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let directory = directory(dir.path());
        std::fs::write(dir.path().join(NAME), "precious").unwrap();
        SpoolFile::create(&directory, NAME, header(), 100).unwrap_err();
        assert_eq!(std::fs::read(dir.path().join(NAME)).unwrap(), b"precious");

        let validator = "x".repeat(HEADER_BYTES);
        let long = SpoolHeader {
            validator,
            ..header()
        };
        SpoolFile::create(&directory, "other", long, 100).unwrap_err();
        assert!(!dir.path().join("other").exists());
    }

    #[test]
    fn nothing_is_written_to_a_removed_file() {
        let dir = tempfile::tempdir().unwrap();
        let spool = SpoolFile::create(&directory(dir.path()), NAME, header(), 100).unwrap();
        spool.append(b"0123").unwrap();
        let file = File::open(dir.path().join(NAME)).unwrap();

        spool.remove();
        spool.append(b"45").unwrap_err();

        assert_eq!(file.metadata().unwrap().len(), 0);
    }
}
