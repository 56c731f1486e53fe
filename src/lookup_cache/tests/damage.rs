//! Files that are damaged, not ours, not writable or on a full disk.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::*;
use crate::testing::{eventually, on_tmpfs};

/// A cache with one entry, closed again; the path of its file.
fn filled(dir: &Path) -> PathBuf {
    let mut cache = open_sound(dir);
    let server = cache.server_row(URL);
    cache.insert(&[(server, item(0), positive("a"))]).unwrap();
    cache.path().unwrap().to_owned()
}

/// `cache` stores and finds entries, in the file or in memory.
fn assert_works(cache: &mut LookupCache) {
    let server = cache.server_row(URL);
    cache.insert(&[(server, item(7), negative())]).unwrap();
    assert_eq!(find_one(cache, 7), Some(negative()));
}

#[test]
fn a_file_of_random_bytes_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(schema::FILE_NAME);
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
        .take(100_000)
        .collect();
    std::fs::write(&path, &noise).unwrap();
    std::fs::write(dir.path().join("lookups-v1.sqlite-wal"), &noise).unwrap();
    let OpenedCache { mut cache, warning } = LookupCache::open(dir.path());
    assert!(
        matches!(warning, Some(CacheError::Rebuilt { .. })),
        "{warning:?}"
    );
    assert_works(&mut cache);
    drop(cache);
    assert_eq!(
        std::fs::read(path.with_extension("damaged")).unwrap(),
        noise
    );
    assert_eq!(find_one(&mut open_sound(dir.path()), 7), Some(negative()));
}

#[test]
fn the_database_of_another_program_is_set_aside() {
    for sql in [
        "PRAGMA application_id = 5",
        "CREATE TABLE lookups (x); PRAGMA application_id = 0",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let other = Connection::open(dir.path().join(schema::FILE_NAME)).unwrap();
        other.execute_batch(sql).unwrap();
        drop(other);
        let OpenedCache { mut cache, warning } = LookupCache::open(dir.path());
        assert!(
            matches!(warning, Some(CacheError::Rebuilt { .. })),
            "{warning:?}"
        );
        assert_works(&mut cache);
    }
}

#[test]
fn damage_inside_is_noticed_and_the_next_run_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    // All but the header page, so that the file opens.
    bytes[4096..].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let mut cache = open_sound(dir.path());
    let server = cache.server_row(URL);
    let error = cache.find(server, &[item(0)], NOW).unwrap_err();
    assert!(matches!(error, CacheError::Failed { .. }), "{error}");
    assert_eq!(cache.path(), None);
    assert_works(&mut cache);
    let mut next = eventually(|| {
        let mut cache = open_sound(dir.path());
        let server = cache.server_row(URL);
        cache.find(server, &[item(0)], NOW).is_ok().then_some(cache)
    });
    assert_works(&mut next);
}

#[test]
fn a_damaged_file_in_use_is_left_to_its_user() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path());
    let user = open_sound(dir.path());
    std::fs::write(&path, vec![0x5a; 50_000]).unwrap();
    let OpenedCache { mut cache, warning } = LookupCache::open(dir.path());
    assert!(
        matches!(warning, Some(CacheError::Unusable { .. })),
        "{warning:?}"
    );
    assert!(path.exists());
    assert_works(&mut cache);
    drop(user);
    let OpenedCache { mut cache, warning } = eventually(|| {
        let opened = LookupCache::open(dir.path());
        let is_in_use = matches!(opened.warning, Some(CacheError::Unusable { .. }));
        (!is_in_use).then_some(opened)
    });
    assert!(
        matches!(warning, Some(CacheError::Rebuilt { .. })),
        "{warning:?}"
    );
    assert_works(&mut cache);
}

#[test]
fn every_cut_and_flip_ends_in_answers_or_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path());
    let sound = std::fs::read(&path).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..200 {
        let mut bytes = sound.clone();
        if round % 2 == 0 {
            bytes.truncate(random.usize(..bytes.len()));
        } else {
            for _ in 0..20 {
                let at = random.usize(..bytes.len());
                bytes[at] ^= random.u8(1..);
            }
        }
        std::fs::write(&path, bytes).unwrap();
        let OpenedCache { mut cache, .. } = LookupCache::open(dir.path());
        let server = cache.server_row(URL);
        if let Ok(found) = cache.find(server, &[item(0)], NOW)
            && let Some((
                _,
                CacheEntry {
                    answer: CachedAnswer::Positive { text, key_id },
                    ..
                },
            )) = found.first()
        {
            let is_believed = key_id.as_deref() == Some("key");
            assert!(
                !is_believed || &**text == "a",
                "a verdict on another text is used"
            );
        }
        let _ = cache.insert(&[(server, item(7), negative())]);
        assert_eq!(find_one(&mut cache, 7), Some(negative()), "round {round}");
    }
}

#[test]
fn a_future_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let future = dir.path().join("lookups-v2.sqlite");
    std::fs::write(&future, "whatever that will be").unwrap();
    assert_works(&mut open_sound(dir.path()));
    assert_eq!(std::fs::read(&future).unwrap(), b"whatever that will be");
}

