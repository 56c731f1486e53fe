//! Deduplication: races, corrupt entries, limits of the file system.

use std::ffi::CString;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::store::deduplicate::{EntryOutcome, LinkOutcome};
use crate::store::fingerprint::Fingerprint;

const SIZE: u64 = 10_000;
const HASH: [u8; 32] = [9; 32];
const FILE: Fingerprint = Fingerprint {
    hash: HASH,
    size: SIZE,
    executable: false,
};

struct Scene {
    root: tempfile::TempDir,
    store: Store,
    dir: File,
}

fn set_mode(path: &std::path::Path, mode: u32) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(path, mode).unwrap();
}

fn set_modified(path: &std::path::Path, seconds: u64) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    File::open(path).unwrap().set_modified(time).unwrap();
}

fn make_modified(entry: &Path) {
    set_modified(entry, 1_700_000_000);
}

/// Gives the entry to another user, where that is allowed; else it is modified.
fn give_away(entry: &Path) {
    if std::os::unix::fs::chown(entry, Some(12345), None).is_err() {
        make_modified(entry);
    }
}

impl Scene {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = guix_store(root.path());
        let path = root.path().join("gnu/store/item");
        std::fs::create_dir(&path).unwrap();
        Self {
            dir: File::open(path).unwrap(),
            root,
            store,
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join("gnu/store/item").join(name)
    }

    fn entry(&self) -> std::path::PathBuf {
        self.store
            .layout()
            .links()
            .join(crate::format::base32::encode(&HASH))
    }

    fn write(&self, name: &str) {
        std::fs::write(self.path(name), vec![1; 10_000]).unwrap();
        set_modified(&self.path(name), 1);
        set_mode(&self.path(name), 0o444);
    }

    fn add_to_links(&self, name: &str) -> EntryOutcome {
        let c_name = CString::new(name).unwrap();
        self.store
            .links()
            .add_to_links(&FILE, self.dir.as_fd(), &c_name)
            .unwrap()
    }

    /// Publishes in a repair.
    fn repair(&self, name: &str) -> EntryOutcome {
        let c_name = CString::new(name).unwrap();
        let links = self.store.links().for_repair();
        assert_eq!(
            links
                .link_existing(&FILE, self.dir.as_fd(), c"unseen")
                .unwrap(),
            LinkOutcome::NotCompared
        );
        links
            .add_to_links(&FILE, self.dir.as_fd(), &c_name)
            .unwrap()
    }

    fn link_written(&self, name: &str) -> LinkOutcome {
        let c_name = CString::new(name).unwrap();
        self.store
            .links()
            .link_written(&FILE, self.dir.as_fd(), &c_name)
            .unwrap()
    }

    fn link(&self, name: &str) -> LinkOutcome {
        let c_name = CString::new(name).unwrap();
        self.store
            .links()
            .link_existing(&FILE, self.dir.as_fd(), &c_name)
            .unwrap()
    }

    fn inode(&self, name: &str) -> u64 {
        self.path(name).metadata().unwrap().ino()
    }

