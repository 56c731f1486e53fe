//! Waits for other processes are reported with the process that holds the lock, and end with an
//! interrupt.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::peer::Peer;
use super::*;
use crate::sync::lock;

/// Keeps what is reported; interrupted by a test.
#[derive(Default)]
struct Recorder {
    notes: Mutex<Vec<String>>,
    is_canceled: AtomicBool,
}

impl StoreObserver for Recorder {
    fn is_canceled(&self) -> bool {
        self.is_canceled.load(Ordering::Relaxed)
    }

    fn note(&self, text: &str) {
        lock(&self.notes).push(text.to_owned());
    }
}

/// Does `work`, which waits for `file`, until the wait is reported; then interrupts it. Returns the
/// report.
#[track_caller]
fn report_of_wait(
    recorder: &Recorder,
    file: &Path,
    work: impl FnOnce() -> Result<(), StoreError> + Send,
) -> String {
    let result = std::thread::scope(|scope| {
        let working = scope.spawn(work);
        eventually(|| {
            let is_reported = !lock(&recorder.notes).is_empty();
            (is_reported || working.is_finished()).then_some(())
        });
        recorder.is_canceled.store(true, Ordering::Relaxed);
        working.join().unwrap()
    });
    assert!(matches!(result, Err(StoreError::Interrupted)), "{result:?}");
    recorder.is_canceled.store(false, Ordering::Relaxed);

    let notes = std::mem::take(&mut *lock(&recorder.notes));
    let [note] = &notes[..] else {
        panic!("one report is expected: {notes:?}");
    };
    assert!(note.contains(file.to_str().unwrap()), "{note}");
    note.clone()
}

#[test]
fn a_wait_for_a_lock_file_is_reported_and_can_be_interrupted() {
    let root = tempfile::tempdir().unwrap();
    let layout = layout(root.path(), StoreDir::GUIX);
    drop(guix_store(root.path()));
    let recorder = Arc::new(Recorder::default());
    let observer = || -> Arc<dyn StoreObserver> { recorder.clone() };
    let mut peer = Peer::start();
    let holder = format!("process {} (", peer.id());

    let big_lock = layout.big_lock();
    assert_eq!(peer.ask("lock", &big_lock), "locked");
    for mode in [
        OpenMode::Create(SyncMode::None),
        OpenMode::Existing(SyncMode::None),
    ] {
        let note = report_of_wait(&recorder, &big_lock, || {
            Store::open(layout.clone(), mode, observer()).map(drop)
        });
        assert!(note.contains(&holder), "{note}");
    }
    assert_eq!(peer.ask("release", &big_lock), "released");

    let store = Store::open(
        layout.clone(),
        OpenMode::Existing(SyncMode::None),
        observer(),
    )
    .unwrap();
    let gc_lock = layout.gc_lock();
    assert_eq!(peer.ask("lock", &gc_lock), "locked");
    let note = report_of_wait(&recorder, &gc_lock, || store.add_temp_roots(&[item("a")]));
    assert!(note.contains(&holder), "{note}");
}

#[test]
fn a_wait_for_another_store_is_reported_without_the_kernel_naming_its_process() {
    let root = tempfile::tempdir().unwrap();
    let layout = layout(root.path(), StoreDir::NIX);
    drop(nix_store(root.path()));
    let recorder = Arc::new(Recorder::default());
    let store = Store::open(
        layout.clone(),
        OpenMode::Existing(SyncMode::None),
        recorder.clone(),
    )
    .unwrap();
    let mut peer = Peer::start();
    let file = layout.lock_file(&item("a"));
    assert_eq!(peer.ask("flock", &file), "locked");

    let note = report_of_wait(&recorder, &file, || {
        while store.try_lock(&item("a"))?.is_none() {
            if recorder.is_canceled() {
                return Err(StoreError::Interrupted);
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Ok(())
    });
    assert!(note.contains(&format!("process {} (", peer.id())), "{note}");
}

#[test]
fn a_wait_for_the_database_is_reported_and_can_be_interrupted() {
    let root = tempfile::tempdir().unwrap();
    let layout = layout(root.path(), StoreDir::GUIX);
    let recorder = Arc::new(Recorder::default());
    let store = Store::open(
        layout.clone(),
        OpenMode::Create(SyncMode::None),
        recorder.clone(),
    )
    .unwrap();
    let other = Connection::open(layout.database_file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    let register = || {
        let refused = store.write_registrations(&[registration("a", &[])], NOW)?;
        assert_eq!(refused.len(), 0);
        Ok(())
    };
    report_of_wait(&recorder, &layout.database_file(), register);
    assert!(!store.is_valid(&item("a")).unwrap(), "readers do not wait");

    other.execute_batch("ROLLBACK").unwrap();
    register().unwrap();
    assert!(store.is_valid(&item("a")).unwrap());
}

#[test]
fn a_lock_file_with_content_is_replaced() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    let file = store.layout().lock_file(&item("a"));
    std::fs::write(&file, "content that no owner of a lock has written").unwrap();
    let locked = store.try_lock(&item("a")).unwrap();
    assert!(locked.is_some());
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 0);
    drop(locked);
    assert!(!file.exists());
}
