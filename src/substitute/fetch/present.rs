//! What is valid already: kept so from the moment it is seen, or merely looked at.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::format::store_path::StorePath;
use crate::store::{Store, StoreError};
use crate::substitute::lookup::Skip;

/// The store as a plan sees it.
#[derive(Debug, Clone)]
pub enum Present {
    /// A store that is about to be changed: what is valid is kept from the collector.
    Kept(Arc<Store>),
    /// A store that is only looked at, if there is one.
    Seen(Option<Arc<Store>>),
}

impl Present {
    /// Those of `paths` that are valid.
    pub(super) fn among(&self, paths: &[StorePath]) -> Result<HashSet<StorePath>, StoreError> {
        // In this order: what is checked first can be collected before it is rooted.
        self.keep(paths)?;
        match self {
            Self::Kept(store) | Self::Seen(Some(store)) => store.valid_among(paths),
            Self::Seen(None) => Ok(HashSet::new()),
        }
    }

    /// Keeps the collector off `paths`, valid or not.
    pub(super) fn keep(&self, paths: &[StorePath]) -> Result<(), StoreError> {
        match self {
            Self::Kept(store) => store.add_temp_roots(paths),
            Self::Seen(_) => Ok(()),
        }
    }
}

/// Tells the resolver what is valid already, and keeps the first error of the store.
pub(super) struct Skipping {
    present: Present,
    error: Mutex<Option<StoreError>>,
}

impl Skipping {
    pub(super) fn new(present: Present) -> Self {
        Self { present, error: Mutex::default() }
    }

    pub(super) fn skip(self: &Arc<Self>) -> Skip {
        let skipping = Arc::clone(self);
        Arc::new(move |paths| {
            match skipping.present.among(paths) {
                Ok(valid) => valid,
                Err(error) => {
                    skipping.lock().get_or_insert(error);
                    // Nothing that follows matters any more: do not look further.
                    paths.iter().cloned().collect()
                }
            }
        })
    }

    pub(super) fn into_result(self: Arc<Self>) -> Result<(), StoreError> {
        self.lock().take().map_or(Ok(()), Err)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<StoreError>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
