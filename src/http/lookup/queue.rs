//! What a server's connections share: the questions that wait, and how many may be asked now.
//!
//! Every method is one step of a few instructions under the server's lock. Questions are in one
//! of four places: waiting, delayed until a time, redirected elsewhere, or taken (then they are
//! only counted here, and whoever took them gives them back or settles them).

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use super::health::{Course, Health};
use super::pending::Ask;
use super::request::Question;
use crate::format::cache_info::CacheInfo;
use crate::format::store_path::HashPart;
use crate::http::error::{HttpError, HttpErrorKind};
use crate::http::options::{Options, Protocol, ServerSpec};

pub(in crate::http) struct State {
    pub(in crate::http) health: Health,
    /// Connections that may ask at the same time.
    pub(in crate::http) connections_max: usize,
    /// Connections that have not had their turn yet.
    pub(in crate::http) connecting: usize,
    /// Connections whose turn it is.
    pub(in crate::http) asking: usize,
    /// Those of them that take no more requests.
    pub(in crate::http) draining: usize,
    queue: VecDeque<Ask>,
    /// Questions to be asked again, by when; the number keeps equal times apart.
    delayed: BTreeMap<(Instant, u64), Ask>,
    delayed_count: u64,
    /// Questions whose answer is elsewhere, and where.
    redirected: Vec<(Ask, String)>,
    /// Questions that were taken.
    in_flight: usize,
    /// What a connection takes at once.
    window: usize,
    protocol: Option<Protocol>,
    /// Until when nothing is asked; the time may have come and not been noticed yet.
    paused_until: Option<Instant>,
    /// How often the server had too much to do and was left alone.
    pauses: u64,
    /// After a pause one question at a time is asked until one is answered.
    is_probing: bool,
    needs_cache_info: bool,
    /// Why nothing is asked any more.
    over: Option<Over>,
}

/// Why nothing is asked any more.
#[derive(Debug, Clone)]
pub(in crate::http) enum Over {
    /// Given up; every question gets this answer.
    Down(HttpError),
    /// Nobody waits for answers.
    Forgotten,
}

impl State {
    pub(in crate::http) fn new(spec: &ServerSpec, options: &Options) -> Self {
        let known = spec.cache_info.as_ref();
        let retries = options.retries.clone();
        Self {
            health: Health::new(retries, spec.pipelining, spec.requests_per_connection),
            connections_max: known.map_or(1, |info| welcome_connections(info, options)),
            connecting: 0,
            asking: 0,
            draining: 0,
            queue: VecDeque::new(),
            delayed: BTreeMap::new(),
            delayed_count: 0,
            redirected: Vec::new(),
            in_flight: 0,
            window: options.max_in_flight,
            protocol: None,
            paused_until: None,
            pauses: 0,
            is_probing: false,
            needs_cache_info: known.is_none(),
            over: None,
        }
    }

    /// What to ask when `item` is asked for: before the first item, the server about itself.
    pub(in crate::http) fn questions(
        &mut self,
        item: Option<HashPart>,
    ) -> impl Iterator<Item = Question> + use<> {
        let needs_cache_info = std::mem::take(&mut self.needs_cache_info);
        let cache_info = needs_cache_info.then_some(Question::CacheInfo);
        cache_info.into_iter().chain(item.map(Question::NarInfo))
    }

    pub(in crate::http) fn push(&mut self, ask: Ask) {
        self.queue.push_back(ask);
    }

    /// Moves up to `room` questions that may be sent now on one connection to `taken`, which
    /// holds the unanswered ones of that connection.
    pub(in crate::http) fn take(
        &mut self,
        taken: &mut VecDeque<Ask>,
        room: usize,
        protocol: Protocol,
    ) {
        if !self.may_ask() {
            return;
        }
        let now = Instant::now();
        // On HTTP/2 answers cannot get mixed up.
        let is_http1 = protocol == Protocol::Http1;
        let one_at_a_time = is_http1 && !self.health.asks_ahead();
        for _ in 0..room {
            let Some(next) = self.queue.front() else {
                break;
            };
            let must_wait = match taken.front() {
                Some(first) => one_at_a_time || (is_http1 && (first.alone || next.alone)),
                None => false,
            };
            if must_wait || (self.is_probing && self.in_flight > 0) {
                break;
            }
            let Some(mut ask) = self.queue.pop_front() else {
                break;
            };
            ask.first_asked.get_or_insert(now);
            ask.pauses_before = self.pauses;
            self.in_flight += 1;
            taken.push_back(ask);
        }
    }

    /// Takes back what was not answered, to the front of the queue.
    pub(in crate::http) fn take_back(&mut self, asks: &mut VecDeque<Ask>) {
        self.in_flight -= asks.len();
        while let Some(ask) = asks.pop_back() {
            self.queue.push_front(ask);
        }
    }

    /// Notes that one question that was taken is dealt with.
    pub(in crate::http) fn forget_one(&mut self) {
        self.in_flight -= 1;
    }

    pub(in crate::http) fn push_redirected(&mut self, ask: Ask, location: String) {
        self.redirected.push((ask, location));
    }

