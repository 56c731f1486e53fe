//! Permanent roots: links below the directories `gcroots`, `profiles` and `manifests` of the state
//! directory that lead to items.
//!
//! A *direct* root is a link to an item. An *indirect* one is a link to a link elsewhere, such as the
//! `result` of a build, which leads to an item. Links to items have the items' names in the store
//! directory (`/gnu/store/...`), or below the root of an embedded store. A file in these directories
//! that has the name of an item is a root as well. No link to a directory is entered.
//!
//! What cannot be read is noted: it might keep something.

use std::collections::HashSet;
use std::ffi::{CStr, OsStr, OsString};
use std::fs::Metadata;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, readlink, readlinkat, statat};
use rustix::io::Errno;

use crate::format::store_path::StorePath;
use crate::store::directory::open_directory;
use crate::store::error::{StoreError, UnreadableRoot, on};
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
    /// What cannot be read, and might keep something.
    pub(super) unreadable: Vec<UnreadableRoot>,
}

/// Reads the roots of the store at `layout`.
pub(super) fn find_roots(layout: &Layout) -> FoundRoots {
    let mut search = RootSearch::new(layout);
    for directory in layout.root_directories() {
        search.read_directories(directory);
    }

    let mut found = search.found;
    found.roots.sort_unstable();
    found.roots.dedup();
    found
        .unreadable
        .sort_unstable_by(|one, other| one.0.cmp(&other.0));
    found
}

/// Whether `link`, which was stale, still is: a build may have made its target meanwhile.
pub(super) fn is_stale(layout: &Layout, link: &Path) -> Result<bool, StoreError> {
    let mut search = RootSearch::new(layout);
    match std::fs::read_link(link) {
        Err(error) if is_missing(&error) => return Ok(false),
        target => search.note_link(link.to_owned(), &target.map_err(unreadable(link))?),
    }
    Ok(!search.found.stale.is_empty())
}

/// How many links are followed in the name of one place at most, as many as Linux follows.
const LINKS_MAX: usize = 40;
/// How many places one root leads to at most.
const PLACES_MAX: usize = 3 * LINKS_MAX;

struct RootSearch<'a> {
    layout: &'a Layout,
    /// The store directory by its name without links.
    canonical_store: Option<PathBuf>,
    found: FoundRoots,
}

/// Where a link leads.
#[derive(Default)]
struct LinkEnds {
    /// The items, each with the last link that leads there.
    roots: Vec<GcRoot>,
    /// Whether there is nothing where the link itself leads. Further links may lead to what is there at
    /// other times, such as a file system that is mounted.
    is_stale: bool,
}

impl<'a> RootSearch<'a> {
    fn new(layout: &'a Layout) -> Self {
        Self {
            layout,
            canonical_store: layout.store().canonicalize().ok(),
            found: FoundRoots::default(),
        }
    }

    /// Reads `top` and all directories in it.
    fn read_directories(&mut self, top: PathBuf) {
        let mut pending = vec![top];
        while let Some(path) = pending.pop() {
            match self.read_directory(&path) {
                Ok(directories) => pending.extend(directories),
                Err(error) => self.note_unreadable(path, error),
            }
        }
    }

    /// Reads the directory `path`, which may be missing; the directories in it.
    fn read_directory(&mut self, path: &Path) -> Result<Vec<PathBuf>, StoreError> {
        let directory = match open_directory(self.layout, path) {
            Err(StoreError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(Vec::new());
            }
            opened => opened?,
        };
        let mut directories = Vec::new();
        for entry in Dir::read_from(&directory).map_err(unreadable(path))? {
            let entry = entry.map_err(unreadable(path))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let entry_path = path.join(OsStr::from_bytes(name.to_bytes()));
            match self.read_entry(&directory, name, &entry_path) {
                Ok(FileType::Directory) => directories.push(entry_path),
                Ok(_) => {}
                Err(Errno::NOENT) => {}
                Err(error) => {
                    let error = unreadable(&entry_path)(error);
                    self.note_unreadable(entry_path, error);
                }
            }
        }
        Ok(directories)
    }

