//! The roots that this program makes: links in the directory `gcroots/subst`.
//!
//! A link is made under a hidden name and renamed, so that its name always leads to the old item or to
//! the new one. Meanwhile `gc.lock` is held shared: a collector sees no hidden name of a live process.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, fsync, renameat, symlinkat, unlinkat};
use rustix::io::Errno;

use crate::format::store_path::{StoreDir, StorePath};
use crate::no_follow;
use crate::store::directory::{create_directory, open_directory};
use crate::store::error::{StoreError, on};
use crate::store::layout::Layout;
use crate::store::lock_file::LockFile;
use crate::store::lock_kind::{LockKind, LockMode};
use crate::store::sync_mode::SyncMode;
use crate::store::wait::StoreObserver;

/// The name of a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RootName(String);

impl RootName {
    /// The name that `text` is.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let fault = if text.is_empty() || text.starts_with('.') || text.starts_with('-') {
            "it has to begin with a letter or digit"
        } else if !text.chars().all(is_name_character) {
            "only letters, digits and + - . _ = @ are allowed"
        } else if text.len() > NAME_BYTES_MAX {
            "it is too long"
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(fault)
    }

    /// The name for the item at `position` of several: NAME, NAME-1, NAME-2, as `nix build` has it.
    #[must_use]
    pub(crate) fn numbered(&self, position: usize) -> Self {
        match position {
            0 => self.clone(),
            _ => Self(format!("{}-{position}", self.0)),
        }
    }

    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The directory of the roots that this program makes.
#[derive(Debug)]
pub(crate) struct GcRootLinks {
    path: PathBuf,
    directory: OwnedFd,
    gc_lock: LockFile,
    sync: SyncMode,
    observer: Arc<dyn StoreObserver>,
    store_dir: StoreDir,
}

impl GcRootLinks {
    /// Opens the directory, after making it if it is missing.
    pub(super) fn open(
        layout: &Layout,
        kind: LockKind,
        sync: SyncMode,
        observer: &Arc<dyn StoreObserver>,
    ) -> Result<Self, StoreError> {
        create_root_directory(layout)?;
        let path = layout.named_roots_dir();
        let state = open_directory(layout, layout.state())?;
        Ok(Self {
            directory: create_directory(layout, &path)?,
            gc_lock: LockFile::open(kind, state.as_fd(), layout.gc_lock())?,
            sync,
            observer: Arc::clone(observer),
            store_dir: layout.store_dir().clone(),
            path,
        })
    }

    /// The directory.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes `name` a root of `item`, which a temp root keeps until then. It replaces the root of that
    /// name.
    ///
    /// # Errors
    /// The link cannot be made, or the user interrupts while a collector runs.
    pub(crate) fn set(&self, name: &RootName, item: &StorePath) -> Result<(), StoreError> {
        self.gc_lock.lock(LockMode::Shared, &*self.observer)?;
        let hidden = format!(".{}.{:016x}", name.as_str(), fastrand::u64(..));
        let made = symlinkat(self.store_dir.full_name(item), &self.directory, &hidden)
            .and_then(|()| renameat(&self.directory, &hidden, &self.directory, name.as_str()))
            .and_then(|()| match self.sync {
                SyncMode::None => Ok(()),
                SyncMode::Items | SyncMode::Full => fsync(&self.directory),
            });
        if made.is_err() {
            let _ = unlinkat(&self.directory, &hidden, AtFlags::empty());
        }
        self.gc_lock.unlock()?;

        let link = self.path.join(name.as_str());
        made.map_err(on(&link, |path, source| StoreError::Write { path, source }))
    }
}

/// Removes the root `name` of the store at `layout`; whether there was one.
///
/// # Errors
/// It cannot be removed.
pub(crate) fn remove_root(layout: &Layout, name: &RootName) -> Result<bool, StoreError> {
    let path = layout.named_roots_dir();
    let directory = match open_directory(layout, &path) {
        Err(StoreError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(false);
        }
        opened => opened?,
    };
    match unlinkat(&directory, name.as_str(), AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => {
            let link = path.join(name.as_str());
            Err(on(&link, |path, source| StoreError::Remove {
                path,
                source,
            })(error))
        }
    }
}

/// Makes the directory of all roots as guix-daemon and Nix make it, which take one that is there to be
/// complete: with a link to the profiles.
fn create_root_directory(layout: &Layout) -> Result<(), StoreError> {
    let state = open_directory(layout, layout.state())?;
    let path = layout.gc_roots_dir();
    let name = path.file_name().unwrap_or_default();
    match no_follow::make_directory(&state, name) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(error) => return Err(not_created(&path)(error)),
    }

    let directory = open_directory(layout, &path)?;
    match symlinkat("../profiles", &directory, "profiles") {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(not_created(&path)(error)),
    }
}

fn not_created(path: &Path) -> impl FnOnce(Errno) -> StoreError {
    on(path, |path, source| StoreError::CreateDirectory {
        path,
        source,
    })
}

fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+-._=@".contains(c)
}

/// Leaves room for a number and for what is added to hidden names.
const NAME_BYTES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_roots_are_names_of_files_that_are_not_hidden() {
        for name in ["ci", "job-17", "a.b_c=d@e+f", &"x".repeat(200)] {
            assert_eq!(RootName::parse(name).unwrap().as_str(), name);
        }
        for name in [
            "",
            ".",
            "..",
            ".x",
            "-x",
            "a/b",
            "a b",
            "a\nb",
            "\u{e4}",
            &"x".repeat(201),
        ] {
            assert!(RootName::parse(name).is_err(), "{name:?}");
        }
        let name = RootName::parse("ci").unwrap();
        assert_eq!(name.numbered(0).as_str(), "ci");
        assert_eq!(name.numbered(2).as_str(), "ci-2");
    }
}
