//! Finds the names that files have in an item, by their inodes.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::fs::Dir;

use crate::no_follow::open_directory;
use crate::store::layout::Layout;

/// Names of one item that are given at most.
const NAMES_MAX: usize = 20;

/// The names, below the item `base`, of files with one of these inodes; in order. What cannot be listed is
/// left out.
pub(super) fn names_of_inodes(layout: &Layout, base: &str, inodes: &HashSet<u64>) -> Vec<PathBuf> {
    let top = layout.store().join(base);
    let mut directories = vec![PathBuf::new()];
    let mut names = Vec::new();
    while let Some(below) = directories.pop() {
        let Ok(directory) = open_directory(layout.store(), &top.join(&below)) else {
            continue;
        };
        for entry in Dir::read_from(&directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let path = below.join(OsStr::from_bytes(name.to_bytes()));
            if entry.file_type().is_dir() {
                directories.push(path);
            } else if inodes.contains(&entry.ino()) {
                names.push(path);
            }
        }
    }

    names.sort_unstable();
    names.truncate(NAMES_MAX);
    names
}
