//! Garbage collection: what stays, what goes, and what a collection leaves when it is cut short.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::Permissions;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Stdio;

use super::*;
use crate::store::gc::{Keeper, StoreSizes};
use crate::testing::on_tmpfs;

const DELETE: GcRequest = GcRequest {
    mode: GcMode::Delete,
    keep_since: None,
    max_bytes: None,
};

/// Makes `name` a valid item that is a directory with one read-only file of 20,000 bytes, all `fill`, which
/// is an entry of `.links` too.
fn add_item(store: &Store, name: &str, references: &[&str], fill: u8) {
    add_item_at(store, name, references, fill, NOW);
}

fn add_item_at(store: &Store, name: &str, references: &[&str], fill: u8, registered_at: u64) {
    let path = store.layout().item(&item(name));
    std::fs::create_dir(&path).unwrap();
    let entry = store.layout().links().join(format!("{fill:052}"));
    if !entry.exists() {
        std::fs::write(&entry, vec![fill; 20_000]).unwrap();
    }
    std::fs::hard_link(&entry, path.join("file")).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o555)).unwrap();
    let registration = registration(name, references);
    store
        .write_registrations(&[registration], registered_at)
        .unwrap();
}

/// Whether files take as many blocks in `directory` as they have bytes. Where they are compressed, or get
/// their blocks later, sizes change while a test runs.
fn reports_all_blocks(directory: &Path) -> bool {
    let sample = directory.join("sample");
    std::fs::write(&sample, vec![1; 20_000]).unwrap();
    let bytes = sample.metadata().unwrap().blocks() * 512;
    let is_usual = (20_000..=28_672).contains(&bytes);
    if !is_usual {
        eprintln!("skipped: a file of 20,000 bytes takes {bytes} bytes here");
    }
    is_usual
}

fn collect(store: &Store, request: &GcRequest) -> GcReport {
    let report = store.collect_garbage(request, &mut |_| {}).unwrap();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    report
}

/// The names of what is valid, without the hash part.
fn valid(store: &Store) -> Vec<String> {
    let names = rows(store, "SELECT path FROM ValidPaths ORDER BY path");
    names
        .into_iter()
        .map(|name| name[name.find('-').unwrap() + 1..].to_owned())
        .collect()
}

/// The names in the store directory, without the hash part.
fn entries(store: &Store) -> BTreeSet<String> {
    let entries = store.layout().store().read_dir().unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let prefix = format!("{HASH_PART}-");
    names
        .filter(|name| name != ".links")
        .map(|name| name.strip_prefix(&prefix).unwrap_or(&name).to_owned())
        .collect()
}

fn links(store: &Store) -> usize {
    store.layout().links().read_dir().unwrap().count()
}

fn root(store: &Store, name: &str, target: &str) {
    let name = RootName::parse(name).unwrap();
    store
        .root_links()
        .unwrap()
        .set(name.as_str(), &item(target))
        .unwrap();
}

fn keeper_of<'a>(report: &'a GcReport, name: &str) -> &'a Keeper {
    let mut kept = report.kept.iter();
    &kept.find(|(kept, _)| kept.path == item(name)).unwrap().1
}

