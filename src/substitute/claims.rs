//! What servers claim of items: their narinfos, whoever has signed them.
//!
//! Every server is asked in this run: the lookup cache is neither read nor written, since an old
//! answer would say nothing about what the server has now. Nothing here is trusted, and nothing of
//! it is used to change a store. An answer for another item than the requested one is no claim.
//! Of each narinfo only what comparisons need is kept, a few KiB whatever the server sends.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::format::cache_info::CacheInfo;
use crate::format::hash::NarHash;
use crate::format::narinfo::{NarInfo, NarOffer};
use crate::format::server_list::{PerServer, ServerIndex};
use crate::format::store_path::{HashPart, StoreDir, StorePath};
use crate::http::{
    HttpError, LookupEvent, LookupEvents, Lookups, NarInfoAnswer, RetryLimits, ServerSpec,
};
use crate::substitute::cancel::Cancel;
use crate::substitute::download::retries::RetryContext;
use crate::substitute::network::Network;
use crate::substitute::outcome::{LookupFailure, LookupOutcome, OtherStore, UnreadableNarInfo};
use crate::substitute::progress::Progress;
use crate::trust::verdict::Refusal;

/// What a server claims of an item, or why it claims nothing.
pub(crate) type Claim = Result<Arc<NarClaim>, LookupOutcome>;

/// What a server claims of an item's nar.
#[derive(Debug)]
pub(crate) struct NarClaim {
    /// The hash of the nar.
    pub(crate) nar_hash: NarHash,
    /// Its size and its downloads, and the references of the item.
    pub(crate) offer: NarOffer,
}

/// Requests claims.
pub(crate) struct ClaimRequests<'a> {
    network: &'a Network,
    store_dir: StoreDir,
    /// `None` when no server may be reached.
    transport: Option<(Lookups, LookupEvents)>,
    /// How servers are waited for.
    retries: Option<&'a RetryContext>,
    /// The servers whose items are for another store.
    other_stores: HashMap<ServerIndex, OtherStore>,
    /// The servers without a `nix-cache-info` whose first answers are awaited.
    doubtful: HashSet<ServerIndex>,
    progress: &'a dyn Progress,
}

impl<'a> ClaimRequests<'a> {
    /// Will request claims from all servers of `network`, which are not waited for.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(crate) fn open(
        network: &'a Network,
        store_dir: StoreDir,
        progress: &'a dyn Progress,
    ) -> Result<Self, Arc<HttpError>> {
        Self::with(network, store_dir, progress, None)
    }

    /// The same; servers that fail after they have answered some requests are waited for.
    ///
    /// # Errors
    /// As for [`ClaimRequests::open`].
    pub(crate) fn open_patiently(
        retries: &'a RetryContext,
        store_dir: StoreDir,
    ) -> Result<Self, Arc<HttpError>> {
        Self::with(
            &retries.network,
            store_dir,
            &*retries.progress,
            Some(retries),
        )
    }

    fn with(
        network: &'a Network,
        store_dir: StoreDir,
        progress: &'a dyn Progress,
        retries: Option<&'a RetryContext>,
    ) -> Result<Self, Arc<HttpError>> {
        let servers = network.servers();
        let reachable = servers.iter().find(|url| network.reaches(url.base()));
        let transport = match reachable {
            None => None,
            Some(url) => {
                let specs = servers.enumerated().map(|(index, url)| ServerSpec {
                    retry_limits: retries.map_or(RetryLimits::NONE, |it| it.limits[index]),
                    fails_at_once: retries.is_some_and(|it| it.limits[index].allow_none()),
                    ..ServerSpec::new(url.clone())
                });
                let client = network.client_for(url.base())?;
                Some(client.lookups(specs.collect()).map_err(Arc::new)?)
            }
        };

        Ok(Self {
            network,
            store_dir,
            transport,
            retries,
            other_stores: HashMap::new(),
            doubtful: HashSet::new(),
            progress,
        })
    }

    /// How many servers are there to answer.
    pub(crate) fn reachable_servers(&self) -> usize {
        let servers = self.network.servers().iter();
        servers
            .filter(|url| self.network.reaches(url.base()))
            .count()
    }

    /// What every server claims of each of `items`, in their order. Each answer is added to `answers`.
    pub(crate) fn request(
        &mut self,
        items: &[StorePath],
        answers: &AtomicU64,
    ) -> Vec<PerServer<Claim>> {
        let servers = self.network.servers().iter();
        let none = servers.map(|_| Err(LookupOutcome::Offline)).collect();
        let mut claims: Vec<PerServer<Claim>> = vec![none; items.len()];
        self.request_narinfos(items, |place, server, answer| {
            claims[place][server] = claim_of(&items[place], answer);
            answers.fetch_add(1, Ordering::Relaxed);
        });

        for (server, other) in &self.other_stores {
            for claims in &mut claims {
                claims[*server] = Err(LookupOutcome::OtherStore(other.clone()));
            }
        }
        claims
    }

    /// The servers whose items are for another store, as far as they have said so.
    pub(crate) fn other_stores(&self) -> &HashMap<ServerIndex, OtherStore> {
        &self.other_stores
    }

    /// Requests the narinfos of `items` from all servers: calls `receive` with the place of the item, the
    /// server and what it answered, which may be a narinfo of another item. Ends early when a run whose servers are
    /// waited for is canceled.
    pub(crate) fn request_narinfos(
        &mut self,
        items: &[StorePath],
        mut receive: impl FnMut(usize, ServerIndex, &Result<NarInfo, LookupOutcome>),
    ) {
        let Some((lookups, events)) = &mut self.transport else {
            return;
        };

        let mut places: HashMap<HashPart, Vec<usize>> = HashMap::new();
        for (place, item) in items.iter().enumerate() {
            places.entry(item.hash_part()).or_default().push(place);
        }
        let mut unanswered = request_on_all(lookups, self.network, places.keys());
        let cancel = self.retries.map(|retries| &retries.cancel);
        let mut confirmed: HashSet<ServerIndex> = HashSet::new();
        while unanswered > 0 {
            match events.recv_unless(|| cancel.is_some_and(Cancel::is_canceled)) {
                Some(LookupEvent::Answer {
                    server,
                    item,
                    answer,
                }) => {
                    unanswered -= 1;
                    let answer = parsed(answer, &self.store_dir);
                    if !matches!(answer, Err(LookupOutcome::Missing(_))) {
                        confirmed.insert(server);
                    }
                    for &place in places.get(&item).into_iter().flatten() {
                        receive(place, server, &answer);
                    }
                }
                Some(LookupEvent::CacheInfo {
                    server,
                    info: Ok(Some(info)),
                }) => {
                    let other = other_store(&info.text, &self.store_dir);
                    self.other_stores.extend(other.map(|other| (server, other)));
                }
                Some(LookupEvent::CacheInfo {
                    server,
                    info: Ok(None),
                }) => {
                    self.doubtful.insert(server);
                }
                Some(LookupEvent::ServerAwaited {
                    server,
                    error,
                    failing_for,
                }) => {
                    self.network
                        .report_retry(self.progress, server, &error, failing_for);
                }
                Some(_) => {}
                // Servers that have not answered yet may have the items.
                None => return,
            }
        }
        self.report_doubtful_addresses(&confirmed);
    }

    /// Reports the servers that have neither a `nix-cache-info` nor any of the first items; others, which are `confirmed`, have
    /// answered something else. Each is reported once.
    fn report_doubtful_addresses(&mut self, confirmed: &HashSet<ServerIndex>) {
        for server in self.doubtful.drain() {
            if !confirmed.contains(&server) {
                self.network.report_doubtful_address(self.progress, server);
            }
        }
    }
}

