//! The files of a mirror that are being written: in a directory of their own, under names that nobody
//! reads, until they are renamed to their place or removed.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::fs::{openat, renameat, unlinkat};

/// The directory of these files. One process at a time has it.
pub(crate) struct IncomingDirectory {
    directory: OwnedFd,
    file_mode: Mode,
    next_number: AtomicU64,
}

impl IncomingDirectory {
    /// Takes `directory`, and removes what a process that was killed has left there. New files get
    /// `file_mode`.
    ///
    /// # Errors
    /// Those of the system calls.
    pub(crate) fn new(directory: OwnedFd, file_mode: Mode) -> io::Result<Self> {
        remove_files(&directory)?;
        Ok(Self {
            directory,
            file_mode,
            next_number: AtomicU64::new(0),
        })
    }

    /// A new file.
    ///
    /// # Errors
    /// It cannot be created.
    pub(crate) fn create(&self) -> io::Result<IncomingFile<'_>> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let name = OsString::from(number.to_string());
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.directory, &name, flags, self.file_mode)?;
        Ok(IncomingFile {
            directory: &self.directory,
            file: File::from(file),
            name: Some(name),
        })
    }
}

/// A file that is being written. Dropped, it is removed.
pub(crate) struct IncomingFile<'a> {
    directory: &'a OwnedFd,
    file: File,
    name: Option<OsString>,
}

impl IncomingFile<'_> {
    /// Makes its contents last.
    ///
    /// # Errors
    /// Those of the system call.
    pub(crate) fn sync(&self) -> io::Result<()> {
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
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
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

/// Removes the files of `directory`, which has no directories.
fn remove_files(directory: &OwnedFd) -> io::Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            unlinkat(directory, entry.file_name(), AtFlags::empty())?;
        }
    }
    Ok(())
}
