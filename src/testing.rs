//! What unit tests of several layers share: mounts of their own, patience, and chance. Not part of the library.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Runs `test` in a thread with its own mounts, where `dir` is a new tmpfs with `options`; skipped
/// where that is not allowed.
pub(crate) fn on_tmpfs(dir: &Path, options: &str, test: impl FnOnce() + Send) {
    let none = None::<&str>;
    let in_thread = || {
        let mounted = unshare(CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
            .and_then(|()| {
                mount(
                    Some("none"),
                    dir,
                    Some("tmpfs"),
                    MsFlags::empty(),
                    Some(options),
                )
            });
        match mounted {
            Ok(()) => test(),
            Err(error) => eprintln!("skipped: mounting is not allowed here: {error}"),
        }
    };
    std::thread::scope(|scope| scope.spawn(in_thread).join().unwrap());
}

/// What `attempt` gives before long. Files and locks that were just given up are not free at
/// once where another test is about to start a process, which has them too until it executes.
pub(crate) fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    for _ in 0..2000 {
        if let Some(given) = attempt() {
            return given;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it does not come");
}

/// The first `count` seeds of a random test. `SUBST_TEST_SEEDS=1000..2000` selects others.
#[expect(
    clippy::disallowed_methods,
    reason = "a developer's setting for such tests alone"
)]
pub(crate) fn seeds(count: u64) -> Range<u64> {
    let Ok(range) = std::env::var("SUBST_TEST_SEEDS") else {
        return 0..count;
    };
    let (first, end) = range.split_once("..").unwrap();
    first.parse().unwrap()..end.parse().unwrap()
}
