//! What is compared: local trees, hashed on all cores, and what servers claim of them meanwhile.
//!
//! Items are inspected in batches: of so many that their claims take little memory, whatever servers
//! send.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};

use crate::format::server_list::PerServer;
use crate::format::store_path::StorePath;
use crate::store::Store;
use crate::substitute::claims::{Claim, ClaimRequests};
use crate::substitute::closure::TICK;
use crate::substitute::progress::{ComparisonProgress, Progress, ProgressEvent, with_ticks};
use crate::sync::lock;

use super::local_build::{LocalBuild, LocalHash};

/// Items of a batch: so many that all servers are busy most of the time.
const BATCH_ITEMS_MAX: usize = 1000;
/// Claims of a batch. Each of them takes up to 10 KiB.
const BATCH_CLAIMS_MAX: usize = 1600;

/// An item, what this machine has of it, and what each server claims of it.
pub(crate) struct InspectedBuild<'a> {
    /// The item, and what the store records of it.
    pub(crate) build: &'a LocalBuild,
    /// The hash of its tree.
    pub(crate) local: LocalHash,
    /// One for each server.
    pub(crate) claims: PerServer<Claim>,
}

/// Hashes trees and requests claims.
pub(crate) struct BuildInspection<'a> {
    /// Where the trees are, if there is a store.
    pub(crate) store: Option<&'a Store>,
    /// Requests the claims.
    pub(crate) requests: ClaimRequests<'a>,
    /// Threads that hash.
    pub(crate) threads: usize,
    /// Receives [`ProgressEvent::Comparing`].
    pub(crate) progress: &'a dyn Progress,
}

/// How far an inspection is.
#[derive(Debug, Default)]
pub(crate) struct InspectionTally {
    items: AtomicU64,
    bytes: AtomicU64,
    answers: AtomicU64,
}

impl InspectionTally {
    /// Bytes of nars that were read, of this machine or of servers.
    pub(crate) fn bytes(&self) -> &AtomicU64 {
        &self.bytes
    }

    fn progress(&self, builds: &[LocalBuild], servers: usize) -> ComparisonProgress {
        ComparisonProgress {
            items: self.items.load(Ordering::Relaxed),
            expected_items: builds.len() as u64,
            bytes: self.bytes.load(Ordering::Relaxed),
            answers: self.answers.load(Ordering::Relaxed),
            expected_answers: builds.len() as u64 * servers as u64,
        }
    }
}

impl BuildInspection<'_> {
    /// Passes each of `builds`, in their order, to `compare`, until that fails.
    ///
    /// # Errors
    /// That of `compare`.
    pub(crate) fn inspect<E>(
        &mut self,
        builds: &[LocalBuild],
        tally: &InspectionTally,
        compare: impl FnMut(InspectedBuild<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (progress, servers) = (self.progress, self.requests.reachable_servers());
        let compared = with_ticks(
            TICK,
            || progress.event(ProgressEvent::Comparing(tally.progress(builds, servers))),
            || self.inspect_batches(builds, tally, compare),
        );
        progress.event(ProgressEvent::Comparing(tally.progress(builds, servers)));
        progress.event(ProgressEvent::Finished);
        compared
    }

    fn inspect_batches<E>(
        &mut self,
        builds: &[LocalBuild],
        tally: &InspectionTally,
        mut compare: impl FnMut(InspectedBuild<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let servers = self.requests.reachable_servers().max(1);
        let batch_items = (BATCH_CLAIMS_MAX / servers).clamp(1, BATCH_ITEMS_MAX);
        for batch in builds.chunks(batch_items) {
            let (hashes, claims) = self.inspect_batch(batch, tally);
            for ((build, local), claims) in batch.iter().zip(hashes).zip(claims) {
                compare(InspectedBuild {
                    build,
                    local,
                    claims,
                })?;
            }
        }
        Ok(())
    }

    /// The hashes of the trees of `batch`, read by several threads, and the claims, which this thread
    /// requests meanwhile.
    fn inspect_batch(
        &mut self,
        batch: &[LocalBuild],
        tally: &InspectionTally,
    ) -> (Vec<LocalHash>, Vec<PerServer<Claim>>) {
        let paths: Vec<StorePath> = batch.iter().map(|build| build.item.clone()).collect();
        let hashing = BatchHashing {
            store: self.store,
            batch,
            tally,
            next: AtomicUsize::new(0),
            hashes: Mutex::new(vec![LocalHash::NotValid; batch.len()]),
        };

        let claims = thread::scope(|scope| {
            for number in 0..self.threads.min(batch.len()) {
                let thread = Builder::new().name(format!("hasher-{number}"));
                // What no thread has done is done by this one below.
                let _ = thread.spawn_scoped(scope, || hashing.hash_next_ones());
            }
            let claims = self.requests.request(&paths, &tally.answers);
            hashing.hash_next_ones();
            claims
        });
        let hashes = hashing.hashes.into_inner();
        (hashes.unwrap_or_else(PoisonError::into_inner), claims)
    }
}

/// The trees of a batch, while they are hashed.
struct BatchHashing<'a> {
    store: Option<&'a Store>,
    batch: &'a [LocalBuild],
    tally: &'a InspectionTally,
    next: AtomicUsize,
    hashes: Mutex<Vec<LocalHash>>,
}

impl BatchHashing<'_> {
    /// Hashes trees until another thread has taken the last one.
    fn hash_next_ones(&self) {
        loop {
            let place = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(build) = self.batch.get(place) else {
                return;
            };
            let hash = LocalHash::of(self.store, build, &self.tally.bytes);
            lock(&self.hashes)[place] = hash;
            self.tally.items.fetch_add(1, Ordering::Relaxed);
        }
    }
}
