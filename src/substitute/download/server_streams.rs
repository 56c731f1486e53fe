//! How many nars are downloaded from one server at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::format::server_list::ServerIndex;
use crate::substitute::cancel::Cancel;
use crate::sync::{lock, wait_for};

/// How often a wait looks whether the user interrupts.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);

/// The nars that are being downloaded, of all transfers of a run.
#[derive(Debug, Clone)]
pub(crate) struct ServerStreams(Arc<StreamCounts>);

#[derive(Debug)]
struct StreamCounts {
    limit: usize,
    open: Mutex<HashMap<ServerIndex, usize>>,
    closed: Condvar,
}

impl ServerStreams {
    /// At most `limit` from each server, at least one.
    #[must_use]
    pub(super) fn new(limit: usize) -> Self {
        Self(Arc::new(StreamCounts {
            limit: limit.max(1),
            open: Mutex::default(),
            closed: Condvar::new(),
        }))
    }

    /// Waits until another nar may be downloaded from `server`; `None` when the user interrupts.
    #[must_use]
    pub(crate) fn open(&self, server: ServerIndex, cancel: &Cancel) -> Option<ServerStream> {
        let counts = &self.0;
        let mut open = lock(&counts.open);
        while open
            .get(&server)
            .is_some_and(|count| *count >= counts.limit)
        {
            if cancel.is_canceled() {
                return None;
            }
            open = wait_for(&counts.closed, open, CANCEL_INTERVAL);
        }
        *open.entry(server).or_default() += 1;
        Some(ServerStream {
            counts: Arc::clone(counts),
            server,
        })
    }
}

/// A nar that is being downloaded, for as long as this lives.
#[derive(Debug)]
pub(crate) struct ServerStream {
    counts: Arc<StreamCounts>,
    server: ServerIndex,
}

impl Drop for ServerStream {
    fn drop(&mut self) {
        if let Some(count) = lock(&self.counts.open).get_mut(&self.server) {
            *count -= 1;
        }
        self.counts.closed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_has_a_limit_of_its_own() {
        let (streams, cancel) = (ServerStreams::new(2), Cancel::default());
        let (first, second) = (ServerIndex::FIRST, ServerIndex::at(1));
        let open: Vec<_> = [first, first, second, second]
            .map(|server| streams.open(server, &cancel).unwrap())
            .into();

        let waiting = std::thread::spawn({
            let (streams, cancel) = (streams.clone(), cancel.clone());
            move || streams.open(first, &cancel).is_some()
        });
        assert!(!waiting.is_finished());
        drop(open);
        assert!(waiting.join().unwrap());
        assert_eq!(lock(&streams.0.open)[&first], 0);
    }

    #[test]
    fn a_wait_ends_when_the_user_interrupts() {
        let (streams, cancel) = (ServerStreams::new(1), Cancel::default());
        let _open = streams.open(ServerIndex::FIRST, &cancel).unwrap();
        cancel.cancel();
        assert!(streams.open(ServerIndex::FIRST, &cancel).is_none());
    }
}
