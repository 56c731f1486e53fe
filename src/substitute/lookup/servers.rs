//! The servers of a run: what is known of each, whether it can be used, how it is doing.

use std::time::{Duration, Instant};

use crate::format::cache_info::CacheInfo;
use crate::format::server_list::PerServer;
use crate::format::server_url::ServerUrl;
use crate::format::store_path::StoreDir;
use crate::http::{self, RetryLimits, ServerProperty, ServerSpec};
use crate::lookup_cache::{Pipelining, ServerBehavior, ServerFact, ServerFacts, ServerRow};
use crate::substitute::lookup::options::{Freshness, ResolverSetup};
use crate::substitute::outcome::{LookupFailure, LookupOutcome, OtherStore};
use crate::substitute::progress::ServerProgress;

/// How a server is doing.
#[derive(Debug, Clone)]
pub(crate) enum ServerState {
    /// It was not needed.
    NotNeeded,
    /// It answers.
    Up,
    /// It does not, and why.
    Down(LookupFailure),
    /// It was down a short time ago and was not queried, and why.
    Skipped(LookupFailure),
    /// It was silent longer than allowed, so other servers were preferred.
    Slow,
    /// Its items are for another store directory.
    OtherStore(OtherStore),
}

impl ServerState {
    /// The name for scripts and people.
    #[must_use]
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::NotNeeded => "not-asked",
            Self::Up => "up",
            Self::Down(_) => "down",
            Self::Skipped(_) => "skipped",
            Self::Slow => "slow",
            Self::OtherStore(_) => "other-store",
        }
    }

    /// Why, when there is a why.
    #[must_use]
    pub(crate) fn reason(&self) -> Option<String> {
        match self {
            Self::Down(why) | Self::Skipped(why) => Some(why.to_string()),
            Self::OtherStore(why) => Some(why.to_string()),
            Self::Slow => Some(LookupFailure::NotAwaited.to_string()),
            Self::NotNeeded | Self::Up => None,
        }
    }
}

/// What a run learned of a server.
#[derive(Debug, Clone)]
pub(crate) struct ServerReport {
    /// Its address, without credentials.
    pub(crate) url: String,
    /// Its `nix-cache-info`, if that is known.
    pub(crate) info: Option<CacheInfo>,
    /// Whether it answered that it has none.
    pub(crate) lacks_cache_info: bool,
    /// How it is doing.
    pub(crate) state: ServerState,
}

pub(super) struct LookupServer {
    pub(super) url: ServerUrl,
    pub(super) row: ServerRow,
    pub(super) facts: ServerFacts,
    pub(super) info: Option<CacheInfo>,
    pub(super) state: ServerState,
    /// Whether it answered that it has no `nix-cache-info`.
    pub(super) lacks_cache_info: bool,
    /// Whether it was reported that the address may be wrong, or found that it is right.
    pub(super) is_address_settled: bool,
    /// Answers it gave in this run.
    pub(super) answers: u64,
    /// For how long it kept items waiting by being late, in this run.
    pub(super) late_for: Duration,
    /// Until when it is not used, in Unix seconds, if the process goes on for so long.
    pub(super) skipped_until: Option<u64>,
    /// Whether the lookup cache says that it is down.
    is_recorded_down: bool,
    outstanding: u64,
    quiet_since: Instant,
    /// How long its first sign of life took.
    first_answer: Option<Duration>,
}

