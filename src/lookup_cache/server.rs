//! What is remembered of a server itself.

use super::entry::counts;

/// A server's number in this cache; of use only with the [`LookupCache`](super::LookupCache)
/// that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub(super) i64);

/// All that is remembered of a server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerFacts {
    /// Its `nix-cache-info`.
    pub cache_info: Option<CacheInfoFact>,
    /// When it last could not be reached.
    pub down: Option<Down>,
    /// How it takes requests.
    pub behavior: Behavior,
}

/// One thing learned of a server. Each is kept on its own, so that processes that learn
/// different things do not undo each other's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerFact {
    /// It answered the question for its `nix-cache-info`.
    CacheInfo(CacheInfoFact),
    /// It cannot be reached, and is not to be tried for a while.
    Down(Down),
    /// It answers again. When it was last down stays known.
    Up,
    /// How it takes requests. What is `None` here stays as it was known.
    Behavior(Behavior),
}

/// A server's `nix-cache-info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheInfoFact {
    /// Its text; `None` when the server has no such file.
    pub text: Option<Box<str>>,
    /// When it was asked for, in Unix seconds.
    pub asked_at: u64,
    /// From when on it does not count any more.
    pub expires_at: u64,
}

impl CacheInfoFact {
    /// Whether it counts at `now`.
    #[must_use]
    pub fn is_fresh(&self, now: u64) -> bool {
        counts(self.asked_at, self.expires_at, now)
    }
}

/// A time when a server could not be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Down {
    /// When that was found, in Unix seconds.
    pub since: u64,
    /// When it may be tried again.
    pub until: u64,
    /// What went wrong, in words.
    pub reason: Box<str>,
}

impl Down {
    /// Whether the server is still not to be tried at `now`.
    #[must_use]
    pub fn is_down(&self, now: u64) -> bool {
        counts(self.since, self.until, now)
    }
}

/// How a server takes requests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Behavior {
    /// Whether it answers requests that come before the answers to earlier ones.
    pub pipelining: Option<Pipelining>,
    /// After how many requests it closes a connection.
    pub requests_per_connection: Option<u32>,
    /// The protocol it chose, such as `h2`.
    pub protocol: Option<Box<str>>,
}

/// Whether requests can be pipelined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipelining {
    /// They can.
    Works,
    /// It answers out of step, drops requests or closes the connection.
    Broken,
}
