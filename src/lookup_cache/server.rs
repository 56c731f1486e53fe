//! What is cached of a server itself.

use super::entry::counts;

/// The row of a server in this cache; of use only with the [`LookupCache`](super::LookupCache)
/// that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ServerRow(pub(super) i64);

/// All that is cached of a server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ServerFacts {
    /// Its `nix-cache-info`.
    pub(crate) cache_info: Option<CacheInfoRecord>,
    /// When it last could not be reached.
    pub(crate) down: Option<Downtime>,
    /// How it handles requests.
    pub(crate) behavior: ServerBehavior,
}

/// One thing learned of a server. Each is kept on its own, so that processes that learn
/// different things do not undo each other's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerFact {
    /// Its `nix-cache-info` was requested.
    CacheInfo(CacheInfoRecord),
    /// It cannot be reached, and is skipped for a while.
    Down(Downtime),
    /// It answers again. When it was last down is kept.
    Up,
    /// How it handles requests. What is `None` here stays as it was known.
    Behavior(ServerBehavior),
}

/// A server's `nix-cache-info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheInfoRecord {
    /// Its text; `None` when the server has no such file.
    pub(crate) text: Option<Box<str>>,
    /// When it was answered, in Unix seconds.
    pub(crate) answered_at: u64,
    /// From when on it does not count any more.
    pub(crate) expires_at: u64,
}

impl CacheInfoRecord {
    /// Whether it counts at `now`.
    #[must_use]
    pub(crate) fn is_fresh(&self, now: u64) -> bool {
        counts(self.answered_at, self.expires_at, now)
    }
}

/// A time when a server could not be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Downtime {
    /// When that was found, in Unix seconds.
    pub(crate) since: u64,
    /// Until when it is skipped.
    pub(crate) until: u64,
    /// What failed.
    pub(crate) reason: Box<str>,
}

impl Downtime {
    /// Whether the server is still skipped at `now`.
    #[must_use]
    pub(crate) fn is_down(&self, now: u64) -> bool {
        counts(self.since, self.until, now)
    }
}

/// How a server handles requests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ServerBehavior {
    /// Whether it answers requests that come before the answers to earlier ones.
    pub(crate) pipelining: Option<Pipelining>,
    /// After how many requests it closes a connection.
    pub(crate) requests_per_connection: Option<u32>,
    /// The protocol it chose, such as `h2`.
    pub(crate) protocol: Option<Box<str>>,
}

/// Whether requests can be pipelined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pipelining {
    /// They can.
    Works,
    /// It answers out of order, drops requests or closes the connection.
    Broken,
}