#[test]
fn without_a_usable_directory_memory_serves() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let OpenedCache { mut cache, warning } = LookupCache::open(&file.join("below"));
    assert!(
        matches!(warning, Some(CacheError::Unusable { .. })),
        "{warning:?}"
    );
    assert_works(&mut cache);
}

#[test]
fn a_read_only_directory_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let none = None::<&str>;
    on_tmpfs(dir.path(), "mode=755", || {
        filled(dir.path());
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        let remounted = eventually(|| {
            let mounted = mount(none, dir.path(), none, flags, none);
            (mounted != Err(Errno::EBUSY)).then_some(mounted)
        });
        remounted.unwrap();
        let OpenedCache { mut cache, warning } = LookupCache::open(dir.path());
        assert!(
            matches!(warning, Some(CacheError::Unusable { .. })),
            "{warning:?}"
        );
        assert_works(&mut cache);
    });
}

#[test]
fn a_full_disk_is_reported_once() {
    let dir = tempfile::tempdir().unwrap();
    on_tmpfs(dir.path(), "size=1m", || {
        let mut cache = open_sound(dir.path());
        let server = cache.server_row(URL);
        let filler = std::fs::write(dir.path().join("filler"), vec![1; 1 << 20]);
        assert!(filler.is_err());
        let text = "x".repeat(1200);
        let batch: Vec<_> = (0..1000)
            .map(|number| (server, item(number), positive(&text)))
            .collect();
        let error = cache.insert(&batch).unwrap_err();
        assert!(matches!(error, CacheError::Failed { .. }), "{error}");
        assert_eq!(
            find_one(&mut cache, 999),
            Some(positive(&text)),
            "it is cached all the same"
        );
        cache.insert(&batch).unwrap();
        drop(cache);

        let OpenedCache { mut cache, .. } = LookupCache::open(dir.path());
        let server = cache.server_row(URL);
        let _ = cache.insert(&batch);
        assert_eq!(cache.find(server, &[item(999)], NOW).unwrap().len(), 1);
        std::fs::remove_file(dir.path().join("filler")).unwrap();
        assert_eq!(
            open_sound(dir.path()).integrity_faults().unwrap(),
            Vec::<String>::new()
        );
    });
}

/// Whether the verdict that is cached beside the first entry's text is used.
fn uses_verdict(dir: &Path) -> bool {
    match find_one(&mut open_sound(dir), 0).unwrap().answer {
        CachedAnswer::Positive { key_id, text } => {
            assert_eq!(&*text, "a");
            key_id.is_some()
        }
        other => panic!("{other:?}"),
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn verdicts_are_used_only_where_no_other_user_can_write() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(uses_verdict(dir.path()));
    set_mode(&path, 0o644);
    assert!(uses_verdict(dir.path()));
    set_mode(&path, 0o664);
    assert!(!uses_verdict(dir.path()));
    set_mode(&path, 0o600);
    set_mode(dir.path(), 0o777);
    assert!(
        !uses_verdict(dir.path()),
        "others could put a log beside it"
    );
    set_mode(dir.path(), 0o755);
    assert!(uses_verdict(dir.path()));

    let file = Connection::open(&path).unwrap();
    file.execute(
        "UPDATE lookups SET text = 'a' || char(32), digest = digest",
        [],
    )
    .unwrap();
    drop(file);
    let entry = find_one(&mut open_sound(dir.path()), 0).unwrap();
    let changed = CachedAnswer::Positive {
        text: "a ".into(),
        key_id: None,
    };
    assert_eq!(
        entry.answer, changed,
        "the text is not the one that the verdict is about"
    );
}

#[test]
fn verdicts_of_other_users_are_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path());
    if std::os::unix::fs::chown(&path, Some(12_345), None).is_err() {
        eprintln!("skipped: only root can give a file away");
        return;
    }
    let entry = find_one(&mut open_sound(dir.path()), 0).unwrap();
    assert!(matches!(
        entry.answer,
        CachedAnswer::Positive { key_id: None, .. }
    ));
}

#[test]
fn nothing_planted_in_the_schema_is_executed() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path());
    let planted = Connection::open(&path).unwrap();
    planted
        .execute_batch(
            "CREATE TRIGGER planted AFTER INSERT ON lookups BEGIN DELETE FROM lookups; END;",
        )
        .unwrap();
    drop(planted);
    let mut cache = open_sound(dir.path());
    assert_works(&mut cache);
    drop(cache);
    assert_eq!(
        find_one(&mut open_sound(dir.path()), 0),
        Some(positive("a"))
    );

    let planted = Connection::open(&path).unwrap();
    planted
        .execute_batch(
            "ALTER TABLE lookups RENAME TO others;
             CREATE VIEW lookups AS SELECT * FROM others;",
        )
        .unwrap();
    drop(planted);
    let OpenedCache { mut cache, warning } = LookupCache::open(dir.path());
    assert!(
        matches!(warning, Some(CacheError::Rebuilt { .. })),
        "{warning:?}"
    );
    assert_works(&mut cache);
}
