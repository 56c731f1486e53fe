//! The directory of a mirror: files appear in it whole and on the disk, or not at all.
//!
//! A file is written in `subst/incoming`, synchronized, and renamed to its place. One process at a
//! time writes, with a lock on `subst/lock` that ends with it; of what a killed one has left in
//! `subst/incoming`, the next one continues nars and removes the rest. Below the directory no symbolic link is followed.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode};
use rustix::fs::{flock, fsync, statat, unlinkat};
use rustix::io::Errno;

use super::error::TargetError;
use crate::no_follow;
use crate::substitute::mirror::incoming::{IncomingDirectory, IncomingFile, IncomingNarName};
use crate::substitute::mirror::key::{MirrorKey, OWN_DIRECTORY};
use crate::substitute::mirror::walk::{ListedFile, walk};
use crate::sync::lock;

/// Where files are written, and the file that is locked.
const INCOMING: &str = "incoming";
const LOCK: &str = "lock";

/// A mirror that is a directory, of which this process may be the writer.
pub(crate) struct MirrorDirectory {
    path: PathBuf,
    writer: Option<TargetWriter>,
}

/// What only the process that holds the lock has.
struct TargetWriter {
    incoming: IncomingDirectory,
    _lock: File,
    /// Directories that have new names which are not known to be on the disk.
    unsynced: Mutex<BTreeSet<PathBuf>>,
}

impl MirrorDirectory {
    /// Opens `path` to write to it, after creating it if need be, and removes what a process that was
    /// killed has left there, except nars. New files get `file_mode`.
    ///
    /// # Errors
    /// Another process writes to it, or it cannot be written to.
    pub(crate) fn open(path: &Path, file_mode: Mode) -> Result<Self, TargetError> {
        let own = path.join(OWN_DIRECTORY);
        no_follow::create_directory(path, path).map_err(|source| TargetError::Directory {
            action: "create",
            source,
        })?;
        let own_directory = no_follow::create_directory(path, &own)
            .map_err(TargetError::of("create", OWN_DIRECTORY))?;
        let lock_file = no_follow::open_or_create_file(own_directory.as_fd(), LOCK)
            .map_err(TargetError::of("open", "subst/lock"))?;
        match flock(&lock_file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(TargetError::Locked(path.display().to_string())),
            locked => {
                locked.map_err(|error| TargetError::of("lock", "subst/lock")(error.into()))?
            }
        }

        let incoming = no_follow::create_directory(path, &own.join(INCOMING))
            .map_err(TargetError::of("create", "subst/incoming"))?;
        let incoming = IncomingDirectory::new(incoming, file_mode)
            .map_err(TargetError::of("clear", "subst/incoming"))?;
        Ok(Self {
            path: path.to_owned(),
            writer: Some(TargetWriter {
                incoming,
                _lock: lock_file,
                unsynced: Mutex::default(),
            }),
        })
    }

    /// Opens `path` to read it; `None` if it does not exist.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn open_to_read(path: &Path) -> Result<Option<Self>, TargetError> {
        match no_follow::open_directory(path, path) {
            Ok(_) => Ok(Some(Self {
                path: path.to_owned(),
                writer: None,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(TargetError::Directory {
                action: "open",
                source,
            }),
        }
    }

    /// The size of the file `key`; `None` if there is none.
    ///
    /// # Errors
    /// Something else has its name, or a system call failed.
    pub(crate) fn size(&self, key: &MirrorKey) -> Result<Option<u64>, TargetError> {
        let found = no_follow::open_directory(&self.path, &self.path.join(key.directory()))
            .and_then(|directory| {
                let no_link = AtFlags::SYMLINK_NOFOLLOW;
                Ok(statat(directory, key.file_name(), no_link)?)
            });
        match found {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Ok(Some(stat.st_size.try_into().unwrap_or(0)))
            }
            Ok(_) => Err(TargetError::of("use", key)(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "it is not a regular file",
            ))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(TargetError::of("find", key)(error)),
        }
    }

    /// Opens the file `key` to read it; `None` if there is none.
    ///
    /// # Errors
    /// Those of the system calls.
    pub(crate) fn file(&self, key: &MirrorKey) -> Result<Option<File>, TargetError> {
        let opened = no_follow::open_directory(&self.path, &self.path.join(key.directory()))
            .and_then(|directory| no_follow::open_file(directory.as_fd(), key.file_name()));
        match opened {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(TargetError::of("open", key)(error)),
        }
    }

    /// The text of the file `key`, if there is one of at most `bytes_max` bytes of UTF-8.
    ///
    /// # Errors
    /// Those of the system calls.
    pub(crate) fn text(
        &self,
        key: &MirrorKey,
        bytes_max: usize,
    ) -> Result<Option<String>, TargetError> {
        let Some(file) = self.file(key)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(bytes_max as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(TargetError::of("read", key))?;
        let is_short = bytes.len() <= bytes_max;
        Ok(String::from_utf8(bytes).ok().filter(|_| is_short))
    }

    /// A file to be written, which has no name that others read before [`MirrorDirectory::publish`].
    ///
    /// # Errors
    /// It cannot be created.
    pub(crate) fn new_file(&self) -> Result<IncomingFile<'_>, TargetError> {
        let created = self.writer().and_then(|writer| writer.incoming.create());
        created.map_err(TargetError::of("create", "a file"))
    }

    /// The file to write the nar `name` to, with what an earlier run has written of it, if that is not more
    /// than `bytes_max`.
    ///
    /// # Errors
    /// It cannot be opened or created.
    pub(crate) fn incoming_nar(
        &self,
        name: &IncomingNarName,
        bytes_max: u64,
    ) -> Result<IncomingFile<'_>, TargetError> {
        let writer = self.writer();
        let opened = writer.and_then(|writer| writer.incoming.open_nar(name, bytes_max));
        opened.map_err(TargetError::of("open", "a file of subst/incoming"))
    }

