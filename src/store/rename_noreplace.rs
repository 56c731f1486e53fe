//! Renaming that never replaces what has the new name already, for trees outside a store. An item of a
//! store is renamed under its lock instead: see `Checked::rename_to`.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{
    AtFlags, FileType, RenameFlags, linkat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::{self, Errno};

/// Renames `from` in `directory` to `to`, which must not exist.
///
/// # Errors
/// [`Errno::EXIST`]: `to` exists, and is untouched. Otherwise what the system says; nothing has
/// changed then.
pub(super) fn rename_noreplace(
    directory: BorrowedFd<'_>,
    from: &CStr,
    to: &CStr,
) -> io::Result<()> {
    match renameat_with(directory, from, directory, to, RenameFlags::NOREPLACE) {
        // NFS and some FUSE file systems do not know the flag; an old kernel, not the call.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            rename_without_flags(directory, from, to)
        }
        renamed => renamed,
    }
}

/// The same for file systems without `RENAME_NOREPLACE`.
///
/// A file or symlink gets the new name as a hard link, which fails when the name is taken, and
/// loses the old one. A directory cannot have two names; but renaming one never replaces anything
/// but an empty directory, and the check before leaves only the moment between the two calls
/// in which an empty directory that another process creates could be replaced. Creating `to` first, to reserve
/// it, was rejected: a process killed in between would leave it empty at the final name.
fn rename_without_flags(directory: BorrowedFd<'_>, from: &CStr, to: &CStr) -> io::Result<()> {
    let stat = statat(directory, from, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        linkat(directory, from, directory, to, AtFlags::empty())?;
        return unlinkat(directory, from, AtFlags::empty());
    }
    match statat(directory, to, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => return Err(Errno::EXIST),
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    match renameat(directory, from, directory, to) {
        Err(Errno::NOTEMPTY | Errno::NOTDIR) => Err(Errno::EXIST),
        renamed => renamed,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::os::fd::AsFd as _;
    use std::path::Path;

    use super::*;
    use crate::store::unpack::open_directory;

    type Rename = fn(BorrowedFd<'_>, &CStr, &CStr) -> io::Result<()>;
    const BOTH: [Rename; 2] = [rename_noreplace, rename_without_flags];

    /// Creates what `kind` says at `path`.
    fn create(kind: &str, path: &Path) {
        match kind {
            "file" => std::fs::write(path, kind).unwrap(),
            "symlink" => std::os::unix::fs::symlink("nowhere", path).unwrap(),
            "empty directory" => std::fs::create_dir(path).unwrap(),
            _ => {
                std::fs::create_dir(path).unwrap();
                std::fs::write(path.join("inside"), kind).unwrap();
            }
        }
    }

    fn rename(with: Rename, directory: &Path) -> io::Result<()> {
        let parent = open_directory(directory).unwrap();
        let name = |name: &str| CString::new(name).unwrap();
        with(parent.as_fd(), &name("from"), &name("to"))
    }

    const KINDS: [&str; 4] = ["file", "symlink", "empty directory", "directory"];

    #[test]
    fn an_absent_name_is_given() {
        for (with, kind) in BOTH
            .into_iter()
            .flat_map(|with| KINDS.map(|kind| (with, kind)))
        {
            let directory = tempfile::tempdir().unwrap();
            create(kind, &directory.path().join("from"));
            rename(with, directory.path()).unwrap();
            directory.path().join("to").symlink_metadata().unwrap();
            directory
                .path()
                .join("from")
                .symlink_metadata()
                .unwrap_err();
        }
    }

    #[test]
    fn what_has_the_name_keeps_it() {
        let pairs = KINDS
            .into_iter()
            .flat_map(|from| KINDS.map(|to| (from, to)));
        for (with, (from, to)) in BOTH
            .into_iter()
            .flat_map(|with| pairs.clone().map(move |p| (with, p)))
        {
            let directory = tempfile::tempdir().unwrap();
            create(from, &directory.path().join("from"));
            create(to, &directory.path().join("to"));
            let kept = || directory.path().join("to").symlink_metadata().unwrap();
            let before = kept();
            assert_eq!(
                rename(with, directory.path()),
                Err(Errno::EXIST),
                "{from} to {to}"
            );
            use std::os::unix::fs::MetadataExt as _;
            assert_eq!(kept().ino(), before.ino(), "{from} to {to}");
            directory.path().join("from").symlink_metadata().unwrap();
        }
    }
}