#[test]
fn what_no_root_needs_is_deleted_with_its_links() {
    for open in [guix_store, nix_store] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        add_item(&store, "library", &["library"], 1);
        add_item(&store, "program", &["library", "program"], 2);
        add_item(&store, "dead-library", &["library"], 2);
        add_item(&store, "dead-program", &["dead-library", "library"], 3);
        root(&store, "kept", "program");
        std::fs::write(store.layout().store().join("left"), "x").unwrap();
        std::fs::create_dir(store.layout().store().join(format!("{HASH_PART}-left"))).unwrap();

        let dry_run = GcRequest {
            mode: GcMode::DryRun,
            ..DELETE
        };
        let before = (entries(&store), links(&store), valid(&store));
        let planned = collect(&store, &dry_run);
        assert_eq!((entries(&store), links(&store), valid(&store)), before);

        let report = collect(&store, &DELETE);
        let deleted: Vec<_> = report.deleted.iter().map(|item| item.path.name()).collect();
        assert_eq!(deleted, ["dead-program", "dead-library"]);
        assert_eq!(valid(&store), ["library", "program"]);
        let kept = ["library", "program"].map(str::to_owned);
        assert_eq!(entries(&store), BTreeSet::from(kept));
        assert_eq!((links(&store), report.unused_links), (2, 1));
        assert_eq!(report.leftovers.len(), 2);
        if reports_all_blocks(directory.path()) {
            // The file of the library that is shared takes space as before.
            assert!(report.freed_bytes >= 20_000, "{}", report.freed_bytes);
            assert_eq!(report.freed_bytes, planned.freed_bytes);
        }
        assert_eq!(planned.deleted, report.deleted);
        assert_eq!(planned.leftovers.len(), 2);
        let link = store.layout().named_roots_dir().join("kept");
        assert_eq!(keeper_of(&report, "library"), &Keeper::Root(link));

        let name = RootName::parse("kept").unwrap();
        let removed = crate::store::remove_root(store.layout(), &name).unwrap();
        assert_eq!(removed, ["kept"]);
        collect(&store, &DELETE);
        assert_eq!((entries(&store).len(), links(&store)), (0, 0));
        assert_eq!(rows(&store, "SELECT referrer FROM Refs"), [""; 0]);
    }
}

#[test]
fn what_live_processes_work_on_stays() {
    for open in [guix_store, nix_store] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let other = open(directory.path());
        add_item(&store, "library", &[], 1);
        add_item(&store, "used", &["library"], 2);
        add_item(&store, "dead", &[], 3);
        let new = StorePath::parse(&format!("{}-new", "1".repeat(32))).unwrap();
        other.add_temp_roots(&[item("used"), new.clone()]).unwrap();
        let lock = other.try_lock(&new).unwrap().unwrap();
        let place = |name: String| store.layout().store().join(name);
        std::fs::create_dir(place(Layout::temporary_name(&new))).unwrap();
        std::fs::create_dir(place(new.base().to_owned())).unwrap();
        std::fs::write(place(format!("{new}.chroot")), "").unwrap();
        let dead_process = store.layout().temp_roots_dir().join("4294967");
        std::fs::write(&dead_process, format!("/gnu/store/{HASH_PART}-dead\0")).unwrap();

        let report = collect(&store, &DELETE);
        assert_eq!(report.stale_temp_roots, 1);
        assert!(!dead_process.exists());
        if store.layout().store_dir().as_str() == StoreDir::NIX {
            // Nix keeps all items with the hash part of a temp root.
            assert_eq!(valid(&store), ["dead", "library", "used"]);
        } else {
            assert_eq!(valid(&store), ["library", "used"]);
        }
        assert!(matches!(keeper_of(&report, "library"), Keeper::TempRoot(_)));
        let own = entries(&store)
            .into_iter()
            .filter(|name| name.starts_with('1'));
        assert_eq!(own.count(), 4);

        drop((lock, other));
        // A child of another test may still have the locked files open for a moment.
        eventually(|| {
            collect(&store, &DELETE);
            entries(&store).is_empty().then_some(())
        });
    }
}

#[test]
fn items_that_are_locked_or_open_stay() {
    let directory = tempfile::tempdir().unwrap();
    let store = guix_store(directory.path());
    for (name, fill) in [("locked", 1), ("open", 2), ("stdin", 3), ("dead", 4)] {
        add_item(&store, name, &[], fill);
    }
    let lock = store.try_lock(&item("locked")).unwrap().unwrap();
    let file = |name| store.layout().item(&item(name)).join("file");
    let open = File::open(file("open")).unwrap();
    let stale = store.layout().lock_file(&item("dead"));
    std::fs::write(&stale, "").unwrap();
    let mut child = std::process::Command::new("cat")
        .arg("/dev/stdin")
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(File::open(file("stdin")).unwrap())
        .spawn()
        .unwrap();

    let report = collect(&store, &DELETE);
    assert_eq!(valid(&store), ["locked", "open", "stdin"]);
    assert_eq!(keeper_of(&report, "locked"), &Keeper::Locked);
    let process = Keeper::Process(std::process::id());
    assert_eq!(keeper_of(&report, "open"), &process);
    assert!(matches!(keeper_of(&report, "stdin"), Keeper::Process(_)));
    assert!(!stale.exists());

    child.kill().unwrap();
    child.wait().unwrap();
    drop((open, lock));
    // A child of another test may still have the descriptors for a moment.
    eventually(|| {
        collect(&store, &DELETE);
        valid(&store).is_empty().then_some(())
    });
}

