//! The questions for one server, and what becomes of the answers.
//!
//! Questions wait in a queue; each connection takes as many as it may and gives back, in order,
//! what it did not get answered, however it ends. So no question is lost, and none that was
//! answered is asked again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::events::{CacheInfoText, EventSender, LookupEvent, NarInfoAnswer, ServerProperty};
use super::health::Course;
use super::pending::{Ask, Held};
use super::queue::{Over, State};
use super::request::{Question, Requests};
use super::response::{self, Response, Verdict};
use crate::format::cache_info::CacheInfo;
use crate::format::server_url::ServerUrl;
use crate::format::store_path::HashPart;
use crate::http::error::{HttpError, HttpErrorKind};
use crate::http::net::runtime::ConnectionSetup;
use crate::http::options::{Options, PipeliningSupport, Protocol, ServerSpec, Timeouts};
use crate::http::retry::RetryDecision;
use crate::sync::lock;

/// A server on the network, shared by those who ask and the connections that answer.
pub(in crate::http) struct Server {
    pub(in crate::http) url: ServerUrl,
    pub(in crate::http) options: Arc<Options>,
    pub(in crate::http) setup: Arc<ConnectionSetup>,
    pub(in crate::http) timeouts: Timeouts,
    pub(in crate::http) requests: Requests,
    /// Told whenever there may be something to do.
    pub(in crate::http) changed: watch::Sender<()>,
    /// Permits to send requests: one per connection that may ask at the same time.
    pub(in crate::http) turns: Semaphore,
    /// Redirects that lead here from the server that the caller named.
    pub(in crate::http) hops: usize,
    index: usize,
    events: EventSender,
    sent: Arc<AtomicU64>,
    state: Mutex<State>,
}

impl Server {
    pub(in crate::http) fn new(
        index: usize,
        spec: ServerSpec,
        options: &Arc<Options>,
        setup: &Arc<ConnectionSetup>,
        events: EventSender,
    ) -> Self {
        let state = State::new(&spec, options);
        Self {
            requests: Requests::new(&spec.url, options),
            timeouts: spec
                .timeouts
                .unwrap_or_else(|| options.timeouts_of(spec.url.base()))
                .bounded(),
            url: spec.url,
            options: Arc::clone(options),
            setup: Arc::clone(setup),
            changed: watch::Sender::new(()),
            turns: Semaphore::new(state.connections_max),
            hops: 0,
            index,
            events,
            sent: Arc::default(),
            state: Mutex::new(state),
        }
    }

    /// The server at `url` that this one redirects to. It answers in this one's name; what is
    /// learned of it is nobody's business.
    pub(in crate::http) fn annex(&self, url: ServerUrl) -> Self {
        let spec = ServerSpec {
            url,
            cache_info: Some(CacheInfo {
                want_mass_query: self.lock().connections_max > 1,
                ..CacheInfo::default()
            }),
            pipelining: PipeliningSupport::Untested,
            requests_per_connection: None,
            timeouts: Some(self.timeouts),
        };
        let events = self.events.clone();
        let (hops, sent) = (self.hops + 1, Arc::clone(&self.sent));
        Self {
            hops,
            sent,
            ..Self::new(self.index, spec, &self.options, &self.setup, events)
        }
    }

