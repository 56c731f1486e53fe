//! What the lookup cache has about items, and texts on their way to the checkers.

use std::sync::Arc;

use crate::format::server_list::ServerIndex;
use crate::format::store_path::{HashPart, StorePath};
use crate::lookup_cache::{CacheEntry, CachedAnswer};
use crate::substitute::lookup::engine::LookupEngine;
use crate::substitute::lookup::item::LookupItem;
use crate::substitute::lookup::items::ItemIndex;
use crate::substitute::lookup::options::{
    Freshness, RequiredServers, ResolverSetup, SignatureChecks,
};
use crate::substitute::lookup::refused::RefusedNarInfo;
use crate::substitute::lookup::servers::ServerState;
use crate::substitute::lookup::verification::{BATCH, BATCH_BYTES, TextOrigin, UnverifiedText};
use crate::substitute::outcome::{AnswerOrigin, LookupFailure, LookupOutcome, ServerAnswer};
use crate::trust::verdict::Refusal;

impl LookupEngine {
    /// The item at `path`, which is looked up from now on if it is new.
    pub(super) fn enter(&mut self, path: StorePath) -> ItemIndex {
        if let Some(item) = self.items.find(&path) {
            return item;
        }

        let item = self.items.insert(self.new_item(path));
        self.fresh.push_back(item);
        self.undecided += 1;
        item
    }

    /// An item that was not looked up. Offline the answers of all servers matter that are
    /// cached: the first server may be out of reach, and another one a local directory.
    fn new_item(&self, path: StorePath) -> LookupItem {
        let policy = Arc::clone(&self.setup.policy);
        let mut item = LookupItem::new(path, self.servers.len(), policy);
        if self.is_offline() {
            item.require_servers(RequiredServers::All);
        }
        item
    }

    pub(super) fn is_offline(&self) -> bool {
        self.setup.options.freshness == Freshness::Offline
    }

    /// Uses what the lookup cache has about `items`.
    pub(super) fn load_cached(&mut self, items: &[ItemIndex]) {
        if self.setup.options.freshness != Freshness::Refresh {
            for server in self.servers.indices() {
                self.load_cached_answers(server, items);
            }
        }

        for server in self.servers.indices() {
            let skip_outcome = match self.setup.options.freshness {
                Freshness::Offline => Some(LookupOutcome::Offline),
                _ => self.servers[server].skip_outcome(),
            };
            let Some(outcome) = skip_outcome else {
                continue;
            };
            for &item in items {
                let entry = &mut self.items[item].lookup;
                if entry.is_open(server) {
                    entry.answer(server, ServerAnswer::of(outcome.clone()));
                }
            }
        }
    }

    fn load_cached_answers(&mut self, server: ServerIndex, items: &[ItemIndex]) {
        let is_of_other_store = matches!(self.servers[server].state, ServerState::OtherStore(_));
        if items.is_empty() || is_of_other_store {
            return;
        }

        let now = self.setup.clock.unix_seconds();
        // Items with the same hash part share an entry.
        let hash_parts = items.iter();
        let mut hash_parts: Vec<HashPart> = hash_parts
            .map(|&item| self.items[item].lookup.path.hash_part())
            .collect();
        hash_parts.sort_unstable();
        hash_parts.dedup();
        let found = self
            .setup
            .cache
            .find(self.servers[server].row, &hash_parts, now);
        let entries = found.unwrap_or_else(|error| {
            self.warn(Some(error));
            Vec::new()
        });
        tracing::debug!(
            server = self.servers[server].url.as_str(),
            items = hash_parts.len(),
            hits = entries.len(),
            "read the lookup cache"
        );

        for (hash_part, entry) in entries {
            if self.is_stale_negative(&entry, now) {
                tracing::debug!(%hash_part, "the cached negative answer is too old");
            } else {
                self.cache_hits += 1;
                self.note_cached_answer(server, &hash_part, entry);
            }
        }
    }

    fn is_stale_negative(&self, entry: &CacheEntry, now: u64) -> bool {
        let is_negative = matches!(entry.answer, CachedAnswer::Negative { .. });
        let limit = self.setup.options.negative_max_age.filter(|_| is_negative);
        limit.is_some_and(|limit| now.saturating_sub(entry.answered_at) > limit)
    }

