//! One HTTP/2 connection: a stream for each request, as many as the server accepts at once.
//!
//! Responses come in any order and cannot be mixed up. A stream that the server resets counts
//! against its request; what breaks the connection counts against the connection, and its
//! requests go back to the queue.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use h2::RecvStream;
use h2::client::{Builder, ResponseFuture, SendRequest};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::health::{ConnectionEnd, ConnectionReport};
use super::queue::HTTP2_STREAMS;
use super::response::{HEAD_MAX_BYTES, LookupResponse, ResponseHead};
use super::server::{HttpServer, InFlightRequest};
use crate::http::error::HttpErrorKind;
use crate::http::net::connect::Transport;
use crate::http::options::Protocol;
use crate::sync::lock;

/// Sends over `transport` until it ends, then reports how it went.
pub(super) async fn run(server: &Arc<HttpServer>, transport: Box<dyn Transport>) {
    let mut connection = Http2Connection {
        server,
        answered: 0,
        unanswered: 0,
    };
    let end = connection.send_requests(transport).await;
    debug!(reason = %end, answered = connection.answered, "connection closed");

    let report = ConnectionReport {
        end,
        answered: connection.answered,
        answered_pipelined: 0,
        unanswered: connection.unanswered,
        was_pipelined: false,
        was_unpipelined: false,
    };
    let random = fastrand::f64();
    let (consequence, offers_http2) = {
        let health = &mut server.queue().health;
        let consequence = health.connection_ended(&report, Protocol::Http2, random);
        (consequence, health.offers_http2())
    };
    if !offers_http2 {
        debug!("falling back from HTTP/2 to HTTP/1.1");
    }
    server.apply(consequence.action, report.end.into_kind());
    server.report_new_properties();
}

struct Http2Connection<'a> {
    server: &'a Arc<HttpServer>,
    answered: u32,
    unanswered: usize,
}

