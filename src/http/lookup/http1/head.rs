//! The head of an answer: what its fields say about the body, the connection and the answer.

use super::response::WireError;
use crate::http::lookup::response::Head;

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Framing {
    Sized(u64),
    Chunked,
    ToEnd,
}

pub(in crate::http) fn parse_head(bytes: &[u8]) -> Result<(Head, Framing), WireError> {
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

/// The most fields in a head.
const FIELDS_MAX: usize = 128;
