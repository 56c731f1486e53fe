//! Several processes at one file, some of them killed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;

/// This test binary again, writing batches to the cache in `dir` until it is killed.
fn start_writer(dir: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--ignored",
            "--nocapture",
            "lookup_cache::tests::processes::write",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{}", dir.display()).unwrap();
    child
}

#[test]
#[ignore = "is the other process of the tests around it"]
fn write() {
    let mut dir = String::new();
    std::io::stdin().read_line(&mut dir).unwrap();
    let mut cache = open_sound(Path::new(dir.trim_end()));
    let server = cache.server_row(URL);
    let text = "x".repeat(1200);
    for round in 0.. {
        let first = round % 10 * 100;
        let batch: Vec<_> = (first..first + 100)
            .map(|number| (server, item(number), positive(&text)))
            .collect();
        cache.insert(&batch).unwrap();
        eprintln!("{round}");
    }
}

#[test]
fn killed_writers_leave_a_sound_cache() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..100 {
        let mut writers = [start_writer(dir.path()), start_writer(dir.path())];
        // Once one has written, both are killed wherever they are.
        let answers = writers[round % 2].stderr.take().unwrap();
        let mut line = String::new();
        BufReader::new(answers).read_line(&mut line).unwrap();
        assert!(line.trim_end().parse::<u64>().is_ok(), "{line}");
        std::thread::sleep(Duration::from_micros(fastrand::u64(..5000)));
        for writer in &mut writers {
            writer.kill().unwrap();
            writer.wait().unwrap();
        }
        let mut cache = open_sound(dir.path());
        assert_eq!(
            cache.integrity_faults().unwrap(),
            Vec::<String>::new(),
            "round {round}"
        );
        // Batches are there as a whole.
        assert_eq!(cache.stats(NOW).unwrap().positive % 100, 0);
        assert!(find_one(&mut cache, 0).is_some());
    }
}

#[test]
fn many_open_a_new_file_at_once() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let dir = dir.path();
                scope.spawn(move || {
                    let mut cache = open_sound(dir);
                    let server = cache.server_row(URL);
                    cache.insert(&[(server, item(thread), negative())]).unwrap();
                });
            }
        });
        let mut cache = open_sound(dir.path());
        assert_eq!(cache.stats(NOW).unwrap().negative, 8);
        assert_eq!(cache.stats(NOW).unwrap().servers, 1);
    }
}

#[test]
fn two_processes_write_the_same_entries_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let text = "x".repeat(1200);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut cache = open_sound(dir.path());
                let server = cache.server_row(URL);
                let batch: Vec<_> = (0..5000)
                    .map(|number| (server, item(number), positive(&text)))
                    .collect();
                cache.insert(&batch).unwrap();
                let items: Vec<_> = (0..5000).map(item).collect();
                assert_eq!(cache.find(server, &items, NOW).unwrap().len(), 5000);
            });
        }
    });
    let mut cache = open_sound(dir.path());
    assert_eq!(cache.integrity_faults().unwrap(), Vec::<String>::new());
}
