//! Verifies items on several threads.

use std::cmp::Reverse;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::store::recorded_items::RecordedItem;
use crate::sync::lock;

use super::findings::{ItemFault, ItemFinding, VerifyTally};
use super::tree::{TreeFailure, TreeReader};

/// What is wrong with an item, and with its row in the database.
pub(super) struct ItemCheck {
    pub(super) fault: Option<ItemFault>,
    /// The size of its nar, where the row has another size and the right hash: there is nothing to fetch.
    pub(super) other_size: Option<u64>,
}

impl From<ItemFault> for ItemCheck {
    fn from(fault: ItemFault) -> Self {
        Self {
            fault: Some(fault),
            other_size: None,
        }
    }
}

/// Valid items that something is wrong with.
#[derive(Debug, Default)]
pub(super) struct ItemFindings {
    pub(super) faults: Vec<ItemFinding>,
    /// Those whose rows have another size than this one, which their nars have.
    pub(super) other_sizes: Vec<(RecordedItem, u64)>,
}

/// Reads every one of `items`, the largest first, so that no thread is left with a large one in the end.
/// Each of the `readers` has a thread.
pub(super) fn check_items(
    mut items: Vec<RecordedItem>,
    readers: Vec<TreeReader<'_>>,
    tally: &VerifyTally,
) -> ItemFindings {
    items.sort_unstable_by_key(|item| Reverse(item.nar_size));
    let (next, findings) = (AtomicUsize::new(0), Mutex::new(ItemFindings::default()));

    on_threads(readers, |mut reader| {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            let check = check_item(&mut reader, item);
            if let Some(fault) = check.fault {
                let item = item.clone();
                lock(&findings).faults.push(ItemFinding { item, fault });
            }
            if let Some(size) = check.other_size {
                lock(&findings).other_sizes.push((item.clone(), size));
            }
            tally.add_item();
        }
    });
    findings
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Reads `item`.
pub(super) fn check_item(reader: &mut TreeReader<'_>, item: &RecordedItem) -> ItemCheck {
    let found = match reader.read(item.path.base()) {
        Ok(found) => found,
        Err(TreeFailure::Missing) => return ItemFault::Missing.into(),
        Err(TreeFailure::NotInNar(path)) => {
            return ItemFault::Contents { files: vec![path] }.into();
        }
        Err(TreeFailure::Unreadable { path, source }) => {
            return ItemFault::Unreadable { path, source }.into();
        }
    };
    if found.hash != item.nar_hash {
        return ItemFault::Contents { files: Vec::new() }.into();
    }

    let has_faults = !found.attributes.is_empty();
    let is_other_size = item.nar_size.is_some_and(|size| size != found.size);
    ItemCheck {
        fault: has_faults.then_some(ItemFault::Attributes(found.attributes)),
        other_size: is_other_size.then_some(found.size),
    }
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
