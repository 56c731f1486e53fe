//! One HTTP/2 connection: a stream for each question, as many as the server takes at once.
//!
//! Answers come in any order and cannot be mixed up. A stream that the server resets counts
//! against its question; what breaks the connection counts against the connection, and its
//! questions go back to the queue.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use h2::RecvStream;
use h2::client::{Builder, ResponseFuture, SendRequest};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::health::{End, Report};
use super::pending::Held;
use super::queue::HTTP2_STREAMS;
use super::response::{HEAD_MAX_BYTES, Head, Response};
use super::server::Server;
use crate::http::error::HttpErrorKind;
use crate::http::net::connect::Transport;
use crate::http::options::Protocol;
use crate::sync::lock;

/// Asks over `transport` until it is used up, then draws the conclusions.
pub(in crate::http) async fn run(server: &Arc<Server>, transport: Box<dyn Transport>) {
    let mut multiplex = Multiplex {
        server,
        answered: 0,
        unanswered: 0,
    };
    let end = multiplex.ask(transport).await;
    let report = Report {
        end,
        answered: multiplex.answered,
        answered_ahead: 0,
        unanswered: multiplex.unanswered,
        was_pipelined: false,
        was_alone: false,
    };
    let random = fastrand::f64();
    let course = server
        .lock()
        .health
        .connection_ended(&report, Protocol::Http2, random)
        .course;
    let kind = match report.end {
        End::Failed(kind) => kind,
        End::Done | End::Closed { .. } | End::OutOfStep => HttpErrorKind::Closed,
    };
    server.follow(course, kind);
    server.report_lessons();
}

struct Multiplex<'a> {
    server: &'a Arc<Server>,
    answered: u32,
    unanswered: usize,
}

impl Multiplex<'_> {
    async fn ask(&mut self, transport: Box<dyn Transport>) -> End {
        // The server may be silent: its greeting is an answer that is due.
        let stall = self.server.timeouts.stall;
        let (mut client, mut driver) = match timeout(stall, greet(transport)).await {
            Ok(Ok(greeted)) => greeted,
            outcome => {
                self.unanswered += 1;
                return End::Failed(match outcome {
                    Ok(Err(error)) => HttpErrorKind::Lost(Arc::new(error)),
                    _ => HttpErrorKind::Stalled(stall),
                });
            }
        };
        let mut changed = self.server.changed.subscribe();
        let signs = Arc::new(Signs::new());
        let mut streams = FuturesUnordered::new();
        let mut is_open = true;
        // The server takes no question, although none is on its way.
        let mut is_full = false;
        let mut closed = None;
        loop {
            changed.mark_unchanged();
            if is_open && closed.is_none() {
                if streams.is_empty() && !is_full {
                    signs.hear();
                }
                let room = self.open_streams(&mut client, &signs, |stream| streams.push(stream));
                is_open = room != Room::Closed;
                is_full = room == Room::Full && streams.is_empty() && self.server.lock().may_ask();
            }
            if streams.is_empty() && !(is_open && closed.is_none()) {
                return closed.unwrap_or(End::Closed { announced: true });
            }
            let silent_at = signs.heard_at() + stall;
            // Nobody tells when there is room again.
            let look_at = if is_full {
                silent_at.min(Instant::now() + FULL_TICK)
            } else {
                silent_at
            };
            tokio::select! {
                Some((held, outcome)) = streams.next() => {
                    self.settle(held, outcome).await;
                    // If that took long it was the caller.
                    signs.hear();
                }
                ended = &mut driver.0, if closed.is_none() => closed = Some(match ended {
                    Ok(Err(error)) => End::Failed(HttpErrorKind::Lost(Arc::new(error))),
                    _ => End::Closed { announced: false },
                }),
                _ = changed.changed() => {}
                () = tokio::time::sleep_until(look_at), if is_full || !streams.is_empty() => {
                    // We may have been stopped meanwhile: what has come since then counts.
                    tokio::task::yield_now().await;
                    if let Some(Some((held, outcome))) = streams.next().now_or_never() {
                        self.settle(held, outcome).await;
                        signs.hear();
                    }
                    if signs.heard_at().elapsed() >= stall {
                        self.unanswered += streams.len() + usize::from(is_full);
                        return End::Failed(HttpErrorKind::Stalled(stall));
                    }
                }
            }
        }
    }

    /// Opens streams for the questions that may be sent now.
    fn open_streams(
        &mut self,
        client: &mut SendRequest<Bytes>,
        signs: &Arc<Signs>,
        mut push: impl FnMut(ExchangeFuture),
    ) -> Room {
        loop {
            let most = client
                .current_max_send_streams()
                .min(self.server.options.max_in_flight);
            if signs.streams() >= most as u64 {
                return Room::Full;
            }
            match client.clone().ready().now_or_never() {
                None => return Room::Full,
                Some(Err(_)) => return Room::Closed,
                Some(Ok(ready)) => *client = ready,
            }
            let mut asks = VecDeque::new();
            self.server.take(&mut asks, 1, Protocol::Http2);
            let Some(ask) = asks.pop_front() else {
                return Room::Left;
            };
            let url = ask.question.url(&self.server.url);
            let held = Held::new(self.server, ask);
            let request = match self.server.requests.http2(&url) {
                Ok(request) => request,
                Err(error) => {
                    let ask = held.release();
                    self.server
                        .fail(&ask, HttpErrorKind::Setup(Arc::new(error)));
                    continue;
                }
            };
            let Ok((answer, _)) = client.send_request(request, true) else {
                self.unanswered += 1;
                return Room::Closed;
            };
            let exchange = Exchange {
                signs: Arc::clone(signs).opened(),
                answer,
            };
            push(
                exchange
                    .run(held, self.server.options.narinfo_limit_bytes)
                    .boxed(),
            );
        }
    }

    async fn settle(&mut self, held: Held, outcome: Result<Response, Failure>) {
        match outcome {
            Ok(response) => {
                self.answered += 1;
                self.server.settle(held, response).await;
            }
            Err(Failure::Answer(kind)) => self.server.repeat_or_fail(held, kind),
            // Dropping the question gives it back.
            Err(Failure::Connection) => self.unanswered += 1,
        }
    }
}

