//! Lookups: items x servers -> lookup cache -> servers -> trust.
//!
//! One thread (the `engine`) keeps the state; answers arrive from `http`, are checked on as
//! many threads as there are cores, and go to the lookup cache in batches. Callers hold a
//! [`Resolver`] and may use it from several threads; an item is requested once for all of them.
//! Closures are walked as answers arrive: the references of an item are requested the moment
//! they are known, so a closure takes as many round trips as it is deep and no more.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded, unbounded};

use crate::format::narinfo::NarInfo;
use crate::format::store_path::StorePath;
use crate::substitute::cancel::Cancel;
use crate::substitute::lookup::engine::{LookupEngine, LookupMessage};
use crate::substitute::lookup::options::{
    LookupObserver, LookupScope, RequiredServers, ResolverSetup,
};
use crate::substitute::lookup::resolution::{Resolution, ResolveError};

/// Looks items up. Dropping it writes the pending entries to the lookup cache.
pub(crate) struct Resolver {
    messages: Option<Sender<LookupMessage>>,
    engine: Option<JoinHandle<()>>,
    cancel: Cancel,
}

impl Resolver {
    /// Starts the engine.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(crate) fn new(setup: ResolverSetup) -> std::io::Result<Self> {
        let (messages, inbox) = unbounded();
        let cancel = setup.cancel.clone();
        let engine = LookupEngine::new(setup, messages.clone())?;
        let engine = std::thread::Builder::new()
            .name("lookup".to_owned())
            .spawn(move || engine.run(&inbox))?;
        Ok(Self {
            messages: Some(messages),
            engine: Some(engine),
            cancel,
        })
    }

    /// What the servers have of `items`; blocks until every item is decided.
    ///
    /// # Errors
    /// The user interrupted, or the engine has died.
    pub(crate) fn resolve(
        &self,
        items: Vec<StorePath>,
        walk: LookupScope,
    ) -> Result<Resolution, ResolveError> {
        self.resolve_and_observe(items, walk, None)
    }

    /// The same; `observer` receives each item when it is decided.
    ///
    /// # Errors
    /// As for [`Resolver::resolve`].
    pub(crate) fn resolve_and_observe(
        &self,
        items: Vec<StorePath>,
        walk: LookupScope,
        observer: Option<LookupObserver>,
    ) -> Result<Resolution, ResolveError> {
        let (reply, answer) = bounded(1);
        self.send(LookupMessage::Resolve {
            items,
            walk,
            reply: Some(reply),
            observer,
        });
        loop {
            match answer.recv_timeout(CANCEL_TICK) {
                Ok(resolution) => return Ok(resolution),
                Err(_) if self.cancel.is_canceled() => return Err(ResolveError::Interrupted),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(ResolveError::ThreadEnded),
            }
        }
    }

    /// What all servers have of `items`, those too that were not needed to decide about them.
    ///
    /// # Errors
    /// As for [`Resolver::resolve`].
    pub(crate) fn resolve_on_all_servers(
        &self,
        items: Vec<StorePath>,
    ) -> Result<Resolution, ResolveError> {
        self.resolve_on(items, RequiredServers::All)
    }

    /// The same, but without waiting for servers that are down or slow where another one has the item.
    ///
    /// # Errors
    /// As for [`Resolver::resolve`].
    pub(crate) fn resolve_on_responsive_servers(
        &self,
        items: Vec<StorePath>,
    ) -> Result<Resolution, ResolveError> {
        self.resolve_on(items, RequiredServers::Responsive)
    }

    fn resolve_on(
        &self,
        items: Vec<StorePath>,
        required: RequiredServers,
    ) -> Result<Resolution, ResolveError> {
        self.send(LookupMessage::QueryServers {
            items: items.clone(),
            required,
        });
        self.resolve(items, LookupScope::ItemsOnly)
    }

    /// Looks `items` up in the background, so that a later [`Resolver::resolve`] has them.
    pub(crate) fn prefetch(&self, items: Vec<StorePath>, walk: LookupScope) {
        self.send(LookupMessage::Resolve {
            items,
            walk,
            reply: None,
            observer: None,
        });
    }

    /// Discards everything about `item`, here and in the lookup cache: its narinfo is stale.
    pub(crate) fn discard(&self, item: StorePath) {
        self.send(LookupMessage::Discard { item });
    }

    /// Removes `item` from the lookup cache, so that later runs request it; what is known
    /// here stays.
    pub(crate) fn remove_cached(&self, item: StorePath) {
        self.send(LookupMessage::RemoveCached { item });
    }

    /// Goes by other narinfos of `item` from now on than `narinfos` and equivalent ones, whose
    /// nars cannot be had.
    pub(crate) fn reject(&self, item: StorePath, narinfos: Vec<Arc<NarInfo>>) {
        self.send(LookupMessage::Reject { item, narinfos });
    }

    /// Begins to write the pending cache entries, while the caller finishes other work.
    /// Lookups after this get no answer; dropping waits for the end.
    pub(crate) fn finish(&self) {
        self.send(LookupMessage::Finish);
    }

    fn send(&self, message: LookupMessage) {
        if let Some(messages) = &self.messages {
            // Fails only when the engine has died; a caller that waits learns it by its reply.
            let _ = messages.send(message);
        }
    }
}

/// How often a caller that waits for answers checks whether the user interrupted.
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
