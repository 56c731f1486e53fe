//! Retries of an item's downloads: which failures are waited out, how long, and how often.
//!
//! A server that has answered in this run and then fails is retried for a limited time without
//! progress, as long as no other server can serve. The waits double up to a few seconds, with
//! jitter. A server that has never answered gets a few quick retries and no more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::format::server_list::{PerServer, ServerIndex};
use crate::http::{FIRST_WAIT, HttpError, Outage, QUICK_RETRIES, RateDemand, RetryLimits, backoff};
use crate::substitute::cancel::Cancel;
use crate::substitute::item_lookup::NarSource;
use crate::substitute::network::Network;
use crate::substitute::progress::Progress;
use crate::substitute::servers::ServerHealth;
use crate::sync::lock;

/// What the retries of all items share.
#[derive(Clone)]
pub(crate) struct RetryContext {
    /// The servers, and what the run has seen of each.
    pub(crate) network: Arc<Network>,
    /// What limits the retries of each server.
    pub(crate) limits: PerServer<RetryLimits>,
    /// Receives the waits.
    pub(crate) progress: Arc<dyn Progress>,
    /// Ends every wait.
    pub(crate) cancel: Cancel,
}

/// Asks all servers for the item.
pub(crate) type FindSources = Box<dyn Fn() -> Vec<FoundSource> + Send + Sync>;

/// A server that has the item.
pub(crate) struct FoundSource {
    /// The server, and what it offers.
    pub(crate) source: NarSource,
    /// Whether it is the build whose narinfo was selected.
    pub(crate) is_same_build: bool,
}

/// The retries of one item.
pub(crate) struct ItemRetries {
    context: RetryContext,
    find_sources: FindSources,
    state: Mutex<RetryState>,
}

#[derive(Default)]
struct RetryState {
    /// Servers that have the item.
    servers: BTreeSet<ServerIndex>,
    /// It has been looked up on all servers.
    is_search_done: bool,
    /// Servers whose downloads of it are of no use.
    useless: BTreeSet<ServerIndex>,
    /// Since when nothing has come of it.
    failing_since: Option<Instant>,
    /// Waits since then.
    waits: u32,
    /// Something has come since the last wait.
    has_progressed: bool,
    /// When the last progress was made, or before it the first request.
    last_progress_at: Option<Instant>,
    /// The current download has joined the bytes of several responses.
    is_joined: bool,
    /// Where downloads that broke off were taken for complete.
    assumed_ends: Vec<(ServerIndex, u64)>,
    /// The current download was.
    has_assumed_end: bool,
}

/// For how long a server may send too little where the bytes can come another way.
pub(crate) const IMPATIENT_WINDOW: Duration = Duration::from_secs(3);
/// Bytes per second, of all transfers together, below which a server is left for another one.
const REPLACEABLE_RATE: u64 = 64 << 10;
/// No quick retry is made after this time without progress.
const QUICK_TIME: Duration = Duration::from_secs(2);
/// How often downloads from one server are taken for complete that broke off.
const ASSUMED_ENDS_MAX: usize = 2;
/// How often a wait looks whether it is still wanted.
const TICK: Duration = Duration::from_millis(50);

impl ItemRetries {
    /// Retries of an item, which further servers may have.
    #[must_use]
    pub(crate) fn new(context: RetryContext, find_sources: FindSources) -> Self {
        Self {
            context,
            find_sources,
            state: Mutex::default(),
        }
    }

    /// Starts the count for a file that only `server` has.
    #[must_use]
    pub(crate) fn of_server(context: &RetryContext, server: ServerIndex) -> Arc<Self> {
        let retries = Self::new(context.clone(), Box::new(Vec::new));
        retries.note_search([server]);
        Arc::new(retries)
    }

    /// What the run has seen of servers.
    #[must_use]
    pub(crate) fn health(&self) -> &Arc<ServerHealth> {
        self.context.network.health()
    }

    /// These servers have the item.
    pub(crate) fn add_servers(&self, servers: impl IntoIterator<Item = ServerIndex>) {
        self.state().servers.extend(servers);
    }

