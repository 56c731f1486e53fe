//! One item for a place of its own: looked up, then unpacked and verified there. For callers that
//! register nothing: `fetch --output`, and the daemon's helper.

use std::sync::Arc;

use crate::format::store_path::StorePath;
use crate::store::unpack::{Checked, Destination};
use crate::store::{Links, SyncMode};
use crate::substitute::download::choice;
use crate::substitute::install::errors::ItemError;
use crate::substitute::install::installer::{Installer, UnpackRequest};
use crate::substitute::install::item::{self, AllowedBuilds};
use crate::substitute::item_lookup::{Authority, NarSource};
use crate::substitute::lookup::{LookupScope, Resolver};
use crate::trust::verdict::AuthorizedNarInfo;

/// An item that a server has, with an authorized narinfo.
pub(crate) struct AvailableItem {
    path: StorePath,
    authorized: Arc<AuthorizedNarInfo>,
    sources: Vec<NarSource>,
}

impl AvailableItem {
    /// Looks `path` up.
    ///
    /// # Errors
    /// No server has it with an authorized narinfo, or the user interrupted.
    pub(crate) fn find(
        installer: &Installer,
        resolver: &Resolver,
        path: &StorePath,
    ) -> Result<Self, ItemError> {
        let resolution = resolver.resolve(vec![path.clone()], LookupScope::ItemsOnly)?;
        if installer.cancel.is_canceled() {
            return Err(ItemError::Interrupted);
        }

        let lookup = resolution.items.first().ok_or(ItemError::NotTried)?;
        let authority = lookup
            .authority
            .as_ref()
            .and_then(Authority::verified_this_run);
        let authorized =
            authority.ok_or_else(|| ItemError::unavailable(lookup, &resolution.servers))?;
        Ok(Self {
            path: path.clone(),
            authorized: Arc::clone(authorized),
            sources: lookup.sources.clone(),
        })
    }

    /// Bytes to download, when the server says so.
    #[must_use]
    pub(crate) fn download_size(&self) -> Option<u64> {
        choice::announced(&self.sources).and_then(|(_, download)| download.file_size)
    }

    /// Bytes of its nar.
    #[must_use]
    pub(crate) fn nar_size(&self) -> u64 {
        self.authorized.narinfo().nar_size()
    }

    /// Unpacks and verifies it at `destination`, from another build if `builds` allows that. Its
    /// files are deduplicated in `links`, if given. What `sync` waits for in the end is written to the
    /// disk meanwhile.
    ///
    /// # Errors
    /// No server gives the nar, or the tree cannot be written; nothing is left behind.
    pub(crate) fn unpack(
        &self,
        installer: &Installer,
        resolver: &Arc<Resolver>,
        destination: &Destination,
        links: Option<&Arc<Links>>,
        builds: AllowedBuilds,
        sync: SyncMode,
    ) -> Result<Checked, ItemError> {
        let _write_ahead = installer.writers.write_ahead(sync, destination.directory());
        let request = UnpackRequest {
            item: &self.path,
            authorized: &self.authorized,
            sources: &self.sources,
            destination,
            links,
            progress: &*installer.progress,
        };
        Ok(item::unpack(installer, resolver, &request, builds)?)
    }
}