    fn note_cached_answer(&mut self, server: ServerIndex, hash_part: &HashPart, entry: CacheEntry) {
        let CacheEntry {
            answer,
            answered_at: asked_at,
            expires_at,
            ..
        } = entry;
        let origin = AnswerOrigin::Cache {
            asked_at,
            expires_at,
        };

        let outcome = match answer {
            CachedAnswer::Positive {
                text,
                key_id: signed_by,
            } => {
                let signature_checks = self.setup.options.signature_checks;
                let signed_by =
                    signed_by.filter(|_| signature_checks == SignatureChecks::ReuseRecorded);
                let origin = TextOrigin::Cache {
                    asked_at,
                    expires_at,
                    signed_by,
                };
                let mut items = self.items.with_hash_part(hash_part);
                // An item with the same hash part may be decided already.
                items.retain(|&item| self.items[item].lookup.is_open(server));
                for &item in &items {
                    self.items[item].lookup.mark_cached(server);
                }
                let bytes = String::from(text).into_bytes();
                return self.queue_verification(server, items, bytes, origin);
            }
            CachedAnswer::Refused { facts } => {
                return self.note_cached_refusal(server, hash_part, &facts, origin, expires_at);
            }
            CachedAnswer::Negative { status } => LookupOutcome::Missing(status),
            CachedAnswer::Preparing { status } => LookupOutcome::Preparing(status),
            CachedAnswer::Transient { reason } => {
                LookupOutcome::Failed(LookupFailure::Cached(reason))
            }
        };

        let answer = ServerAnswer {
            outcome,
            origin,
            expires_at: Some(expires_at),
        };

        for item in self.items.with_hash_part(hash_part) {
            let entry = &mut self.items[item].lookup;
            if entry.is_open(server) {
                entry.answer(server, answer.clone());
            }
        }
    }

    /// A narinfo that was refused before; nothing is known if other keys are authorized now.
    fn note_cached_refusal(
        &mut self,
        server: ServerIndex,
        hash_part: &HashPart,
        facts: &str,
        origin: AnswerOrigin,
        expires_at: u64,
    ) {
        let ResolverSetup {
            store_dir,
            keys,
            policy,
            ..
        } = &self.setup;
        let keys = keys.fingerprint(policy.signature_scope());
        let Some(refused) = RefusedNarInfo::from_facts(facts, store_dir, &keys) else {
            tracing::debug!(%hash_part, "the cached refusal was made with other authorized keys");
            return;
        };

        for item in self.items.with_hash_part(hash_part) {
            let entry = &self.items[item].lookup;
            if !entry.is_open(server) {
                continue;
            }
            let RefusedNarInfo {
                path,
                refusal,
                offer,
            } = refused.clone();
            let refusal = match entry.path == path {
                true => refusal,
                false => Refusal::WrongItem {
                    asked: entry.path.clone(),
                    answered: path,
                    is_signed: false,
                },
            };
            let outcome = LookupOutcome::Refused(refusal);
            let answer = ServerAnswer {
                outcome,
                origin,
                expires_at: Some(expires_at),
            };
            self.note_offer(server, item, answer, offer, None);
        }
    }

    /// Queues a text for verification, for each of `items`; the results come back as messages.
    pub(super) fn queue_verification(
        &mut self,
        server: ServerIndex,
        mut items: Vec<ItemIndex>,
        bytes: Vec<u8>,
        origin: TextOrigin,
    ) {
        let Some(last) = items.pop() else { return };
        for item in items {
            self.queue_text(server, item, bytes.clone(), origin.clone());
        }
        self.queue_text(server, last, bytes, origin);
    }

    fn queue_text(
        &mut self,
        server: ServerIndex,
        item: ItemIndex,
        bytes: Vec<u8>,
        origin: TextOrigin,
    ) {
        let path = self.items[item].lookup.path.clone();
        self.text_batch.push(UnverifiedText {
            item,
            server,
            path,
            bytes,
            origin,
        });
        let bytes = self
            .text_batch
            .iter()
            .map(|text| text.bytes.len())
            .sum::<usize>();
        if self.text_batch.len() >= BATCH || bytes >= BATCH_BYTES {
            self.send_texts();
        }
    }

    pub(super) fn send_texts(&mut self) {
        if let Some(texts) = self.texts.as_ref().filter(|_| !self.text_batch.is_empty()) {
            // Fails only when every checker has died of a panic.
            let _ = texts.send(std::mem::take(&mut self.text_batch));
        }
    }
}
