//! What has to be copied of an item: compared with what the mirror has.

use std::collections::HashSet;

use super::failure::MirrorFailure;
use super::inventory::TEXTS_AHEAD;
use super::key::MirrorKey;
use super::lookup::{FoundItem, MirrorTrust, ServerNarInfo};
use super::signatures::missing_signatures;
use super::stored::{has_nars, is_current, known_methods, stored_narinfo, wanted_nars};
use super::target::{MirrorTarget, TargetError};
use crate::format::compression::Compression;
use crate::format::narinfo::{MAX_BYTES, NarInfo};
use crate::format::store_path::{StoreDir, StorePath};

/// An item before nars are copied.
pub(super) struct MirrorPlanItem {
    pub(super) path: StorePath,
    pub(super) action: Result<PlannedAction, MirrorFailure>,
    /// Whether the mirror has a copy of it, maybe an earlier one, as far as sizes tell.
    pub(super) is_stored: bool,
}

/// What is to be done for an item.
pub(super) enum PlannedAction {
    /// The mirror has it.
    None,
    /// Its nars are to be copied.
    Copy(Box<PlannedCopy>),
}

/// A copy of an item, by any of its narinfos.
pub(super) struct PlannedCopy {
    /// Best first.
    pub(super) narinfos: Vec<ServerNarInfo>,
    /// The narinfo that the mirror has.
    pub(super) stored: Option<NarInfo>,
    /// The compression methods to copy; all if there are none.
    pub(super) methods: Vec<Compression>,
    /// Bytes of the nars, as far as the first narinfo says.
    pub(super) bytes: u64,
}

/// Compares what servers have with what a mirror has.
pub(super) struct MirrorPlanner<'a> {
    pub(super) target: Option<&'a MirrorTarget>,
    pub(super) trust: &'a MirrorTrust,
    pub(super) store_dir: &'a StoreDir,
    pub(super) methods: &'a [Compression],
    pub(super) is_repair: bool,
    /// Items that are copied although the mirror seems to have them: what it has is read then.
    pub(super) recheck: &'a HashSet<StorePath>,
}

impl MirrorPlanner<'_> {
    /// What has to be done for the items that were `found`.
    ///
    /// # Errors
    /// The mirror cannot be read.
    pub(super) fn plan(&self, found: Vec<FoundItem>) -> Result<Vec<MirrorPlanItem>, TargetError> {
        let keys = found.iter().map(|item| item.path.hash_part());
        let keys: Vec<MirrorKey> = keys.map(|item| MirrorKey::of_narinfo(&item)).collect();
        let mut planned = Vec::with_capacity(found.len());
        for (number, item) in found.into_iter().enumerate() {
            if let Some(target) = self.target.filter(|_| number % TEXTS_AHEAD == 0) {
                let end = keys.len().min(number + TEXTS_AHEAD);
                target.read_ahead(&keys[number..end], MAX_BYTES)?;
            }
            planned.push(self.plan_item(item)?);
        }
        Ok(planned)
    }

    fn plan_item(&self, item: FoundItem) -> Result<MirrorPlanItem, TargetError> {
        let FoundItem { path, narinfos } = item;
        let (mut stored, mut is_stored) = (None, false);
        if let Some(target) = self.target {
            stored = stored_narinfo(target, path.as_ref(), self.store_dir)?;
            if let Some(stored) = &stored {
                is_stored = has_nars(target, stored, self.store_dir.dialect())?;
            }
        }
        let action = narinfos.map(|narinfos| {
            let is_trusted = is_stored && !self.recheck.contains(&path);
            self.action(narinfos, stored, is_trusted)
        });
        Ok(MirrorPlanItem {
            path,
            action,
            is_stored,
        })
    }

    /// What is to be done for an item, of which the mirror has all nars of the narinfo `stored` if that `is_trusted`.
    fn action(
        &self,
        mut narinfos: Vec<ServerNarInfo>,
        stored: Option<NarInfo>,
        is_trusted: bool,
    ) -> PlannedAction {
        let methods = self.methods_of(stored.as_ref());
        // Those that have what is wanted come first, in the order of their servers.
        narinfos.sort_by_key(|found| !has_method(&found.narinfo, &methods));
        match stored {
            Some(stored)
                if is_trusted
                    && (self.is_repair || self.is_current(&stored, &narinfos, &methods)) =>
            {
                PlannedAction::None
            }
            stored => PlannedAction::Copy(Box::new(PlannedCopy {
                bytes: self.nar_bytes(&narinfos, &methods),
                narinfos,
                stored,
                methods,
            })),
        }
    }

    /// The compression methods to copy of an item, of which the mirror has the narinfo `stored`.
    fn methods_of(&self, stored: Option<&NarInfo>) -> Vec<Compression> {
        let own = stored.filter(|_| self.is_repair).map(known_methods);
        let own = own.filter(|own| !own.is_empty());
        own.unwrap_or_else(|| self.methods.to_vec())
    }

    /// Whether the narinfo `stored` says what one of `narinfos` says that are as good as the first: it may be that
    /// only this one leads to a nar.
    fn is_current(
        &self,
        stored: &NarInfo,
        narinfos: &[ServerNarInfo],
        methods: &[Compression],
    ) -> bool {
        let first_has = narinfos
            .first()
            .is_some_and(|found| has_method(&found.narinfo, methods));
        let mut candidates = narinfos
            .iter()
            .filter(|found| has_method(&found.narinfo, methods) == first_has);
        candidates.any(|ServerNarInfo { narinfo, .. }| {
            let wanted = wanted_nars(narinfo, self.store_dir.dialect(), methods);
            let wanted = wanted.unwrap_or_default();
            let added = self
                .trust
                .missing_signatures(narinfo, narinfos, None, self.store_dir);
            !wanted.is_empty() && is_current(stored, narinfo, &wanted, &added, self.store_dir)
        })
    }

    /// Bytes of the nars of `methods` to copy, as far as the first of `narinfos` says.
    pub(super) fn nar_bytes(&self, narinfos: &[ServerNarInfo], methods: &[Compression]) -> u64 {
        let wanted = narinfos.first().and_then(|found| {
            let dialect = self.store_dir.dialect();
            wanted_nars(&found.narinfo, dialect, methods).ok()
        });
        let sizes = wanted.iter().flatten();
        let sizes = sizes.filter_map(|nar| nar.claims.expected_bytes());
        sizes.fold(0, u64::saturating_add)
    }
}

/// Whether `narinfo` has a download of one of `methods`, or of any if there are none.
fn has_method(narinfo: &NarInfo, methods: &[Compression]) -> bool {
    let mut known = known_methods(narinfo).into_iter();
    methods.is_empty() || known.any(|method| methods.contains(&method))
}

impl MirrorTrust {
    /// The signatures of other servers, and of what the mirror has, that `narinfo` lacks.
    pub(super) fn missing_signatures(
        &self,
        narinfo: &NarInfo,
        others: &[ServerNarInfo],
        stored: Option<&NarInfo>,
        store_dir: &StoreDir,
    ) -> Vec<String> {
        let others = others.iter().map(|other| &*other.narinfo).chain(stored);
        missing_signatures(narinfo, others, &self.keys, store_dir)
    }
}
