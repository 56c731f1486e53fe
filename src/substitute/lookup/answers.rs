//! What the engine does with answers: from the lookup cache, from servers, from checkers.

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam_channel::bounded;

use crate::format::narinfo::NarInfo;
use crate::format::store_path::{HashPart, StorePath};
use crate::http::{CacheInfoText, HttpError, NarInfoAnswer};
use crate::lookup_cache::{
    AnswerKind, CacheError, CacheInfoFact, Down, Entry, Remembered, ServerFact,
};
use crate::substitute::answer::{Answer, Origin, Said};
use crate::substitute::chain;
use crate::substitute::progress::Event;
use crate::trust::verdict::Refusal;

use super::check::{self, Checked, Outcome, Text, TextOrigin};
use super::engine::{EVENT_QUEUE, Engine};
use super::servers::ServerState;
use super::{Freshness, Memos};

impl Engine {
    /// Takes what the lookup cache has about `items` into the books.
    pub(super) fn recall(&mut self, items: &[u32]) {
        if self.setup.options.freshness != Freshness::Refresh {
            for server in 0..self.servers.len() {
                self.recall_server(server, items);
            }
        }
        for server in 0..self.servers.len() {
            let obstacle = match self.setup.options.freshness {
                Freshness::Offline => Some(Said::Offline),
                _ => self.servers[server].obstacle().map(|why| Said::Skipped(why.to_owned())),
            };
            let Some(said) = obstacle else { continue };
            for &item in items {
                let entry = &mut self.items[item as usize].item;
                if entry.is_open(server) {
                    entry.answer(server, Answer::of(said.clone()));
                }
            }
        }
    }

    fn recall_server(&mut self, server: usize, items: &[u32]) {
        if matches!(self.servers[server].state, ServerState::OtherStore(_)) {
            return;
        }
        let now = self.setup.clock.unix_seconds();
        let wanted: HashMap<HashPart, u32> = items
            .iter()
            .map(|&item| (self.items[item as usize].item.path.hash_part(), item))
            .collect();
        let hash_parts: Vec<HashPart> = wanted.keys().copied().collect();
        let found = self.setup.cache.find(self.servers[server].id, &hash_parts, now);
        let entries = found.unwrap_or_else(|error| {
            self.warn(Some(error));
            Vec::new()
        });
        for (hash_part, entry) in entries {
            if !self.is_stale_negative(&entry, now) {
                self.cache_hits += 1;
                for item in self.with_hash_part(&hash_part) {
                    self.recalled(server, item, &entry);
                }
            }
        }
    }

    fn is_stale_negative(&self, entry: &Entry, now: u64) -> bool {
        let is_negative = matches!(entry.answer, Remembered::Negative { .. });
        let limit = self.setup.options.negative_max_age.filter(|_| is_negative);
        limit.is_some_and(|limit| now.saturating_sub(entry.asked_at) > limit)
    }

    fn recalled(&mut self, server: usize, item: u32, entry: &Entry) {
        let said = match &entry.answer {
            Remembered::Positive { text, vouched_by } => {
                let origin = TextOrigin::Cache {
                    asked_at: entry.asked_at,
                    expires_at: entry.expires_at,
                    vouched_by: vouched_by
                        .clone()
                        .filter(|_| self.setup.options.memos == Memos::Believe),
                };
                self.items[item as usize].item.mark_remembered(server);
                return self.check(server, item, text.as_bytes().to_vec(), origin);
            }
            Remembered::Negative { status } => Said::Missing(*status),
            Remembered::Baking { status } => Said::Baking(*status),
            Remembered::Transient { reason } => Said::Failed(reason.to_string()),
        };
        let origin = Origin::Cache { asked_at: entry.asked_at, expires_at: entry.expires_at };
        let answer = Answer { said, origin, expires_at: Some(entry.expires_at) };
        self.items[item as usize].item.answer(server, answer);
    }

    /// Has a text checked; the result comes back as a message.
    fn check(&mut self, server: usize, item: u32, bytes: Vec<u8>, origin: TextOrigin) {
        let path = self.items[item as usize].item.path.clone();
        let server = u16::try_from(server).expect("there are fewer than 2^16 servers");
        self.text_batch.push(Text { item, server, path, bytes, origin });
        if self.text_batch.len() >= check::BATCH {
            self.send_texts();
        }
    }

    pub(super) fn send_texts(&mut self) {
        if let Some(texts) = self.texts.as_ref().filter(|_| !self.text_batch.is_empty()) {
            // Fails only when every checker has died of a panic.
            let _ = texts.send(std::mem::take(&mut self.text_batch));
        }
    }

    /// Asks `servers` about `item`.
    pub(super) fn ask(&mut self, item: u32, servers: &[usize]) {
        self.cache_misses += servers.len() as u64;
        let path = self.items[item as usize].item.path.clone();
        if let Err(why) = self.connect() {
            for &server in servers {
                let answer = Answer::of(Said::Failed(why.clone()));
                self.items[item as usize].item.answer(server, answer);
            }
            return self.advance(item);
        }
        for &server in servers {
            self.servers[server].asked();
            if let Some(lookups) = &self.lookups {
                lookups.ask(server, path.hash_part());
            }
        }
    }

