//! The narinfos of a run, each written as soon as its nars and the narinfos of its references are there.
//!
//! A run that ends early leaves a mirror with all items that were complete.

use std::collections::{HashMap, HashSet};

use super::failure::MirrorFailure;
use super::key::MirrorKey;
use super::order::ReferenceOrder;
use super::plan::{MirrorPlanItem, PlannedAction, PlannedCopy};
use super::target::{MirrorTarget, TargetError};
use super::tombstones::Tombstones;
use crate::format::store_path::StorePath;

/// What a mirror has of an item, or would have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MirrorStatus {
    /// All of it was there.
    Present,
    /// It was copied.
    Copied,
    /// It is to be copied.
    Planned,
}

/// An item, and what became of it.
pub(crate) struct MirroredItem {
    /// The item.
    pub(crate) path: StorePath,
    /// Why it is not in the mirror, if it is not.
    pub(crate) result: Result<MirrorStatus, MirrorFailure>,
}

/// A narinfo whose nars are in the mirror.
pub(super) struct ReadyNarInfo {
    pub(super) text: String,
    /// The keys of its nars.
    pub(super) nars: Vec<MirrorKey>,
    pub(super) references: Vec<StorePath>,
}

/// An item whose nars are to be copied.
pub(super) struct ItemToCopy {
    pub(super) path: StorePath,
    pub(super) copy: Box<PlannedCopy>,
}

/// What came of the nars of an item.
pub(super) type CopiedNars = (StorePath, Result<ReadyNarInfo, MirrorFailure>);

/// Writes the narinfos of a run.
pub(super) struct NarInfoWriter<'a> {
    target: &'a MirrorTarget,
    /// All items, in the order in which they were found.
    items: Vec<StorePath>,
    results: HashMap<StorePath, Result<MirrorStatus, MirrorFailure>>,
    /// The items of which the mirror had a copy, maybe an earlier one.
    stored: HashSet<StorePath>,
    /// The items that the mirror has.
    in_mirror: HashSet<StorePath>,
    /// The narinfos that are not written yet.
    ready: HashMap<StorePath, ReadyNarInfo>,
    order: ReferenceOrder<StorePath>,
    /// Those of nars that are about to have a narinfo again are canceled.
    tombstones: Tombstones,
}

impl<'a> NarInfoWriter<'a> {
    /// A writer for the narinfos of all `planned` items, and the items whose nars it waits for.
    ///
    /// # Errors
    /// The mirror cannot be read.
    pub(super) fn new(
        target: &'a MirrorTarget,
        planned: Vec<MirrorPlanItem>,
    ) -> Result<(Self, Vec<ItemToCopy>), TargetError> {
        let items: Vec<StorePath> = planned.iter().map(|item| item.path.clone()).collect();
        let stored = planned.iter().filter(|item| item.is_stored);
        let mut writer = Self {
            target,
            stored: stored.map(|item| item.path.clone()).collect(),
            results: HashMap::with_capacity(items.len()),
            in_mirror: HashSet::new(),
            ready: HashMap::new(),
            order: ReferenceOrder::new(items.iter().cloned()),
            tombstones: Tombstones::read(target)?,
            items,
        };

        // Nothing waits for anything yet, so no decision makes a narinfo the next one.
        let mut copies = Vec::new();
        for MirrorPlanItem { path, action, .. } in planned {
            match action {
                Ok(PlannedAction::None) => drop(writer.have(path, MirrorStatus::Present)),
                Ok(PlannedAction::Copy(copy)) => copies.push(ItemToCopy { path, copy }),
                Err(failure) => drop(writer.skip(path, failure)),
            }
        }
        Ok((writer, copies))
    }

    /// Writes all narinfos that can be written now that the nars of some more items are `copied`.
    ///
    /// # Errors
    /// The mirror cannot be read or written.
    pub(super) fn write_next(&mut self, copied: Vec<CopiedNars>) -> Result<(), TargetError> {
        let mut group = Vec::new();
        for (path, result) in copied {
            match result {
                Ok(narinfo) => {
                    if self.order.is_next(&path, &narinfo.references) {
                        group.push(path.clone());
                    }
                    self.ready.insert(path, narinfo);
                }
                Err(failure) => group.extend(self.skip(path, failure)),
            }
        }

        while !group.is_empty() {
            for narinfo in group.iter().filter_map(|path| self.ready.get(path)) {
                narinfo
                    .nars
                    .iter()
                    .for_each(|nar| self.tombstones.cancel(nar));
            }
            self.tombstones.write(self.target)?;
            // The nars of the group, without tombstones, and the narinfos that it refers to, are on the disk first.
            self.target.sync_names()?;
            let next = self.write_group(group)?;
            group = next;
        }
        Ok(())
    }

    /// What came of each item, after the nars of all of them.
    ///
    /// # Errors
    /// The mirror cannot be written.
    pub(super) fn finish(mut self) -> Result<Vec<MirroredItem>, TargetError> {
        self.target.sync_names()?;
        for path in self.order.waiting() {
            self.results.insert(path, Err(MirrorFailure::Circle));
        }
        let items = self.items.into_iter().filter_map(|path| {
            let result = self.results.remove(&path)?;
            Some(MirroredItem { path, result })
        });
        Ok(items.collect())
    }

    /// Writes the narinfos of a group, but those that refer to what the mirror lacks: what can be written next.
    fn write_group(&mut self, group: Vec<StorePath>) -> Result<Vec<StorePath>, TargetError> {
        let (mut next, mut complete) = (Vec::new(), Vec::new());
        for path in group {
            let Some(narinfo) = self.ready.remove(&path) else {
                continue;
            };
            let mut references = narinfo.references.iter();
            let missing = references.find(|it| **it != path && !self.in_mirror.contains(*it));
            match missing.cloned() {
                Some(missing) => {
                    next.extend(self.skip(path, MirrorFailure::MissingReference(missing)));
                }
                None => complete.push((path, narinfo.text)),
            }
        }

        let texts: Vec<(MirrorKey, &str)> = complete
            .iter()
            .map(|(path, text)| (MirrorKey::of_narinfo(&path.hash_part()), text.as_str()))
            .collect();
        self.target.replace(&texts)?;
        for (path, _) in complete {
            next.extend(self.have(path, MirrorStatus::Copied));
        }
        Ok(next)
    }

    /// Notes that the mirror has `path`: what can be written next.
    fn have(&mut self, path: StorePath, status: MirrorStatus) -> Vec<StorePath> {
        let next = self.order.decide(&path);
        self.in_mirror.insert(path.clone());
        self.results.insert(path, Ok(status));
        next
    }

    /// Notes that `path` is not copied, of which the mirror may have an earlier copy: what can be
    /// written next.
    fn skip(&mut self, path: StorePath, failure: MirrorFailure) -> Vec<StorePath> {
        if self.stored.contains(&path) {
            self.in_mirror.insert(path.clone());
        }
        let next = self.order.decide(&path);
        self.results.insert(path, Err(failure));
        next
    }
}