    /// All servers were asked for the item, and `servers` have it: there is no other to wait for.
    pub(crate) fn note_search(&self, servers: impl IntoIterator<Item = ServerIndex>) {
        let mut state = self.state();
        state.is_search_done = true;
        state.servers.extend(servers);
    }

    /// Whether all servers were asked for the item.
    #[must_use]
    pub(crate) fn has_searched(&self) -> bool {
        self.state().is_search_done
    }

    /// Much of a download from `server` has arrived.
    pub(crate) fn progressed(&self, server: ServerIndex) {
        self.health().recovered(server);
        self.ended(server);
    }

    /// The last bytes of a download from `server` have arrived, which may be few.
    pub(crate) fn ended(&self, server: ServerIndex) {
        self.health().delivered(server);
        let mut state = self.state();
        (state.failing_since, state.waits) = (None, 0);
        state.has_progressed = true;
        state.last_progress_at = Some(Instant::now());
    }

    /// A download from `server` has failed, for a reason that waiting does not help with unless
    /// there is an `outage`.
    pub(crate) fn failed(&self, server: ServerIndex, outage: Option<Outage>) {
        tracing::debug!(
            server = self.server_url(server),
            ?outage,
            "a download failed"
        );
        match outage {
            Some(outage) => self.context.network.health().failed(server, outage),
            None => drop(self.state().useless.insert(server)),
        }
    }

    /// The current download joins the bytes of several responses.
    pub(crate) fn note_joined(&self) {
        self.state().is_joined = true;
    }

    /// Whether the download that has ended joined the bytes of several responses.
    #[must_use]
    pub(crate) fn take_joined(&self) -> bool {
        std::mem::take(&mut self.state().is_joined)
    }

    /// Whether a download from `server`, which broke off after `received` bytes, is to be taken for complete
    /// although nothing says so. That costs what was received if it is not, so it is done a few times only,
    /// and not again where the server has broken off before.
    #[must_use]
    pub(crate) fn assume_end(&self, server: ServerIndex, received: u64) -> bool {
        let mut state = self.state();
        let earlier = state.assumed_ends.iter().filter(|(at, _)| *at == server);
        let last = earlier.clone().map(|(_, end)| *end).max();
        if earlier.count() >= ASSUMED_ENDS_MAX || received <= last.unwrap_or(0) {
            return false;
        }

        state.assumed_ends.push((server, received));
        state.has_assumed_end = true;
        true
    }

    /// Whether the download that has ended was taken for complete without a word of the server.
    #[must_use]
    pub(crate) fn take_assumed_end(&self) -> bool {
        std::mem::take(&mut self.state().has_assumed_end)
    }

    /// Whether a server that does not fail, other than `server`, is known to have the item.
    #[must_use]
    pub(crate) fn has_alternative(&self, server: ServerIndex) -> bool {
        self.has_other(server, |health, other| !health.is_failing(other))
    }

    /// Whether another server that `is_usable` is known to have the item.
    fn has_other(
        &self,
        server: ServerIndex,
        is_usable: impl Fn(&ServerHealth, ServerIndex) -> bool,
    ) -> bool {
        let state = self.state();
        state.servers.iter().any(|other| {
            *other != server
                && !state.useless.contains(other)
                && is_usable(self.context.network.health(), *other)
        })
    }

    /// What is demanded of `server` besides the minimum rate, where another server has the item, or
    /// was not asked whether it has it. Only a server that was never slow or silent justifies to leave
    /// one that is slow: else the line may be.
    #[must_use]
    pub(crate) fn rate_demand(&self, server: ServerIndex) -> Option<RateDemand> {
        let mut state = self.state();
        state.last_progress_at.get_or_insert_with(Instant::now);
        let may_search = self.context.network.servers().len() > 1 && !state.is_search_done;
        drop(state);

        let is_impatient = may_search || self.has_alternative(server);
        let is_replaceable = self.has_other(server, |health, other| !health.is_unreliable(other));
        is_impatient.then_some(RateDemand {
            bytes_per_second: if is_replaceable { REPLACEABLE_RATE } else { 0 },
            window: IMPATIENT_WINDOW,
        })
    }

