//! The head of an HTTP/1.1 response: what it says about the body and the connection.
//!
//! Harmless faults are accepted, as by the HTTP library that downloads nars: blanks before colons,
//! bare line feeds, folded lines, lines that are not fields, a length that is given twice. A head that
//! leaves open where the body ends is an error. With chunks a length does not count, but the
//! connection ends after them.

use std::mem::MaybeUninit;

use super::parse_error::ResponseParseError;
use crate::http::lookup::response::ResponseHead;
use crate::http::options::HEADER_FIELDS_MAX;

/// What gives the end of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Sized(u64),
    Chunked,
    ToEnd,
}

/// Parses a whole head.
pub(super) fn parse_head(bytes: &[u8]) -> Result<(ResponseHead, Framing), ResponseParseError> {
    let mut fields = [const { MaybeUninit::uninit() }; HEADER_FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let end = parser_config()
        .parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields)
        .map_err(ResponseParseError::Head)?;
    if end.is_partial() {
        return Err(ResponseParseError::Head(httparse::Error::Token));
    }
    let status = parsed.code.unwrap_or_default();
    if !(100..1000).contains(&status) || status == 101 {
        return Err(ResponseParseError::Head(httparse::Error::Status));
    }

    let is_http11 = parsed.version == Some(1);
    let fields = parsed.headers.iter().map(|field| (field.name, field.value));
    let mut head = ResponseHead::from_fields(status, fields.clone());

    let (framing, connection) = framing(fields, is_http11)?;
    let is_bodiless = matches!(status, 204 | 304) || status < 200;
    let framing = if is_bodiless {
        Framing::Sized(0)
    } else {
        framing
    };
    head.keep_alive = connection.unwrap_or(is_http11) && framing != Framing::ToEnd;
    Ok((head, framing))
}

fn parser_config() -> httparse::ParserConfig {
    let mut config = httparse::ParserConfig::default();
    config
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .ignore_invalid_headers_in_responses(true);
    config
}

/// How the body ends, and whether the connection stays open: `None` when that is not said.
fn framing<'a>(
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    is_http11: bool,
) -> Result<(Framing, Option<bool>), ResponseParseError> {
    let (mut length, mut chunked, mut keep_alive) = (None, false, None);
    for (name, value) in fields {
        let value = value.trim_ascii();
        if name.eq_ignore_ascii_case("content-length") {
            for text in value.split(|&byte| byte == b',') {
                let bytes = decimal(text.trim_ascii());
                if bytes.is_none() || length.is_some_and(|known| Some(known) != bytes) {
                    return Err(ResponseParseError::Framing("bad Content-Length"));
                }
                length = bytes;
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if value.eq_ignore_ascii_case(b"identity") {
                continue;
            }
            if !value.eq_ignore_ascii_case(b"chunked") || chunked || !is_http11 {
                return Err(ResponseParseError::Framing("unknown Transfer-Encoding"));
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case("connection") {
            if has_token(value, "close") {
                keep_alive = Some(false);
            } else if has_token(value, "keep-alive") {
                keep_alive = keep_alive.or(Some(true));
            }
        }
    }

    if chunked && length.is_some() {
        // One of them is wrong, and then it is unknown where the next response begins.
        keep_alive = Some(false);
    }
    let framing = match length {
        _ if chunked => Framing::Chunked,
        Some(bytes) => Framing::Sized(bytes),
        None => Framing::ToEnd,
    };
    Ok((framing, keep_alive))
}

/// A number of bytes in digits alone.
fn decimal(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_decimal)
}

fn has_token(value: &[u8], token: &str) -> bool {
    value
        .split(|&byte| byte == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}
