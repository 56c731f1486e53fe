//! Tests of the store as its callers see it: making it, registering, placing items.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::lock_file::LockFile;
use super::lock_kind::{LockKind, LockMode, Tried};
use super::registration::Registration;
use super::*;
use crate::format::hash::NarHash;
use crate::format::store_path::{StoreDir, StorePath};
use crate::testing::eventually;

mod contention;
mod damage;
mod foreign_mounts;
mod garbage;
mod leftovers;
mod links;
mod mounts;
mod peer;
mod planted_links;
mod publishing;
mod waiting;

const HASH_PART: &str = "0f9qzp1g3jy45al4zspzqah9f8d5bisp";
const NOW: u64 = 1_800_000_000;

fn item(name: &str) -> StorePath {
    StorePath::parse(&format!("{HASH_PART}-{name}")).unwrap()
}

fn registration(name: &str, references: &[&str]) -> Registration {
    Registration {
        path: item(name),
        nar_hash: NarHash::from_bytes([7; 32]),
        nar_size: 120,
        deriver: None,
        references: references.iter().map(|&name| item(name)).collect(),
        signatures: Vec::new(),
        ca: None,
    }
}

fn layout(root: &Path, store_dir: &str) -> Layout {
    Layout::embedded(root, StoreDir::parse(store_dir).unwrap())
}

/// An observer for tests in which nothing is waited for.
pub(super) fn silent() -> Arc<dyn StoreObserver> {
    struct Silent;
    impl StoreObserver for Silent {
        fn is_canceled(&self) -> bool {
            false
        }

        fn note(&self, _text: &str) {}
    }
    Arc::new(Silent)
}

fn guix_store(root: &Path) -> Store {
    Store::open(
        layout(root, StoreDir::GUIX),
        OpenMode::Create(SyncMode::None),
        silent(),
    )
    .unwrap()
}

fn nix_store(root: &Path) -> Store {
    Store::open(
        layout(root, StoreDir::NIX),
        OpenMode::Create(SyncMode::None),
        silent(),
    )
    .unwrap()
}

/// What is recorded of the valid item `name`, and when it was registered.
fn recorded(store: &Store, name: &str) -> (Registration, u64) {
    let is_nix = store.layout().store_dir().as_str() == StoreDir::NIX;
    let extra = if is_nix { "sigs, ca" } else { "NULL, NULL" };
    let connection = Connection::open(store.layout().database_file()).unwrap();
    let full_name = store.layout().store_dir().full_name(&item(name));
    let parse = |name: String| {
        store
            .layout()
            .store_dir()
            .parse_path(&name)
            .unwrap()
            .to_path()
    };
    let sql = format!(
        "SELECT hash, narSize, deriver, {extra}, registrationTime FROM ValidPaths WHERE path = ?1"
    );
    connection
        .query_row(&sql, [&full_name], |row| {
            let registration = Registration {
                path: item(name),
                nar_hash: NarHash::parse(&row.get::<_, String>(0)?).unwrap().0,
                nar_size: row.get::<_, i64>(1)?.unsigned_abs(),
                deriver: row.get::<_, Option<String>>(2)?.map(parse),
                references: references(store, name),
                signatures: row
                    .get::<_, Option<String>>(3)?
                    .unwrap_or_default()
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect(),
                ca: row.get(4)?,
            };
            Ok((registration, row.get::<_, i64>(5)?.unsigned_abs()))
        })
        .unwrap()
}

/// What the valid item `name` refers to, in the order of names.
fn references(store: &Store, name: &str) -> Vec<StorePath> {
    let full_name = store.layout().store_dir().full_name(&item(name));
    let sql = format!(
        "SELECT other.path FROM Refs JOIN ValidPaths AS other ON reference = other.id
         JOIN ValidPaths AS own ON referrer = own.id
         WHERE own.path = '{full_name}' ORDER BY other.path"
    );
    let parse = |name: String| {
        store
            .layout()
            .store_dir()
            .parse_path(&name)
            .unwrap()
            .to_path()
    };
    rows(store, &sql).into_iter().map(parse).collect()
}

