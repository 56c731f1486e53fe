//! Where partial downloads are: beside the lookup cache.

use std::sync::Arc;

use crate::substitute::download::spool::SpoolDirectory;

use super::context::Context;

impl Context {
    /// The partial downloads of earlier runs and of this one, unless they are off or no directory can be
    /// written to.
    pub(super) fn spools(&self) -> Option<Arc<SpoolDirectory>> {
        let bytes_max = self.settings.partial_max_size;
        let spools = (bytes_max > 0).then(|| self.partial_downloads())??;
        spools.remove_old(self.clock.unix_seconds());
        Some(Arc::new(spools))
    }

    /// The directory of partial downloads, beside the lookup cache; `None` when it cannot be written
    /// to.
    #[must_use]
    pub(crate) fn partial_downloads(&self) -> Option<SpoolDirectory> {
        let directory = self.socket_dir()?;
        let base = self.settings.layout.base_of(&directory);
        let path = directory.join("partial");
        let bytes_max = self.settings.partial_max_size;
        Some(SpoolDirectory::new(base, path, bytes_max))
    }
}