#[test]
fn a_derivation_stays_with_an_output_that_it_built() {
    let directory = tempfile::tempdir().unwrap();
    let store = guix_store(directory.path());
    for (name, fill) in [("builder", 1), ("other", 2), ("output", 3), ("log", 4)] {
        add_item(&store, name, &[], fill);
    }
    let connection = Connection::open(store.layout().database_file()).unwrap();
    let name = |name: &str| format!("/gnu/store/{HASH_PART}-{name}");
    let (built, other, output) = (name("builder"), name("other"), name("output"));
    connection
        .execute_batch(&format!(
            "UPDATE ValidPaths SET deriver = '{built}' WHERE path = '{output}';
             UPDATE ValidPaths SET deriver = '{built}' WHERE path = '{log}';
             INSERT INTO DerivationOutputs SELECT id, 'out', '{output}' FROM ValidPaths
             WHERE path IN ('{built}', '{other}');",
            log = name("log")
        ))
        .unwrap();
    drop(connection);
    root(&store, "output", "output");
    collect(&store, &DELETE);
    assert_eq!(valid(&store), ["builder", "output"]);

    // An output does not stay with its derivation.
    let root_name = RootName::parse("output").unwrap();
    crate::store::remove_root(store.layout(), &root_name).unwrap();
    root(&store, "derivation", "builder");
    collect(&store, &DELETE);
    assert_eq!(valid(&store), ["builder"]);
}

#[test]
fn roots_are_found_wherever_they_lead() {
    let directory = tempfile::tempdir().unwrap();
    let store = guix_store(&directory.path().join("root"));
    let names = [
        "direct", "indirect", "outside", "profile", "file", "chain", "inside", "dead",
    ];
    for (fill, name) in (1..).zip(names) {
        add_item(&store, name, &[], fill);
    }
    let outside = directory.path().join("home");
    let (roots, state) = (
        store.layout().gc_roots_dir(),
        store.layout().state().to_owned(),
    );
    let auto = store.layout().indirect_roots_dir();
    for made in [&outside, &auto, &state.join("profiles/per-user/me")] {
        std::fs::create_dir_all(made).unwrap();
    }
    let full_name = |name: &str| PathBuf::from(format!("/gnu/store/{HASH_PART}-{name}"));
    let place = |name: &str| store.layout().item(&item(name));
    let link = |target: PathBuf, link: PathBuf| symlink(target, link).unwrap();
    link(full_name("direct").join("file"), roots.join("direct"));
    link(full_name("indirect"), outside.join("result"));
    link(outside.join("result"), auto.join("a"));
    link(place("outside").join("file"), outside.join("tool"));
    link(outside.join("tool"), auto.join("b"));
    let profiles = state.join("profiles/per-user/me");
    link("profile-1-link".into(), profiles.join("profile"));
    link(full_name("profile"), profiles.join("profile-1-link"));
    std::fs::write(roots.join(item("file").base()), "").unwrap();
    link(place("chain"), outside.join("third"));
    link("third".into(), outside.join("second"));
    link(outside.join("second"), auto.join("c"));

    let home = directory.path().join("root/home-of-container");
    std::fs::create_dir(&home).unwrap();
    link(full_name("inside"), home.join("result"));
    link("/home-of-container/result".into(), auto.join("d"));

    // These keep nothing, and the first two are removed.
    let unfinished = store
        .layout()
        .named_roots_dir()
        .join(".ci.0123456789abcdef");
    std::fs::create_dir_all(unfinished.parent().unwrap()).unwrap();
    link(full_name("dead"), unfinished.clone());
    link(outside.join("missing"), auto.join("stale"));
    link("/nowhere".into(), roots.join("dangling"));
    link(auto.clone(), roots.join("directory"));
    link("loop".into(), roots.join("loop"));

    let listed = store.roots().unwrap();
    assert_eq!((listed.roots.len(), listed.unreadable.len()), (7, 0));
    assert!(listed.roots.iter().all(|root| root.closure.is_some()));
    let report = collect(&store, &DELETE);
    let mut kept = names[..7].to_vec();
    kept.sort_unstable();
    assert_eq!(valid(&store), kept);
    assert_eq!(report.stale_roots.len(), 2);
    assert!(unfinished.symlink_metadata().is_err());
    assert!(auto.join("stale").symlink_metadata().is_err());
    assert!(roots.join("dangling").symlink_metadata().is_ok());
}

