//! What the engine does with answers from servers and from checkers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::format::escape::clip;
use crate::format::narinfo::NarOffer;
use crate::format::store_path::{HashPart, StorePath};
use crate::http::{CacheInfoText, HttpError, NarInfoAnswer};
use crate::lookup_cache::{
    AnswerKind, CacheEntry, CacheError, CacheInfoRecord, CachedAnswer, Downtime, ServerFact,
};
use crate::substitute::chain;
use crate::substitute::download::choice;
use crate::substitute::lookup::engine::LookupEngine;
use crate::substitute::lookup::items::ServerOffer;
use crate::substitute::lookup::refused::RefusedNarInfo;
use crate::substitute::lookup::servers::ServerState;
use crate::substitute::lookup::verification::{
    TextOrigin, VerificationOutcome, VerifiedText, answer_kind,
};
use crate::substitute::outcome::{AnswerOrigin, Authority, LookupOutcome, NarSource, ServerAnswer};
use crate::substitute::progress::ProgressEvent;
use crate::trust::verdict::Refusal;

impl LookupEngine {
    /// Asks `servers` about `item`.
    pub(super) fn ask(&mut self, item: u32, servers: &[usize]) {
        self.cache_misses += servers.len() as u64;
        let path = self.items[item as usize].item.path.clone();
        if let Err(why) = self.connect() {
            for &server in servers {
                let answer = ServerAnswer::of(LookupOutcome::LocalFailure(why.clone()));
                self.items[item as usize].item.answer(server, answer);
            }
            return self.advance(item);
        }
        if self.servers.iter().all(|server| server.outstanding() == 0) {
            self.asked_at = Instant::now();
        }
        for &server in servers {
            self.servers[server].asked();
            if let Some(lookups) = &self.lookups {
                lookups.request(server, path.hash_part());
            }
        }
    }

    /// Opens the way to the servers, the first time that one is needed.
    fn connect(&mut self) -> Result<(), String> {
        if self.lookups.is_some() {
            return Ok(());
        }
        let urls = self.servers.iter().map(|server| server.url.base());
        let client = self
            .setup
            .network
            .client_for_all(urls)
            .map_err(|error| chain(&*error))?;
        let specs = self
            .servers
            .iter()
            .map(crate::substitute::lookup::servers::LookupServer::spec)
            .collect();
        let (lookups, events) = client.lookups(specs).map_err(|error| chain(&error))?;
        self.lookups = Some(lookups);
        self.events = events.queue();
        self.listening = Some(events);
        Ok(())
    }

