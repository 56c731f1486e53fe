//! The questions for one server, and the connections that carry them.
//!
//! Questions wait in a queue; each connection takes as many as it may and gives back, in order,
//! what it did not get answered, however it ends. So no question is lost, and none that was
//! answered is asked again. One task per server opens connections as the queue asks for them:
//! exactly one at a time, or several when the server welcomes that. A connection that has all the
//! requests it may carry is *draining*; its successor may connect meanwhile, but waits for its
//! turn, so that the change costs no round trip and there is still only one that asks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::answer::{self, Verdict};
use super::engine::Shared;
use super::error::{HttpError, HttpErrorKind};
use super::events::{CacheInfoText, EventSender, LookupEvent, NarInfoAnswer};
use super::health::{Course, Health};
use super::options::{CacheInfoKnowledge, Options, Protocol, ServerSpec, Timeouts};
use super::request::{Question, Requests};
use super::retry::{Next, RetryPolicy};
use super::wire::Response;
use crate::format::cache_info::CacheInfo;
use crate::format::server_url::ServerUrl;
use crate::format::store_path::HashPart;

/// A server on the network, shared by those who ask and the connections that answer.
pub(super) struct Server {
    pub(super) index: usize,
    pub(super) url: ServerUrl,
    pub(super) options: Arc<Options>,
    pub(super) shared: Arc<Shared>,
    pub(super) timeouts: Timeouts,
    pub(super) requests: Requests,
    pub(super) events: EventSender,
    /// Told whenever there may be something to do.
    pub(super) changed: watch::Sender<()>,
    /// Permits to send requests: one per connection that may ask at the same time.
    pub(super) turns: Semaphore,
    state: Mutex<State>,
}

pub(super) struct State {
    queue: VecDeque<Ask>,
    /// Questions to be asked again, by when; the number keeps equal times apart.
    delayed: BTreeMap<(Instant, u64), Ask>,
    delayed_count: u64,
    /// Questions whose answer is elsewhere.
    redirected: Vec<(Ask, String)>,
    /// Questions that connections have taken.
    in_flight: usize,
    pub(super) health: Health,
    /// Connections that may ask at the same time.
    pub(super) connections_max: usize,
    /// Connections that have not had their turn yet.
    pub(super) connecting: usize,
    /// Connections whose turn it is.
    pub(super) asking: usize,
    pub(super) draining: usize,
    /// What a connection takes at once.
    window: usize,
    protocol: Option<Protocol>,
    paused_until: Option<Instant>,
    /// After a pause one question at a time is asked until one is answered.
    is_probing: bool,
    needs_cache_info: bool,
    /// Why nothing is asked any more.
    over: Option<Over>,
}

#[derive(Debug, Clone)]
pub(super) enum Over {
    /// Given up; every question gets this answer.
    Down(HttpError),
    /// The caller wants nothing more of it; every question gets this answer.
    Closed(HttpError),
    /// Nobody waits for answers.
    Forgotten,
}

/// A question on its way.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) question: Question,
    /// To be asked with nothing else on its way.
    pub(super) alone: bool,
    /// Tries that failed.
    failed: u32,
    first_asked: Option<Instant>,
}

impl Ask {
    fn new(question: Question) -> Self {
        Self { question, alone: false, failed: 0, first_asked: None }
    }

    /// Its turn had come when a connection broke that was asked ahead: next time it goes alone.
    pub(super) fn suspect(&mut self) {
        self.alone = true;
        self.failed += 1;
    }

    /// Counts a try that broke the connection; whether there may be another. Silence costs its
    /// whole timeout, and so counts double.
    pub(super) fn blame(&mut self, kind: &HttpErrorKind, policy: &RetryPolicy) -> bool {
        self.failed += if matches!(kind, HttpErrorKind::Stalled(_)) { 2 } else { 1 };
        kind.is_worth_repeating() && self.failed < policy.attempts
    }
}

/// A question on its way by itself; given back when it is dropped.
pub(super) struct Held {
    server: Arc<Server>,
    ask: Option<Ask>,
}

impl Held {
    pub(super) fn new(server: &Arc<Server>, ask: Ask) -> Self {
        Self { server: Arc::clone(server), ask: Some(ask) }
    }

