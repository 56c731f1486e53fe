//! What a run has seen of each server, shared by all its lookups and downloads.
//!
//! Servers are named by their index in the user's list. Nothing in here waits or sends: whoever
//! downloads reports what happened, and asks before it decides.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The record of all servers of a run.
#[derive(Debug, Default)]
pub struct ServerHealth {
    servers: Mutex<HashMap<usize, Record>>,
}

#[derive(Debug, Default)]
struct Record {
    refuses_ranges: bool,
}

impl ServerHealth {
    /// `server` gives a file whole, and did not give a part of it.
    pub fn refuses_ranges(&self, server: usize) {
        self.lock().entry(server).or_default().refuses_ranges = true;
    }

    /// Whether parts of a file may be requested from `server`.
    #[must_use]
    pub fn takes_ranges(&self, server: usize) -> bool {
        self.lock().get(&server).is_none_or(|record| !record.refuses_ranges)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Record>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
