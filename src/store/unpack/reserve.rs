//! File descriptors kept for removing trees: a process that has run out of them could not remove what
//! it could not finish.

use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::Duration;

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
        if !lacks_descriptors(destination) {
            return;
        }

        let mut reserve = lock(&self.0);
        let mut pause = Duration::from_millis(1);
        // Another thread may be faster in opening something, also when the reserve was filled. All of
        // them give back what they have when they fail or end.
        for _ in 0..ATTEMPTS {
            reserve.clear();
            if !lacks_descriptors(destination) {
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

/// Tries to remove the tree; whether that failed because there are too few file descriptors.
fn lacks_descriptors(destination: &Destination) -> bool {
    let removed = remove_tree_at(destination.parent(), destination.name().as_os_str());
    matches!(removed, Err(Errno::MFILE | Errno::NFILE))
}

/// The top directory, one below it, and the reading of that one.
const FILES: usize = 3;
/// The pauses between the attempts double up to this; they make about twenty seconds in all.
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// How often a removal is attempted.
const ATTEMPTS: u32 = 100;
