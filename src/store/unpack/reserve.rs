//! File descriptors kept for removing trees: a process that has run out of them could not remove what
//! it could not finish.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Mutex;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::store::remove::remove_tree_at;
use crate::sync::lock;

use super::destination::Destination;

/// As many as [`remove_tree_at`] opens at the same time.
#[derive(Debug)]
pub(super) struct Reserve(Mutex<Vec<OwnedFd>>);

impl Reserve {
    /// Opens them.
    ///
    /// # Errors
    /// There are too few.
    pub(super) fn new() -> std::io::Result<Self> {
        let files = (0..FILES).map(|_| open()).collect::<Result<_, _>>()?;
        Ok(Self(Mutex::new(files)))
    }

    /// Removes the tree at `destination`.
    pub(super) fn remove_tree(&self, destination: &Destination) {
        // A failure leaves garbage at a temporary name, which the collector removes and the next
        // attempt clears first; the error that led here is the one to report.
        if !lacks_descriptors(remove(destination)) {
            return;
        }

        let mut reserve = lock(&self.0);
        if remove_with_own_descriptors(&reserve, destination) {
            return;
        }

        let mut pause = Duration::from_millis(1);
        // Another thread may be faster in opening something, also when the reserve was filled. All of
        // them give back what they have when they fail or end.
        for _ in 0..ATTEMPTS {
            reserve.clear();
            if !lacks_descriptors(remove(destination)) {
                break;
            }
            std::thread::sleep(pause);
            pause = PAUSE_MAX.min(pause * 2);
        }
        reserve.extend((0..FILES).map_while(|_| open().ok()));
    }
}

fn open() -> rustix::io::Result<OwnedFd> {
    rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

fn remove(destination: &Destination) -> rustix::io::Result<()> {
    remove_tree_at(destination.parent(), destination.name().as_os_str())
}

fn lacks_descriptors(removed: rustix::io::Result<()>) -> bool {
    matches!(removed, Err(Errno::MFILE | Errno::NFILE))
}

/// Removes the tree in a thread with a table of file descriptors of its own, in which those of `reserve`
/// are closed: no other thread can take their places, as those that wait for a removal while they hold
/// descriptors would. Whether that was tried and there were enough; containers may refuse such a table.
fn remove_with_own_descriptors(reserve: &[OwnedFd], destination: &Destination) -> bool {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("removal".into());
        let spawned = thread.spawn_scoped(scope, || {
            if unshare(CloneFlags::CLONE_FILES).is_err() {
                return false;
            }
            for file in reserve {
                // The number is closed in this thread's table only; the owner's stays open.
                let _ = nix::unistd::close(file.as_raw_fd());
            }
            !lacks_descriptors(remove(destination))
        });
        spawned.is_ok_and(|thread| thread.join().unwrap_or(false))
    })
}

/// The top directory, one below it, and the reading of that one.
const FILES: usize = 4;
/// The pauses between the attempts double up to this; they make about twenty seconds in all.
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// How often a removal is attempted where a thread cannot have descriptors of its own.
const ATTEMPTS: u32 = 100;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::format::nar::EntryName;

    use super::*;

    #[test]
    fn a_thread_with_its_own_descriptors_removes_a_tree_and_leaves_the_reserve_open() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("tree/below/below")).unwrap();
        let parent = rustix::fs::open(dir.path(), OFlags::RDONLY, Mode::empty()).unwrap();
        let name = EntryName::new(b"tree").unwrap();
        let destination = Destination::new(Arc::new(parent), dir.path().to_owned(), name);
        let reserve: Vec<OwnedFd> = (0..FILES).map(|_| open().unwrap()).collect();

        let removed = remove_with_own_descriptors(&reserve, &destination);

        if unshare_is_refused() {
            assert!(!removed);
            return;
        }
        assert!(removed);
        assert!(!dir.path().join("tree").exists());
        assert!(reserve.iter().all(|file| rustix::fs::fstat(file).is_ok()));
    }

    fn unshare_is_refused() -> bool {
        let refused = std::thread::spawn(|| unshare(CloneFlags::CLONE_FILES).is_err());
        refused.join().unwrap()
    }
}
