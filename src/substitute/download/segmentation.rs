//! When a stream changes over to segments.
//!
//! A stream that the decoder waits for is measured. When it is slow, the first segment is requested
//! beside it, so far ahead that it is complete when the stream arrives there: what both deliver is
//! received in vain. A server that refuses the segment costs the stream nothing.

use crate::substitute::download::body::{BodyStream, ResumableBody, SegmentUse};
use crate::substitute::download::segment_fetch::{SEGMENT_BYTES, SegmentedPart};
use crate::substitute::download::segments::{FirstSegment, Segments};

/// Less than this is not worth more connections.
const SEGMENTED_BYTES_MIN: u64 = 4 << 20;

/// How far ahead of the stream the first segment may begin, apart from its own length.
const LEAD_BYTES_MAX: u64 = 4 << 20;

/// How far the stream may come before the first segment, which begins ahead of it, is complete.
const FIRST_SEGMENT_LAG_BYTES: u64 = 2 * SEGMENT_BYTES;

impl ResumableBody {
    /// Requests segments when the network is what the decoder waits for, and goes on with them once the
    /// first one has arrived.
    pub(super) fn consider_segments(&mut self) {
        let Some(segments) = self.requested_segments.take() else {
            if self.is_worth_segments() {
                self.requested_segments = self.request_segments();
            }
            return;
        };

        let start = segments.start_offset();
        match segments.first() {
            FirstSegment::Complete if self.received >= start => {
                tracing::debug!(start, "going on with segments");
                self.repeated = self.received - start;
                self.retries.note_joined();
                self.retries.health().gave_range(self.server);
                self.stream = BodyStream::Segments(segments);
            }
            FirstSegment::Refused => {
                tracing::debug!(
                    server = self.retries.server_url(self.server),
                    "the server does not give parts of the file"
                );
                self.note_range_refusal();
            }
            FirstSegment::Broken => self.segment_use = SegmentUse::AfterResume,
            // The stream is faster.
            FirstSegment::Requested if self.received >= start + FIRST_SEGMENT_LAG_BYTES => {
                self.segment_use = SegmentUse::AfterResume;
            }
            FirstSegment::Requested | FirstSegment::Complete => {
                self.requested_segments = Some(segments);
            }
        }
    }

    /// Whether the stream is slow, and enough is left to gain something.
    fn is_worth_segments(&self) -> bool {
        let Some(end) = self.content_length else {
            return false;
        };

        self.segment_use == SegmentUse::Allowed
            && self.announces_ranges
            && !matches!(self.stream, BodyStream::Segments(_))
            && end.saturating_sub(self.received) >= SEGMENTED_BYTES_MIN
            && self.trial.is_slow(&self.shared)
            && self.retries.health().takes_ranges(self.server)
    }

    /// Requests segments of what the stream will not have delivered by the time they arrive.
    fn request_segments(&self) -> Option<Segments> {
        let (validator, end) = (self.validator.clone()?, self.content_length?);
        let lead = self.trial.bytes_until_as_fast(&self.shared);
        let start = self.received + SEGMENT_BYTES + lead.min(LEAD_BYTES_MAX);
        if start + 2 * SEGMENT_BYTES > end {
            return None;
        }

        let part = SegmentedPart {
            url: self.url.clone(),
            validator,
            start,
            end,
            rate_demand: self.retries.rate_demand(self.server),
        };

        let segments = Segments::start(&self.client, part, self.cancel.flag(), &self.connections)?;
        tracing::debug!(start, end, "requesting segments");
        Some(segments)
    }
}
