//! One pipelined HTTP/1.1 connection.
//!
//! Requests are written while responses are read, each at its own pace: a server that reads
//! nothing more until its responses are read cannot block us, and a slow reader does not delay
//! the reading. The stall timeout counts only while a response is due, and only the server's
//! time: the time in which the caller is too slow to take answers does not count. The
//! time for one response is limited even if its bytes keep coming.
//!
//! A server that takes long for each response would hold up all requests behind one another. If it
//! welcomes several connections, those that wait are left to the others.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::in_flight::InFlightRequests;
use super::response::ResponseParser;
use crate::http::error::HttpErrorKind;
use crate::http::lookup::connection_end::ConnectionEnd;
use crate::http::lookup::server::HttpServer;
use crate::http::net::connect::Transport;
use crate::http::net::timeout::has_paused;
use crate::http::net::tls_failure::lost_connection;

/// Sends over `transport` until it ends, then reports how it went.
pub(in crate::http::lookup) async fn run(server: &Arc<HttpServer>, transport: Box<dyn Transport>) {
    let mut connection = Http1Connection {
        server,
        in_flight: InFlightRequests::new(server),
        parser: ResponseParser::new(server.options.narinfo_limit_bytes)
            .keeping_errors(server.signer.is_some()),
        input: BytesMut::with_capacity(READ_BYTES),
        due_since: Instant::now(),
        was_slow: false,
        last_byte_at: Instant::now(),
    };
    let end = connection.send_requests(transport).await;
    connection.in_flight.finish(end);
}

struct Http1Connection<'a> {
    server: &'a Arc<HttpServer>,
    in_flight: InFlightRequests,
    parser: ResponseParser,
    input: BytesMut,
    /// When the oldest request became the next to be answered.
    due_since: Instant,
    /// Whether the last response took longer than [`SLOW_ANSWER`].
    was_slow: bool,
    /// When the last byte came, or the first request was written.
    last_byte_at: Instant,
}

impl Http1Connection<'_> {
    async fn send_requests(&mut self, transport: Box<dyn Transport>) -> ConnectionEnd {
        let (mut reader, mut writer) = tokio::io::split(transport);
        let mut changed = self.server.changed.subscribe();
        let mut output = BytesMut::new();
        // A server that closes its receiving side may still send what it has answered.
        let (mut can_write, mut must_flush) = (true, false);
        loop {
            changed.mark_unchanged();
            self.fill(&mut output);
            must_flush |= !output.is_empty();
            if self.in_flight.is_handed_over() {
                return ConnectionEnd::Unneeded;
            }
            if self.in_flight.is_exhausted() {
                if !self.server.queue().health.take_refuted_limit() {
                    return ConnectionEnd::Unneeded;
                }
                self.in_flight.lift_limit();
                continue;
            }

            let deadline = self.deadline();
            let slow_at = self.due_since + SLOW_ANSWER;
            tokio::select! {
                count = read(&mut reader, &mut self.input) => {
                    if let Some(end) = self.handle_input(count).await {
                        return end;
                    }
                }
                written = write(&mut writer, &mut output), if can_write && must_flush => {
                    (can_write, must_flush) = (written.is_ok(), false);
                }
                _ = changed.changed() => {}
                () = tokio::time::sleep_until(slow_at), if self.may_hand_over() => {
                    self.was_slow = false;
                    if !has_paused(slow_at.elapsed(), Duration::ZERO) {
                        self.in_flight.hand_over();
                    }
                }
                () = tokio::time::sleep_until(deadline), if !self.in_flight.is_empty() => {
                    if !has_paused(deadline.elapsed(), Duration::ZERO) {
                        return ConnectionEnd::Failed(HttpErrorKind::Stalled(self.timeout()));
                    }
                    self.restart_timeouts();
                }
            }
        }
    }

    fn fill(&mut self, output: &mut BytesMut) {
        let was_empty = self.in_flight.is_empty();
        let encoder = &self.server.encoder;
        let in_flight_max = self.server.options.max_in_flight;
        self.in_flight
            .fill(in_flight_max, |target| encoder.write(target, output));
        if was_empty {
            self.restart_timeouts();
        }
    }

    fn may_hand_over(&self) -> bool {
        self.was_slow && self.in_flight.may_hand_over()
    }

    fn restart_timeouts(&mut self) {
        (self.due_since, self.last_byte_at) = (Instant::now(), Instant::now());
    }

    fn stalled_at(&self) -> Instant {
        self.last_byte_at + self.server.timeouts.stall
    }

    fn deadline(&self) -> Instant {
        let response_due_at = self.due_since + self.server.options.answer_timeout;
        self.stalled_at().min(response_due_at)
    }

    /// The timeout that ends first.
    fn timeout(&self) -> Duration {
        if self.deadline() == self.stalled_at() {
            self.server.timeouts.stall
        } else {
            self.server.options.answer_timeout
        }
    }

    /// Handles the responses in what was just read. Returns the end if the connection has ended.
    async fn handle_input(&mut self, count: io::Result<usize>) -> Option<ConnectionEnd> {
        let is_end = matches!(count, Ok(0));
        if let Err(error) = count {
            let is_between = !self.parser.is_inside() && self.input.is_empty();
            return Some(match error.kind() {
                // Closing with our requests unread turns the end into a reset.
                io::ErrorKind::ConnectionReset if is_between => {
                    ConnectionEnd::Closed { announced: false }
                }
                _ => ConnectionEnd::Failed(lost_connection(error)),
            });
        }

        loop {
            let response = match self.parser.next(&mut self.input, is_end) {
                Ok(Some(response)) => response,
                Ok(None) if is_end => return Some(ConnectionEnd::Closed { announced: false }),
                Ok(None) => break,
                Err(error) => return Some(ConnectionEnd::Failed(error.into())),
            };
            if self.in_flight.is_mismatched(&response) {
                return Some(ConnectionEnd::Mismatched);
            }
            let keep_alive = response.head.keep_alive;
            self.was_slow = self.due_since.elapsed() >= SLOW_ANSWER;
            self.in_flight
                .handle_response(response, !self.was_slow)
                .await;
            self.due_since = Instant::now();
            if self.in_flight.is_handed_over() {
                return Some(ConnectionEnd::Unneeded);
            }
            if !keep_alive {
                return Some(ConnectionEnd::Closed { announced: true });
            }
        }
        self.server.report_new_properties();
        self.last_byte_at = Instant::now();
        None
    }
}

/// Reads what is available. rustls reports `UnexpectedEof` without `close_notify`; between responses
/// that does not matter, and inside one the parser reports the truncation.
async fn read(reader: &mut (impl AsyncRead + Unpin), input: &mut BytesMut) -> io::Result<usize> {
    input.reserve(READ_BYTES);
    match reader.read_buf(input).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        outcome => outcome,
    }
}

/// Writes all of `output`. May be dropped at any time: what was written is removed.
async fn write(writer: &mut (impl AsyncWrite + Unpin), output: &mut BytesMut) -> io::Result<()> {
    writer.write_all_buf(output).await?;
    writer.flush().await
}

/// Two responses in a row that take this long, while others are due, are slow.
const SLOW_ANSWER: Duration = Duration::from_millis(500);

/// Space for the next read.
const READ_BYTES: usize = 64 << 10;
