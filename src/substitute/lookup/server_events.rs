//! What the engine does with what it learns of a server as such, and not of one item.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::format::escape::clip;
use crate::format::server_list::ServerIndex;
use crate::http::{CacheInfoText, HttpError, whole_bytes};
use crate::lookup_cache::{AnswerKind, CacheInfoRecord, Downtime, LineRateRecord, ServerFact};
use crate::substitute::lookup::engine::LookupEngine;
use crate::substitute::lookup::servers::ServerState;
use crate::substitute::outcome::{LookupFailure, LookupOutcome, ServerAnswer};
use crate::substitute::progress::ProgressEvent;

impl LookupEngine {
    /// The `nix-cache-info` of a server has arrived, or could not be had.
    pub(super) fn cache_info(
        &mut self,
        server: ServerIndex,
        info: Result<Option<CacheInfoText>, HttpError>,
    ) {
        // A server that is unreachable is reported as down; one without the file is
        // used with the defaults.
        let Ok(info) = info else { return };
        let max_age = info.as_ref().and_then(|info| info.max_age);
        let is_absent = info.is_none();
        let text = info.map(|info| clip(&info.text, INFO_BYTES_MAX).to_owned());
        let entry = &mut self.servers[server];
        entry.note_response();
        entry.lacks_cache_info = is_absent;
        entry.learn_info(text.as_deref().unwrap_or_default(), &self.setup.store_dir);
        let kind = match entry.state {
            ServerState::OtherStore(_) => AnswerKind::OtherStore,
            _ => AnswerKind::CacheInfo,
        };

        let now = self.setup.clock.unix_seconds();
        let (ttl, _) = self.setup.options.ttl.ttl_secs(kind, max_age);
        let (text, expires_at) = (text.map(Into::into), now.saturating_add(ttl));
        let fact = CacheInfoRecord {
            text,
            answered_at: now,
            expires_at,
        };

        self.record_server_fact(server, ServerFact::CacheInfo(fact));
        self.clear_down_record(server);
        let until = expires_at.max(now.saturating_add(self.setup.options.down_seconds));
        let entry = &mut self.servers[server];
        if let ServerState::OtherStore(why) = entry.state.clone() {
            entry.skipped_until = Some(until);
            self.report_down(server, &why);
            self.give_up(server, &LookupOutcome::OtherStore(why));
        }
    }

    /// A server is down: no request to it will be answered.
    pub(super) fn server_down(&mut self, server: ServerIndex, error: HttpError) {
        let until = self.skip_until(server, error.retry_after());
        let is_local = error.is_of_this_machine();
        let depends_on_settings = error.depends_on_settings();
        let failure = LookupFailure::Request(Arc::new(error));
        // A download from it may have failed and been reported a moment ago.
        if self.setup.network.health().is_failure_report_due(server) {
            self.report_down(server, &failure);
        }
        // What this machine is the cause of is not the server's fault, so later runs use it; and they may
        // have other certificates or another proxy.
        if !is_local {
            if !depends_on_settings {
                self.record_down(server, &failure, until);
            }
            self.servers[server].mark_down(ServerState::Down(failure));
        }
    }

    /// An item was decided without waiting for `server` any longer.
    pub(super) fn not_awaited(&mut self, server: ServerIndex) {
        if !matches!(
            self.servers[server].state,
            ServerState::NotNeeded | ServerState::Up
        ) {
            return;
        }

        self.servers[server].mark_down(ServerState::Slow);
        let until = self.skip_until(server, None);
        self.record_down(server, &LookupFailure::NotAwaited, until);
        self.report_down(server, &LookupFailure::NotAwaited);
    }

    fn report_down(&self, server: ServerIndex, reason: &dyn fmt::Display) {
        self.setup.progress.event(ProgressEvent::ServerDown {
            server: self.servers[server].url.as_str(),
            reason: format_args!("{reason}"),
        });
    }

    /// Reports the servers that have neither a `nix-cache-info` nor any item that was looked up so far:
    /// their addresses may be mistyped. Each is reported once.
    pub(super) fn report_doubtful_addresses(&mut self) {
        for index in self.servers.indices() {
            let server = &self.servers[index];
            if !server.lacks_cache_info || server.is_address_settled {
                continue;
            }
            let outcomes = self.items.indices();
            let outcomes = outcomes.filter_map(|item| self.items[item].lookup.outcome(index));
            let outcomes: Vec<&LookupOutcome> = outcomes.filter(|it| it.is_from_server()).collect();
            if outcomes.is_empty() {
                continue;
            }

            let lacks_all = outcomes
                .iter()
                .all(|it| matches!(it, LookupOutcome::Missing(_)));
            if lacks_all {
                let (network, progress) = (&self.setup.network, &*self.setup.progress);
                network.report_doubtful_address(progress, index);
            }
            self.servers[index].is_address_settled = true;
        }
    }

    /// Until when a server that is down is not used: as long as it demands, within reason.
    fn skip_until(&mut self, server: ServerIndex, retry_after: Option<Duration>) -> u64 {
        let now = self.setup.clock.unix_seconds();
        let options = &self.setup.options;
        let wanted = retry_after.map_or(0, |wait| {
            options
                .ttl
                .ttl_secs(AnswerKind::Transient, Some(wait.as_secs()))
                .0
        });
        let until = now.saturating_add(options.down_seconds.max(wanted));
        self.servers[server].skipped_until = Some(until);
        until
    }

    /// Records that later runs skip a server until then.
    fn record_down(&mut self, server: ServerIndex, failure: &LookupFailure, until: u64) {
        let down = Downtime {
            since: self.setup.clock.unix_seconds(),
            until,
            reason: failure.to_string().into(),
        };
        self.record_server_fact(server, ServerFact::Down(down));
    }

    /// Writes a fact about a server to the lookup cache.
    pub(super) fn record_server_fact(&mut self, server: ServerIndex, fact: ServerFact) {
        let row = self.servers[server].row;
        let updated = self.setup.cache.update_server(row, &[fact]);
        self.warn(updated.err());
    }

    /// Writes what was measured of the lines to the servers to the lookup cache.
    pub(super) fn write_line_rates(&mut self) {
        let measured_at = self.setup.clock.unix_seconds();
        for (server, line) in self.setup.network.line_rates() {
            if !line.is_measured {
                continue;
            }
            let rate = LineRateRecord {
                bytes_per_second: whole_bytes(line.bytes_per_second),
                measured_at,
            };
            let row = self.servers[server].row;
            let updated = self.setup.cache.replace_line_rate(row, rate);
            self.warn(updated.err());
        }
    }

    /// Writes which servers downloads have failed from, so that the next run does not wait for them.
    pub(super) fn write_failed_downloads(&mut self) {
        for (server, outage) in self.setup.network.health().down() {
            // A lookup that failed has its own reason.
            if !self.servers[server].is_recorded_down() {
                let reason = LookupFailure::Download(outage);
                let until = self.skip_until(server, None);
                self.record_down(server, &reason, until);
            }
        }
    }

    /// Uses `outcome` for every answer that `server` still owes.
    fn give_up(&mut self, server: ServerIndex, outcome: &LookupOutcome) {
        for item in self.items.indices() {
            let entry = &mut self.items[item].lookup;
            if entry.unanswered().contains(&server) {
                entry.answer(server, ServerAnswer::of(outcome.clone()));
                self.advance(item);
            }
        }
    }
}

/// At most this many bytes of a server's `nix-cache-info` are kept; it usually has a hundred.
const INFO_BYTES_MAX: usize = 4 << 10;
