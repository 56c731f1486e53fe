//! Lookups: items x servers -> lookup cache -> servers -> trust.
//!
//! One thread (the `engine`) keeps the books; answers arrive from `http`, are checked on as
//! many threads as there are cores, and go to the lookup cache in batches. Callers hold a
//! [`Resolver`] and may ask from several threads; an item is asked for once, whoever wants it.
//! Closures are walked as answers arrive: the references of an item are asked for the moment
//! they are known, so a closure takes as many round trips as it is deep and no more.

mod answers;
mod check;
mod engine;
mod item;
mod patience;
mod recall;
mod refused;
mod requests;
mod servers;

use std::collections::HashSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded, unbounded};

use crate::format::narinfo::NarInfo;
use crate::format::server_url::ServerUrl;
use crate::format::store_path::{StoreDir, StorePath};
use crate::lookup_cache::{LookupCache, TtlPolicy};
use crate::trust::acl::AuthorizedKeys;

use super::answer::Found;
use super::cancel::Cancel;
use super::clock::Clock;
use super::network::Network;
use super::progress::Progress;

use engine::{Engine, Message};

pub(crate) use servers::ServerReport;

/// Whether answers come from the lookup cache, from servers, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// The lookup cache where it has a live entry, else the servers.
    Cached,
    /// The servers; the lookup cache is renewed.
    Refresh,
    /// Nothing but the lookup cache.
    Offline,
}

/// Whether a signature that was good before has to be checked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memos {
    /// A remembered verdict on exactly this text counts while its key is authorized: enough
    /// for reports.
    Believe,
    /// Every signature is checked: for everything that changes a store.
    Recheck,
}

/// How lookups are done.
#[derive(Debug, Clone)]
pub(crate) struct LookupOptions {
    /// Where answers come from.
    pub(crate) freshness: Freshness,
    /// What counts as a checked signature.
    pub(crate) memos: Memos,
    /// How long answers count.
    pub(crate) ttl: TtlPolicy,
    /// A remembered "no" older than this is asked again; `None` believes it until it expires.
    pub(crate) negative_max_age: Option<u64>,
    /// Whether servers remembered as down are asked when nobody else has an item.
    pub(crate) retry_down: bool,
    /// How long a server may be silent while another one has answered with authority.
    pub(crate) lag: Duration,
    /// For how many seconds a server that is down is left alone by later runs.
    pub(crate) down_seconds: u64,
    /// Threads that check signatures.
    pub(crate) checkers: usize,
}

/// Which items a request is about.
#[derive(Clone)]
pub(crate) enum Walk {
    /// Those given.
    JustThese,
    /// Those given and everything they refer to, except what the function says is there
    /// already: it is given items and returns those to leave alone.
    Closure(Option<Skip>),
}

/// Tells which of some items need not be looked up.
pub(crate) type Skip = Arc<dyn Fn(&[StorePath]) -> HashSet<StorePath> + Send + Sync>;

/// What was found, in the order in which items came up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resolution {
    /// One for each item.
    pub(crate) items: Vec<Found>,
    /// One for each server, in the user's order.
    pub(crate) servers: Vec<ServerReport>,
    /// Answers that came from the lookup cache.
    pub(crate) cache_hits: u64,
    /// Answers that did not.
    pub(crate) cache_misses: u64,
    /// Requests sent to servers about items, each as often as it was sent.
    pub(crate) requests: u64,
}

/// Everything a [`Resolver`] works with.
pub(crate) struct Setup {
    /// The store that items are for.
    pub(crate) store_dir: StoreDir,
    /// Whom to believe.
    pub(crate) keys: Arc<AuthorizedKeys>,
    /// Whom to ask, in the user's order.
    pub(crate) servers: Vec<ServerUrl>,
    /// What is remembered.
    pub(crate) cache: LookupCache,
    /// How to reach servers; connected to only when somebody has to be asked.
    pub(crate) network: Arc<Network>,
    /// Whom to tell.
    pub(crate) progress: Arc<dyn Progress>,
    /// The time.
    pub(crate) clock: Clock,
    /// How.
    pub(crate) options: LookupOptions,
    /// Tells when the user wants to stop.
    pub(crate) cancel: Cancel,
}

