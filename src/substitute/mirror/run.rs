//! A run: the lookup, then the nars, and each narinfo as soon as its nars and references are there.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Builder};

use super::cache_info::write_cache_info;
use super::failure::MirrorFailure;
use super::incoming::IncomingNarName;
use super::incomplete::leave_out_incomplete;
use super::key::MirrorKey;
use super::lookup::{MirrorLookup, MirrorTrust, ServerNarInfo};
use super::narinfos::{
    CopiedNars, ItemToCopy, MirrorStatus, MirroredItem, NarInfoWriter, ReadyNarInfo,
};
use super::nars::{KeyLocks, NarStorage};
use super::plan::{MirrorPlanItem, MirrorPlanner, PlannedAction, PlannedCopy};
use super::record::MirrorRecord;
use super::stored::{named_nars, wanted_nars};
use super::tally::MirrorTally;
use super::target::MirrorTarget;
use super::text::{DownloadEdit, edited};
use crate::format::compression::Compression;
use crate::format::store_path::{StoreDir, StorePath};
use crate::substitute::cancel::Cancel;
use crate::substitute::claims::ClaimRequests;
use crate::substitute::download::checked_copy::NarCopier;
use crate::substitute::install::FailureClass;
use crate::substitute::network::Network;
use crate::substitute::progress::Progress;
use crate::sync::{give_way, lock, niceness};

/// Copies items to a mirror.
pub(crate) struct Mirror<'a> {
    /// The servers to copy from.
    pub(crate) network: &'a Arc<Network>,
    /// Whose narinfos are copied.
    pub(crate) trust: &'a MirrorTrust,
    /// The store that the items are for.
    pub(crate) store_dir: &'a StoreDir,
    /// Downloads nars.
    pub(crate) copier: NarCopier,
    /// The compression methods to copy; all if there are none.
    pub(crate) methods: Vec<Compression>,
    /// Whether items of which the mirror has all nars are left as they are, and others keep the methods that they have.
    pub(crate) is_repair: bool,
    /// Items whose nars are read although the mirror seems to have them.
    pub(crate) recheck: HashSet<StorePath>,
    /// Nars that are copied at the same time.
    pub(crate) jobs: usize,
    /// Is told how far a run is.
    pub(crate) progress: &'a dyn Progress,
    /// Raised when the user interrupts.
    pub(crate) cancel: &'a Cancel,
}

/// What came of a run.
pub(crate) struct MirrorReport {
    /// The items, in the order in which they were found.
    pub(crate) items: Vec<MirroredItem>,
    /// Nars that were copied.
    pub(crate) nars: u64,
    /// Bytes of them, as they were downloaded; in a dry run those to be copied, as far as narinfos say.
    pub(crate) nar_bytes: u64,
    /// Bytes that were sent to an object store, also those that were sent again.
    pub(crate) sent_bytes: u64,
}

