//! `subst verify --repair`: replaces what was found to be damaged in an embedded store.

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::Arc;

use crate::cli::confinement::DiskChanges;
use crate::cli::context::{Context, Purpose};
use crate::cli::error::CliError;
use crate::cli::item_failures::FailedItem;
use crate::format::store_path::StorePath;
use crate::store::verify::StoreVerification;
use crate::store::{Store, StoreError};
use crate::substitute::install::FailureClass;
use crate::substitute::repair::StoreRepair;

/// What came of the repair of each fault.
#[derive(Default)]
pub(super) struct Repairs {
    /// Items that are as they should be now.
    items: HashMap<StorePath, bool>,
    entries: HashMap<OsString, bool>,
    /// Items that could not be repaired, and why.
    pub(super) failed_items: Vec<FailedItem>,
    /// Entries of `.links` that could not be corrected or removed.
    pub(super) failed_entries: Vec<StoreError>,
}

impl Repairs {
    /// Whether the item is as it should be now.
    pub(super) fn has_item(&self, item: &StorePath) -> bool {
        self.items.get(item).copied().unwrap_or(false)
    }

    /// Whether the entry of `.links` is as it should be now, or gone.
    pub(super) fn has_entry(&self, name: &OsString) -> bool {
        self.entries.get(name).copied().unwrap_or(false)
    }

    /// The gravest failure.
    pub(super) fn class(&self) -> Option<FailureClass> {
        let items = self.failed_items.iter().map(|(_, error)| error.class());
        let entries = self.failed_entries.iter().map(|_| FailureClass::Local);
        items.chain(entries).max()
    }
}

/// Repairs everything of `found` but the database.
///
/// # Errors
/// The repair cannot begin.
pub(super) fn repair(
    context: &Context,
    store: &Arc<Store>,
    found: &StoreVerification,
) -> Result<Repairs, CliError> {
    let mut repairs = Repairs::default();
    // First, so that no item is linked to a damaged entry.
    for entry in &found.entries {
        let repaired = store.repair_entry(entry);
        repairs.entries.insert(entry.name.clone(), repaired.is_ok());
        repairs.failed_entries.extend(repaired.err());
    }
    if found.items.is_empty() {
        return Ok(repairs);
    }

    let (network, resolver) = context.resolver(Purpose::Fetch, DiskChanges::STORE)?;
    let store_repair = StoreRepair {
        store: Arc::clone(store),
        resolver,
        installer: Arc::new(context.installer(&network)?),
        jobs: context.settings.jobs,
    };
    for (path, repaired) in store_repair.run(&found.items)? {
        repairs.items.insert(path.clone(), repaired.is_ok());
        repairs
            .failed_items
            .extend(repaired.err().map(|error| (path, error)));
    }
    Ok(repairs)
}
