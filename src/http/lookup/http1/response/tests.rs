//! Answers cut into pieces, cut short, malformed, and too large.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::http::content_encoding::ContentEncodings;
use crate::http::lookup::response::{ResponseHead, max_age};
use crate::http::retry::parse_retry_after;

/// Feeds `bytes` cut at `cuts`, then the end; what came out, and the error that stopped it. As on a
/// connection, nothing is read after a response that closes it.
fn feed(
    bytes: &[u8],
    cuts: &[usize],
    limit: u64,
) -> (Vec<LookupResponse>, Option<ResponseParseError>) {
    let mut parser = ResponseParser::new(limit);
    let mut input = BytesMut::new();
    let mut out = Vec::new();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    for pair in cuts.windows(2) {
        input.extend_from_slice(&bytes[pair[0]..pair[1]]);
        match drain(&mut parser, &mut input, false, &mut out) {
            Ok(ConnectionState::Open) => {}
            Ok(ConnectionState::Closed) => return (out, None),
            Err(error) => return (out, Some(error)),
        }
    }
    let end = drain(&mut parser, &mut input, true, &mut out);
    (out, end.err())
}

enum ConnectionState {
    Open,
    Closed,
}

fn drain(
    parser: &mut ResponseParser,
    input: &mut BytesMut,
    is_end: bool,
    out: &mut Vec<LookupResponse>,
) -> Result<ConnectionState, ResponseParseError> {
    while let Some(response) = parser.next(input, is_end)? {
        let stays = response.head.keep_alive;
        out.push(response);
        if !stays {
            return Ok(ConnectionState::Closed);
        }
    }
    Ok(ConnectionState::Open)
}

fn one(text: &str) -> LookupResponse {
    let (responses, error) = feed(text.as_bytes(), &[], 1000);
    assert_eq!(error, None, "{text}");
    assert_eq!(responses.len(), 1, "{text}");
    responses.into_iter().next().unwrap()
}

fn error(text: &str) -> ResponseParseError {
    let (responses, error) = feed(text.as_bytes(), &[], 1000);
    error.unwrap_or_else(|| panic!("{text}: {responses:?}"))
}

#[test]
fn bodies_end_in_three_ways() {
    let sized = one("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(
        (sized.body.as_slice(), sized.head.keep_alive),
        (&b"hello"[..], true)
    );
    let chunked = one(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n02\r\nlo\r\n0\r\nT: x\r\n\r\n",
    );
    assert_eq!(
        (chunked.body.as_slice(), chunked.head.keep_alive),
        (&b"hello"[..], true)
    );
    let to_end = one("HTTP/1.1 200 OK\r\n\r\nhello");
    assert_eq!(
        (to_end.body.as_slice(), to_end.head.keep_alive),
        (&b"hello"[..], false)
    );
}

#[test]
fn answers_without_a_body() {
    let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n\
        HTTP/1.1 204 None\r\n\r\nHTTP/1.1 304 Same\r\nContent-Length: 7\r\n\r\n\
        HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let (responses, error) = feed(text.as_bytes(), &[], 1000);
    assert_eq!(error, None);
    let statuses: Vec<u16> = responses
        .iter()
        .map(|response| response.head.status)
        .collect();
    assert_eq!(statuses, [204, 304, 404, 200]);
    assert!(responses.iter().all(|response| response.body.is_empty()));
}

#[test]
fn fields() {
    let head = one(
        "HTTP/1.1 404 No\r\nCONTENT-LENGTH: 0\r\ncache-control: public, Max-Age=300\r\nx-baking: 1\r\n\
         Location: /x\r\nContent-Encoding: gzip\r\nContent-Type: text/plain\r\nRetry-After: 7\r\n\r\n",
    )
    .head;
    let expected = ResponseHead {
        status: 404,
        keep_alive: true,
        max_age: Some(300),
        preparing: true,
        retry_after: Some(Duration::from_secs(7)),
        location: Some("/x".into()),
        encodings: ContentEncodings::parse("gzip"),
        bucket: None,
        content_type: Some("text/plain".into()),
    };
    assert_eq!(head, expected);
}

#[test]
fn cache_control() {
    for (value, expected) in [
        ("max-age=5", Some(5)),
        ("max-age=\"5\"", Some(5)),
        ("max-age=0", Some(0)),
        ("max-age=x", None),
        ("max-age=-1", None),
        ("no-store, max-age=5", Some(0)),
        ("s-maxage=5", None),
        ("", None),
    ] {
        assert_eq!(max_age(value), expected, "{value}");
    }
}

