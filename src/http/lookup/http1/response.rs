//! HTTP/1.1 answers, from bytes. Pure and incremental: however the bytes are cut into pieces,
//! the same answers come out.
//!
//! An answer is a head (status line and fields, up to an empty line) and a body, whose end is
//! told by chunks, by `Content-Length`, or by the end of the connection, in this order; 204 and
//! 304 have none. Interim answers (1xx) are skipped. Limits: [`HEAD_MAX_BYTES`] for a head, the
//! parser's limit for a body; both are errors *before* that much is kept. Bodies that nobody
//! reads (all but 200's) are passed over.
//!
//! Not checked here: whether the answer belongs to the request; HTTP/1.1 cannot tell.

use std::sync::Arc;

use bytes::{Buf, BytesMut};

use super::head::{Framing, parse_head};
use crate::http::error::HttpErrorKind;
use crate::http::lookup::response::{HEAD_MAX_BYTES, Head, Response};

/// Why bytes are no HTTP/1.1 answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::http) enum WireError {
    #[error("bad status line or header: {0}")]
    Head(httparse::Error),
    #[error("the header is larger than {HEAD_MAX_BYTES} bytes")]
    HeadTooLarge,
    #[error("the end of the body cannot be told: {0}")]
    Framing(&'static str),
    #[error("the answer is larger than {limit_bytes} bytes")]
    TooLarge { limit_bytes: u64 },
    #[error("the connection ended inside an answer")]
    UnexpectedEnd,
}

impl From<WireError> for HttpErrorKind {
    fn from(error: WireError) -> Self {
        match error {
            WireError::TooLarge { limit_bytes } => Self::TooLarge { limit_bytes },
            WireError::UnexpectedEnd => Self::Closed,
            other => Self::Malformed(Arc::new(other)),
        }
    }
}

/// Reads one answer after the other out of a buffer.
#[derive(Debug)]
pub(in crate::http) struct Parser {
    limit_bytes: u64,
    /// Bytes of the buffer that hold no end of a head; not looked at again.
    scanned: usize,
    state: State,
    response: Response,
    body_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Sized { left: u64 },
    ToEnd,
    ChunkSize,
    Chunk { left: u64 },
    ChunkEnd,
    Trailer { seen: usize },
}

impl Parser {
    /// A parser that takes bodies of up to `limit_bytes`.
    pub(in crate::http) fn new(limit_bytes: u64) -> Self {
        let response = Response {
            head: Head::default(),
            body: Vec::new(),
        };
        Self {
            limit_bytes,
            scanned: 0,
            state: State::Head,
            response,
            body_bytes: 0,
        }
    }

    /// Whether an answer has begun that is not complete.
    pub(in crate::http) fn is_inside(&self) -> bool {
        self.state != State::Head
    }

    /// Takes the next whole answer out of `input`; none: more bytes are needed. `is_end` says
    /// that none will come.
    pub(in crate::http) fn next(
        &mut self,
        input: &mut BytesMut,
        is_end: bool,
    ) -> Result<Option<Response>, WireError> {
        loop {
            let progress = match self.state {
                State::Head => self.head(input)?,
                State::Sized { left } => {
                    self.body(input, left, |left| State::Sized { left }, None)?
                }
                State::Chunk { left } => {
                    let chunk_end = Some(State::ChunkEnd);
                    self.body(input, left, |left| State::Chunk { left }, chunk_end)?
                }
                State::ChunkSize => self.chunk_size(input)?,
                State::ChunkEnd => self.chunk_end(input)?,
                State::Trailer { seen } => self.trailer(input, seen)?,
                State::ToEnd => {
                    self.keep(input, u64::MAX)?;
                    if is_end {
                        Progress::Complete
                    } else {
                        Progress::NeedsMore
                    }
                }
            };
            match progress {
                Progress::Step => {}
                Progress::Complete => return Ok(Some(self.finish())),
                Progress::NeedsMore if is_end && (self.is_inside() || !input.is_empty()) => {
                    return Err(WireError::UnexpectedEnd);
                }
                Progress::NeedsMore => return Ok(None),
            }
        }
    }

    fn finish(&mut self) -> Response {
        self.state = State::Head;
        self.body_bytes = 0;
        let empty = Response {
            head: Head::default(),
            body: Vec::new(),
        };
        std::mem::replace(&mut self.response, empty)
    }