    pub(in crate::http) fn lock(&self) -> MutexGuard<'_, State> {
        // What is behind it is consistent between any two statements; a panic elsewhere does not
        // change that.
        lock(&self.state)
    }

    /// Queues the question about `item`, before the first one that about the server itself.
    pub(in crate::http) fn ask(&self, item: Option<HashPart>) {
        let mut state = self.lock();
        let questions = state.questions(item);
        match state.over().cloned() {
            None => questions.for_each(|question| state.push(Ask::new(question))),
            Some(over) => {
                drop(state);
                questions.for_each(|question| self.refuse(question, &over));
            }
        }
        self.changed.send_replace(());
    }

    /// Takes over a question that another server holds.
    pub(in crate::http) fn adopt(&self, held: Held) {
        let ask = held.release();
        let mut state = self.lock();
        match state.over().cloned() {
            None => state.push(Ask::new(ask.question)),
            Some(over) => {
                drop(state);
                self.refuse(ask.question, &over);
            }
        }
        self.changed.send_replace(());
    }

    /// Ends everything; the first reason counts.
    pub(in crate::http) fn stop(&self, over: Over) {
        let mut state = self.lock();
        if state.stop(over.clone())
            && self.hops == 0
            && let Over::Down(error) = over
        {
            self.events.send(LookupEvent::ServerDown {
                server: self.index,
                error,
            });
        }
        drop(state);
        self.changed.send_replace(());
    }

    /// Answers every question that is left. For when the connections are gone.
    pub(in crate::http) fn refuse_all(&self) {
        let mut state = self.lock();
        let Some(over) = state.over().cloned() else {
            return;
        };
        let asks = state.drain();
        drop(state);
        asks.iter().for_each(|ask| self.refuse(ask.question, &over));
    }

    fn refuse(&self, question: Question, over: &Over) {
        if let Over::Down(error) = over {
            self.events.send(self.failure(question, error.clone()));
        }
    }

    fn failure(&self, question: Question, error: HttpError) -> LookupEvent {
        match question {
            Question::CacheInfo => LookupEvent::CacheInfo {
                server: self.index,
                info: Err(error),
            },
            Question::NarInfo(item) => LookupEvent::Answer {
                server: self.index,
                item,
                answer: Err(error),
            },
        }
    }

    /// Reports that `ask` has failed for good.
    pub(in crate::http) fn fail(&self, ask: &Ask, kind: HttpErrorKind) {
        let error = HttpError::new(&ask.question.url(&self.url), kind);
        let error = error.after_attempts(ask.attempts);
        self.events.send(self.failure(ask.question, error));
        // Others may have waited for it to be off the way.
        self.changed.send_replace(());
    }

    /// Moves up to `room` questions that are sent now on one connection to `taken`, which holds
    /// the unanswered ones of that connection.
    pub(in crate::http) fn take(&self, taken: &mut VecDeque<Ask>, room: usize, protocol: Protocol) {
        let before = taken.len();
        self.lock().take(taken, room, protocol);
        taken
            .range(before..)
            .for_each(|ask| self.count_sent(ask.question));
    }

    /// Counts a request, if it is about an item.
    pub(in crate::http) fn count_sent(&self, question: Question) {
        if matches!(question, Question::NarInfo(_)) {
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests about items that were sent, to here or to where this server redirects.
    pub(in crate::http) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Takes back what was not answered.
    pub(in crate::http) fn take_back(&self, asks: &mut VecDeque<Ask>) {
        self.lock().take_back(asks);
        self.changed.send_replace(());
    }

    /// Deals with the answer to `held`; waits while the caller has too much to read already.
    pub(in crate::http) async fn settle(&self, held: Held, response: Response) {
        match response::judge(response) {
            Verdict::Answer(answer) => {
                let (event, size) = self.event(held.question(), answer);
                // Only what has its place in the queue is no longer given back.
                let reserved = self.events.reserve(size).await;
                held.release();
                self.lock().answered();
                self.events.send_reserved(reserved, event);
            }
            Verdict::Redirect(location) => {
                let ask = held.release();
                let mut state = self.lock();
                state.answered();
                state.push_redirected(ask, location);
            }
            Verdict::Failed(kind) => self.repeat_or_fail(held, kind),
        }
        self.changed.send_replace(());
    }

    /// What to report, and how many bytes from the server it holds.
    fn event(&self, question: Question, answer: NarInfoAnswer) -> (LookupEvent, usize) {
        let server = self.index;
        match (question, answer) {
            (Question::NarInfo(item), answer) => {
                let size = match &answer {
                    NarInfoAnswer::Found { text, .. } => text.len(),
                    NarInfoAnswer::Missing { .. } | NarInfoAnswer::Preparing { .. } => 0,
                };
                (
                    LookupEvent::Answer {
                        server,
                        item,
                        answer: Ok(answer),
                    },
                    size,
                )
            }
            (Question::CacheInfo, NarInfoAnswer::Found { text, max_age }) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                let info = CacheInfo::parse(&text);
                let more = self.lock().allow_connections(&info, &self.options);
                self.turns.add_permits(more);
                let size = text.len();
                let info = Ok(Some(CacheInfoText { text, max_age }));
                (LookupEvent::CacheInfo { server, info }, size)
            }
            (Question::CacheInfo, _) => (
                LookupEvent::CacheInfo {
                    server,
                    info: Ok(None),
                },
                0,
            ),
        }
    }

    /// After a failure that the server itself reported.
    pub(in crate::http) fn repeat_or_fail(&self, held: Held, kind: HttpErrorKind) {
        let mut ask = held.release();
        ask.count_failure(1);
        let now = Instant::now();
        let mut state = self.lock();
        let policy = state.health.policy();
        let next = policy.next(&kind, ask.failed, ask.age(now), fastrand::f64());
        let course = match kind {
            HttpErrorKind::Status { status, .. } if kind.is_worth_repeating() => {
                state.in_trouble(&ask, &kind, status)
            }
            _ => {
                state.answered();
                Course::GoOn
            }
        };
        match next {
            RetryDecision::Stop => {
                drop(state);
                self.fail(&ask, kind.clone());
            }
            RetryDecision::After(wait) => {
                state.delay(now + wait, ask);
                drop(state);
            }
        }
        self.follow(course, kind);
    }

    /// Does what the health says.
    pub(in crate::http) fn follow(&self, course: Course, kind: HttpErrorKind) {
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

    /// Notes what a new connection speaks.
    pub(in crate::http) fn speaks(&self, protocol: Protocol) {
        if self.lock().speaks(protocol) {
            self.report_lesson(ServerProperty::Protocol(protocol));
        }
    }

    /// Reports what was learned since the last time.
    pub(in crate::http) fn report_lessons(&self) {
        let lessons = self.lock().health.take_lessons();
        lessons
            .into_iter()
            .for_each(|what| self.report_lesson(what));
    }

    fn report_lesson(&self, property: ServerProperty) {
        if self.hops == 0 {
            self.events.send(LookupEvent::ServerProperty {
                server: self.index,
                property,
            });
        }
    }
}