    /// Reads the entry `name` of an open `directory`, which is at `path`; the kind of it.
    fn read_entry(
        &mut self,
        directory: &OwnedFd,
        name: &CStr,
        path: &Path,
    ) -> rustix::io::Result<FileType> {
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::Symlink => {
                let target = readlinkat(directory, name, Vec::new())?;
                let target = Path::new(OsStr::from_bytes(target.to_bytes()));
                self.note_link(path.to_owned(), target);
            }
            FileType::RegularFile => self.note_file(path.to_owned()),
            _ => {}
        }
        Ok(kind)
    }

    fn note_unreadable(&mut self, link: PathBuf, error: StoreError) {
        self.found.unreadable.push((link, error));
    }

    fn note_link(&mut self, link: PathBuf, target: &Path) {
        if self.layout.is_unfinished_root(&link) {
            self.found.stale.push(link);
            return;
        }
        match self.follow(link.clone(), target.to_owned()) {
            Ok(ends) => {
                self.found.roots.extend(ends.roots);
                if ends.is_stale && link.starts_with(self.layout.indirect_roots_dir()) {
                    self.found.stale.push(link);
                }
            }
            Err(error) => self.note_unreadable(link, error),
        }
    }

    /// Follows `link`, which leads to `target`, up to items.
    fn follow(&self, link: PathBuf, target: PathBuf) -> Result<LinkEnds, StoreError> {
        let mut ends = LinkEnds::default();
        let mut seen = HashSet::from([link.clone()]);
        let mut pending = vec![(link, target)];
        while let Some((link, target)) = pending.pop() {
            if let Some(item) = self.item_of(&target) {
                ends.roots.push(GcRoot { link, item });
                continue;
            }

            let is_first = seen.len() == 1;
            let places = self.places_of(&link, &target)?;
            ends.is_stale |= is_first && places.is_empty();
            for (place, metadata) in places {
                if seen.len() > PLACES_MAX || !seen.insert(place.clone()) {
                    continue;
                }
                if let Some(item) = self.item_at(&place, &metadata) {
                    let link = link.clone();
                    ends.roots.push(GcRoot { link, item });
                } else if metadata.is_symlink() {
                    match std::fs::read_link(&place) {
                        Err(error) if is_missing(&error) => {}
                        target => {
                            pending.push((place.clone(), target.map_err(unreadable(&place))?))
                        }
                    }
                }
            }
        }
        Ok(ends)
    }

    /// All that is where `link` leads, whose text is `target`. The directory of an embedded store may be
    /// the root directory of a container: whether the link was made there cannot be seen, so what it
    /// names there counts as well as what it names on the host.
    fn places_of(
        &self,
        link: &Path,
        target: &Path,
    ) -> Result<Vec<(PathBuf, Metadata)>, StoreError> {
        let on_host = link.parent().unwrap_or(Path::new("/")).join(target);
        let mut places = Vec::new();
        if let Some(root) = self.layout.below_root(Path::new("/")) {
            let named = [target.strip_prefix("/"), on_host.strip_prefix(&root)];
            for below in named.into_iter().flatten() {
                places.extend(resolve_below(&root, below)?);
            }
        }
        places.push(on_host);

        let mut found = Vec::new();
        for place in places {
            match place.symlink_metadata() {
                Ok(metadata) => found.push((place, metadata)),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(unreadable(&place)(error)),
            }
        }
        Ok(found)
    }

    /// The item that `place` is, or that it is in, maybe by links in its name.
    fn item_at(&self, place: &Path, metadata: &Metadata) -> Option<StorePath> {
        let named = self.item_of(place);
        if named.is_some() || metadata.is_symlink() {
            return named;
        }
        self.item_of(&place.canonicalize().ok()?)
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

/// Where `path` is if `root` is the root directory, without links in the name of its parent; `None`
/// if that leads nowhere. Looked up name by name, because not all kernels can do it.
fn resolve_below(root: &Path, path: &Path) -> Result<Option<PathBuf>, StoreError> {
    let mut resolved = PathBuf::new();
    let mut pending = names_in_reverse(path);
    let mut links = 0;
    while let Some(name) = pending.pop() {
        if name == ".." {
            resolved.pop();
            continue;
        }
        resolved.push(&name);
        if pending.is_empty() {
            break;
        }

        let place = root.join(&resolved);
        match readlink(&place, Vec::new()) {
            Ok(target) if links < LINKS_MAX => {
                links += 1;
                let target = Path::new(OsStr::from_bytes(target.to_bytes()));
                resolved.pop();
                if target.is_absolute() {
                    resolved.clear();
                }
                pending.extend(names_in_reverse(target));
            }
            // It is no link.
            Err(Errno::INVAL) => {}
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(unreadable(&place)(error)),
        }
    }
    Ok(Some(root.join(resolved)))
}

/// The names in `path`, the last one first; of the others only `..`.
fn names_in_reverse(path: &Path) -> Vec<OsString> {
    let components = path.components().rev();
    components
        .filter(|component| matches!(component, Component::Normal(_) | Component::ParentDir))
        .map(|component| component.as_os_str().to_owned())
        .collect()
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::format::store_path::StoreDir;

    #[test]
    fn a_root_whose_target_is_made_meanwhile_is_not_stale() {
        let directory = tempfile::tempdir().unwrap();
        let store_dir = StoreDir::parse(StoreDir::GUIX).unwrap();
        let layout = Layout::embedded(directory.path(), store_dir);
        let auto = layout.indirect_roots_dir();
        std::fs::create_dir_all(&auto).unwrap();
        let (link, result) = (auto.join("a"), directory.path().join("result"));
        symlink(&result, &link).unwrap();
        assert!(find_roots(&layout).stale.contains(&link));
        assert!(is_stale(&layout, &link).unwrap());

        symlink("/gnu/store/0f9qzp1g3jy45al4zspzqah9f8d5bisp-a", &result).unwrap();
        assert!(!is_stale(&layout, &link).unwrap());
        std::fs::remove_file(&link).unwrap();
        assert!(!is_stale(&layout, &link).unwrap());
    }
}
