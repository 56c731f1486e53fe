//! The top entry of a tree that is being unpacked: whether this process has made it, and which directory it is.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, StatxFlags, statx};

use super::destination::Destination;

/// What is known of the top entry of a tree.
#[derive(Debug, Default)]
pub(super) struct TopEntry {
    /// Set when this process creates it, cleared when the tree is to stay.
    is_ours: AtomicBool,
    /// Which directory it is, if it is one. When the daemon has ended, its helper has no lock any more: another process
    /// may have removed the tree, and have made its own at the same name.
    directory: OnceLock<Identity>,
}

/// The number of an inode, which is used again, and when that was created: seconds and nanoseconds, where the file system
/// knows.
type Identity = (u64, i64, u32);

impl TopEntry {
    /// This process has created it.
    pub(super) fn note_created(&self) {
        self.is_ours.store(true, Ordering::Relaxed);
    }

    /// It is `directory`.
    pub(super) fn note_directory(&self, directory: impl AsFd) {
        if let Ok(identity) = identity(directory, Path::new(""), AtFlags::EMPTY_PATH) {
            let _ = self.directory.set(identity);
        }
    }

    /// It is to stay.
    pub(super) fn keep(&self) {
        self.is_ours.store(false, Ordering::Relaxed);
    }

    /// Whether this process has created it, and it is not to stay.
    pub(super) fn is_ours(&self) -> bool {
        self.is_ours.load(Ordering::Relaxed)
    }

    /// Whether it is what stands at `destination`.
    pub(super) fn is_at(&self, destination: &Destination) -> bool {
        let name = Path::new(destination.name().as_os_str());
        let directory = self.directory.get();
        directory.is_none_or(|ours| {
            let found = identity(destination.parent(), name, AtFlags::SYMLINK_NOFOLLOW);
            found.is_ok_and(|found| found == *ours)
        })
    }
}

fn identity(directory: impl AsFd, name: &Path, flags: AtFlags) -> rustix::io::Result<Identity> {
    let found = statx(directory, name, flags, StatxFlags::INO | StatxFlags::BTIME)?;
    let created = found.stx_btime;
    Ok((found.stx_ino, created.tv_sec, created.tv_nsec))
}
