//! From an unpacked tree to a valid item, and back when a step fails.

use std::sync::Arc;

use bytes::Bytes;
use sha2::Digest as _;

use super::*;
use crate::format::nar::NarWriter;
use crate::format::narinfo::NarInfo;
use crate::store::unpack::{Chunks, WriterPool, unpack};
use crate::trust::acl::AuthorizedKeys;
use crate::trust::verdict::authorize;

/// A nar in one chunk.
struct WholeNar(Bytes);

impl Chunks for WholeNar {
    fn next_chunk(&mut self) -> std::io::Result<Bytes> {
        Ok(std::mem::take(&mut self.0))
    }
}

/// The contents of the item `name`, large enough to be deduplicated.
fn file_contents(name: &str) -> Vec<u8> {
    name.as_bytes().repeat(10_000)
}

/// The item `name`, a file, unpacked under its lock and checked.
fn checked(store: &Store, name: &str, references: &[&str]) -> (Checked, ItemLock) {
    let mut nar = NarWriter::new(Vec::new());
    let contents = file_contents(name);
    nar.file(None, false, contents.len() as u64, &contents[..])
        .unwrap();
    checked_nar(store, name, references, nar.finish().unwrap())
}

/// The item `name`, an empty directory, unpacked under its lock and checked.
pub(super) fn checked_directory(store: &Store, name: &str) -> (Checked, ItemLock) {
    let mut nar = NarWriter::new(Vec::new());
    nar.directory(None).unwrap();
    nar.end_directory().unwrap();
    checked_nar(store, name, &[], nar.finish().unwrap())
}

fn checked_nar(
    store: &Store,
    name: &str,
    references: &[&str],
    nar: Vec<u8>,
) -> (Checked, ItemLock) {
    let lock = store.try_lock(&item(name)).unwrap().unwrap();
    let destination = store.clear_temporary(&lock).unwrap();
    let store_dir = store.layout().store_dir();
    let references: Vec<String> = references
        .iter()
        .map(|name| item(name).base().to_owned())
        .collect();
    let hash = NarHash::from_bytes(sha2::Sha256::digest(&nar).into());
    let text = format!(
        "StorePath: {}\nURL: nar/{name}\nCompression: none\nNarHash: {}\nNarSize: {}\nReferences: {}\nDeriver: {}\n",
        store_dir.full_name(&item(name)),
        hash.base16_with_algorithm(),
        nar.len(),
        references.join(" "),
        item("a.drv").base(),
    );
    let narinfo = Arc::new(NarInfo::parse(text, store_dir).unwrap());
    let path = item(name);
    let keys = AuthorizedKeys::AllowUnauthenticated;
    let authorized = authorize(narinfo, path.as_ref(), &keys, store_dir).unwrap();

    let pool = WriterPool::new(1).unwrap();
    let links = Some(Arc::clone(store.links()));
    let unpacked = unpack(
        WholeNar(nar.into()),
        store_dir.dialect(),
        destination,
        &pool,
        links,
    )
    .unwrap();
    let checked = unpacked.check(Arc::new(authorized)).unwrap();
    (checked.deduplicate().unwrap(), lock)
}

/// The names in the store directory, `.links` aside, and how many entries that has.
fn contents(store: &Store) -> (Vec<String>, usize) {
    let entries = store.layout().store().read_dir().unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".links")
        .collect();
    names.sort();
    (names, store.layout().links().read_dir().unwrap().count())
}