#[test]
fn roots_that_cannot_be_read_stop_a_collection() {
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: root reads everything");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let store = guix_store(directory.path());
    add_item(&store, "item", &[], 1);
    let hidden = store.layout().gc_roots_dir().join("hidden");
    std::fs::create_dir_all(&hidden).unwrap();
    std::fs::set_permissions(&hidden, Permissions::from_mode(0o000)).unwrap();
    let error = store.collect_garbage(&DELETE, &mut |_| {}).unwrap_err();
    std::fs::set_permissions(&hidden, Permissions::from_mode(0o755)).unwrap();
    assert!(error.to_string().contains("hidden"), "{error}");
    assert_eq!(valid(&store), ["item"]);
}

#[test]
fn each_root_that_cannot_be_read_is_named_and_the_others_are_listed() {
    let directory = tempfile::tempdir().unwrap();
    let store = guix_store(directory.path());
    add_item(&store, "kept", &[], 1);
    add_item(&store, "dead", &[], 2);
    root(&store, "kept", "kept");
    let auto = store.layout().indirect_roots_dir();
    std::fs::create_dir_all(&auto).unwrap();
    symlink("loop", auto.join("loop")).unwrap();
    for name in ["a", "b"] {
        symlink(auto.join("loop/result"), auto.join(name)).unwrap();
    }

    let listed = store.roots().unwrap();
    assert_eq!(listed.roots.len(), 1);
    let unreadable: Vec<_> = listed.unreadable.iter().map(|(link, _)| link).collect();
    assert_eq!(unreadable, [&auto.join("a"), &auto.join("b")]);
    let error = store.collect_garbage(&DELETE, &mut |_| {}).unwrap_err();
    let text = error.to_string();
    for link in unreadable {
        assert!(text.contains(&format!("{} (", link.display())), "{text}");
    }
    assert_eq!(valid(&store), ["dead", "kept"]);

    std::fs::remove_file(auto.join("a")).unwrap();
    std::fs::remove_file(auto.join("b")).unwrap();
    collect(&store, &DELETE);
    assert_eq!(valid(&store), ["kept"]);
}

#[test]
fn young_items_stay_and_old_ones_go_until_the_store_is_small_enough() {
    let directory = tempfile::tempdir().unwrap();
    if !reports_all_blocks(directory.path()) {
        return;
    }
    let store = guix_store(directory.path());
    add_item_at(&store, "oldest", &[], 1, NOW - 900);
    add_item_at(&store, "library", &[], 2, NOW - 800);
    add_item_at(&store, "old", &[], 3, NOW - 500);
    add_item_at(&store, "young", &["library"], 4, NOW - 100);

    let size = |max_bytes| GcRequest {
        max_bytes: Some(max_bytes),
        ..DELETE
    };
    let report = collect(&store, &size(1 << 30));
    assert_eq!((report.deleted.len(), valid(&store).len()), (0, 4));
    let all = report.store_bytes.unwrap();
    assert!(all >= 4 * 20_000, "{all}");
    assert_eq!(keeper_of(&report, "oldest"), &Keeper::Size);

    let report = collect(&store, &size(all - 1));
    assert_eq!(valid(&store), ["library", "old", "young"]);
    let left = report.store_bytes.unwrap();
    assert!(
        left < all && left + report.freed_bytes == all,
        "{left} of {all}"
    );

    // The library is as young as what refers to it.
    let since = GcRequest {
        keep_since: Some(NOW - 100),
        ..size(0)
    };
    let report = collect(&store, &since);
    assert_eq!(valid(&store), ["library", "young"]);
    assert_eq!(keeper_of(&report, "library"), &Keeper::Age);
    assert!(report.store_bytes > Some(0));
    collect(&store, &size(0));
    assert_eq!(entries(&store), BTreeSet::new());
}

