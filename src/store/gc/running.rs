//! Items that running programs use: their executables, libraries, open files and working directories.
//!
//! A process may see the store at its place (`/gnu/store`), as one that was started with the store mounted
//! there does. Everything that it names then is an item of this store, also in its environment. For
//! other processes the names alone prove nothing: the system may have a store with the same items. There
//! a file counts if it is the very file of this store.
//!
//! Processes of other users cannot be looked at without privileges, and count as none.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Stat, fstat, statat};

use crate::format::store_path::StorePath;
use crate::store::layout::Layout;

/// An item, and a process that uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UsedItem {
    pub(super) item: StorePath,
    pub(super) process: u32,
}

/// The items of the store at `layout` that running programs use; its directory is open as `store`.
pub(super) fn used_items(layout: &Layout, store: &OwnedFd) -> Vec<UsedItem> {
    let Ok(own) = fstat(store) else {
        return Vec::new();
    };
    let search = ProcessSearch {
        store_dir: layout.store_dir().as_str(),
        store: store.as_fd(),
        own,
    };

    let mut used = Vec::new();
    for entry in Path::new("/proc")
        .read_dir()
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let mut items = search.items_of(&entry.path());
        items.sort_unstable_by(|one, other| one.base().cmp(other.base()));
        items.dedup();
        used.extend(items.into_iter().map(|item| UsedItem { item, process }));
    }
    used
}

struct ProcessSearch<'a> {
    /// The store directory as items name it.
    store_dir: &'a str,
    store: BorrowedFd<'a>,
    own: Stat,
}

/// What a text names: an item, and the file in the store directory.
struct NamedFile<'a> {
    item: StorePath,
    /// Its name from the store directory on.
    file: &'a Path,
}

impl ProcessSearch<'_> {
    /// The items that the process in the directory `process` uses.
    fn items_of(&self, process: &Path) -> Vec<StorePath> {
        let sees_store = self.sees_store(process);
        let mut items = Vec::new();
        for link in links_of(process) {
            let Ok(target) = link.read_link() else {
                continue;
            };
            let target = target.as_os_str().as_bytes();
            let named = self.named_files(target);
            items.extend(named.filter_map(|named| {
                let is_own = sees_store || self.is_same_file(&link, named.file);
                is_own.then_some(named.item)
            }));
        }

        for line in contents(&process.join("maps")).split(|&byte| byte == b'\n') {
            let inode = line.split(u8::is_ascii_whitespace).nth(4);
            let named = self.named_files(line);
            items.extend(named.filter_map(|named| {
                let is_own = sees_store || self.has_inode(named.file, inode);
                is_own.then_some(named.item)
            }));
        }

        if sees_store {
            let environment = contents(&process.join("environ"));
            items.extend(self.named_files(&environment).map(|named| named.item));
        }
        items
    }

    /// Whether the store of this process is the one that is collected.
    fn sees_store(&self, process: &Path) -> bool {
        let place = process
            .join("root")
            .join(self.store_dir.trim_start_matches('/'));
        let Ok(store) = place.metadata() else {
            return false;
        };
        (store.dev(), store.ino()) == (self.own.st_dev, self.own.st_ino)
    }

    fn is_same_file(&self, link: &Path, file: &Path) -> bool {
        let (Ok(used), Ok(own)) = (link.metadata(), self.stat(file)) else {
            return false;
        };
        (used.dev(), used.ino()) == (own.st_dev, own.st_ino)
    }

    /// Whether the number of the file's inode is `digits`. Its device is not compared: some file
    /// systems show another one in lists of mappings.
    fn has_inode(&self, file: &Path, digits: Option<&[u8]>) -> bool {
        let own = self.stat(file).map(|stat| stat.st_ino.to_string());
        own.is_ok_and(|own| Some(own.as_bytes()) == digits)
    }

    fn stat(&self, file: &Path) -> rustix::io::Result<Stat> {
        statat(self.store, file, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// The items that `text` names.
    fn named_files<'t>(&self, text: &'t [u8]) -> impl Iterator<Item = NamedFile<'t>> {
        let prefix = format!("{}/", self.store_dir).into_bytes();
        let starts: Vec<usize> = text
            .windows(prefix.len())
            .enumerate()
            .filter(|(_, window)| *window == prefix)
            .map(|(at, _)| at + prefix.len())
            .collect();
        starts.into_iter().filter_map(move |start| {
            let rest = &text[start..];
            let end = rest.iter().position(|&byte| !is_name_byte(byte));
            let base = std::str::from_utf8(&rest[..end.unwrap_or(rest.len())]).ok()?;
            Some(NamedFile {
                item: StorePath::parse(base).ok()?,
                file: Path::new(OsStr::from_bytes(rest)),
            })
        })
    }
}

/// The links of a process to files that it uses.
fn links_of(process: &Path) -> Vec<PathBuf> {
    let files = process
        .join("fd")
        .read_dir()
        .into_iter()
        .flatten()
        .flatten();
    let mut links = vec![process.join("exe"), process.join("cwd")];
    links.extend(files.map(|entry| entry.path()));
    links
}

fn contents(path: &Path) -> Vec<u8> {
    let mut contents = Vec::new();
    if let Ok(file) = File::open(path) {
        // A process may end while it is read.
        let _ = file.take(CONTENTS_BYTES_MAX).read_to_end(&mut contents);
    }
    contents
}

/// Whether names of items have this character.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte)
}

/// More than the mappings or the environment of any process take.
const CONTENTS_BYTES_MAX: u64 = 256 << 20;
