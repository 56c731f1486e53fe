//! What the store database keeps of an item.

use crate::format::hash::NarHash;
use crate::format::narinfo::NarInfo;
use crate::format::store_path::{StorePath, StorePathRef};

/// An item to be made valid: everything the database keeps of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registration {
    pub(super) path: StorePath,
    pub(super) nar_hash: NarHash,
    /// The size of its nar in bytes.
    pub(super) nar_size: u64,
    /// The derivation it was built from, which need not be valid.
    pub(super) deriver: Option<StorePath>,
    /// What it refers to, itself included where it does.
    pub(super) references: Vec<StorePath>,
    /// Signatures of the form `NAME:BASE64`; only a Nix store keeps them.
    pub(super) signatures: Vec<String>,
    /// How its name follows from its content, where it does; only a Nix store keeps it.
    pub(super) ca: Option<String>,
}

impl Registration {
    /// What is to be recorded of the item that `narinfo` describes.
    pub(super) fn of(narinfo: &NarInfo) -> Self {
        Self {
            path: narinfo.store_path().to_path(),
            nar_hash: narinfo.nar_hash(),
            nar_size: narinfo.nar_size(),
            deriver: narinfo.deriver().map(StorePathRef::to_path),
            references: narinfo.references().map(StorePathRef::to_path).collect(),
            signatures: narinfo.nix_signatures().map(str::to_owned).collect(),
            ca: narinfo.ca().map(str::to_owned),
        }
    }
}
