//! What the tests share: a sandbox, copies of the fixtures to damage, a server with programmable
//! faults, listings to compare.

pub(crate) mod bucket;
pub(crate) mod bucket_writes;
pub(crate) mod fixture;
pub(crate) mod json_schema;
pub(crate) mod listing;
pub(crate) mod memory;
pub(crate) mod mounts;
pub(crate) mod publisher;
pub(crate) mod random_faults;
pub(crate) mod sandbox;
pub(crate) mod screen;
pub(crate) mod server;
pub(crate) mod terminal;
pub(crate) mod tls;

pub(crate) use fixture::{Fixture, Kind, item};
pub(crate) use sandbox::{Run, Sandbox};
pub(crate) use server::{Reply, Server};

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The top of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Waits until `done` returns true; false after [`WAIT_MAX`].
pub(crate) fn wait_until(mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + WAIT_MAX;
    while !done() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// So many offsets into a file of `length` bytes, from its first byte to its last;
/// `SUBST_TEST_OFFSETS` sets another number.
#[expect(
    clippy::disallowed_methods,
    reason = "a developer's setting for these tests only"
)]
pub(crate) fn spread(count: usize, length: usize) -> impl Iterator<Item = usize> {
    let count = std::env::var("SUBST_TEST_OFFSETS").map_or(count, |count| count.parse().unwrap());
    (0..count).map(move |number| number * (length - 1) / (count - 1).max(1))
}

/// All files below `dir` whose name ends so.
pub(crate) fn files_below(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The longest wait for something that takes a moment.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);
