//! What this machine has of items, and which of them count as its builds.

use std::sync::atomic::AtomicU64;

use crate::format::error_text::chain;
use crate::format::hash::NarHash;
use crate::format::store_path::StorePath;
use crate::store::{ItemOrigin, ItemProvenance, Store, StoreError};

/// Which local items count as builds of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CountedOrigins {
    /// Those that were built here, as far as can be found out.
    Built,
    /// Those that `guix challenge` counts as built here: there is a log of a build.
    Logged,
    /// All valid ones.
    All,
}

impl CountedOrigins {
    fn contain(self, origin: ItemOrigin) -> bool {
        match self {
            Self::Built => origin == ItemOrigin::Built,
            Self::Logged => matches!(origin, ItemOrigin::Built | ItemOrigin::Logged),
            Self::All => true,
        }
    }
}

/// An item, and whether its tree counts.
#[derive(Debug, Clone)]
pub(crate) struct LocalBuild {
    /// The item.
    pub(crate) item: StorePath,
    /// What the database records of it, if it is valid and counts.
    pub(crate) counted: Option<ItemProvenance>,
    /// Whether it is valid.
    pub(crate) is_valid: bool,
}

impl LocalBuild {
    /// What the store records of each of `items`.
    ///
    /// # Errors
    /// Its database cannot be read, or has an invalid value.
    pub(crate) fn of_all(
        store: Option<&Store>,
        items: Vec<StorePath>,
        origins: CountedOrigins,
    ) -> Result<Vec<Self>, StoreError> {
        let builds = items.into_iter().map(|item| {
            let record = store
                .map(|store| store.item_provenance(&item))
                .transpose()?;
            Ok(Self::new(item, record.flatten(), origins))
        });
        builds.collect()
    }

    fn new(item: StorePath, record: Option<ItemProvenance>, origins: CountedOrigins) -> Self {
        let is_valid = record.is_some();
        let counted = record.filter(|record| origins.contain(record.origin));
        Self {
            item,
            counted,
            is_valid,
        }
    }
}

/// The hash of an item's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LocalHash {
    /// It is not valid here.
    NotValid,
    /// It was not built here, so its hash is only that of a server.
    NotBuilt,
    /// Its tree was read.
    Hashed {
        /// The hash of its nar.
        hash: NarHash,
        /// Its size in bytes.
        nar_size: u64,
        /// Whether that is the one that the database records.
        is_as_registered: bool,
    },
    /// Its tree cannot be read, and why.
    Unreadable(String),
}

impl LocalHash {
    /// Reads the tree of `build` if it counts. The bytes of its nar are added to `bytes` meanwhile.
    pub(super) fn of(store: Option<&Store>, build: &LocalBuild, bytes: &AtomicU64) -> Self {
        let (Some(store), Some(record)) = (store, &build.counted) else {
            return match build.is_valid {
                true => Self::NotBuilt,
                false => Self::NotValid,
            };
        };
        match store.hash_of_tree(&build.item, bytes) {
            Ok((hash, nar_size)) => Self::Hashed {
                hash,
                nar_size,
                is_as_registered: hash == record.nar_hash,
            },
            Err(error) => Self::Unreadable(chain(&error)),
        }
    }

    /// The hash, if the tree was read.
    #[must_use]
    pub(crate) fn hash(&self) -> Option<NarHash> {
        match self {
            Self::Hashed { hash, .. } => Some(*hash),
            Self::NotValid | Self::NotBuilt | Self::Unreadable(_) => None,
        }
    }
}
