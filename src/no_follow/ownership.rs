//! What root makes in the store of another user belongs to that user.
//!
//! The daemon of a store may run as an ordinary user, as Guix's does since version 1.5. Its collector opens the files
//! of temp roots and the locks to write to them, and makes directories writable before it removes them: one that is
//! root's ends the collection, each time.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, linkat, openat,
};
use rustix::io::{self, Errno};
use rustix::process::geteuid;

/// The user whom the kernel names where the owner has no number in this user namespace.
const OVERFLOW_UID: u32 = 65534;

/// The user who owns a directory in which root makes something.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    user: Uid,
    group: Gid,
}

impl Owner {
    /// Who owns `directory`, if this process is root's and that is another user.
    ///
    /// # Errors
    /// Those of `fstat`.
    pub(crate) fn of(directory: impl AsFd) -> io::Result<Option<Self>> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let stat = fstat(directory)?;
        let is_another = !matches!(stat.st_uid, 0 | OVERFLOW_UID);
        Ok(is_another.then(|| Self {
            user: Uid::from_raw(stat.st_uid),
            group: Gid::from_raw(stat.st_gid),
        }))
    }

    /// Creates the file `name` of `directory`, which belongs to this user before it has that name, if that is possible:
    /// should this process be killed, no file stays behind that the user cannot open.
    ///
    /// # Errors
    /// Those of the system calls, also if there is such a file.
    pub(super) fn create_file(self, directory: BorrowedFd<'_>, name: &Path) -> io::Result<File> {
        let (flags, mode) = (OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
        if let Ok(file) = openat(directory, c".", flags | OFlags::TMPFILE, mode) {
            self.adopt(&file)?;
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let linked = linkat(CWD, path, directory, name, AtFlags::SYMLINK_FOLLOW);
            if matches!(linked, Ok(()) | Err(Errno::EXIST)) {
                return linked.map(|()| File::from(file));
            }
        }

        // Not all file systems make files without names, and /proc may be missing.
        let file = openat(directory, name, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
        self.adopt(&file)?;
        Ok(File::from(file))
    }

    /// Gives what `entry` is open as to this user, if it is root's. What has several names may be anything: the user
    /// may have made a hard link to a file elsewhere. Of directories, only an empty one is given away: the user may have
    /// moved another one there.
    ///
    /// # Errors
    /// Those of the system calls.
    pub(crate) fn adopt(self, entry: impl AsFd) -> io::Result<()> {
        let stat = fstat(&entry)?;
        let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
        let may_be_new = match is_directory {
            true => stat.st_uid == 0 && is_empty(&entry)?,
            false => stat.st_uid == 0 && stat.st_nlink <= 1,
        };
        if !may_be_new {
            return Ok(());
        }
        let (user, group) = (Some(self.user), Some(self.group));
        match chownat(entry, c"", user, group, AtFlags::EMPTY_PATH) {
            // This root lacks the right, as in some containers, or the group has no number in this user namespace.
            Err(io::Errno::PERM | io::Errno::INVAL) => Ok(()),
            given => given,
        }
    }
}

/// Whether the open `directory` has no entries.
fn is_empty(directory: impl AsFd) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let entries = Dir::new(openat(directory, c".", flags, Mode::empty())?)?;
    for entry in entries {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use rustix::fs::open;

    use super::*;

    /// The user may have moved another directory of root to the place of the new one.
    #[test]
    fn only_an_empty_directory_is_given_away() {
        if !geteuid().is_root() {
            eprintln!("skipped: only root can give directories away");
            return;
        }
        let parent = tempfile::tempdir().unwrap();
        let owner = Owner {
            user: Uid::from_raw(12345),
            group: Gid::from_raw(12346),
        };
        for (name, flags, expected) in [
            ("new", OFlags::PATH, 12345),
            ("opened", OFlags::RDONLY, 12345),
            ("used", OFlags::PATH, 0),
            ("used", OFlags::RDONLY, 0),
        ] {
            let path = parent.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            if name == "used" {
                std::fs::write(path.join("secret"), "").unwrap();
            }
            let opened = open(&path, flags | OFlags::DIRECTORY, Mode::empty()).unwrap();
            owner.adopt(opened).unwrap();
            assert_eq!(path.metadata().unwrap().uid(), expected, "{name}");
        }
    }
}