impl Http2Connection<'_> {
    async fn send_requests(&mut self, transport: Box<dyn Transport>) -> ConnectionEnd {
        let stall = self.server.timeouts.stall;
        let (mut client, mut task) = match self.start(transport).await {
            Ok(started) => started,
            Err(kind) => {
                self.unanswered += 1;
                return ConnectionEnd::Failed(kind);
            }
        };

        let mut changed = self.server.changed.subscribe();
        let activity = Arc::new(StreamActivity::new());
        let mut streams = FuturesUnordered::new();
        let mut is_open = true;
        // The server accepts no request, although none is in flight.
        let mut is_blocked = false;
        let mut closed = None;
        loop {
            changed.mark_unchanged();
            if is_open && closed.is_none() {
                if streams.is_empty() && !is_blocked {
                    activity.touch();
                }
                let capacity =
                    self.open_streams(&mut client, &activity, |stream| streams.push(stream));
                is_open = capacity != SendCapacity::Closed;
                is_blocked = capacity == SendCapacity::Full
                    && streams.is_empty()
                    && self.server.queue().may_send();
            }
            if streams.is_empty() && !(is_open && closed.is_none()) {
                return closed.unwrap_or(ConnectionEnd::Closed { announced: true });
            }

            let stalled_at = activity.last_at() + stall;
            // There is no notification when the server accepts requests again.
            let wake_at = if is_blocked {
                stalled_at.min(Instant::now() + BLOCKED_INTERVAL)
            } else {
                stalled_at
            };
            tokio::select! {
                Some((request, outcome)) = streams.next() => {
                    self.handle(request, outcome).await;
                    // If that took long it was the caller.
                    activity.touch();
                }
                ended = task.ended(), if closed.is_none() => closed = Some(ended),
                _ = changed.changed() => {}
                () = tokio::time::sleep_until(wake_at), if is_blocked || !streams.is_empty() => {
                    // This process may have been stopped meanwhile: what came since then counts.
                    tokio::task::yield_now().await;
                    if let Some(Some((request, outcome))) = streams.next().now_or_never() {
                        self.handle(request, outcome).await;
                        activity.touch();
                    }
                    if activity.last_at().elapsed() >= stall {
                        self.unanswered += streams.len() + usize::from(is_blocked);
                        return ConnectionEnd::Failed(HttpErrorKind::Stalled(stall));
                    }
                }
            }
        }
    }

    async fn start(
        &self,
        transport: Box<dyn Transport>,
    ) -> Result<(SendRequest<Bytes>, ConnectionTask), HttpErrorKind> {
        // The server may stall: its settings are a response that is due.
        let stall = self.server.timeouts.stall;
        timeout(stall, handshake(transport))
            .await
            .map_err(|_| HttpErrorKind::Stalled(stall))?
            .map_err(|error| HttpErrorKind::Lost(Arc::new(error)))
    }

    /// Opens streams for the requests that may be sent now.
    fn open_streams(
        &mut self,
        client: &mut SendRequest<Bytes>,
        activity: &Arc<StreamActivity>,
        mut push: impl FnMut(StreamFuture),
    ) -> SendCapacity {
        loop {
            let streams_max = client
                .current_max_send_streams()
                .min(self.server.options.max_in_flight);
            if activity.streams() >= streams_max as u64 {
                return SendCapacity::Full;
            }
            match client.clone().ready().now_or_never() {
                None => return SendCapacity::Full,
                Some(Err(_)) => return SendCapacity::Closed,
                Some(Ok(ready)) => *client = ready,
            }

            let mut taken = VecDeque::new();
            self.server.take(&mut taken, 1, Protocol::Http2);
            let Some(request) = taken.pop_front() else {
                return SendCapacity::Unused;
            };
            let url = request.target.url(&self.server.url);
            let request = InFlightRequest::new(self.server, request);
            let head = match self.server.encoder.http2(&url) {
                Ok(head) => head,
                Err(error) => {
                    self.server
                        .fail(&request.finish(), HttpErrorKind::Setup(Arc::new(error)));
                    continue;
                }
            };
            let Ok((response, _)) = client.send_request(head, true) else {
                self.unanswered += 1;
                return SendCapacity::Closed;
            };

            let stream = ResponseStream {
                open: Arc::clone(activity).opened(),
                response,
            };
            let limit_bytes = self.server.options.narinfo_limit_bytes;
            push(stream.run(request, limit_bytes).boxed());
        }
    }

    async fn handle(
        &mut self,
        request: InFlightRequest,
        outcome: Result<LookupResponse, StreamFailure>,
    ) {
        match outcome {
            Ok(response) => {
                self.answered += 1;
                self.server.handle_response(request, response).await;
            }
            Err(StreamFailure::Response(kind)) => self.server.retry_or_fail(request, kind),
            // Dropping the request puts it back into the queue.
            Err(StreamFailure::Connection) => self.unanswered += 1,
        }
    }
}

/// Whether more requests may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SendCapacity {
    /// There is no request left to send.
    Unused,
    /// Not until others are answered.
    Full,
    /// Never again on this connection.
    Closed,
}

type StreamFuture = BoxFuture<'static, (InFlightRequest, Result<LookupResponse, StreamFailure>)>;

enum StreamFailure {
    /// This response is not usable.
    Response(HttpErrorKind),
    /// The connection is not usable.
    Connection,
}

impl From<h2::Error> for StreamFailure {
    fn from(error: h2::Error) -> Self {
        if error.is_reset() && error.is_remote() {
            Self::Response(HttpErrorKind::Lost(Arc::new(error)))
        } else {
            Self::Connection
        }
    }
}

/// One request's response.
struct ResponseStream {
    open: OpenStream,
    response: ResponseFuture,
}

impl ResponseStream {
    async fn run(
        self,
        request: InFlightRequest,
        limit_bytes: u64,
    ) -> (InFlightRequest, Result<LookupResponse, StreamFailure>) {
        let outcome = self.receive(limit_bytes).await;
        (request, outcome)
    }

