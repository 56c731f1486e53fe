//! A tree that is removed when dropped, unless its owner has moved it to its final place or keeps it
//! where it is, as the helper of guix-daemon does.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, StatxFlags, statx};

use super::destination::Destination;
use super::reserve::Reserve;
use super::tree_deduplication::NewEntries;

/// Removes what stands at the destination when this process created it there and it is not to
/// stay. What was there before, or what another process creates, is never removed.
pub(super) struct TemporaryTree {
    pub(super) destination: Destination,
    pub(super) top: Arc<TopEntry>,
    /// What it adds to `.links`, where it is deduplicated.
    pub(super) new_entries: Option<NewEntries>,
    pub(super) reserve: Arc<Reserve>,
}

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

    /// Whether what stands at `destination` is to be removed.
    fn is_garbage(&self, destination: &Destination) -> bool {
        let name = Path::new(destination.name().as_os_str());
        let found = || identity(destination.parent(), name, AtFlags::SYMLINK_NOFOLLOW);
        let directory = self.directory.get();
        self.is_ours.load(Ordering::Relaxed)
            && directory.is_none_or(|ours| found().is_ok_and(|found| found == *ours))
    }
}

fn identity(directory: impl AsFd, name: &Path, flags: AtFlags) -> rustix::io::Result<Identity> {
    let found = statx(directory, name, flags, StatxFlags::INO | StatxFlags::BTIME)?;
    let created = found.stx_btime;
    Ok((found.stx_ino, created.tv_sec, created.tv_nsec))
}

impl std::fmt::Debug for TemporaryTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TemporaryTree({})", self.destination.path().display())
    }
}

impl Drop for TemporaryTree {
    fn drop(&mut self) {
        if self.top.is_garbage(&self.destination) {
            self.reserve.remove_tree(&self.destination);
            if let Some(new_entries) = &self.new_entries {
                new_entries.withdraw();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags, open};

    use super::*;
    use crate::format::nar::EntryName;

    #[test]
    fn a_directory_that_another_process_has_made_meanwhile_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        let open = |path: &Path| open(path, OFlags::RDONLY, Mode::empty()).unwrap();
        let destination = Destination::new(
            Arc::new(open(dir.path())),
            dir.path().to_owned(),
            EntryName::new(b"tree").unwrap(),
        );
        let guard = TemporaryTree {
            destination,
            top: Arc::default(),
            new_entries: None,
            reserve: Arc::new(Reserve::new().unwrap()),
        };
        std::fs::create_dir(&tree).unwrap();
        guard.top.note_created();
        guard.top.note_directory(open(&tree));
        assert!(guard.top.is_garbage(&guard.destination));

        std::fs::remove_dir(&tree).unwrap();
        // The number of the inode may be used again, but not at the same time.
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::create_dir(&tree).unwrap();
        drop(guard);
        assert!(tree.exists());
    }
}
