//! A tree that is removed when dropped, unless its owner has moved it to its final place or keeps it
//! where it is, as the helper of guix-daemon does.

use std::sync::Arc;

use super::destination::Destination;
use super::reserve::Reserve;
use super::top_entry::TopEntry;
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

impl std::fmt::Debug for TemporaryTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TemporaryTree({})", self.destination.path().display())
    }
}

impl Drop for TemporaryTree {
    fn drop(&mut self) {
        if self.top.is_ours() {
            if self.top.is_at(&self.destination) {
                self.reserve.remove_tree(&self.destination);
            }
            if let Some(new_entries) = &self.new_entries {
                new_entries.withdraw();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
        assert!(guard.top.is_at(&guard.destination));

        std::fs::remove_dir(&tree).unwrap();
        // The number of the inode may be used again, but not at the same time.
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::create_dir(&tree).unwrap();
        drop(guard);
        assert!(tree.exists());
    }
}
