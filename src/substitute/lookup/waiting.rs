//! Time passes: which servers are not waited for any longer, and progress meanwhile.
//!
//! A server that the user prefers is waited for as long as no other server has an item. Once
//! another server has an authorized narinfo, the silence of the preferred one is limited; one that
//! answers may take at most a few times as long as the others. The time during which this program did
//! not look at what servers have sent does not count.
//!
//! Where votes are counted, any server may disagree, so one that is late by these rules is still waited
//! for, until it has been late for the time that a run has for that. Then its vote is missing, as that
//! of a server that is down.

use std::time::{Duration, Instant};

use crate::substitute::lookup::engine::{LookupEngine, TICK};
use crate::substitute::lookup::item::NextStep;
use crate::substitute::lookup::items::ItemIndex;
use crate::substitute::lookup::options::Patience;
use crate::substitute::lookup::servers::LookupServer;
use crate::substitute::progress::{ProgressEvent, ServerProgress};

impl LookupEngine {
    /// Time has passed.
    pub(super) fn tick(&mut self) {
        let (limit, now) = (self.lag(), self.events_taken_at);
        self.update_impatience();
        self.note_lateness(limit, now);
        if self.is_impatient || self.servers.iter().any(|it| it.is_slow(limit, now)) {
            let undecided: Vec<ItemIndex> = self.items.undecided().map(|(item, _)| item).collect();
            for item in undecided {
                self.advance(item);
            }
            self.settle();
        }

        self.repeat_progress();
        self.write_cache();
        if self.undecided == 0 {
            self.remove_some_expired();
        }
    }

    /// Counts the time for which servers that are late keep items waiting. By ticks, so that a machine
    /// that is busy counts less and not more of it.
    fn note_lateness(&mut self, limit: Duration, now: Instant) {
        for server in self.servers.iter_mut() {
            let is_late = self.is_impatient || server.is_slow(limit, now);
            if is_late && server.outstanding() > 0 && self.undecided > 0 {
                server.late_for += TICK;
            }
        }
    }

    /// What to do next about `item`.
    pub(super) fn next_step(&mut self, item: ItemIndex) -> NextStep {
        let (limit, now) = (self.lag(), self.events_taken_at);
        let (is_impatient, vote_wait) = (self.is_impatient, self.setup.options.vote_wait);
        let servers = &self.servers;
        self.items[item].lookup.next(|server, patience| {
            let server = &servers[server];
            let is_slow = server.is_slow(limit, now);
            let is_given_up = server.late_for >= vote_wait;
            match patience {
                Patience::Lag => is_impatient || is_slow,
                Patience::Dissent => is_given_up && (is_impatient || is_slow),
                Patience::Vote => is_given_up && is_slow,
            }
        })
    }

    /// Notes the time if there is no event left to be taken.
    pub(super) fn note_events_taken(&mut self) {
        let now = Instant::now();
        if self.events.is_empty() {
            self.events_taken_at = now;
        }
    }

    /// Removes expired entries of the lookup cache, a few at a time.
    pub(super) fn remove_some_expired(&mut self) {
        if !self.has_expired_entries {
            return;
        }

        let now = self.setup.clock.unix_seconds();
        let removed = self.setup.cache.remove_some_expired(now);
        self.has_expired_entries = matches!(removed, Ok(true));
        self.warn(removed.err());
    }

    /// A server that answers, but so slowly that everything else has been known for long, is
    /// not waited for either.
    fn update_impatience(&mut self) {
        let is_known = self.undecided > 0
            && self
                .items
                .undecided()
                .all(|(_, record)| record.lookup.narinfo().is_some());
        if !is_known {
            (self.all_known_at, self.is_impatient) = (None, false);
            return;
        }

        let all_known_at = *self.all_known_at.get_or_insert_with(Instant::now);
        let took = all_known_at.saturating_duration_since(self.asked_at);
        let waited = self.events_taken_at.saturating_duration_since(all_known_at);
        self.is_impatient = waited > self.setup.options.lag + took * SLOWNESS_FACTOR;
    }

    /// Reports how far lookups are; not for every batch.
    pub(super) fn report_progress(&mut self) {
        let (done, total) = self.requests.progress();
        if total > 0
            && (done, total) != self.last_reported.1
            && self.last_reported.0.elapsed() >= TICK
        {
            self.send_progress(done, total);
        }
    }

    /// While servers are silent there is no news but that lookups go on.
    fn repeat_progress(&mut self) {
        let (done, total) = self.requests.progress();
        if done < total && self.last_reported.0.elapsed() >= SILENCE_MAX {
            self.send_progress(done, total);
        }
    }

    /// Reports that `done` of `total` items are known.
    pub(super) fn send_progress(&mut self, done: usize, total: usize) {
        self.last_reported = (Instant::now(), (done, total));
        let servers: Vec<ServerProgress<'_>> =
            self.servers.iter().map(LookupServer::progress).collect();
        let requests = self.servers.iter().map(|server| server.answers).sum();
        let asked = self.cache_misses;
        let event = ProgressEvent::Looking {
            done,
            total,
            asked,
            requests,
            servers: &servers,
        };
        self.setup.progress.event(event);
    }

    /// How long a server may be silent once another one has answered with authority: a
    /// multiple of what the quickest one took, because on a slow line all take long.
    pub(super) fn lag(&self) -> Duration {
        let quickest = self
            .servers
            .iter()
            .filter_map(LookupServer::first_answer)
            .min();
        self.setup.options.lag + quickest.unwrap_or_default()
    }
}

/// For how long nothing is reported of lookups that go on.
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// How many times as long as all others a server may take.
const SLOWNESS_FACTOR: u32 = 4;
