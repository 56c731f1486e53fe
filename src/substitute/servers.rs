//! What a run has seen of each server, shared by all its lookups and downloads.
//!
//! Nothing in here waits or sends: the code that
//! downloads reports what happened, and reads the record before it decides.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use url::Origin;

use crate::format::server_list::ServerIndex;
use crate::http::{HttpError, Outage};
use crate::sync::lock;

/// The record of all servers of a run.
#[derive(Debug, Default)]
pub(crate) struct ServerHealth {
    servers: Mutex<HashMap<ServerIndex, ServerRecord>>,
    /// Where servers redirected to and bytes came from.
    redirect_targets: Mutex<HashSet<Origin>>,
}

#[derive(Debug, Default)]
struct ServerRecord {
    /// It has given any useful answer in this run.
    has_answered: bool,
    /// It was unreachable or silent: others are preferred for the rest of the run.
    is_unreliable: bool,
    /// How it was unreachable or silent, if it has not recovered since.
    last_outage: Option<Outage>,
    /// Parts of files that it did not give, one after the other.
    range_refusals: u32,
    failing: Option<Failing>,
    /// It was retried for long enough, and this is how that ended.
    given_up: Option<HttpError>,
    /// When it was last reported that another server is used instead.
    failure_reported_at: Option<Instant>,
    /// When it was last reported that it is retried.
    retry_reported_at: Option<Instant>,
}

/// A server has delivered nothing, and requests failed as if all would.
#[derive(Debug, Clone, Copy)]
struct Failing {
    since: Instant,
    /// When the last request failed.
    last: Instant,
}

/// After this time without a request it is unknown whether a server still fails.
const FAILURE_LASTS: Duration = Duration::from_secs(30);

/// After so many parts of files that a server did not give, none is requested in this run. One may be
/// refused for its file, which has changed, or is not in the cache of a proxy.
const RANGE_REFUSALS_MAX: u32 = 3;

/// Between two messages of a kind about one server.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

impl ServerHealth {
    /// `server` gave a useful answer: about itself, about an item, or bytes of a file.
    pub(crate) fn answered(&self, server: ServerIndex) {
        self.lock().entry(server).or_default().has_answered = true;
    }

    /// Whether `server` gave a useful answer in this run.
    #[must_use]
    pub(crate) fn has_answered(&self, server: ServerIndex) -> bool {
        self.lock()
            .get(&server)
            .is_some_and(|record| record.has_answered)
    }

    /// Bytes of a file came from `target`, where a server redirected to.
    pub(crate) fn redirect_answered(&self, target: Origin) {
        self.targets().insert(target);
    }

    /// Whether bytes of a file came from `target` in this run.
    #[must_use]
    pub(crate) fn has_redirect_answered(&self, target: &Origin) -> bool {
        self.targets().contains(target)
    }

    /// A download from `server` has advanced. One that was silent may still send too little.
    pub(crate) fn delivered(&self, server: ServerIndex) {
        let mut servers = self.lock();
        let record = servers.entry(server).or_default();
        record.has_answered = true;
        (record.failing, record.given_up) = (None, None);
        record
            .last_outage
            .take_if(|outage| !matches!(outage, Outage::Silent(_)));
    }

    /// A download from `server` has advanced by more than a server sends that is nearly silent.
    pub(crate) fn recovered(&self, server: ServerIndex) {
        self.delivered(server);
        self.lock().entry(server).or_default().last_outage = None;
    }

    /// A download from `server` has failed.
    pub(crate) fn failed(&self, server: ServerIndex, outage: Outage) {
        self.lock()
            .entry(server)
            .or_default()
            .failed(outage, Instant::now());
    }

    /// For how long `server` has delivered nothing although requests were sent.
    #[must_use]
    pub(crate) fn failing_for(&self, server: ServerIndex) -> Duration {
        let failing = self
            .lock()
            .get(&server)
            .and_then(|record| record.failing(Instant::now()));
        failing.map_or(Duration::ZERO, |failing| failing.since.elapsed())
    }

