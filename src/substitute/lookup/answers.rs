//! What the engine does with answers from servers and from checkers.

use std::sync::Arc;
use std::time::Instant;

use crate::format::narinfo::{NarInfo, NarOffer};
use crate::format::server_list::ServerIndex;
use crate::format::store_path::HashPart;
use crate::http::{HttpError, NarInfoAnswer};
use crate::lookup_cache::{AnswerKind, CacheEntry, CacheError, CachedAnswer, ServerFact};
use crate::substitute::download::choice;
use crate::substitute::item_lookup::NarSource;
use crate::substitute::lookup::engine::LookupEngine;
use crate::substitute::lookup::items::ItemIndex;
use crate::substitute::lookup::options::SignatureChecks;
use crate::substitute::lookup::refused::RefusedNarInfo;
use crate::substitute::lookup::server_offer::ServerOffer;
use crate::substitute::lookup::verification::{
    TextOrigin, VerificationOutcome, VerificationResult, answer_kind,
};
use crate::substitute::outcome::{AnswerOrigin, LookupFailure, LookupOutcome, ServerAnswer};
use crate::substitute::progress::ProgressEvent;
use crate::trust::signed::SignedNarInfo;
use crate::trust::verdict::Refusal;

impl LookupEngine {
    /// Sends requests for `item` to `servers`.
    pub(super) fn request(&mut self, item: ItemIndex, servers: &[ServerIndex]) {
        self.cache_misses += servers.len() as u64;
        let path = self.items[item].lookup.path.clone();
        if let Err(error) = self.connect() {
            for &server in servers {
                let failure = LookupFailure::Request(Arc::clone(&error));
                let answer = ServerAnswer::of(LookupOutcome::LocalFailure(failure));
                self.items[item].lookup.answer(server, answer);
            }
            return self.advance(item);
        }

        if self.servers.iter().all(|server| server.outstanding() == 0) {
            self.asked_at = Instant::now();
        }
        for &server in servers {
            self.servers[server].requested();
            if let Some(lookups) = &self.lookups {
                lookups.request(server, path.hash_part());
            }
        }
    }

    /// Opens the way to the servers, the first time that one is needed.
    fn connect(&mut self) -> Result<(), Arc<HttpError>> {
        if self.lookups.is_some() {
            return Ok(());
        }
        let urls = self.servers.iter().map(|server| server.url.base());
        let client = self.setup.network.client_for_all(urls)?;
        let limits = self.setup.options.retry_limits.as_ref();
        let specs = self
            .servers
            .enumerated()
            .map(|(index, server)| server.spec(limits.map(|limits| limits[index])));
        let (lookups, events) = client.lookups(specs.collect())?;
        self.lookups = Some(lookups);
        self.events = events.queue();
        self.listening = Some(events);
        Ok(())
    }

    /// A server has answered.
    pub(super) fn answered(
        &mut self,
        server: ServerIndex,
        hash_part: &HashPart,
        answer: Result<NarInfoAnswer, HttpError>,
    ) {
        let now = self.setup.clock.unix_seconds();
        let ttl = self.setup.options.ttl.clone();
        let entry = match answer {
            Ok(NarInfoAnswer::Found { text, max_age }) => {
                self.note_answer(server);
                let items = self.items.with_hash_part(hash_part);
                return self.queue_verification(
                    server,
                    items,
                    text,
                    TextOrigin::Server { max_age },
                );
            }
            Ok(NarInfoAnswer::Missing { status, max_age }) => ttl.entry(
                CachedAnswer::Negative { status },
                AnswerKind::Negative,
                max_age,
                now,
            ),
            Ok(NarInfoAnswer::Preparing { status, max_age }) => ttl.entry(
                CachedAnswer::Preparing { status },
                AnswerKind::Preparing,
                max_age,
                now,
            ),
            Err(error) => return self.failed(server, hash_part, error),
        };

        self.note_answer(server);
        let outcome = match &entry.answer {
            CachedAnswer::Preparing { status } => LookupOutcome::Preparing(*status),
            CachedAnswer::Negative { status } => LookupOutcome::Missing(*status),
            _ => return,
        };

        let expires_at = entry.is_fresh(now).then_some(entry.expires_at);
        self.queue_cache_entry(server, *hash_part, entry);
        for item in self.items.with_hash_part(hash_part) {
            let answer = ServerAnswer {
                outcome: outcome.clone(),
                origin: AnswerOrigin::Network,
                expires_at,
            };
            self.items[item].lookup.answer(server, answer);
            self.advance(item);
        }
    }

