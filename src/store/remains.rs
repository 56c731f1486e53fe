//! What is left in the store directory of a valid item.
//!
//! A row in the database outlives a tree that was deleted. Sometimes an empty directory or
//! file remains: after a power failure, or when a backup was restored in part. Only that is looked
//! at here, not the content of an item.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::{self, Errno};

/// What has the name of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remains {
    /// Nothing, or what is never an item, such as a FIFO.
    Nothing,
    /// An empty directory or file.
    Empty,
    /// Anything else.
    Content,
}

/// The nar of an empty directory or file has at most this many bytes.
pub(super) const EMPTY_NAR_BYTES_MAX: u64 = 144;

/// What has the name `name` in `store`.
pub(super) fn remains_of(store: BorrowedFd<'_>, name: &str) -> io::Result<Remains> {
    let stat = match statat(store, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(Remains::Nothing),
        Err(error) => return Err(error),
    };
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => Remains::Content,
        FileType::RegularFile if stat.st_size == 0 => Remains::Empty,
        FileType::RegularFile => Remains::Content,
        // More links are subdirectories; some file systems count none of them.
        FileType::Directory if stat.st_nlink <= 2 && is_empty_directory(store, name) => {
            Remains::Empty
        }
        FileType::Directory => Remains::Content,
        _ => Remains::Nothing,
    })
}

/// A directory that cannot be read counts as one with content.
fn is_empty_directory(store: BorrowedFd<'_>, name: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(store, name, flags, Mode::empty());
    let Ok(entries) = opened.and_then(Dir::new) else {
        return false;
    };
    for entry in entries {
        let Ok(entry) = entry else { return false };
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn remains_are_told_from_content() {
        let store = tempfile::tempdir().unwrap();
        let path = |name: &str| store.path().join(name);
        std::fs::create_dir(path("empty-directory")).unwrap();
        std::fs::write(path("empty-file"), "").unwrap();
        std::fs::create_dir_all(path("directory/below")).unwrap();
        std::fs::create_dir(path("small-directory")).unwrap();
        std::fs::write(path("small-directory/file"), "").unwrap();
        std::fs::write(path("file"), "content").unwrap();
        std::os::unix::fs::symlink("nowhere", path("symlink")).unwrap();
        let directory = std::fs::File::open(store.path()).unwrap();
        let remains = |name| remains_of(directory.as_fd(), name).unwrap();

        assert_eq!(remains("missing"), Remains::Nothing);
        for name in ["empty-directory", "empty-file"] {
            assert_eq!(remains(name), Remains::Empty, "{name}");
        }
        for name in ["directory", "small-directory", "file", "symlink"] {
            assert_eq!(remains(name), Remains::Content, "{name}");
        }
    }
}
