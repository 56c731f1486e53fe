//! The one form that every file of a store item has, whatever made it.
//!
//! Files are 0444, or 0555 when executable; directories 0555; everything, symlinks included,
//! was last modified at second 1 of the epoch. Files are set through their open descriptor and
//! directories after their last entry: making an entry moves the directory's time.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode, Timespec, Timestamps, fchmod, futimens, utimensat};
use rustix::io;

/// The mode of a directory.
pub const DIRECTORY_MODE: Mode = Mode::from_bits_truncate(0o555);
/// The mode of a file that cannot be executed.
pub const FILE_MODE: Mode = Mode::from_bits_truncate(0o444);
/// The mode of a file that can.
pub const EXECUTABLE_MODE: Mode = Mode::from_bits_truncate(0o555);
/// When everything was last modified, in seconds of the epoch.
pub const MTIME_SECS: i64 = 1;

const TIMES: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: MTIME_SECS, tv_nsec: 0 },
    last_modification: Timespec { tv_sec: MTIME_SECS, tv_nsec: 0 },
};

/// Sets the times of an open file whose mode was right from its creation.
///
/// # Errors
/// Those of `futimens`.
pub fn settle_times(file: impl AsFd) -> io::Result<()> {
    futimens(file, &TIMES)
}

/// Sets mode and times of an open file or directory. The umask took part in the mode it was
/// created with, so a mode that matters has to be set.
///
/// # Errors
/// Those of `fchmod` and `futimens`.
pub fn settle(file: impl AsFd, mode: Mode) -> io::Result<()> {
    fchmod(&file, mode)?;
    settle_times(file)
}

/// Sets the times of the symlink `name` in `dir`; symlinks have no mode of their own.
///
/// # Errors
/// Those of `utimensat`.
pub fn settle_symlink(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    utimensat(dir, name, &TIMES, AtFlags::SYMLINK_NOFOLLOW)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::path::Path;

    /// What is not canonical in the tree at `path`, as one line per thing.
    pub(crate) fn faults(path: &Path) -> Vec<String> {
        let metadata = path.symlink_metadata().unwrap();
        let mode = metadata.permissions().mode() & 0o7777;
        let kind = metadata.file_type();
        let mode_is_right = match () {
            () if kind.is_symlink() => true,
            () if kind.is_dir() => mode == 0o555,
            () => kind.is_file() && (mode == 0o444 || mode == 0o555),
        };
        let mut faults = Vec::new();
        if !mode_is_right {
            faults.push(format!("{}: mode {mode:o}", path.display()));
        }
        if (metadata.mtime(), metadata.mtime_nsec()) != (MTIME_SECS, 0) {
            faults.push(format!("{}: mtime {}", path.display(), metadata.mtime()));
        }
        if kind.is_dir() {
            for entry in path.read_dir().unwrap() {
                faults.extend(self::faults(&entry.unwrap().path()));
            }
        }
        faults
    }

    #[test]
    fn settles_files_directories_and_symlinks() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join("file"), "x").unwrap();
        std::os::unix::fs::symlink("nowhere", tree.join("link")).unwrap();
        assert_eq!(faults(&tree).len(), 5);

        let handle = std::fs::File::open(&tree).unwrap();
        settle(std::fs::File::open(tree.join("file")).unwrap(), EXECUTABLE_MODE).unwrap();
        settle_symlink(handle.as_fd(), c"link").unwrap();
        settle(&handle, DIRECTORY_MODE).unwrap();
        assert_eq!(faults(&tree), Vec::<String>::new());
        super::super::remove::remove_tree(dir.path(), "tree").unwrap();
    }
}
