//! Which nars to fetch ahead, and their first bytes.
//!
//! guix-daemon substitutes an item when everything it refers to is there, and of several such
//! items takes the first by name. So the next ones are known, as soon as one of them has
//! really been asked for: questions alone do not mean that anything will be substituted. Nor
//! does it take waiting for what an item refers to: that its nar is on its way is enough to begin
//! with the item's own, since by the daemon's turn both will have arrived.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use crate::format::compression::Compression;
use crate::format::server_url::ServerUrl;
use crate::format::store_path::{StorePath, StorePathRef};
use crate::substitute::download::choice::{self, DownloadCandidate, MeasuredRates};
use crate::substitute::download::prefetch::{self, PrefetchedNar};
use crate::substitute::lookup::SkipFilter;
use crate::substitute::network::Network;
use crate::substitute::outcome::{Authority, ItemLookup};
use crate::sync::lock;

/// A nar that is on its way, and what it is.
pub(crate) type Opened = (DownloadCandidate, Box<dyn PrefetchedNar>);

/// Fetches ahead.
pub(crate) struct Prefetcher {
    network: Arc<Network>,
    servers: Vec<ServerUrl>,
    skip: Option<SkipFilter>,
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    numbers: HashMap<StorePath, usize>,
    /// By number, how far the item is.
    known: Vec<Progress>,
    /// What may be fetched ahead, in the daemon's order.
    waiting: BTreeMap<Key, Waiting>,
    opened: HashMap<StorePath, Opening>,
}

/// Name first, then the whole.
type Key = (String, String);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Only referred to, so far: the daemon will ask about it, or have it built.
    Mentioned,
    /// There already, or nobody can tell.
    Valid,
    /// Asked about: it will have to be substituted.
    Asked,
    /// Its nar is on its way, or it is being substituted: what refers to it comes next.
    PrefetchedNar,
}

struct Waiting {
    path: StorePath,
    needs: Vec<usize>,
    candidates: Vec<DownloadCandidate>,
}

struct Opening {
    candidate: DownloadCandidate,
    body: JoinHandle<Option<Box<dyn PrefetchedNar>>>,
}

impl Prefetcher {
    /// Will fetch up to `limit` nars at a time from `servers`. `skip` tells what is in the
    /// store already.
    #[must_use]
    pub(crate) fn new(
        network: Arc<Network>,
        servers: Vec<ServerUrl>,
        skip: Option<SkipFilter>,
        limit: usize,
    ) -> Self {
        Self {
            network,
            servers,
            skip,
            limit,
            state: Mutex::default(),
        }
    }

    /// The daemon has been told about `items`.
    pub(crate) fn note(&self, items: &[ItemLookup]) {
        let mut state = self.state();
        for found in items {
            let Some(authority) = found.authority.as_ref().and_then(Authority::checked) else {
                continue;
            };
            let number = state.number(found.path.as_ref());
            if matches!(
                state.known[number],
                Progress::Asked | Progress::PrefetchedNar
            ) {
                continue;
            }
            state.known[number] = Progress::Asked;
            let own = found.path.as_ref();
            let references = authority.narinfo().references().filter(|path| *path != own);
            let needs = self.numbers(&mut state, references);
            let path = found.path.clone();
            let key = (path.name().to_owned(), path.base().to_owned());
            let candidates =
                choice::candidates(&found.sources, &self.servers, &MeasuredRates::default());
            state.waiting.insert(
                key,
                Waiting {
                    path,
                    needs,
                    candidates,
                },
            );
        }
    }

    /// The substitution of `item` starts, and would prefer its nar to be compressed with
    /// `method`: gives its nar if that is on its way, and begins with others.
    #[must_use]
    pub(crate) fn take(&self, item: &StorePath, method: Option<Compression>) -> Option<Opened> {
        let opening = {
            let mut state = self.state();
            let number = state.number(item.as_ref());
            state.known[number] = Progress::PrefetchedNar;
            state
                .waiting
                .remove(&(item.name().to_owned(), item.base().to_owned()));
            let opening = state.opened.remove(item);
            self.open_more(&mut state, method);
            opening
        };
        // It may still be waiting for the server, as whoever asks would have to.
        let Opening { candidate, body } = opening?;
        Some((candidate, body.join().ok()??))
    }

    /// The numbers of `references`; those that are new are looked up in the store.
    fn numbers<'r>(
        &self,
        state: &mut State,
        references: impl Iterator<Item = StorePathRef<'r>>,
    ) -> Vec<usize> {
        let first_new = state.known.len();
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
                state.known[number] = Progress::Valid;
            }
        }
        numbers
    }

    fn open_more(&self, state: &mut State, method: Option<Compression>) {
        while state.opened.len() < self.limit && state.buffered() < BUFFERED_BYTES_MAX {
            let known = &state.known;
            let is_ready = |waiting: &Waiting| {
                let is_met = |&need: &usize| {
                    matches!(known[need], Progress::Valid | Progress::PrefetchedNar)
                };
                waiting.needs.iter().all(is_met)
            };
            let next = state.waiting.iter().find(|(_, waiting)| is_ready(waiting));
            let Some(key) = next.map(|(key, _)| key.clone()) else {
                break;
            };
            let Some(Waiting {
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
            if let Some(body) = self.open(&candidate) {
                let number = state.number(path.as_ref());
                state.known[number] = Progress::PrefetchedNar;
                state.opened.insert(path, Opening { candidate, body });
            }
        }
    }

    /// Asks for a nar, on a thread that waits for the answer. Why it does not come will be
    /// found out, and told, by whoever needs it.
    fn open(
        &self,
        candidate: &DownloadCandidate,
    ) -> Option<JoinHandle<Option<Box<dyn PrefetchedNar>>>> {
        let (network, candidate) = (Arc::clone(&self.network), candidate.clone());
        let thread = std::thread::Builder::new().name("ahead".to_owned());
        thread
            .spawn(move || prefetch::begin(&network, &candidate).ok())
            .ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// Bytes that wait in memory, or soon will.
    fn buffered(&self) -> u64 {
        let size = |opening: &Opening| opening.candidate.file_size.unwrap_or(u64::MAX);
        self.opened
            .values()
            .map(|opening| size(opening).min(BUFFER_BYTES))
            .sum()
    }

    fn number(&mut self, path: StorePathRef<'_>) -> usize {
        let next = self.known.len();
        let number = *self.numbers.entry(path.to_path()).or_insert(next);
        if number == next {
            self.known.push(Progress::Mentioned);
        }
        number
    }
}

/// What one nar can have waiting in memory.
const BUFFER_BYTES: u64 = 4 << 20;
/// When so much is on its way, nothing more is begun with.
const BUFFERED_BYTES_MAX: u64 = 12 << 20;
