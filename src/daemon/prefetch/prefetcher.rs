//! Which nars to prefetch, and their first bytes.
//!
//! guix-daemon substitutes an item when all its references are valid, and of several such items the
//! first by name. So the next ones are known as soon as the substitution of one has been requested;
//! queries alone do not mean that anything will be substituted. A reference does not have to be
//! valid before the item's own download begins: it is enough that the reference's nar is being
//! downloaded, since both will have arrived when the daemon needs them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tracing::debug;

use crate::format::compression::Compression;
use crate::format::server_url::redacted;
use crate::format::store_path::{StorePath, StorePathRef};
use crate::http::{NarRequest, RateDemand, RetryPolicy};
use crate::substitute::download::candidate::DownloadCandidate;
use crate::substitute::download::choice;
use crate::substitute::download::prefetch::{PrefetchedNar, StartedDownload};
use crate::substitute::download::rates::MeasuredRates;
use crate::substitute::download::retries::IMPATIENT_WINDOW;
use crate::substitute::item_lookup::{Authority, ItemLookup};
use crate::substitute::lookup::SkipFilter;
use crate::substitute::network::Network;
use crate::sync::lock;

/// A nar that is being downloaded, and its URL.
pub(crate) type StartedNar = (DownloadCandidate, Box<dyn PrefetchedNar>);

/// Downloads nars before they are requested.
pub(crate) struct Prefetcher {
    network: Arc<Network>,
    skip: Option<SkipFilter>,
    limit: usize,
    state: Mutex<PrefetchQueue>,
}

#[derive(Default)]
struct PrefetchQueue {
    numbers: HashMap<StorePath, usize>,
    /// The state of each item, by its number.
    states: Vec<PrefetchState>,
    /// Nars that may be prefetched, in the daemon's order.
    waiting: BTreeMap<DaemonOrder, WaitingNar>,
    started: HashMap<StorePath, StartedDownload>,
}

/// The daemon's order: by name, then by base name.
type DaemonOrder = (String, String);

#[derive(Clone, Copy, PartialEq, Eq)]
enum PrefetchState {
    /// Only known as a reference: the daemon will query it, or have it built.
    Referenced,
    /// Valid already, or not known to be missing.
    Valid,
    /// Queried: it has to be substituted.
    Queried,
    /// Its nar is being downloaded, or it is being substituted: its referrers come next.
    Started,
}

struct WaitingNar {
    path: StorePath,
    references: Vec<usize>,
    candidates: Vec<DownloadCandidate>,
}

impl Prefetcher {
    /// Prefetches up to `limit` nars at a time from `servers`. `skip` finds the items that are valid
    /// already.
    #[must_use]
    pub(crate) fn new(network: Arc<Network>, skip: Option<SkipFilter>, limit: usize) -> Self {
        Self {
            network,
            skip,
            limit,
            state: Mutex::default(),
        }
    }

    /// Records that the daemon has queried `items`.
    pub(crate) fn add_queried(&self, items: &[ItemLookup]) {
        let mut state = self.state();
        for found in items {
            let Some(authority) = found
                .authority
                .as_ref()
                .and_then(Authority::verified_this_run)
            else {
                continue;
            };

            let number = state.number(found.path.as_ref());
            if matches!(
                state.states[number],
                PrefetchState::Queried | PrefetchState::Started
            ) {
                continue;
            }

            state.states[number] = PrefetchState::Queried;
            let own = found.path.as_ref();
            let references = authority.narinfo().references().filter(|path| *path != own);
            let numbers = self.numbers(&mut state, references);
            let path = found.path.clone();
            let key = (path.name().to_owned(), path.base().to_owned());
            let rates = MeasuredRates::default().with_lines(self.network.expected_line_rates());
            let candidates =
                choice::candidates(&found.sources, self.network.servers(), &rates, None);
            state.waiting.insert(
                key,
                WaitingNar {
                    path,
                    references: numbers,
                    candidates,
                },
            );
        }
    }

    /// Records that the substitution of `item` starts, and begins to download other nars,
    /// preferably those compressed with `method`. Returns the item's nar if it is being downloaded.
    #[must_use]
    pub(crate) fn take(&self, item: &StorePath, method: Option<Compression>) -> Option<StartedNar> {
        let started = {
            let mut state = self.state();
            let number = state.number(item.as_ref());
            state.states[number] = PrefetchState::Started;
            state
                .waiting
                .remove(&(item.name().to_owned(), item.base().to_owned()));
            let started = state.started.remove(item);
            self.start_more(&mut state, method);

            started
        };
        debug!(item = %item, is_prefetched = started.is_some(), "substitution begins");
        let started = started?;
        let candidate = started.candidate.clone();
        // A failure is not reported here: the substitution requests the nar again and reports it.
        let body = started.wait()?.ok()?;
        Some((candidate, Box::new(body)))
    }

