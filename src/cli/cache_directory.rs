//! Where the lookup cache is, and the partial downloads beside it.
//!
//! Commands that look items up create the directory, to record the answers; all others use what is
//! there and create nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::lookup_cache::{CacheError, LookupCache};
use crate::substitute::download::spool::SpoolDirectory;

use super::context::Context;
use super::error::CliError;
use super::settings::StoreKind;

impl Context {
    /// The lookup cache, in the first directory that can have it; in memory when none can.
    #[must_use]
    pub(crate) fn lookup_cache(&self) -> LookupCache {
        self.or_in_memory(self.open_lookup_cache(self.cache_dirs()))
    }

    /// The lookup cache in the first of `dirs` that can have it; one in memory when there are none.
    fn open_lookup_cache(&self, dirs: Vec<PathBuf>) -> Result<LookupCache, CacheError> {
        let mut failure = None;
        for dir in dirs {
            let opened = LookupCache::open(&dir);
            if opened.cache.path().is_some() {
                if let Some(warning) = opened.warning {
                    self.output.warn(&warning.warning());
                }
                return Ok(opened.cache);
            }
            failure = opened.warning;
        }
        failure.map_or_else(|| Ok(LookupCache::in_memory()), Err)
    }

    /// The `opened` cache, or else one in memory, with a warning.
    fn or_in_memory(&self, opened: Result<LookupCache, CacheError>) -> LookupCache {
        opened.unwrap_or_else(|error| {
            self.output.warn(&error.warning());
            LookupCache::in_memory()
        })
    }

    /// The lookup cache that is there, for commands that are about it; an empty one in memory when there
    /// is none. Creates no directory and no database.
    ///
    /// # Errors
    /// It is there and cannot be opened.
    pub(crate) fn existing_lookup_cache(&self) -> Result<LookupCache, CacheError> {
        let mut dirs = self.cache_dirs();
        dirs.retain(|dir| LookupCache::exists_in(dir));
        self.open_lookup_cache(dirs)
    }

    /// The same for commands that only use it: one in memory when it cannot be opened.
    #[must_use]
    pub(crate) fn existing_lookup_cache_or_memory(&self) -> LookupCache {
        self.or_in_memory(self.existing_lookup_cache())
    }

    /// Removes the damaged lookup caches that were set aside.
    ///
    /// # Errors
    /// One of them cannot be removed.
    pub(crate) fn remove_damaged_lookup_caches(&self) -> Result<(), CliError> {
        for dir in self.cache_dirs() {
            let path = LookupCache::damaged_file(&dir);
            match std::fs::remove_file(&path) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) => {}
                removed => removed.map_err(CliError::file("remove", path))?,
            }
        }
        Ok(())
    }

    /// The directory of the lookup cache and of partial downloads, if there is one that we may write to.
    #[must_use]
    pub(crate) fn existing_cache_dir(&self) -> Option<PathBuf> {
        let mut dirs = self.cache_dirs().into_iter();
        dirs.find(|dir| dir.is_dir() && may_be_written(dir))
    }

    /// The directory for the socket of processes that belong together; `None` when no directory can
    /// be written to.
    #[must_use]
    pub(crate) fn socket_dir(&self) -> Option<PathBuf> {
        self.cache_dirs()
            .into_iter()
            .find(|dir| std::fs::create_dir_all(dir).is_ok() && may_be_written(dir))
    }

    /// The first directory for caches that can be written to, or made, and the part of its name in which symbolic links
    /// are followed.
    #[must_use]
    pub(crate) fn spool_places(&self) -> Option<(PathBuf, PathBuf)> {
        let directory = self.socket_dir()?;
        let base = self.settings.layout.base_of(&directory).to_owned();
        Some((base, directory))
    }

    fn cache_dirs(&self) -> Vec<PathBuf> {
        let mut dirs = self.settings.cache_dirs.clone();
        if self.settings.store_kind == StoreKind::Embedded {
            return dirs;
        }

        // Where no Guix is installed, not even its state directory is created.
        let state = self.settings.layout.state();
        if !state.is_dir() {
            dirs.retain(|dir| !dir.starts_with(state));
        }

        // An ordinary user's own cache is the rule, not worth a warning.
        let writable = dirs.iter().filter(|dir| may_be_written(dir));
        let writable: Vec<PathBuf> = writable.cloned().collect();
        if writable.is_empty() { dirs } else { writable }
    }

    /// The partial downloads of earlier runs and of this one, unless they are off or no directory can be
    /// written to.
    pub(super) fn spools(&self) -> Option<Arc<SpoolDirectory>> {
        let bytes_max = self.settings.partial_max_size;
        let directory = (bytes_max > 0).then(|| self.socket_dir())??;
        let spools = self.spool_directory(&directory);
        spools.remove_old(self.clock.unix_seconds());
        Some(Arc::new(spools))
    }

    /// The partial downloads that are there, beside the lookup cache; `None` when that has no directory,
    /// or it cannot be written to. Creates nothing.
    #[must_use]
    pub(crate) fn existing_partial_downloads(&self) -> Option<SpoolDirectory> {
        let directory = self.existing_cache_dir()?;
        Some(self.spool_directory(&directory))
    }

    fn spool_directory(&self, directory: &Path) -> SpoolDirectory {
        let base = self.settings.layout.base_of(directory);
        let bytes_max = self.settings.partial_max_size;
        SpoolDirectory::new(base, directory.join("partial"), bytes_max)
    }
}

/// Whether we may write to `dir`, or make it.
fn may_be_written(dir: &Path) -> bool {
    use rustix::fs::{Access, access};
    let existing = dir.ancestors().find(|dir| dir.exists());
    existing.is_some_and(|dir| access(dir, Access::WRITE_OK).is_ok())
}