#[test]
fn an_item_that_gets_a_referrer_during_a_collection_stays() {
    let directory = tempfile::tempdir().unwrap();
    let store = guix_store(directory.path());
    add_item(&store, "library", &[], 1);
    let graph = store.database().item_graph().unwrap();
    add_item(&store, "program", &["library"], 2);
    let kept = store.database().delete_items(graph.items()).unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(valid(&store), ["library", "program"]);
    assert_eq!(references(&store, "program"), [item("library")]);
}

#[test]
fn what_a_killed_collection_left_goes_with_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = guix_store(directory.path());
    add_item(&store, "item", &[], 1);
    let trash = store.layout().store().join("trash");
    std::fs::create_dir_all(trash.join("0/below")).unwrap();
    std::fs::write(trash.join("1"), "x").unwrap();
    std::fs::set_permissions(trash.join("0"), Permissions::from_mode(0o555)).unwrap();
    // A row was deleted, and the tree not yet moved.
    let connection = Connection::open(store.layout().database_file()).unwrap();
    connection.execute("DELETE FROM ValidPaths", []).unwrap();
    drop(connection);
    collect(&store, &DELETE);
    assert_eq!((entries(&store), links(&store)), (BTreeSet::new(), 0));
}

#[test]
fn an_interrupt_leaves_the_rest_for_the_next_collection() {
    struct Canceled;
    impl StoreObserver for Canceled {
        fn is_canceled(&self) -> bool {
            true
        }

        fn note(&self, _text: &str) {}
    }

    let directory = tempfile::tempdir().unwrap();
    drop(guix_store(directory.path()));
    let layout = layout(directory.path(), StoreDir::GUIX);
    let mode = OpenMode::Existing(SyncMode::None);
    let store = Store::open(layout, mode, Arc::new(Canceled)).unwrap();
    add_item(&store, "item", &[], 1);
    let report = store.collect_garbage(&DELETE, &mut |_| {}).unwrap();
    assert!(report.is_interrupted && report.deleted.is_empty());
    let request = GcRequest {
        max_bytes: Some(0),
        ..DELETE
    };
    let measured = store.collect_garbage(&request, &mut |_| {});
    assert!(
        matches!(measured, Err(StoreError::Interrupted)),
        "{measured:?}"
    );
    assert_eq!(valid(&store), ["item"]);
}

/// Tries `gc.lock` when it is first asked whether the user interrupts.
struct TryingCollector {
    layout: Layout,
    tried: std::sync::OnceLock<Tried>,
}

impl StoreObserver for TryingCollector {
    fn is_canceled(&self) -> bool {
        self.tried.get_or_init(|| {
            let state = File::open(self.layout.state()).unwrap();
            let path = self.layout.gc_lock();
            let lock = LockFile::open(LockKind::Record, state.as_fd(), path).unwrap();
            lock.try_lock(LockMode::Shared).unwrap()
        });
        false
    }

    fn note(&self, _text: &str) {}
}