/// Whether more questions may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// There is none left to send.
    Left,
    /// Not until others are answered.
    Full,
    /// Never again on this connection.
    Closed,
}

type ExchangeFuture = futures_util::future::BoxFuture<'static, (Held, Result<Response, Failure>)>;

enum Failure {
    /// This answer is no good.
    Answer(HttpErrorKind),
    /// The connection is no good.
    Connection,
}

impl From<h2::Error> for Failure {
    fn from(error: h2::Error) -> Self {
        if error.is_reset() && error.is_remote() {
            Self::Answer(HttpErrorKind::Lost(Arc::new(error)))
        } else {
            Self::Connection
        }
    }
}

struct Exchange {
    signs: OpenStream,
    answer: ResponseFuture,
}

impl Exchange {
    async fn run(self, held: Held, limit_bytes: u64) -> (Held, Result<Response, Failure>) {
        let outcome = self.receive(limit_bytes).await;
        (held, outcome)
    }

    async fn receive(mut self, limit_bytes: u64) -> Result<Response, Failure> {
        let (parts, mut stream) = self.answer.await?.into_parts();
        self.signs.all.hear();
        let fields = parts
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()));
        let head = Head::from_fields(parts.status.as_u16(), fields);
        let mut body = Vec::new();
        let mut received = 0;
        while let Some(data) = next_data(&mut stream).await? {
            self.signs.all.hear();
            received += data.len() as u64;
            let kept_by_all = self.signs.keep(data.len() as u64);
            if received > limit_bytes || kept_by_all > KEPT_MAX_BYTES.max(limit_bytes) {
                return Err(Failure::Answer(HttpErrorKind::TooLarge { limit_bytes }));
            }
            if head.status == 200 {
                body.extend_from_slice(&data);
            }
        }
        Ok(Response { head, body })
    }
}

async fn next_data(stream: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
    let Some(data) = stream.data().await.transpose()? else {
        return Ok(None);
    };
    // The library hands windows back only when told to.
    stream.flow_control().release_capacity(data.len())?;
    Ok(Some(data))
}

/// What the streams of a connection have in common.
struct Signs {
    heard_at: Mutex<Instant>,
    streams: AtomicU64,
    /// Bytes of unfinished answers.
    kept: AtomicU64,
}

impl Signs {
    fn new() -> Self {
        Self {
            heard_at: Mutex::new(Instant::now()),
            streams: AtomicU64::new(0),
            kept: AtomicU64::new(0),
        }
    }

    fn hear(&self) {
        *lock(&self.heard_at) = Instant::now();
    }

    fn heard_at(&self) -> Instant {
        *lock(&self.heard_at)
    }

    fn streams(&self) -> u64 {
        self.streams.load(Ordering::Relaxed)
    }

    fn opened(self: Arc<Self>) -> OpenStream {
        self.streams.fetch_add(1, Ordering::Relaxed);
        OpenStream { all: self, kept: 0 }
    }
}

/// One stream's share in the signs.
struct OpenStream {
    all: Arc<Signs>,
    kept: u64,
}

impl OpenStream {
    /// Counts bytes of an unfinished answer; those of all streams.
    fn keep(&mut self, bytes: u64) -> u64 {
        self.kept += bytes;
        self.all.kept.fetch_add(bytes, Ordering::Relaxed) + bytes
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.all.streams.fetch_sub(1, Ordering::Relaxed);
        self.all.kept.fetch_sub(self.kept, Ordering::Relaxed);
    }
}

/// The task that moves a connection's bytes; stopped when nobody uses it.
struct Driver(JoinHandle<Result<(), h2::Error>>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn greet(transport: Box<dyn Transport>) -> Result<(SendRequest<Bytes>, Driver), h2::Error> {
    let (client, connection) = Builder::new()
        .enable_push(false)
        // Until the server has said how many; what is too many is refused.
        .initial_max_send_streams(HTTP2_STREAMS)
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(HEAD_MAX_BYTES).unwrap_or(u32::MAX))
        .handshake::<_, Bytes>(transport)
        .await?;
    Ok((client, Driver(tokio::spawn(connection))))
}

/// What one answer, and all of them, may have on the way. The protocol's default of 64 KiB for
/// all holds a distant server up.
const WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Bytes of unfinished answers on one connection.
const KEPT_MAX_BYTES: u64 = 16 << 20;

/// How often it is tried whether a server that took no questions takes them now.
const FULL_TICK: Duration = Duration::from_millis(20);
