//! A stream that broke off is resumed: after a wait, with a range, or else from the beginning.
//!
//! Any response other than the requested range, or one that begins before it, is followed by a request
//! without a range, unless the server asks to wait (`Retry-After`): then the range is requested again
//! after that time. Only a refusal of the server says that it gives no ranges of the file, and refusals for
//! several files in a row that it gives none at all; an outage does not, and segments are considered again
//! after it. When several requests for a range failed one after the other, the file is requested whole, too.
//!
//! Segments that fail are started again after the wait; what has arrived of them is kept.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::http::{BodyStatus, HttpError, NarBody, NarRequest, RangeSupport};
use crate::substitute::download::body::{
    BROKEN_RANGES_MAX, BodyStream, ResumableBody, SegmentUse, request_without_retries,
};
use crate::substitute::download::segments::is_range_refusal;

impl ResumableBody {
    /// Resumes a stream that broke off with `error`.
    pub(super) fn resume(&mut self, mut error: HttpError) -> Result<(), HttpError> {
        if let BodyStream::Segments(segments) = &self.stream {
            self.broken_ranges += u32::from(error.reached_server());
            let is_refused = is_range_refusal(&error);
            tracing::debug!(reason = %error.without_url(), is_refused, "segments broke");
            if !is_refused && self.broken_ranges <= BROKEN_RANGES_MAX {
                self.wait_to_resume(error)?;
                segments.start_again();
                return Ok(());
            }

            // What fails in segments may still work in one piece.
            self.broken_ranges = 0;
            self.trial.demand_more();
            self.segment_use = match is_refused {
                true => SegmentUse::Refused,
                false => SegmentUse::AfterResume,
            };
            if !error.asks_to_wait() {
                match self.reopen() {
                    Ok(()) => return Ok(()),
                    Err(next) => error = next,
                }
            }
        }

        loop {
            self.wait_to_resume(error)?;
            match self.reopen() {
                Ok(()) => return Ok(()),
                Err(next) => error = next,
            }
        }
    }

    /// Waits until what failed with `error` may be requested again.
    ///
    /// # Errors
    /// It may not: `error`.
    fn wait_to_resume(&self, error: HttpError) -> Result<(), HttpError> {
        let may_resume = self.retries.wait_to_resume(self.server, &error, &|| {
            self.shared.is_abandoned.load(Ordering::Relaxed)
        });
        if !may_resume {
            return Err(error);
        }

        tracing::debug!(
            server = self.retries.server_url(self.server),
            received = self.received,
            "resuming"
        );
        Ok(())
    }

    /// Requests what is still to come, in one piece: of the first stream everything.
    pub(super) fn reopen(&mut self) -> Result<(), HttpError> {
        self.reopen_until(None)
    }

    /// The same, but not more than up to `end` if the server gives parts of the file.
    pub(super) fn reopen_until(&mut self, end: Option<u64>) -> Result<(), HttpError> {
        let began = Instant::now();
        let body = self.request_rest_or_whole(end)?;
        self.take_response(Box::new(body), began.elapsed());
        Ok(())
    }

    /// Goes on with `body`, which the server began to send after that time.
    pub(super) fn take_response(&mut self, body: Box<NarBody>, waited: Duration) {
        self.repeated = match body.status() {
            BodyStatus::Partial { start, .. } => {
                self.broken_ranges += 1;
                self.retries.health().gave_range(self.server);
                if self.segment_use == SegmentUse::AfterResume {
                    self.segment_use = SegmentUse::Allowed;
                }
                // They may have failed together with the stream that they are ahead of.
                if let Some(segments) = &self.requested_segments {
                    segments.start_again();
                }
                self.received - start
            }
            BodyStatus::Full => {
                self.broken_ranges = 0;
                self.requested_segments = None;
                // It may be another version of the file, of another length.
                self.content_length = body.content_length();
                self.validator = body.validator().map(str::to_owned);
                self.announces_ranges = body.ranges() == RangeSupport::Announced;
                self.spool
                    .restarted(self.validator.as_deref(), self.content_length);
                if body.ranges() == RangeSupport::Denied {
                    self.retries.health().refuses_ranges(self.server);
                }
                self.received
            }
        };

        if let Some(target) = body.redirected_to() {
            self.retries.health().redirect_answered(target);
        }
        if self.received > 0 {
            self.retries.note_joined();
        }
        self.noted_at = self.received;
        self.trial.restart(waited, &self.shared);
        self.stream = BodyStream::Network(body);
    }

    /// Requests what has not been received, and where that fails because of the range, the whole file.
    fn request_rest_or_whole(&mut self, end: Option<u64>) -> Result<NarBody, HttpError> {
        let Some(rest) = self.request_rest(end) else {
            return self.client.nar(self.request());
        };

        match rest {
            Ok(body) if body.status() == BodyStatus::Full => {
                if self.is_same_version(&body) {
                    self.note_range_refusal();
                }
                Ok(body)
            }
            Ok(body) if self.is_same_version(&body) => Ok(body),
            Err(error) if !error.reached_server() => Err(error),
            Err(error) if error.asks_to_wait() => {
                self.broken_ranges += 1;
                Err(error)
            }
            refused => {
                let is_refusal = refused.as_ref().err().is_none_or(is_range_refusal);

                let body = self.client.nar(self.request())?;
                if is_refusal {
                    self.note_range_refusal();
                } else {
                    self.segment_use = SegmentUse::AfterResume;
                }
                Ok(body)
            }
        }
    }

    /// The server gives this file whole only.
    pub(super) fn note_range_refusal(&mut self) {
        if self.segment_use != SegmentUse::Refused {
            self.retries.health().refused_range(self.server);
        }
        self.segment_use = SegmentUse::Refused;
    }

    /// Whether `body` is, as far as the server says, of the version of the file that has arrived so far.
    fn is_same_version(&self, body: &NarBody) -> bool {
        let length = match body.status() {
            BodyStatus::Full => body.content_length(),
            BodyStatus::Partial { total, .. } => total,
        };
        let has_same_length = match (length, self.content_length) {
            (Some(length), Some(expected)) => length == expected,
            _ => true,
        };

        let has_same_validator = match (body.validator(), self.validator.as_deref()) {
            // One is an `ETag`, the other a date.
            (Some(one), Some(other)) if one.starts_with('"') != other.starts_with('"') => true,
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        has_same_length && has_same_validator
    }

    /// A request for the whole file.
    fn request(&self) -> NarRequest {
        let rate_demand = self.retries.rate_demand(self.server);
        NarRequest {
            compression: Some(self.compression),
            ..request_without_retries(&self.url, &self.cancel, rate_demand)
        }
    }

    /// Requests what has not been received, up to `end`; `None` when that cannot be done.
    fn request_rest(&self, end: Option<u64>) -> Option<Result<NarBody, HttpError>> {
        let is_hopeless = self.broken_ranges >= BROKEN_RANGES_MAX;
        if self.received == 0 || is_hopeless || !self.retries.health().takes_ranges(self.server) {
            return None;
        }

        // Without a name for the version, the nar's hash tells whether the two parts belong together.
        Some(self.client.nar(NarRequest {
            range: Some((self.received, end)),
            if_range: self.validator.clone(),
            ..self.request()
        }))
    }
}
