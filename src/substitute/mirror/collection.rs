//! Garbage collection: items that are not kept lose their narinfos, and later their nars.
//!
//! Clients keep narinfos for a while, so a nar stays for the *grace* after the last narinfo that names it is gone.
//! A process that is killed at any moment leaves no narinfo that leads nowhere: narinfos go before those of
//! their references, and every nar after all narinfos that name it.

use std::collections::{HashMap, HashSet};

use super::failure::MirrorFailure;
use super::inventory::{Inventory, TEXTS_AHEAD, named_keys, read_narinfo, read_narinfos_ahead};
use super::key::MirrorKey;
use super::record::MirrorRecord;
use super::retention::{MirrorRetention, RetainedItem, removals};
use super::target::{MirrorTarget, TargetError};
use super::tombstones::Tombstones;
use crate::format::store_path::{HashPart, StoreDir, StorePath};
use crate::substitute::cancel::Cancel;
use crate::substitute::clock::Clock;

/// How much later than the clock of this machine files may be written: by that of a file server, say.
const CLOCK_BEHIND_MAX_SECONDS: u64 = 3600;

/// Collects the garbage of a mirror.
pub(crate) struct MirrorCollector<'a> {
    /// The mirror.
    pub(crate) target: &'a MirrorTarget,
    /// The store that the items are for.
    pub(crate) store_dir: &'a StoreDir,
    /// What is kept.
    pub(crate) retention: &'a MirrorRetention,
    /// For how many seconds nars stay; `None`: as long as clients may expect.
    pub(crate) grace: Option<u64>,
    /// Whether nothing is removed.
    pub(crate) is_dry_run: bool,
    /// The time.
    pub(crate) clock: &'a Clock,
    /// Raised when the user interrupts.
    pub(crate) cancel: &'a Cancel,
}

/// What a collection did, or would do.
#[derive(Default)]
pub(crate) struct MirrorCollection {
    /// The items that were removed, in the order in which they went, and the bytes of their narinfos and nars.
    pub(crate) removed: Vec<(StorePath, u64)>,
    /// How many items are kept.
    pub(crate) kept: usize,
    /// Bytes of the kept items.
    pub(crate) kept_bytes: u64,
    /// The nars that were removed.
    pub(crate) removed_nars: Vec<String>,
    /// Bytes that are free now.
    pub(crate) freed_bytes: u64,
    /// Nars that stay until their grace ends, and their bytes.
    pub(crate) waiting_nars: usize,
    pub(crate) waiting_bytes: u64,
    /// When the first of them can go, in Unix seconds.
    pub(crate) next_end: Option<u64>,
    /// The grace in seconds.
    pub(crate) grace: u64,
    /// The items that are to be kept and that the mirror does not have.
    pub(crate) absent: HashSet<HashPart>,
    /// Whether the mirror has none of the items that are to be kept, and so was left as it is.
    pub(crate) keeps_nothing: bool,
    /// Whether the user interrupted.
    pub(crate) is_interrupted: bool,
}