    fn links_dir_names(&self) -> Vec<String> {
        let entries = self.store.layout().links().read_dir().unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

#[test]
fn the_first_is_published_and_the_others_link_to_it() {
    let scene = Scene::new();
    assert_eq!(scene.link("early"), LinkOutcome::Absent);
    assert!(!scene.path("early").exists());
    scene.write("first");
    assert_eq!(scene.add_to_links("first"), EntryOutcome::Added);
    assert_eq!(scene.link("second"), LinkOutcome::Done);
    scene.write("third");
    assert_eq!(
        scene.add_to_links("third"),
        EntryOutcome::ReplacedByExisting
    );
    assert_eq!(scene.inode("first"), scene.inode("second"));
    assert_eq!(scene.inode("first"), scene.inode("third"));
    // Publishing a link to the entry itself must not leave the temporary link behind.
    assert_eq!(
        scene.add_to_links("third"),
        EntryOutcome::ReplacedByExisting
    );
    assert_eq!(scene.links_dir_names().len(), 1);
    assert_eq!(scene.entry().metadata().unwrap().nlink(), 4);
}

#[test]
fn a_corrupt_entry_is_replaced() {
    let scene = Scene::new();
    std::fs::write(scene.entry(), "short").unwrap();
    assert_eq!(scene.link("a"), LinkOutcome::Absent);
    assert!(!scene.entry().exists() && !scene.path("a").exists());

    std::fs::write(scene.entry(), "short").unwrap();
    scene.write("b");
    assert_eq!(scene.add_to_links("b"), EntryOutcome::Added);
    assert_eq!(scene.inode("b"), scene.entry().metadata().unwrap().ino());

    std::fs::remove_file(scene.entry()).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", scene.entry()).unwrap();
    assert_eq!(scene.link("c"), LinkOutcome::Absent);
    assert!(!scene.path("c").is_symlink());
}

#[test]
fn an_entry_with_another_mode_is_replaced() {
    let scene = Scene::new();
    scene.write("a");
    scene.add_to_links("a");
    set_mode(&scene.path("a"), 0o440);
    assert_eq!(scene.link("b"), LinkOutcome::Absent);
    assert!(!scene.entry().exists() && !scene.path("b").exists());

    scene.write("b");
    scene.add_to_links("b");
    set_mode(&scene.path("b"), 0o555);
    scene.write("c");
    assert_eq!(scene.link_written("c"), LinkOutcome::Absent);
    assert_eq!(scene.add_to_links("c"), EntryOutcome::Added);
    assert_eq!(scene.inode("c"), scene.entry().metadata().unwrap().ino());
    assert_eq!(
        scene.links_dir_names().len(),
        1,
        "no temporary link is left"
    );
}

#[test]
fn an_entry_that_was_modified_or_belongs_to_another_user_is_replaced() {
    for change in [make_modified, give_away] {
        let scene = Scene::new();
        scene.write("a");
        scene.add_to_links("a");
        change(&scene.entry());
        assert_eq!(scene.link("b"), LinkOutcome::Absent);
        assert!(!scene.entry().exists() && !scene.path("b").exists());

        scene.write("b");
        scene.add_to_links("b");
        change(&scene.entry());
        scene.write("c");
        assert_eq!(scene.link_written("c"), LinkOutcome::Absent);
        assert_eq!(scene.add_to_links("c"), EntryOutcome::Added);
        assert_eq!(scene.inode("c"), scene.entry().metadata().unwrap().ino());
        assert_eq!(scene.links_dir_names().len(), 1);
    }
}

#[test]
fn a_written_file_is_replaced_by_an_entry_but_is_none_itself() {
    let scene = Scene::new();
    scene.write("a");
    assert_eq!(scene.link_written("a"), LinkOutcome::Absent);
    assert_eq!(scene.links_dir_names().len(), 0);
    scene.add_to_links("a");
    scene.write("b");
    assert_eq!(scene.link_written("b"), LinkOutcome::Done);
    assert_eq!(scene.inode("b"), scene.inode("a"));
    assert_eq!(
        scene.links_dir_names().len(),
        1,
        "no temporary link is left"
    );
}

#[test]
fn a_finished_directory_is_canonical_after_a_file_in_it_was_replaced() {
    let scene = Scene::new();
    scene.write("first");
    scene.add_to_links("first");
    let below = scene.path("below");
    std::fs::create_dir(&below).unwrap();
    scene.write("below/second");
    canonical::settle(File::open(&below).unwrap(), canonical::DIRECTORY_MODE).unwrap();
    assert_eq!(
        scene.add_to_links("below/second"),
        EntryOutcome::ReplacedByExisting
    );
    assert_eq!(scene.inode("below/second"), scene.inode("first"));
    let metadata = below.metadata().unwrap();
    assert_eq!(
        (metadata.mode() & 0o7777, metadata.mtime()),
        (0o555, canonical::MTIME_SECS)
    );
    remove_tree(&scene.path(""), "below").unwrap();
}

#[test]
fn nothing_is_linked_into_a_directory_behind_a_symlink() {
    let scene = Scene::new();
    let theirs = scene.root.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    std::fs::remove_dir(scene.store.layout().links()).unwrap();
    std::os::unix::fs::symlink(&theirs, scene.store.layout().links()).unwrap();
    assert_eq!(scene.link("a"), LinkOutcome::Unusable);
    scene.write("a");
    assert_eq!(scene.link_written("a"), LinkOutcome::Unusable);
    assert_eq!(scene.add_to_links("a"), EntryOutcome::Skipped);
    assert_eq!(theirs.read_dir().unwrap().count(), 0);
    assert_eq!(scene.path("a").metadata().unwrap().nlink(), 1);
}

#[test]
fn an_entry_in_use_is_not_withdrawn() {
    let scene = Scene::new();
    scene.write("a");
    scene.add_to_links("a");
    scene.store.links().remove_unused(&HASH).unwrap();
    assert!(scene.entry().exists());
    std::fs::remove_file(scene.path("a")).unwrap();
    scene.store.links().remove_unused(&HASH).unwrap();
    assert!(!scene.entry().exists());
}

#[test]
fn a_repair_links_to_an_entry_that_is_sound() {
    let scene = Scene::new();
    scene.write("first");
    scene.add_to_links("first");
    scene.write("repaired");
    assert_eq!(scene.repair("repaired"), EntryOutcome::ReplacedByExisting);
    assert_eq!(scene.inode("repaired"), scene.inode("first"));
    assert_eq!(scene.repair("repaired"), EntryOutcome::ReplacedByExisting);
    assert_eq!(
        scene.links_dir_names().len(),
        1,
        "no temporary link is left"
    );
}

#[test]
fn a_repair_replaces_an_entry_that_is_damaged_in_place() {
    let damages: [fn(&std::path::Path); 3] = [
        |entry| {
            // The last byte; the size is as it was.
            set_mode(entry, 0o644);
            let file = File::options().write(true).open(entry).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, b"x", SIZE - 1).unwrap();
            set_mode(entry, 0o444);
        },
        |entry| {
            set_mode(entry, 0o755);
        },
        |entry| {
            std::fs::remove_file(entry).unwrap();
            std::fs::write(entry, vec![2; 10_000]).unwrap();
            set_mode(entry, 0o444);
        },
    ];
    for damage in damages {
        let scene = Scene::new();
        scene.write("damaged");
        scene.add_to_links("damaged");
        damage(&scene.entry());
        scene.write("repaired");
        assert_eq!(scene.repair("repaired"), EntryOutcome::Added);
        assert_eq!(
            scene.inode("repaired"),
            scene.entry().metadata().unwrap().ino()
        );
        assert_eq!(std::fs::read(scene.entry()).unwrap(), vec![1; 10_000]);
        assert_eq!(
            scene.links_dir_names().len(),
            1,
            "no temporary link is left"
        );
        // From now on each file is linked to the good one again.
        assert_eq!(scene.link("next"), LinkOutcome::Done);
        assert_eq!(scene.inode("next"), scene.inode("repaired"));
    }
}

#[test]
fn the_directory_is_made_again_when_it_is_gone() {
    let scene = Scene::new();
    std::fs::remove_dir(scene.store.layout().links()).unwrap();
    assert_eq!(scene.link("a"), LinkOutcome::Absent);
    scene.write("a");
    assert_eq!(scene.add_to_links("a"), EntryOutcome::Added);
    assert!(scene.entry().exists());
}

#[test]
fn a_name_that_is_taken_is_an_error_not_a_limit() {
    let scene = Scene::new();
    scene.write("a");
    scene.add_to_links("a");
    let taken = scene
        .store
        .links()
        .link_existing(&FILE, scene.dir.as_fd(), c"a");
    assert!(matches!(taken, Err(StoreError::Deduplicate { .. })));
    let file = Fingerprint {
        hash: [1; 32],
        ..FILE
    };
    let absent = scene
        .store
        .links()
        .add_to_links(&file, scene.dir.as_fd(), c"no");
    assert!(matches!(absent, Err(StoreError::Deduplicate { .. })));
}

#[test]
fn an_inode_with_too_many_links_is_left_alone() {
    let scene = Scene::new();
    scene.write("a");
    scene.add_to_links("a");
    let crowd = scene.root.path().join("gnu/store/crowd");
    std::fs::create_dir(&crowd).unwrap();
    let mut full = false;
    for index in 0..70_000 {
        if let Err(error) = std::fs::hard_link(scene.entry(), crowd.join(index.to_string())) {
            assert_eq!(error.kind(), std::io::ErrorKind::TooManyLinks);
            full = true;
            break;
        }
    }
    if !full {
        eprintln!("skipped: this file system has no limit of links near 65,000");
        return;
    }
    assert_eq!(scene.link("b"), LinkOutcome::Unusable);
    scene.write("b");
    let before = scene.inode("b");
    assert_eq!(scene.add_to_links("b"), EntryOutcome::Skipped);
    assert_eq!(scene.inode("b"), before);
    assert_eq!(
        scene.links_dir_names().len(),
        1,
        "no temporary link is left"
    );
}

#[test]
fn racing_publishers_and_a_collector_lose_no_file() {
    let scene = Scene::new();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let scene = &scene;
            scope.spawn(move || {
                for round in 0..300 {
                    let name = format!("{thread}-{round}");
                    if scene.link(&name) != LinkOutcome::Done {
                        scene.write(&name);
                        scene.add_to_links(&name);
                    }
                    assert_eq!(scene.path(&name).metadata().unwrap().len(), SIZE);
                }
            });
        }
        // What a collector does to entries; here even to those in use.
        scope.spawn(|| {
            for _ in 0..300 {
                let _ = std::fs::remove_file(scene.entry());
                std::thread::yield_now();
            }
        });
    });
    assert!(
        scene
            .links_dir_names()
            .iter()
            .all(|name| !name.starts_with(".tmp"))
    );
}
