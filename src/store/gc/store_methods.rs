//! What a store offers for its care: collections, and the list of its roots.

use crate::store::error::{Remedy, StoreError};
use crate::store::handle::Store;
use crate::store::sync_mode::SyncMode;

use super::collector::Collector;
use super::report::{GcMode, GcProgress, GcReport, GcRequest, RootReport, RootsReport};
use super::root_links::GcRootLinks;
use super::roots::find_roots;

impl Store {
    /// Collects the garbage of an embedded store; for a dry run it may be open for reading only. Waits for
    /// processes that add roots, and for the end of another collection.
    ///
    /// # Errors
    /// The store may not be changed, or its roots cannot be read, or the user interrupts: nothing was
    /// deleted then. Later failures are in the report, and what was not deleted is for the next collection.
    pub(crate) fn collect_garbage(
        &self,
        request: &GcRequest,
        progress: &mut dyn FnMut(GcProgress),
    ) -> Result<GcReport, StoreError> {
        let mut report = self.collect_once(request, progress)?;
        let mut failures = report.failures.iter();
        let had_no_room = failures.any(|failure| failure.remedy() == Some(Remedy::Space));
        if had_no_room && report.freed_bytes > 0 && !report.is_interrupted {
            // The database could not delete all rows, and has room for that now.
            report
                .failures
                .retain(|failure| failure.remedy() != Some(Remedy::Space));
            match self.collect_once(request, progress) {
                Ok(later) => report.add(later),
                Err(error) => report.add_failure(error),
            }
        }
        Ok(report)
    }

    fn collect_once(
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
    /// The database cannot be read.
    pub(crate) fn roots(&self) -> Result<RootsReport, StoreError> {
        let found = find_roots(self.layout());
        let graph = self.database().item_graph()?;
        let roots = found.roots.into_iter().map(|root| {
            let position = graph.position(&root.item);
            RootReport {
                link: root.link,
                item: root.item,
                closure: position.map(|at| graph.closure_size(at)),
            }
        });
        Ok(RootsReport {
            roots: roots.collect(),
            unreadable: found.unreadable,
        })
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
