//! A worker of a fetch: brings one item after another to its temporary name.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::format::nar::EntryName;
use crate::store::unpack::{Checked, Destination};
use crate::store::{ItemLock, Layout};
use crate::substitute::fetch::Fetch;
use crate::substitute::fetch::plan::PlannedItem;
use crate::substitute::install::{ItemError, Order};
use crate::substitute::renew::{self, Builds, Failure};

/// What a worker brings back for an item.
pub(super) enum Brought {
    /// The tree, and the right to register it.
    Tree(Box<(Checked, ItemLock)>),
    /// It is valid: somebody else was faster.
    Valid,
    /// Somebody else is making it; try again later.
    Busy,
    /// It cannot be had as planned.
    Failed(Failure),
}

pub(super) struct Worker<'a> {
    pub(super) fetch: &'a Fetch,
    /// The store.
    pub(super) directory: &'a Arc<OwnedFd>,
}

impl Worker<'_> {
    pub(super) fn bring(&self, item: &PlannedItem) -> Brought {
        self.try_bring(item).unwrap_or_else(Brought::Failed)
    }

    fn try_bring(&self, item: &PlannedItem) -> Result<Brought, Failure> {
        let store = &self.fetch.store;
        let Some(lock) = store.try_lock(&item.path).map_err(ItemError::from)? else {
            return Ok(Brought::Busy);
        };
        if store.is_complete(&item.path).map_err(ItemError::from)? {
            return Ok(Brought::Valid);
        }
        store.remove_temporary(&item.path).map_err(ItemError::from)?;
        let name = Layout::temporary_name(&item.path);
        let parent = store.layout().store().to_owned();
        let name = EntryName::new(name.as_bytes()).expect("a store path's name is an entry name");
        let destination = Destination::new(Arc::clone(self.directory), parent, name);
        let order = Order {
            item: &item.path,
            authorized: &item.authorized,
            sources: &item.sources,
            destination: &destination,
            links: Some(store.links()),
        };
        let Fetch { installer, resolver, .. } = self.fetch;
        let checked = renew::unpack(installer, resolver, &order, Builds::UntilOtherReferences)?;
        Ok(Brought::Tree(Box::new((checked, lock))))
    }
}