    fn note_answer(&mut self, server: ServerIndex) {
        self.servers[server].answered();
        self.servers[server].answers += 1;
        self.clear_down_record(server);
    }

    /// A server that is recorded as down answers: later runs use it.
    pub(super) fn clear_down_record(&mut self, server: ServerIndex) {
        if self.servers[server].clears_down_record() {
            self.record_server_fact(server, ServerFact::Up);
        }
    }

    /// A server gave no usable answer. That it is down is recorded of the server; an error
    /// response about this item is cached for the item, but not what the next run may get rid of: a
    /// page instead of a narinfo, which may come from the network's login, and what depends on
    /// settings. Nor does an error replace the cached answer that was to be renewed.
    fn failed(&mut self, server: ServerIndex, hash_part: &HashPart, error: HttpError) {
        let (has_status, is_local) = (error.status().is_some(), error.is_of_this_machine());
        let has_response = has_status || error.is_unexpected_content();
        let items = self.items.with_hash_part(hash_part);
        let has_cached_answer = items
            .iter()
            .any(|&item| self.items[item].lookup.is_requested_again(server));
        let is_cached = has_status && !error.depends_on_settings() && !has_cached_answer;
        let retry_after = error.retry_after().map(|wait| wait.as_secs());
        let failure = LookupFailure::Request(Arc::new(error));

        let mut expires_at = None;
        if has_response {
            self.note_answer(server);
        } else {
            self.servers[server].note_failure();
        }
        if is_cached {
            let now = self.setup.clock.unix_seconds();
            let answer = CachedAnswer::Transient {
                reason: failure.to_string().into(),
            };
            let ttl = &self.setup.options.ttl;
            let entry = ttl.entry(answer, AnswerKind::Transient, retry_after, now);
            expires_at = Some(entry.expires_at);
            self.queue_cache_entry(server, *hash_part, entry);
        }

        let outcome = if is_local {
            LookupOutcome::LocalFailure(failure)
        } else if has_response {
            LookupOutcome::Failed(failure)
        } else {
            LookupOutcome::NoResponse(failure)
        };

        for item in items {
            let answer = ServerAnswer {
                outcome: outcome.clone(),
                origin: AnswerOrigin::Network,
                expires_at,
            };
            self.items[item].lookup.answer(server, answer);
            self.advance(item);
        }
    }

    /// Handles the result of verifying a text.
    pub(super) fn handle_verified(&mut self, result: VerificationResult) {
        let VerificationResult {
            item,
            server,
            origin,
            text,
            outcome,
        } = result;
        let (origin, expires_at) = match origin {
            TextOrigin::Server { max_age } => (
                AnswerOrigin::Network,
                self.cache_verified_text(server, item, text, &outcome, max_age),
            ),
            TextOrigin::Cache {
                asked_at,
                expires_at,
                ..
            } => (
                AnswerOrigin::Cache {
                    asked_at,
                    expires_at,
                },
                Some(expires_at),
            ),
        };

        let (outcome, offer, signed) = match outcome {
            VerificationOutcome::Signed(signed, offer) => {
                (LookupOutcome::Authorized, Some(offer), Some(signed))
            }
            VerificationOutcome::Refused(offer, refusal) => {
                (LookupOutcome::Refused(refusal), Some(offer), None)
            }
            VerificationOutcome::Unreadable(why) => (LookupOutcome::Unreadable(why), None, None),
        };

        let answer = ServerAnswer {
            outcome,
            origin,
            expires_at,
        };
        match offer {
            Some(offer) => self.note_offer(server, item, answer, offer, signed),
            None => self.items[item].lookup.answer(server, answer),
        }
        self.advance(item);
    }