#[test]
fn sizes_are_measured_while_other_processes_may_add_roots() {
    let directory = tempfile::tempdir().unwrap();
    drop(guix_store(directory.path()));
    let observer = Arc::new(TryingCollector {
        layout: layout(directory.path(), StoreDir::GUIX),
        tried: std::sync::OnceLock::new(),
    });
    let mode = OpenMode::Existing(SyncMode::None);
    let store = Store::open(
        observer.layout.clone(),
        mode,
        Arc::<TryingCollector>::clone(&observer),
    )
    .unwrap();
    add_item(&store, "item", &[], 1);
    let request = GcRequest {
        max_bytes: Some(0),
        ..DELETE
    };
    collect(&store, &request);
    assert_eq!(observer.tried.get(), Some(&Tried::Acquired));
    assert_eq!(valid(&store), [""; 0]);
}

#[test]
fn sizes_are_measured_again_where_the_store_has_changed() {
    let directory = tempfile::tempdir().unwrap();
    let store = guix_store(directory.path());
    let layout = store.layout();
    let place = |name: &str| layout.item(&item(name));
    for (name, fill) in [
        ("kept", 1),
        ("replaced", 2),
        ("deleted", 3),
        ("renamed.tmp", 4),
    ] {
        add_item(&store, name, &[], fill);
    }
    let observer = silent();
    let mut sizes = StoreSizes::of_all(layout, &*observer).unwrap();

    add_item(&store, "new", &[], 1);
    for name in ["deleted", "replaced"] {
        crate::store::remove_tree(layout.store(), item(name).base()).unwrap();
    }
    std::fs::write(place("replaced"), vec![5; 50_000]).unwrap();
    std::fs::set_permissions(place("renamed.tmp"), Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(place("renamed.tmp"), place("renamed")).unwrap();
    let names = ["kept", "replaced", "renamed", "new"];
    let names = names.map(|name| CString::new(item(name).base()).unwrap());
    sizes
        .update(&names.iter().map(CString::as_c_str).collect())
        .unwrap();

    let mut anew = StoreSizes::of_all(layout, &*observer).unwrap();
    assert_eq!(
        sizes.total(),
        anew.total() - anew.usage.unused_bytes + sizes.usage.unused_bytes
    );
    // The file that two items share is freed with the second one.
    for name in &names {
        assert_eq!(sizes.remove(name), anew.remove(name), "{name:?}");
    }
}

#[test]
fn a_collection_that_finds_no_room_for_deleting_rows_makes_some() {
    let directory = tempfile::tempdir().unwrap();
    on_tmpfs(directory.path(), "mode=755,size=20m", || {
        let store = guix_store(directory.path());
        let names: Vec<String> = (0..400).map(|number| format!("item{number}")).collect();
        let registrations = names.iter().map(|name| registration(name, &[]));
        store
            .write_registrations(&registrations.collect::<Vec<_>>(), NOW)
            .unwrap();
        let left = store.layout().item(&item("left"));
        std::fs::write(&left, vec![1; 2 << 20]).unwrap();
        let fill = File::create(directory.path().join("fill")).unwrap();
        std::io::copy(&mut std::io::repeat(1), &mut &fill).unwrap_err();

        let graph = store.database().item_graph().unwrap();
        store.database().delete_items(graph.items()).unwrap_err();
        let report = collect(&store, &DELETE);
        assert_eq!(report.deleted.len(), names.len());
        assert_eq!((valid(&store).len(), left.exists()), (0, false));
        assert!(report.freed_bytes >= 2 << 20, "{}", report.freed_bytes);
    });
}

#[test]
fn items_are_deleted_at_once_where_the_trash_has_no_room() {
    let directory = tempfile::tempdir().unwrap();
    on_tmpfs(directory.path(), "mode=755,nr_inodes=200", || {
        let store = guix_store(directory.path());
        add_item(&store, "item", &[], 1);
        let place = |number: usize| directory.path().join(number.to_string());
        let full = (0..).find(|&number| File::create(place(number)).is_err());
        assert!(full.is_some());
        let report = collect(&store, &DELETE);
        assert_eq!((valid(&store).len(), entries(&store).len()), (0, 0));
        assert!(report.freed_bytes > 0);
    });
}

/// Makes `name` an item that is not a directory, valid if it is `registered`.
fn note_item(store: &Store, name: &str, registered: bool) {
    if registered {
        let registration = registration(name, &[]);
        store.write_registrations(&[registration], NOW).unwrap();
    }
}

#[test]
fn items_that_are_named_like_locks_are_items() {
    for open in [guix_store, nix_store] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let place = |name: &str| store.layout().item(&item(name));
        let entry = store.layout().links().join("f".repeat(52));
        std::fs::write(&entry, "[[package]]").unwrap();
        std::fs::set_permissions(&entry, Permissions::from_mode(0o444)).unwrap();
        // Published, and not registered when its process was killed.
        for (name, registered) in [("Cargo.lock", true), ("yarn.lock", false)] {
            std::fs::hard_link(&entry, place(name)).unwrap();
            note_item(&store, name, registered);
        }
        for (name, registered) in [("empty.lock", true), ("void.lock", false)] {
            std::fs::write(place(name), "").unwrap();
            std::fs::set_permissions(place(name), Permissions::from_mode(0o444)).unwrap();
            note_item(&store, name, registered);
        }
        for (name, registered) in [("directory.lock", true), ("folder.lock", false)] {
            std::fs::create_dir(place(name)).unwrap();
            note_item(&store, name, registered);
        }
        for (name, registered) in [("link.lock", true), ("symlink.lock", false)] {
            symlink("Cargo.lock", place(name)).unwrap();
            note_item(&store, name, registered);
        }
        std::fs::write(store.layout().lock_file(&item("gone")), "").unwrap();
        let names = ["Cargo.lock", "directory.lock", "empty.lock", "link.lock"];
        for name in names {
            root(&store, name, name);
        }

        let report = collect(&store, &DELETE);
        assert_eq!(report.leftovers.len(), 5, "{:?}", report.leftovers);
        assert_eq!(valid(&store), names);
        assert_eq!(entries(&store), names.map(str::to_owned).into());
        let contents = std::fs::read_to_string(place("Cargo.lock")).unwrap();
        assert_eq!(contents, "[[package]]");
    }
}

