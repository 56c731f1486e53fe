//! Frees what needs no look at the database: what is in `trash`, and the entries of `.links` that have no
//! other name. It ends a collection, and begins the next one, since the database cannot be opened on a full
//! disk: SQLite makes files beside it.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use crate::store::deduplicate::Links;
use crate::store::directory::open_directory;
use crate::store::error::{StoreError, not_removed};
use crate::store::layout::Layout;
use crate::store::lock_file::LockFile;
use crate::store::lock_kind::{LockKind, LockMode};
use crate::store::open::check_schema;
use crate::store::wait::StoreObserver;

use super::report::{GcProgress, GcReport};
use super::trash::Trash;

/// Frees what earlier collections left in the embedded store at `layout`. Waits for processes that add
/// roots, and for the end of another collection.
///
/// # Errors
/// There is no store that this program knows, or it may not be changed; or the user interrupts. Nothing
/// was deleted then. Later failures are in the report.
pub(crate) fn reclaim_left_space(
    layout: &Layout,
    observer: &Arc<dyn StoreObserver>,
    progress: &mut dyn FnMut(GcProgress),
) -> Result<GcReport, StoreError> {
    let kind = LockKind::of(layout.store_dir().dialect());
    check_schema(layout, kind, observer)?;
    let state = open_directory(layout, layout.state())?;
    // Not created: there may be no room for it, and without it no collection has begun.
    let Some(gc_lock) = LockFile::open_existing(kind, state.as_fd(), layout.gc_lock())? else {
        return Ok(GcReport::default());
    };
    gc_lock.lock(LockMode::Exclusive, &**observer)?;
    gc_lock.lock(LockMode::Shared, &**observer)?;

    let links = Links::new(Arc::new(open_directory(layout, layout.store())?));
    let trash = Trash::open_existing(layout, links.store())?;
    let mut report = GcReport::default();
    reclaim_space(layout, &links, trash, &**observer, progress, &mut report);
    Ok(report)
}

/// Deletes what is in `trash`, and then the entries of `links` that have no other name; `report` gets what
/// this frees, and what cannot be deleted. No other collection runs: `gc.lock` is held.
pub(super) fn reclaim_space(
    layout: &Layout,
    links: &Links,
    trash: Trash,
    observer: &dyn StoreObserver,
    progress: &mut dyn FnMut(GcProgress),
    report: &mut GcReport,
) {
    let emptied = trash.empty(observer, progress);
    report.failures.extend(emptied.failures);
    report.is_interrupted |= emptied.is_interrupted;
    report.freed_bytes += emptied.freed_bytes;
    if report.is_interrupted {
        return;
    }

    let path = layout.links();
    match links.remove_all_unused(observer) {
        Ok(unused) => {
            report.unused_links += unused.entries;
            report.is_interrupted |= unused.is_interrupted;
            report.freed_bytes += unused.bytes;
            let failures = unused.failures.into_iter().map(|(name, error)| {
                let entry = path.join(name.to_string_lossy().as_ref());
                not_removed(&entry)(error)
            });
            report.failures.extend(failures);
        }
        Err(error) => report.failures.push(not_removed(&path)(error)),
    }
}
