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
    /// Opens as many as there are to have.
    pub(super) fn new() -> Self {
        Self(Mutex::new(open()))
    }

    /// Removes the tree at `destination`.
    pub(super) fn remove_tree(&self, destination: &Destination) {
        let remove = || remove_tree_at(destination.parent(), destination.name().as_os_str());
        // A failure leaves garbage at a temporary name, which the collector removes and the next
        // attempt clears first; the error that led here is the one to report.
        if !is_shortage(remove()) {
            return;
        }
        let mut reserve = lock(&self.0);
        let mut pause = Duration::from_millis(1);
        // Another thread may be faster in opening something.
        while pause < PAUSE_MAX {
            reserve.clear();
            if !is_shortage(remove()) {
                break;
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
        *reserve = open();
    }
}

fn open() -> Vec<OwnedFd> {
    let file = || rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok();
    (0..FILES).map_while(|_| file()).collect()
}

fn is_shortage(removed: rustix::io::Result<()>) -> bool {
    matches!(removed, Err(Errno::MFILE | Errno::NFILE))
}

/// The top directory, one below it, and the reading of that one.
const FILES: usize = 3;
/// The pauses double up to this, which makes a second in all.
const PAUSE_MAX: Duration = Duration::from_secs(1);
