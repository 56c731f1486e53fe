//! The head of an answer: what its fields say about the body, the connection and the answer.

use std::time::Duration;

use super::WireError;

/// What matters of a head.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::http) struct Head {
    pub(in crate::http) status: u16,
    /// Whether further answers may follow on the connection.
    pub(in crate::http) keep_alive: bool,
    /// `Cache-Control: max-age`; 0 when the answer must not be kept.
    pub(in crate::http) max_age: Option<u64>,
    /// `X-Baking: 1`: the item exists and is being prepared.
    pub(in crate::http) baking: bool,
    pub(in crate::http) retry_after: Option<Duration>,
    pub(in crate::http) location: Option<String>,
    /// A content encoding other than `identity`.
    pub(in crate::http) encoding: Option<String>,
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Sized(u64),
    Chunked,
    ToEnd,
}

pub(super) fn parse_head(bytes: &[u8]) -> Result<(Head, Framing), WireError> {
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
    let framing = if is_bodiless {
        Framing::Sized(0)
    } else {
        framing
    };
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
    pub(in crate::http) fn from_fields<'a>(
        status: u16,
        fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Self {
        let mut head = Self {
            status,
            keep_alive: true,
            ..Self::default()
        };
        let (mut retry_after, mut date) = (None, None);
        for (name, value) in fields {
            let Ok(value) = std::str::from_utf8(value.trim_ascii()) else {
                continue;
            };
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

pub(super) fn max_age(value: &str) -> Option<u64> {
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
pub(in crate::http) fn parse_retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = httpdate::parse_http_date(value).ok()?;
    let now = httpdate::parse_http_date(date?).ok()?;
    Some(then.duration_since(now).unwrap_or_default())
}

/// The most fields in a head.
const FIELDS_MAX: usize = 128;
