//! What is to be collected, and what was.

use std::path::PathBuf;

use crate::format::store_path::StorePath;
use crate::store::error::{StoreError, UnreadableRoot};

use super::gc_item::GcItem;
use super::keeper::Keeper;

/// Whether garbage is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GcMode {
    /// It is.
    Delete,
    /// It is only reported.
    DryRun,
}

/// What is to be collected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GcRequest {
    pub(crate) mode: GcMode,
    /// Items that were registered at this time or later stay, with everything they refer to. In Unix
    /// seconds.
    pub(crate) keep_since: Option<u64>,
    /// Items are deleted only while the store takes more than this on the disk, in bytes.
    pub(crate) max_bytes: Option<u64>,
}

/// How far the deletion of files is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GcProgress {
    /// Trees that are deleted.
    pub(crate) done: usize,
    /// Trees to delete.
    pub(crate) total: usize,
    /// Bytes that this has freed.
    pub(crate) freed_bytes: u64,
}

/// What was collected, or would be.
#[derive(Debug, Default)]
pub(crate) struct GcReport {
    /// Items that are not valid any more, referrers first.
    pub(crate) deleted: Vec<GcItem>,
    /// Items that stay, and what keeps them.
    pub(crate) kept: Vec<(GcItem, Keeper)>,
    /// Names in the store directory that belonged to no valid item and to no process.
    pub(crate) leftovers: Vec<String>,
    /// Links of indirect roots whose targets are gone.
    pub(crate) stale_roots: Vec<PathBuf>,
    /// Files of temp roots of processes that have ended.
    pub(crate) stale_temp_roots: usize,
    /// Entries of `.links` that no item had a link to.
    pub(crate) unused_links: u64,
    /// Bytes on the disk that are free now, or would be.
    pub(crate) freed_bytes: u64,
    /// Bytes on the disk that the store takes, if it has a limit.
    pub(crate) store_bytes: Option<u64>,
    /// What could not be deleted.
    pub(crate) failures: Vec<StoreError>,
    /// Whether the user interrupted it.
    pub(crate) is_interrupted: bool,
}

impl GcReport {
    /// Adds what a later step of the same collection did.
    pub(crate) fn add(&mut self, later: Self) {
        self.deleted.extend(later.deleted);
        self.kept = later.kept;
        self.leftovers.extend(later.leftovers);
        self.stale_roots.extend(later.stale_roots);
        self.stale_temp_roots += later.stale_temp_roots;
        self.unused_links += later.unused_links;
        self.freed_bytes += later.freed_bytes;
        self.store_bytes = later.store_bytes;
        self.failures.extend(later.failures);
        self.is_interrupted |= later.is_interrupted;
    }

    /// Adds what ended a step.
    pub(super) fn add_failure(&mut self, failure: StoreError) {
        match failure {
            StoreError::Interrupted => self.is_interrupted = true,
            _ => self.failures.push(failure),
        }
    }
}

/// The permanent roots of a store.
#[derive(Debug, Default)]
pub(crate) struct RootsReport {
    /// Those that can be read.
    pub(crate) roots: Vec<RootReport>,
    /// Those of which it is not known what they keep.
    pub(crate) unreadable: Vec<UnreadableRoot>,
}

/// A root and what it keeps.
#[derive(Debug)]
pub(crate) struct RootReport {
    /// The link.
    pub(crate) link: PathBuf,
    /// The item that it names.
    pub(crate) item: StorePath,
    /// `None` if the item is not valid, so that the root keeps nothing.
    pub(crate) closure: Option<ClosureSize>,
}

/// How large an item is with everything it refers to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ClosureSize {
    /// How many items.
    pub(crate) items: usize,
    /// The sizes of their nars, in bytes.
    pub(crate) nar_bytes: u64,
}
