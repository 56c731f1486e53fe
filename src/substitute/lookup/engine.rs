//! The thread that keeps the state of all lookups.
//!
//! It never blocks on the network: events come in, are noted, and whatever follows from all
//! events at hand is done together, so that the lookup cache is read and written in batches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, never, select, tick};

use crate::format::narinfo::NarInfo;
use crate::format::server_list::PerServer;
use crate::format::store_path::{HashPart, StorePath, StorePathRef};
use crate::http::{LookupEvent, LookupEvents, Lookups, Queued};
use crate::lookup_cache::{CacheEntry, ServerRow};
use crate::substitute::lookup::item::NextStep;
use crate::substitute::lookup::items::{ItemIndex, LookupItems};
use crate::substitute::lookup::options::{
    LookupObserver, LookupScope, RequiredServers, ResolverSetup,
};
use crate::substitute::lookup::requests::LookupRequests;
use crate::substitute::lookup::resolution::Resolution;
use crate::substitute::lookup::servers::{self, LookupServer, load_download_facts, use_skipped};
use crate::substitute::lookup::verification::{UnverifiedText, VerificationResult, Verifier};
use crate::sync::Threads;
use crate::trust::verdict::Refusal;

/// How often silent servers are noticed, and the longest time before cache entries are written.
pub(super) const TICK: Duration = Duration::from_millis(50);
/// Items looked up in the lookup cache at once: each holds its text until it is checked.
const FRESH_BATCH: usize = 512;
/// Cache entries in one transaction, at most.
const CACHE_WRITE_BATCH: usize = 2000;
/// Events and messages taken before what follows from them is done.
const DRAINED_EVENTS: usize = 512;
const DRAINED_MESSAGES: usize = 64;
/// Batches of texts on their way to the checkers.
const TEXT_QUEUE: usize = 8;

pub(super) enum LookupMessage {
    Resolve {
        items: Vec<StorePath>,
        walk: LookupScope,
        reply: Option<Sender<Resolution>>,
        observer: Option<LookupObserver>,
    },
    VerificationResults(Vec<VerificationResult>),
    /// The check of some texts has panicked: what they are about stays unknown.
    VerifierFailed,
    Discard {
        item: StorePath,
    },
    RemoveCached {
        item: StorePath,
    },
    QueryServers {
        items: Vec<StorePath>,
        required: RequiredServers,
    },
    Reject {
        item: StorePath,
        narinfos: Vec<Arc<NarInfo>>,
    },
    Finish,
}

pub(super) struct LookupEngine {
    pub(super) setup: ResolverSetup,
    pub(super) servers: PerServer<LookupServer>,
    pub(super) items: LookupItems,
    /// Items about which nothing has been done yet.
    pub(super) fresh: VecDeque<ItemIndex>,
    pub(super) undecided: usize,
    pub(super) requests: LookupRequests,
    pub(super) lookups: Option<Lookups>,
    /// Kept as long as `events` is read.
    pub(super) listening: Option<LookupEvents>,
    /// Bounded in bytes by the HTTP client that fills it.
    pub(super) events: Receiver<Queued<LookupEvent>>,
    pub(super) texts: Option<Sender<Vec<UnverifiedText>>>,
    pub(super) text_batch: Vec<UnverifiedText>,
    verifiers: Threads,
    pub(super) pending_cache_entries: Vec<(ServerRow, HashPart, CacheEntry)>,
    /// Whether the lookup cache may have expired entries to be removed when there is nothing to do.
    pub(super) has_expired_entries: bool,
    pub(super) cache_hits: u64,
    pub(super) cache_misses: u64,
    /// When the first request was sent after no answer was owed.
    pub(super) asked_at: Instant,
    /// Since when servers that the user prefers to the one with authority are all that is
    /// waited for.
    pub(super) all_known_at: Option<Instant>,
    pub(super) is_impatient: bool,
    /// When no event was left to be taken: later silence may not be that of the servers.
    pub(super) events_taken_at: Instant,
    /// The progress last reported, and when.
    pub(super) last_reported: (Instant, (usize, usize)),
    /// Items that are used although they have too few votes, or dissent, until they are reported.
    pub(super) objections: Vec<(ItemIndex, Refusal)>,
}

