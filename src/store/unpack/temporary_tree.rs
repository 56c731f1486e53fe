//! A tree that is removed when dropped, unless its owner has moved it to its final place or keeps it
//! where it is, as the helper of guix-daemon does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::destination::Destination;
use super::reserve::Reserve;
use super::tree_deduplication::NewEntries;

/// Removes what stands at the destination when this process created it there and it is not to
/// stay. What was there before, or what another process creates, is never removed.
pub(super) struct TemporaryTree {
    pub(super) destination: Destination,
    /// Set when this process creates the top entry of the tree, cleared when the tree is to stay.
    pub(super) remove_on_drop: Arc<AtomicBool>,
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
        if self.remove_on_drop.load(Ordering::Relaxed) {
            self.reserve.remove_tree(&self.destination);
            if let Some(new_entries) = &self.new_entries {
                new_entries.withdraw();
            }
        }
    }
}
