//! Trees are what their nars say wherever chunks end, and few chunks are enough for it.

mod deduplication;

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::hashed::Chunks;
use super::*;
use crate::format::nar::{EntryName, NarWriter, SymlinkTarget};
use crate::format::store_path::Dialect;
use crate::store::Links;
use crate::store::canonical::tests::{faults, set_default_acl};

/// A nar in chunks that are counted until they are given back.
struct Counted {
    nar: Bytes,
    sizes: std::vec::IntoIter<usize>,
    alive: Arc<AtomicUsize>,
}

struct Chunk(Bytes, Arc<AtomicUsize>);

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Chunks for Counted {
    /// Waits as a decoder does that gets its buffers back one by one.
    fn next_chunk(&mut self) -> io::Result<Bytes> {
        let began = Instant::now();
        while self.alive.load(Ordering::Relaxed) > 1 {
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "two chunks are held on to"
            );
            std::thread::yield_now();
        }
        let size = self.sizes.next().unwrap_or(usize::MAX).min(self.nar.len());
        if size == 0 {
            return Ok(Bytes::new());
        }
        self.alive.fetch_add(1, Ordering::Relaxed);
        Ok(Bytes::from_owner(Chunk(
            self.nar.split_to(size),
            Arc::clone(&self.alive),
        )))
    }
}

fn contents(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at / 5).to_le_bytes()[0]).collect()
}

fn name(number: usize) -> String {
    format!("{number:03}")
}

/// A directory of files, with a symlink between any two of them.
fn nar(files: &[(usize, bool)]) -> Vec<u8> {
    let mut writer = NarWriter::new(Vec::new());
    writer.directory(None).unwrap();
    for (number, &(size, executable)) in files.iter().enumerate() {
        let file = EntryName::new(name(2 * number).as_bytes());
        writer
            .file(file.as_ref(), executable, size as u64, &contents(size)[..])
            .unwrap();
        let link = EntryName::new(name(2 * number + 1).as_bytes());
        writer
            .symlink(link.as_ref(), &SymlinkTarget::new(b"nowhere").unwrap())
            .unwrap();
    }
    writer.end_directory().unwrap();
    writer.finish().unwrap()
}

/// Sizes on both sides of what is deduplicated, and of what is written from memory.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        Just(0),
        1usize..100,
        Just(8192),
        8000usize..9000,
        20_000usize..60_000,
        Just((1 << 20) + 1),
    ]
}

proptest! {
    // Few attempts to make a failure smaller: each may take as long as the wait above.
    #![proptest_config(ProptestConfig {
        cases: 64,
        max_shrink_iters: 4,
        ..ProptestConfig::default()
    })]
    #[test]
    fn a_tree_is_what_its_nar_says_however_it_arrives(
        files in proptest::collection::vec((size(), any::<bool>()), 0..12),
        sizes in proptest::collection::vec(prop_oneof![1usize..50, 1000usize..30_000], 0..60),
        is_deduplicated: bool,
    ) {
        let nar = nar(&files);
        let directory = tempfile::tempdir().unwrap();
        let parent = open_directory(directory.path()).unwrap();
        let top = EntryName::new(b"tree").unwrap();
        let destination = Destination::new(parent, directory.path().to_owned(), top);
        let links = is_deduplicated.then(|| Arc::new(Links::open(directory.path()).unwrap()));
        let pool = WriterPool::new(2).unwrap();
        let chunks = Counted {
            nar: nar.clone().into(),
            sizes: sizes.into_iter(),
            alive: Arc::default(),
        };
        let unpacked = unpack(chunks, Dialect::Guix, destination, &pool, links).unwrap();
        prop_assert_eq!(unpacked.content.size, nar.len() as u64);
        for (number, &(size, executable)) in files.iter().enumerate() {
            let path = directory.path().join("tree").join(name(2 * number));
            prop_assert!(std::fs::read(&path).unwrap() == contents(size), "{number}: {size} bytes");
            let mode = path.metadata().unwrap().permissions().mode() & 0o7777;
            prop_assert_eq!(mode, if executable { 0o555 } else { 0o444 });
        }
        let entries = std::fs::read_dir(directory.path().join("tree")).unwrap().count();
        prop_assert_eq!(entries, 2 * files.len());
    }
}

#[test]
fn what_stands_at_the_destination_is_not_removed() {
    let top = EntryName::new(b"tree").unwrap();
    let file = |size| {
        let mut writer = NarWriter::new(Vec::new());
        writer
            .file(None, false, size as u64, &contents(size)[..])
            .unwrap();
        writer.finish().unwrap()
    };
    let mut link = NarWriter::new(Vec::new());
    link.symlink(None, &SymlinkTarget::new(b"nowhere").unwrap())
        .unwrap();
    let nars = [
        nar(&[(3, false)]),
        file(3),
        file(10_000),
        file(2 << 20),
        link.finish().unwrap(),
    ];

    let pool = WriterPool::new(1).unwrap();
    for (nar, is_deduplicated) in nars.iter().flat_map(|nar| [(nar, false), (nar, true)]) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join(".links")).unwrap();
        std::fs::create_dir(directory.path().join("tree")).unwrap();
        std::fs::write(directory.path().join("tree/precious"), "precious").unwrap();
        let parent = open_directory(directory.path()).unwrap();
        let destination = Destination::new(parent, directory.path().to_owned(), top.clone());
        let links = is_deduplicated.then(|| Arc::new(Links::open(directory.path()).unwrap()));
        let chunks = Counted {
            nar: nar.clone().into(),
            sizes: Vec::new().into_iter(),
            alive: Arc::default(),
        };
        unpack(chunks, Dialect::Guix, destination, &pool, links).unwrap_err();
        assert!(directory.path().join("tree/precious").exists());
    }
}