impl Mirror<'_> {
    /// Looks up `items` and all that they refer to, and copies what `target` lacks.
    ///
    /// # Errors
    /// The user interrupted, or this machine failed; failures of items are part of the report.
    pub(crate) fn run(
        &self,
        target: &MirrorTarget,
        items: Vec<StorePath>,
    ) -> Result<MirrorReport, MirrorFailure> {
        // It changes nothing in a mirror of a later version.
        MirrorRecord::read(target)?;
        // Clients look for it first, so it is there before everything else.
        write_cache_info(target, self.store_dir)?;
        let tally = MirrorTally::default();
        tally.report_during(self.progress, || self.copy_all(target, items, &tally))
    }

    fn copy_all(
        &self,
        target: &MirrorTarget,
        items: Vec<StorePath>,
        tally: &MirrorTally,
    ) -> Result<MirrorReport, MirrorFailure> {
        let planned = self.plan(Some(target), items, tally)?;
        let (writer, mut items) = NarInfoWriter::new(target, planned)?;
        for item in &items {
            tally.expected.fetch_add(item.copy.bytes, Ordering::Relaxed);
        }
        target.remove_unwanted(&self.incoming_names(&items))?;
        let decided = tally.found.load(Ordering::Relaxed) - items.len();
        tally.done.store(decided, Ordering::Relaxed);

        // The largest first: what takes longest does not begin last.
        items.sort_unstable_by_key(|item| std::cmp::Reverse(item.copy.bytes));
        let storage = NarStorage {
            target,
            copier: &self.copier,
            servers: self.network.servers(),
            tally,
            naming: KeyLocks::default(),
            copied: AtomicU64::new(0),
            copied_bytes: AtomicU64::new(0),
        };
        let items = self.copy_items(&storage, writer, items)?;
        Ok(MirrorReport {
            items,
            nars: storage.copied.into_inner(),
            nar_bytes: storage.copied_bytes.into_inner(),
            sent_bytes: target.sent_bytes(),
        })
    }

    /// What [`Mirror::run`] would copy; `target` is `None` where nothing is yet.
    ///
    /// # Errors
    /// As for [`Mirror::run`].
    pub(crate) fn dry_run(
        &self,
        target: Option<&MirrorTarget>,
        items: Vec<StorePath>,
    ) -> Result<MirrorReport, MirrorFailure> {
        let mut report = MirrorReport {
            items: Vec::new(),
            nars: 0,
            nar_bytes: 0,
            sent_bytes: 0,
        };
        let tally = MirrorTally::default();
        let planned = tally.report_during(self.progress, || self.plan(target, items, &tally))?;
        for item in planned {
            let result = item.action.map(|action| match action {
                PlannedAction::None => MirrorStatus::Present,
                PlannedAction::Copy(copy) => {
                    report.nar_bytes = report.nar_bytes.saturating_add(copy.bytes);
                    MirrorStatus::Planned
                }
            });
            let path = item.path;
            report.items.push(MirroredItem { path, result });
        }
        Ok(report)
    }

    fn plan(
        &self,
        target: Option<&MirrorTarget>,
        items: Vec<StorePath>,
        tally: &MirrorTally,
    ) -> Result<Vec<MirrorPlanItem>, MirrorFailure> {
        let requests = ClaimRequests::open_patiently(&self.copier.retries, self.store_dir.clone());
        let mut lookup = MirrorLookup {
            requests: requests.map_err(MirrorFailure::Network)?,
            servers: self.network.servers(),
            health: self.network.health(),
            trust: self.trust,
            store_dir: self.store_dir,
            cancel: self.cancel,
            tally,
        };
        let found = lookup.closure(items)?;
        let planner = MirrorPlanner {
            target,
            trust: self.trust,
            store_dir: self.store_dir,
            methods: &self.methods,
            is_repair: self.is_repair,
            recheck: &self.recheck,
        };
        let mut planned = planner.plan(found)?;
        leave_out_incomplete(&planner, &mut planned);
        Ok(planned)
    }

    /// The names of all nars that may be copied of `items`.
    fn incoming_names(&self, items: &[ItemToCopy]) -> HashSet<IncomingNarName> {
        let mut names = HashSet::new();
        for copy in items.iter().map(|item| &item.copy) {
            for narinfo in copy.narinfos.iter().map(|narinfo| &*narinfo.narinfo) {
                let wanted = wanted_nars(narinfo, self.store_dir.dialect(), &copy.methods);
                let wanted = wanted.unwrap_or_default();
                for nar in &wanted {
                    names.extend(IncomingNarName::new(narinfo.store_path(), &nar.claims));
                }
            }
        }
        names
    }

    /// Copies the nars of `items` in their order, and has `writer` write the narinfos: what came of all
    /// items.
    fn copy_items(
        &self,
        storage: &NarStorage<'_>,
        writer: NarInfoWriter<'_>,
        items: Vec<ItemToCopy>,
    ) -> Result<Vec<MirroredItem>, MirrorFailure> {
        let work = CopyWork {
            items,
            next: AtomicUsize::new(0),
            copied: Mutex::default(),
            writer: Mutex::new(writer),
            end: Mutex::default(),
            niceness: niceness(),
            cancel: self.cancel,
        };
        thread::scope(|scope| {
            let copies = storage.target.copies(self.jobs);
            for number in 1..copies.min(work.items.len()) {
                let thread = Builder::new().name(format!("mirror-{number}"));
                // What no thread does is done by this one below.
                let _ = thread.spawn_scoped(scope, || self.copy_next_items(storage, &work));
            }
            self.copy_next_items(storage, &work);
        });

        let CopyWork {
            copied,
            writer,
            end,
            ..
        } = work;
        let mut writer = writer.into_inner().unwrap_or_else(PoisonError::into_inner);
        let copied = copied.into_inner().unwrap_or_else(PoisonError::into_inner);
        let end = end.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Also after an interruption: what is complete becomes of use.
        let written = match &end {
            None | Some(MirrorFailure::Interrupted) => writer.write_next(copied),
            Some(_) => Ok(()),
        };
        match end {
            Some(failure) => Err(failure),
            None => {
                written?;
                Ok(writer.finish()?)
            }
        }
    }

    /// Copies items until another thread has taken the last one, or nothing can be copied any more.
    fn copy_next_items(&self, storage: &NarStorage<'_>, work: &CopyWork<'_>) {
        while lock(&work.end).is_none() {
            let place = work.next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = work.items.get(place) else {
                return;
            };
            // One thread decodes and hashes a nar, so the run lasts as long as its largest nar at least: that one
            // has the processor before the others (`tests/peers/bench/upload`: 4 to 6 % less time).
            if place > 0 {
                give_way(work.niceness);
            }
            match self.copy_item(storage, &item.copy) {
                Err(failure) if failure.ends_run() => {
                    work.fail(failure);
                    return;
                }
                result => lock(&work.copied).push((item.path.clone(), result)),
            }
            storage.tally.done.fetch_add(1, Ordering::Relaxed);
            work.write_next();
        }
    }

    /// Copies the nars of an item by the first of its narinfos that leads to them.
    fn copy_item(
        &self,
        storage: &NarStorage<'_>,
        copy: &PlannedCopy,
    ) -> Result<ReadyNarInfo, MirrorFailure> {
        let mut worst: Option<MirrorFailure> = None;
        for narinfo in &copy.narinfos {
            match self.copy_build(storage, narinfo, copy) {
                Err(failure) if !failure.ends_run() => {
                    // A server that lacks the nar says less than one that fails.
                    match &worst {
                        Some(first) if first.class() != FailureClass::Absent => {}
                        _ => worst = Some(failure),
                    }
                }
                result => return result,
            }
        }
        Err(worst.unwrap_or(MirrorFailure::NoDownload))
    }

    fn copy_build(
        &self,
        storage: &NarStorage<'_>,
        chosen: &ServerNarInfo,
        copy: &PlannedCopy,
    ) -> Result<ReadyNarInfo, MirrorFailure> {
        if self.cancel.is_canceled() {
            return Err(MirrorFailure::Interrupted);
        }
        let (narinfo, dialect) = (&*chosen.narinfo, self.store_dir.dialect());
        let stored = copy.stored.as_ref();
        let wanted = wanted_nars(narinfo, dialect, &copy.methods)?;
        let own = stored.map(|stored| named_nars(stored, dialect));
        let edits = storage.store_all(chosen, &wanted, &own.unwrap_or_default())?;

        let others = &copy.narinfos;
        let added = self
            .trust
            .missing_signatures(narinfo, others, stored, self.store_dir);
        let nars = wanted.iter().filter_map(|nar| match &edits[nar.place] {
            DownloadEdit::Move(name) => MirrorKey::of_file(name),
            _ => nar.key.clone(),
        });
        Ok(ReadyNarInfo {
            nars: nars.collect(),
            text: edited(narinfo, dialect, &edits, &added),
            references: narinfo.references().map(|it| it.to_path()).collect(),
        })
    }
}

