//! How items are looked up, and with what.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::format::server_url::ServerUrl;
use crate::format::store_path::{StoreDir, StorePath};
use crate::lookup_cache::{LookupCache, TtlPolicy};
use crate::substitute::cancel::Cancel;
use crate::substitute::clock::Clock;
use crate::substitute::network::Network;
use crate::substitute::progress::Progress;
use crate::trust::acl::AuthorizedKeys;

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
    /// A remembered verdict on exactly this text counts while its key is authorized: enough
    /// for reports.
    ReuseRecorded,
    /// Every signature is checked: for everything that changes a store.
    Always,
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
    /// A remembered "no" older than this is asked again; `None` believes it until it expires.
    pub(crate) negative_max_age: Option<u64>,
    /// Whether servers remembered as down are asked when nobody else has an item.
    pub(crate) retry_down: bool,
    /// How long a server may be silent while another one has answered with authority.
    pub(crate) lag: Duration,
    /// For how many seconds a server that is down is left alone by later runs.
    pub(crate) down_seconds: u64,
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

/// Tells which of some items need not be looked up.
pub(crate) type SkipFilter = Arc<dyn Fn(&[StorePath]) -> HashSet<StorePath> + Send + Sync>;

/// Everything a [`crate::substitute::lookup::Resolver`] works with.
pub(crate) struct ResolverSetup {
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
