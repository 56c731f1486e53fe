//! What the fetch of a closure needs, and its outcome. The fetch itself is in `coordinator`.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::format::error_text::ErrorChain;
use crate::format::store_path::StorePath;
use crate::store::Store;
use crate::substitute::clock::Clock;
use crate::substitute::closure::ahead::ItemsAhead;
use crate::substitute::closure::plan::PlannedItem;
use crate::substitute::install::{FailureClass, Installer, ItemError};
use crate::substitute::lookup::Resolver;
use crate::substitute::progress::{Progress, ProgressEvent};
use crate::sync::lock;

/// What to do with the rest when an item cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// Finish what has been started, and stop.
    Stop,
    /// Go on with everything that does not depend on it.
    KeepGoing,
}

/// Everything that fetching needs.
pub(crate) struct ClosureFetch {
    /// Where items go.
    pub(crate) store: Arc<Store>,
    /// Looks items up.
    pub(crate) resolver: Arc<Resolver>,
    /// Unpacks them.
    pub(crate) installer: Arc<Installer>,
    /// Items whose nars are requested before workers take them.
    pub(crate) items_ahead: Arc<ItemsAhead>,
    /// Receives progress events.
    pub(crate) progress: Arc<dyn Progress>,
    /// The time.
    pub(crate) clock: Clock,
    /// Items unpacked at the same time.
    pub(crate) jobs: usize,
    /// What to do with the rest when an item cannot be had.
    pub(crate) on_failure: OnFailure,
    /// The items of which it was reported that they failed.
    pub(crate) reported_failures: Mutex<HashSet<StorePath>>,
}

impl ClosureFetch {
    /// Reports each of the `failed` items, unless that was done in an earlier round of waiting.
    pub(super) fn report_failures(&self, failed: &[(StorePath, ItemError)]) {
        for (item, error) in failed {
            if !lock(&self.reported_failures).insert(item.clone()) {
                continue;
            }
            self.progress.event(ProgressEvent::Failed {
                item,
                reason: format_args!("{}", ErrorChain(error)),
            });
        }
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct FetchOutcome {
    /// Requested items that were valid already, with everything they refer to; or are now,
    /// because trees that were missing are in place again.
    pub(crate) valid: Vec<StorePath>,
    /// Items that have become valid now.
    pub(crate) registered: Vec<StorePath>,
    /// Items that could not be had, and why; what depends on them comes after them.
    pub(crate) failed: Vec<(StorePath, ItemError)>,
    /// Items that were planned again, with another server's build, or came to the plan with one.
    pub(crate) replanned: Vec<Arc<PlannedItem>>,
}

impl FetchOutcome {
    /// The gravest failure.
    #[must_use]
    pub(crate) fn class(&self) -> Option<FailureClass> {
        self.failed.iter().map(|(_, error)| error.class()).max()
    }
}

/// How often progress is reported, and the coordinator looks at locks.
pub(crate) const TICK: Duration = Duration::from_millis(100);