/// The items whose nars are copied, by several threads.
struct CopyWork<'a> {
    /// In the order in which they are taken.
    items: Vec<ItemToCopy>,
    next: AtomicUsize,
    /// Items whose nars are copied and whose narinfos are to be written.
    copied: Mutex<Vec<CopiedNars>>,
    writer: Mutex<NarInfoWriter<'a>>,
    /// Why nothing can be copied any more.
    end: Mutex<Option<MirrorFailure>>,
    /// The niceness of the process.
    niceness: i32,
    /// Raised with `end`.
    cancel: &'a Cancel,
}

impl CopyWork<'_> {
    /// Writes the narinfos that can be written, unless another thread does: then it, or a later call,
    /// writes these as well. After a failure of the mirror none is written: it may be that the nars are
    /// not on the disk.
    fn write_next(&self) {
        let Ok(mut writer) = self.writer.try_lock() else {
            return;
        };
        if lock(&self.end).is_some() {
            return;
        }
        let copied = std::mem::take(&mut *lock(&self.copied));
        if let Err(error) = writer.write_next(copied) {
            self.fail(error.into());
        }
    }

    /// Ends the run: the other threads do not go on downloading what cannot be stored.
    fn fail(&self, failure: MirrorFailure) {
        // In this order: it is the cause of what they fail with then.
        lock(&self.end).get_or_insert(failure);
        self.cancel.cancel();
    }
}
