//! All files of a mirror in a directory, without those of its own directory. No link is followed.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, statat};
use rustix::io::Errno;

use super::key::{MirrorKey, OWN_DIRECTORY};
use crate::no_follow;

/// Something that has a name in a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedFile {
    /// Its name relative to the mirror, for messages.
    pub(crate) name: String,
    /// Its key; `None` if it can be no file of a mirror: a link, say, or a hidden file.
    pub(crate) key: Option<MirrorKey>,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// When it was written, in Unix seconds.
    pub(crate) modified: u64,
}

/// Calls `visit` for all files of the mirror `base`, in no particular order. What is removed meanwhile may be
/// left out.
///
/// # Errors
/// The name of a file or directory, and why it cannot be read.
pub(crate) fn walk(
    base: &Path,
    visit: &mut dyn FnMut(ListedFile),
) -> Result<(), (PathBuf, io::Error)> {
    let mut directories = vec![PathBuf::new()];
    while let Some(relative) = directories.pop() {
        let opened = match no_follow::open_directory(base, &base.join(&relative)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && relative != Path::new("") => {
                continue;
            }
            opened => opened.map_err(|error| (relative.clone(), error))?,
        };
        let entries = Dir::read_from(&opened).map_err(|error| (relative.clone(), error.into()))?;
        for entry in entries {
            let entry = entry.map_err(|error| (relative.clone(), error.into()))?;
            let name = entry.file_name();
            let path = relative.join(OsStr::from_bytes(name.to_bytes()));
            if matches!(name.to_bytes(), b"." | b"..") || path == Path::new(OWN_DIRECTORY) {
                continue;
            }
            match found(&opened, name, &path).map_err(|error| (path.clone(), error))? {
                Found::File(file) => visit(file),
                Found::Directory => directories.push(path),
                Found::Nothing => {}
            }
        }
    }
    Ok(())
}

/// What has a name.
enum Found {
    File(ListedFile),
    /// A directory that can have files of a mirror.
    Directory,
    Nothing,
}

fn found(directory: &OwnedFd, name: &CStr, path: &Path) -> io::Result<Found> {
    let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(Found::Nothing),
        stat => stat?,
    };
    let key = path.to_str().and_then(MirrorKey::of_file);
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory if key.is_some() => Found::Directory,
        kind => Found::File(ListedFile {
            name: path.to_string_lossy().into_owned(),
            key: key.filter(|_| kind == FileType::RegularFile),
            size: stat.st_size.try_into().unwrap_or(0),
            modified: stat.st_mtime.try_into().unwrap_or(0),
        }),
    })
}