    /// Removes the beginnings of nars that are not `wanted`, before the first of them is opened.
    ///
    /// # Errors
    /// Those of the system calls.
    pub(crate) fn remove_unwanted(
        &self,
        wanted: &HashSet<IncomingNarName>,
    ) -> Result<(), TargetError> {
        let writer = self.writer();
        let removed = writer.and_then(|writer| writer.incoming.remove_unwanted(wanted));
        removed.map_err(TargetError::of("clear", "subst/incoming"))
    }

    /// Bytes of nars that the next run continues.
    #[must_use]
    pub(crate) fn kept_bytes(&self) -> u64 {
        let writer = self.writer();
        let bytes = writer.and_then(|writer| writer.incoming.nar_bytes());
        bytes.unwrap_or_else(|error| {
            tracing::debug!(%error, "what is kept of nars cannot be counted");
            0
        })
    }

    /// Makes the contents of `file` last and gives it the name `key`, in place of an earlier file. The name
    /// lasts after [`MirrorDirectory::sync_names`].
    ///
    /// # Errors
    /// Those of the system calls; an earlier file is as it was.
    pub(crate) fn publish(
        &self,
        file: IncomingFile<'_>,
        key: &MirrorKey,
    ) -> Result<(), TargetError> {
        let writer = self.writer().map_err(TargetError::of("write", key))?;
        file.sync().map_err(TargetError::of("synchronize", key))?;
        let relative = key.directory();
        let directory = no_follow::create_directory(&self.path, &self.path.join(&relative))
            .map_err(TargetError::of("create the directory of", key))?;

        // Held meanwhile: whoever sees the file and calls `sync_names` makes its name last.
        let mut unsynced = lock(&writer.unsynced);
        file.rename_to(&directory, key.file_name())
            .map_err(TargetError::of("rename to", key))?;
        unsynced.extend(relative.ancestors().map(Path::to_owned));
        Ok(())
    }

    /// Writes the whole file `key`, in place of an earlier one.
    ///
    /// # Errors
    /// Those of the system calls; an earlier file is as it was.
    pub(crate) fn replace(&self, key: &MirrorKey, contents: &str) -> Result<(), TargetError> {
        let mut file = self.new_file()?;
        file.write_all(contents.as_bytes())
            .map_err(TargetError::of("write", key))?;
        self.publish(file, key)
    }

    fn writer(&self) -> io::Result<&TargetWriter> {
        let writer = self.writer.as_ref();
        writer.ok_or_else(|| io::Error::other("the mirror is open for reading"))
    }

    /// Calls `visit` for all files of the mirror, without those of its own directory, in no particular order.
    ///
    /// # Errors
    /// Those of the system calls.
    pub(crate) fn list(&self, visit: &mut dyn FnMut(ListedFile)) -> Result<(), TargetError> {
        walk(&self.path, visit)
            .map_err(|(name, error)| TargetError::of("list", name.display())(error))
    }

