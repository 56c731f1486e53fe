//! What this machine has of items: the hashes of their trees, computed on all cores.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};

use crate::format::error_text::chain;
use crate::format::hash::NarHash;
use crate::format::store_path::StorePath;
use crate::store::{ItemOrigin, ItemProvenance, Store, StoreError};
use crate::sync::lock;

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
    /// The hash, if the tree was read.
    #[must_use]
    pub(crate) fn hash(&self) -> Option<NarHash> {
        match self {
            Self::Hashed { hash, .. } => Some(*hash),
            Self::NotValid | Self::NotBuilt | Self::Unreadable(_) => None,
        }
    }
}

/// The hashes of `builds`, in their order: read from the disk by up to `threads` threads. Meanwhile
/// this thread does `work`, whose result is returned too.
pub(crate) fn hash_trees<T>(
    store: Option<&Store>,
    builds: &[LocalBuild],
    threads: usize,
    work: impl FnOnce() -> T,
) -> (Vec<LocalHash>, T) {
    let next = AtomicUsize::new(0);
    let hashes = Mutex::new(vec![LocalHash::NotValid; builds.len()]);
    let done = thread::scope(|scope| {
        for number in 0..threads.min(builds.len()) {
            let thread = Builder::new().name(format!("hasher-{number}"));
            // What no thread has done is done by this one below.
            let _ = thread.spawn_scoped(scope, || hash_next_ones(store, builds, &next, &hashes));
        }
        let done = work();
        hash_next_ones(store, builds, &next, &hashes);
        done
    });
    (
        hashes.into_inner().unwrap_or_else(PoisonError::into_inner),
        done,
    )
}

/// Hashes trees until another thread has taken the last one.
fn hash_next_ones(
    store: Option<&Store>,
    builds: &[LocalBuild],
    next: &AtomicUsize,
    hashes: &Mutex<Vec<LocalHash>>,
) {
    loop {
        let place = next.fetch_add(1, Ordering::Relaxed);
        let Some(build) = builds.get(place) else {
            return;
        };
        let hash = hash_tree(store, build);
        lock(hashes)[place] = hash;
    }
}

fn hash_tree(store: Option<&Store>, build: &LocalBuild) -> LocalHash {
    let (Some(store), Some(record)) = (store, &build.counted) else {
        return match build.is_valid {
            true => LocalHash::NotBuilt,
            false => LocalHash::NotValid,
        };
    };
    match store.hash_of_tree(&build.item) {
        Ok((hash, nar_size)) => LocalHash::Hashed {
            hash,
            nar_size,
            is_as_registered: hash == record.nar_hash,
        },
        Err(error) => LocalHash::Unreadable(chain(&error)),
    }
}