    /// `server` was retried for as long as is allowed, and failed with `error` in the end.
    pub(crate) fn give_up(&self, server: ServerIndex, error: &HttpError) {
        self.lock().entry(server).or_default().given_up = Some(error.clone());
    }

    /// How the retries of `server` ended, if they did a short time ago: no request is needed.
    #[must_use]
    pub(crate) fn given_up(&self, server: ServerIndex) -> Option<HttpError> {
        let servers = self.lock();
        let record = servers.get(&server)?;
        record.failing(Instant::now())?;
        record.given_up.clone()
    }

    /// An earlier run has found `server` unreachable or silent a short time ago.
    pub(crate) fn prefer_others(&self, server: ServerIndex) {
        self.lock().entry(server).or_default().is_unreliable = true;
    }

    /// Whether other servers are preferred to `server`.
    #[must_use]
    pub(crate) fn is_unreliable(&self, server: ServerIndex) -> bool {
        self.lock()
            .get(&server)
            .is_some_and(|record| record.is_unreliable)
    }

    /// The servers that were unreachable or silent and have not recovered since, and how.
    #[must_use]
    pub(crate) fn down(&self) -> Vec<(ServerIndex, Outage)> {
        let servers = self.lock();
        let down = servers
            .iter()
            .filter_map(|(server, record)| Some((*server, record.last_outage?)));
        down.collect()
    }

    /// Whether `server` fails at the moment.
    #[must_use]
    pub(crate) fn is_failing(&self, server: ServerIndex) -> bool {
        self.lock()
            .get(&server)
            .is_some_and(|record| record.failing(Instant::now()).is_some())
    }

    /// Whether it may be reported now that another server is used instead of `server`; true for
    /// one caller every few seconds.
    #[must_use]
    pub(crate) fn is_failure_report_due(&self, server: ServerIndex) -> bool {
        is_due(&mut self.lock().entry(server).or_default().failure_reported_at)
    }

    /// Whether it may be reported now that `server` is retried; true for one caller every few
    /// seconds.
    #[must_use]
    pub(crate) fn is_retry_report_due(&self, server: ServerIndex) -> bool {
        is_due(&mut self.lock().entry(server).or_default().retry_reported_at)
    }

    /// `server` gives a file whole, and did not give a part of it.
    pub(crate) fn refused_range(&self, server: ServerIndex) {
        self.lock().entry(server).or_default().range_refusals += 1;
    }

    /// `server` gave a part of a file.
    pub(crate) fn gave_range(&self, server: ServerIndex) {
        if self.takes_ranges(server) {
            self.lock().entry(server).or_default().range_refusals = 0;
        }
    }

    /// `server` says that it gives no parts of files, or gives wrong ones.
    pub(crate) fn refuses_ranges(&self, server: ServerIndex) {
        self.lock().entry(server).or_default().range_refusals = RANGE_REFUSALS_MAX;
    }

    /// Whether parts of a file may be requested from `server`.
    #[must_use]
    pub(crate) fn takes_ranges(&self, server: ServerIndex) -> bool {
        self.lock()
            .get(&server)
            .is_none_or(|record| record.range_refusals < RANGE_REFUSALS_MAX)
    }

    fn targets(&self) -> MutexGuard<'_, HashSet<Origin>> {
        lock(&self.redirect_targets)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ServerIndex, ServerRecord>> {
        lock(&self.servers)
    }
}

impl ServerRecord {
    fn failed(&mut self, outage: Outage, now: Instant) {
        let silence = match outage {
            Outage::Broken => return,
            Outage::Silent(silence) => silence,
            Outage::Unreachable | Outage::ServerError => Duration::ZERO,
        };

        if outage != Outage::ServerError {
            self.is_unreliable = true;
            self.last_outage = Some(outage);
        }
        let asked_at = now.checked_sub(silence).unwrap_or(now);
        let since = self
            .failing(asked_at)
            .map_or(asked_at, |failing| failing.since);
        self.failing = Some(Failing { since, last: now });
    }

