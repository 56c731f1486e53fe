//! When nars lost their last narinfo: `subst/tombstones` of a mirror, with a line `SECONDS KEY` for each.
//!
//! Only a collection writes them, after it has removed narinfos; a copy cancels those of nars that it is about
//! to name. A nar without one that no narinfo names gets one from the next collection. So a file that is
//! lost, and a process that was killed, only make nars stay longer.

use std::collections::BTreeMap;

use super::key::MirrorKey;
use super::target::{MirrorTarget, TargetError};

/// The longest file that is read.
const BYTES_MAX: usize = 256 << 20;

/// The tombstones of a mirror.
pub(super) struct Tombstones {
    /// When each nar was without a narinfo first, in Unix seconds.
    times: BTreeMap<MirrorKey, u64>,
    is_changed: bool,
}

impl Tombstones {
    /// The tombstones in `target`.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn read(target: &MirrorTarget) -> Result<Self, TargetError> {
        let text = target.text(&MirrorKey::of_tombstones(), BYTES_MAX)?;
        let text = text.unwrap_or_default();
        let times = text.lines().filter_map(|line| {
            let (time, key) = line.split_once(' ')?;
            Some((MirrorKey::of_file(key)?, time.parse().ok()?))
        });
        Ok(Self {
            times: times.collect(),
            is_changed: false,
        })
    }

    /// When `key` got its tombstone.
    pub(super) fn time(&self, key: &MirrorKey) -> Option<u64> {
        self.times.get(key).copied()
    }

    /// When the last of them was written.
    pub(super) fn newest(&self) -> Option<u64> {
        self.times.values().copied().max()
    }

    /// Gives `key` a tombstone of this `time`.
    pub(super) fn set(&mut self, key: &MirrorKey, time: u64) {
        self.is_changed |= self.times.insert(key.clone(), time) != Some(time);
    }

    /// Keeps the tombstones of the keys for which `keep` says so.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&MirrorKey) -> bool) {
        let count = self.times.len();
        self.times.retain(|key, _| keep(key));
        self.is_changed |= self.times.len() != count;
    }

    /// Removes the tombstone of `key`, if it has one.
    pub(super) fn cancel(&mut self, key: &MirrorKey) {
        self.is_changed |= self.times.remove(key).is_some();
    }

    /// Writes what has changed. It lasts after [`MirrorTarget::sync_names`].
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn write(&mut self, target: &MirrorTarget) -> Result<(), TargetError> {
        if self.is_changed {
            let lines = self
                .times
                .iter()
                .map(|(key, time)| format!("{time} {key}\n"));
            target.replace(&[(MirrorKey::of_tombstones(), &lines.collect::<String>())])?;
            self.is_changed = false;
        }
        Ok(())
    }
}