    async fn receive(mut self, limit_bytes: u64) -> Result<LookupResponse, StreamFailure> {
        let (parts, mut stream) = self.response.await?.into_parts();
        self.open.activity.touch();
        let head = ResponseHead::from_headers(parts.status.as_u16(), &parts.headers);

        let mut body = Vec::new();
        let mut received = 0;
        while let Some(data) = next_data(&mut stream).await? {
            self.open.activity.touch();
            received += data.len() as u64;
            let unfinished = self.open.count_received(data.len() as u64);
            if received > limit_bytes || unfinished > UNFINISHED_MAX_BYTES.max(limit_bytes) {
                return Err(StreamFailure::Response(HttpErrorKind::TooLarge {
                    limit_bytes,
                }));
            }
            if head.status == 200 {
                body.extend_from_slice(&data);
            }
        }
        Ok(LookupResponse { head, body })
    }
}

async fn next_data(stream: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
    let Some(data) = stream.data().await.transpose()? else {
        return Ok(None);
    };
    // The library enlarges the flow-control window only when told to.
    stream.flow_control().release_capacity(data.len())?;
    Ok(Some(data))
}

/// What the streams of a connection have in common.
struct StreamActivity {
    last_at: Mutex<Instant>,
    streams: AtomicU64,
    /// Bytes of unfinished responses.
    unfinished: AtomicU64,
}

impl StreamActivity {
    fn new() -> Self {
        Self {
            last_at: Mutex::new(Instant::now()),
            streams: AtomicU64::new(0),
            unfinished: AtomicU64::new(0),
        }
    }

    /// Something was received now, or nothing was due until now.
    fn touch(&self) {
        *lock(&self.last_at) = Instant::now();
    }

    fn last_at(&self) -> Instant {
        *lock(&self.last_at)
    }

    fn streams(&self) -> u64 {
        self.streams.load(Ordering::Relaxed)
    }

    fn opened(self: Arc<Self>) -> OpenStream {
        self.streams.fetch_add(1, Ordering::Relaxed);
        OpenStream {
            activity: self,
            received: 0,
        }
    }
}

/// One stream's share in the activity.
struct OpenStream {
    activity: Arc<StreamActivity>,
    received: u64,
}

impl OpenStream {
    /// Counts bytes of an unfinished response; returns those of all streams.
    fn count_received(&mut self, bytes: u64) -> u64 {
        self.received += bytes;
        self.activity.unfinished.fetch_add(bytes, Ordering::Relaxed) + bytes
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.activity.streams.fetch_sub(1, Ordering::Relaxed);
        self.activity
            .unfinished
            .fetch_sub(self.received, Ordering::Relaxed);
    }
}

/// The task that moves a connection's bytes; stopped when it is dropped.
struct ConnectionTask(JoinHandle<Result<(), h2::Error>>);

impl ConnectionTask {
    /// Waits for the end of the connection. Must not be called again afterwards.
    async fn ended(&mut self) -> ConnectionEnd {
        match (&mut self.0).await {
            Ok(Err(error)) => ConnectionEnd::Failed(HttpErrorKind::Lost(Arc::new(error))),
            _ => ConnectionEnd::Closed { announced: false },
        }
    }
}

impl Drop for ConnectionTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn handshake(
    transport: Box<dyn Transport>,
) -> Result<(SendRequest<Bytes>, ConnectionTask), h2::Error> {
    let (client, connection) = Builder::new()
        .enable_push(false)
        // Until the server has sent its limit; streams beyond that are refused.
        .initial_max_send_streams(HTTP2_STREAMS)
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(HEAD_MAX_BYTES).unwrap_or(u32::MAX))
        .handshake::<_, Bytes>(transport)
        .await?;
    Ok((client, ConnectionTask(tokio::spawn(connection))))
}

/// Flow-control windows of one response, and of all. The protocol's default of 64 KiB for all
/// holds a distant server up.
const WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Bytes of unfinished responses on one connection.
const UNFINISHED_MAX_BYTES: u64 = 16 << 20;

/// How often a server that accepted no requests is tried again.
const BLOCKED_INTERVAL: Duration = Duration::from_millis(20);