#[test]
fn a_lock_that_is_a_link_to_another_file_does_not_change_that_file() {
    let directory = tempfile::tempdir().unwrap();
    let store = guix_store(directory.path());
    let victim = directory.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    std::fs::hard_link(&victim, store.layout().lock_file(&item("item"))).unwrap();
    drop(store.try_lock(&item("item")).unwrap().unwrap());
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
}

#[test]
fn an_absolute_root_keeps_what_it_names_on_the_host_and_in_the_container() {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().join("root");
    let store = guix_store(&top);
    for (fill, name) in (1..).zip(["host", "inside", "linked", "dead"]) {
        add_item(&store, name, &[], fill);
    }
    let full_name = |name: &str| PathBuf::from(format!("/gnu/store/{HASH_PART}-{name}"));
    let link = |target: PathBuf, link: PathBuf| symlink(target, link).unwrap();
    // The same name leads to one item on the host and to another one in the container.
    let home = directory.path().join("home");
    let inside = top.join(home.strip_prefix("/").unwrap());
    for (place, name) in [(&home, "host"), (&inside, "inside")] {
        std::fs::create_dir_all(place).unwrap();
        link(full_name(name), place.join("result"));
    }
    let auto = store.layout().indirect_roots_dir();
    std::fs::create_dir_all(&auto).unwrap();
    link(home.join("result"), auto.join("a"));

    // A link to a directory of the container, of which the host has another one.
    let real = home.join("real");
    std::fs::create_dir(&real).unwrap();
    std::fs::create_dir(inside.join("real")).unwrap();
    link(full_name("linked"), inside.join("real/result"));
    link(real, top.join("short"));
    link("/short/result".into(), auto.join("b"));

    collect(&store, &DELETE);
    assert_eq!(valid(&store), ["host", "inside", "linked"]);
    assert!(auto.join("b").symlink_metadata().is_ok());
}