    fn failing(&self, now: Instant) -> Option<Failing> {
        self.failing
            .filter(|it| now.saturating_duration_since(it.last) < FAILURE_LASTS)
    }
}

/// What is shown while `server` is retried.
#[must_use]
pub(crate) fn retry_text(server: &str, is_too_busy: bool, failing_for: Duration) -> String {
    let state = if is_too_busy {
        "is too busy"
    } else {
        "does not answer"
    };
    format!("{server} {state}, retrying ({} s)", failing_for.as_secs())
}

/// Whether the last message was long enough ago; a new one is sent then.
pub(super) fn is_due(reported_at: &mut Option<Instant>) -> bool {
    let is_due = reported_at.is_none_or(|time| time.elapsed() >= REPORT_INTERVAL);
    if is_due {
        *reported_at = Some(Instant::now());
    }
    is_due
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: ServerIndex = ServerIndex::FIRST;
    const SECOND: ServerIndex = ServerIndex::at(1);

    #[test]
    fn a_failing_server_recovers_when_it_delivers_and_stays_behind_others() {
        let health = ServerHealth::default();
        health.failed(SECOND, Outage::Broken);
        assert!(
            !health.is_failing(SECOND) && !health.is_unreliable(SECOND),
            "one file is not the server"
        );

        health.failed(SECOND, Outage::Silent(Duration::from_secs(15)));
        assert!(health.failing_for(SECOND) >= Duration::from_secs(15));
        assert!(
            health.is_failing(SECOND)
                && health.is_unreliable(SECOND)
                && !health.has_answered(SECOND)
        );

        let silent = Outage::Silent(Duration::from_secs(15));
        assert_eq!(health.down(), [(SECOND, silent)]);

        health.delivered(SECOND);
        assert_eq!(health.down(), [(SECOND, silent)], "it may trickle");
        assert_eq!(health.failing_for(SECOND), Duration::ZERO);
        assert!(
            health.is_unreliable(SECOND)
                && health.has_answered(SECOND)
                && !health.is_unreliable(FIRST)
        );
        health.recovered(SECOND);
        assert_eq!(health.down(), []);

        health.failed(SECOND, Outage::Unreachable);
        health.delivered(SECOND);
        assert_eq!(health.down(), [], "it was reached");
    }

    #[test]
    fn a_failure_lasts_as_long_as_requests_confirm_it() {
        let (mut record, start) = (ServerRecord::default(), Instant::now());
        record.failed(Outage::Unreachable, start);
        record.failed(Outage::Unreachable, start + Duration::from_secs(20));
        assert_eq!(
            record
                .failing(start + Duration::from_secs(49))
                .unwrap()
                .since,
            start
        );
        assert!(
            record.failing(start + Duration::from_secs(50)).is_none(),
            "the state is unknown"
        );

        // The request began when the last failure was fresh.
        record.failed(
            Outage::Silent(Duration::from_secs(60)),
            start + Duration::from_secs(100),
        );
        assert_eq!(
            record
                .failing(start + Duration::from_secs(101))
                .unwrap()
                .since,
            start
        );
        record.failed(Outage::Unreachable, start + Duration::from_secs(200));
        assert_eq!(
            record
                .failing(start + Duration::from_secs(200))
                .unwrap()
                .since,
            start + Duration::from_secs(200)
        );
    }

    #[test]
    fn one_of_many_reports_on_a_server() {
        let health = ServerHealth::default();
        let reports = (0..100)
            .filter(|_| health.is_retry_report_due(FIRST))
            .count();
        assert_eq!(reports, 1);
        assert!(health.is_retry_report_due(SECOND) && health.is_failure_report_due(FIRST));
    }
}
