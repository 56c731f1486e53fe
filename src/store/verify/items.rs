//! Verifies items on several threads.

use std::cmp::Reverse;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::store::recorded_items::RecordedItem;
use crate::sync::lock;

use super::findings::{ItemFault, ItemFinding, VerifyTally};
use super::tree::{TreeFailure, TreeReader};

/// Reads every one of `items`, the largest first, so that no thread is left with a large one in the end.
/// Each of the `readers` has a thread.
pub(super) fn check_items(
    mut items: Vec<RecordedItem>,
    readers: Vec<TreeReader<'_>>,
    tally: &VerifyTally,
) -> Vec<ItemFinding> {
    items.sort_by_key(|item| Reverse(item.nar_size));
    let (next, findings) = (AtomicUsize::new(0), Mutex::new(Vec::new()));

    on_threads(readers, |mut reader| {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Some(fault) = item_fault(&mut reader, item) {
                let item = item.clone();
                lock(&findings).push(ItemFinding { item, fault });
            }
            tally.add_item();
        }
    });
    findings
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What is wrong with `item`.
pub(super) fn item_fault(reader: &mut TreeReader<'_>, item: &RecordedItem) -> Option<ItemFault> {
    let found = match reader.read(item.path.base()) {
        Ok(found) => found,
        Err(TreeFailure::Missing) => return Some(ItemFault::Missing),
        Err(TreeFailure::NotInNar(path)) => {
            return Some(ItemFault::Contents { files: vec![path] });
        }
        Err(TreeFailure::Unreadable { path, source }) => {
            return Some(ItemFault::Unreadable { path, source });
        }
    };

    let is_of_size = item.nar_size.is_none_or(|size| size == found.size);
    if found.hash != item.nar_hash || !is_of_size {
        return Some(ItemFault::Contents { files: Vec::new() });
    }
    (!found.attributes.is_empty()).then_some(ItemFault::Attributes(found.attributes))
}

/// Calls `work` with each of `inputs`, on a thread for each as far as the system has some; the first is
/// for this one.
pub(super) fn on_threads<T: Send>(inputs: Vec<T>, work: impl Fn(T) + Sync) {
    let mut inputs = inputs.into_iter();
    let first = inputs.next();
    std::thread::scope(|scope| {
        let work = &work;
        for (number, input) in inputs.enumerate() {
            let thread = std::thread::Builder::new().name(format!("verify-{}", number + 1));
            if thread.spawn_scoped(scope, move || work(input)).is_err() {
                break;
            }
        }
        first.map(work);
    });
}
