//! A stream that broke off is resumed: after a wait, with a range, or else from the beginning.
//!
//! Any response other than the requested range is followed by a request without a range, unless the
//! server asks to wait (`Retry-After`): then the range is requested again after that time.
//! Only a refusal of the server says that it gives no ranges; an outage does not, and segments are
//! considered again after it. When several requests for a range failed one after the other, the
//! file is requested whole, too.

use std::sync::atomic::Ordering;

use crate::http::{BodyStatus, HttpError, NarBody, NarRequest};
use crate::substitute::download::body::{
    BROKEN_RANGES_MAX, BodyStream, ResumableBody, SegmentUse, range_validator,
    request_without_retries,
};
use crate::substitute::download::segments::is_range_refusal;

impl ResumableBody {
    /// Resumes a stream that broke off with `error`.
    pub(super) fn resume(&mut self, mut error: HttpError) -> Result<(), HttpError> {
        // What fails in segments may still work in one piece.
        if matches!(self.stream, BodyStream::Segments(_)) {
            self.segment_use = if is_range_refusal(&error) {
                SegmentUse::Refused
            } else {
                SegmentUse::AfterResume
            };
            tracing::debug!(reason = %error.without_url(), after = ?self.segment_use, "segments broke");
            self.trial.demand_more();
            if !error.asks_to_wait() {
                match self.reopen() {
                    Ok(()) => return Ok(()),
                    Err(next) => error = next,
                }
            }
        }

        loop {
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
            match self.reopen() {
                Ok(()) => return Ok(()),
                Err(next) => error = next,
            }
        }
    }

    /// Requests what is still to come, in one piece.
    pub(super) fn reopen(&mut self) -> Result<(), HttpError> {
        self.requested_segments = None;
        let body = match self.request_rest() {
            Some(Ok(body)) => {
                let is_same_file = body.validator() == self.validator.as_deref();
                if body.status() == BodyStatus::Full && is_same_file {
                    self.retries.health().refuses_ranges(self.server);
                }
                body
            }
            Some(Err(error)) if !error.reached_server() => return Err(error),
            Some(Err(error)) if error.asks_to_wait() => {
                self.broken_ranges += 1;
                return Err(error);
            }
            Some(Err(error)) => {
                let body = self.client.nar(self.request())?;
                if is_range_refusal(&error) {
                    self.retries.health().refuses_ranges(self.server);
                } else {
                    self.segment_use = SegmentUse::AfterResume;
                }
                body
            }
            None => self.client.nar(self.request())?,
        };

        self.repeated = match body.status() {
            BodyStatus::Partial { .. } => {
                self.broken_ranges += 1;
                self.retries.note_range_used();
                if self.segment_use == SegmentUse::AfterResume {
                    self.segment_use = SegmentUse::Allowed;
                }
                0
            }
            BodyStatus::Full => {
                self.broken_ranges = 0;
                // It may be another version of the file, of another length.
                self.content_length = body.content_length();
                self.validator = range_validator(&body);
                self.received
            }
        };

        self.noted_at = self.received;
        self.trial.restart(&self.shared);
        self.stream = BodyStream::Network(Box::new(body));
        Ok(())
    }

    /// A request for the whole file.
    fn request(&self) -> NarRequest {
        let rate_window = self.retries.rate_window(self.server);
        NarRequest {
            compression: Some(self.compression),
            ..request_without_retries(&self.url, &self.cancel, rate_window)
        }
    }

    /// Requests what has not been received; `None` when that cannot be done.
    fn request_rest(&self) -> Option<Result<NarBody, HttpError>> {
        let validator = self.validator.clone().filter(|_| self.received > 0)?;
        let is_hopeless = self.broken_ranges >= BROKEN_RANGES_MAX;
        if is_hopeless || !self.retries.health().takes_ranges(self.server) {
            return None;
        }

        Some(self.client.nar(NarRequest {
            range: Some((self.received, None)),
            if_range: Some(validator),
            ..self.request()
        }))
    }
}