    /// The numbers of `references`; those that are new are looked up in the store.
    fn numbers<'r>(
        &self,
        state: &mut PrefetchQueue,
        references: impl Iterator<Item = StorePathRef<'r>>,
    ) -> Vec<usize> {
        let first_new = state.states.len();
        let (mut new, mut numbers) = (Vec::new(), Vec::new());
        for path in references {
            let number = state.number(path);
            if number >= first_new {
                new.push(path.to_path());
            }
            numbers.push(number);
        }

        let valid = self.skip.as_ref().map(|skip| skip(&new));
        for path in &new {
            if valid.as_ref().is_none_or(|valid| valid.contains(path)) {
                let number = state.number(path.as_ref());
                state.states[number] = PrefetchState::Valid;
            }
        }

        numbers
    }

    fn start_more(&self, state: &mut PrefetchQueue, method: Option<Compression>) {
        state.drop_useless();
        while state.started.len() < self.limit && state.buffered() < BUFFERED_BYTES_MAX {
            let next = state.waiting.iter().find(|(_, nar)| state.is_ready(nar));
            let Some(key) = next.map(|(key, _)| key.clone()) else {
                break;
            };
            let Some(WaitingNar {
                path,
                mut candidates,
                ..
            }) = state.waiting.remove(&key)
            else {
                break;
            };

            let health = self.network.health();
            candidates.sort_by_key(|candidate| health.is_unreliable(candidate.server));
            let preferred = candidates
                .iter()
                .find(|one| Some(one.compression) == method);
            let Some(candidate) = preferred.or(candidates.first()).cloned() else {
                continue;
            };
            if let Some(download) =
                StartedDownload::start(&self.network, candidate.clone(), request(&candidate))
            {
                let number = state.number(path.as_ref());
                state.states[number] = PrefetchState::Started;
                debug!(item = %path, url = redacted(&download.candidate.url), "prefetching");
                state.started.insert(path, download);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, PrefetchQueue> {
        lock(&self.state)
    }
}

impl PrefetchQueue {
    /// Whether all references of `nar` are valid or being downloaded.
    fn is_ready(&self, nar: &WaitingNar) -> bool {
        nar.references.iter().all(|&number| {
            matches!(
                self.states[number],
                PrefetchState::Valid | PrefetchState::Started
            )
        })
    }

    /// Drops the downloads that make room for no others: those whose request has failed, and those that
    /// were not taken for long, because the daemon builds the item or does not need it.
    fn drop_useless(&mut self) {
        self.started.retain(|item, download| {
            let is_useful = !download.has_failed() && download.started_at.elapsed() < UNTAKEN_MAX;
            if !is_useful {
                debug!(%item, "dropping a nar that was prefetched");
            }
            is_useful
        });
    }

    /// Bytes that are in memory or soon will be.
    fn buffered(&self) -> u64 {
        let downloads = self.started.values();
        downloads
            .map(|download| download.candidate.file_size.unwrap_or(u64::MAX))
            .map(|size| size.min(BUFFER_BYTES))
            .sum()
    }

    fn number(&mut self, path: StorePathRef<'_>) -> usize {
        let next = self.states.len();
        let number = *self.numbers.entry(path.to_path()).or_insert(next);
        if number == next {
            self.states.push(PrefetchState::Referenced);
        }
        number
    }
}

/// A request for `candidate`. When it fails, the transfer itself requests the nar again.
fn request(candidate: &DownloadCandidate) -> NarRequest {
    NarRequest {
        compression: Some(candidate.compression),
        retry_policy: Some(RetryPolicy::once()),
        rate_demand: Some(RateDemand {
            bytes_per_second: 0,
            window: IMPATIENT_WINDOW,
        }),
        ..NarRequest::new(candidate.url.clone())
    }
}

/// At most this much is counted for one nar: what waits to be read (1 MiB), and what is on its way in the
/// buffers of its connection.
const BUFFER_BYTES: u64 = 4 << 20;
/// No download is started while this much is in memory or expected.
const BUFFERED_BYTES_MAX: u64 = 12 << 20;
/// Nars that were not taken for this long are dropped.
const UNTAKEN_MAX: Duration = Duration::from_secs(120);
