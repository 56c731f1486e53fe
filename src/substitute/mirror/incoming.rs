//! The files of a mirror that are being written: in a directory of their own, under names that no client
//! reads, until they are renamed to their place or removed.
//!
//! The beginning of a nar stays under a name that says what it is of, so that the next run downloads only the
//! rest. It may be anything after a power cut: whoever uses it verifies the nar. It is kept as long as its
//! nar is wanted, so all of them take no more than the mirror will.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Seek as _, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use data_encoding::HEXLOWER;
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::fs::{fchmod, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use crate::format::sha256::Sha256;
use crate::format::store_path::StorePathRef;
use crate::substitute::download::checked_copy::NarFileClaims;
use crate::substitute::download::kept_beginning::KeptBeginning;

/// What the names of nars begin with.
const NAR_PREFIX: &str = "nar-";

/// The name of a nar while it is copied: that of its item, and of all that the narinfo says of the file.
/// Servers that say the same share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct IncomingNarName(String);

impl IncomingNarName {
    /// The name of the nar of `item`; `None` if the size of the file is not known, without which it cannot
    /// be continued.
    #[must_use]
    pub(crate) fn new(item: StorePathRef<'_>, claims: &NarFileClaims) -> Option<Self> {
        claims.expected_bytes()?;
        let mut digest = Sha256::new();
        // Only equal text matters: a version of the program that writes it in another way begins anew.
        digest.update(format!("{} {claims:?}", item.base()).as_bytes());
        Some(Self(format!(
            "{NAR_PREFIX}{}",
            HEXLOWER.encode(&digest.finish())
        )))
    }
}

/// The directory of these files. One process at a time has it.
pub(crate) struct IncomingDirectory {
    directory: OwnedFd,
    file_mode: Mode,
    next_number: AtomicU64,
}

impl IncomingDirectory {
    /// Takes `directory`, and removes what a process that was killed has left there, except nars. New files
    /// get `file_mode`.
    ///
    /// # Errors
    /// Those of the system calls.
    pub(crate) fn new(directory: OwnedFd, file_mode: Mode) -> io::Result<Self> {
        let incoming = Self {
            directory,
            file_mode,
            next_number: AtomicU64::new(0),
        };
        incoming.remove_unless(|name| nar_name(name).is_some())?;
        Ok(incoming)
    }

    /// A new file.
    ///
    /// # Errors
    /// It cannot be created.
    pub(crate) fn create(&self) -> io::Result<IncomingFile<'_>> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        self.create_as(number.to_string())
    }

    /// The file of the nar `name`, with what an earlier run has written of it, if that is not more than
    /// `bytes_max`.
    ///
    /// # Errors
    /// It cannot be opened or created.
    pub(crate) fn open_nar(
        &self,
        name: &IncomingNarName,
        bytes_max: u64,
    ) -> io::Result<IncomingFile<'_>> {
        let IncomingNarName(name) = name;
        match openat(&self.directory, name, OPEN_FLAGS, Mode::empty()) {
            Ok(file) => {
                let file = File::from(file);
                let metadata = file.metadata()?;
                // Other names of it, and what another user has put there, are not written to.
                let is_ours = metadata.is_file()
                    && metadata.nlink() == 1
                    && metadata.uid() == rustix::process::geteuid().as_raw();
                if is_ours && metadata.len() <= bytes_max {
                    fchmod(&file, self.file_mode)?;
                    return Ok(IncomingFile {
                        directory: &self.directory,
                        kept: metadata.len(),
                        written: 0,
                        file: Arc::new(file),
                        name: Some(name.clone()),
                    });
                }
            }
            // A link, a file without the right to read it, a socket.
            Err(Errno::NOENT | Errno::LOOP | Errno::ACCESS | Errno::NXIO) => {}
            Err(error) => return Err(error.into()),
        }

        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => self.create_as(name.clone()),
            Err(error) => Err(error.into()),
        }
    }

    fn create_as(&self, name: String) -> io::Result<IncomingFile<'_>> {
        let flags = OPEN_FLAGS | OFlags::CREATE | OFlags::EXCL;
        let file = openat(&self.directory, &name, flags, self.file_mode)?;
        Ok(IncomingFile {
            directory: &self.directory,
            kept: 0,
            written: 0,
            file: Arc::new(File::from(file)),
            name: Some(name),
        })
    }

    /// Removes the nars that are not `wanted`. None of them may be open.
    ///
    /// # Errors
    /// Those of the system calls.
    pub(crate) fn remove_unwanted(&self, wanted: &HashSet<IncomingNarName>) -> io::Result<()> {
        self.remove_unless(|name| nar_name(name).is_some_and(|name| wanted.contains(&name)))
    }

    /// Bytes of the nars that are there.
    ///
    /// # Errors
    /// Those of the system calls.
    pub(crate) fn nar_bytes(&self) -> io::Result<u64> {
        let mut bytes = 0_u64;
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            if nar_name(entry.file_name()).is_some() {
                let stat = statat(
                    &self.directory,
                    entry.file_name(),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
                bytes = bytes.saturating_add(u64::try_from(stat.st_size).unwrap_or(0));
            }
        }
        Ok(bytes)
    }

    fn remove_unless(&self, is_needed: impl Fn(&CStr) -> bool) -> io::Result<()> {
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") && !is_needed(name) {
                unlinkat(&self.directory, name, AtFlags::empty())?;
            }
        }
        Ok(())
    }
}