/// Requests `items` from all servers that may be reached; how many answers there will be.
fn request_on_all<'i>(
    lookups: &Lookups,
    network: &Network,
    items: impl Iterator<Item = &'i HashPart> + Clone,
) -> usize {
    let mut requests = 0;
    for (server, url) in network.servers().enumerated() {
        if network.reaches(url.base()) {
            for item in items.clone() {
                lookups.request(server, *item);
                requests += 1;
            }
        }
    }
    requests
}

/// The store that the items of a server with this `nix-cache-info` are for, if it is another one.
fn other_store(cache_info: &str, store_dir: &StoreDir) -> Option<OtherStore> {
    let theirs = CacheInfo::parse(cache_info).store_dir?;
    (theirs != store_dir.as_str()).then(|| OtherStore {
        theirs: theirs.into(),
        ours: store_dir.as_str().into(),
    })
}

/// The narinfo in an answer, of whatever item.
fn parsed(
    answer: Result<NarInfoAnswer, HttpError>,
    store_dir: &StoreDir,
) -> Result<NarInfo, LookupOutcome> {
    let text = match answer {
        Ok(NarInfoAnswer::Found { text, .. }) => text,
        Ok(NarInfoAnswer::Missing { status, .. }) => return Err(LookupOutcome::Missing(status)),
        Ok(NarInfoAnswer::Preparing { status, .. }) => {
            return Err(LookupOutcome::Preparing(status));
        }
        Err(error) => {
            let failure = LookupFailure::Request(Arc::new(error));
            return Err(LookupOutcome::NoResponse(failure));
        }
    };

    let unreadable = match String::from_utf8(text) {
        Err(_) => UnreadableNarInfo::NotUtf8,
        Ok(text) => match NarInfo::parse(text, store_dir) {
            Ok(narinfo) => return Ok(narinfo),
            Err(error) => UnreadableNarInfo::Invalid(error),
        },
    };
    Err(LookupOutcome::Unreadable(unreadable))
}

/// What `answer` claims of `item`.
fn claim_of(item: &StorePath, answer: &Result<NarInfo, LookupOutcome>) -> Claim {
    let narinfo = answer.as_ref().map_err(Clone::clone)?;
    let answered = narinfo.store_path();
    if answered == item.as_ref() {
        return Ok(Arc::new(NarClaim {
            nar_hash: narinfo.nar_hash(),
            offer: NarOffer::of(narinfo),
        }));
    }
    Err(LookupOutcome::Refused(Refusal::WrongItem {
        asked: item.clone(),
        answered: answered.to_path(),
        is_signed: false,
    }))
}
