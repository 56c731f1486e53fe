//! What a mirror says of itself to the programs that change it: `subst/mirror.json`.

use serde::Deserialize;

use super::failure::MirrorFailure;
use super::key::MirrorKey;
use super::target::{MirrorTarget, TargetError};
use crate::format::store_path::{Dialect, StoreDir};

/// The format that this program writes. It changes nothing in a mirror of a later one.
const FORMAT: u32 = 1;
/// The longest file that is read.
const BYTES_MAX: usize = 64 << 10;
const DAY_SECONDS: u64 = 24 * 3600;

/// The record of a mirror.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct MirrorRecord {
    format: u32,
    /// For how long clients may expect nars to stay after their narinfos, if that is longer than usual.
    grace_seconds: u64,
}

impl MirrorRecord {
    /// The record of `target`.
    ///
    /// # Errors
    /// It cannot be read, or is that of a later version.
    pub(super) fn read(target: &MirrorTarget) -> Result<Self, MirrorFailure> {
        let key = MirrorKey::of_record();
        if target.size(&key)?.is_none() {
            return Ok(Self {
                format: FORMAT,
                grace_seconds: 0,
            });
        }
        let text = target.text(&key, BYTES_MAX)?;
        let record = text.and_then(|text| serde_json::from_str::<Self>(&text).ok());
        record
            .filter(|record| record.format == FORMAT)
            .ok_or_else(|| MirrorFailure::Record(key.to_string()))
    }

    /// For how many seconds nars stay after their narinfos: as long as clients keep narinfos, Guix's for at
    /// most two days and Nix's for 30, or what was promised.
    pub(super) fn grace(&self, store_dir: &StoreDir) -> u64 {
        let days = match store_dir.dialect() {
            Dialect::Guix => 3,
            Dialect::Nix => 30,
        };
        self.grace_seconds.max(days * DAY_SECONDS)
    }

    /// The record after a collection with this `grace`, if that promises more.
    pub(super) fn with_grace(&self, grace: Option<u64>, store_dir: &StoreDir) -> Option<Self> {
        let grace_seconds = grace.filter(|grace| *grace > self.grace(store_dir))?;
        Some(Self {
            format: FORMAT,
            grace_seconds,
        })
    }

    /// Writes it to `target`.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn write(&self, target: &MirrorTarget) -> Result<(), TargetError> {
        let text = format!(
            "{{\"format\":{},\"grace_seconds\":{}}}\n",
            self.format, self.grace_seconds
        );
        target.replace(&[(MirrorKey::of_record(), &text)])
    }
}