/// A file that is being written, from its first byte on. Dropped, it is removed.
pub(crate) struct IncomingFile<'a> {
    directory: &'a OwnedFd,
    /// Bytes that an earlier run has written.
    kept: u64,
    /// Bytes that were written since it was opened.
    written: u64,
    file: Arc<File>,
    name: Option<String>,
}

impl IncomingFile<'_> {
    /// What an earlier run has written, if there is something. It is read while it is written again:
    /// what cannot be read on the way is replaced like this.
    pub(crate) fn kept(&self) -> Option<KeptBeginning> {
        (self.kept > 0).then(|| KeptBeginning::new(Arc::clone(&self.file), 0, self.kept))
    }

    /// The file, to read what was written, and how many bytes that is.
    pub(crate) fn contents(&self) -> (Arc<File>, u64) {
        (Arc::clone(&self.file), self.written)
    }

    /// Removes all of its contents; how many bytes were written since it was opened.
    ///
    /// # Errors
    /// Those of the system calls.
    pub(crate) fn clear(&mut self) -> io::Result<u64> {
        self.file.set_len(0)?;
        (&*self.file).rewind()?;
        self.kept = 0;
        Ok(std::mem::take(&mut self.written))
    }

    /// Leaves it for the next run, if it has any contents.
    pub(crate) fn keep(mut self) {
        if self.kept.max(self.written) > 0 {
            self.name = None;
        }
    }

    /// Makes its contents last: what was written since it was opened.
    ///
    /// # Errors
    /// Those of the system calls.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if self.kept > self.written {
            self.file.set_len(self.written)?;
        }
        self.file.sync_all()
    }

    /// Gives it the name `name` in `directory`, in place of an earlier file.
    ///
    /// # Errors
    /// Those of the system call; an earlier file is as it was.
    pub(crate) fn rename_to(mut self, directory: impl AsFd, name: &str) -> io::Result<()> {
        if let Some(own) = &self.name {
            renameat(self.directory, own, directory, name)?;
        }
        self.name = None;
        Ok(())
    }
}

impl Write for IncomingFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = (&*self.file).write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self.file).flush()
    }
}

impl Drop for IncomingFile<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // The next process removes what this one cannot.
            let _ = unlinkat(self.directory, name, AtFlags::empty());
        }
    }
}

