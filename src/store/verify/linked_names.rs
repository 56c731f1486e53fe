//! Finds the names that files have in an item, by their inodes.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::PathBuf;

use crate::store::layout::Layout;
use crate::store::tree_entries::visit_entries;

/// Names of one item that are given at most.
const NAMES_MAX: usize = 20;

/// The names, below the item `base`, of files with one of these inodes; in order. What cannot be read is
/// left out.
pub(super) fn names_of_inodes(layout: &Layout, base: &str, inodes: &HashSet<u64>) -> Vec<PathBuf> {
    let mut names = Vec::new();
    visit_entries(layout.store(), OsStr::new(base), |below, name, stat| {
        if inodes.contains(&stat.st_ino) {
            names.push(below.join(name));
        }
    });

    names.sort_unstable();
    names.truncate(NAMES_MAX);
    names
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use nix::mount::{MsFlags, mount};

    use super::*;
    use crate::format::store_path::StoreDir;
    use crate::testing::on_tmpfs;

    #[test]
    fn files_are_found_by_their_own_inodes() {
        let root = tempfile::tempdir().unwrap();
        on_tmpfs(root.path(), "mode=755", || {
            let layout = Layout::embedded(root.path(), StoreDir::parse(StoreDir::GUIX).unwrap());
            let file = layout.store().join("item/below/file");
            let other = root.path().join("other");
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, "").unwrap();
            std::fs::write(&other, "").unwrap();
            // A directory lists the inode below a mount, as FUSE lists others than files have.
            let none = None::<&str>;
            mount(Some(&other), &file, none, MsFlags::MS_BIND, none).unwrap();

            let inodes = HashSet::from([other.metadata().unwrap().ino()]);
            let names = names_of_inodes(&layout, "item", &inodes);
            assert_eq!(names, [PathBuf::from("below/file")]);
        });
    }
}
