//! Responses to lookups, whatever the HTTP version, and what they say. Pure.

use std::time::Duration;

use http::HeaderMap;
use memchr::memmem;

use super::encoding;
use super::events::NarInfoAnswer;
use crate::format::escape::clip;
use crate::format::store_path::{HASH_PART_LEN, HashPart};
use crate::http::download::client::LOCATION_MAX_BYTES;
use crate::http::error::HttpErrorKind;
use crate::http::retry::parse_retry_after;

/// One whole response.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct LookupResponse {
    pub(super) head: ResponseHead,
    /// The body of a 200; empty for other statuses.
    pub(super) body: Vec<u8>,
}

/// The fields of a head that matter here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ResponseHead {
    pub(super) status: u16,
    /// Whether further responses may follow on the connection.
    pub(super) keep_alive: bool,
    /// `Cache-Control: max-age`; 0 when the response must not be cached.
    pub(super) max_age: Option<u64>,
    /// `X-Baking: 1`: the item exists and is being prepared.
    pub(super) preparing: bool,
    pub(super) retry_after: Option<Duration>,
    pub(super) location: Option<String>,
    /// A content encoding other than `identity`.
    pub(super) encoding: Option<String>,
}

/// What a response says about its request.
#[derive(Debug)]
pub(super) enum ResponseMeaning {
    Answer(NarInfoAnswer),
    /// The answer is at this URL, which may be relative.
    Redirect(String),
    Failed(HttpErrorKind),
}

/// What `response` says. A text in it has at most `limit_bytes`, also when it was encoded.
pub(super) fn interpret(response: LookupResponse, limit_bytes: u64) -> ResponseMeaning {
    let LookupResponse { head, body } = response;
    let (status, max_age) = (head.status, head.max_age);
    match (status, head.location) {
        (200, _) => match head.encoding {
            Some(encoding) => match encoding::decode(&encoding, &body, limit_bytes) {
                Ok(text) => ResponseMeaning::Answer(NarInfoAnswer::Found { text, max_age }),
                Err(kind) => ResponseMeaning::Failed(kind),
            },
            None => ResponseMeaning::Answer(NarInfoAnswer::Found {
                text: body,
                max_age,
            }),
        },
        (202, _) => ResponseMeaning::Answer(NarInfoAnswer::Preparing { status, max_age }),
        (404, _) if head.preparing => {
            ResponseMeaning::Answer(NarInfoAnswer::Preparing { status, max_age })
        }
        (404 | 410, _) => ResponseMeaning::Answer(NarInfoAnswer::Missing { status, max_age }),
        (301 | 302 | 303 | 307 | 308, Some(location)) => ResponseMeaning::Redirect(location),
        _ => ResponseMeaning::Failed(HttpErrorKind::Status {
            status,
            retry_after: head.retry_after,
        }),
    }
}

impl ResponseHead {
    /// What the headers of an HTTP library say.
    pub(super) fn from_headers(status: u16, headers: &HeaderMap) -> Self {
        let fields = headers.iter();
        Self::from_fields(
            status,
            fields.map(|(name, value)| (name.as_str(), value.as_bytes())),
        )
    }

    /// What `fields` say.
    pub(super) fn from_fields<'a>(
        status: u16,
        fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Self {
        let mut head = Self {
            status,
            keep_alive: true,
            ..Self::default()
        };
        // `Retry-After` may be a date, which is compared with `Date`.
        let (mut retry_after, mut date) = (None, None);
        for (name, value) in fields {
            let Ok(value) = std::str::from_utf8(value.trim_ascii()) else {
                continue;
            };
            if name.eq_ignore_ascii_case("cache-control") {
                head.max_age = max_age(value).or(head.max_age);
            } else if name.eq_ignore_ascii_case("x-baking") {
                head.preparing = value == "1";
            } else if name.eq_ignore_ascii_case("retry-after") {
                retry_after = Some(value);
            } else if name.eq_ignore_ascii_case("date") {
                date = Some(value);
            } else if name.eq_ignore_ascii_case("location") {
                // One byte more shows that it is too long.
                head.location = Some(clip(value, LOCATION_MAX_BYTES + 1).to_owned());
            } else if name.eq_ignore_ascii_case("content-encoding")
                && !value.eq_ignore_ascii_case("identity")
            {
                head.encoding = Some(clip(value, ENCODING_MAX_BYTES).to_owned());
            }
        }

        head.retry_after = retry_after.and_then(|value| parse_retry_after(value, date));
        head
    }
}