    /// Whether a broken download is worth another attempt before another server is looked for. A
    /// server that sends a little and breaks, again and again, is not.
    fn may_retry_quickly(&self) -> bool {
        let state = self.state();
        let quiet_for = state
            .last_progress_at
            .map_or(Duration::ZERO, |at| at.elapsed());
        // On a slow line, what is counted as progress comes seldom.
        let is_recent = state.has_progressed || quiet_for < QUICK_TIME;
        state.waits < QUICK_RETRIES && is_recent
    }

    /// Waits until a broken download from `server` may be resumed, after it failed with `error`.
    /// False: it is to be given up, because it is hopeless, because another server can serve, or
    /// because it `is_abandoned`.
    #[must_use]
    pub(crate) fn wait_to_resume(
        &self,
        server: ServerIndex,
        error: &HttpError,
        is_abandoned: &dyn Fn() -> bool,
    ) -> bool {
        let Some(outage) = error.outage() else {
            return false;
        };
        self.failed(server, Some(outage));
        let is_quick = self.may_retry_quickly()
            && !matches!(outage, Outage::Silent(_))
            && error.retry_after().is_none();
        if !is_quick && self.find_alternative(server) {
            return false;
        }
        self.wait(server, error, is_abandoned)
    }

    /// Waits until a request to `server` may be sent again, after it failed with `error`. False: it is to be
    /// given up.
    #[must_use]
    pub(crate) fn wait(
        &self,
        server: ServerIndex,
        error: &HttpError,
        is_abandoned: &dyn Fn() -> bool,
    ) -> bool {
        let Some(wait) = self.next_wait(server, error) else {
            return false;
        };
        let until = Instant::now() + wait;
        loop {
            if self.context.cancel.is_canceled() || is_abandoned() {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(TICK));
        }
    }

    /// Whether another server can serve. Looks the item up on those that were not needed before, once.
    fn find_alternative(&self, server: ServerIndex) -> bool {
        if self.has_alternative(server) {
            return true;
        }
        if self.context.network.servers().len() < 2
            || std::mem::replace(&mut self.state().is_search_done, true)
        {
            return false;
        }

        let found = (self.find_sources)();
        self.note_search(found.iter().map(|found| found.source.server));
        self.has_alternative(server)
    }

    /// Asks all servers for the item: those that have the same build.
    #[must_use]
    pub(crate) fn same_build_sources(&self) -> Vec<NarSource> {
        let found = (self.find_sources)();
        self.note_search(found.iter().map(|found| found.source.server));

        let same = found.into_iter().filter(|found| found.is_same_build);
        same.map(|found| found.source).collect()
    }

    /// How long to wait before the next request to `server`; `None`: not at all.
    fn next_wait(&self, server: ServerIndex, error: &HttpError) -> Option<Duration> {
        let health = self.context.network.health();
        let RetryLimits { retries, time } = self.context.limits[server];
        let outage = error.outage()?;
        let (failing_for, waits) = {
            let mut state = self.state();
            state.waits += 1;
            state.has_progressed = false;
            (
                state
                    .failing_since
                    .get_or_insert_with(Instant::now)
                    .elapsed(),
                state.waits,
            )
        };

        let is_known = health.has_answered(server)
            && error
                .redirected_to()
                .is_none_or(|target| health.has_redirect_answered(&target));
        if time.is_zero() || waits > retries || (waits > QUICK_RETRIES && !is_known) {
            return None;
        }

        let server_failing_for = health.failing_for(server);
        let failing_for = failing_for.max(server_failing_for);
        let mut left = time.saturating_sub(failing_for);
        if waits == 1 && health.given_up(server).is_none() {
            // A single silence may be longer than the time.
            left = left.max(FIRST_WAIT);
        } else if left.is_zero() {
            if server_failing_for >= time && outage != Outage::Broken {
                tracing::debug!(server = self.server_url(server), reason = %error.without_url(), "no more retries of the server");
                health.give_up(server, error);
            }
            return None;
        }

        let asked_for = error.retry_after().unwrap_or_default();
        if asked_for > left {
            return None;
        }

        let wait = backoff(waits, fastrand::f64()).max(asked_for).min(left);
        let is_worth_reporting = waits > QUICK_RETRIES || matches!(outage, Outage::Silent(_));
        if is_known && is_worth_reporting {
            let RetryContext {
                network, progress, ..
            } = &self.context;
            network.report_retry(&**progress, server, error, failing_for);
        }

        tracing::debug!(server = self.server_url(server), ?wait, reason = %error.without_url(), "waiting before a retry");
        Some(wait)
    }

