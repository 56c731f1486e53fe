//! What has to be copied of an item: compared with what the mirror has.

use std::collections::HashSet;

use super::failure::MirrorFailure;
use super::lookup::{FoundItem, MirrorTrust, ServerNarInfo};
use super::signatures::missing_signatures;
use super::stored::{has_nars, is_current, stored_narinfo, wanted_nars};
use super::target::{MirrorTarget, TargetError};
use crate::format::compression::Compression;
use crate::format::narinfo::NarInfo;
use crate::format::store_path::{StoreDir, StorePath};

/// An item before nars are copied.
pub(super) struct MirrorPlanItem {
    pub(super) path: StorePath,
    pub(super) action: Result<PlannedAction, MirrorFailure>,
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
    /// Bytes of the nars, as far as the first narinfo says.
    pub(super) bytes: u64,
}

/// Compares what servers have with what a mirror has.
pub(super) struct MirrorPlanner<'a> {
    pub(super) target: Option<&'a MirrorTarget>,
    pub(super) trust: &'a MirrorTrust,
    pub(super) store_dir: &'a StoreDir,
    pub(super) methods: &'a [Compression],
    /// Items that are copied although the mirror seems to have them: what it has is read then.
    pub(super) recheck: &'a HashSet<StorePath>,
}

impl MirrorPlanner<'_> {
    /// What has to be done for `item`.
    ///
    /// # Errors
    /// The mirror cannot be read.
    pub(super) fn plan(&self, item: FoundItem) -> Result<MirrorPlanItem, TargetError> {
        let FoundItem { path, narinfos } = item;
        let action = match narinfos {
            Ok(narinfos) => Ok(self.action(&path, narinfos)?),
            Err(failure) => Err(failure),
        };
        Ok(MirrorPlanItem { path, action })
    }

    fn action(
        &self,
        path: &StorePath,
        narinfos: Vec<ServerNarInfo>,
    ) -> Result<PlannedAction, TargetError> {
        let stored = match self.target {
            Some(target) => stored_narinfo(target, path.as_ref(), self.store_dir)?,
            None => None,
        };

        let dialect = self.store_dir.dialect();
        let mut bytes = 0_u64;
        if let Some(first) = narinfos.first() {
            let wanted = wanted_nars(&first.narinfo, dialect, self.methods).unwrap_or_default();
            for nar in &wanted {
                bytes = bytes.saturating_add(nar.claims.expected_bytes().unwrap_or(0));
            }
            if let (Some(target), Some(stored)) = (self.target, &stored) {
                let added =
                    self.trust
                        .missing_signatures(&first.narinfo, &narinfos, None, self.store_dir);
                let is_current =
                    is_current(stored, &first.narinfo, &wanted, &added, self.store_dir);
                let is_trusted = is_current && !self.recheck.contains(path);
                if !wanted.is_empty() && is_trusted && has_nars(target, stored, dialect)? {
                    return Ok(PlannedAction::None);
                }
            }
        }
        Ok(PlannedAction::Copy(Box::new(PlannedCopy {
            narinfos,
            stored,
            bytes,
        })))
    }
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