fn rows(store: &Store, sql: &str) -> Vec<String> {
    let connection = Connection::open(store.layout().database_file()).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

#[test]
fn makes_an_embedded_store_and_finds_it_again() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    assert!(root.path().join("gnu/store/.links").is_dir());
    assert!(root.path().join("var/guix/temproots").is_dir());
    assert_eq!(
        std::fs::read(root.path().join("var/guix/db/schema")).unwrap(),
        b"7"
    );
    assert!(store.free_space().unwrap().bytes > 0);
    store
        .write_registrations(&[registration("a", &[])], NOW)
        .unwrap();
    drop(store);

    for mode in [
        OpenMode::Create(SyncMode::None),
        OpenMode::Existing(SyncMode::None),
        OpenMode::ReadOnly,
    ] {
        let store = Store::open(layout(root.path(), StoreDir::GUIX), mode, silent()).unwrap();
        assert!(store.is_valid(&item("a")).unwrap(), "{mode:?}");
        assert!(!store.is_valid(&item("b")).unwrap(), "{mode:?}");
    }
}

#[test]
fn refuses_stores_that_are_missing_or_unknown() {
    let root = tempfile::tempdir().unwrap();
    let layout = layout(root.path(), StoreDir::GUIX);
    for mode in [OpenMode::Existing(SyncMode::None), OpenMode::ReadOnly] {
        let error = Store::open(layout.clone(), mode, silent()).unwrap_err();
        assert!(matches!(error, StoreError::NoStore(_)), "{error}");
    }
    assert_eq!(
        root.path().read_dir().unwrap().count(),
        0,
        "nothing is made on the way"
    );

    drop(guix_store(root.path()));
    for number in ["8", "6", "", "seven"] {
        std::fs::write(layout.schema_file(), number).unwrap();
        for mode in [
            OpenMode::Create(SyncMode::None),
            OpenMode::Existing(SyncMode::None),
            OpenMode::ReadOnly,
        ] {
            let error = Store::open(layout.clone(), mode, silent()).unwrap_err();
            assert!(
                matches!(error, StoreError::UnknownSchema { .. }),
                "{number}: {error}"
            );
        }
    }
    // Nix writes a newline behind it.
    std::fs::write(layout.schema_file(), "7\n").unwrap();
    Store::open(layout, OpenMode::Existing(SyncMode::None), silent()).unwrap();
}

#[test]
fn reading_only_takes_no_locks_and_writes_nothing() {
    let root = tempfile::tempdir().unwrap();
    drop(guix_store(root.path()));
    let layout = layout(root.path(), StoreDir::GUIX);
    let store = Store::open(layout.clone(), OpenMode::ReadOnly, silent()).unwrap();
    let big_lock = std::fs::OpenOptions::new()
        .write(true)
        .open(layout.big_lock())
        .unwrap();
    eventually(|| {
        let tried = LockKind::Record
            .try_lock(&big_lock, LockMode::Exclusive)
            .unwrap();
        (tried == Tried::Acquired).then_some(())
    });

    let refused = [
        store.add_temp_roots(&[item("a")]).unwrap_err(),
        store.try_lock(&item("a")).unwrap_err(),
        store
            .write_registrations(&[registration("a", &[])], NOW)
            .unwrap_err(),
    ];
    assert!(
        refused
            .iter()
            .all(|error| matches!(error, StoreError::ReadOnly(_)))
    );
}

#[test]
fn several_may_make_one_store_at_once() {
    let root = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for index in 0..8 {
            let root = root.path();
            scope.spawn(move || {
                let store = guix_store(root);
                store
                    .write_registrations(&[registration(&index.to_string(), &[])], NOW)
                    .unwrap();
            });
        }
    });
    let store = guix_store(root.path());
    assert_eq!(rows(&store, "SELECT path FROM ValidPaths").len(), 8);
}

#[test]
fn registers_a_batch_in_any_order() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    store
        .write_registrations(&[registration("base", &[])], NOW)
        .unwrap();
    let top = Registration {
        deriver: Some(item("top.drv")),
        nar_size: 5_000_000_000,
        ..registration("top", &["top", "middle", "base", "low"])
    };
    let batch = [
        top.clone(),
        registration("middle", &["low"]),
        registration("low", &["base"]),
    ];
    store.write_registrations(&batch, NOW + 1).unwrap();

    let mut expected = top;
    expected.references.sort();
    assert_eq!(recorded(&store, "top"), (expected, NOW + 1));
    assert_eq!(references(&store, "low"), [item("base")]);
    // Rows are in an order in which each could have been registered alone.
    let names = rows(
        &store,
        "SELECT substr(path, 45) FROM ValidPaths ORDER BY id",
    );
    assert_eq!(names, ["base", "low", "middle", "top"]);
    let sql = "SELECT path || ' ' || hash || ' ' || deriver FROM ValidPaths WHERE deriver NOTNULL";
    let stored = rows(&store, sql);
    let hash = "07".repeat(32);
    let path = format!("/gnu/store/{HASH_PART}-top");
    assert_eq!(stored, [format!("{path} sha256:{hash} {path}.drv")]);
}

