//! Items that are decided and looked up once more: on servers that were skipped or not needed, without
//! the cached answers, or without narinfos whose nars cannot be had; and, in a process that may go on for hours,
//! when answers have expired.

use std::sync::Arc;

use crate::format::narinfo::NarInfo;
use crate::format::server_list::ServerIndex;
use crate::format::store_path::StorePath;
use crate::substitute::lookup::engine::LookupEngine;
use crate::substitute::lookup::items::ItemIndex;
use crate::substitute::lookup::options::RequiredServers;
use crate::substitute::outcome::LookupOutcome;
use crate::trust::verdict::Refusal;

impl LookupEngine {
    /// Looks `item` up once more before it counts as decided: on servers that were skipped because they
    /// were slow a short time ago, or down, where those are to be retried or a vote is missing; and, where
    /// the policy refuses it, on servers whose answers came from the lookup cache. Whether there are any.
    pub(super) fn reconsider(&mut self, item: ItemIndex) -> bool {
        let lookup = &self.items[item].lookup;
        if !lookup.is_more_wanted() {
            return false;
        }

        let refusal = lookup.policy_refusal();
        let is_renewable = refusal.is_some() && !self.is_offline();
        let lacks_votes = matches!(refusal, Some(Refusal::TooFewVotes(_)));
        let retries_skipped = self.setup.options.retry_down || lacks_votes;
        let mut servers: Vec<ServerIndex> = self.servers.indices().collect();
        servers.retain(|&server| {
            let server = &self.servers[server];
            let is_retried = (retries_skipped && server.is_skipped()) || server.was_slow();
            is_retried || server.skip_outcome().is_none()
        });

        let lookup = &mut self.items[item].lookup;
        let reopened = lookup.reopen(&servers);
        let renewed = match is_renewable {
            true => lookup.request_cached_again(&servers),
            false => Vec::new(),
        };
        for &server in reopened.iter().chain(&renewed) {
            if self.servers[server].is_skipped() {
                self.servers[server].use_after_all();
            }
        }
        if !renewed.is_empty() {
            self.request(item, &renewed);
        }
        !reopened.is_empty() || !renewed.is_empty()
    }

    /// Requests `path` from the required servers, those too that were not needed until now.
    pub(super) fn require_servers(&mut self, path: &StorePath, required: RequiredServers) {
        let item = self.enter(path.clone());
        let entered = &mut self.items[item];
        entered.lookup.require_servers(required);
        if entered.is_decided {
            entered.is_decided = false;
            self.undecided += 1;
        }

        // The answers in the lookup cache come first.
        if !self.fresh.contains(&item) {
            self.advance(item);
        }
    }

    /// Goes by other narinfos of `path` from now on than these, whose nars cannot be had.
    pub(super) fn reject(&mut self, path: &StorePath, narinfos: Vec<Arc<NarInfo>>) {
        let Some(item) = self.items.find(path) else {
            return;
        };
        for narinfo in narinfos {
            self.items[item].lookup.reject(&narinfo);
        }
    }

    /// Makes `item` one that has not been looked up.
    pub(super) fn reset(&mut self, item: ItemIndex) {
        let is_offline = self.is_offline();
        let entered = &mut self.items[item];
        entered.lookup = entered.lookup.renewed();
        if is_offline {
            entered.lookup.require_servers(RequiredServers::All);
        }

        entered.is_decided = false;
        self.undecided += 1;
        self.fresh.push_back(item);
    }

    /// Looks `item` up again if it is not available and answers have expired, in a process that may go on for
    /// hours.
    pub(super) fn renew_expired(&mut self, item: ItemIndex) {
        if !self.setup.options.renews_expired {
            return;
        }
        let now = self.setup.clock.unix_seconds();
        for server in self.servers.indices() {
            if self.servers[server].end_skip(now)
                && let Some(lookups) = &self.lookups
            {
                lookups.reopen(server);
            }
        }

        let entered = &self.items[item];
        if entered.is_decided
            && entered.lookup.selected().is_none()
            && self
                .servers
                .indices()
                .any(|it| self.has_expired(item, it, now))
        {
            self.reset(item);
        }
    }

    /// Whether `server` may have another answer about the decided `item` by now.
    fn has_expired(&self, item: ItemIndex, server: ServerIndex, now: u64) -> bool {
        let entered = &self.items[item];
        let Some(answer) = entered.lookup.slots[server].known() else {
            return false;
        };
        let lasts = match answer.outcome {
            LookupOutcome::NoResponse(_)
            | LookupOutcome::Failed(_)
            | LookupOutcome::LocalFailure(_)
            | LookupOutcome::NotAwaited => self.setup.options.down_seconds,
            // Not to be cached at all; but one query may name it twice.
            _ => 1,
        };
        let expires_at = answer.expires_at.unwrap_or(entered.decided_at + lasts);
        expires_at <= now && self.servers[server].skip_outcome().is_none()
    }

    /// Discards everything that is known of `item`.
    pub(super) fn discard(&mut self, item: &StorePath) {
        self.remove_cached(item);
        for item in self.items.with_hash_part(&item.hash_part()) {
            if self.items[item].is_decided {
                self.reset(item);
            }
        }
    }

    /// Removes `item` from the lookup cache.
    pub(super) fn remove_cached(&mut self, item: &StorePath) {
        self.write_cache();
        let removed = self.setup.cache.remove(None, &[item.hash_part()]);
        self.warn(removed.err());
    }
}
