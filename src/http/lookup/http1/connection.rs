//! One HTTP/1.1 connection that is asked ahead.
//!
//! Requests are written while answers are read, each at its own pace: a server that reads nothing
//! more until its answers are taken cannot block us, and a slow reader is not waited for. Silence
//! counts only while an answer is due, and only the server's: the time in which our own caller is
//! too slow to take answers does not. One answer may take only so long even if it trickles.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::in_flight::Lane;
use super::response::Parser;
use crate::http::error::HttpErrorKind;
use crate::http::lookup::health::End;
use crate::http::lookup::server::Server;
use crate::http::net::connect::Transport;

/// Asks over `transport` until it is used up, then draws the conclusions.
pub(in crate::http) async fn run(server: &Arc<Server>, transport: Box<dyn Transport>) {
    let mut pipeline = Pipeline {
        server,
        lane: Lane::new(server),
        parser: Parser::new(server.options.narinfo_limit_bytes),
        input: BytesMut::with_capacity(READ_BYTES),
        waits_since: Instant::now(),
        heard_at: Instant::now(),
    };
    let end = pipeline.ask_ahead(transport).await;
    pipeline.lane.conclude(end);
}

struct Pipeline<'a> {
    server: &'a Arc<Server>,
    lane: Lane,
    parser: Parser,
    input: BytesMut,
    /// Since when the oldest question is the oldest.
    waits_since: Instant,
    /// When the last byte came, or the first question went.
    heard_at: Instant,
}

impl Pipeline<'_> {
    async fn ask_ahead(&mut self, transport: Box<dyn Transport>) -> End {
        let (mut reader, mut writer) = tokio::io::split(transport);
        let mut changed = self.server.changed.subscribe();
        let mut output = BytesMut::new();
        // A server that closes its receiving side may still send what it has answered.
        let (mut can_write, mut must_flush) = (true, false);
        loop {
            changed.mark_unchanged();
            self.fill(&mut output);
            must_flush |= !output.is_empty();
            if self.lane.is_used_up() {
                if !self.server.lock().health.outlives_limit() {
                    return End::Done;
                }
                self.lane.reopen();
                continue;
            }
            let deadline = self.deadline();
            tokio::select! {
                count = read(&mut reader, &mut self.input) => {
                    if let Some(end) = self.read(count).await {
                        return end;
                    }
                }
                written = write(&mut writer, &mut output), if can_write && must_flush => {
                    (can_write, must_flush) = (written.is_ok(), false);
                }
                _ = changed.changed() => {}
                () = tokio::time::sleep_until(deadline), if !self.lane.is_empty() => {
                    // We may have been stopped meanwhile: what has come since then counts.
                    let Some(count) = read(&mut reader, &mut self.input).now_or_never() else {
                        return End::Failed(HttpErrorKind::Stalled(self.patience()));
                    };
                    if let Some(end) = self.read(count).await {
                        return end;
                    }
                }
            }
        }
    }

    fn fill(&mut self, output: &mut BytesMut) {
        let was_empty = self.lane.is_empty();
        let requests = &self.server.requests;
        let most = self.server.options.max_in_flight;
        self.lane
            .fill(most, |question| requests.write(question, output));
        if was_empty {
            (self.waits_since, self.heard_at) = (Instant::now(), Instant::now());
        }
    }

    fn deadline(&self) -> Instant {
        let silence = self.heard_at + self.server.timeouts.stall;
        silence.min(self.waits_since + self.server.options.answer_timeout)
    }

    /// The timeout that was the shorter one.
    fn patience(&self) -> Duration {
        let silence = self.heard_at + self.server.timeouts.stall;
        if self.deadline() == silence {
            self.server.timeouts.stall
        } else {
            self.server.options.answer_timeout
        }
    }

    /// Deals with the answers in what was just read; some: the connection is over.
    async fn read(&mut self, count: io::Result<usize>) -> Option<End> {
        let is_end = matches!(count, Ok(0));
        if let Err(error) = count {
            let is_between = !self.parser.is_inside() && self.input.is_empty();
            return Some(match error.kind() {
                // Closing with our requests unread turns the end into a reset.
                io::ErrorKind::ConnectionReset if is_between => End::Closed { announced: false },
                _ => End::Failed(HttpErrorKind::Lost(Arc::new(error))),
            });
        }
        loop {
            let response = match self.parser.next(&mut self.input, is_end) {
                Ok(Some(response)) => response,
                Ok(None) if is_end => return Some(End::Closed { announced: false }),
                Ok(None) => break,
                Err(error) => return Some(End::Failed(error.into())),
            };
            if self.lane.is_out_of_step(&response) {
                return Some(End::OutOfStep);
            }
            let stays = response.head.keep_alive;
            self.lane.answer(response).await;
            self.waits_since = Instant::now();
            if !stays {
                return Some(End::Closed { announced: true });
            }
        }
        self.server.report_lessons();
        self.heard_at = Instant::now();
        None
    }
}

/// Reads what is there. TLS calls it an error when the end is not announced; between answers it
/// does not matter, and inside one it is noticed anyway.
async fn read(reader: &mut (impl AsyncRead + Unpin), input: &mut BytesMut) -> io::Result<usize> {
    input.reserve(READ_BYTES);
    match reader.read_buf(input).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        outcome => outcome,
    }
}

/// Writes all of `output`. May be dropped at any time: what was written is taken off.
async fn write(writer: &mut (impl AsyncWrite + Unpin), output: &mut BytesMut) -> io::Result<()> {
    writer.write_all_buf(output).await?;
    writer.flush().await
}

/// Room for the next read.
const READ_BYTES: usize = 64 << 10;