/// Directories, files and executables below and above the size of what is written from memory.
fn nar_of_each_kind() -> Vec<u8> {
    let mut writer = NarWriter::new(Vec::new());
    let name = |name: &str| EntryName::new(name.as_bytes());
    writer.directory(None).unwrap();
    for directory in ["a", "b"] {
        writer.directory(name(directory).as_ref()).unwrap();
        for (file, size, executable) in [
            ("1", 20, false),
            ("2", 20, true),
            ("3", 9000, false),
            ("4", 9000, true),
            ("5", (1 << 20) + 1, true),
            ("6", (1 << 20) + 1, false),
        ] {
            let contents = contents(size);
            writer
                .file(name(file).as_ref(), executable, size as u64, &contents[..])
                .unwrap();
        }
        writer.end_directory().unwrap();
    }
    writer.end_directory().unwrap();
    writer.finish().unwrap()
}

fn nar_of_one_file(size: usize, executable: bool) -> Vec<u8> {
    let mut writer = NarWriter::new(Vec::new());
    writer
        .file(None, executable, size as u64, &contents(size)[..])
        .unwrap();
    writer.finish().unwrap()
}

/// What is not canonical of the tree that `nar` becomes in `directory`.
fn faults_of(nar: Vec<u8>, directory: &Path) -> Vec<String> {
    let name = EntryName::new(b"tree").unwrap();
    let parent = open_directory(directory).unwrap();
    let destination = Destination::new(parent, directory.to_owned(), name);
    let links = Some(Arc::new(Links::open(directory).unwrap()));
    let pool = WriterPool::new(2).unwrap();
    let chunks = Counted {
        nar: nar.into(),
        sizes: Vec::new().into_iter(),
        alive: Arc::default(),
    };
    let _unpacked = unpack(chunks, Dialect::Guix, destination, &pool, links).unwrap();
    faults(&directory.join("tree"))
}

#[test]
fn a_tree_is_canonical_whatever_its_destination_passes_on() {
    let no_faults = Vec::<String>::new();
    let nars = [
        nar_of_each_kind(),
        nar_of_one_file(20, false),
        nar_of_one_file(2 << 20, true),
    ];
    for nar in nars {
        for (permissions, named) in [
            ([7, 7, 7], None),
            ([7, 5, 5], Some(7)),
            ([7, 5, 0], None),
            ([7, 5, 6], None),
            ([6, 5, 5], None),
            ([0, 0, 0], None),
        ] {
            let directory = tempfile::tempdir().unwrap();
            if set_default_acl(directory.path(), permissions, named) {
                let found = faults_of(nar.clone(), directory.path());
                assert_eq!(found, no_faults, "{permissions:?} {named:?}");
            }
        }

        let directory = tempfile::tempdir().unwrap();
        let mode = std::fs::Permissions::from_mode(0o2775);
        std::fs::set_permissions(directory.path(), mode).unwrap();
        assert_eq!(faults_of(nar, directory.path()), no_faults);
    }
}

/// A nar in chunks of 1 MiB, and the mode that `tree` has each time one is asked for.
struct Watched<'a> {
    nar: Bytes,
    tree: &'a Path,
    modes: Vec<u32>,
}

impl Chunks for Watched<'_> {
    fn next_chunk(&mut self) -> io::Result<Bytes> {
        let found = self.tree.metadata().ok();
        self.modes
            .extend(found.map(|found| found.permissions().mode() & 0o7777));
        Ok(self.nar.split_to(self.nar.len().min(1 << 20)))
    }
}

#[test]
fn a_file_without_a_directory_is_private_until_it_is_complete() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    let parent = open_directory(directory.path()).unwrap();
    let name = EntryName::new(b"tree").unwrap();
    let destination = Destination::new(parent, directory.path().to_owned(), name);
    let pool = WriterPool::new(1).unwrap();
    let nar = nar_of_one_file(2 << 20, false).into();
    let mut watched = Watched {
        nar,
        tree: &tree,
        modes: Vec::new(),
    };
    let _unpacked = unpack(&mut watched, Dialect::Guix, destination, &pool, None).unwrap();
    // The last time, it was the end of the nar that was asked for.
    assert_eq!(watched.modes, [0o600, 0o600, 0o444]);
    assert_eq!(faults(&tree), Vec::<String>::new());
}