/// The seconds for which a response may be cached, from its `Cache-Control`.
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

/// Whether `narinfo` is plainly about another item than `item`: a sign that responses do not
/// match their requests. False where `StorePath` cannot be read.
pub(super) fn is_about_another(narinfo: &[u8], item: &HashPart) -> bool {
    let finder = memmem::find_iter(narinfo, b"StorePath:");
    let mut starts = finder.filter(|&at| at == 0 || narinfo[at - 1] == b'\n');
    let Some(start) = starts.next() else {
        return false;
    };

    let line = &narinfo[start..];
    let line = &line[..memchr::memchr(b'\n', line).unwrap_or(line.len())];
    let base = memchr::memrchr(b'/', line).map_or(&[][..], |slash| &line[slash + 1..]);
    match base.split_at_checked(HASH_PART_LEN) {
        Some((hash, [b'-', ..])) => hash != item.as_str().as_bytes(),
        _ => false,
    }
}

/// What is kept of a `Content-Encoding`; no name of one is as long.
const ENCODING_MAX_BYTES: usize = 64;

/// Interim responses, and empty lines, that may come before a response.
pub(super) const INTERIM_MAX: u32 = 16;

/// The largest head.
pub(super) const HEAD_MAX_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(status: u16, change: impl FnOnce(&mut ResponseHead)) -> String {
        let mut head = ResponseHead {
            status,
            max_age: Some(9),
            ..ResponseHead::default()
        };
        change(&mut head);
        let body = b"x".to_vec();
        match interpret(LookupResponse { head, body }, 1000) {
            ResponseMeaning::Answer(NarInfoAnswer::Found {
                text,
                max_age: Some(9),
            }) => {
                format!("found {}", text.len())
            }
            ResponseMeaning::Answer(NarInfoAnswer::Missing {
                status,
                max_age: Some(9),
            }) => {
                format!("missing {status}")
            }
            ResponseMeaning::Answer(NarInfoAnswer::Preparing {
                status,
                max_age: Some(9),
            }) => {
                format!("preparing {status}")
            }
            ResponseMeaning::Redirect(location) => format!("redirect {location}"),
            ResponseMeaning::Failed(kind) => kind.to_string(),
            ResponseMeaning::Answer(other) => format!("{other:?}"),
        }
    }

    #[test]
    fn statuses_and_what_they_say() {
        assert_eq!(meaning(200, |_| {}), "found 1");
        assert_eq!(meaning(202, |_| {}), "preparing 202");
        assert_eq!(meaning(404, |_| {}), "missing 404");
        assert_eq!(meaning(410, |_| {}), "missing 410");
        assert_eq!(meaning(404, |head| head.preparing = true), "preparing 404");
        assert_eq!(
            meaning(302, |head| head.location = Some("/x".into())),
            "redirect /x"
        );
        for status in [204, 206, 302, 304, 403, 500] {
            let expected = format!("the server answered with status {status}");
            assert_eq!(meaning(status, |_| {}), expected);
        }
        let encoded = meaning(200, |head| head.encoding = Some("br".into()));
        assert_eq!(
            encoded,
            "the server used the content encoding `br`, which was not requested"
        );
    }

    #[test]
    fn narinfos_of_another_item_are_detected() {
        let (a, b) = ("a".repeat(32), "b".repeat(32));
        let item = HashPart::parse(&a).unwrap();
        for (narinfo, expected) in [
            (format!("StorePath: /gnu/store/{a}-x\n"), false),
            (format!("StorePath: /gnu/store/{b}-x\n"), true),
            (format!("URL: x\r\nStorePath: /nix/store/{b}-x"), true),
            (format!("URL: StorePath: /gnu/store/{b}-x\n"), false),
            (format!("StorePath: {b}-x\n"), false),
            ("StorePath: /gnu/store/short\n".to_owned(), false),
            ("<html>".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(
                is_about_another(narinfo.as_bytes(), &item),
                expected,
                "{narinfo}"
            );
        }
    }
}