    /// Takes a question whose answer is elsewhere, and where.
    pub(in crate::http) fn take_redirected(&mut self) -> Option<(Ask, String)> {
        let redirected = self.redirected.pop()?;
        self.in_flight += 1;
        Some(redirected)
    }

    /// Takes out every question that nobody has taken.
    pub(in crate::http) fn drain(&mut self) -> Vec<Ask> {
        let mut asks: Vec<Ask> = self.queue.drain(..).collect();
        asks.extend(std::mem::take(&mut self.delayed).into_values());
        asks.extend(self.redirected.drain(..).map(|(ask, _)| ask));
        asks
    }

    pub(in crate::http) fn over(&self) -> Option<&Over> {
        self.over.as_ref()
    }

    /// Ends everything, for a reason; the first one counts. Whether this is the first.
    pub(in crate::http) fn stop(&mut self, over: Over) -> bool {
        let is_first = self.over.is_none();
        self.over.get_or_insert(over);
        is_first
    }

    /// Whether there are questions that may be asked now.
    pub(in crate::http) fn may_ask(&self) -> bool {
        self.over.is_none() && self.paused_until.is_none() && !self.queue.is_empty()
    }

    /// Whether another connection is worth opening, `open` being there.
    pub(in crate::http) fn wants_connection(&self, open: usize) -> bool {
        if !self.may_ask() {
            return false;
        }
        let connections_max = if self.is_probing {
            1
        } else {
            self.connections_max
        };
        if open >= connections_max + self.draining.min(1) {
            return false;
        }
        let window = if self.health.asks_ahead() {
            self.window
        } else {
            1
        };
        let limit = self
            .health
            .limit()
            .map_or(usize::MAX, |limit| limit as usize);
        let share = WORTH_A_CONNECTION.min(window).min(limit);
        let taking = self.asking.saturating_sub(self.draining);
        let room = (taking * window).saturating_sub(self.in_flight);
        self.queue.len() > room + self.connecting * share
    }

    /// Allows as many connections as the server says it welcomes; how many more than so far.
    pub(in crate::http) fn allow_connections(
        &mut self,
        info: &CacheInfo,
        options: &Options,
    ) -> usize {
        let more = welcome_connections(info, options).saturating_sub(self.connections_max);
        self.connections_max += more;
        more
    }

    /// Ends what lasts until `now`: the pause, and the delays of questions. Whether there was
    /// any: then the connections have to be told, since they may have looked just before.
    pub(in crate::http) fn end_waits(&mut self, now: Instant) -> bool {
        let mut ended = self.paused_until.take_if(|until| *until <= now).is_some();
        while let Some(entry) = self.delayed.first_entry()
            && entry.key().0 <= now
        {
            self.queue.push_back(entry.remove());
            ended = true;
        }
        ended
    }

    /// When the next wait ends.
    pub(in crate::http) fn next_due(&self) -> Option<Instant> {
        let delayed = self.delayed.keys().next().map(|&(due, _)| due);
        [self.paused_until, delayed].into_iter().flatten().min()
    }

    /// What to do after a connection could not be made. While others work, the server just takes
    /// no more of them.
    pub(in crate::http) fn not_connected(&mut self, kind: &HttpErrorKind) -> Course {
        let course = self.health.not_connected(kind, fastrand::f64());
        if self.asking == 0 {
            return course;
        }
        self.connections_max = self.connections_max.min(self.asking);
        match course {
            Course::GiveUp => Course::Wait(self.health.policy().base),
            other => other,
        }
    }

    /// Notes what a new connection speaks; whether that is news.
    pub(in crate::http) fn speaks(&mut self, protocol: Protocol) -> bool {
        if protocol == Protocol::Http2 {
            self.window = self.window.min(HTTP2_STREAMS);
        }
        self.protocol.replace(protocol) != Some(protocol)
    }

    /// The server dealt with a question.
    pub(in crate::http) fn answered(&mut self) {
        self.health.answered();
        self.is_probing = false;
    }

    pub(in crate::http) fn pause_until(&mut self, until: Instant) {
        self.paused_until = self.paused_until.max(Some(until));
    }

    /// An answer says that the server is in trouble. When it is the server, not just this answer,
    /// everything pauses; all the answers to what was sent ahead make one pause.
    pub(in crate::http) fn in_trouble(
        &mut self,
        ask: &Ask,
        kind: &HttpErrorKind,
        status: u16,
    ) -> Course {
        if !self.health.is_overloaded(status) || ask.pauses_before < self.pauses {
            return Course::GoOn;
        }
        self.pauses += 1;
        self.is_probing = true;
        self.health.overloaded(kind, fastrand::f64())
    }

    pub(in crate::http) fn delay(&mut self, until: Instant, ask: Ask) {
        self.delayed_count += 1;
        self.delayed.insert((until, self.delayed_count), ask);
    }
}

fn welcome_connections(info: &CacheInfo, options: &Options) -> usize {
    if info.want_mass_query {
        options.mass_query_connections.max(1)
    } else {
        1
    }
}

/// Waiting questions that make another connection worth its handshake.
const WORTH_A_CONNECTION: usize = 250;

/// Requests that servers commonly take at once on an HTTP/2 connection.
pub(in crate::http) const HTTP2_STREAMS: usize = 100;