#[test]
fn one_item_does_not_keep_the_others_of_its_batch_from_becoming_valid() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    std::fs::write(store.layout().item(&item("bad.drv")), "Derive(").unwrap();
    let name = format!("/gnu/store/{HASH_PART}-conflict");
    let trigger = format!(
        "CREATE TRIGGER conflict BEFORE INSERT ON ValidPaths WHEN NEW.path = '{name}'
         BEGIN SELECT RAISE(ABORT, 'conflict'); END"
    );
    let batch = [
        registration("above", &["lost"]),
        registration("a", &["a"]),
        registration("lost", &["a", "gone", "away"]),
        registration("bad.drv", &[]),
        registration("conflict", &[]),
        registration("b", &["a"]),
    ];
    let file = store.layout().database_file();
    Connection::open(file)
        .unwrap()
        .execute_batch(&trigger)
        .unwrap();
    let refused = store.write_registrations(&batch, NOW).unwrap();

    let errors: HashMap<_, _> = refused.iter().map(|(item, error)| (item, error)).collect();
    assert_eq!(errors.len(), 4, "{refused:?}");
    assert!(matches!(
        errors[&item("bad.drv")],
        StoreError::Derivation(_)
    ));
    assert!(matches!(
        errors[&item("conflict")],
        StoreError::Database { .. }
    ));
    for (name, references) in [("lost", 2), ("above", 1)] {
        match errors[&item(name)] {
            StoreError::MissingReferences {
                item: referrer,
                missing,
            } => {
                assert_eq!(*referrer, format!("/gnu/store/{HASH_PART}-{name}"));
                assert_eq!(missing.len(), references);
            }
            other => panic!("{other}"),
        }
    }
    let names = rows(&store, "SELECT substr(path, 45) FROM ValidPaths");
    assert_eq!(names, ["a", "b"]);
    assert_eq!(references(&store, "a"), [item("a")]);
    let count = rows(&store, "SELECT count(*) || '' FROM Refs");
    assert_eq!(count, ["2"]);
}

#[test]
fn what_refers_to_a_refused_item_is_refused_although_its_earlier_row_is_there() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    let first = [registration("x", &[]), registration("a", &["x"])];
    store.write_registrations(&first, NOW).unwrap();
    let again = [registration("a", &["gone"]), registration("b", &["a"])];
    let refused = store.write_registrations(&again, NOW).unwrap();
    let items: Vec<_> = refused.into_iter().map(|(item, _)| item).collect();
    assert_eq!(items, [item("a"), item("b")]);
    assert!(!store.is_valid(&item("b")).unwrap());
    assert_eq!(recorded(&store, "a"), (registration("a", &["x"]), NOW));
}

#[test]
fn a_circle_of_references_is_not_registered() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    let circle = [
        registration("a", &["b"]),
        registration("b", &["c"]),
        registration("c", &["b"]),
    ];
    match store.write_registrations(&circle, NOW).unwrap_err() {
        StoreError::ReferenceCycle(items) => assert_eq!(items.len(), 2),
        other => panic!("{other}"),
    }
}

#[test]
fn registering_again_replaces_the_row_and_keeps_its_referrers() {
    let root = tempfile::tempdir().unwrap();
    for store in [guix_store(root.path()), nix_store(root.path())] {
        let first = [registration("a", &["a", "x"]), registration("x", &[])];
        store.write_registrations(&first, NOW).unwrap();
        store
            .write_registrations(&[registration("b", &["a"])], NOW)
            .unwrap();

        let again = Registration {
            nar_size: 1,
            nar_hash: NarHash::from_bytes([8; 32]),
            deriver: Some(item("a.drv")),
            ..registration("a", &["y"])
        };
        store
            .write_registrations(&[again.clone(), registration("y", &[])], NOW + 9)
            .unwrap();

        assert_eq!(recorded(&store, "a"), (again, NOW + 9));
        assert_eq!(references(&store, "b"), [item("a")]);
        let faults = rows(&store, "SELECT 'fault' FROM pragma_foreign_key_check");
        assert_eq!(faults, Vec::<String>::new());
    }
}

#[test]
fn a_row_is_replaced_with_valid_references_or_not_at_all() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    store
        .write_registrations(&[registration("a", &["x"]), registration("x", &[])], NOW)
        .unwrap();
    let refused = store
        .write_registrations(&[registration("a", &["gone"])], NOW + 9)
        .unwrap();
    assert!(
        matches!(&refused[..], [(_, StoreError::MissingReferences { .. })]),
        "{refused:?}"
    );
    assert_eq!(recorded(&store, "a"), (registration("a", &["x"]), NOW));
}

