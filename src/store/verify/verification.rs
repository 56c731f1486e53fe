//! A whole verification, step by step.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd as _;

use rustix::fs::{Mode, openat};
use rustix::io::Errno;

use crate::format::store_path::StorePath;
use crate::store::error::{StoreError, on};
use crate::store::handle::Store;
use crate::store::layout::LINKS;
use crate::store::links_directory::LISTED;
use crate::store::recorded_items::{RecordedItem, RecordedItems};

use super::attributes::StoreOwners;
use super::entries::{EntryCheck, EntryScope};
use super::findings::{EntryFault, ItemFault, StoreVerification, VerifyScope, VerifyTally};
use super::items::{check_item, check_items};
use super::linked_names::names_of_inodes;
use super::noted_files::NotedFiles;
use super::store_names::other_names;
use super::tree::TreeReader;

/// Verifies what `scope` says of `store`, with `workers` threads; `tally` counts what is done.
///
/// # Errors
/// The database or the store directory cannot be read.
pub(crate) fn verify(
    store: &Store,
    scope: VerifyScope<'_>,
    workers: usize,
    tally: &VerifyTally,
) -> Result<StoreVerification, StoreError> {
    let recorded = recorded(store, scope)?;
    tally.expect(&recorded.items);
    let mut found = StoreVerification {
        database: recorded.faults,
        ..StoreVerification::default()
    };
    match scope {
        VerifyScope::All => {
            found.database.extend(store.database().integrity_faults()?);
            note_other_names(store, &recorded.items, &mut found)?;
        }
        VerifyScope::Items(paths) => {
            let valid: HashSet<&StorePath> = recorded.items.iter().map(|item| &item.path).collect();
            let others = paths.iter().filter(|path| !valid.contains(path));
            found.not_valid = others.cloned().collect();
        }
    }

    let directory = store.links().store();
    let owners = StoreOwners::of(store)?;
    let noted = NotedFiles::default();
    let readers = (0..workers.max(1))
        .map(|_| TreeReader::new(directory.as_fd(), owners, Some(&noted), tally))
        .collect();
    let checked = check_items(recorded.items, readers, tally);
    found.items = checked.faults;

    let scope = match scope {
        VerifyScope::All => EntryScope::All,
        VerifyScope::Items(_) => EntryScope::Noted,
    };
    if scope == EntryScope::All || !noted.is_empty() {
        check_entries(store, owners, &noted, scope, workers, tally, &mut found)?;
    }
    name_damaged_files(store, &mut found);
    found.items = still_valid(store, found.items, |finding| &finding.item)?;
    found
        .items
        .sort_by(|one, other| one.item.path.cmp(&other.item.path));
    let other_sizes = still_valid(store, checked.other_sizes, |(item, _)| item)?;
    found.database.extend(size_faults(store, other_sizes));
    Ok(found)
}

/// What is wrong with the one item `item`, which is read now.
///
/// # Errors
/// The store directory cannot be read.
pub(crate) fn verify_item(
    store: &Store,
    item: &RecordedItem,
) -> Result<Option<ItemFault>, StoreError> {
    let directory = store.links().store();
    let tally = VerifyTally::default();
    let owners = StoreOwners::of(store)?;
    let mut reader = TreeReader::new(directory.as_fd(), owners, None, &tally);
    Ok(check_item(&mut reader, item).fault)
}

fn recorded(store: &Store, scope: VerifyScope<'_>) -> Result<RecordedItems, StoreError> {
    match scope {
        VerifyScope::All => store.database().recorded_items(),
        VerifyScope::Items(paths) => store.database().recorded_among(paths),
    }
}

/// Adds to `found` what is in the store directory without being valid.
fn note_other_names(
    store: &Store,
    items: &[RecordedItem],
    found: &mut StoreVerification,
) -> Result<(), StoreError> {
    let valid: HashSet<&str> = items.iter().map(|item| item.path.base()).collect();
    let others = other_names(store.links().store().as_fd(), &valid)
        .map_err(on(store.layout().store(), |path, source| {
            StoreError::Read { path, source }
        }))?;

    // Some may have become valid since the database was read.
    let paths = others
        .unregistered
        .iter()
        .flat_map(|name| StorePath::parse(name));
    let now_valid = store.valid_among(&paths.collect::<Vec<_>>())?;
    let is_valid = |name: &String| now_valid.iter().any(|path| path.base() == name);
    found.unregistered = others.unregistered;
    found.unregistered.retain(|name| !is_valid(name));
    found.temporary = others.temporary;
    Ok(())
}

/// Adds the faults of entries of `.links` to `found`. There may be no `.links`.
fn check_entries(
    store: &Store,
    owners: StoreOwners,
    noted: &NotedFiles,
    scope: EntryScope,
    workers: usize,
    tally: &VerifyTally,
    found: &mut StoreVerification,
) -> Result<(), StoreError> {
    let links = match openat(store.links().store(), LINKS, LISTED, Mode::empty()) {
        Ok(links) => links,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(unreadable_links(store, error)),
    };
    let check = EntryCheck {
        links: &links,
        owners,
        noted,
        scope,
        tally,
    };
    found.entries = check
        .run(workers)
        .map_err(|error| unreadable_links(store, error))?;
    found
        .entries
        .sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(())
}

fn unreadable_links(store: &Store, error: Errno) -> StoreError {
    StoreError::Read {
        path: store.layout().links(),
        source: io::Error::from(error),
    }
}

/// Names the files of damaged items whose entries of `.links` are damaged: they are the same files.
fn name_damaged_files(store: &Store, found: &mut StoreVerification) {
    let damaged = found.entries.iter().filter(|entry| {
        matches!(
            entry.fault,
            EntryFault::Contents | EntryFault::Unreadable(_)
        )
    });
    let inodes: HashSet<u64> = damaged.map(|entry| entry.inode).collect();
    if inodes.is_empty() {
        return;
    }
    for finding in &mut found.items {
        if let ItemFault::Contents { files } = &mut finding.fault {
            files.extend(names_of_inodes(
                store.layout(),
                finding.item.path.base(),
                &inodes,
            ));
        }
    }
}

/// What is wrong with the rows of these items, whose nars have these sizes.
fn size_faults(store: &Store, mut items: Vec<(RecordedItem, u64)>) -> Vec<String> {
    let store_dir = store.layout().store_dir();
    items.sort_unstable_by(|(one, _), (other, _)| one.path.cmp(&other.path));
    let faults = items.iter().map(|(item, size)| {
        format!(
            "the recorded size of {} is {} bytes, that of its nar, which has the recorded hash, {size} bytes",
            store_dir.full_name(&item.path),
            item.nar_size.unwrap_or_default(),
        )
    });
    faults.collect()
}

/// The findings about items that are still valid, with the same contents: the others were removed or
/// replaced while they were read. `item_of` gives the item of a finding.
fn still_valid<T>(
    store: &Store,
    mut findings: Vec<T>,
    item_of: fn(&T) -> &RecordedItem,
) -> Result<Vec<T>, StoreError> {
    let paths: Vec<StorePath> = findings
        .iter()
        .map(|finding| item_of(finding).path.clone())
        .collect();
    let recorded = store.database().recorded_among(&paths)?;
    let valid: HashSet<&RecordedItem> = recorded.items.iter().collect();
    findings.retain(|finding| valid.contains(item_of(finding)));
    Ok(findings)
}
