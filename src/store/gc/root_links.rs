//! The roots that this program makes: links in the directory `gcroots/subst`. A root of several items has a
//! link for each.
//!
//! A link is made under a hidden name and renamed, so that its name always leads to the old item or to
//! the new one. Meanwhile `gc.lock` is held shared: a collector sees no hidden name of a live process.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, fsync, renameat, unlinkat};
use rustix::io::Errno;

use crate::format::store_path::{StoreDir, StorePath};
use crate::no_follow;
use crate::store::directory::open_directory;
use crate::store::error::{StoreError, not_removed, on};
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
        let fault = if text.contains(SEPARATOR) {
            "a link NAME:1 is part of the root NAME, and is made and removed with it"
        } else if text.is_empty() || text.starts_with('.') || text.starts_with('-') {
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

    /// The name of the link for the item at `position` of several: NAME, NAME:1, NAME:2. No root is named
    /// like one of these, so none is replaced by the link of another one.
    #[must_use]
    pub(crate) fn link_name(&self, position: usize) -> String {
        match position {
            0 => self.0.clone(),
            _ => format!("{}{SEPARATOR}{position}", self.0),
        }
    }

    /// The position of the item that the link `name` is for, if it is one of this root.
    fn position_of(&self, name: &str) -> Option<usize> {
        let position = match name.strip_prefix(&self.0)? {
            "" => 0,
            rest => rest.strip_prefix(SEPARATOR)?.parse().ok()?,
        };
        (self.link_name(position) == name).then_some(position)
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
        let roots = create_root_directory(layout)?;
        let path = layout.named_roots_dir();
        match no_follow::make_directory_for_owner(&roots, path.file_name().unwrap_or_default()) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(not_created(&path)(error)),
        }
        let state = open_directory(layout, layout.state())?;
        Ok(Self {
            directory: open_directory(layout, &path)?,
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

    /// Makes the link `name` a root of `item`, which a temp root keeps until then. It replaces the link of
    /// that name.
    ///
    /// # Errors
    /// The link cannot be made, or the user interrupts while a collector runs.
    pub(crate) fn set(&self, name: &str, item: &StorePath) -> Result<(), StoreError> {
        self.gc_lock.lock(LockMode::Shared, &*self.observer)?;
        let hidden = format!(".{name}.{:016x}", fastrand::u64(..));
        let target = self.store_dir.full_name(item);
        let made = no_follow::make_link_for_owner(&target, &self.directory, &hidden)
            .and_then(|()| renameat(&self.directory, &hidden, &self.directory, name))
            .and_then(|()| match self.sync {
                SyncMode::None => Ok(()),
                SyncMode::Items | SyncMode::Full => fsync(&self.directory),
            });
        if made.is_err() {
            let _ = unlinkat(&self.directory, &hidden, AtFlags::empty());
        }
        self.gc_lock.unlock()?;

        let link = self.path.join(name);
        made.map_err(on(&link, |path, source| StoreError::Write { path, source }))
    }

    /// Removes the links of `name` for items beyond the first `count`, which an earlier fetch of more items
    /// has made.
    ///
    /// # Errors
    /// The directory cannot be read, or a link not be removed.
    pub(crate) fn remove_beyond(&self, name: &RootName, count: usize) -> Result<(), StoreError> {
        remove_links(&self.directory, &self.path, name, count).map(drop)
    }
}

/// Removes the root `name` of the store at `layout`; the names of its links, of which there are none if there
/// was no such root.
///
/// # Errors
/// The directory cannot be read, or a link not be removed.
pub(crate) fn remove_root(layout: &Layout, name: &RootName) -> Result<Vec<String>, StoreError> {
    let path = layout.named_roots_dir();
    let directory = match open_directory(layout, &path) {
        Err(StoreError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        opened => opened?,
    };
    remove_links(&directory, &path, name, 0)
}

/// Removes the links of `name` in the open `directory`, for items at the position `first` and beyond; their
/// names. The first link goes last: the root is there until all are removed.
fn remove_links(
    directory: &OwnedFd,
    path: &Path,
    name: &RootName,
    first: usize,
) -> Result<Vec<String>, StoreError> {
    let mut positions = Vec::new();
    for entry in Dir::read_from(directory).map_err(unreadable(path))? {
        let entry = entry.map_err(unreadable(path))?;
        let link = entry.file_name().to_str().ok();
        let position = link.and_then(|link| name.position_of(link));
        positions.extend(position.filter(|&position| position >= first));
    }

    positions.sort_unstable();
    let names: Vec<String> = positions.iter().map(|&at| name.link_name(at)).collect();
    for link in names.iter().rev() {
        match unlinkat(directory, link, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(not_removed(&path.join(link))(error)),
        }
    }
    Ok(names)
}

/// Makes the directory of all roots as guix-daemon and Nix make it, which take one that is there to be
/// complete: with a link to the profiles.
fn create_root_directory(layout: &Layout) -> Result<OwnedFd, StoreError> {
    let state = open_directory(layout, layout.state())?;
    let path = layout.gc_roots_dir();
    let name = path.file_name().unwrap_or_default();
    match no_follow::make_directory_for_owner(&state, name) {
        Ok(()) => {}
        Err(Errno::EXIST) => return open_directory(layout, &path),
        Err(error) => return Err(not_created(&path)(error)),
    }

    let directory = open_directory(layout, &path)?;
    match no_follow::make_link_for_owner("../profiles", &directory, "profiles") {
        Ok(()) | Err(Errno::EXIST) => Ok(directory),
        Err(error) => Err(not_created(&path)(error)),
    }
}

fn unreadable(path: &Path) -> impl FnOnce(Errno) -> StoreError {
    on(path, |path, source| StoreError::Read { path, source })
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

/// Between the name of a root and the number of one of its links; not allowed in names.
const SEPARATOR: char = ':';

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
            "a:1",
            "\u{e4}",
            &"x".repeat(201),
        ] {
            assert!(RootName::parse(name).is_err(), "{name:?}");
        }
        let name = RootName::parse("ci").unwrap();
        assert_eq!(name.link_name(0), "ci");
        assert_eq!(name.link_name(2), "ci:2");
        for (link, position) in [("ci", Some(0)), ("ci:12", Some(12))] {
            assert_eq!(name.position_of(link), position);
        }
        for link in [
            "c", "ci-1", "ci:", "ci:0", "ci:01", "ci:+1", "ci:1:1", "ci2:1",
        ] {
            assert_eq!(name.position_of(link), None, "{link}");
        }
    }
}
