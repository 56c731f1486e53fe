//! What the caller sets: limits, timeouts, proxies, certificates, servers.
//!
//! Nothing in this layer reads the environment; the command line fills these in.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::credentials::Credentials;
use super::limit::RateLimit;
use super::lines::LineMeters;
use super::patience::RetryLimits;
use super::proxies::Proxies;
use super::rate::MinimumRate;
use super::retry::RetryPolicy;
use crate::format::cache_info::CacheInfo;
use crate::format::server_url::ServerUrl;

/// Whether the certificates of servers are verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum TlsVerification {
    /// They are.
    #[default]
    Verify,
    /// Any certificate is accepted: what is fetched is verified by its signatures.
    Insecure,
}

/// A file or directory of trusted certificates that the user named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificatePath {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Whether it is a directory, of which every file may have certificates.
    pub(crate) is_directory: bool,
    /// What named it, for messages.
    pub(crate) named_by: String,
}

/// Settings of a [`Client`](super::client::Client).
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// How long connecting may take, per address.
    pub(crate) connect_timeout: Duration,
    /// How long a server may send nothing while a response is due.
    pub(crate) stall_timeout: Duration,
    /// Other timeouts than these two, for what is below the URLs of these servers.
    pub(crate) server_timeouts: Vec<(ServerUrl, Timeouts)>,
    /// How long one response to a lookup, or the head of another, may take in all, redirects
    /// included, even if its bytes keep coming.
    pub(crate) answer_timeout: Duration,
    /// The lowest rate at which a nar may arrive.
    pub(crate) minimum_rate: MinimumRate,
    /// Measures how fast servers send.
    pub(crate) lines: LineMeters,
    /// The highest rate of all nars together.
    pub(crate) rate_limit: Option<RateLimit>,
    /// The most lookups in flight on one connection.
    pub(crate) max_in_flight: usize,
    /// The most connections to a server that welcomes many lookups.
    pub(crate) mass_query_connections: usize,
    /// Whether the certificates of servers are verified.
    pub(crate) verify_tls: TlsVerification,
    /// The proxies to use.
    pub(crate) proxies: Proxies,
    /// The value of `User-Agent`.
    pub(crate) user_agent: String,
    /// The largest narinfo, or `nix-cache-info`, that is accepted.
    pub(crate) narinfo_limit_bytes: u64,
    /// How long lookups are not redirected to a server that is down: they fail at once.
    pub(crate) target_skip_time: Duration,
    /// When failed requests are repeated.
    pub(crate) retry_policy: RetryPolicy,
    /// What is sent to servers to prove who the user is.
    pub(crate) credentials: Credentials,
    /// Where the trusted certificates are, instead of the system's places; empty: those.
    pub(crate) certificate_paths: Vec<CertificatePath>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(15),
            server_timeouts: Vec::new(),
            answer_timeout: Duration::from_secs(60),
            minimum_rate: MinimumRate::default(),
            rate_limit: None,
            lines: LineMeters::default(),
            max_in_flight: 1000,
            mass_query_connections: 4,
            verify_tls: TlsVerification::Verify,
            proxies: Proxies::default(),
            user_agent: concat!("subst/", env!("CARGO_PKG_VERSION")).to_owned(),
            narinfo_limit_bytes: 1 << 20,
            target_skip_time: Duration::from_secs(60),
            retry_policy: RetryPolicy::default(),
            credentials: Credentials::default(),
            certificate_paths: Vec::new(),
        }
    }
}

impl Options {
    /// The timeouts of servers that have none of their own.
    pub(super) fn timeouts(&self) -> Timeouts {
        Timeouts {
            connect: self.connect_timeout,
            stall: self.stall_timeout,
        }
    }

    /// The timeouts for what is at `url`: those of the server that it lies below, the nearest
    /// when several share a host.
    pub(super) fn timeouts_of(&self, url: &Url) -> Timeouts {
        self.server_timeouts
            .iter()
            .filter(|(server, _)| server.contains(url))
            .max_by_key(|(server, _)| server.base().path().len())
            .map_or_else(|| self.timeouts(), |(_, timeouts)| *timeouts)
    }

