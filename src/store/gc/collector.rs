//! One collection: what stays, what goes, and in which order.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use crate::store::db::Database;
use crate::store::deduplicate::Links;
use crate::store::directory::open_directory;
use crate::store::error::{StoreError, not_removed};
use crate::store::layout::Layout;
use crate::store::lock_file::LockFile;
use crate::store::lock_kind::{LockKind, LockMode, Tried};
use crate::store::sync_mode::SyncMode;
use crate::store::wait::StoreObserver;

use super::gc_item::GcItem;
use super::graph::ItemGraph;
use super::keeper::Keeper;
use super::reclaim::reclaim_space;
use super::report::{GcMode, GcProgress, GcReport, GcRequest};
use super::roots::{FoundRoots, find_roots, is_stale};
use super::running::used_items;
use super::store_entries::{StoreEntries, item_of_lock};
use super::store_sizes::StoreSizes;
use super::temp_root_files::TempRootFiles;
use super::trash::{TRASH, Trash};

/// Rows that are deleted in one transaction, which keeps other writers waiting.
const TRANSACTION_ITEMS: usize = 64;

/// A store that is collected.
pub(super) struct Collector<'a> {
    pub(super) layout: &'a Layout,
    pub(super) kind: LockKind,
    pub(super) sync: SyncMode,
    pub(super) links: &'a Links,
    pub(super) database: &'a mut Database,
    pub(super) observer: &'a dyn StoreObserver,
}

/// What is to be deleted, and what stays.
struct CollectionPlan {
    /// Referrers first.
    dead: Vec<GcItem>,
    kept: Vec<(GcItem, Keeper)>,
    leftovers: Vec<CString>,
    /// Held until these have left the store.
    unpacked: Vec<File>,
    /// What deleting it frees, and what the store takes then, where that was found out.
    estimate: Option<SizeEstimate>,
}

/// What a collection frees, by the sizes of files on the disk.
#[derive(Clone, Copy)]
struct SizeEstimate {
    freed_bytes: u64,
    unused_links: u64,
    store_bytes: u64,
}

impl CollectionPlan {
    /// Estimates what the plan frees. With `max_bytes`, the youngest items stay that the store has room
    /// for; the entries `others` count for the size of the store, besides what is to be deleted.
    ///
    /// # Errors
    /// [`StoreError::Interrupted`].
    fn limit_by_size(
        &mut self,
        max_bytes: Option<u64>,
        mut sizes: StoreSizes<'_>,
        others: &[CString],
    ) -> Result<(), StoreError> {
        let dead: Vec<CString> = self.dead.iter().map(name_of).collect();
        // Left by a collection that was killed; this one deletes it whatever else stays.
        let trash = CString::new(TRASH).unwrap_or_default();
        let names = others.iter().chain(&self.leftovers).chain(&dead);
        sizes.update(&names.chain([&trash]).map(CString::as_c_str).collect())?;

        let total = sizes.total();
        let unused_links = sizes.usage.unused_links;
        let mut freed = sizes.usage.unused_bytes + sizes.remove(&trash);
        for name in &self.leftovers {
            freed += sizes.remove(name);
        }
        let mut deleted = 0;
        for name in &dead {
            if max_bytes.is_some_and(|max| total.saturating_sub(freed) <= max) {
                break;
            }
            freed += sizes.remove(name);
            deleted += 1;
        }

        let spared = self.dead.split_off(deleted);
        self.kept
            .extend(spared.into_iter().map(|item| (item, Keeper::Size)));
        self.estimate = Some(SizeEstimate {
            freed_bytes: freed,
            unused_links,
            store_bytes: total.saturating_sub(freed),
        });
        Ok(())
    }
}

fn name_of(item: &GcItem) -> CString {
    CString::new(item.path.base()).unwrap_or_default()
}

