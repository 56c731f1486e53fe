//! What a query finds: the answers of servers, what the store has already, and the downloads that a
//! fetch would choose.

use std::collections::HashSet;
use std::sync::Arc;

use crate::cli::context::Context;
use crate::format::narinfo::Download;
use crate::format::store_path::StorePath;
use crate::store::{Store, StoreError};
use crate::substitute::chain;
use crate::substitute::closure::{ClosureDownloads, ItemToDownload, plan_downloads};
use crate::substitute::download::choice;
use crate::substitute::download::plan::PlanLoad;
use crate::substitute::download::rates::MeasuredRates;
use crate::substitute::item_lookup::{ItemLookup, ItemStatus, NarSource};
use crate::substitute::lookup::{LookupScope, Resolution, ResolveError, Resolver};
use crate::substitute::network::Network;

/// The status of an item: in the store, or on the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueryStatus {
    /// It is valid in the store, and its tree is in place.
    Valid,
    /// The store does not have it.
    Lookup(ItemStatus),
}

impl QueryStatus {
    /// The name for scripts and people.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Lookup(status) => status.name(),
        }
    }
}

/// Everything that a query found.
pub(super) struct QueryFindings {
    /// The answers of the servers, also about valid items.
    pub(super) resolution: Resolution,
    requested: HashSet<StorePath>,
    valid: HashSet<StorePath>,
    downloads: ClosureDownloads,
    network: Arc<Network>,
}

impl QueryFindings {
    /// Chooses the downloads as a fetch of everything that is available would.
    pub(super) fn new(context: &Context, lookups: StoreAndServers, network: Arc<Network>) -> Self {
        let StoreAndServers {
            resolution,
            requested,
            valid,
        } = lookups;
        let missing_here = resolution
            .items
            .iter()
            .filter(|found| !valid.contains(&found.path));
        let rates = MeasuredRates::default().with_lines(network.expected_line_rates());
        let nothing = PlanLoad::new(context.cores as f64);
        let to_download = missing_here.filter_map(to_download);
        let downloads = plan_downloads(to_download, &network, &rates, &nothing);

        Self {
            resolution,
            requested,
            valid,
            downloads,
            network,
        }
    }

    pub(super) fn status(&self, found: &ItemLookup) -> QueryStatus {
        if self.valid.contains(&found.path) {
            QueryStatus::Valid
        } else {
            QueryStatus::Lookup(found.status)
        }
    }

    /// Whether the user has named the item.
    pub(super) fn is_requested(&self, found: &ItemLookup) -> bool {
        self.requested.contains(&found.path)
    }

    /// The download that a fetch would begin with, and the server that it is of. Of a valid item, which
    /// a fetch does not download: the smallest of the first server.
    pub(super) fn download<'a>(
        &self,
        found: &'a ItemLookup,
    ) -> Option<(&'a NarSource, &'a Download)> {
        let planned =
            to_download(found).and_then(|item| self.downloads.download_of(item, &self.network));
        planned.or_else(|| choice::announced(&found.sources))
    }
}

fn to_download(found: &ItemLookup) -> Option<ItemToDownload<'_>> {
    let authority = found.authority.as_ref()?;
    Some(ItemToDownload {
        path: &found.path,
        sources: &found.sources,
        nar_size: authority.narinfo().nar_size(),
    })
}

/// The answers of the servers about some items, and which of the items are valid.
pub(super) struct StoreAndServers {
    pub(super) resolution: Resolution,
    /// The items that the user has named.
    pub(super) requested: HashSet<StorePath>,
    pub(super) valid: HashSet<StorePath>,
}

impl StoreAndServers {
    /// Looks up `items`, and with `is_closure` what they refer to: as narinfos say, and as the store
    /// says of the valid ones. When the store cannot be read, no item counts as valid, with a warning.
    ///
    /// # Errors
    /// The lookup ended without a result.
    pub(super) fn look_up(
        context: &Context,
        resolver: &Resolver,
        store: Option<&Store>,
        items: Vec<StorePath>,
        is_closure: bool,
    ) -> Result<Self, ResolveError> {
        let requested = items.iter().cloned().collect();
        let mut wanted = items;
        loop {
            let scope = if is_closure {
                LookupScope::Closure(None)
            } else {
                LookupScope::ItemsOnly
            };
            let resolution = resolver.resolve(wanted.clone(), scope)?;
            let found = resolution.items.iter().map(|found| found.path.clone());
            let found: HashSet<StorePath> = found.collect();

            let in_store = match store.map(|store| InStore::read(store, &found, is_closure)) {
                None => InStore::default(),
                Some(Ok(in_store)) => in_store,
                Some(Err(error)) => {
                    warn_about_store(context, &error);
                    InStore::default()
                }
            };
            if in_store.referred_to.is_empty() || context.cancel.is_canceled() {
                let valid = in_store.valid;
                return Ok(Self {
                    resolution,
                    requested,
                    valid,
                });
            }
            // Each turn adds items of the store, so there are fewer turns than items.
            wanted.extend(in_store.referred_to);
        }
    }
}

/// Says that nothing can be said about what is valid.
pub(super) fn warn_about_store(context: &Context, error: &(dyn std::error::Error + 'static)) {
    let reason = chain(error);
    context
        .output
        .warn(&format!("cannot tell which items are valid: {reason}"));
}

/// What the store has of some items.
#[derive(Default)]
struct InStore {
    /// The valid ones, with trees.
    valid: HashSet<StorePath>,
    /// What the valid ones refer to, transitively, beyond the items; nothing if only the items count.
    referred_to: Vec<StorePath>,
}

impl InStore {
    fn read(
        store: &Store,
        items: &HashSet<StorePath>,
        is_closure: bool,
    ) -> Result<Self, StoreError> {
        let items_list: Vec<StorePath> = items.iter().cloned().collect();
        let recorded: Vec<StorePath> = store.valid_among(&items_list)?.into_iter().collect();

        let mut referred_to = Vec::new();
        if is_closure {
            let closure = store.closure(&recorded)?;
            let beyond = closure.items().iter();
            referred_to.extend(beyond.filter(|item| !items.contains(*item)).cloned());
        }

        let missing = store.missing_trees(&recorded)?;
        let with_trees = recorded.into_iter();
        Ok(Self {
            valid: with_trees.filter(|item| !missing.contains(item)).collect(),
            referred_to,
        })
    }
}
