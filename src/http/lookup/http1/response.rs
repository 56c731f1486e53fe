//! HTTP/1.1 responses, from bytes. Pure and incremental: however the bytes are split, the same
//! responses come out.
//!
//! A response is a head (status line and fields, up to an empty line) and a body, whose end is
//! given by chunks, by `Content-Length`, or by the end of the connection, in this order; 204 and
//! 304 have none. Interim responses (1xx) and empty lines before a head are skipped. Limits:
//! [`INTERIM_MAX`] of those, [`HEAD_MAX_BYTES`] for a head and what is skipped before it, the
//! parser's limit for a body; all are errors *before* that much is kept. Bodies that are not
//! needed (all but 200's, and the beginnings of errors where these are wanted) are skipped.
//!
//! Not checked here: whether the response belongs to the request; HTTP/1.1 cannot tell.

use bytes::{Buf, BytesMut};

use super::head::{Framing, parse_head};
use super::parse_error::ResponseParseError;
use crate::http::lookup::response::{HEAD_MAX_BYTES, INTERIM_MAX, LookupResponse};
use crate::http::s3::verdict::ERROR_BODY_MAX_BYTES;

/// Reads one response after the other out of a buffer.
#[derive(Debug)]
pub(super) struct ResponseParser {
    limit_bytes: u64,
    /// Whether the beginning of the body of an error is kept, as far as object stores explain it there.
    keeps_errors: bool,
    /// Bytes of the buffer that do not contain the end of a head; not searched again.
    scanned: usize,
    /// Bytes that were skipped before the head: line ends and interim responses.
    skipped: usize,
    /// How many there were.
    interim: u32,
    state: ParserState,
    response: LookupResponse,
    body_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ParserState {
    Head,
    Sized { left: u64 },
    ToEnd,
    ChunkSize,
    Chunk { left: u64 },
    ChunkEnd,
    Trailer { seen: usize },
}

impl ResponseParser {
    /// A parser that accepts bodies of up to `limit_bytes`.
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            keeps_errors: false,
            scanned: 0,
            skipped: 0,
            interim: 0,
            state: ParserState::Head,
            response: LookupResponse::default(),
            body_bytes: 0,
        }
    }

    /// The same, but with the beginnings of the bodies of errors.
    pub(super) fn keeping_errors(mut self, keeps_errors: bool) -> Self {
        self.keeps_errors = keeps_errors;
        self
    }

    /// Whether a response has begun that is not complete.
    pub(super) fn is_inside(&self) -> bool {
        self.state != ParserState::Head
    }

    /// Takes the next whole response out of `input`; none: more bytes are needed. `is_end` says
    /// that none will come.
    pub(super) fn next(
        &mut self,
        input: &mut BytesMut,
        is_end: bool,
    ) -> Result<Option<LookupResponse>, ResponseParseError> {
        loop {
            let progress = match self.state {
                ParserState::Head => self.head(input)?,
                ParserState::Sized { left } => {
                    self.body(input, left, |left| ParserState::Sized { left }, None)?
                }
                ParserState::Chunk { left } => {
                    let chunk_end = Some(ParserState::ChunkEnd);
                    self.body(input, left, |left| ParserState::Chunk { left }, chunk_end)?
                }
                ParserState::ChunkSize => self.chunk_size(input)?,
                ParserState::ChunkEnd => self.chunk_end(input)?,
                ParserState::Trailer { seen } => self.trailer(input, seen)?,
                ParserState::ToEnd => {
                    self.keep(input, u64::MAX)?;
                    if is_end {
                        ParserStep::Complete
                    } else {
                        ParserStep::NeedsMore
                    }
                }
            };
            match progress {
                ParserStep::Continue => {}
                ParserStep::Complete => return Ok(Some(self.finish())),
                ParserStep::NeedsMore if is_end && (self.is_inside() || !input.is_empty()) => {
                    return Err(ResponseParseError::UnexpectedEnd);
                }
                ParserStep::NeedsMore => return Ok(None),
            }
        }
    }

    fn finish(&mut self) -> LookupResponse {
        self.state = ParserState::Head;
        self.body_bytes = 0;
        (self.skipped, self.interim) = (0, 0);
        std::mem::take(&mut self.response)
    }

    fn head(&mut self, input: &mut BytesMut) -> Result<ParserStep, ResponseParseError> {
        // Some servers send a line end too many after a body.
        while self.scanned == 0 && (input.starts_with(b"\r\n") || input.starts_with(b"\n")) {
            let length = if input[0] == b'\n' { 1 } else { 2 };
            input.advance(length);
            self.skip(length)?;
        }
        if **input == *b"\r" {
            return Ok(ParserStep::NeedsMore);
        }
        // Anything else may never contain the end of a head.
        if !input
            .iter()
            .zip(b"HTTP/")
            .all(|(byte, expected)| byte == expected)
        {
            return Err(ResponseParseError::Head(httparse::Error::Version));
        }

        let end = self.head_end(input);
        if self.skipped + end.unwrap_or(input.len()) > HEAD_MAX_BYTES {
            return Err(ResponseParseError::HeadTooLarge);
        }
        let Some(end) = end else {
            return Ok(ParserStep::NeedsMore);
        };

        let (head, framing) = parse_head(&input[..end])?;
        input.advance(end);
        self.scanned = 0;
        if head.status < 200 {
            self.skip(end)?;
            return Ok(ParserStep::Continue);
        }

        self.response.head = head;
        self.state = match framing {
            Framing::Sized(bytes) if bytes > self.limit_bytes => return Err(self.too_large()),
            Framing::Sized(bytes) => ParserState::Sized { left: bytes },
            Framing::Chunked => ParserState::ChunkSize,
            Framing::ToEnd => ParserState::ToEnd,
        };
        Ok(ParserStep::Continue)
    }

    /// Counts an interim response or an empty line.
    fn skip(&mut self, bytes: usize) -> Result<(), ResponseParseError> {
        self.skipped += bytes;
        self.interim += 1;
        if self.interim > INTERIM_MAX {
            return Err(ResponseParseError::TooManyInterim);
        }
        Ok(())
    }

    /// Where the head ends: after the first empty line. Every byte is searched once, also when they
    /// come one by one.
    fn head_end(&mut self, input: &[u8]) -> Option<usize> {
        while let Some(at) = memchr::memchr(b'\n', &input[self.scanned..]) {
            let line_end = self.scanned + at;
            match &input[line_end + 1..] {
                [b'\n', ..] => return Some(line_end + 2),
                [b'\r', b'\n', ..] => return Some(line_end + 3),
                [] | [b'\r'] => {
                    self.scanned = line_end;
                    return None;
                }
                _ => self.scanned = line_end + 1,
            }
        }
        self.scanned = input.len();
        None
    }

    /// Body bytes of known length; `after` follows them, or the response is complete.
    fn body(
        &mut self,
        input: &mut BytesMut,
        left: u64,
        again: fn(u64) -> ParserState,
        after: Option<ParserState>,
    ) -> Result<ParserStep, ResponseParseError> {
        let left = left - self.keep(input, left)?;
        if left > 0 {
            self.state = again(left);
            return Ok(ParserStep::NeedsMore);
        }
        let Some(after) = after else {
            return Ok(ParserStep::Complete);
        };
        self.state = after;
        Ok(ParserStep::Continue)
    }

    /// Moves up to `count_max` bytes of `input` into the body.
    fn keep(&mut self, input: &mut BytesMut, count_max: u64) -> Result<u64, ResponseParseError> {
        let count = usize::try_from(count_max)
            .unwrap_or(usize::MAX)
            .min(input.len());

        self.body_bytes += count as u64;
        if self.body_bytes > self.limit_bytes {
            return Err(self.too_large());
        }
        if self.response.head.status == 200 {
            self.response.body.extend_from_slice(&input[..count]);
        } else if self.keeps_errors {
            let room = ERROR_BODY_MAX_BYTES.saturating_sub(self.response.body.len());
            self.response
                .body
                .extend_from_slice(&input[..count.min(room)]);
        }
        input.advance(count);
        Ok(count as u64)
    }

    fn chunk_size(&mut self, input: &mut BytesMut) -> Result<ParserStep, ResponseParseError> {
        let Some(line) = take_line(input, "chunk size")? else {
            return Ok(ParserStep::NeedsMore);
        };
        let digits = line
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let rest = line[digits..].trim_ascii_start();
        let is_valid = (1..=16).contains(&digits) && matches!(rest.first(), None | Some(b';'));
        let text = std::str::from_utf8(&line[..digits]).unwrap_or_default();
        let size = u64::from_str_radix(text, 16).ok().filter(|_| is_valid);
        let size = size.ok_or(ResponseParseError::Framing("bad chunk size"))?;
        if size > self.limit_bytes {
            return Err(self.too_large());
        }

        self.state = if size == 0 {
            ParserState::Trailer { seen: 0 }
        } else {
            ParserState::Chunk { left: size }
        };
        Ok(ParserStep::Continue)
    }

    fn chunk_end(&mut self, input: &mut BytesMut) -> Result<ParserStep, ResponseParseError> {
        let Some(line) = take_line(input, "chunk end")? else {
            return Ok(ParserStep::NeedsMore);
        };
        if !line.is_empty() {
            return Err(ResponseParseError::Framing("bad chunk end"));
        }
        self.state = ParserState::ChunkSize;
        Ok(ParserStep::Continue)
    }

    fn trailer(
        &mut self,
        input: &mut BytesMut,
        seen: usize,
    ) -> Result<ParserStep, ResponseParseError> {
        let Some(line) = take_line(input, "trailer")? else {
            return Ok(ParserStep::NeedsMore);
        };
        if line.is_empty() {
            return Ok(ParserStep::Complete);
        }
        let seen = seen + line.len();
        if seen > HEAD_MAX_BYTES {
            return Err(ResponseParseError::HeadTooLarge);
        }
        self.state = ParserState::Trailer { seen };
        Ok(ParserStep::Continue)
    }

    fn too_large(&self) -> ResponseParseError {
        ResponseParseError::TooLarge {
            limit_bytes: self.limit_bytes,
        }
    }
}

/// What the parser did with its input.
enum ParserStep {
    Continue,
    Complete,
    NeedsMore,
}

/// The next line of `input` without its end; none: it is not complete yet.
fn take_line(
    input: &mut BytesMut,
    what: &'static str,
) -> Result<Option<BytesMut>, ResponseParseError> {
    let end = memchr::memchr(b'\n', input);
    if end.unwrap_or(input.len()) > LINE_MAX_BYTES {
        return Err(ResponseParseError::Framing(what));
    }
    let Some(end) = end else { return Ok(None) };
    let mut line = input.split_to(end + 1);
    line.truncate(end);
    if line.ends_with(b"\r") {
        line.truncate(end - 1);
    }
    Ok(Some(line))
}

/// The longest line around chunks.
const LINE_MAX_BYTES: usize = 4 << 10;

#[cfg(test)]
mod tests;