#[test]
fn a_closure_tells_what_is_referred_to_and_which_trees_are_missing() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    let batch = [
        ("a", &["a", "b"][..]),
        ("b", &["c"]),
        ("c", &[]),
        ("other", &[]),
    ]
    .map(|(name, to)| registration(name, to));
    store.write_registrations(&batch, NOW).unwrap();
    let closure = store.closure(&[item("a"), item("invalid")]).unwrap();
    assert_eq!(closure.items(), ["a", "b", "c"].map(item));
    assert!(!closure.contains(&item("invalid")) && !closure.contains(&item("other")));

    std::fs::create_dir(store.layout().item(&item("a"))).unwrap();
    // A symlink is a store item like any other, wherever it leads.
    std::os::unix::fs::symlink("nowhere", store.layout().item(&item("b"))).unwrap();
    let missing = store.missing_trees(closure.items()).unwrap();
    assert_eq!(missing, HashSet::from([item("c")]));
    assert_eq!(closure.reached_from(&item("a"), &missing), [item("c")]);
    assert!(closure.reached_from(&item("c"), &missing).is_empty());
    assert!(store.is_complete(&item("b")).unwrap() && !store.is_complete(&item("c")).unwrap());
}

#[test]
fn a_long_chain_does_not_exhaust_the_stack() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    let name = |index: usize| format!("n{index}");
    let batch: Vec<_> = (0..20_000)
        .map(|index| registration(&name(index), &[&name((index + 1).min(19_999))]))
        .collect();
    store.write_registrations(&batch, NOW).unwrap();
    let paths: Vec<_> = batch.into_iter().map(|item| item.path).collect();
    assert_eq!(store.valid_among(&paths).unwrap().len(), 20_000);
}

#[test]
fn records_the_outputs_of_derivations() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    let text = format!(r#"Derive([("out","/gnu/store/{HASH_PART}-a","","")],[],[],"","",[],[])"#);
    std::fs::write(store.layout().item(&item("a.drv")), text).unwrap();
    store
        .write_registrations(&[registration("a.drv", &[])], NOW)
        .unwrap();
    let outputs = rows(&store, "SELECT id || ' ' || path FROM DerivationOutputs");
    assert_eq!(outputs, [format!("out /gnu/store/{HASH_PART}-a")]);

    std::fs::write(store.layout().item(&item("b.drv")), "Derive(").unwrap();
    let refused = store
        .write_registrations(&[registration("b.drv", &[])], NOW)
        .unwrap();
    assert!(
        matches!(&refused[..], [(_, StoreError::Derivation(_))]),
        "{refused:?}"
    );
}

#[test]
fn a_nix_store_keeps_signatures() {
    let root = tempfile::tempdir().unwrap();
    let store = nix_store(root.path());
    assert_eq!(
        std::fs::read(root.path().join("nix/var/nix/db/schema")).unwrap(),
        b"10"
    );
    let signed = Registration {
        signatures: vec!["a-1:AAAA".into(), "b-1:BBBB".into()],
        ca: Some("fixed:r:sha256:0".into()),
        ..registration("a", &[])
    };
    store
        .write_registrations(&[signed.clone(), registration("b", &[])], NOW)
        .unwrap();
    assert_eq!(recorded(&store, "a").0, signed);
    let plain = recorded(&store, "b").0;
    assert_eq!((plain.signatures, plain.ca), (Vec::new(), None));
    let unset = rows(
        &store,
        "SELECT path FROM ValidPaths WHERE sigs IS NULL AND ca IS NULL",
    );
    assert_eq!(unset, [format!("/nix/store/{HASH_PART}-b")]);
}

#[test]
fn values_that_cannot_be_are_reported_not_skipped() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    store
        .write_registrations(&[registration("a", &[]), registration("b", &["a"])], NOW)
        .unwrap();
    let connection = Connection::open(store.layout().database_file()).unwrap();
    let sql = "UPDATE ValidPaths SET path = 'odd' WHERE path LIKE '%-a'";
    connection.execute(sql, []).unwrap();
    match store.closure(&[item("b")]).unwrap_err() {
        StoreError::Malformed { column, value, .. } => {
            assert_eq!((column, value.as_str()), ("path", "odd"));
        }
        other => panic!("{other}"),
    }
}