/// The name of a nar that `name` is, if it is one.
fn nar_name(name: &CStr) -> Option<IncomingNarName> {
    let name = name.to_str().ok()?;
    let digest = name.strip_prefix(NAR_PREFIX)?;
    let is_digest = HEXLOWER
        .decode(digest.as_bytes())
        .is_ok_and(|digest| digest.len() == 32);
    is_digest.then(|| IncomingNarName(name.to_owned()))
}

/// A FIFO of that name must not stop the program.
const OPEN_FLAGS: OFlags = OFlags::RDWR
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn open(path: &Path) -> IncomingDirectory {
        let directory = File::open(path).unwrap().into();
        IncomingDirectory::new(directory, Mode::from_raw_mode(0o644)).unwrap()
    }

    fn name(digit: &str) -> IncomingNarName {
        IncomingNarName(format!("nar-{}", digit.repeat(64)))
    }

    fn write_nar(incoming: &IncomingDirectory, name: &IncomingNarName, contents: &[u8]) {
        let mut file = incoming.open_nar(name, 100).unwrap();
        file.write_all(contents).unwrap();
        file.keep();
    }

    #[test]
    fn nars_that_are_wanted_stay_and_everything_else_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let incoming = open(directory.path());
        write_nar(&incoming, &name("1"), b"0123");
        write_nar(&incoming, &name("2"), b"01");
        write_nar(&incoming, &name("3"), b"");
        std::mem::forget(incoming.create().unwrap());
        std::fs::write(directory.path().join("nar-x"), "").unwrap();
        assert_eq!(directory.path().read_dir().unwrap().count(), 4);

        let incoming = open(directory.path());
        assert_eq!(incoming.nar_bytes().unwrap(), 6);
        incoming.remove_unwanted(&[name("1")].into()).unwrap();
        let IncomingNarName(left) = name("1");
        let names = directory.path().read_dir().unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [&*left]);
    }

    #[test]
    fn what_was_kept_is_written_again_and_nothing_of_it_stays_behind_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let incoming = open(directory.path());
        write_nar(&incoming, &name("1"), b"0123456789");
        let mut file = incoming.open_nar(&name("1"), 100).unwrap();
        assert!(file.kept().is_some());
        file.write_all(b"abc").unwrap();
        file.sync().unwrap();
        file.rename_to(File::open(directory.path()).unwrap(), "whole")
            .unwrap();
        let whole = directory.path().join("whole");
        assert_eq!(std::fs::read(whole).unwrap(), b"abc");

        write_nar(&incoming, &name("1"), b"0123456789");
        let mut file = incoming.open_nar(&name("1"), 100).unwrap();
        file.write_all(b"ab").unwrap();
        assert_eq!(file.clear().unwrap(), 2);
        assert!(file.kept().is_none());
        file.write_all(b"c").unwrap();
        file.keep();
        assert_eq!(incoming.nar_bytes().unwrap(), 1);
    }

    #[test]
    fn what_is_not_the_beginning_of_a_nar_is_not_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let incoming = open(directory.path());
        let IncomingNarName(base) = name("1");
        let (path, other) = (directory.path().join(base), directory.path().join("other"));
        std::fs::write(&other, "precious").unwrap();
        let plants: [&dyn Fn(); 4] = [
            &|| symlink("other", &path).unwrap(),
            &|| std::fs::hard_link(&other, &path).unwrap(),
            &|| std::fs::write(&path, [0; 101]).unwrap(),
            &|| drop(std::os::unix::net::UnixListener::bind(&path).unwrap()),
        ];
        for plant in plants {
            plant();
            let mut file = incoming.open_nar(&name("1"), 100).unwrap();
            assert!(file.kept().is_none());
            file.write_all(b"x").unwrap();
            drop(file);
            assert!(!path.exists());
            assert_eq!(std::fs::read(&other).unwrap(), b"precious");
        }
    }
}
