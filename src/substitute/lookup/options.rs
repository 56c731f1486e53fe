//! How items are looked up, and with what.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::format::server_list::PerServer;
use crate::format::store_path::{StoreDir, StorePath};
use crate::http::RetryLimits;
use crate::lookup_cache::{CacheError, LookupCache, TtlPolicy};
use crate::substitute::cancel::Cancel;
use crate::substitute::clock::Clock;
use crate::substitute::item_lookup::ItemLookup;
use crate::substitute::network::Network;
use crate::substitute::progress::{Progress, ProgressEvent};
use crate::trust::acl::AuthorizedKeys;
use crate::trust::policy::TrustPolicy;

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
pub(crate) enum SignatureChecks {
    /// A cached check of exactly this text counts while its key is authorized: enough
    /// for reports.
    ReuseRecorded,
    /// Every signature is checked: for everything that changes a store.
    Always,
}

/// Which servers have to answer before an item is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RequiredServers {
    /// Those up to the first one in the user's order that has an authorized narinfo.
    UntilAuthorized,
    /// All but those that are down, or slow while another one has the item.
    Responsive,
    /// All but those that are down, or have kept votes waiting for too long: votes are counted.
    Reachable,
    /// All, those too that were skipped.
    All,
}

/// How long the answer of a server is waited for that can be done without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Another server has the item: until the server is late.
    Lag,
    /// Enough have voted, and the server may disagree: also for the time that it may keep votes waiting.
    Dissent,
    /// A vote may be missing: the same, but a server that is only slow, and not silent, is waited for as long as it takes.
    Vote,
}

/// How lookups are done.
#[derive(Debug, Clone)]
pub(crate) struct LookupOptions {
    /// Where answers come from.
    pub(crate) freshness: Freshness,
    /// What counts as a checked signature.
    pub(crate) signature_checks: SignatureChecks,
    /// How long answers count.
    pub(crate) ttl: TtlPolicy,
    /// A cached negative answer older than this many seconds is not used; `None`: until it expires.
    pub(crate) negative_max_age: Option<u64>,
    /// Whether servers recorded as down are used when no other server has an item.
    pub(crate) retry_down: bool,
    /// Whether items that are not available are looked up again when answers have expired, and servers that
    /// were down are used again: for a process that may go on for hours.
    pub(crate) renews_expired: bool,
    /// How long a server may be silent while another one has answered with authority.
    pub(crate) lag: Duration,
    /// How long a server that is late may keep votes waiting, in the whole run.
    pub(crate) vote_wait: Duration,
    /// For how many seconds a server that is down is not queried by later runs.
    pub(crate) down_seconds: u64,
    /// How long each server is waited for that has answered lookups and then fails as a whole; `None`: it is not.
    pub(crate) retry_limits: Option<PerServer<RetryLimits>>,
    /// Threads that check signatures.
    pub(crate) verifiers: usize,
}

/// Which items a request is about.
#[derive(Clone)]
pub(crate) enum LookupScope {
    /// Those given.
    ItemsOnly,
    /// Those given and everything they refer to, except what the function says is there
    /// already: it is given items and returns those to leave alone.
    Closure(Option<SkipFilter>),
}

/// Finds those of some items that need not be looked up.
pub(crate) type SkipFilter = Arc<dyn Fn(&[StorePath]) -> HashSet<StorePath> + Send + Sync>;

/// Receives each item of a lookup when it is decided, while others are looked up. It must not wait.
pub(crate) type LookupObserver = Arc<dyn Fn(&ItemLookup) + Send + Sync>;

/// Everything a [`crate::substitute::lookup::Resolver`] works with.
pub(crate) struct ResolverSetup {
    /// The store that items are for.
    pub(crate) store_dir: StoreDir,
    /// The authorized keys.
    pub(crate) keys: Arc<AuthorizedKeys>,
    /// How many of them have to agree.
    pub(crate) policy: Arc<TrustPolicy>,
    /// The lookup cache.
    pub(crate) cache: LookupCache,
    /// The servers, in the user's order; connected to only when a request is needed.
    pub(crate) network: Arc<Network>,
    /// Receives progress events.
    pub(crate) progress: Arc<dyn Progress>,
    /// The time.
    pub(crate) clock: Clock,
    /// How.
    pub(crate) options: LookupOptions,
    /// Raised when the user interrupts.
    pub(crate) cancel: Cancel,
}

impl ResolverSetup {
    /// Reports a failure of the lookup cache; lookups go on without it.
    pub(super) fn warn(&self, error: &CacheError) {
        self.progress
            .event(ProgressEvent::Warning(&error.warning()));
    }
}