    /// Opens the way to the servers, the first time that one is needed.
    fn connect(&mut self) -> Result<(), String> {
        if self.lookups.is_some() {
            return Ok(());
        }
        let client = self.setup.network.client().map_err(|error| chain(&*error))?;
        let specs = self.servers.iter().map(super::servers::Server::spec).collect();
        let (lookups, mut events) = client.lookups(specs);
        let (forward, inbox) = bounded(EVENT_QUEUE);
        std::thread::Builder::new()
            .name("answers".to_owned())
            .spawn(move || {
                while let Some(event) = events.recv() {
                    if forward.send(event).is_err() {
                        break;
                    }
                }
            })
            .map_err(|error| format!("starting a thread: {error}"))?;
        self.lookups = Some(lookups);
        self.events = inbox;
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
                self.servers[server].answered();
                self.servers[server].requests += 1;
                for item in self.with_hash_part(hash_part) {
                    self.check(server, item, text.clone(), TextOrigin::Server { max_age });
                }
                return;
            }
            Ok(NarInfoAnswer::Missing { status, max_age }) => {
                ttl.entry(Remembered::Negative { status }, AnswerKind::Negative, max_age, now)
            }
            Ok(NarInfoAnswer::Baking { status, max_age }) => {
                ttl.entry(Remembered::Baking { status }, AnswerKind::Baking, max_age, now)
            }
            Err(error) => return self.failed(server, hash_part, &error),
        };
        self.servers[server].answered();
        self.servers[server].requests += 1;
        let said = match &entry.answer {
            Remembered::Baking { status } => Said::Baking(*status),
            Remembered::Negative { status } => Said::Missing(*status),
            _ => return,
        };
        let expires_at = entry.is_fresh(now).then_some(entry.expires_at);
        self.remember_later(server, *hash_part, entry);
        for item in self.with_hash_part(hash_part) {
            let answer = Answer { said: said.clone(), origin: Origin::Network, expires_at };
            self.items[item as usize].item.answer(server, answer);
            self.advance(item);
        }
    }

    /// A server gave no usable answer. That it is down is remembered of the server; what it
    /// said of this item alone is remembered of the item.
    fn failed(&mut self, server: usize, hash_part: &HashPart, error: &HttpError) {
        let reason = chain(error);
        let said_something = error.status().is_some();
        let mut expires_at = None;
        if said_something {
            self.servers[server].answered();
            self.servers[server].requests += 1;
            let now = self.setup.clock.unix_seconds();
            let answer = Remembered::Transient { reason: reason.clone().into() };
            let entry = self.setup.options.ttl.entry(answer, AnswerKind::Transient, None, now);
            expires_at = Some(entry.expires_at);
            self.remember_later(server, *hash_part, entry);
        } else {
            self.servers[server].gave_up();
        }
        for item in self.with_hash_part(hash_part) {
            let said = Said::Failed(reason.clone());
            let answer = Answer { said, origin: Origin::Network, expires_at };
            self.items[item as usize].item.answer(server, answer);
            self.advance(item);
        }
    }

    /// A text has been checked.
    pub(super) fn checked(&mut self, checked: Checked) {
        let Checked { item, server, origin, outcome } = checked;
        let server = usize::from(server);
        let answer_origin = match &origin {
            TextOrigin::Server { .. } => Origin::Network,
            TextOrigin::Cache { asked_at, expires_at, .. } => {
                Origin::Cache { asked_at: *asked_at, expires_at: *expires_at }
            }
        };
        let expires_at = match &origin {
            TextOrigin::Server { max_age } => {
                self.remember_outcome(server, item, &outcome, *max_age)
            }
            TextOrigin::Cache { expires_at, .. } => Some(*expires_at),
        };
        let answer = |said| Answer { said, origin: answer_origin, expires_at };
        let entry = &mut self.items[item as usize].item;
        match outcome {
            Outcome::Authorized(authority) => {
                let narinfo = Arc::clone(authority.narinfo());
                entry.note_narinfo(server, answer(Said::Authorized), narinfo, Some(authority));
            }
            Outcome::Refused(narinfo, refusal) => {
                entry.note_narinfo(server, answer(Said::Refused(refusal)), narinfo, None);
            }
            Outcome::Unreadable(why) => entry.answer(server, answer(Said::Unreadable(why))),
        }
        self.advance(item);
    }

    /// Remembers a text that a server gave; until when.
    fn remember_outcome(
        &mut self,
        server: usize,
        item: u32,
        outcome: &Outcome,
        max_age: Option<u64>,
    ) -> Option<u64> {
        let (answer, kind) = match outcome {
            Outcome::Authorized(authority) => {
                let narinfo = authority.narinfo();
                let vouched_by = Some(authority.authorized().key_id().into());
                (Remembered::Positive { text: narinfo.text().into(), vouched_by }, kind_of(narinfo))
            }
            // The narinfo of another item says nothing about this one.
            Outcome::Refused(_, Refusal::WrongItem { .. }) | Outcome::Unreadable(_) => return None,
            Outcome::Refused(narinfo, _) => {
                let text = narinfo.text().into();
                // Refused today, but keys are authorised and signatures repaired: ask again soon.
                (Remembered::Positive { text, vouched_by: None }, AnswerKind::Transient)
            }
        };
        let now = self.setup.clock.unix_seconds();
        let entry = self.setup.options.ttl.entry(answer, kind, max_age, now);
        let expires_at = entry.is_fresh(now).then_some(entry.expires_at);
        let hash_part = self.items[item as usize].item.path.hash_part();
        self.remember_later(server, hash_part, entry);
        expires_at
    }

    fn remember_later(&mut self, server: usize, hash_part: HashPart, entry: Entry) {
        self.to_remember.push((self.servers[server].id, hash_part, entry));
    }

    /// Writes what is to be remembered.
    pub(super) fn remember(&mut self) {
        let batch = std::mem::take(&mut self.to_remember);
        if !batch.is_empty() {
            let remembered = self.setup.cache.remember(&batch);
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
        let text = info.map(|info| info.text);
        let entry = &mut self.servers[server];
        entry.heard();
        entry.learn_info(text.as_deref().unwrap_or_default(), &self.setup.store_dir);
        let now = self.setup.clock.unix_seconds();
        let (ttl, _) = self.setup.options.ttl.ttl_secs(AnswerKind::CacheInfo, max_age);
        let (text, expires_at) = (text.map(Into::into), now.saturating_add(ttl));
        let fact = CacheInfoFact { text, asked_at: now, expires_at };
        self.remember_of(server, ServerFact::CacheInfo(fact));
        let entry = &self.servers[server];
        if let ServerState::OtherStore(why) = entry.state.clone() {
            let url = entry.url.as_str().to_owned();
            self.setup.progress.event(Event::ServerDown { server: &url, reason: &why });
            self.give_up(server, &why);
        }
    }

    /// A server is down: nothing it was asked will be answered.
    pub(super) fn server_down(&mut self, server: usize, error: &HttpError) {
        let why = chain(error);
        let entry = &mut self.servers[server];
        entry.state = ServerState::Down(why.clone());
        self.remember_down(server, &why);
        let url = self.servers[server].url.as_str().to_owned();
        self.setup.progress.event(Event::ServerDown { server: &url, reason: &why });
    }

    /// An item was decided without waiting for `server` any longer.
    pub(super) fn left_behind(&mut self, server: usize) {
        if !matches!(self.servers[server].state, ServerState::NotAsked) {
            return;
        }
        self.servers[server].state = ServerState::Slow;
        let state = ServerState::Slow;
        let reason = state.reason().unwrap_or_default();
        self.remember_down(server, reason);
        let url = self.servers[server].url.as_str().to_owned();
        self.setup.progress.event(Event::ServerDown { server: &url, reason });
    }

    fn remember_down(&mut self, server: usize, reason: &str) {
        let now = self.setup.clock.unix_seconds();
        let until = now.saturating_add(self.setup.options.down_seconds);
        let down = Down { since: now, until, reason: reason.into() };
        self.remember_of(server, ServerFact::Down(down));
    }

    /// Remembers something of a server itself.
    pub(super) fn remember_of(&mut self, server: usize, fact: ServerFact) {
        let id = self.servers[server].id;
        let remembered = self.setup.cache.remember_server_facts(id, &[fact]);
        self.warn(remembered.err());
    }

    /// Passes on what the lookup cache complains about; lookups go on without it.
    pub(super) fn warn(&self, error: Option<CacheError>) {
        if let Some(error) = error {
            self.setup.progress.event(Event::Warning(&chain(&error)));
        }
    }

    /// Answers everything that `server` still owes.
    fn give_up(&mut self, server: usize, why: &str) {
        let count = u32::try_from(self.items.len()).unwrap_or(u32::MAX);
        for item in 0..count {
            let entry = &mut self.items[item as usize].item;
            if entry.unanswered().contains(&server) {
                entry.answer(server, Answer::of(Said::Skipped(why.to_owned())));
                self.advance(item);
            }
        }
    }

    /// Forgets everything about `item`.
    pub(super) fn forget(&mut self, item: &StorePath) {
        self.remember();
        let hash_part = item.hash_part();
        let forgotten = self.setup.cache.forget(None, &[hash_part]);
        self.warn(forgotten.err());
        for index in self.with_hash_part(&hash_part) {
            if self.items[index as usize].is_decided {
                self.reset(index);
            }
        }
    }
}

/// Servers that compress on the fly do not know the download's size yet; soon they will.
fn kind_of(narinfo: &NarInfo) -> AnswerKind {
    if narinfo.downloads().iter().any(|download| download.file_size.is_some()) {
        AnswerKind::Positive
    } else {
        AnswerKind::PositiveWithoutFileSize
    }
}
