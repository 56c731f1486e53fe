//! One HTTP/2 stream: the response to one request, and what all streams of a connection share.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, poll_fn};
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use tokio::time::{Instant, timeout_at};

use crate::http::error::HttpErrorKind;
use crate::http::lookup::response::{INTERIM_MAX, LookupResponse, ResponseHead};
use crate::http::lookup::server::InFlightRequest;
use crate::http::net::timeout::has_paused;
use crate::sync::lock;

/// A request, until its response is complete or has failed.
pub(super) type StreamFuture =
    BoxFuture<'static, (InFlightRequest, Result<LookupResponse, StreamFailure>)>;

/// Why there is no response.
pub(super) enum StreamFailure {
    /// This response is not usable.
    Response(HttpErrorKind),
    /// This response takes too long.
    Stalled,
    /// The connection is not usable.
    Connection,
    /// The server requires HTTP/1.1, or the response is one that HTTP/2 does not allow and HTTP/1.1 may, for
    /// instance with connection-specific header fields.
    NeedsHttp1,
}

impl From<h2::Error> for StreamFailure {
    fn from(error: h2::Error) -> Self {
        if needs_http1(&error) {
            Self::NeedsHttp1
        } else if error.is_reset() && error.is_remote() {
            Self::Response(HttpErrorKind::Lost(Arc::new(error)))
        } else {
            Self::Connection
        }
    }
}

/// Whether the server requires HTTP/1.1, or has sent what HTTP/2 does not allow.
pub(super) fn needs_http1(error: &h2::Error) -> bool {
    error.is_library() || error.reason() == Some(Reason::HTTP_1_1_REQUIRED)
}

/// One request's response.
pub(super) struct ResponseStream {
    activity: Arc<StreamActivity>,
    response: ResponseFuture,
}

impl ResponseStream {
    pub(super) fn new(activity: Arc<StreamActivity>, response: ResponseFuture) -> Self {
        Self { activity, response }
    }

    /// Waits for the response. The server may send others first: `answer_timeout` counts from the
    /// last response of the connection, as on an HTTP/1.1 connection.
    pub(super) async fn run(
        self,
        request: InFlightRequest,
        limit_bytes: u64,
        answer_timeout: Duration,
    ) -> (InFlightRequest, Result<LookupResponse, StreamFailure>) {
        let activity = Arc::clone(&self.activity);
        let mut due_since = Instant::now();
        let mut received = pin!(self.receive(limit_bytes));
        loop {
            let deadline = due_since + answer_timeout;
            if let Ok(outcome) = timeout_at(deadline, received.as_mut()).await {
                return (request, outcome);
            }
            if has_paused(deadline.elapsed(), Duration::ZERO) {
                due_since = Instant::now();
            } else if activity.last_response_at() > due_since {
                due_since = activity.last_response_at();
            } else {
                return (request, Err(StreamFailure::Stalled));
            }
        }
    }

    async fn receive(self, limit_bytes: u64) -> Result<LookupResponse, StreamFailure> {
        let (parts, mut stream) = final_response(self.response).await?.into_parts();
        self.activity.touch();
        let head = ResponseHead::from_headers(parts.status.as_u16(), &parts.headers);

        let mut body = Vec::new();
        let mut received = UnfinishedBytes::new(&self.activity);
        while let Some(data) = next_data(&mut stream).await? {
            // Empty frames, of which a server may send any number, are no sign of life.
            if !data.is_empty() {
                self.activity.touch();
            }
            let unfinished = received.add(data.len() as u64);
            if received.bytes > limit_bytes || unfinished > UNFINISHED_MAX_BYTES.max(limit_bytes) {
                return Err(StreamFailure::Response(HttpErrorKind::TooLarge {
                    limit_bytes,
                }));
            }
            if head.status == 200 {
                body.extend_from_slice(&data);
            }
        }
        Ok(LookupResponse {
            head,
            body,
            redirected_to: None,
        })
    }
}

/// Waits for the head of the response itself.
async fn final_response(
    mut response: ResponseFuture,
) -> Result<http::Response<RecvStream>, StreamFailure> {
    let mut interim = 0;
    poll_fn(|context| {
        while let Poll::Ready(Some(skipped)) = response.poll_informational(context) {
            skipped?;
            interim += 1;
            if interim > INTERIM_MAX {
                let kind = HttpErrorKind::TooManyInterim(INTERIM_MAX);
                return Poll::Ready(Err(StreamFailure::Response(kind)));
            }
        }
        response.poll_unpin(context).map_err(StreamFailure::from)
    })
    .await
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
pub(super) struct StreamActivity {
    last_byte_at: Mutex<Instant>,
    last_response_at: Mutex<Instant>,
    /// Bytes of unfinished responses.
    unfinished: AtomicU64,
}

impl Default for StreamActivity {
    fn default() -> Self {
        Self {
            last_byte_at: Mutex::new(Instant::now()),
            last_response_at: Mutex::new(Instant::now()),
            unfinished: AtomicU64::new(0),
        }
    }
}

impl StreamActivity {
    /// Something was received now, or nothing was due until now.
    pub(super) fn touch(&self) {
        *lock(&self.last_byte_at) = Instant::now();
    }

    pub(super) fn last_byte_at(&self) -> Instant {
        *lock(&self.last_byte_at)
    }

    /// A response was complete, and the caller has taken it.
    pub(super) fn note_response(&self) {
        *lock(&self.last_response_at) = Instant::now();
    }

    fn last_response_at(&self) -> Instant {
        *lock(&self.last_response_at)
    }
}

/// The bytes of one unfinished response, as a share in those of all.
struct UnfinishedBytes<'a> {
    activity: &'a StreamActivity,
    bytes: u64,
}

impl<'a> UnfinishedBytes<'a> {
    fn new(activity: &'a StreamActivity) -> Self {
        Self { activity, bytes: 0 }
    }

    /// Counts bytes that were received; returns those of all responses.
    fn add(&mut self, bytes: u64) -> u64 {
        self.bytes += bytes;
        self.activity.unfinished.fetch_add(bytes, Ordering::Relaxed) + bytes
    }
}

impl Drop for UnfinishedBytes<'_> {
    fn drop(&mut self) {
        self.activity
            .unfinished
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Bytes of unfinished responses on one connection.
const UNFINISHED_MAX_BYTES: u64 = 16 << 20;
