//! What is valid already: kept so from the moment it is seen, or merely looked at.
//!
//! A row in the database does not prove that the tree is in place: it may have been deleted,
//! or a backup may have been restored in part. So what is reported as valid is looked at, with everything it
//! refers to. Only the existence of each tree is checked, not its content.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::format::store_path::StorePath;
use crate::store::{Closure, Store, StoreError};
use crate::substitute::lookup::SkipFilter;
use crate::sync::lock;

/// The store as a plan sees it.
#[derive(Debug, Clone)]
pub(crate) enum StoreView {
    /// A store that is about to be changed: what is valid is kept from the collector.
    Kept(Arc<Store>),
    /// A store that is only looked at, if there is one.
    Seen(Option<Arc<Store>>),
}

impl StoreView {
    /// Those of `paths` that need not be looked up: the valid ones, without those whose trees
    /// are missing if these are to be fetched again.
    fn known_among(
        &self,
        paths: &[StorePath],
        missing_trees: MissingTrees,
    ) -> Result<HashSet<StorePath>, StoreError> {
        // In this order: what is checked first can be collected before it is rooted.
        self.keep(paths)?;
        let Some(store) = self.store() else {
            return Ok(HashSet::new());
        };

        let mut known = store.valid_among(paths)?;
        if missing_trees == MissingTrees::FetchAgain {
            let valid: Vec<StorePath> = known.iter().cloned().collect();
            for path in store.missing_trees(&valid)? {
                known.remove(&path);
            }
        }
        Ok(known)
    }

    /// The valid ones of `paths`, everything they refer to, and which trees of those are missing.
    pub(super) fn inspect(&self, paths: &[StorePath]) -> Result<Inspection, StoreError> {
        self.keep(paths)?;
        let Some(store) = self.store() else {
            return Ok(Inspection::default());
        };
        let closure = store.closure(paths)?;
        let missing = store.missing_trees(closure.items())?;
        Ok(Inspection { closure, missing })
    }

    /// Where the tree of `path` should be.
    pub(super) fn place_of(&self, path: &StorePath) -> PathBuf {
        let base = Path::new(path.base());
        self.store()
            .map_or_else(|| base.to_owned(), |store| store.layout().item(path))
    }

    fn store(&self) -> Option<&Arc<Store>> {
        match self {
            Self::Kept(store) | Self::Seen(Some(store)) => Some(store),
            Self::Seen(None) => None,
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

/// What to do about an item that is valid and whose tree is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MissingTrees {
    /// Fetch it again: there is no daemon that repairs the store.
    FetchAgain,
    /// Report it: repairing the store is for its daemon.
    Report,
}

/// Items as the database records them, compared with what is in the store directory.
#[derive(Debug, Default)]
pub(super) struct Inspection {
    closure: Closure,
    missing: HashSet<StorePath>,
}

impl Inspection {
    /// Whether `path` is valid, whatever became of its tree.
    pub(super) fn is_recorded(&self, path: &StorePath) -> bool {
        self.closure.contains(path)
    }

    /// The valid items whose trees are missing.
    pub(super) fn missing(&self) -> &HashSet<StorePath> {
        &self.missing
    }

    /// What keeps `path` from being usable: itself when it is not valid or its tree is missing,
    /// or else what it refers to, transitively, whose tree is missing.
    pub(super) fn gaps(&self, path: &StorePath) -> Vec<StorePath> {
        if !self.is_recorded(path) || self.missing.contains(path) {
            vec![path.clone()]
        } else if self.missing.is_empty() {
            Vec::new()
        } else {
            self.closure.reached_from(path, &self.missing)
        }
    }
}

/// Gives the resolver what is valid already, and keeps the first error of the store.
pub(super) struct StoreSkipFilter {
    store_view: StoreView,
    missing_trees: MissingTrees,
    error: Mutex<Option<StoreError>>,
}

impl StoreSkipFilter {
    pub(super) fn new(store_view: StoreView, missing_trees: MissingTrees) -> Self {
        Self {
            store_view,
            missing_trees,
            error: Mutex::default(),
        }
    }

    pub(super) fn skip(self: &Arc<Self>) -> SkipFilter {
        let skip_filter = Arc::clone(self);
        Arc::new(move |paths| {
            match skip_filter
                .store_view
                .known_among(paths, skip_filter.missing_trees)
            {
                Ok(valid) => valid,
                Err(error) => {
                    skip_filter.lock().get_or_insert(error);
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
        lock(&self.error)
    }
}
