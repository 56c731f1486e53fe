//! Directories of a store that are not part of an item, and the space where they are.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Mode, chmodat, fstatvfs, mkdirat, statat};
use rustix::{io, path};

/// Makes the directory `name` in `parent`, whose own parent exists. What others may do is up to
/// the umask, or a default ACL; the owner always has access, or the store could not be used.
pub(super) fn make_directory<P: path::Arg + Copy>(parent: impl AsFd, name: P) -> io::Result<()> {
    mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
    let found = Mode::from_raw_mode(statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
    if found.contains(Mode::RWXU) {
        return Ok(());
    }
    chmodat(parent, name, found | Mode::RWXU, AtFlags::empty())
}

/// How many bytes can still be written to the file system of `directory`.
pub(super) fn free_bytes(directory: impl AsFd) -> io::Result<u64> {
    let stat = fstatvfs(directory)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