    /// The server's URL, without credentials.
    pub(super) fn server_url(&self, server: ServerIndex) -> &str {
        self.context.network.servers()[server].as_str()
    }

    fn state(&self) -> MutexGuard<'_, RetryState> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use url::Url;

    use super::*;
    use crate::format::narinfo::NarOffer;
    use crate::format::server_url::ServerUrl;
    use crate::http::Options;
    use crate::substitute::network::NetworkReach;
    use crate::substitute::progress::SilentProgress;

    const SERVER: ServerIndex = ServerIndex::at(0);

    /// Retries of an item that [`SERVER`] has, with another server; `found` have it too.
    fn retries(time: Duration, found: &'static [u32]) -> (ItemRetries, Arc<AtomicUsize>) {
        limited_retries(u32::MAX, time, found)
    }

    /// The same, with at most so many in a row.
    fn limited_retries(
        most: u32,
        time: Duration,
        found: &'static [u32],
    ) -> (ItemRetries, Arc<AtomicUsize>) {
        let searches = Arc::new(AtomicUsize::new(0));
        let context = RetryContext {
            network: Arc::new(Network::new(
                Options::default(),
                NetworkReach::AllServers,
                ["http://a", "http://b"]
                    .into_iter()
                    .map(|url| ServerUrl::parse(url).unwrap())
                    .collect::<PerServer<_>>()
                    .into(),
            )),
            limits: vec![
                RetryLimits {
                    retries: most,
                    time
                };
                2
            ]
            .into(),
            progress: Arc::new(SilentProgress),
            cancel: Cancel::default(),
        };

        let counter = Arc::clone(&searches);
        let retries = ItemRetries::new(
            context,
            Box::new(move || {
                counter.fetch_add(1, Ordering::Relaxed);
                found.iter().map(|server| found_on(*server)).collect()
            }),
        );
        retries.add_servers([SERVER]);
        (retries, searches)
    }

    fn found_on(server: u32) -> FoundSource {
        let offer = NarOffer::parse(&format!("{} 1\n", "0".repeat(64))).unwrap();
        let source = NarSource {
            server: ServerIndex::at(server),
            offer: Arc::new(offer),
        };
        FoundSource {
            source,
            is_same_build: true,
        }
    }

    #[test]
    fn an_end_is_assumed_a_few_times_and_once_at_a_place() {
        let (retries, _) = retries(Duration::ZERO, &[]);
        let other = ServerIndex::at(1);
        assert!(!retries.assume_end(SERVER, 0) && !retries.take_assumed_end());
        assert!(retries.assume_end(SERVER, 10));
        assert!(retries.take_assumed_end() && !retries.take_assumed_end());
        assert!(!retries.assume_end(SERVER, 10) && !retries.assume_end(SERVER, 9));
        assert!(retries.assume_end(other, 5) && retries.assume_end(SERVER, 11));
        assert!(!retries.assume_end(SERVER, 12));
    }

    fn broken() -> HttpError {
        HttpError::truncated(&Url::parse("http://a/nar").unwrap(), 1, 2)
    }

    fn resumes(retries: &ItemRetries) -> usize {
        (0..20)
            .take_while(|_| retries.wait_to_resume(SERVER, &broken(), &|| false))
            .count()
    }