    /// Records what a server's narinfo offers.
    pub(super) fn note_offer(
        &mut self,
        server: ServerIndex,
        item: ItemIndex,
        answer: ServerAnswer,
        offer: NarOffer,
        signed: Option<SignedNarInfo>,
    ) {
        let source = NarSource {
            server,
            offer: Arc::new(offer),
        };

        let usable = choice::check_usable(&source, self.setup.network.servers());
        let offer = ServerOffer::new(source, usable);
        let lookup = &mut self.items[item].lookup;
        lookup.note_narinfo(answer, offer, signed);
    }

    /// Caches what a server's text gave; until when.
    fn cache_verified_text(
        &mut self,
        server: ServerIndex,
        item: ItemIndex,
        text: Box<str>,
        outcome: &VerificationOutcome,
        max_age: Option<u64>,
    ) -> Option<u64> {
        let (answer, kind) = match outcome {
            VerificationOutcome::Signed(signed, offer) => {
                let signed_by = Some(signed.key_id().into());
                (
                    CachedAnswer::Positive {
                        text,
                        key_id: signed_by,
                    },
                    answer_kind(offer),
                )
            }
            // The narinfo of another item is no answer for this one.
            VerificationOutcome::Refused(_, Refusal::WrongItem { .. })
            | VerificationOutcome::Unreadable(_) => return None,
            VerificationOutcome::Refused(offer, refusal) => {
                let path = self.items[item].lookup.path.clone();
                let (refusal, offer) = (refusal.clone(), offer.clone());
                let refused = RefusedNarInfo {
                    path,
                    refusal,
                    offer,
                };
                let scope = self.setup.policy.signature_scope();
                let keys = self.setup.keys.fingerprint(scope);
                let facts = refused.to_facts(&self.setup.store_dir, &keys)?;
                // Refused today, but keys are authorized and signatures repaired: it expires soon.
                (CachedAnswer::Refused { facts }, AnswerKind::Transient)
            }
        };

        let now = self.setup.clock.unix_seconds();
        let entry = self.setup.options.ttl.entry(answer, kind, max_age, now);
        let expires_at = entry.is_fresh(now).then_some(entry.expires_at);
        let hash_part = self.items[item].lookup.path.hash_part();
        self.queue_cache_entry(server, hash_part, entry);
        expires_at
    }

    fn queue_cache_entry(&mut self, server: ServerIndex, hash_part: HashPart, entry: CacheEntry) {
        self.pending_cache_entries
            .push((self.servers[server].row, hash_part, entry));
    }

    /// Writes the pending entries to the lookup cache.
    pub(super) fn write_cache(&mut self) {
        let batch = std::mem::take(&mut self.pending_cache_entries);
        if !batch.is_empty() {
            let inserted = self.setup.cache.insert(&batch);
            self.warn(inserted.err());
        }
    }

    /// The narinfo whose references belong to the closure. A report says beforehand what the policy
    /// refuses, in the whole closure.
    pub(super) fn followed_narinfo(&self, item: ItemIndex) -> Option<&Arc<NarInfo>> {
        let lookup = &self.items[item].lookup;
        let is_report = self.setup.options.signature_checks == SignatureChecks::ReuseRecorded;
        let refused = lookup.refused_narinfo().filter(|_| is_report);
        lookup.narinfo().or(refused)
    }

    /// Reports the items that the policy accepts with a warning only.
    pub(super) fn report_objections(&mut self) {
        let objections = std::mem::take(&mut self.objections);
        let Some((item, refusal)) = objections.first() else {
            return;
        };

        let (store_dir, path) = (&self.setup.store_dir, &self.items[*item].lookup.path);
        let path = store_dir.display(path);
        let used = match objections.len() {
            1 => format!("{path} is used"),
            count => format!("{count} items are used, such as {path}"),
        };
        let text = format!("{used}, since [trust] says to warn only: {refusal}");
        self.setup.progress.event(ProgressEvent::Warning(&text));
    }

    /// Reports a failure of the lookup cache, if there was one.
    pub(super) fn warn(&self, error: Option<CacheError>) {
        if let Some(error) = error {
            self.setup.warn(&error);
        }
    }
}
