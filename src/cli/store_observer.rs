//! Shows what a store reports, and passes an interrupt on to it.

use std::sync::Arc;

use crate::store::StoreObserver;
use crate::substitute::cancel::Cancel;
use crate::substitute::progress::{Progress, ProgressEvent};

/// Shows reports of the store as progress of the run.
pub(super) struct ShownStoreReports {
    pub(super) progress: Arc<dyn Progress>,
    pub(super) cancel: Cancel,
}

impl StoreObserver for ShownStoreReports {
    fn is_canceled(&self) -> bool {
        self.cancel.is_canceled()
    }

    fn note(&self, text: &str) {
        self.progress.event(ProgressEvent::Warning(text));
    }
}
