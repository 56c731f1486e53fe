//! Files of trees that are equal to others, of the same tree or of one that is unpacked at the same time.

use std::os::fd::AsFd as _;

use super::*;
use crate::store::unpack::temporary_tree::TemporaryTree;

/// A nar with equal files: small and large ones, in the order in which they are written and not.
fn nar_with_equal_files() -> Vec<u8> {
    let mut writer = NarWriter::new(Vec::new());
    let name = |name: String| EntryName::new(name.as_bytes());
    writer.directory(None).unwrap();
    for directory in 0..5 {
        writer
            .directory(name(format!("{directory:02}")).as_ref())
            .unwrap();
        for (number, size) in [9000, 9001, 200_000, 2 << 20, 9000, 200_000]
            .into_iter()
            .enumerate()
        {
            let contents = contents(size);
            let file = name(format!("{number}"));
            writer
                .file(file.as_ref(), number == 1, size as u64, &contents[..])
                .unwrap();
        }
        writer.end_directory().unwrap();
    }
    writer.end_directory().unwrap();
    writer.finish().unwrap()
}

/// A store directory, and a tree of `nar` in it that is not verified yet.
fn unverified(nar: &[u8], repair: bool) -> (tempfile::TempDir, Unpacked) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join(".links")).unwrap();
    let unpacked = unpack_into(directory.path(), "tree", nar, repair);
    (directory, unpacked)
}

fn unpack_into(directory: &Path, name: &str, nar: &[u8], repair: bool) -> Unpacked {
    let parent = open_directory(directory).unwrap();
    let name = EntryName::new(name.as_bytes()).unwrap();
    let destination = Destination::new(parent, directory.to_owned(), name);
    let links = Links::open(directory).unwrap();
    let links = if repair { links.for_repair() } else { links };
    let chunks = Counted {
        nar: nar.to_vec().into(),
        sizes: vec![100_000; 1000].into_iter(),
        alive: Arc::default(),
    };
    unpack(
        chunks,
        Dialect::Guix,
        destination,
        &WriterPool::new(2).unwrap(),
        Some(Arc::new(links)),
    )
    .unwrap()
}

fn add_to_links(unpacked: &mut Unpacked) {
    let TemporaryTree {
        destination,
        new_entries,
        ..
    } = &mut unpacked.guard;
    new_entries
        .as_mut()
        .unwrap()
        .add_to_links(destination.parent.as_fd())
        .unwrap();
}

/// The inodes of the files at `top`, and how many names each has there.
fn inodes(top: &Path) -> std::collections::BTreeMap<u64, usize> {
    use std::os::unix::fs::MetadataExt as _;
    let mut inodes = std::collections::BTreeMap::new();
    let mut open = vec![top.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_dir() {
            open.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
        } else {
            *inodes.entry(metadata.ino()).or_default() += 1;
        }
    }
    inodes
}

#[test]
fn nothing_is_added_to_links_before_the_tree_is_verified() {
    for repair in [false, true] {
        let (directory, mut unpacked) = unverified(&nar_with_equal_files(), repair);
        let links = directory.path().join(".links");
        assert_eq!(links.read_dir().unwrap().count(), 0);
        // Equal files of the tree are one file all the same.
        let files = inodes(&directory.path().join("tree"));
        assert_eq!(files.len(), 4, "{files:?}");

        add_to_links(&mut unpacked);
        assert!(inodes(&links).keys().eq(files.keys()), "{files:?}");
        assert_eq!(faults(&directory.path().join("tree")), Vec::<String>::new());

        // What is not kept takes back what it has added.
        drop(unpacked);
        assert_eq!(links.read_dir().unwrap().count(), 0);
    }
}

#[test]
fn trees_that_are_unpacked_at_once_share_their_files() {
    let nar = nar_with_equal_files();
    let (directory, mut first) = unverified(&nar, false);
    let mut second = unpack_into(directory.path(), "second", &nar, false);
    add_to_links(&mut first);
    add_to_links(&mut second);
    let links = inodes(&directory.path().join(".links"));
    for tree in ["tree", "second"] {
        assert_eq!(faults(&directory.path().join(tree)), Vec::<String>::new());
        let files = inodes(&directory.path().join(tree));
        assert!(files.keys().eq(links.keys()), "{tree}: {files:?} {links:?}");
    }

    // An entry that is still in use stays.
    drop(first);
    assert_eq!(inodes(&directory.path().join(".links")), links);
    let third = unpack_into(directory.path(), "third", &nar, false);
    assert_eq!(inodes(&directory.path().join("third")).len(), links.len());
    drop((second, third));
}

#[test]
fn an_unverified_repair_does_not_replace_entries() {
    let nar = nar_of_one_file(9000, false);
    let (directory, mut good) = unverified(&nar, false);
    add_to_links(&mut good);
    let links = directory.path().join(".links");
    let entry = links.read_dir().unwrap().next().unwrap().unwrap().path();
    // Damaged, with the size that it had.
    std::fs::set_permissions(&entry, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&entry, vec![7; 9000]).unwrap();
    std::fs::set_permissions(&entry, std::fs::Permissions::from_mode(0o444)).unwrap();

    let mut repaired = unpack_into(directory.path(), "repaired", &nar, true);
    assert_eq!(std::fs::read(&entry).unwrap(), vec![7; 9000]);
    add_to_links(&mut repaired);
    assert_eq!(std::fs::read(&entry).unwrap(), contents(9000));
    assert_eq!(links.read_dir().unwrap().count(), 1);
}