impl LookupEngine {
    pub(super) fn new(
        mut setup: ResolverSetup,
        results: Sender<LookupMessage>,
    ) -> std::io::Result<Self> {
        let urls = Arc::clone(setup.network.servers());
        let servers = urls.iter().map(|url| LookupServer::load(url, &mut setup));
        let mut servers: PerServer<LookupServer> = servers.collect();
        load_download_facts(&servers, &mut setup);
        use_skipped(&mut servers, setup.options.freshness);

        let verifier = Verifier {
            store_dir: setup.store_dir.clone(),
            keys: setup.keys.clone(),
            scope: setup.policy.signature_scope(),
        };
        let (texts, inbox) = bounded(TEXT_QUEUE);
        let verifiers = verifier.start(setup.options.verifiers, inbox, move |verified| {
            let message = match verified {
                Some(verified) => LookupMessage::VerificationResults(verified),
                None => LookupMessage::VerifierFailed,
            };
            results.send(message).is_ok()
        })?;

        Ok(Self {
            setup,
            servers,
            items: LookupItems::default(),
            fresh: VecDeque::new(),
            undecided: 0,
            requests: LookupRequests::default(),
            lookups: None,
            listening: None,
            events: never(),
            texts: Some(texts),
            text_batch: Vec::new(),
            verifiers,
            pending_cache_entries: Vec::new(),
            has_expired_entries: true,
            cache_hits: 0,
            cache_misses: 0,
            asked_at: Instant::now(),
            all_known_at: None,
            is_impatient: false,
            events_taken_at: Instant::now(),
            last_reported: (Instant::now(), (0, 0)),
            objections: Vec::new(),
        })
    }

    pub(super) fn run(mut self, inbox: &Receiver<LookupMessage>) {
        let ticks = tick(TICK);
        loop {
            let is_idle = self.undecided == 0
                && self.pending_cache_entries.is_empty()
                && !self.has_expired_entries;
            let ticks = if is_idle { &never() } else { &ticks };
            let more = if self.fresh.is_empty() {
                select! {
                    recv(inbox) -> message => message.is_ok_and(|message| self.receive(message)),
                    recv(self.events) -> event => self.event(event),
                    recv(ticks) -> _ => { self.tick(); true }
                }
            } else {
                true
            };
            // What else is there already belongs to the same batch.
            if !more || !self.drain(inbox) {
                break;
            }
            self.settle();
        }

        self.write_cache();
        self.write_line_rates();
        self.write_failed_downloads();
        self.remove_some_expired();
        self.lookups = None;
        self.texts = None;
        drop(self.verifiers);
    }

    /// Takes what is there, up to a limit: what follows from it must not wait for ever.
    pub(super) fn drain(&mut self, inbox: &Receiver<LookupMessage>) -> bool {
        for event in self.events.clone().try_iter().take(DRAINED_EVENTS) {
            self.event(Ok(event));
        }
        self.note_events_taken();

        inbox
            .try_iter()
            .take(DRAINED_MESSAGES)
            .all(|message| self.receive(message))
    }

    /// Notes a message; whether there may be more.
    fn receive(&mut self, message: LookupMessage) -> bool {
        match message {
            LookupMessage::Resolve {
                items,
                walk,
                reply,
                observer,
            } => {
                let request = self.requests.open(walk, reply, observer);
                for path in items {
                    self.want(request, path);
                }
                self.complete(request);
            }
            LookupMessage::VerificationResults(batch) => {
                for result in batch {
                    self.handle_verified(result);
                }
            }
            LookupMessage::Discard { item } => self.discard(&item),
            LookupMessage::RemoveCached { item } => self.remove_cached(&item),
            LookupMessage::QueryServers { items, required } => {
                for item in &items {
                    self.require_servers(item, required);
                }
            }
            LookupMessage::Reject { item, narinfos } => self.reject(&item, narinfos),
            LookupMessage::VerifierFailed | LookupMessage::Finish => return false,
        }
        true
    }

