//! The kernel is made to write to the disk while items are unpacked, so that little is left to wait
//! for in the end.
//!
//! By itself it begins after seconds, or with a tenth of the memory full: a whole closure, or the last
//! large item of it, would be waited for after its download. Measured by `tests/peers/bench/sync`: a
//! last item of 350 MB alone took 0.36 to 0.49 s to sync, of a fetch of 4.5 s; see docs/explanation/benchmarks.md.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::fs::{Mode, OFlags, openat};

use crate::store::sync_mode::SyncMode;
use crate::sync::Threads;

/// Syncs a file system whenever this much was written to it: some tenths of a second of a fast disk.
const AHEAD_BYTES: u64 = 16 << 20;
/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(20);

/// How many bytes have been written to files.
pub(super) type WrittenBytes = Arc<AtomicU64>;

/// Syncs on a thread of its own for as long as it lives. Dropping it waits for the sync under way.
pub(crate) struct WriteAhead {
    _stop: Sender<()>,
    /// Behind the sender: fields are dropped in this order, and the thread ends with the sender.
    _thread: Option<Threads>,
}

impl WriteAhead {
    /// Starts to sync the file system of `directory` as `written` grows, unless `sync` waits for
    /// nothing. It is a matter of speed alone: without a thread to spare, everything is waited for in
    /// the end.
    pub(super) fn start(sync: SyncMode, directory: &Arc<OwnedFd>, written: &WrittenBytes) -> Self {
        let (stop, is_stopped) = bounded(0);
        let (directory, written) = (Arc::clone(directory), Arc::clone(written));
        let work = move || sync_ahead(sync, &directory, &written, &is_stopped);
        let thread = (sync != SyncMode::None)
            .then(|| Threads::start("write-ahead", 1, work).ok())
            .flatten();
        Self {
            _stop: stop,
            _thread: thread,
        }
    }
}

fn sync_ahead(sync: SyncMode, directory: &OwnedFd, written: &AtomicU64, is_stopped: &Receiver<()>) {
    let mut synced = 0;
    while is_stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let now = written.load(Ordering::Relaxed);
        if now - synced < AHEAD_BYTES {
            continue;
        }

        // An error is reported once for each open file. This one is opened anew, so that the
        // final sync learns of the error as well.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let _ = openat(directory, ".", flags, Mode::empty())
            .and_then(|directory| sync.sync_items(directory));
        synced = now;
    }
}
