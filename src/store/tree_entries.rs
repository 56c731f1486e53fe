//! Visits everything in a tree of the store, without following links. What cannot be read is left out,
//! so this is for estimates and for reports.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Stat, statat};

use crate::no_follow::open_directory;

/// Calls `visit` with the tree `base` of the store directory `store`, and with each entry in it: the
/// directory below the tree, the name, and what the file itself reports. Both names are empty for the
/// tree.
pub(super) fn visit_entries(
    store: &Path,
    base: &OsStr,
    mut visit: impl FnMut(&Path, &OsStr, &Stat),
) {
    let top = store.join(base);
    let Ok(stat) = statat(CWD, &top, AtFlags::SYMLINK_NOFOLLOW) else {
        return;
    };
    visit(Path::new(""), OsStr::new(""), &stat);

    let mut directories = Vec::from_iter(is_directory(&stat).then(PathBuf::new));
    while let Some(below) = directories.pop() {
        let Ok(directory) = open_directory(store, &top.join(&below)) else {
            continue;
        };
        for entry in Dir::read_from(&directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            // The kind and the inode that a directory lists are missing or others on some file systems.
            let Ok(stat) = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let name = OsStr::from_bytes(name.to_bytes());
            visit(&below, name, &stat);
            if is_directory(&stat) {
                directories.push(below.join(name));
            }
        }
    }
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}
