//! The sizes of the entries of a store, measured while other processes may change it, and again where
//! they have: reading a large store takes minutes, in which no process should have to wait.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::store::directory::{names_in, open_directory};
use crate::store::error::{StoreError, on};
use crate::store::layout::{LINKS, Layout};
use crate::store::wait::StoreObserver;

use super::disk_usage::{DiskUsage, EntryUsage};

/// What tells whether an entry is the one that was measured: its device and inode, and when it was changed.
type EntryVersion = (u64, u64, i64, i64);

/// The sizes of entries of a store.
pub(in crate::store) struct StoreSizes<'a> {
    layout: &'a Layout,
    observer: &'a dyn StoreObserver,
    pub(in crate::store) usage: DiskUsage,
    entries: HashMap<CString, (EntryVersion, EntryUsage)>,
}

impl<'a> StoreSizes<'a> {
    /// Those of no entry but `.links`.
    ///
    /// # Errors
    /// [`StoreError::Interrupted`].
    pub(in crate::store) fn of_links(
        layout: &'a Layout,
        observer: &'a dyn StoreObserver,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            layout,
            observer,
            usage: DiskUsage::of_links(&layout.links(), observer)?,
            entries: HashMap::new(),
        })
    }

    /// Those of all entries.
    ///
    /// # Errors
    /// The store directory cannot be listed, or the user interrupts.
    pub(in crate::store) fn of_all(
        layout: &'a Layout,
        observer: &'a dyn StoreObserver,
    ) -> Result<Self, StoreError> {
        let mut sizes = Self::of_links(layout, observer)?;
        let names = names_of_entries(layout)?;
        sizes.update(&names.iter().map(CString::as_c_str).collect())?;
        Ok(sizes)
    }

    /// Measures those of the entries `names` that are not known or have changed, and leaves out all others.
    ///
    /// # Errors
    /// [`StoreError::Interrupted`].
    pub(in crate::store) fn update(&mut self, names: &HashSet<&CStr>) -> Result<(), StoreError> {
        let store = self.layout.store();
        // First, since a file that is read then has all its names.
        let outdated = self.entries.extract_if(|name, (version, _)| {
            !names.contains(name.as_c_str()) || version_of(store, name) != Some(*version)
        });
        for (_, (_, entry)) in outdated {
            self.usage.remove(&entry);
        }

        for &name in names {
            if self.observer.is_canceled() {
                return Err(StoreError::Interrupted);
            }
            if self.entries.contains_key(name) {
                continue;
            }
            if let Some(version) = version_of(store, name) {
                let entry = self
                    .usage
                    .add_entry(store, OsStr::from_bytes(name.to_bytes()));
                self.entries.insert(name.to_owned(), (version, entry));
            }
        }
        Ok(())
    }

    /// Bytes that the measured entries and `.links` take.
    pub(in crate::store) fn total(&self) -> u64 {
        let own_bytes = self.entries.values().map(|(_, entry)| entry.own_bytes);
        own_bytes.sum::<u64>() + self.usage.shared_bytes() + self.usage.unused_bytes
    }

    /// Takes the entry `name` away; the bytes that are free then.
    pub(in crate::store) fn remove(&mut self, name: &CStr) -> u64 {
        let entry = self.entries.remove(name);
        entry.map_or(0, |(_, entry)| self.usage.remove(&entry))
    }
}

/// The names in the store directory, with that of the trash and without `.links`.
fn names_of_entries(layout: &Layout) -> Result<Vec<CString>, StoreError> {
    let directory = open_directory(layout, layout.store())?;
    let names = names_in(&directory).map_err(on(layout.store(), |path, source| StoreError::Read {
        path,
        source,
    }));
    let mut names = names?;
    names.retain(|name| name.to_bytes() != LINKS.as_bytes());
    Ok(names)
}

fn version_of(store: &Path, name: &CStr) -> Option<EntryVersion> {
    let path = store.join(OsStr::from_bytes(name.to_bytes()));
    let metadata = path.symlink_metadata().ok()?;
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    Some((metadata.dev(), metadata.ino(), changed.0, changed.1))
}