#[test]
fn a_published_item_is_registered_with_what_its_narinfo_says() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    let (checked_a, lock_a) = checked(&store, "a", &["a", "b"]);
    let (checked_b, lock_b) = checked(&store, "b", &[]);
    let a = store.publish(checked_a, lock_a).unwrap();
    assert!(!store.is_valid(&item("a")).unwrap());
    assert!(store.layout().lock_file(&item("a")).exists());
    let b = store.publish(checked_b, lock_b).unwrap();
    store.register(vec![a, b], NOW).unwrap();

    let (registration, registered_at) = recorded(&store, "a");
    assert_eq!(registered_at, NOW);
    assert_eq!(registration.references, [item("a"), item("b")]);
    assert_eq!(registration.deriver, Some(item("a.drv")));
    assert_eq!(registration.nar_size, 10_112);
    assert_ne!(registration.nar_hash, recorded(&store, "b").0.nar_hash);
    let names = ["a", "b"].map(|name| item(name).base().to_owned());
    assert_eq!(contents(&store), (names.to_vec(), 2), "no lock is left");
    assert_eq!(
        std::fs::read(store.layout().item(&item("a"))).unwrap(),
        file_contents("a")
    );
}

#[test]
fn items_that_cannot_be_registered_are_removed_before_their_locks_are_released() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    let batch = [("a", &[][..]), ("b", &["a", "missing"])]
        .map(|(name, references)| checked(&store, name, references))
        .map(|(checked, lock)| store.publish(checked, lock).unwrap());
    assert_eq!(contents(&store).1, 2);

    let refused = store.register(batch.into(), NOW).unwrap();
    assert!(
        matches!(&refused[..], [(_, StoreError::MissingReferences { .. })]),
        "{refused:?}"
    );
    assert_eq!(
        contents(&store),
        (vec![item("a").base().to_owned()], 1),
        "no lock is left"
    );
    assert!(store.is_valid(&item("a")).unwrap());
    assert!(!store.is_valid(&item("b")).unwrap());
}

#[test]
fn what_is_dropped_before_it_is_registered_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    drop(checked(&store, "a", &[]));
    assert_eq!(contents(&store), (Vec::new(), 0));

    let (checked, lock) = checked(&store, "a", &[]);
    drop(store.publish(checked, lock).unwrap());
    assert_eq!(contents(&store), (Vec::new(), 0));
}

#[test]
fn an_item_is_not_published_under_the_lock_of_another() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    let (checked, lock) = checked(&store, "a", &[]);
    let other = store.try_lock(&item("b")).unwrap().unwrap();
    let error = store.publish(checked, other).unwrap_err();
    assert!(matches!(error, StoreError::NotLocked(_)), "{error}");
    drop(lock);
    assert_eq!(contents(&store), (Vec::new(), 0));
}

#[test]
fn an_item_takes_the_place_of_what_was_left_there() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    let layout = store.layout();
    let place = layout.item(&item("a"));
    let temporary = layout.store().join(Layout::temporary_name(&item("a")));
    std::fs::create_dir_all(place.join("old/deep")).unwrap();
    std::fs::write(place.join("old/deep/file"), "").unwrap();
    let read_only = std::os::unix::fs::PermissionsExt::from_mode(0o555);
    std::fs::set_permissions(place.join("old/deep"), read_only).unwrap();
    std::fs::create_dir(&temporary).unwrap();
    std::fs::write(temporary.join("unfinished"), "").unwrap();

    let (first, lock) = checked(&store, "a", &[]);
    let published = store.publish(first, lock).unwrap();
    assert!(place.is_file() && !temporary.exists());
    std::mem::forget(published);
    std::fs::remove_file(layout.lock_file(&item("a"))).unwrap();

    let (second, lock) = checked(&store, "a", &[]);
    store
        .register(vec![store.publish(second, lock).unwrap()], NOW)
        .unwrap();
    let names = vec![item("a").base().to_owned()];
    assert_eq!(contents(&store), (names, 1), "the item and .links");
}

#[test]
fn a_tree_that_is_gone_is_not_published() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    let (checked, lock) = checked(&store, "a", &[]);
    let temporary = store
        .layout()
        .store()
        .join(Layout::temporary_name(&item("a")));
    std::fs::remove_file(temporary).unwrap();
    let error = store.publish(checked, lock).unwrap_err();
    assert!(matches!(error, StoreError::Rename { .. }), "{error}");
    assert_eq!(contents(&store), (Vec::new(), 0));
}
