//! The one form that every file of a store item has, whatever made it.
//!
//! Files are 0444, or 0555 when executable; directories 0555; everything, symlinks included,
//! was last modified at second 1 of the epoch. Files are set through their open descriptor and
//! directories after their last entry: making an entry moves the directory's time.
//!
//! There are no access control lists, as in Nix, which removes them. Other extended attributes
//! are not inherited, except for labels of security modules, which Nix leaves alone as well.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode, Timespec, Timestamps};
use rustix::fs::{fchmod, fgetxattr_query, fremovexattr, fstat, futimens, utimensat};
use rustix::io::{self, Errno};

/// The mode of a directory.
pub(crate) const DIRECTORY_MODE: Mode = Mode::from_bits_truncate(0o555);
/// The mode of a file that cannot be executed.
pub(crate) const FILE_MODE: Mode = Mode::from_bits_truncate(0o444);
/// The mode of a file that can.
pub(crate) const EXECUTABLE_MODE: Mode = Mode::from_bits_truncate(0o555);
/// When everything was last modified, in seconds of the epoch.
pub(crate) const MTIME_SECS: i64 = 1;

/// The attributes that hold access control lists.
const ACLS: [&CStr; 2] = [c"system.posix_acl_access", c"system.posix_acl_default"];

const TIMES: Timestamps = Timestamps {
    last_access: Timespec {
        tv_sec: MTIME_SECS,
        tv_nsec: 0,
    },
    last_modification: Timespec {
        tv_sec: MTIME_SECS,
        tv_nsec: 0,
    },
};

/// The mode of a file.
#[must_use]
pub(crate) fn file_mode(executable: bool) -> Mode {
    if executable {
        EXECUTABLE_MODE
    } else {
        FILE_MODE
    }
}

/// Whether an open file or directory has exactly `mode`, and no access control list.
///
/// # Errors
/// Those of `fstat`.
pub(crate) fn has_exactly(file: impl AsFd, mode: Mode) -> io::Result<bool> {
    Ok(mode_of(&file)? == mode && !ACLS.into_iter().any(|name| has_attribute(&file, name)))
}

/// Gives an open file or directory exactly `mode`, and no access control list.
///
/// # Errors
/// An attribute or the mode cannot be changed, or the file system does not keep the mode.
pub(crate) fn enforce_mode(file: impl AsFd, mode: Mode) -> std::io::Result<()> {
    // First, because removing a list leaves the mode that its entries amount to.
    for name in ACLS.into_iter().filter(|name| has_attribute(&file, name)) {
        match fremovexattr(&file, name) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    fchmod(&file, mode)?;

    // Mount options may have the last word, and nothing reports an error then.
    let found = mode_of(&file)?;
    if found == mode {
        return Ok(());
    }
    let (found, mode) = (found.as_raw_mode(), mode.as_raw_mode());
    let text = format!("the file system sets mode {found:04o} instead of {mode:04o}");
    Err(std::io::Error::new(std::io::ErrorKind::Unsupported, text))
}

fn mode_of(file: impl AsFd) -> io::Result<Mode> {
    Ok(Mode::from_raw_mode(fstat(file)?.st_mode))
}

/// File systems without attributes have none, so every failure means that there is none.
fn has_attribute(file: impl AsFd, name: &CStr) -> bool {
    fgetxattr_query(file, name).is_ok()
}

/// Sets the times of an open file whose mode was right from its creation.
///
/// # Errors
/// Those of `futimens`.
pub(crate) fn settle_times(file: impl AsFd) -> io::Result<()> {
    futimens(file, &TIMES)
}

/// Sets mode and times of an open file or directory. The umask took part in the mode it was
/// created with, so a mode that matters has to be set.
///
/// # Errors
/// Those of `fchmod` and `futimens`.
pub(crate) fn settle(file: impl AsFd, mode: Mode) -> io::Result<()> {
    fchmod(&file, mode)?;
    settle_times(file)
}

/// Sets the times of the symlink `name` in `dir`; symlinks have no mode of their own.
///
/// # Errors
/// Those of `utimensat`.
pub(crate) fn settle_symlink(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    utimensat(dir, name, &TIMES, AtFlags::SYMLINK_NOFOLLOW)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::path::Path;

    use rustix::fs::XattrFlags;

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
        if !kind.is_symlink() {
            let file = std::fs::File::open(path).unwrap();
            let lists = ACLS.iter().filter(|name| has_attribute(&file, name));
            faults.extend(lists.map(|name| format!("{}: {name:?}", path.display())));
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

    /// Gives `directory` a default ACL: permissions of the owner, the group and others, and of
    /// a named user. `false` where there are no ACLs.
    pub(crate) fn set_default_acl(
        directory: &Path,
        [owner, group, others]: [u16; 3],
        named: Option<u16>,
    ) -> bool {
        const ANYBODY: u32 = u32::MAX;
        // The only user that certainly exists in a user namespace.
        let user = rustix::process::geteuid().as_raw();
        let mut entries = vec![(0x01, owner, ANYBODY)];
        entries.extend(named.map(|permissions| (0x02, permissions, user)));
        entries.push((0x04, group, ANYBODY));
        entries.extend(named.map(|permissions| (0x10, permissions | group, ANYBODY)));
        entries.push((0x20, others, ANYBODY));
        let mut value = 2u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            value.extend(u16::to_le_bytes(tag));
            value.extend(permissions.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        let set = rustix::fs::setxattr(directory, ACLS[1], &value, XattrFlags::empty());
        if set == Err(Errno::OPNOTSUPP) {
            eprintln!(
                "left out: there are no ACLs on the file system of {}",
                directory.display()
            );
        } else {
            set.unwrap();
        }
        set.is_ok()
    }

    #[test]
    fn an_inherited_acl_is_removed_and_the_mode_is_exact() {
        let dir = tempfile::tempdir().unwrap();
        if !set_default_acl(dir.path(), [7, 5, 0], Some(7)) {
            return;
        }
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join("file"), "x").unwrap();
        let settle_all = |path: &Path, mode: Mode| {
            let file = std::fs::File::open(path).unwrap();
            assert!(!has_exactly(&file, mode).unwrap());
            enforce_mode(&file, mode).unwrap();
            assert!(has_exactly(&file, mode).unwrap());
            settle_times(&file).unwrap();
        };
        settle_all(&tree.join("file"), FILE_MODE);
        settle_all(&tree, DIRECTORY_MODE);
        assert_eq!(faults(&tree), Vec::<String>::new());
        crate::store::remove::remove_tree(dir.path(), "tree").unwrap();
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
        settle(
            std::fs::File::open(tree.join("file")).unwrap(),
            EXECUTABLE_MODE,
        )
        .unwrap();
        settle_symlink(handle.as_fd(), c"link").unwrap();
        settle(&handle, DIRECTORY_MODE).unwrap();
        assert_eq!(faults(&tree), Vec::<String>::new());
        crate::store::remove::remove_tree(dir.path(), "tree").unwrap();
    }
}