impl Collector<'_> {
    /// Collects what `request` says.
    ///
    /// # Errors
    /// What keeps it from beginning. Later failures are in the report.
    pub(super) fn run(
        mut self,
        request: &GcRequest,
        progress: &mut dyn FnMut(GcProgress),
    ) -> Result<GcReport, StoreError> {
        let sizes = match request.max_bytes {
            Some(_) => Some(StoreSizes::of_all(self.layout, self.observer)?),
            None => None,
        };
        let gc_lock = self.lock_roots(request.mode)?;
        let temp_roots = TempRootFiles::read(self.layout, self.kind, request.mode, self.observer)?;
        let mut roots = find_roots(self.layout);
        if !roots.unreadable.is_empty() {
            return Err(StoreError::UnreadableRoots(std::mem::take(
                &mut roots.unreadable,
            )));
        }
        let plan = self.plan(request, &roots, &temp_roots, sizes)?;

        let mut report = GcReport {
            stale_temp_roots: temp_roots.stale,
            stale_roots: roots.stale,
            leftovers: plan.leftovers.iter().map(shown_name).collect(),
            ..GcReport::default()
        };
        if let Some(estimate) = plan.estimate.filter(|_| request.max_bytes.is_some()) {
            report.store_bytes = Some(estimate.store_bytes);
        }
        let Some(gc_lock) = gc_lock.filter(|_| request.mode == GcMode::Delete) else {
            report.kept = plan.kept;
            report.deleted = plan.dead;
            if let Some(estimate) = plan.estimate {
                report.freed_bytes = estimate.freed_bytes;
                report.unused_links = estimate.unused_links;
            }
            return Ok(report);
        };

        let trash = self.delete(plan, &mut report)?;
        drop(temp_roots);
        match gc_lock.lock(LockMode::Shared, self.observer) {
            Ok(()) => reclaim_space(
                self.layout,
                self.links,
                trash,
                self.observer,
                progress,
                &mut report,
            ),
            Err(error) => report.add_failure(error),
        }
        Ok(report)
    }

    /// Deletes what `plan` says, up to the files that are in the trash then.
    ///
    /// # Errors
    /// The store may not be changed; nothing was deleted. Later failures are in the report.
    fn delete(&mut self, plan: CollectionPlan, report: &mut GcReport) -> Result<Trash, StoreError> {
        let mut trash = Trash::open(self.layout, self.links.store())?;
        report.kept = plan.kept;
        self.remove_stale_roots(report);
        self.move_leftovers(&plan.leftovers, &mut trash, report);
        drop(plan.unpacked);
        if let Err(error) = self.delete_items(plan.dead, &mut trash, report) {
            report.add_failure(error);
        }
        Ok(trash)
    }

    /// Locks `gc.lock`, so that no other collection runs, and none of Nix's programs adds a root. A dry run only
    /// keeps other collections from running, and creates no lock.
    fn lock_roots(&self, mode: GcMode) -> Result<Option<LockFile>, StoreError> {
        let state = open_directory(self.layout, self.layout.state())?;
        let path = self.layout.gc_lock();
        let (gc_lock, lock_mode) = match mode {
            GcMode::Delete => {
                let gc_lock = LockFile::open(self.kind, state.as_fd(), path)?;
                (Some(gc_lock), LockMode::Exclusive)
            }
            GcMode::DryRun => {
                let gc_lock = LockFile::open_to_read(self.kind, state.as_fd(), path)?;
                (gc_lock, LockMode::Shared)
            }
        };
        if let Some(gc_lock) = &gc_lock {
            gc_lock.lock(lock_mode, self.observer)?;
        }
        Ok(gc_lock)
    }

    /// Finds out what is reachable, and which of the rest goes.
    fn plan(
        &mut self,
        request: &GcRequest,
        roots: &FoundRoots,
        temp_roots: &TempRootFiles,
        sizes: Option<StoreSizes<'_>>,
    ) -> Result<CollectionPlan, StoreError> {
        let graph = self.database.item_graph()?;
        let mut entries =
            StoreEntries::read(self.layout, self.kind, self.links, temp_roots, &graph)?;
        let starts = self.starts(&graph, roots, temp_roots, &entries, request.keep_since);
        let positions = starts.iter().enumerate();
        let reached = graph.reached_from(positions.map(|(index, (at, _))| (*at, index)));

        let mut plan = CollectionPlan {
            dead: Vec::new(),
            kept: Vec::new(),
            leftovers: entries.leftovers(&graph, temp_roots),
            unpacked: std::mem::take(&mut entries.unpacked),
            estimate: None,
        };
        for at in graph.oldest_first() {
            let item = graph.items()[at].clone();
            match reached[at] {
                Some(start) => plan.kept.push((item, starts[start].1.clone())),
                None => plan.dead.push(item),
            }
        }

        match sizes {
            Some(sizes) => plan.limit_by_size(request.max_bytes, sizes, &entries.names)?,
            None if request.mode == GcMode::DryRun => {
                let sizes = StoreSizes::of_links(self.layout, self.observer)?;
                plan.limit_by_size(None, sizes, &[])?;
            }
            None => {}
        }
        Ok(plan)
    }

    /// The items that stay whatever refers to them, and what keeps each.
    fn starts(
        &self,
        graph: &ItemGraph,
        roots: &FoundRoots,
        temp_roots: &TempRootFiles,
        entries: &StoreEntries,
        keep_since: Option<u64>,
    ) -> Vec<(usize, Keeper)> {
        let mut starts = Vec::new();
        for root in &roots.roots {
            let keeper = Keeper::Root(root.link.clone());
            starts.extend(graph.position(&root.item).map(|at| (at, keeper)));
        }
        for (at, item) in graph.items().iter().enumerate() {
            if let Some(process) = temp_roots.process_of(item.path.base()) {
                starts.push((at, Keeper::TempRoot(process.to_owned())));
            }
        }
        for used in used_items(self.layout, self.links.store()) {
            let keeper = Keeper::Process(used.process);
            starts.extend(graph.position(&used.item).map(|at| (at, keeper)));
        }
        for (at, item) in graph.items().iter().enumerate() {
            if entries.locked.contains(item.path.base()) {
                starts.push((at, Keeper::Locked));
            }
        }
        for (at, item) in graph.items().iter().enumerate() {
            if keep_since.is_some_and(|since| item.registered_at >= since) {
                starts.push((at, Keeper::Age));
            }
        }
        starts
    }

    /// Removes the links that keep nothing any more.
    fn remove_stale_roots(&self, report: &mut GcReport) {
        for link in std::mem::take(&mut report.stale_roots) {
            match self.remove_stale_root(&link) {
                Ok(true) => report.stale_roots.push(link),
                Ok(false) => {}
                Err(error) => report.failures.push(error),
            }
        }
    }

    /// Removes `link`, unless there is something again where it leads.
    fn remove_stale_root(&self, link: &Path) -> Result<bool, StoreError> {
        let directory = open_directory(self.layout, link.parent().unwrap_or(link))?;
        if !is_stale(self.layout, link)? {
            return Ok(false);
        }
        match unlinkat(
            &directory,
            link.file_name().unwrap_or_default(),
            AtFlags::empty(),
        ) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(error) => Err(not_removed(link)(error)),
        }
    }

    /// Moves what belongs to no valid item to the trash.
    fn move_leftovers(&self, names: &[CString], trash: &mut Trash, report: &mut GcReport) {
        for name in names {
            let moved = match item_of_lock(self.links.store().as_fd(), name) {
                Some(_) => self.remove_lock(name),
                None => trash.take(name),
            };
            report.failures.extend(moved.err());
        }
    }

    /// Removes the file of a lock in a way that tells those who have opened it.
    fn remove_lock(&self, name: &CStr) -> Result<(), StoreError> {
        let store = self.links.store();
        let path = self.layout.store().join(name.to_string_lossy().as_ref());
        let Some(mut file) = LockFile::open_existing(self.kind, store.as_fd(), path)? else {
            return Ok(());
        };
        match file.try_lock(LockMode::Exclusive)? {
            Tried::Acquired => file.remove_if_named(store.as_fd()),
            Tried::Busy => Ok(()),
        }
    }

    /// Deletes the rows of `dead`, and moves their trees to the trash.
    fn delete_items(
        &mut self,
        dead: Vec<GcItem>,
        trash: &mut Trash,
        report: &mut GcReport,
    ) -> Result<(), StoreError> {
        if self.sync != SyncMode::None {
            // A tree that is gone must not have a row again after a power cut.
            self.database.sync_transactions()?;
        }
        for batch in dead.chunks(TRANSACTION_ITEMS) {
            if self.observer.is_canceled() {
                report.is_interrupted = true;
                return Ok(());
            }
            let referred_to = self.database.delete_items(batch)?;
            for item in batch {
                if referred_to.contains(&item.id) {
                    report.kept.push((item.clone(), Keeper::Referrer));
                    continue;
                }
                let name = name_of(item);
                report.failures.extend(trash.take(&name).err());
                report.deleted.push(item.clone());
            }
        }
        Ok(())
    }
}

fn shown_name(name: &CString) -> String {
    name.to_string_lossy().into_owned()
}
