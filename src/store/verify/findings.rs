//! What a verification is about, and what it finds.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::format::store_path::{StoreDir, StorePath};
use crate::store::layout::LINKS;
use crate::store::recorded_items::RecordedItem;

use super::attributes::AttributeFaults;

/// What is verified.
#[derive(Debug, Clone, Copy)]
pub(crate) enum VerifyScope<'a> {
    /// The whole store.
    All,
    /// These items, with the entries of `.links` that are their files.
    Items(&'a [StorePath]),
}

/// What is wrong with a valid item.
#[derive(Debug)]
pub(crate) enum ItemFault {
    /// There is nothing in the store directory.
    Missing,
    /// Its contents do not have the recorded hash.
    Contents {
        /// The files below it that are known to be damaged.
        files: Vec<PathBuf>,
    },
    /// It cannot be read.
    Unreadable {
        /// What cannot be read, below the item; empty for the item itself.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Only attributes of its files are wrong.
    Attributes(AttributeFaults),
}

/// A valid item with a fault.
#[derive(Debug)]
pub(crate) struct ItemFinding {
    /// The item.
    pub(crate) item: RecordedItem,
    /// What is wrong with it.
    pub(crate) fault: ItemFault,
}

/// What is wrong with an entry of `.links`.
#[derive(Debug)]
pub(crate) enum EntryFault {
    /// Its name is no hash.
    Name,
    /// Its contents do not have the hash that is its name.
    Contents,
    /// It cannot be read.
    Unreadable(io::Error),
    /// Only its attributes are wrong.
    Attributes(AttributeFaults),
}

/// An entry of `.links` with a fault.
#[derive(Debug)]
pub(crate) struct EntryFinding {
    /// Its name.
    pub(crate) name: OsString,
    /// Its inode, which files of items may have too.
    pub(crate) inode: u64,
    /// What is wrong with it.
    pub(crate) fault: EntryFault,
}

impl EntryFinding {
    /// Its full name in the store `store_dir`.
    #[must_use]
    pub(crate) fn full_name(&self, store_dir: &StoreDir) -> String {
        let name = self.name.display();
        format!("{}/{LINKS}/{name}", store_dir.as_str())
    }
}

/// What a verification has found.
#[derive(Debug, Default)]
pub(crate) struct StoreVerification {
    /// Valid items with a fault, in the order of their names.
    pub(crate) items: Vec<ItemFinding>,
    /// Entries of `.links` with a fault, in the order of their names.
    pub(crate) entries: Vec<EntryFinding>,
    /// Items that were named and are not valid.
    pub(crate) not_valid: Vec<StorePath>,
    /// Names of items that are in the store directory without being valid.
    pub(crate) unregistered: Vec<String>,
    /// Locks and temporary trees in the store directory.
    pub(crate) temporary: Vec<String>,
    /// What is wrong with the database.
    pub(crate) database: Vec<String>,
}

/// How far a verification is, counted by several threads.
#[derive(Debug, Default)]
pub(crate) struct VerifyTally {
    items: AtomicU64,
    entries: AtomicU64,
    bytes: AtomicU64,
    expected_items: AtomicU64,
    expected_bytes: AtomicU64,
}

impl VerifyTally {
    /// Items that were verified.
    pub(crate) fn items(&self) -> u64 {
        self.items.load(Ordering::Relaxed)
    }

    /// Entries of `.links` that were verified.
    pub(crate) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Bytes that were read.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Items that are to be verified, and the bytes of their nars.
    pub(crate) fn expected(&self) -> (u64, u64) {
        let items = self.expected_items.load(Ordering::Relaxed);
        (items, self.expected_bytes.load(Ordering::Relaxed))
    }

    pub(super) fn expect(&self, items: &[RecordedItem]) {
        let bytes = items.iter().filter_map(|item| item.nar_size);
        let bytes = bytes.fold(0, u64::saturating_add);
        self.expected_items
            .store(items.len() as u64, Ordering::Relaxed);
        self.expected_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_item(&self) {
        self.items.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_entry(&self) {
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