    /// A server has answered.
    pub(super) fn answered(
        &mut self,
        server: usize,
        hash_part: &HashPart,
        answer: Result<NarInfoAnswer, HttpError>,
    ) {
        let now = self.setup.clock.unix_seconds();
        let ttl = self.setup.options.ttl.clone();
        let entry = match answer {
            Ok(NarInfoAnswer::Found { text, max_age }) => {
                self.note_answer(server);
                let items = self.with_hash_part(hash_part);
                return self.check(server, items, text, TextOrigin::Server { max_age });
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
            Err(error) => return self.failed(server, hash_part, &error),
        };
        self.note_answer(server);
        let outcome = match &entry.answer {
            CachedAnswer::Preparing { status } => LookupOutcome::Preparing(*status),
            CachedAnswer::Negative { status } => LookupOutcome::Missing(*status),
            _ => return,
        };
        let expires_at = entry.is_fresh(now).then_some(entry.expires_at);
        self.queue_cache_entry(server, *hash_part, entry);
        for item in self.with_hash_part(hash_part) {
            let answer = ServerAnswer {
                outcome: outcome.clone(),
                origin: AnswerOrigin::Network,
                expires_at,
            };
            self.items[item as usize].item.answer(server, answer);
            self.advance(item);
        }
    }

    fn note_answer(&mut self, server: usize) {
        self.servers[server].answered();
        self.servers[server].answers += 1;
        self.clear_down_record(server);
    }

    /// A server that was believed to be down answers: later runs are to ask it.
    fn clear_down_record(&mut self, server: usize) {
        if self.servers[server].clears_down_record() {
            self.record_server_fact(server, ServerFact::Up);
        }
    }

    /// A server gave no usable answer. That it is down is remembered of the server; what it
    /// said of this item alone is remembered of the item.
    fn failed(&mut self, server: usize, hash_part: &HashPart, error: &HttpError) {
        let reason = bounded(chain(error));
        let has_response = error.status().is_some();
        let mut expires_at = None;
        if has_response {
            self.note_answer(server);
            let now = self.setup.clock.unix_seconds();
            let answer = CachedAnswer::Transient {
                reason: reason.clone().into(),
            };
            let wait = error.retry_after().map(|wait| wait.as_secs());
            let entry = self
                .setup
                .options
                .ttl
                .entry(answer, AnswerKind::Transient, wait, now);
            expires_at = Some(entry.expires_at);
            self.queue_cache_entry(server, *hash_part, entry);
        } else {
            self.servers[server].note_failure();
        }
        for item in self.with_hash_part(hash_part) {
            let outcome = if error.is_shortage() {
                LookupOutcome::LocalFailure(reason.clone())
            } else {
                LookupOutcome::Failed(reason.clone())
            };
            let answer = ServerAnswer {
                outcome,
                origin: AnswerOrigin::Network,
                expires_at,
            };
            self.items[item as usize].item.answer(server, answer);
            self.advance(item);
        }
    }

    /// A text has been checked.
    pub(super) fn checked(&mut self, checked: VerifiedText) {
        let VerifiedText {
            item,
            server,
            origin,
            text,
            outcome,
        } = checked;
        let server = usize::from(server);
        let answer_origin = match &origin {
            TextOrigin::Server { .. } => AnswerOrigin::Network,
            TextOrigin::Cache {
                asked_at,
                expires_at,
                ..
            } => AnswerOrigin::Cache {
                asked_at: *asked_at,
                expires_at: *expires_at,
            },
        };
        let expires_at = match &origin {
            TextOrigin::Server { max_age } => {
                self.cache_verified_text(server, item, text, &outcome, *max_age)
            }
            TextOrigin::Cache { expires_at, .. } => Some(*expires_at),
        };
        let answer = |outcome| ServerAnswer {
            outcome,
            origin: answer_origin,
            expires_at,
        };
        let (outcome, offer, authority) = match outcome {
            VerificationOutcome::Authorized(authority, offer) => {
                (LookupOutcome::Authorized, Some(offer), Some(authority))
            }
            VerificationOutcome::Refused(offer, refusal) => {
                (LookupOutcome::Refused(refusal), Some(offer), None)
            }
            VerificationOutcome::Unreadable(why) => {
                (LookupOutcome::Unreadable(bounded(why)), None, None)
            }
        };
        match offer {
            Some(offer) => self.note_offer(server, item, answer(outcome), offer, authority),
            None => self.items[item as usize]
                .item
                .answer(server, answer(outcome)),
        }
        self.advance(item);
    }

    /// Records what a server's narinfo offers.
    pub(super) fn note_offer(
        &mut self,
        server: usize,
        item: u32,
        answer: ServerAnswer,
        offer: NarOffer,
        authority: Option<Authority>,
    ) {
        let source = NarSource {
            server,
            offer: Arc::new(offer),
        };
        let usable = choice::check_usable(&source, &self.setup.servers);
        self.items[item as usize].item.note_narinfo(
            answer,
            ServerOffer {
                source,
                authority,
                usable,
            },
        );
    }

    /// Remembers a text that a server gave; until when.
    fn cache_verified_text(
        &mut self,
        server: usize,
        item: u32,
        text: Box<str>,
        outcome: &VerificationOutcome,
        max_age: Option<u64>,
    ) -> Option<u64> {
        let (answer, kind) = match outcome {
            VerificationOutcome::Authorized(authority, offer) => {
                let signed_by = Some(authority.authorized().key_id().into());
                (
                    CachedAnswer::Positive {
                        text,
                        key_id: signed_by,
                    },
                    answer_kind(offer),
                )
            }
            // The narinfo of another item says nothing about this one.
            VerificationOutcome::Refused(_, Refusal::WrongItem { .. })
            | VerificationOutcome::Unreadable(_) => return None,
            VerificationOutcome::Refused(offer, refusal) => {
                let path = self.items[item as usize].item.path.clone();
                let (refusal, offer) = (refusal.clone(), offer.clone());
                let refused = RefusedNarInfo {
                    path,
                    refusal,
                    offer,
                };
                let facts = refused.to_facts(&self.setup.store_dir, &self.setup.keys)?;
                // Refused today, but keys are authorized and signatures repaired: ask again soon.
                (CachedAnswer::Refused { facts }, AnswerKind::Transient)
            }
        };
        let now = self.setup.clock.unix_seconds();
        let entry = self.setup.options.ttl.entry(answer, kind, max_age, now);
        let expires_at = entry.is_fresh(now).then_some(entry.expires_at);
        let hash_part = self.items[item as usize].item.path.hash_part();
        self.queue_cache_entry(server, hash_part, entry);
        expires_at
    }

    fn queue_cache_entry(&mut self, server: usize, hash_part: HashPart, entry: CacheEntry) {
        self.pending_cache_entries
            .push((self.servers[server].id, hash_part, entry));
    }

    /// Writes what is to be remembered.
    pub(super) fn write_cache(&mut self) {
        let batch = std::mem::take(&mut self.pending_cache_entries);
        if !batch.is_empty() {
            let remembered = self.setup.cache.insert(&batch);
            self.warn(remembered.err());
        }
    }

    /// A server has told what it says of itself, or could not.
    pub(super) fn cache_info(
        &mut self,
        server: usize,
        info: Result<Option<CacheInfoText>, HttpError>,
    ) {
        // A server that could not be asked is reported as down; one without the file is
        // used with the defaults.
        let Ok(info) = info else { return };
        let max_age = info.as_ref().and_then(|info| info.max_age);
        let text = info.map(|info| clip(&info.text, INFO_BYTES_MAX).to_owned());
        let entry = &mut self.servers[server];
        entry.note_response();
        entry.learn_info(text.as_deref().unwrap_or_default(), &self.setup.store_dir);
        let now = self.setup.clock.unix_seconds();
        let (ttl, _) = self
            .setup
            .options
            .ttl
            .ttl_secs(AnswerKind::CacheInfo, max_age);
        let (text, expires_at) = (text.map(Into::into), now.saturating_add(ttl));
        let fact = CacheInfoRecord {
            text,
            answered_at: now,
            expires_at,
        };
        self.record_server_fact(server, ServerFact::CacheInfo(fact));
        self.clear_down_record(server);
        let entry = &self.servers[server];
        if let ServerState::OtherStore(why) = entry.state.clone() {
            let url = entry.url.as_str().to_owned();
            self.setup.progress.event(ProgressEvent::ServerDown {
                server: &url,
                reason: &why,
            });
            self.give_up(server, &LookupOutcome::OtherStore(why));
        }
    }

    /// A server is down: nothing it was asked will be answered.
    pub(super) fn server_down(&mut self, server: usize, error: &HttpError) {
        let why = bounded(chain(error));
        if error.is_shortage() {
            // That is not the server's fault, so later runs are to ask it.
            let url = self.servers[server].url.as_str().to_owned();
            self.setup.progress.event(ProgressEvent::ServerDown {
                server: &url,
                reason: &why,
            });
            return;
        }
        self.servers[server].mark_down(ServerState::Down(why.clone()));
        self.record_down(server, &why, error.retry_after());
        let url = self.servers[server].url.as_str().to_owned();
        self.setup.progress.event(ProgressEvent::ServerDown {
            server: &url,
            reason: &why,
        });
    }

    /// An item was decided without waiting for `server` any longer.
    pub(super) fn not_awaited(&mut self, server: usize) {
        if !matches!(
            self.servers[server].state,
            ServerState::NotNeeded | ServerState::Up
        ) {
            return;
        }
        let state = ServerState::Slow;
        self.servers[server].mark_down(state.clone());
        let reason = state.reason().unwrap_or_default();
        self.record_down(server, reason, None);
        let url = self.servers[server].url.as_str().to_owned();
        self.setup.progress.event(ProgressEvent::ServerDown {
            server: &url,
            reason,
        });
    }

    /// A server that says how long it wants to be left alone is, within reason.
    fn record_down(&mut self, server: usize, reason: &str, retry_after: Option<Duration>) {
        let now = self.setup.clock.unix_seconds();
        let options = &self.setup.options;
        let wanted = retry_after.map_or(0, |wait| {
            options
                .ttl
                .ttl_secs(AnswerKind::Transient, Some(wait.as_secs()))
                .0
        });
        let until = now.saturating_add(options.down_seconds.max(wanted));
        let down = Downtime {
            since: now,
            until,
            reason: reason.into(),
        };
        self.record_server_fact(server, ServerFact::Down(down));
    }

    /// Remembers something of a server itself.
    pub(super) fn record_server_fact(&mut self, server: usize, fact: ServerFact) {
        let id = self.servers[server].id;
        let remembered = self.setup.cache.update_server(id, &[fact]);
        self.warn(remembered.err());
    }

    /// Passes on what the lookup cache complains about; lookups go on without it.
    pub(super) fn warn(&self, error: Option<CacheError>) {
        if let Some(error) = error {
            self.setup
                .progress
                .event(ProgressEvent::Warning(&chain(&error)));
        }
    }

    /// Has `said` stand in for everything that `server` still owes.
    fn give_up(&mut self, server: usize, outcome: &LookupOutcome) {
        let count = u32::try_from(self.items.len()).unwrap_or(u32::MAX);
        for item in 0..count {
            let entry = &mut self.items[item as usize].item;
            if entry.unanswered().contains(&server) {
                entry.answer(server, ServerAnswer::of(outcome.clone()));
                self.advance(item);
            }
        }
    }

    /// Forgets everything about `item`.
    pub(super) fn discard(&mut self, item: &StorePath) {
        self.remove_cached(item);
        for index in self.with_hash_part(&item.hash_part()) {
            if self.items[index as usize].is_decided {
                self.reset(index);
            }
        }
    }

    /// Forgets what the lookup cache has about `item`.
    pub(super) fn remove_cached(&mut self, item: &StorePath) {
        self.write_cache();
        let forgotten = self.setup.cache.remove(None, &[item.hash_part()]);
        self.warn(forgotten.err());
    }
}

/// A reason that a server may have made as long as it likes, cut to a sensible length.
fn bounded(reason: String) -> String {
    match clip(&reason, REASON_BYTES_MAX) {
        head if head.len() < reason.len() => format!("{head}..."),
        _ => reason,
    }
}

const REASON_BYTES_MAX: usize = 1000;
/// So much is kept of a server's `nix-cache-info`, which has a hundred bytes.
const INFO_BYTES_MAX: usize = 4 << 10;
