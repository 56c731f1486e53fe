//! `subst fetch --gc-root NAME`: the requested items that are valid become roots.
//!
//! The directory of the links is opened before the process is confined. The links are made while the
//! temp roots of the fetch still keep the items.

use std::collections::HashSet;
use std::path::Path;

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

    /// Makes a root of each of `paths` that is valid now. The roots of the others stay as they are.
    ///
    /// # Errors
    /// A link cannot be made.
    pub(super) fn make(&self, paths: &[StorePath], outcome: &FetchOutcome) -> Result<(), CliError> {
        let valid = outcome.valid.iter().chain(&outcome.registered);
        let valid: HashSet<&StorePath> = valid.collect();
        for (position, path) in paths.iter().enumerate() {
            if valid.contains(path) {
                self.links.set(&self.name.numbered(position), path)?;
            }
        }
        Ok(())
    }
}
