//! `subst fetch --gc-root NAME`: the requested items that are valid become roots.
//!
//! The directory of the links is opened before the process is confined. The links are made while the
//! temp roots of the fetch still keep the items.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::format::store_path::StorePath;
use crate::store::{GcRootLinks, RootName, Store};
use crate::substitute::closure::FetchOutcome;

/// The roots that a fetch makes.
pub(super) struct RequestedRoots {
    name: RootName,
    links: GcRootLinks,
}

impl RequestedRoots {
    /// Prepares the root `name`, or several of them, in `store`.
    ///
    /// # Errors
    /// No roots can be made there.
    pub(super) fn prepare(store: &Store, name: &RootName) -> Result<Self, CliError> {
        Ok(Self {
            name: name.clone(),
            links: store.root_links()?,
        })
    }

    /// Where the links are made.
    pub(super) fn directory(&self) -> &Path {
        self.links.path()
    }

    /// Makes a root of each of `paths` that is valid now, and adds it to `made`. The links of the others stay
    /// as they are; when all are valid, links of an earlier fetch of more items are removed.
    ///
    /// # Errors
    /// A link cannot be made or removed.
    pub(super) fn make(
        &self,
        paths: &[StorePath],
        outcome: &FetchOutcome,
        made: &mut Vec<RootLink>,
    ) -> Result<(), CliError> {
        let valid = outcome.valid.iter().chain(&outcome.registered);
        for root in root_links(&self.name, paths, &valid.collect()) {
            self.links.set(&root.name, &root.item)?;
            made.push(root);
        }
        if made.len() == paths.len() {
            self.links.remove_beyond(&self.name, paths.len())?;
        }
        Ok(())
    }
}

/// A link of a root, and the item that it keeps.
pub(super) struct RootLink {
    name: String,
    item: StorePath,
}

impl RootLink {
    pub(super) fn as_json(&self, context: &Context) -> Value {
        json!({
            "name": self.name,
            "item": context.settings.store_dir().full_name(&self.item),
        })
    }
}

/// The links of the root `name` for those of `paths` that are `valid`.
pub(super) fn root_links(
    name: &RootName,
    paths: &[StorePath],
    valid: &HashSet<&StorePath>,
) -> Vec<RootLink> {
    let items = paths.iter().enumerate();
    let items = items.filter(|(_, item)| valid.contains(item));
    let links = items.map(|(position, item)| RootLink {
        name: name.link_name(position),
        item: item.clone(),
    });
    links.collect()
}