    pub(super) fn server(&self) -> &Arc<Server> {
        &self.server
    }

    pub(super) fn question(&self) -> Question {
        self.ask.as_ref().expect("only `release` takes the question out").question
    }

    /// The question, not to be given back.
    pub(super) fn release(mut self) -> (Arc<Server>, Ask) {
        self.server.lock().forget_one();
        let ask = self.ask.take().expect("only `release` takes the question out");
        (Arc::clone(&self.server), ask)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(ask) = self.ask.take() {
            self.server.take_back(&mut VecDeque::from([ask]));
        }
    }
}

impl Server {
    pub(super) fn new(
        index: usize,
        spec: ServerSpec,
        options: &Arc<Options>,
        shared: &Arc<Shared>,
        events: EventSender,
    ) -> Self {
        let known = match &spec.cache_info {
            CacheInfoKnowledge::Known(info) => Some(info),
            CacheInfoKnowledge::Ask => None,
        };
        let connections_max = known.map_or(1, |info| connections(info, options));
        let retries = options.retries.clone();
        let state = State {
            queue: VecDeque::new(),
            delayed: BTreeMap::new(),
            delayed_count: 0,
            redirected: Vec::new(),
            in_flight: 0,
            health: Health::new(retries, spec.pipelining, spec.requests_per_connection),
            connections_max,
            connecting: 0,
            asking: 0,
            draining: 0,
            window: options.max_in_flight.max(1),
            protocol: None,
            paused_until: None,
            is_probing: false,
            needs_cache_info: known.is_none(),
            over: None,
        };
        Self {
            index,
            requests: Requests::new(&spec.url, options),
            timeouts: spec.timeouts.unwrap_or(options.timeouts()),
            url: spec.url,
            options: Arc::clone(options),
            shared: Arc::clone(shared),
            events,
            changed: watch::Sender::new(()),
            turns: Semaphore::new(connections_max),
            state: Mutex::new(state),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // What is behind it is consistent between any two statements; a panic elsewhere does not
        // change that.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues the question about `item`, before the first one that about the server itself.
    pub(super) fn ask(&self, item: Option<HashPart>) {
        let mut state = self.lock();
        let needs_cache_info = std::mem::take(&mut state.needs_cache_info);
        let cache_info = needs_cache_info.then_some(Question::CacheInfo);
        let questions = cache_info.into_iter().chain(item.map(Question::NarInfo));
        match state.over.clone() {
            None => state.queue.extend(questions.map(Ask::new)),
            Some(over) => {
                drop(state);
                questions.for_each(|question| self.refuse(question, &over));
            }
        }
        self.changed.send_replace(());
    }

    /// Ends everything; the first reason counts.
    pub(super) fn stop(&self, over: Over) {
        let mut state = self.lock();
        if state.over.is_none() {
            if let Over::Down(error) = &over {
                let error = error.clone();
                self.events.send(LookupEvent::ServerDown { server: self.index, error });
            }
            state.over = Some(over);
        }
        drop(state);
        self.changed.send_replace(());
    }

    /// Answers every question that is left. For when the connections are gone.
    pub(super) fn refuse_all(&self) {
        let mut state = self.lock();
        let Some(over) = state.over.clone() else { return };
        let mut asks: Vec<Ask> = state.queue.drain(..).collect();
        asks.extend(std::mem::take(&mut state.delayed).into_values());
        asks.extend(state.redirected.drain(..).map(|(ask, _)| ask));
        drop(state);
        asks.iter().for_each(|ask| self.refuse(ask.question, &over));
    }

    fn refuse(&self, question: Question, over: &Over) {
        if let Over::Down(error) | Over::Closed(error) = over {
            self.events.send(self.failure(question, error.clone()));
        }
    }

    fn failure(&self, question: Question, error: HttpError) -> LookupEvent {
        match question {
            Question::CacheInfo => LookupEvent::CacheInfo { server: self.index, info: Err(error) },
            Question::NarInfo(item) => {
                LookupEvent::Answer { server: self.index, item, answer: Err(error) }
            }
        }
    }

    /// Reports that `ask` has failed for good.
    pub(super) fn fail(&self, ask: &Ask, kind: HttpErrorKind) {
        let error = HttpError::new(&ask.question.url(&self.url), kind);
        let error = error.after_attempts(ask.failed.max(1));
        self.events.send(self.failure(ask.question, error));
    }

    /// Moves questions from the queue into `taken`: those that may be sent on a connection that
    /// has `in_flight` unanswered ones and room for `room` more.
    pub(super) fn take(&self, taken: &mut VecDeque<Ask>, room: usize, protocol: Protocol) {
        let mut state = self.lock();
        let now = Instant::now();
        if state.over.is_some() || state.is_paused(now) {
            return;
        }
        state.wake_delayed(now);
        let is_http1 = protocol == Protocol::Http1;
        let one_at_a_time = is_http1 && !state.health.asks_ahead();
        for _ in 0..room {
            let Some(next) = state.queue.front() else { break };
            let must_wait = match taken.front() {
                Some(first) => one_at_a_time || (is_http1 && (first.alone || next.alone)),
                None => false,
            };
            if must_wait || (state.is_probing && state.in_flight > 0) {
                break;
            }
            let Some(mut ask) = state.queue.pop_front() else { break };
            ask.first_asked.get_or_insert(now);
            state.in_flight += 1;
            taken.push_back(ask);
        }
    }

    /// Takes back what was not answered, to the front of the queue.
    pub(super) fn take_back(&self, asks: &mut VecDeque<Ask>) {
        let mut state = self.lock();
        state.in_flight -= asks.len();
        while let Some(ask) = asks.pop_back() {
            state.queue.push_front(ask);
        }
        drop(state);
        self.changed.send_replace(());
    }

    /// Deals with the answer to `ask`; waits while the caller has too much to read already.
    pub(super) async fn settle(&self, ask: Ask, response: Response) {
        match answer::judge(response) {
            Verdict::Answer(answer) => {
                self.lock().answered();
                match ask.question {
                    Question::NarInfo(item) => self.report(item, answer).await,
                    Question::CacheInfo => self.report_cache_info(answer).await,
                }
            }
            Verdict::Redirect(location) => {
                let mut state = self.lock();
                state.answered();
                state.redirected.push((ask, location));
            }
            Verdict::Failed(kind) => self.repeat_or_fail(ask, kind),
        }
        self.changed.send_replace(());
    }

    async fn report(&self, item: HashPart, answer: NarInfoAnswer) {
        let size = match &answer {
            NarInfoAnswer::Found { text, .. } => text.len(),
            NarInfoAnswer::Missing { .. } | NarInfoAnswer::Baking { .. } => 0,
        };
        let event = LookupEvent::Answer { server: self.index, item, answer: Ok(answer) };
        self.events.send_sized(event, size).await;
    }

    async fn report_cache_info(&self, answer: NarInfoAnswer) {
        let info = match answer {
            NarInfoAnswer::Found { text, max_age } => {
                let text = String::from_utf8_lossy(&text).into_owned();
                self.allow(connections(&CacheInfo::parse(&text), &self.options));
                Some(CacheInfoText { text, max_age })
            }
            NarInfoAnswer::Missing { .. } | NarInfoAnswer::Baking { .. } => None,
        };
        let size = info.as_ref().map_or(0, |info| info.text.len());
        let event = LookupEvent::CacheInfo { server: self.index, info: Ok(info) };
        self.events.send_sized(event, size).await;
    }

    fn allow(&self, connections: usize) {
        let mut state = self.lock();
        let more = connections.saturating_sub(state.connections_max);
        state.connections_max += more;
        self.turns.add_permits(more);
    }

    /// After a failure that the server itself reported.
    pub(super) fn repeat_or_fail(&self, mut ask: Ask, kind: HttpErrorKind) {
        ask.failed += 1;
        let now = Instant::now();
        let elapsed = ask.first_asked.map_or(Duration::ZERO, |first| now - first);
        let mut state = self.lock();
        let next = state.health.policy().next(&kind, ask.failed, elapsed, fastrand::f64());
        let mut course = Course::GoOn;
        if let HttpErrorKind::Status { status, .. } = kind
            && kind.is_worth_repeating()
            && state.health.is_overloaded(status)
        {
            course = state.pause_for_overload(&kind, now);
        }
        match next {
            Next::Stop => {
                drop(state);
                self.fail(&ask, kind.clone());
            }
            Next::After(wait) => {
                state.delay(now + wait, ask);
                drop(state);
            }
        }
        self.follow(course, kind);
    }

    /// Does what the health says.
    pub(super) fn follow(&self, course: Course, kind: HttpErrorKind) {
        match course {
            Course::GoOn => {}
            Course::Wait(wait) => self.lock().pause_until(Instant::now() + wait),
            Course::GiveUp => {
                let error = HttpError::new(self.url.base(), kind);
                self.stop(Over::Down(error));
            }
        }
        self.changed.send_replace(());
    }

    /// Reports what was learned since the last time.
    pub(super) fn report_lessons(&self) {
        let lessons = self.lock().health.take_lessons();
        for what in lessons {
            self.events.send(LookupEvent::Learned { server: self.index, what });
        }
    }
}

impl State {
    /// Notes that one question that was taken is dealt with.
    pub(super) fn forget_one(&mut self) {
        self.in_flight -= 1;
    }

    /// A question whose answer is elsewhere, and where.
    pub(super) fn take_redirected(&mut self) -> Option<(Ask, String)> {
        let redirected = self.redirected.pop()?;
        self.in_flight += 1;
        Some(redirected)
    }

    pub(super) fn over(&self) -> Option<&Over> {
        self.over.as_ref()
    }

    /// Whether another connection is worth opening, `open` being there.
    pub(super) fn wants_connection(&self, open: usize, now: Instant) -> bool {
        if self.over.is_some() || self.is_paused(now) || self.queue.is_empty() {
            return false;
        }
        let connections_max = if self.is_probing { 1 } else { self.connections_max };
        if open >= connections_max + self.draining.min(1) {
            return false;
        }
        let window = if self.health.asks_ahead() { self.window } else { 1 };
        let limit = self.health.limit().map_or(usize::MAX, |limit| limit as usize);
        let share = WORTH_A_CONNECTION.min(window).min(limit);
        let taking = self.asking.saturating_sub(self.draining);
        let room = (taking * window).saturating_sub(self.in_flight);
        self.queue.len() > room + self.connecting * share
    }

    /// When something will be due that is not now.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<Instant> {
        self.wake_delayed(now);
        let pause = self.paused_until.filter(|&until| until > now);
        let delayed = self.delayed.keys().next().map(|&(due, _)| due);
        [pause, delayed].into_iter().flatten().min()
    }

    /// What to do after a connection could not be made. While others work, the server just takes
    /// no more of them.
    pub(super) fn not_connected(&mut self, kind: &HttpErrorKind) -> Course {
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
    pub(super) fn speaks(&mut self, protocol: Protocol) -> bool {
        if protocol == Protocol::Http2 {
            self.window = self.window.min(HTTP2_STREAMS);
        }
        self.protocol.replace(protocol) != Some(protocol)
    }

    fn answered(&mut self) {
        self.health.answered();
        self.is_probing = false;
    }

    fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| until > now)
    }

    fn pause_until(&mut self, until: Instant) {
        self.paused_until = self.paused_until.max(Some(until));
    }

    /// All answers to what was sent ahead may say the same; they make one pause.
    fn pause_for_overload(&mut self, kind: &HttpErrorKind, now: Instant) -> Course {
        if self.is_paused(now) {
            return Course::GoOn;
        }
        self.is_probing = true;
        let course = self.health.overloaded(kind, fastrand::f64());
        if let Course::Wait(wait) = course {
            self.pause_until(now + wait);
            return Course::GoOn;
        }
        course
    }

    fn delay(&mut self, until: Instant, ask: Ask) {
        self.delayed_count += 1;
        self.delayed.insert((until, self.delayed_count), ask);
    }

    fn wake_delayed(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry()
            && entry.key().0 <= now
        {
            let ask = entry.remove();
            self.queue.push_back(ask);
        }
    }
}

fn connections(info: &CacheInfo, options: &Options) -> usize {
    if info.want_mass_query { options.mass_query_connections.max(1) } else { 1 }
}

/// Waiting questions that make another connection worth its handshake.
const WORTH_A_CONNECTION: usize = 250;

/// Requests that servers commonly take at once on an HTTP/2 connection.
const HTTP2_STREAMS: usize = 100;
