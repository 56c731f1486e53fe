//! Deleting trees whose directories are read-only, without following anything.
//!
//! Only two directories are open at a time and nothing recurses, so that no tree is too
//! deep: a directory found further down is first moved up into the top one, or reached from
//! there again where it cannot be moved. An entry is reached through its parent's descriptor,
//! so a symlink put in its place is just deleted. What is mounted in a tree is not touched.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, StatxFlags};
use rustix::fs::{chmodat, fchmod, fstat, openat, renameat, statat, statx, unlinkat};
use rustix::io::{self, Errno};

use super::error::{StoreError, on};

/// Deletes `name` in the directory `parent`, whatever it is. It is no error when it is absent.
///
/// # Errors
/// [`StoreError::Remove`]; part of the tree may be gone then.
pub(crate) fn remove_tree(parent: &Path, name: &str) -> Result<(), StoreError> {
    let removed = match openat(CWD, parent, DIRECTORY, Mode::empty()) {
        Ok(parent) => remove_tree_at(parent.as_fd(), name),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(on(&parent.join(name), |path, source| StoreError::Remove {
        path,
        source,
    }))
}

/// The same, with the parent already open.
///
/// # Errors
/// Those of the system calls; part of the tree may be gone then.
pub(crate) fn remove_tree_at(parent: BorrowedFd<'_>, name: impl AsRef<OsStr>) -> io::Result<()> {
    let name = CString::new(name.as_ref().as_bytes()).map_err(|_| Errno::INVAL)?;
    remove_tree_counted(parent, &name).map(drop)
}

/// The same; gives the bytes of the disk that are free then: those of directories, and of files that
/// have no other name.
pub(super) fn remove_tree_counted(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<u64> {
    let mut freed = 0;
    match unlink_counted(parent, name, &mut freed) {
        Ok(()) | Err(Errno::NOENT) => return Ok(freed),
        // Linux says EISDIR, POSIX EPERM. An entry that really is protected fails again below.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let top = open_writable(parent, name)?;
    freed += disk_bytes(&fstat(&top)?);
    let mut pending = Pending {
        names: unlink_files(&top, &mut freed)?,
        fixed: Vec::new(),
        path: Vec::new(),
        moved: 0,
    };
    while pending.advance() {
        remove_directory(&top, &mut pending, &mut freed)?;
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)?;
    Ok(freed)
}

/// Directories that are still to be removed, the next one last.
struct Pending {
    /// Those in the top one.
    names: Vec<CString>,
    /// Those that cannot be moved there, and the ones above them: they come first.
    fixed: Vec<FixedDirectory>,
    /// The names of the directories that lead from the top one to the one removed now, with its own.
    path: Vec<CString>,
    /// The number of the next name for one that is moved up.
    moved: u64,
}

struct FixedDirectory {
    /// The directories between it and the top one, which are the first ones of the path.
    depth: usize,
    name: CString,
}

impl Pending {
    /// Makes `path` lead to the next one, if there is one.
    fn advance(&mut self) -> bool {
        if let Some(FixedDirectory { depth, name }) = self.fixed.pop() {
            self.path.truncate(depth);
            self.path.push(name);
            return true;
        }
        self.path.clear();
        self.path.extend(self.names.pop());
        !self.path.is_empty()
    }
}

/// Removes the directory that the path of `pending` leads to, if all those in it can be moved up;
/// else what cannot be moved comes first.
fn remove_directory(top: &OwnedFd, pending: &mut Pending, freed: &mut u64) -> io::Result<()> {
    let Some((name, names_above)) = pending.path.split_last() else {
        return Ok(());
    };
    let mut above = None;
    for name in names_above {
        let parent = above.as_ref().unwrap_or(top);
        above = Some(open_writable(parent.as_fd(), name)?);
    }
    let parent = above.as_ref().unwrap_or(top);
    let below = match open_writable(parent.as_fd(), name) {
        // Empty, and replaced by one moved up under the same name, which was removed.
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };

    let size = disk_bytes(&fstat(&below)?);
    let mut fixed = Vec::new();
    for nested in unlink_files(&below, freed)? {
        // Moving a directory changes its `..`, so it has to be writable itself.
        drop(open_writable(below.as_fd(), &nested)?);
        match move_up(&below, &nested, top, &mut pending.moved) {
            Ok(moved) => pending.names.push(moved),
            // A lower layer of an overlay.
            Err(Errno::XDEV) => fixed.push(nested),
            Err(error) => return Err(error),
        }
    }
    if fixed.is_empty() {
        unlinkat(parent, name, AtFlags::REMOVEDIR)?;
        *freed += size;
        return Ok(());
    }

    let (depth, name) = (names_above.len(), name.clone());
    pending.fixed.push(FixedDirectory { depth, name });
    let depth = depth + 1;
    let fixed = fixed.into_iter();
    let fixed = fixed.map(|name| FixedDirectory { depth, name });
    pending.fixed.extend(fixed);
    Ok(())
}

/// Deletes the file `name` in `dir`, and adds what it took to `freed` if this was its last name.
fn unlink_counted(dir: BorrowedFd<'_>, name: &CStr, freed: &mut u64) -> io::Result<()> {
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    unlinkat(dir, name, AtFlags::empty())?;
    if link_count(&stat) == 1 {
        *freed += disk_bytes(&stat);
    }
    Ok(())
}

/// How many names a file has.
pub(super) fn link_count(stat: &Stat) -> u64 {
    // The type of the number depends on the machine.
    u64::try_from(i128::from(stat.st_nlink)).unwrap_or(u64::MAX)
}

/// The bytes of the disk that a file takes.
pub(super) fn disk_bytes(stat: &Stat) -> u64 {
    const BLOCK_BYTES: u64 = 512;
    u64::try_from(stat.st_blocks).map_or(0, |blocks| blocks.saturating_mul(BLOCK_BYTES))
}

/// Deletes everything in `dir` but its directories, whose names it gives; adds what was in it alone to
/// `freed`.
fn unlink_files(dir: &OwnedFd, freed: &mut u64) -> io::Result<Vec<CString>> {
    let mut directories = Vec::new();
    let mut others = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        match entry.file_type() {
            _ if name == c"." || name == c".." => {}
            FileType::Directory => directories.push(name.to_owned()),
            _ => others.push(name.to_owned()),
        }
    }
    for name in others {
        match unlink_counted(dir.as_fd(), &name, freed) {
            Ok(()) | Err(Errno::NOENT) => {}
            // A file system that does not say what its entries are.
            Err(Errno::ISDIR) => directories.push(name),
            Err(error) => return Err(error),
        }
    }
    Ok(directories)
}

/// Moves `name` out of `from` into `top`, under a name that is free there.
fn move_up(from: &OwnedFd, name: &CString, top: &OwnedFd, moved: &mut u64) -> io::Result<CString> {
    loop {
        let target = CString::new(format!(".moved-{moved}")).expect("no NUL in a number");
        *moved += 1;
        match renameat(from, name, top, &target) {
            Ok(()) => return Ok(target),
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Opens a directory of ours, and makes it one whose entries can be listed and deleted. One that
/// something is mounted on is refused with `EBUSY`, as the kernel refuses to remove it.
pub(super) fn open_writable(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let directory = match openat(parent, name, DIRECTORY, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::ACCESS) => {
            // It cannot even be listed. A handle that gives no access is still a way to reach
            // this very directory, without a second look at its name.
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let handle = openat(parent, name, flags, Mode::empty())?;
            if mount_of(parent)? != mount_of(handle.as_fd())? {
                return Err(Errno::BUSY);
            }
            let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
            chmodat(CWD, path, Mode::RWXU, AtFlags::empty())?;
            openat(parent, name, DIRECTORY, Mode::empty())?
        }
        Err(error) => return Err(error),
    };
    if mount_of(parent)? != mount_of(directory.as_fd())? {
        return Err(Errno::BUSY);
    }
    if !Mode::from_raw_mode(fstat(&directory)?.st_mode).contains(Mode::RWXU) {
        match fchmod(&directory, Mode::RWXU) {
            // Another user's; whether entries can be deleted from it shows when that is tried.
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(directory)
}

/// What tells the mount of an open directory from others.
#[derive(PartialEq, Eq)]
enum MountId {
    /// The kernel's number: a subvolume of btrfs is no mount, a part of the same file system may be.
    Mount(u64),
    /// The file system, where the kernel does not tell the number.
    Device(u64),
}

fn mount_of(directory: BorrowedFd<'_>) -> io::Result<MountId> {
    match statx(directory, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID) {
        Ok(found) if found.stx_mask & StatxFlags::MNT_ID.bits() != 0 => {
            Ok(MountId::Mount(found.stx_mnt_id))
        }
        // Sandboxes refuse calls that they do not know with EPERM.
        Ok(_) | Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => {
            Ok(MountId::Device(fstat(directory)?.st_dev))
        }
        Err(error) => Err(error),
    }
}

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::RDONLY);
