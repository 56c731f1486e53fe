//! Repairs valid items of an embedded store: what is missing or damaged is fetched again, under the rules of
//! trust that hold for every fetch.
//!
//! An item keeps what the database records of it, so only a build with the recorded hash is fetched. Each
//! item is locked and verified again before anything is done about it: another process may have repaired
//! or removed it. Items do not depend on each other here, because all of them stay valid.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::format::store_path::StorePath;
use crate::store::verify::{ItemFault, ItemFinding, verify_item};
use crate::store::{ItemLock, RecordedItem, Store, StoreError};
use crate::substitute::closure::TICK;
use crate::substitute::download::choice;
use crate::substitute::install::item::{self, AllowedBuilds};
use crate::substitute::install::{Installer, ItemError, UnpackRequest};
use crate::substitute::item_lookup::{ItemBuild, ItemLookup};
use crate::substitute::lookup::{LookupScope, Resolver};
use crate::substitute::progress::{ProgressEvent, with_ticks};
use crate::sync::lock;

/// What came of the repair of each item.
pub(crate) type RepairResults = Vec<(StorePath, Result<(), ItemError>)>;

/// Everything that repairs need.
pub(crate) struct StoreRepair {
    /// The store.
    pub(crate) store: Arc<Store>,
    /// Looks items up.
    pub(crate) resolver: Arc<Resolver>,
    /// Unpacks them.
    pub(crate) installer: Arc<Installer>,
    /// Items unpacked at the same time.
    pub(crate) jobs: usize,
}

impl StoreRepair {
    /// Repairs all items of `findings`.
    ///
    /// # Errors
    /// The items cannot be kept from the collector.
    pub(crate) fn run(&self, findings: &[ItemFinding]) -> Result<RepairResults, StoreError> {
        let items = findings.iter().map(|finding| finding.item.path.clone());
        let items: Vec<StorePath> = items.collect();
        self.store.add_temp_roots(&items)?;

        // All are looked up at once; the workers are then answered from memory.
        let to_fetch = findings
            .iter()
            .filter(|finding| !matches!(&finding.fault, ItemFault::Attributes(faults) if faults.is_correctable));
        let to_fetch: Vec<StorePath> = to_fetch.map(|finding| finding.item.path.clone()).collect();
        let found = self
            .resolver
            .resolve(to_fetch.clone(), LookupScope::ItemsOnly);
        // Without an answer the workers find out why, each for its item.
        let found = found.map(|resolution| resolution.items).unwrap_or_default();
        let downloads = found
            .iter()
            .filter_map(|lookup| choice::announced(&lookup.sources));
        let sizes = downloads.filter_map(|(_, download)| download.file_size);
        self.installer.progress.event(ProgressEvent::Planned {
            items: to_fetch.len(),
            download_size: sizes.fold(0, u64::saturating_add),
        });

        let _write_ahead = self.store.write_ahead(&self.installer.writers);
        let results = with_ticks(
            TICK,
            || self.installer.report_progress(),
            || self.repair_all(&items),
        );
        self.installer.progress.event(ProgressEvent::Finished);
        Ok(results)
    }

    /// Repairs `items` on several threads; as many as the system has to spare.
    fn repair_all(&self, items: &[StorePath]) -> RepairResults {
        let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for number in 1..self.jobs.min(items.len()) {
                let thread = std::thread::Builder::new().name(format!("repair-{number}"));
                let started =
                    thread.spawn_scoped(scope, || self.repair_some(items, &next, &results));
                if started.is_err() {
                    break;
                }
            }
            self.repair_some(items, &next, &results);
        });
        results.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Repairs one item after the other, until all have been taken.
    fn repair_some(&self, items: &[StorePath], next: &AtomicUsize, results: &Mutex<RepairResults>) {
        while let Some(path) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = self.repair(path);
            lock(results).push((path.clone(), result));
        }
    }

    fn repair(&self, path: &StorePath) -> Result<(), ItemError> {
        let item_lock = self.lock_item(path)?;
        let Some(recorded) = self.store.recorded(path)? else {
            // It was removed meanwhile.
            return Ok(());
        };
        match verify_item(&self.store, &recorded)? {
            None => return Ok(()),
            Some(ItemFault::Attributes(faults)) if faults.is_correctable => {
                return Ok(self.store.correct_attributes(&item_lock)?);
            }
            Some(_) => {}
        }

        let build = self.find_build(&recorded)?;
        let authorized = build
            .authority
            .verified_this_run()
            .ok_or(ItemError::NotTried)?;
        let destination = self.store.clear_temporary(&item_lock)?;
        let links = Arc::new(self.store.links().for_repair());
        let request = UnpackRequest {
            item: path,
            authorized,
            sources: &build.sources,
            destination: &destination,
            links: Some(&links),
            progress: &*self.installer.progress,
        };
        let builds = AllowedBuilds::None;
        let checked = item::unpack(&self.installer, &self.resolver, &request, builds)?;
        self.store.replace_tree(checked, item_lock, &recorded)?;
        self.installer.item_is_complete(path);
        self.installer
            .progress
            .event(ProgressEvent::Registered { item: path });
        Ok(())
    }

    /// The lock of `path`, once no other process has it.
    fn lock_item(&self, path: &StorePath) -> Result<ItemLock, ItemError> {
        loop {
            if self.installer.cancel.is_canceled() {
                return Err(ItemError::Interrupted);
            }
            if let Some(item_lock) = self.store.try_lock(path)? {
                return Ok(item_lock);
            }
            std::thread::sleep(TICK);
        }
    }

    /// The build of an item that has the recorded hash.
    fn find_build(&self, recorded: &RecordedItem) -> Result<ItemBuild, ItemError> {
        let paths = vec![recorded.path.clone()];
        let resolution = self
            .resolver
            .resolve(paths.clone(), LookupScope::ItemsOnly)?;
        if self.installer.cancel.is_canceled() {
            return Err(ItemError::Interrupted);
        }
        let lookup = resolution
            .items
            .into_iter()
            .next()
            .ok_or(ItemError::NotTried)?;
        if lookup.authority.is_none() {
            return Err(ItemError::unavailable(&lookup, &resolution.servers));
        }
        if let Some(build) = recorded_build(lookup, recorded) {
            return Ok(build);
        }

        // Another server than the first that has the item may have the recorded build.
        let all = self.resolver.resolve_on_all_servers(paths)?.items;
        let mut builds = all
            .into_iter()
            .flat_map(|lookup| recorded_build(lookup, recorded));
        builds
            .next()
            .ok_or(ItemError::OtherContents(recorded.nar_hash))
    }
}

fn recorded_build(lookup: ItemLookup, recorded: &RecordedItem) -> Option<ItemBuild> {
    let mut builds = lookup.builds();
    builds.find(|build| build.authority.narinfo().nar_hash() == recorded.nar_hash)
}
