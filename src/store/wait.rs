//! Waiting for another process that holds a lock: not in silence, and only until the user interrupts.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use tracing::debug;

use super::error::StoreError;
use super::lock_holder::LockHolder;

/// Receives what a store reports while it is used, from several threads.
pub(crate) trait StoreObserver: Send + Sync {
    /// Whether the user has interrupted, so that nothing is to be waited for any longer.
    fn is_canceled(&self) -> bool;

    /// Something worth knowing that stops nothing.
    fn note(&self, text: &str);
}

impl fmt::Debug for dyn StoreObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreObserver")
    }
}

/// How long a wait is silent. Most locks are held for less.
const SILENCE: Duration = Duration::from_secs(2);
/// The pauses between attempts double from the first value to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// When a wait began, and whether the user knows of it.
#[derive(Debug)]
pub(super) struct WaitReport {
    began: Instant,
    was_made: bool,
}

impl WaitReport {
    /// Of a wait that begins now.
    pub(super) fn begin() -> Self {
        Self {
            began: Instant::now(),
            was_made: false,
        }
    }

    /// How long the wait has lasted.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Reports once, when the wait has lasted long enough, who holds the lock of `file`.
    pub(super) fn make_if_due(
        &mut self,
        observer: &dyn StoreObserver,
        file: &Path,
        holder: impl FnOnce() -> Option<LockHolder>,
    ) {
        if self.was_made || self.began.elapsed() < SILENCE {
            return;
        }
        self.was_made = true;

        let file = file.display();
        let text = match holder() {
            Some(holder) => format!("waiting for {holder}, which has locked {file}"),
            None => format!("waiting for another process, which has locked {file}"),
        };
        observer.note(&text);
    }
}

/// A wait for the lock of one file.
pub(super) struct LockWait<'a> {
    observer: &'a dyn StoreObserver,
    file: &'a Path,
    report: WaitReport,
    pause: Duration,
}

impl<'a> LockWait<'a> {
    pub(super) fn new(observer: &'a dyn StoreObserver, file: &'a Path) -> Self {
        Self {
            observer,
            file,
            report: WaitReport::begin(),
            pause: PAUSES.0,
        }
    }

    /// How long the wait has lasted.
    pub(super) fn elapsed(&self) -> Duration {
        self.report.elapsed()
    }

    /// Waits until the next attempt.
    ///
    /// # Errors
    /// [`StoreError::Interrupted`].
    pub(super) fn pause(
        &mut self,
        holder: impl FnOnce() -> Option<LockHolder>,
    ) -> Result<(), StoreError> {
        if self.pause == PAUSES.0 {
            debug!(path = %self.file.display(), "waiting for the lock");
        }
        if self.observer.is_canceled() {
            return Err(StoreError::Interrupted);
        }
        self.report.make_if_due(self.observer, self.file, holder);

        std::thread::sleep(self.pause);
        self.pause = PAUSES.1.min(self.pause * 2);
        Ok(())
    }
}