    /// The same without waits that overflow the clock, and with at least one request in flight.
    pub(super) fn bounded(mut self) -> Self {
        for (_, timeouts) in &mut self.server_timeouts {
            *timeouts = timeouts.bounded();
        }
        let Timeouts { connect, stall } = self.timeouts().bounded();
        (self.connect_timeout, self.stall_timeout) = (connect, stall);
        self.answer_timeout = self.answer_timeout.min(FOREVER);
        self.max_in_flight = self.max_in_flight.max(1);
        let policy = &mut self.retry_policy;
        for wait in [&mut policy.base, &mut policy.overload_base, &mut policy.cap] {
            *wait = (*wait).min(FOREVER);
        }
        policy.retry_after_cap = policy.retry_after_cap.min(FOREVER);
        self
    }
}

/// How long to wait for one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// For connecting, per address.
    pub(crate) connect: Duration,
    /// For the next byte while a response is due.
    pub(crate) stall: Duration,
}

impl Timeouts {
    /// The same without waits that overflow the clock.
    pub(super) fn bounded(self) -> Self {
        Self {
            connect: self.connect.min(FOREVER),
            stall: self.stall.min(FOREVER),
        }
    }
}

/// A server, and what is known of it from earlier runs.
#[derive(Debug, Clone)]
pub(crate) struct ServerSpec {
    /// Where it is.
    pub(crate) url: ServerUrl,
    /// Its `nix-cache-info`; none: it is fetched together with the first lookup.
    pub(crate) cache_info: Option<CacheInfo>,
    /// Whether it supports pipelining.
    pub(crate) pipelining: PipeliningSupport,
    /// After how many responses it closes a connection, if that was seen.
    pub(crate) requests_per_connection: Option<u32>,
    /// Other timeouts than those of [`Options`].
    pub(crate) timeouts: Option<Timeouts>,
    /// How long lookups wait for it when it has answered some and then fails as a whole.
    pub(crate) retry_limits: RetryLimits,
    /// Whether a request that it refuses for being overloaded, or fails with another passing status, is not sent again.
    pub(crate) fails_at_once: bool,
}

impl ServerSpec {
    /// A server without earlier knowledge.
    #[must_use]
    pub(crate) fn new(url: ServerUrl) -> Self {
        Self {
            url,
            cache_info: None,
            pipelining: PipeliningSupport::Untested,
            requests_per_connection: None,
            timeouts: None,
            retry_limits: RetryLimits::NONE,
            fails_at_once: false,
        }
    }
}

/// Whether a server answers pipelined HTTP/1.1 requests in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PipeliningSupport {
    /// Unknown: it is tried.
    Untested,
    /// It does.
    Works,
    /// It does not: one request at a time.
    Broken,
}

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1, pipelined where the server supports it.
    Http1,
    /// HTTP/2, multiplexed.
    Http2,
    /// None: a directory is read.
    File,
}

impl Protocol {
    /// Its name in TLS, `file` for a directory.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http/1.1",
            Self::Http2 => "h2",
            Self::File => "file",
        }
    }
}

/// The most fields in the head of a response.
pub(super) const HEADER_FIELDS_MAX: usize = 512;

/// A practically endless wait that can still be added to a time.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_one_host_have_timeouts_of_their_own() {
        let servers = [("http://h/a", 1), ("http://h/a/b", 2), ("http://i", 3)];
        let own_timeouts = servers.map(|(url, seconds)| {
            let (connect, stall) = (Duration::from_secs(seconds), Duration::from_secs(seconds));
            (ServerUrl::parse(url).unwrap(), Timeouts { connect, stall })
        });
        let options = Options {
            stall_timeout: Duration::from_secs(9),
            server_timeouts: own_timeouts.to_vec(),
            ..Options::default()
        };
        for (url, seconds) in [
            ("http://h/a/", 1),
            ("http://h/a/x.narinfo", 1),
            ("http://h/a/b/nar/x", 2),
            ("http://h/ab/x.narinfo", 9),
            ("http://h/x.narinfo", 9),
            ("https://h/a/x.narinfo", 9),
            ("http://i/c/x.narinfo", 3),
        ] {
            let stall = options.timeouts_of(&Url::parse(url).unwrap()).stall;
            assert_eq!(stall, Duration::from_secs(seconds), "{url}");
        }
    }
}