impl LookupServer {
    /// The server at `url`, with what the lookup cache has of it.
    pub(super) fn load(url: &ServerUrl, setup: &mut ResolverSetup) -> Self {
        let now = setup.clock.unix_seconds();
        let row = setup.cache.server_row(url.as_str());
        let facts = setup.cache.server_facts(row).unwrap_or_else(|error| {
            setup.warn(&error);
            ServerFacts::default()
        });
        let mut server = Self {
            url: url.clone(),
            row,
            info: None,
            state: ServerState::NotNeeded,
            lacks_cache_info: false,
            is_address_settled: false,
            answers: 0,
            late_for: Duration::ZERO,
            skipped_until: None,
            is_recorded_down: false,
            outstanding: 0,
            quiet_since: Instant::now(),
            first_answer: None,
            facts,
        };

        let known = server
            .facts
            .cache_info
            .take()
            .filter(|known| known.is_fresh(now));
        if let Some(known) = known.filter(|_| setup.options.freshness != Freshness::Refresh) {
            let text = known.text.as_deref().unwrap_or_default();
            server.learn_info(text, &setup.store_dir);
            server.lacks_cache_info = known.text.is_none();
            if matches!(server.state, ServerState::OtherStore(_)) {
                server.skipped_until = Some(known.expires_at);
            }
        }

        if let Some(down) = server.facts.down.take().filter(|down| down.is_down(now)) {
            tracing::debug!(
                server = server.url.as_str(),
                reason = &*down.reason,
                "skipping the server, which was down a short time ago"
            );
            server.state = ServerState::Skipped(LookupFailure::Cached(down.reason));
            server.skipped_until = Some(down.until);
            server.is_recorded_down = true;
        }
        server
    }

    /// Whether it was down a short time ago and is not used.
    pub(super) fn is_skipped(&self) -> bool {
        matches!(self.state, ServerState::Skipped(_))
    }

    /// Whether it was slow a short time ago, and is not used where another server has an item.
    pub(super) fn was_slow(&self) -> bool {
        matches!(&self.state, ServerState::Skipped(why) if why.is_slowness())
    }

    /// Uses it although it was down a short time ago.
    pub(super) fn use_after_all(&mut self) {
        tracing::debug!(
            server = self.url.as_str(),
            "using the skipped server after all"
        );
        self.state = ServerState::NotNeeded;
    }

    /// Uses it again if the time of not using it is over; whether it is.
    pub(super) fn end_skip(&mut self, now: u64) -> bool {
        let is_over = self.skipped_until.take_if(|until| *until <= now).is_some();
        if is_over {
            // It may have items for another store by now.
            (self.state, self.info) = (ServerState::NotNeeded, None);
        }
        is_over
    }

    /// Records the server's `nix-cache-info`.
    pub(super) fn learn_info(&mut self, text: &str, store_dir: &StoreDir) {
        let info = CacheInfo::parse(text);
        if let Some(other) = info
            .store_dir
            .as_ref()
            .filter(|dir| *dir != store_dir.as_str())
        {
            self.state = ServerState::OtherStore(OtherStore {
                theirs: other.as_str().into(),
                ours: store_dir.as_str().into(),
            });
        }
        self.info = Some(info);
    }

    /// What the connection has to know of the server, which is waited for within the limits, if there are any.
    pub(super) fn spec(&self, retry_limits: Option<RetryLimits>) -> ServerSpec {
        ServerSpec {
            url: self.url.clone(),
            cache_info: self.info.clone(),
            pipelining: match self.facts.behavior.pipelining {
                None => http::PipeliningSupport::Untested,
                Some(Pipelining::Works) => http::PipeliningSupport::Works,
                Some(Pipelining::Broken) => http::PipeliningSupport::Broken,
            },
            requests_per_connection: self.facts.behavior.requests_per_connection,
            timeouts: None,
            retry_limits: retry_limits.unwrap_or(RetryLimits::NONE),
            fails_at_once: retry_limits.is_some_and(RetryLimits::allow_none),
        }
    }

    /// What stands in for its answers when it is not used.
    pub(super) fn skip_outcome(&self) -> Option<LookupOutcome> {
        match &self.state {
            ServerState::Down(why) | ServerState::Skipped(why) => {
                Some(LookupOutcome::Skipped(why.clone()))
            }
            ServerState::OtherStore(why) => Some(LookupOutcome::OtherStore(why.clone())),
            ServerState::NotNeeded | ServerState::Up | ServerState::Slow => None,
        }
    }

    pub(super) fn requested(&mut self) {
        if self.outstanding == 0 {
            self.quiet_since = Instant::now();
        }
        self.outstanding += 1;
    }

    pub(super) fn answered(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.note_response();
    }