#[test]
fn retry_after_dates_need_no_clock() {
    let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
    for (value, expected) in [
        (
            "Sun, 06 Nov 1994 08:50:37 GMT",
            Some(Duration::from_secs(60)),
        ),
        ("Sun, 06 Nov 1994 08:40:37 GMT", Some(Duration::ZERO)),
        ("soon", None),
    ] {
        assert_eq!(parse_retry_after(value, date), expected, "{value}");
    }
    assert_eq!(
        parse_retry_after("Sun, 06 Nov 1994 08:50:37 GMT", None),
        None
    );
}

#[test]
fn connections_that_do_not_stay() {
    for (text, stays) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, Close\r\n\r\n",
            false,
        ),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n",
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            false,
        ),
    ] {
        assert_eq!(one(text).head.keep_alive, stays, "{text}");
    }
}

#[test]
fn hostile_answers() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000001\r\nx",
    ] {
        assert!(
            matches!(error(text), ResponseParseError::Framing(_)),
            "{text}"
        );
    }
    let too_large = ResponseParseError::TooLarge { limit_bytes: 1000 };
    assert_eq!(
        error("HTTP/1.1 404 No\r\nContent-Length: 10000000000\r\n\r\n"),
        too_large
    );
    assert_eq!(
        error("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n"),
        too_large
    );
    assert_eq!(
        error(&format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1001))),
        too_large
    );
    let lines = "X: y\r\n".repeat(HEAD_MAX_BYTES / 6);
    assert_eq!(
        error(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n")),
        ResponseParseError::HeadTooLarge
    );
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_MAX_BYTES));
    assert_eq!(error(&endless), ResponseParseError::HeadTooLarge);
    for skipped in ["HTTP/1.1 103 Early Hints\r\n\r\n", "\r\n"] {
        let endless = skipped.repeat(HEAD_MAX_BYTES / skipped.len() + 1);
        let expected = ResponseParseError::TooManyInterim;
        assert_eq!(error(&endless), expected, "{skipped}");
    }
    let large = format!(
        "HTTP/1.1 103 Early Hints\r\nX: {}\r\n\r\n",
        "x".repeat(10_000)
    );
    assert_eq!(error(&large.repeat(10)), ResponseParseError::HeadTooLarge);
    for text in [
        "<html>\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 099 x\r\n\r\n",
        "HTTP/1.1 101 Up\r\n\r\n",
        "SSH-2.0-x\r\n\r\n",
        "a beginning without an end",
    ] {
        assert!(matches!(error(text), ResponseParseError::Head(_)), "{text}");
    }
}

#[test]
fn every_truncation_is_seen() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
    ] {
        for end in 1..text.len() {
            assert_eq!(
                error(&text[..end]),
                ResponseParseError::UnexpectedEnd,
                "{end} of {text}"
            );
        }
    }
}

/// One answer of a random but valid kind.
fn any_answer() -> impl Strategy<Value = Vec<u8>> {
    let body = proptest::collection::vec(any::<u8>(), 0..200);
    (body, 0..6_u8, 1..50_usize).prop_map(|(body, kind, chunk)| {
        let status = if kind == 0 { "404 No" } else { "200 OK" };
        let mut out = match kind {
            5 => b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(),
            4 => b"\r\n".to_vec(),
            _ => Vec::new(),
        };
        if kind % 2 == 0 {
            out.extend(
                format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                )
                .bytes(),
            );
            out.extend(&body);
        } else {
            out.extend(format!("HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n").bytes());
            for piece in body.chunks(chunk) {
                out.extend(format!("{:x}\r\n", piece.len()).bytes());
                out.extend(piece);
                out.extend(b"\r\n");
            }
            out.extend(b"0\r\n\r\n");
        }
        out
    })
}

#[test]
fn cuts_make_no_difference_after_a_response_that_closes_the_connection() {
    let bytes = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi, noise";
    let every_byte: Vec<usize> = (0..bytes.len()).collect();
    let (responses, error) = feed(bytes, &every_byte, 150);
    assert_eq!(error, None);
    assert_eq!(responses.len(), 1);
    assert_eq!(feed(bytes, &[], 150), (responses, error));
}

proptest! {
    #[test]
    fn cuts_make_no_difference(
        answers in proptest::collection::vec(any_answer(), 1..6),
        noise in proptest::collection::vec(any::<u8>(), 0..40),
        flip in proptest::option::of((any::<usize>(), any::<u8>())),
        cuts in proptest::collection::vec(any::<usize>(), 0..40),
    ) {
        let mut bytes = answers.concat();
        bytes.extend(noise);
        if let Some((at, value)) = flip {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let whole = feed(&bytes, &[], 150);
        prop_assert_eq!(&feed(&bytes, &cuts, 150), &whole);
        let every_byte: Vec<usize> = (0..bytes.len()).collect();
        prop_assert_eq!(&feed(&bytes, &every_byte, 150), &whole);
    }
}
