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

use std::time::Duration;

use bytes::{Buf, BytesMut};

/// Why bytes are no HTTP/1.1 answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
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

/// One whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) head: Head,
    /// The body of a 200; empty for other statuses.
    pub(super) body: Vec<u8>,
}

/// What matters of a head.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Head {
    pub(super) status: u16,
    /// Whether further answers may follow on the connection.
    pub(super) keep_alive: bool,
    /// `Cache-Control: max-age`; 0 when the answer must not be kept.
    pub(super) max_age: Option<u64>,
    /// `X-Baking: 1`: the item exists and is being prepared.
    pub(super) baking: bool,
    pub(super) retry_after: Option<Duration>,
    pub(super) location: Option<String>,
    /// A content encoding other than `identity`.
    pub(super) encoding: Option<String>,
}

/// Reads one answer after the other out of a buffer.
#[derive(Debug)]
pub(super) struct Parser {
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
    pub(super) fn new(limit_bytes: u64) -> Self {
        let response = Response { head: Head::default(), body: Vec::new() };
        Self { limit_bytes, scanned: 0, state: State::Head, response, body_bytes: 0 }
    }

    /// Whether an answer has begun that is not complete.
    pub(super) fn is_inside(&self) -> bool {
        self.state != State::Head
    }

    /// Takes the next whole answer out of `input`; none: more bytes are needed. `is_end` says
    /// that none will come.
    pub(super) fn next(
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
                    if is_end { Progress::Complete } else { Progress::NeedsMore }
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
        let empty = Response { head: Head::default(), body: Vec::new() };
        std::mem::replace(&mut self.response, empty)
    }

    fn head(&mut self, input: &mut BytesMut) -> Result<Progress, WireError> {
        // Some servers send a line end too many after a body.
        while self.scanned == 0 && (input.starts_with(b"\r\n") || input.starts_with(b"\n")) {
            input.advance(if input[0] == b'\n' { 1 } else { 2 });
        }
        let end = self.head_end(input);
        if end.unwrap_or(input.len()) > HEAD_MAX_BYTES {
            return Err(WireError::HeadTooLarge);
        }
        let Some(end) = end else { return Ok(Progress::NeedsMore) };
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
        let Some(after) = after else { return Ok(Progress::Complete) };
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
        let Some(line) = take_line(input, "chunk size")? else { return Ok(Progress::NeedsMore) };
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let rest = line[digits..].trim_ascii_start();
        let is_valid = (1..=16).contains(&digits) && matches!(rest.first(), None | Some(b';'));
        let text = std::str::from_utf8(&line[..digits]).unwrap_or_default();
        let size = u64::from_str_radix(text, 16).ok().filter(|_| is_valid);
        let size = size.ok_or(WireError::Framing("bad chunk size"))?;
        if size > self.limit_bytes {
            return Err(self.too_large());
        }
        self.state =
            if size == 0 { State::Trailer { seen: 0 } } else { State::Chunk { left: size } };
        Ok(Progress::Step)
    }

    fn chunk_end(&mut self, input: &mut BytesMut) -> Result<Progress, WireError> {
        let Some(line) = take_line(input, "chunk end")? else { return Ok(Progress::NeedsMore) };
        if !line.is_empty() {
            return Err(WireError::Framing("bad chunk end"));
        }
        self.state = State::ChunkSize;
        Ok(Progress::Step)
    }

    fn trailer(&mut self, input: &mut BytesMut, seen: usize) -> Result<Progress, WireError> {
        let Some(line) = take_line(input, "trailer")? else { return Ok(Progress::NeedsMore) };
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
        WireError::TooLarge { limit_bytes: self.limit_bytes }
    }
}