    /// Removes the file `key`, if it is there. The removal lasts after [`MirrorDirectory::sync_names`].
    ///
    /// # Errors
    /// Those of the system calls, or the mirror is open for reading.
    pub(crate) fn remove(&self, key: &MirrorKey) -> Result<(), TargetError> {
        let writer = self.writer().map_err(TargetError::of("remove", key))?;
        let directory = key.directory();
        let removed = no_follow::open_directory(&self.path, &self.path.join(&directory))
            .and_then(|opened| Ok(unlinkat(opened, key.file_name(), AtFlags::empty())?));
        match removed {
            Ok(()) => {
                lock(&writer.unsynced).insert(directory);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(TargetError::of("remove", key)(error)),
        }
    }

    /// Makes the name of the file `key`, which is there, last after [`MirrorDirectory::sync_names`]: the
    /// process that published it may have been killed before that.
    pub(crate) fn keep_name(&self, key: &MirrorKey) {
        if let Some(writer) = &self.writer {
            let directory = key.directory();
            lock(&writer.unsynced).extend(directory.ancestors().map(Path::to_owned));
        }
    }

    /// Makes all names that were published last on the disk.
    ///
    /// # Errors
    /// Those of the system calls.
    pub(crate) fn sync_names(&self) -> Result<(), TargetError> {
        let Some(writer) = &self.writer else {
            return Ok(());
        };
        // Deep ones first: a file that lasts is found only through directories that do.
        let directories = std::mem::take(&mut *lock(&writer.unsynced));
        for directory in directories.iter().rev() {
            no_follow::open_directory(&self.path, &self.path.join(directory))
                .and_then(|opened| Ok(fsync(opened)?))
                .map_err(TargetError::of("synchronize", directory.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn key(name: &str) -> MirrorKey {
        MirrorKey::of_nar(name).unwrap()
    }

    fn open(path: &Path) -> Result<MirrorDirectory, TargetError> {
        MirrorDirectory::open(path, Mode::from_raw_mode(0o644))
    }

    #[test]
    fn a_file_appears_when_it_is_published_and_not_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mirror");
        let target = open(&path).unwrap();
        let mut file = target.new_file().unwrap();
        file.write_all(b"contents").unwrap();
        assert_eq!(target.size(&key("nar/x")).unwrap(), None);
        target.publish(file, &key("nar/x")).unwrap();
        target.sync_names().unwrap();
        assert_eq!(
            target.text(&key("nar/x"), 100).unwrap().as_deref(),
            Some("contents")
        );
        assert_eq!(target.text(&key("nar/x"), 7).unwrap(), None);

        drop(target.new_file().unwrap());
        assert_eq!(path.join("subst/incoming").read_dir().unwrap().count(), 0);
    }

    #[test]
    fn one_process_writes_and_the_next_one_removes_what_it_left() {
        let directory = tempfile::tempdir().unwrap();
        let target = open(directory.path()).unwrap();
        std::mem::forget(target.new_file().unwrap());
        assert!(matches!(
            open(directory.path()),
            Err(TargetError::Locked(_))
        ));

        let incoming = directory.path().join("subst/incoming");
        assert_eq!(incoming.read_dir().unwrap().count(), 1);
        drop(target);
        let _target = open(directory.path()).unwrap();
        assert_eq!(incoming.read_dir().unwrap().count(), 0);
    }

    #[test]
    fn files_are_listed_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mirror");
        let target = open(&path).unwrap();
        for name in ["nar/x", "nar/deep/y", "z"] {
            target.replace(&key(name), "contents").unwrap();
        }
        symlink(directory.path(), path.join("nar/link")).unwrap();
        std::fs::create_dir(path.join(".hidden")).unwrap();
        std::fs::write(path.join(".hidden/file"), "").unwrap();
        let names = || {
            let mut names = Vec::new();
            let mut visit = |file: ListedFile| {
                names.push((file.name, file.key.map(|_| file.size)));
            };
            target.list(&mut visit).unwrap();
            names.sort_unstable();
            names
        };
        let expected = [
            (".hidden", None),
            ("nar/deep/y", Some(8)),
            ("nar/link", None),
            ("nar/x", Some(8)),
            ("z", Some(8)),
        ];
        let expected = expected.map(|(name, size)| (name.to_owned(), size));
        assert_eq!(names(), expected);

        for absent in ["nar/x", "nar/x", "none/x"] {
            target.remove(&key(absent)).unwrap();
            assert_eq!(target.size(&key(absent)).unwrap(), None);
        }
        assert!(target.remove(&key("nar/link/mirror/z")).is_err());
        target.sync_names().unwrap();
        assert_eq!(names().len(), 4);
        let reader = MirrorDirectory::open_to_read(&path).unwrap().unwrap();
        assert!(reader.remove(&key("z")).is_err());
    }

    #[test]
    fn links_in_a_mirror_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, outside) = (
            directory.path().join("mirror"),
            directory.path().join("outside"),
        );
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("precious"), "precious").unwrap();
        let target = open(&path).unwrap();
        symlink(&outside, path.join("nar")).unwrap();
        symlink(outside.join("precious"), path.join("x")).unwrap();

        assert!(target.replace(&key("nar/precious"), "changed").is_err());
        assert!(target.file(&key("nar/precious")).is_err());
        assert!(target.size(&key("x")).is_err());
        assert_eq!(
            std::fs::read_to_string(outside.join("precious")).unwrap(),
            "precious"
        );
    }
}