    pub(super) fn note_response(&mut self) {
        self.first_answer
            .get_or_insert_with(|| self.quiet_since.elapsed());
        self.quiet_since = Instant::now();
        if matches!(
            self.state,
            ServerState::NotNeeded | ServerState::Slow | ServerState::Skipped(_)
        ) {
            self.state = ServerState::Up;
            self.skipped_until = None;
        }
    }

    /// How long its first sign of life took, if there was one.
    pub(super) fn first_answer(&self) -> Option<Duration> {
        self.first_answer
    }

    /// Later runs skip it for a while.
    pub(super) fn mark_down(&mut self, state: ServerState) {
        tracing::debug!(
            server = self.url.as_str(),
            state = state.name(),
            reason = state.reason(),
            "later runs skip the server for a while"
        );
        self.state = state;
        self.is_recorded_down = true;
    }

    /// Whether the lookup cache says that it is down.
    pub(super) fn is_recorded_down(&self) -> bool {
        self.is_recorded_down
    }

    /// Whether the server answers although the lookup cache says that it is down; true once.
    pub(super) fn clears_down_record(&mut self) -> bool {
        matches!(self.state, ServerState::Up) && std::mem::take(&mut self.is_recorded_down)
    }

    /// How many answers it owes.
    pub(super) fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// Whether the server owes answers and had been silent for `limit` at `now`.
    pub(super) fn is_slow(&self, limit: Duration, now: Instant) -> bool {
        self.outstanding > 0 && now.saturating_duration_since(self.quiet_since) >= limit
    }

    /// An answer that was owed will not come.
    pub(super) fn note_failure(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
    }

    pub(super) fn progress(&self) -> ServerProgress<'_> {
        ServerProgress {
            url: self.url.as_str(),
            state: self.state.name(),
            answered: self.answers,
            waiting: self.outstanding,
        }
    }

    pub(super) fn report(&self) -> ServerReport {
        ServerReport {
            url: self.url.as_str().to_owned(),
            info: self.info.clone(),
            lacks_cache_info: self.lacks_cache_info,
            state: self.state.clone(),
        }
    }
}

/// What was learned of how a server takes requests, as the lookup cache keeps it.
pub(super) fn fact(property: ServerProperty) -> ServerFact {
    let mut behavior = ServerBehavior::default();
    match property {
        ServerProperty::Pipelining(http::PipeliningSupport::Works) => {
            behavior.pipelining = Some(Pipelining::Works);
        }
        ServerProperty::Pipelining(http::PipeliningSupport::Broken) => {
            behavior.pipelining = Some(Pipelining::Broken);
        }
        ServerProperty::Pipelining(http::PipeliningSupport::Untested) => {}
        ServerProperty::RequestsPerConnection(count) => {
            behavior.requests_per_connection = Some(count)
        }
        ServerProperty::Protocol(protocol) => behavior.protocol = Some(protocol.name().into()),
    }
    ServerFact::Behavior(behavior)
}

/// Gives the network what earlier runs have found out about each server.
pub(super) fn load_download_facts(servers: &PerServer<LookupServer>, setup: &mut ResolverSetup) {
    let now = setup.clock.unix_seconds();
    for (index, server) in servers.enumerated() {
        if server.is_recorded_down() {
            setup.network.health().prefer_others(index);
        }
        match setup.cache.line_rate(server.row) {
            Ok(Some(rate)) if rate.is_fresh(now) => {
                let network = &setup.network;
                network.note_earlier_rate(index, rate.bytes_per_second);
            }
            Ok(_) => {}
            Err(error) => setup.warn(&error),
        }
    }
}

/// Uses servers that were down a short time ago: when all were, so that there is none to prefer,
/// and for a refresh, which is meant for all servers.
pub(super) fn use_skipped(servers: &mut [LookupServer], freshness: Freshness) {
    if freshness == Freshness::Refresh || servers.iter().all(LookupServer::is_skipped) {
        for server in servers.iter_mut().filter(|server| server.is_skipped()) {
            server.use_after_all();
        }
    }
}