enum Progress {
    Step,
    Complete,
    NeedsMore,
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Sized(u64),
    Chunked,
    ToEnd,
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

fn parse_head(bytes: &[u8]) -> Result<(Head, Framing), WireError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut fields);
    if parsed.parse(bytes).map_err(WireError::Head)?.is_partial() {
        return Err(WireError::Head(httparse::Error::Token));
    }
    let status = parsed.code.unwrap_or_default();
    if !(100..1000).contains(&status) || status == 101 {
        return Err(WireError::Head(httparse::Error::Status));
    }
    let is_http11 = parsed.version == Some(1);
    let fields = parsed.headers.iter().map(|field| (field.name, field.value));
    let mut head = Head::from_fields(status, fields.clone());
    let (framing, connection) = framing(fields, is_http11)?;
    let is_bodiless = matches!(status, 204 | 304) || status < 200;
    let framing = if is_bodiless { Framing::Sized(0) } else { framing };
    let stays = connection.unwrap_or(is_http11);
    head.keep_alive = stays && framing != Framing::ToEnd;
    Ok((head, framing))
}

/// How the body ends, and whether the connection stays: `None` when that is not said.
fn framing<'a>(
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    is_http11: bool,
) -> Result<(Framing, Option<bool>), WireError> {
    let (mut length, mut chunked, mut stays) = (None, false, None);
    for (name, value) in fields {
        let value = value.trim_ascii();
        if name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(value).unwrap_or_default();
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let bytes: Option<u64> = text.parse().ok().filter(|_| is_number);
            if bytes.is_none() || length.is_some_and(|known| Some(known) != bytes) {
                return Err(WireError::Framing("bad Content-Length"));
            }
            length = bytes;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") || chunked || !is_http11 {
                return Err(WireError::Framing("unknown Transfer-Encoding"));
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case("connection") {
            if has_token(value, "close") {
                stays = Some(false);
            } else if has_token(value, "keep-alive") {
                stays = stays.or(Some(true));
            }
        }
    }
    if chunked && length.is_some() {
        // One of them lies, and then nobody knows where the next answer begins.
        stays = Some(false);
    }
    let framing = match length {
        _ if chunked => Framing::Chunked,
        Some(bytes) => Framing::Sized(bytes),
        None => Framing::ToEnd,
    };
    Ok((framing, stays))
}

fn has_token(value: &[u8], token: &str) -> bool {
    value
        .split(|&byte| byte == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

impl Head {
    /// What `fields` say, of whichever HTTP version they are.
    pub(super) fn from_fields<'a>(
        status: u16,
        fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Self {
        let mut head = Self { status, keep_alive: true, ..Self::default() };
        let (mut retry_after, mut date) = (None, None);
        for (name, value) in fields {
            let Ok(value) = std::str::from_utf8(value.trim_ascii()) else { continue };
            if name.eq_ignore_ascii_case("cache-control") {
                head.max_age = max_age(value).or(head.max_age);
            } else if name.eq_ignore_ascii_case("x-baking") {
                head.baking = value == "1";
            } else if name.eq_ignore_ascii_case("retry-after") {
                retry_after = Some(value);
            } else if name.eq_ignore_ascii_case("date") {
                date = Some(value);
            } else if name.eq_ignore_ascii_case("location") {
                head.location = Some(value.to_owned());
            } else if name.eq_ignore_ascii_case("content-encoding")
                && !value.eq_ignore_ascii_case("identity")
            {
                head.encoding = Some(value.to_owned());
            }
        }
        head.retry_after = retry_after.and_then(|value| parse_retry_after(value, date));
        head
    }
}

fn max_age(value: &str) -> Option<u64> {
    let mut age = None;
    for directive in value.split(',').map(str::trim) {
        if directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("no-cache")
        {
            return Some(0);
        }
        if let Some((name, seconds)) = directive.split_once('=')
            && name.trim_end().eq_ignore_ascii_case("max-age")
        {
            age = seconds.trim().trim_matches('"').parse().ok();
        }
    }
    age
}

/// `Retry-After` is a number of seconds or a date. A date is measured against the server's own
/// `Date`, so that a wrong clock on either side does not matter.
pub(super) fn parse_retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = httpdate::parse_http_date(value).ok()?;
    let now = httpdate::parse_http_date(date?).ok()?;
    Some(then.duration_since(now).unwrap_or_default())
}

/// The largest head.
pub(super) const HEAD_MAX_BYTES: usize = 64 << 10;

/// The longest line around chunks.
const LINE_MAX_BYTES: usize = 4 << 10;

/// The most fields in a head.
const FIELDS_MAX: usize = 128;

#[cfg(test)]
mod tests;
