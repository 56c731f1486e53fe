//! One HTTP/2 connection: a stream for each request, as many as the server accepts at once.
//!
//! Responses come in any order and cannot be mixed up. A stream that the server resets counts
//! against its request; what breaks the connection counts against the connection, and its
//! requests go back to the queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use h2::client::{Builder, SendRequest};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::debug;

use super::stream::{ResponseStream, StreamActivity, StreamFailure, StreamFuture, needs_http1};
use crate::http::error::HttpErrorKind;
use crate::http::lookup::connection_end::{ConnectionEnd, ConnectionReport};
use crate::http::lookup::queue::HTTP2_STREAMS;
use crate::http::lookup::response::{HEAD_MAX_BYTES, LookupResponse};
use crate::http::lookup::server::{HttpServer, InFlightRequest};
use crate::http::net::connect::Transport;
use crate::http::net::timeout::{has_paused, timeout};
use crate::http::options::Protocol;

/// Sends over `transport` until it ends, then reports how it went.
pub(in crate::http::lookup) async fn run(server: &Arc<HttpServer>, transport: Box<dyn Transport>) {
    let mut connection = Http2Connection {
        server,
        streams: FuturesUnordered::new(),
        activity: Arc::default(),
        is_blocked: false,
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
    streams: FuturesUnordered<StreamFuture>,
    activity: Arc<StreamActivity>,
    /// The server accepts no request, although none is in flight.
    is_blocked: bool,
    answered: u32,
    unanswered: usize,
}

impl Http2Connection<'_> {
    async fn send_requests(&mut self, transport: Box<dyn Transport>) -> ConnectionEnd {
        let (mut client, mut task) = match start(transport, self.server.timeouts.stall).await {
            Ok(started) => started,
            Err(kind) => {
                self.unanswered += 1;
                return ConnectionEnd::Failed(kind);
            }
        };

        let mut changed = self.server.changed.subscribe();
        let mut is_open = true;
        let mut closed = None;
        loop {
            changed.mark_unchanged();
            if is_open && closed.is_none() {
                is_open = self.fill(&mut client);
            }
            if self.streams.is_empty() && (!is_open || closed.is_some()) {
                return closed.unwrap_or(ConnectionEnd::Closed { announced: true });
            }

            let wake_at = self.wake_at();
            let is_due = self.is_blocked || !self.streams.is_empty();
            tokio::select! {
                Some((request, outcome)) = self.streams.next() => {
                    if let Some(kind) = self.handle(request, outcome).await {
                        return ConnectionEnd::Failed(kind);
                    }
                }
                error = task.ended(), if closed.is_none() => closed = Some(self.closed_by(error)),
                _ = changed.changed() => {}
                () = tokio::time::sleep_until(wake_at), if is_due => {
                    if let Some(kind) = self.check_stall() {
                        return ConnectionEnd::Failed(kind);
                    }
                }
            }
        }
    }

    /// Opens the streams that are possible now. Whether more may be opened later.
    fn fill(&mut self, client: &mut SendRequest<Bytes>) -> bool {
        if self.streams.is_empty() && !self.is_blocked {
            self.activity.touch();
        }
        let offers_http2 = self.server.queue().health.offers_http2();
        let capacity = match offers_http2 {
            true => self.open_streams(client),
            false => SendCapacity::Closed,
        };
        self.is_blocked = capacity == SendCapacity::Full
            && self.streams.is_empty()
            && self.server.queue().may_send();
        capacity != SendCapacity::Closed
    }

    /// When a stall is due. There is no notification when the server accepts requests again.
    fn wake_at(&self) -> Instant {
        let stalled_at = self.activity.last_byte_at() + self.server.timeouts.stall;
        if self.is_blocked {
            stalled_at.min(Instant::now() + BLOCKED_INTERVAL)
        } else {
            stalled_at
        }
    }

    /// The failure of a connection on which nothing was received for too long.
    fn check_stall(&mut self) -> Option<HttpErrorKind> {
        let stall = self.server.timeouts.stall;
        let silence = self.activity.last_byte_at().elapsed();
        if has_paused(silence, stall) {
            self.activity.touch();
        }
        if silence < stall || has_paused(silence, stall) {
            return None;
        }
        self.unanswered += self.streams.len() + usize::from(self.is_blocked);
        Some(HttpErrorKind::Stalled(stall))
    }

    /// Opens streams for the requests that may be sent now.
    fn open_streams(&mut self, client: &mut SendRequest<Bytes>) -> SendCapacity {
        loop {
            let streams_max = client
                .current_max_send_streams()
                .min(self.server.options.max_in_flight);
            if self.streams.len() >= streams_max {
                return SendCapacity::Full;
            }
            match client.clone().ready().now_or_never() {
                None => return SendCapacity::Full,
                Some(Err(error)) => {
                    self.closed_by(Some(error));
                    return SendCapacity::Closed;
                }
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
            let response = match client.send_request(head, true) {
                Ok((response, _)) => response,
                Err(error) => {
                    self.unanswered += 1;
                    self.closed_by(Some(error));
                    return SendCapacity::Closed;
                }
            };

            let stream = ResponseStream::new(Arc::clone(&self.activity), response);
            let options = &self.server.options;
            let (limit_bytes, timeout) = (options.narinfo_limit_bytes, options.answer_timeout);
            self.streams
                .push(stream.run(request, limit_bytes, timeout).boxed());
        }
    }

    /// The end of a connection that takes no more requests.
    fn closed_by(&self, error: Option<h2::Error>) -> ConnectionEnd {
        let Some(error) = error else {
            return ConnectionEnd::Closed { announced: false };
        };
        if needs_http1(&error) {
            self.server.queue().health.require_http1();
        }
        ConnectionEnd::Failed(HttpErrorKind::Lost(Arc::new(error)))
    }

    /// Handles what became of `request`; some: the connection is not usable.
    async fn handle(
        &mut self,
        request: InFlightRequest,
        outcome: Result<LookupResponse, StreamFailure>,
    ) -> Option<HttpErrorKind> {
        let stalled = HttpErrorKind::Stalled(self.server.options.answer_timeout);
        match outcome {
            Ok(response) => {
                self.answered += 1;
                self.server.handle_response(request, response).await;
                self.activity.note_response();
            }
            Err(StreamFailure::Response(kind)) => self.server.retry_or_fail(request, kind),
            // On a connection without any response it is the server's failure.
            Err(StreamFailure::Stalled) if self.answered == 0 => {
                self.unanswered += 1 + self.streams.len();
                return Some(stalled);
            }
            Err(StreamFailure::Stalled) => self.server.retry_or_fail(request, stalled),
            // Dropping the request puts it back into the queue.
            Err(StreamFailure::Connection) => self.unanswered += 1,
            Err(StreamFailure::NeedsHttp1) => self.server.queue().health.require_http1(),
        }
        // If that took long it was the caller.
        self.activity.touch();
        None
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

/// The task that moves a connection's bytes; stopped when it is dropped.
struct ConnectionTask(JoinHandle<Result<(), h2::Error>>);

impl ConnectionTask {
    /// Waits for the end of the connection. Must not be called again afterwards.
    async fn ended(&mut self) -> Option<h2::Error> {
        (&mut self.0).await.ok()?.err()
    }
}

impl Drop for ConnectionTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts HTTP/2 on `transport`. The server may stall: its settings are a response that is due.
async fn start(
    transport: Box<dyn Transport>,
    stall: Duration,
) -> Result<(SendRequest<Bytes>, ConnectionTask), HttpErrorKind> {
    timeout(stall, handshake(transport))
        .await
        .ok_or(HttpErrorKind::Stalled(stall))?
        .map_err(|error| HttpErrorKind::Lost(Arc::new(error)))
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

/// How often a server that accepted no requests is tried again.
const BLOCKED_INTERVAL: Duration = Duration::from_millis(20);