impl MirrorCollector<'_> {
    /// Removes what is not kept.
    ///
    /// # Errors
    /// The mirror cannot be read or changed, or has a narinfo that cannot be read: it is
    /// not known which nars that needs.
    pub(crate) fn run(&self) -> Result<MirrorCollection, MirrorFailure> {
        let record = MirrorRecord::read(self.target)?;
        let grace = self.grace.unwrap_or_else(|| record.grace(self.store_dir));
        let inventory = Inventory::list(self.target)?;
        let items = self.items(&inventory)?;
        let mut collection = MirrorCollection {
            grace,
            kept: items.len(),
            ..MirrorCollection::default()
        };
        if let Some(named) = &self.retention.items {
            collection.absent.clone_from(named);
            for item in &items {
                collection.absent.remove(&item.path.hash_part());
            }
            let has_none = collection.absent.len() == named.len();
            collection.keeps_nothing = !items.is_empty() && has_none;
        }
        if collection.keeps_nothing {
            return Ok(collection);
        }

        let mut tombstones = Tombstones::read(self.target)?;
        self.check_clock(&inventory, &tombstones)?;
        // The grace of a nar that has a narinfo, whoever wrote that, begins when it loses it.
        let named: HashSet<&MirrorKey> = items.iter().flat_map(|item| &item.nars).collect();
        tombstones.retain(|key| !named.contains(key));
        if !self.is_dry_run {
            if let Some(record) = record.with_grace(self.grace, self.store_dir) {
                record.write(self.target)?;
            }
            tombstones.write(self.target)?;
            self.target.sync_names()?;
        }

        let is_gone = self.remove_items(&items, &inventory, &mut collection)?;
        if !collection.is_interrupted {
            self.remove_nars(
                &items,
                &is_gone,
                &inventory,
                &mut tombstones,
                &mut collection,
            )?;
        }
        Ok(collection)
    }

    /// Compares the clock with what the mirror knows of the time. If it is behind, so would be new tombstones, and the
    /// next run with the right time would end the grace of all nars at once.
    ///
    /// # Errors
    /// The clock is behind.
    fn check_clock(
        &self,
        inventory: &Inventory,
        tombstones: &Tombstones,
    ) -> Result<(), MirrorFailure> {
        let latest = self
            .clock
            .unix_seconds()
            .saturating_add(CLOCK_BEHIND_MAX_SECONDS);
        let tombstone = tombstones
            .newest()
            .map(|time| (time, MirrorKey::of_tombstones()));
        match tombstone.max(inventory.newest.clone()) {
            Some((time, file)) if time > latest => Err(MirrorFailure::Clock(file.to_string())),
            _ => Ok(()),
        }
    }

    fn items(&self, inventory: &Inventory) -> Result<Vec<RetainedItem>, MirrorFailure> {
        let mut items = Vec::with_capacity(inventory.narinfos.len());
        for (number, listed) in inventory.narinfos.iter().enumerate() {
            if number % TEXTS_AHEAD == 0 {
                let next = inventory.narinfos.iter().skip(number).take(TEXTS_AHEAD);
                read_narinfos_ahead(self.target, next)?;
            }
            let read = read_narinfo(self.target, &listed.item, self.store_dir)?;
            let Some(read) = read else { continue };
            let read = read.and_then(|narinfo| {
                let nars = named_keys(&narinfo)?;
                Ok((narinfo, nars))
            });
            let (narinfo, nars) = read.map_err(|source| MirrorFailure::NarInfo {
                file: MirrorKey::of_narinfo(&listed.item).to_string(),
                source,
            })?;
            items.push(RetainedItem {
                path: narinfo.store_path().to_path(),
                modified: listed.modified,
                bytes: listed.size,
                references: narinfo.references().map(|it| it.hash_part()).collect(),
                nars,
            });
        }
        Ok(items)
    }

    /// Removes narinfos, referrers first: whether each item is gone.
    fn remove_items(
        &self,
        items: &[RetainedItem],
        inventory: &Inventory,
        collection: &mut MirrorCollection,
    ) -> Result<Vec<bool>, MirrorFailure> {
        let removals = removals(items, &inventory.files, self.retention);
        collection.kept_bytes = removals.left_bytes;
        let mut is_gone = vec![false; items.len()];
        for group in &removals.groups {
            if self.cancel.is_canceled() {
                collection.is_interrupted = true;
                break;
            }
            if !self.is_dry_run {
                let paths = group.iter().map(|place| &items[*place].path);
                let keys = paths.map(|path| MirrorKey::of_narinfo(&path.hash_part()));
                self.target.remove(&keys.collect::<Vec<_>>())?;
            }
            for place in group {
                let item = &items[*place];
                is_gone[*place] = true;
                let nars = item.nars.iter().filter_map(|nar| inventory.files.get(nar));
                let bytes = nars.fold(item.bytes, |sum, size| sum.saturating_add(*size));
                collection.removed.push((item.path.clone(), bytes));
                collection.freed_bytes = collection.freed_bytes.saturating_add(item.bytes);
            }
            // No narinfo is gone on the disk while one that refers to it is there.
            if !self.is_dry_run {
                self.target.sync_names()?;
            }
        }
        collection.kept = items.len() - collection.removed.len();
        Ok(is_gone)
    }

    /// Gives tombstones to nars that no narinfo names, and removes those whose grace has ended.
    fn remove_nars(
        &self,
        items: &[RetainedItem],
        is_gone: &[bool],
        inventory: &Inventory,
        tombstones: &mut Tombstones,
        collection: &mut MirrorCollection,
    ) -> Result<(), TargetError> {
        let (mut named, mut given_up) = (HashSet::new(), HashSet::new());
        for (item, is_gone) in items.iter().zip(is_gone) {
            match is_gone {
                false => named.extend(&item.nars),
                true => given_up.extend(&item.nars),
            }
        }

        let now = self.clock.unix_seconds();
        let mut orphans: HashMap<&MirrorKey, u64> = HashMap::new();
        for (key, size) in &inventory.files {
            let time = tombstones.time(key);
            let is_nar = key.is_of_nar() || time.is_some() || given_up.contains(key);
            if is_nar && !named.contains(key) {
                orphans.insert(key, *size);
                tombstones.set(key, time.unwrap_or(now));
            }
        }
        tombstones.retain(|key| orphans.contains_key(key));
        if !self.is_dry_run {
            tombstones.write(self.target)?;
            self.target.sync_names()?;
        }

        let mut ended = Vec::new();
        for (key, size) in orphans {
            let end = tombstones
                .time(key)
                .unwrap_or(now)
                .saturating_add(collection.grace);
            if end > now || self.cancel.is_canceled() {
                collection.waiting_nars += 1;
                collection.waiting_bytes = collection.waiting_bytes.saturating_add(size);
                let next = collection.next_end.get_or_insert(end);
                *next = end.min(*next);
                continue;
            }
            ended.push(key.clone());
            tombstones.cancel(key);
            collection.removed_nars.push(key.to_string());
            collection.freed_bytes = collection.freed_bytes.saturating_add(size);
        }
        collection.is_interrupted = self.cancel.is_canceled();
        collection.removed_nars.sort_unstable();
        if !self.is_dry_run {
            self.target.remove(&ended)?;
            self.target.sync_names()?;
            tombstones.write(self.target)?;
            self.target.sync_names()?;
        }
        Ok(())
    }
}