    fn head(&mut self, input: &mut BytesMut) -> Result<Progress, WireError> {
        // Some servers send a line end too many after a body.
        while self.scanned == 0 && (input.starts_with(b"\r\n") || input.starts_with(b"\n")) {
            input.advance(if input[0] == b'\n' { 1 } else { 2 });
        }
        if **input == *b"\r" {
            return Ok(Progress::NeedsMore);
        }
        // What begins otherwise may never have an end that could be waited for.
        if !input
            .iter()
            .zip(b"HTTP/")
            .all(|(byte, expected)| byte == expected)
        {
            return Err(WireError::Head(httparse::Error::Version));
        }
        let end = self.head_end(input);
        if end.unwrap_or(input.len()) > HEAD_MAX_BYTES {
            return Err(WireError::HeadTooLarge);
        }
        let Some(end) = end else {
            return Ok(Progress::NeedsMore);
        };
        let (head, framing) = parse_head(&input[..end])?;
        input.advance(end);
        self.scanned = 0;
        if head.status < 200 {
            return Ok(Progress::Step);
        }
        self.response.head = head;
        self.state = match framing {
            Framing::Sized(bytes) if bytes > self.limit_bytes => return Err(self.too_large()),
            Framing::Sized(bytes) => State::Sized { left: bytes },
            Framing::Chunked => State::ChunkSize,
            Framing::ToEnd => State::ToEnd,
        };
        Ok(Progress::Step)
    }

    /// Where the head ends: after the first empty line. Every byte is looked at once, also when
    /// they come one by one.
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

    /// A piece of known length; `after` follows it, or the answer is complete.
    fn body(
        &mut self,
        input: &mut BytesMut,
        left: u64,
        again: fn(u64) -> State,
        after: Option<State>,
    ) -> Result<Progress, WireError> {
        let left = left - self.keep(input, left)?;
        if left > 0 {
            self.state = again(left);
            return Ok(Progress::NeedsMore);
        }
        let Some(after) = after else {
            return Ok(Progress::Complete);
        };
        self.state = after;
        Ok(Progress::Step)
    }

    /// Moves up to `most` bytes of `input` into the body.
    fn keep(&mut self, input: &mut BytesMut, most: u64) -> Result<u64, WireError> {
        let count = usize::try_from(most).unwrap_or(usize::MAX).min(input.len());
        self.body_bytes += count as u64;
        if self.body_bytes > self.limit_bytes {
            return Err(self.too_large());
        }
        if self.response.head.status == 200 {
            self.response.body.extend_from_slice(&input[..count]);
        }
        input.advance(count);
        Ok(count as u64)
    }

    fn chunk_size(&mut self, input: &mut BytesMut) -> Result<Progress, WireError> {
        let Some(line) = take_line(input, "chunk size")? else {
            return Ok(Progress::NeedsMore);
        };
        let digits = line
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let rest = line[digits..].trim_ascii_start();
        let is_valid = (1..=16).contains(&digits) && matches!(rest.first(), None | Some(b';'));
        let text = std::str::from_utf8(&line[..digits]).unwrap_or_default();
        let size = u64::from_str_radix(text, 16).ok().filter(|_| is_valid);
        let size = size.ok_or(WireError::Framing("bad chunk size"))?;
        if size > self.limit_bytes {
            return Err(self.too_large());
        }
        self.state = if size == 0 {
            State::Trailer { seen: 0 }
        } else {
            State::Chunk { left: size }
        };
        Ok(Progress::Step)
    }

    fn chunk_end(&mut self, input: &mut BytesMut) -> Result<Progress, WireError> {
        let Some(line) = take_line(input, "chunk end")? else {
            return Ok(Progress::NeedsMore);
        };
        if !line.is_empty() {
            return Err(WireError::Framing("bad chunk end"));
        }
        self.state = State::ChunkSize;
        Ok(Progress::Step)
    }

    fn trailer(&mut self, input: &mut BytesMut, seen: usize) -> Result<Progress, WireError> {
        let Some(line) = take_line(input, "trailer")? else {
            return Ok(Progress::NeedsMore);
        };
        if line.is_empty() {
            return Ok(Progress::Complete);
        }
        let seen = seen + line.len();
        if seen > HEAD_MAX_BYTES {
            return Err(WireError::HeadTooLarge);
        }
        self.state = State::Trailer { seen };
        Ok(Progress::Step)
    }

    fn too_large(&self) -> WireError {
        WireError::TooLarge {
            limit_bytes: self.limit_bytes,
        }
    }
}

enum Progress {
    Step,
    Complete,
    NeedsMore,
}

/// The next line of `input` without its end; none: it is not complete yet.
fn take_line(input: &mut BytesMut, what: &'static str) -> Result<Option<BytesMut>, WireError> {
    let end = memchr::memchr(b'\n', input);
    if end.unwrap_or(input.len()) > LINE_MAX_BYTES {
        return Err(WireError::Framing(what));
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
