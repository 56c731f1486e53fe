//! Locks and temp roots against another process that follows the same protocol.

use super::peer::Peer;
use super::*;
use std::os::fd::AsFd as _;
use std::time::Duration;

#[test]
fn item_locks_are_seen_by_record_locks_and_see_them() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    let file = store.layout().lock_file(&item("a"));
    let mut peer = Peer::start();

    let lock = store.try_lock(&item("a")).unwrap().unwrap();
    assert_eq!(peer.ask("try", &file), "busy");
    assert!(
        store.try_lock(&item("a")).unwrap().is_none(),
        "nor may another thread have it"
    );
    // A record lock would be lost when any other descriptor of the file is closed.
    drop(File::open(&file).unwrap());
    assert_eq!(peer.ask("try", &file), "busy");
    drop(lock);
    assert!(!file.exists());

    assert_eq!(peer.ask("lock", &file), "locked");
    assert!(store.try_lock(&item("a")).unwrap().is_none());
    peer.kill();
    let lock = store.try_lock(&item("a")).unwrap();
    assert!(lock.is_some(), "the lock of a process that died is free");
}

#[test]
fn flock_is_used_for_nix() {
    let root = tempfile::tempdir().unwrap();
    let store = nix_store(root.path());
    let lock = store.try_lock(&item("a")).unwrap().unwrap();
    let mut peer = Peer::start();
    assert_eq!(
        peer.ask("try-flock", &store.layout().lock_file(&item("a"))),
        "busy"
    );
    assert!(store.try_lock(&item("a")).unwrap().is_none());
    drop(lock);
    assert!(store.try_lock(&item("a")).unwrap().is_some());
}

#[test]
fn a_released_lock_is_taken_and_a_stale_one_is_not() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    let file = store.layout().lock_file(&item("a"));
    let mut peer = Peer::start();
    assert_eq!(peer.ask("lock", &file), "locked");

    assert!(store.try_lock(&item("a")).unwrap().is_none());
    assert_eq!(peer.ask("release", &file), "released");
    let lock = store.try_lock(&item("a")).unwrap().unwrap();
    assert!(
        file.exists(),
        "the released file has been replaced by our own"
    );

    // The other way round: who waits on our file must see that it lost its name.
    assert_eq!(peer.ask("open", &file), "opened");
    drop(lock);
    assert_eq!(peer.ask("lock-opened", &file), "stale");
}

#[test]
fn a_lock_file_without_a_name_is_stale_even_without_the_mark() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let opened = File::open(dir.path()).unwrap();
    let file = LockFile::open(LockKind::Record, opened.as_fd(), path.clone()).unwrap();
    assert!(!file.is_stale().unwrap());
    // Its owner was killed between the two steps of giving it up.
    std::fs::remove_file(&path).unwrap();
    assert!(file.is_stale().unwrap());
}

#[test]
fn one_at_a_time_makes_an_item() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    let inside = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            // Asking without a pause: most of these meet a file that is just being given up.
            scope.spawn(|| {
                for _ in 0..2000 {
                    let Some(_lock) = store.try_lock(&item("a")).unwrap() else {
                        continue;
                    };
                    let order = std::sync::atomic::Ordering::SeqCst;
                    assert_eq!(inside.fetch_add(1, order), 0);
                    std::thread::yield_now();
                    inside.fetch_sub(1, order);
                }
            });
        }
    });
    assert!(!store.layout().lock_file(&item("a")).exists());
}

#[test]
fn a_collector_sees_temp_roots_while_the_store_is_open() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    let state = root.path().join("var/guix");
    let mut peer = Peer::start();
    store.add_temp_roots(&[item("a"), item("b")]).unwrap();
    store.add_temp_roots(&[item("b"), item("c")]).unwrap();
    let with_temporary =
        |name| format!("/gnu/store/{HASH_PART}-{name} /gnu/store/{HASH_PART}-{name}.tmp");
    let roots = ["a", "b", "c"].map(with_temporary).join(" ");
    assert_eq!(peer.ask("collect", &state), format!("roots {roots}"));
    assert_eq!(peer.ask("end", &state), "ended");

    drop(store);
    assert_eq!(state.join("temproots").read_dir().unwrap().count(), 0);
    assert_eq!(peer.ask("collect", &state), "roots");
}

#[test]
fn adding_a_root_waits_for_the_end_of_a_collection() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    let state = root.path().join("var/guix");
    let mut peer = Peer::start();
    // First with our file there already, then with one still to be made.
    store.add_temp_roots(&[item("a")]).unwrap();
    let second = guix_store(root.path());
    for (store, root) in [(&store, item("b")), (&second, item("c"))] {
        assert!(peer.ask("collect", &state).starts_with("roots /gnu/store"));
        let ended = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let adding = scope.spawn(|| {
                store.add_temp_roots(&[root]).unwrap();
                assert!(ended.load(std::sync::atomic::Ordering::SeqCst));
            });
            // Long enough for it to get to the lock; it is right at any length.
            std::thread::sleep(Duration::from_millis(30));
            ended.store(true, std::sync::atomic::Ordering::SeqCst);
            assert_eq!(peer.ask("end", &state), "ended");
            adding.join().unwrap();
        });
    }
    assert_eq!(
        peer.ask("collect", &state).split(' ').count(),
        7,
        "all three are roots"
    );
}

#[test]
fn a_file_left_by_a_dead_process_of_our_id_is_not_taken_over() {
    let root = tempfile::tempdir().unwrap();
    let store = guix_store(root.path());
    let file = store
        .layout()
        .temp_roots_dir()
        .join(std::process::id().to_string());
    std::fs::write(&file, "/gnu/store/old\0").unwrap();
    store.add_temp_roots(&[item("a")]).unwrap();
    let name = format!("/gnu/store/{HASH_PART}-a");
    let expected = format!("{name}\0{name}.tmp\0");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), expected);
}

#[test]
fn roots_reach_a_running_collector_of_nix() {
    use std::io::{BufRead as _, BufReader, Write as _};
    let root = tempfile::tempdir().unwrap();
    let store = nix_store(root.path());
    let socket = store.layout().gc_socket();
    std::fs::create_dir(socket.parent().unwrap()).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let state = File::open(store.layout().state()).unwrap();
    let gc_lock = store.layout().gc_lock();
    let collecting = LockFile::open(LockKind::Flock, state.as_fd(), gc_lock).unwrap();
    collecting.lock(LockMode::Exclusive, &*silent()).unwrap();
    let told = std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            // The first one is cut off, as by a collector that ends; it has to be tried again.
            drop(listener.accept().unwrap());
            let (stream, _) = listener.accept().unwrap();
            let mut told = Vec::new();
            for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                told.push(line.unwrap());
                (&stream).write_all(b"1").unwrap();
            }
            told
        });
        store.add_temp_roots(&[item("a"), item("b")]).unwrap();
        collector.join().unwrap()
    });
    let names = ["a", "a.tmp", "b", "b.tmp"].map(|name| format!("/nix/store/{HASH_PART}-{name}"));
    assert_eq!(told, names);
    // As a collector ends: first the socket is closed, then the lock is free. Not at once,
    // where another test is about to start a process, which has both until it executes.
    drop(listener);
    drop(collecting);
    store.add_temp_roots(&[item("c")]).unwrap();
    let file = store
        .layout()
        .temp_roots_dir()
        .join(std::process::id().to_string());
    assert_eq!(
        std::fs::read_to_string(&file)
            .unwrap()
            .matches('\0')
            .count(),
        6
    );
    let mut peer = Peer::start();
    assert_eq!(peer.ask("try-flock", &file), "busy", "it counts as alive");
}