    #[test]
    fn a_server_that_never_answered_gets_quick_retries_only() {
        let (retries, _) = retries(Duration::from_secs(60), &[]);
        assert_eq!(resumes(&retries), QUICK_RETRIES as usize);
    }

    #[test]
    fn another_server_is_searched_for_once_and_preferred_to_long_waits() {
        let (alone, searches) = retries(Duration::from_secs(2), &[]);
        alone.health().answered(SERVER);
        assert!(resumes(&alone) > QUICK_RETRIES as usize);
        assert_eq!(searches.load(Ordering::Relaxed), 1);

        let (replaced, searches) = retries(Duration::from_secs(60), &[1]);
        replaced.health().answered(SERVER);
        assert_eq!(resumes(&replaced), QUICK_RETRIES as usize);
        assert_eq!(searches.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_server_that_breaks_late_without_progress_gets_no_quick_retry() {
        let (retries, searches) = retries(Duration::from_secs(60), &[1]);
        retries.health().answered(SERVER);
        assert!(retries.rate_demand(SERVER).is_some());
        retries.state().last_progress_at = Instant::now().checked_sub(QUICK_TIME);
        assert!(!retries.wait_to_resume(SERVER, &broken(), &|| false));
        assert_eq!(searches.load(Ordering::Relaxed), 1);
        retries.progressed(SERVER);
        assert!(retries.may_retry_quickly());

        // On a slow line progress is seldom, but a broken connection is no reason to begin anew elsewhere.
        retries.state().last_progress_at = Instant::now().checked_sub(QUICK_TIME);
        assert!(retries.wait_to_resume(SERVER, &broken(), &|| false));
        assert!(!retries.may_retry_quickly());
    }

    #[test]
    fn the_only_server_of_an_item_has_time() {
        let (retries, _) = retries(Duration::from_secs(60), &[1]);
        assert!(retries.rate_demand(SERVER).is_some());
        retries.note_search([SERVER]);
        assert_eq!(retries.rate_demand(SERVER), None);
    }

    #[test]
    fn a_slow_server_is_left_for_one_that_was_never_slow() {
        let (retries, _) = retries(Duration::from_secs(60), &[]);
        let (other, silent) = (ServerIndex::at(1), Outage::Silent(IMPATIENT_WINDOW));
        retries.note_search([SERVER, other]);
        let rates = [SERVER, other].map(|server| retries.rate_demand(server));
        let expected = RateDemand {
            bytes_per_second: REPLACEABLE_RATE,
            window: IMPATIENT_WINDOW,
        };
        assert_eq!(rates, [Some(expected); 2]);

        // Both are slow: the line may be.
        for server in [SERVER, other] {
            retries.failed(server, Some(silent));
            retries.progressed(server);
        }
        let rate = retries
            .rate_demand(SERVER)
            .map(|demand| demand.bytes_per_second);
        assert_eq!(rate, Some(0));
    }

    #[test]
    fn the_number_of_retries_in_a_row_is_limited() {
        for most in [0, 2, 5] {
            let (retries, _) = limited_retries(most, Duration::from_secs(60), &[]);
            retries.health().answered(SERVER);
            assert_eq!(resumes(&retries), most as usize);
            retries.progressed(SERVER);
            assert_eq!(resumes(&retries), most as usize);
        }
    }

    #[test]
    fn no_time_is_no_retry_and_progress_begins_the_time_anew() {
        let (none, _) = retries(Duration::ZERO, &[]);
        none.health().answered(SERVER);
        assert_eq!(resumes(&none), 0);

        let (some, _) = retries(Duration::from_millis(500), &[]);
        some.health().answered(SERVER);
        assert!(resumes(&some) < 20);
        some.progressed(SERVER);
        assert!(some.wait(SERVER, &broken(), &|| false));
        assert!(
            !some.wait(SERVER, &broken(), &|| true),
            "the download is abandoned"
        );
    }
}
