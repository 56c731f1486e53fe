//! Brings items to the disk that were unpacked for guix-daemon.
//!
//! The daemon registers an item after the reply. Its database does not wait for the disk then: the row gets
//! there seconds later, or when the daemon ends. So with [`SyncMode::Items`] the disk is not waited for
//! before the reply, but before the next one and before the helper ends, which the daemon waits for
//! as well: meanwhile the daemon registers the item and the next one is unpacked. Only a power cut within
//! the milliseconds of a sync could find the row on the disk and the item not. With [`SyncMode::Full`]
//! the reply waits.
//!
//! On a busy machine, the helper took 8.5 s for 202 items with `none` (medians of three runs, one item after
//! the other), 12.5 s with `items`, 14.5 s with `full`; guix-daemon's own work in between, during
//! which `items` syncs, is not among these.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

use crate::daemon::log::ClientLog;
use crate::store::unpack::Destination;
use crate::store::{StoreError, SyncMode};
use crate::substitute::chain;
use crate::sync::lock;

/// A sync of the last item, on a thread of its own. Dropping it waits for the end.
pub(crate) struct ItemSync {
    mode: SyncMode,
    log: Arc<ClientLog>,
    under_way: Mutex<Option<SyncUnderWay>>,
}

/// A sync that has begun.
struct SyncUnderWay {
    /// The directory of the item.
    directory: PathBuf,
    thread: JoinHandle<Result<(), StoreError>>,
}

impl SyncUnderWay {
    /// Waits until it has ended; one that panicked has failed.
    fn end(self) -> Result<(), StoreError> {
        let directory = self.directory;
        self.thread.join().unwrap_or_else(|_| {
            Err(StoreError::Sync {
                path: directory,
                source: io::Error::other("a thread has panicked"),
            })
        })
    }
}

impl ItemSync {
    /// Nothing is under way. `log` gets the failure of the last sync, which no reply can report.
    #[must_use]
    pub(crate) fn new(mode: SyncMode, log: Arc<ClientLog>) -> Self {
        Self {
            mode,
            log,
            under_way: Mutex::default(),
        }
    }

    /// What waits for the disk.
    pub(super) fn mode(&self) -> SyncMode {
        self.mode
    }

    /// To be called when an item was unpacked at `destination`, before the reply.
    ///
    /// # Errors
    /// The item, or the one before, cannot be brought to the disk.
    pub(super) fn before_reply(&self, destination: &Destination) -> Result<(), StoreError> {
        self.wait()?;
        if self.mode != SyncMode::Items {
            return destination.sync_items(self.mode);
        }

        let (mode, item) = (self.mode, destination.clone());
        let thread = Builder::new().name("item-sync".to_owned());
        match thread.spawn(move || item.sync_items(mode)) {
            Ok(thread) => {
                let directory = destination.parent_path().to_owned();
                *lock(&self.under_way) = Some(SyncUnderWay { directory, thread });
                Ok(())
            }
            // No thread to spare.
            Err(_) => destination.sync_items(mode),
        }
    }

    fn wait(&self) -> Result<(), StoreError> {
        let under_way = lock(&self.under_way).take();
        under_way.map_or(Ok(()), SyncUnderWay::end)
    }
}

impl Drop for ItemSync {
    fn drop(&mut self) {
        if let Err(error) = self.wait() {
            self.log.error(&format!(
                "the last item may be lost in a power cut: {}",
                chain(&error)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the client reads.
    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A sync that is under way, and what its client reads.
    fn under_way(sync: fn() -> Result<(), StoreError>) -> (ItemSync, Output) {
        let output = Output::default();
        let log = Arc::new(ClientLog::to(Box::new(output.clone())));
        let items = ItemSync::new(SyncMode::Items, log);
        *lock(&items.under_way) = Some(SyncUnderWay {
            directory: "/gnu/store".into(),
            thread: std::thread::spawn(sync),
        });
        (items, output)
    }

    fn failing() -> Result<(), StoreError> {
        Err(StoreError::Sync {
            path: "/gnu/store".into(),
            source: io::Error::other("the disk is broken"),
        })
    }

    fn panicking() -> Result<(), StoreError> {
        panic!("a fault of the program")
    }

    #[test]
    fn the_sync_of_an_item_fails_the_next_reply_when_it_failed_or_panicked() {
        for (sync, reason) in [
            (failing as fn() -> _, "the disk is broken"),
            (panicking, "a thread has panicked"),
        ] {
            let (items, output) = under_way(sync);
            let error = chain(&items.wait().unwrap_err());
            assert!(
                error.contains("/gnu/store") && error.contains(reason),
                "{error}"
            );
            drop(items);
            assert!(lock(&output.0).is_empty(), "it was reported");
        }
    }

    #[test]
    fn the_client_is_told_when_the_sync_of_the_last_item_failed() {
        for (sync, expected) in [
            (failing as fn() -> _, "the disk is broken\n"),
            (panicking, "a thread has panicked\n"),
        ] {
            let (items, output) = under_way(sync);
            drop(items);
            let text = String::from_utf8(lock(&output.0).clone()).unwrap();
            assert!(text.ends_with(expected), "{text}");
        }
    }
}