    /// Notes what a server did.
    fn event(&mut self, event: Result<Queued<LookupEvent>, crossbeam_channel::RecvError>) -> bool {
        let Ok(event) = event else {
            self.events = never();
            return true;
        };

        let event = event.into_inner();
        if let LookupEvent::Answer {
            server,
            answer: Ok(_),
            ..
        }
        | LookupEvent::CacheInfo {
            server,
            info: Ok(_),
        } = &event
        {
            self.setup.network.health().answered(*server);
        }

        match event {
            LookupEvent::Answer {
                server,
                item,
                answer,
            } => self.answered(server, &item, answer),
            LookupEvent::CacheInfo { server, info } => self.cache_info(server, info),
            LookupEvent::ServerProperty { server, property } => {
                self.record_server_fact(server, servers::fact(property));
            }
            LookupEvent::ServerAwaited {
                server,
                error,
                failing_for,
            } => {
                let progress = &*self.setup.progress;
                let network = &self.setup.network;
                network.report_retry(progress, server, &error, failing_for);
            }
            LookupEvent::ServerDown { server, error } => self.server_down(server, error),
        }
        true
    }

    /// Adds `path` to the request, and to the items if it is new.
    pub(super) fn want(&mut self, request: usize, path: StorePath) {
        let item = self.enter(path);
        if !self.requests.add(request, item) {
            return;
        }
        self.renew_expired(item);

        if self.items[item].is_decided {
            self.decided_for(request, item);
        } else {
            self.items[item].waiting.push(request);
        }
    }

    /// Adds the references of a decided item to the request, if it walks a closure.
    fn follow(&mut self, request: usize, item: ItemIndex) {
        let Some(LookupScope::Closure(skip)) = self.requests.walk(request) else {
            return;
        };
        let Some(narinfo) = self.followed_narinfo(item) else {
            return;
        };

        let own = narinfo.store_path();
        let mut references: Vec<StorePath> = narinfo
            .references()
            .filter(|path| *path != own)
            .map(StorePathRef::to_path)
            .collect();
        if let Some(skip) = skip {
            let valid = skip(&references);
            references.retain(|path| !valid.contains(path));
        }

        for path in references {
            self.want(request, path);
        }
    }

    /// Answers the request if it waits for nothing any more.
    fn complete(&mut self, request: usize) {
        let Some(complete) = self.requests.take_complete(request) else {
            return;
        };
        self.report_doubtful_addresses();
        self.report_objections();
        let Some(reply) = complete.reply else { return };
        let items = complete.items.iter();
        let resolution = Resolution {
            items: items.map(|&item| self.items[item].lookup.found()).collect(),
            servers: self.servers.iter().map(LookupServer::report).collect(),
            cache_hits: self.cache_hits,
            cache_misses: self.cache_misses,
            requests: self.lookups.as_ref().map_or(0, Lookups::sent),
        };

        let count = resolution.items.len();
        self.send_progress(count, count);
        // Fails only when the caller has gone away.
        let _ = reply.send(resolution);
    }

    /// Does everything that follows from what has been noted.
    pub(super) fn settle(&mut self) {
        // A part at a time: the answers of the first come in while the next are looked up.
        let count = self.fresh.len().min(FRESH_BATCH);
        let fresh: Vec<ItemIndex> = self.fresh.drain(..count).collect();
        self.load_cached(&fresh);
        for item in fresh {
            self.advance(item);
        }

        self.send_texts();
        if self.pending_cache_entries.len() >= CACHE_WRITE_BATCH {
            self.write_cache();
        }
        self.report_progress();
    }

    /// Sends the requests that `item` needs, or notes that it is decided.
    pub(super) fn advance(&mut self, item: ItemIndex) {
        if self.items[item].is_decided {
            return;
        }
        match self.next_step(item) {
            NextStep::Wait => {}
            NextStep::Request(servers) => self.request(item, &servers),
            NextStep::Decided => self.decided(item),
        }
    }

    fn decided(&mut self, item: ItemIndex) {
        if self.reconsider(item) {
            return self.advance(item);
        }
        let now = self.setup.clock.unix_seconds();
        let entered = &mut self.items[item];
        (entered.is_decided, entered.decided_at) = (true, now);
        self.undecided -= 1;
        let objection = entered.lookup.objection().cloned();
        self.objections
            .extend(objection.map(|objection| (item, objection)));
        let waiting = std::mem::take(&mut entered.waiting);
        for server in entered.lookup.not_awaited() {
            self.not_awaited(server);
        }

        for request in waiting {
            self.decided_for(request, item);
            self.complete(request);
        }
    }

    /// Goes on with a request of which `item` is decided.
    fn decided_for(&mut self, request: usize, item: ItemIndex) {
        if let Some(observer) = self.requests.observer(request) {
            observer(&self.items[item].lookup.found());
        }
        self.follow(request, item);
        self.requests.decided(request);
    }
}
