//! Permanent roots: links below the directories `gcroots`, `profiles` and `manifests` of the state
//! directory that lead to items.
//!
//! A *direct* root is a link to an item. An *indirect* one is a link to a link elsewhere, such as the
//! `result` of a build, which leads to an item. Links to items have the items' names in the store
//! directory (`/gnu/store/...`), or below the root of an embedded store. A file in these directories
//! that has the name of an item is a root as well. No link to a directory is entered.
//!
//! What cannot be read is an error: it might keep something.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, readlinkat, statat};

use crate::format::store_path::StorePath;
use crate::store::directory::open_directory;
use crate::store::error::{StoreError, on};
use crate::store::layout::Layout;

/// A link that keeps an item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GcRoot {
    pub(super) link: PathBuf,
    /// The item, valid or not.
    pub(super) item: StorePath,
}

/// The permanent roots of a store.
#[derive(Debug, Default)]
pub(super) struct FoundRoots {
    /// Each once, by the names of their links.
    pub(super) roots: Vec<GcRoot>,
    /// Links that keep nothing any more: of indirect roots whose targets are gone, and those that were
    /// not given their names when their process was killed.
    pub(super) stale: Vec<PathBuf>,
}

/// Reads the roots of the store at `layout`.
pub(super) fn find_roots(layout: &Layout) -> Result<FoundRoots, StoreError> {
    let mut search = RootSearch {
        layout,
        canonical_store: layout.store().canonicalize().ok(),
        found: FoundRoots::default(),
    };
    for directory in layout.root_directories() {
        search.read_directories(directory)?;
    }

    let mut found = search.found;
    found.roots.sort();
    found.roots.dedup();
    Ok(found)
}

/// How many links lead from an indirect root to its item at most, as many as Linux follows.
const LINKS_MAX: usize = 40;

struct RootSearch<'a> {
    layout: &'a Layout,
    /// The store directory by its name without links.
    canonical_store: Option<PathBuf>,
    found: FoundRoots,
}

/// Where a link leads.
enum LinkEnd {
    /// To an item; the last link that leads there.
    Item(GcRoot),
    /// To nothing.
    Missing,
    /// To something else.
    Other,
}

impl RootSearch<'_> {
    /// Reads `top` and all directories in it.
    fn read_directories(&mut self, top: PathBuf) -> Result<(), StoreError> {
        let mut pending = vec![top];
        while let Some(path) = pending.pop() {
            let directory = match open_directory(self.layout, &path) {
                Err(StoreError::Open { source, .. })
                    if source.kind() == io::ErrorKind::NotFound =>
                {
                    continue;
                }
                opened => opened?,
            };
            let entries = Dir::read_from(&directory).map_err(unreadable(&path))?;
            for entry in entries {
                let entry = entry.map_err(unreadable(&path))?;
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                let entry_path = path.join(OsStr::from_bytes(name.to_bytes()));
                let stat = match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(rustix::io::Errno::NOENT) => continue,
                    stat => stat.map_err(unreadable(&entry_path))?,
                };
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => pending.push(entry_path),
                    FileType::Symlink => {
                        let target = match readlinkat(&directory, name, Vec::new()) {
                            Err(rustix::io::Errno::NOENT) => continue,
                            target => target.map_err(unreadable(&entry_path))?,
                        };
                        self.note_link(
                            entry_path,
                            Path::new(OsStr::from_bytes(target.to_bytes())),
                        )?;
                    }
                    FileType::RegularFile => self.note_file(entry_path),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn note_link(&mut self, link: PathBuf, target: &Path) -> Result<(), StoreError> {
        if self.layout.is_unfinished_root(&link) {
            self.found.stale.push(link);
            return Ok(());
        }
        match self.end_of_link(link.clone(), target.to_owned())? {
            LinkEnd::Item(root) => self.found.roots.push(root),
            LinkEnd::Missing if link.starts_with(self.layout.indirect_roots_dir()) => {
                self.found.stale.push(link);
            }
            LinkEnd::Missing | LinkEnd::Other => {}
        }
        Ok(())
    }

    /// Follows `link`, which leads to `target`, up to an item.
    fn end_of_link(&self, mut link: PathBuf, mut target: PathBuf) -> Result<LinkEnd, StoreError> {
        for _ in 0..LINKS_MAX {
            if let Some(item) = self.item_of(&target) {
                return Ok(LinkEnd::Item(GcRoot { link, item }));
            }

            let Some((next, metadata)) = self.target_of(&link, &target)? else {
                return Ok(LinkEnd::Missing);
            };
            if !metadata.is_symlink() {
                return Ok(self.end_of_path(link, &next));
            }

            target = match std::fs::read_link(&next) {
                Err(error) if is_missing(&error) => return Ok(LinkEnd::Missing),
                target => target.map_err(unreadable(&next))?,
            };
            link = next;
        }
        Ok(LinkEnd::Other)
    }

    /// The target of `link`, and what is there; `None` if there is nothing. An absolute one may also
    /// be below the root of an embedded store, which may be the root directory of a container.
    fn target_of(
        &self,
        link: &Path,
        target: &Path,
    ) -> Result<Option<(PathBuf, Metadata)>, StoreError> {
        let place = link.parent().unwrap_or(Path::new("/")).join(target);
        let below_root = self.layout.below_root(target);
        for place in [Some(place), below_root].into_iter().flatten() {
            match place.symlink_metadata() {
                Ok(metadata) => return Ok(Some((place, metadata))),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(unreadable(&place)(error)),
            }
        }
        Ok(None)
    }

    /// What `link` leads to, whose target `path` is no link itself, but may be reached through some.
    fn end_of_path(&self, link: PathBuf, path: &Path) -> LinkEnd {
        let real = path.canonicalize().ok();
        match real.and_then(|real| self.item_of(&real)) {
            Some(item) => LinkEnd::Item(GcRoot { link, item }),
            None => LinkEnd::Other,
        }
    }

    /// A file that is named like an item.
    fn note_file(&mut self, link: PathBuf) {
        let name = link.file_name().and_then(OsStr::to_str);
        if let Some(item) = name.and_then(|name| StorePath::parse(name).ok()) {
            self.found.roots.push(GcRoot { link, item });
        }
    }

    /// The item that `path` is, or that it is in.
    fn item_of(&self, path: &Path) -> Option<StorePath> {
        let store_dir = Path::new(self.layout.store_dir().as_str());
        let places = [Some(store_dir), Some(self.layout.store())];
        let mut places = places.into_iter().chain([self.canonical_store.as_deref()]);
        let below = places.find_map(|place| path.strip_prefix(place?).ok())?;
        let name = below.components().next()?.as_os_str().to_str()?;
        StorePath::parse(name).ok()
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn unreadable<E: Into<io::Error>>(path: &Path) -> impl FnOnce(E) -> StoreError {
    on(path, |path, source| StoreError::Read { path, source })
}