#[test]
fn an_indirect_root_is_stale_only_when_its_own_target_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let store = guix_store(&directory.path().join("root"));
    let auto = store.layout().indirect_roots_dir();
    std::fs::create_dir_all(&auto).unwrap();
    // Of a file system that is not mounted just now.
    let result = directory.path().join("result");
    symlink(directory.path().join("mount/out"), &result).unwrap();
    symlink(&result, auto.join("kept")).unwrap();
    symlink(directory.path().join("missing"), auto.join("stale")).unwrap();
    let report = collect(&store, &DELETE);
    assert_eq!(report.stale_roots, [auto.join("stale")]);
    assert!(auto.join("kept").symlink_metadata().is_ok());
}

#[test]
fn what_nix_unpacks_stays() {
    let directory = tempfile::tempdir().unwrap();
    let store = nix_store(directory.path());
    let place = |name: &str| store.layout().store().join(name);
    for name in ["tmp-12-0", "tmp-12-1"] {
        std::fs::create_dir(place(name)).unwrap();
    }
    let unpacked = File::open(place("tmp-12-0")).unwrap();
    let lock = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    rustix::fs::flock(&unpacked, lock).unwrap();
    collect(&store, &DELETE);
    assert_eq!(entries(&store), BTreeSet::from(["tmp-12-0".to_owned()]));

    drop(unpacked);
    // A child of another test may still have it open for a moment.
    eventually(|| {
        collect(&store, &DELETE);
        entries(&store).is_empty().then_some(())
    });
}

#[test]
fn the_trash_of_a_killed_collection_is_freed_first() {
    let directory = tempfile::tempdir().unwrap();
    if !reports_all_blocks(directory.path()) {
        return;
    }
    let store = guix_store(directory.path());
    add_item(&store, "item", &[], 1);
    let size = |max_bytes| GcRequest {
        max_bytes: Some(max_bytes),
        ..DELETE
    };
    let all = collect(&store, &size(1 << 30)).store_bytes.unwrap();
    let trash = store.layout().store().join("trash");
    std::fs::create_dir(&trash).unwrap();
    let entry = store.layout().links().join("2".repeat(52));
    std::fs::write(&entry, vec![2; 20_000]).unwrap();
    std::fs::hard_link(&entry, trash.join("0")).unwrap();
    let report = collect(&store, &size(all));
    assert_eq!((valid(&store).len(), report.store_bytes), (1, Some(all)));
    assert!(!entry.exists() && report.freed_bytes >= 20_000);
}

#[test]
fn links_of_symlinks_are_deleted_with_the_last_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let store = nix_store(directory.path());
    symlink("target", store.layout().links().join("3".repeat(52))).unwrap();
    let report = collect(&store, &DELETE);
    assert_eq!((links(&store), report.unused_links), (0, 1));
}

#[test]
fn rows_are_deleted_on_the_disk_before_their_trees() {
    for (sync, expected) in [(SyncMode::None, 1), (SyncMode::Items, 2)] {
        let directory = tempfile::tempdir().unwrap();
        drop(guix_store(directory.path()));
        let layout = layout(directory.path(), StoreDir::GUIX);
        let store = Store::open(layout, OpenMode::Existing(sync), silent()).unwrap();
        collect(&store, &DELETE);
        let found: i64 = store
            .database()
            .run("test", |connection, _| {
                connection.pragma_query_value(None, "synchronous", |row| row.get(0))
            })
            .unwrap();
        // 2 is `FULL`.
        assert_eq!(found, expected, "{sync:?}");
    }
}

#[test]
fn a_link_that_cannot_be_deleted_does_not_hide_what_was_deleted() {
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: root deletes everything");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let store = guix_store(directory.path());
    add_item(&store, "item", &[], 1);
    let links = store.layout().links();
    std::fs::set_permissions(&links, Permissions::from_mode(0o555)).unwrap();
    let collected = store.collect_garbage(&DELETE, &mut |_| {});
    std::fs::set_permissions(&links, Permissions::from_mode(0o755)).unwrap();
    let report = collected.unwrap();
    assert_eq!((report.deleted.len(), report.unused_links), (1, 0));
    let failures: Vec<_> = report.failures.iter().map(ToString::to_string).collect();
    assert!(
        failures.len() == 1 && failures[0].contains("/.links/"),
        "{failures:?}"
    );
}
