//! What a store offers for its care: collections, and the list of its roots.

use crate::store::error::StoreError;
use crate::store::handle::Store;
use crate::store::sync_mode::SyncMode;

use super::collector::Collector;
use super::report::{GcMode, GcProgress, GcReport, GcRequest, RootReport};
use super::root_links::GcRootLinks;
use super::roots::find_roots;

impl Store {
    /// Collects the garbage of an embedded store; for a dry run it may be open for reading only. Waits for processes that add roots, and for the end
    /// of another collection.
    ///
    /// # Errors
    /// The store may not be changed, or its roots cannot be read: nothing was deleted then. Or the
    /// database fails; what was deleted until then stays deleted, and the rest is for the next collection.
    pub(crate) fn collect_garbage(
        &self,
        request: &GcRequest,
        progress: &mut dyn FnMut(GcProgress),
    ) -> Result<GcReport, StoreError> {
        let sync = match request.mode {
            GcMode::DryRun => SyncMode::None,
            GcMode::Delete => self.writing()?,
        };
        let collector = Collector {
            layout: self.layout(),
            kind: self.lock_kind,
            sync,
            links: self.links(),
            database: &mut self.database(),
            observer: &*self.observer,
        };
        collector.run(request, progress)
    }

    /// All permanent roots, with the sizes of what they keep.
    ///
    /// # Errors
    /// The database or a directory of roots cannot be read.
    pub(crate) fn roots(&self) -> Result<Vec<RootReport>, StoreError> {
        let found = find_roots(self.layout())?;
        let graph = self.database().item_graph()?;
        let roots = found.roots.into_iter().map(|root| {
            let position = graph.position(&root.item);
            RootReport {
                link: root.link,
                item: root.item,
                closure: position.map(|at| graph.closure_size(at)),
            }
        });
        Ok(roots.collect())
    }

    /// Where this program makes roots, after making the directory if it is missing.
    ///
    /// # Errors
    /// It cannot be made or opened.
    pub(crate) fn root_links(&self) -> Result<GcRootLinks, StoreError> {
        let sync = self.writing()?;
        GcRootLinks::open(self.layout(), self.lock_kind, sync, &self.observer)
    }
}
