//! How far a run is, counted by its threads and shown several times a second.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::substitute::closure::TICK;
use crate::substitute::progress::{MirrorProgress, Progress, ProgressEvent, with_ticks};

/// What a run has done so far.
#[derive(Default)]
pub(super) struct MirrorTally {
    /// Items that were found, and those of them that are present, copied or skipped.
    pub(super) found: AtomicUsize,
    pub(super) done: AtomicUsize,
    /// Bytes of nars that have arrived, and those that are to arrive as far as narinfos say.
    pub(super) received: AtomicU64,
    pub(super) expected: AtomicU64,
}

impl MirrorTally {
    /// Reports to `progress` while `work` runs, and when it has ended.
    pub(super) fn report_during<T>(&self, progress: &dyn Progress, work: impl FnOnce() -> T) -> T {
        let result = with_ticks(
            TICK,
            || progress.event(ProgressEvent::Mirroring(self.progress())),
            work,
        );
        progress.event(ProgressEvent::Mirroring(self.progress()));
        progress.event(ProgressEvent::Finished);
        result
    }

    fn progress(&self) -> MirrorProgress {
        MirrorProgress {
            items: self.done.load(Ordering::Relaxed),
            expected_items: self.found.load(Ordering::Relaxed),
            bytes: self.received.load(Ordering::Relaxed),
            expected_bytes: self.expected.load(Ordering::Relaxed),
        }
    }
}

/// Counts what is written to `inner`.
pub(super) struct CountedWriter<'a, W> {
    pub(super) inner: &'a mut W,
    pub(super) count: &'a AtomicU64,
}

impl<W: Write> Write for CountedWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