/// Answers questions about items. Dropping it writes what is still to be remembered.
pub(crate) struct Resolver {
    messages: Option<Sender<Message>>,
    engine: Option<JoinHandle<()>>,
    cancel: Cancel,
}

impl Resolver {
    /// Starts the engine.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(crate) fn new(setup: Setup) -> std::io::Result<Self> {
        let (messages, inbox) = unbounded();
        let cancel = setup.cancel.clone();
        let engine = Engine::new(setup, messages.clone())?;
        let engine = std::thread::Builder::new()
            .name("lookup".to_owned())
            .spawn(move || engine.run(&inbox))?;
        Ok(Self {
            messages: Some(messages),
            engine: Some(engine),
            cancel,
        })
    }

    /// What the servers have of `items`; blocks until every item is decided, or the user wants
    /// to stop: then nothing was found.
    #[must_use]
    pub(crate) fn resolve(&self, items: Vec<StorePath>, walk: Walk) -> Resolution {
        let (reply, answer) = bounded(1);
        self.send(Message::Resolve {
            items,
            walk,
            reply: Some(reply),
        });
        loop {
            match answer.recv_timeout(CANCEL_TICK) {
                Ok(resolution) => return resolution,
                Err(RecvTimeoutError::Timeout) if !self.cancel.is_canceled() => {}
                // Canceled, or the engine has died of a panic, which its thread has reported.
                Err(_) => return Resolution::default(),
            }
        }
    }

    /// What all servers have of `item`, those too that were not needed to decide about it.
    #[must_use]
    pub(crate) fn resolve_everywhere(&self, item: StorePath) -> Resolution {
        self.send(Message::AskEverybody { item: item.clone() });
        self.resolve(vec![item], Walk::JustThese)
    }

    /// Looks `items` up in the background, so that a later [`Resolver::resolve`] has them.
    pub(crate) fn prefetch(&self, items: Vec<StorePath>, walk: Walk) {
        self.send(Message::Resolve {
            items,
            walk,
            reply: None,
        });
    }

    /// Forgets everything about `item`, here and in the lookup cache: its narinfo is stale.
    pub(crate) fn forget(&self, item: StorePath) {
        self.send(Message::Forget { item });
    }

    /// Forgets what the lookup cache has about `item`, so that later runs ask; what is known
    /// here stays.
    pub(crate) fn disbelieve(&self, item: StorePath) {
        self.send(Message::Disbelieve { item });
    }

    /// Goes by other narinfos of `item` from now on than `narinfos` and equivalent ones, whose
    /// nars cannot be had.
    pub(crate) fn reject(&self, item: StorePath, narinfos: Vec<Arc<NarInfo>>) {
        self.send(Message::Reject { item, narinfos });
    }

    /// Begins to write what is still to be remembered, while the caller puts other things away.
    /// Who asks after this gets no answer; dropping waits for the end.
    pub(crate) fn finish(&self) {
        self.send(Message::Finish);
    }

    fn send(&self, message: Message) {
        if let Some(messages) = &self.messages {
            // Fails only when the engine has died; the caller sees an empty resolution.
            let _ = messages.send(message);
        }
    }
}

/// How often somebody who waits for answers looks whether the user wants to stop.
const CANCEL_TICK: Duration = Duration::from_millis(100);

impl Drop for Resolver {
    fn drop(&mut self) {
        self.finish();
        self.messages = None;
        if let Some(engine) = self.engine.take() {
            // A panic was already reported by the thread itself.
            let _ = engine.join();
        }
    }
}

#[cfg(test)]
mod tests;
