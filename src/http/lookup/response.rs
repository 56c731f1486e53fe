//! Responses to lookups, whatever the HTTP version, and what they say. Pure.

use std::time::Duration;

use http::HeaderMap;
use memchr::memmem;
use url::Url;

use super::events::NarInfoAnswer;
use super::request::RequestTarget;
use crate::format::escape::clip;
use crate::format::store_path::{HASH_PART_LEN, HashPart};
use crate::http::content_encoding::ContentEncodings;
use crate::http::download::client::LOCATION_MAX_BYTES;
use crate::http::error::HttpErrorKind;
use crate::http::retry::parse_retry_after;

/// One whole response.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct LookupResponse {
    pub(super) head: ResponseHead,
    /// The body of a 200; the beginning of an error from an object store; empty for other statuses.
    pub(super) body: Vec<u8>,
    /// Where it is from, if redirects were followed one by one.
    pub(super) redirected_to: Option<Box<Url>>,
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
    pub(super) encodings: ContentEncodings,
    /// What an object store says with an error.
    pub(super) bucket: Option<Box<BucketFields>>,
    /// What the server calls the body, unless that is a narinfo.
    pub(super) content_type: Option<Box<str>>,
}

/// The fields of an error that matter for object stores.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct BucketFields {
    /// `Date`.
    pub(super) date: Option<String>,
    /// `x-amz-bucket-region`.
    pub(super) region: Option<String>,
}

/// What a response says about its request.
#[derive(Debug)]
pub(super) enum ResponseMeaning {
    Answer(NarInfoAnswer),
    /// The answer is at this URL, which may be relative.
    Redirect(String),
    Failed(HttpErrorKind),
}

/// What the `response` to a request for `target` says. A text in it has at most `limit_bytes`, also
/// when it was encoded.
pub(super) fn interpret(
    target: RequestTarget,
    response: LookupResponse,
    limit_bytes: u64,
) -> ResponseMeaning {
    let LookupResponse {
        head,
        body,
        redirected_to,
    } = response;
    let (status, max_age) = (head.status, head.max_age);
    match (status, head.location) {
        (200, _) => {
            let text = head.encodings.decode(body, limit_bytes);
            match text.and_then(|text| check_text(target, text, head.content_type)) {
                Ok(text) => ResponseMeaning::Answer(NarInfoAnswer::Found { text, max_age }),
                Err(kind) => ResponseMeaning::Failed(match redirected_to {
                    Some(url) => kind.after_redirect(&url),
                    None => kind,
                }),
            }
        }
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
        let (mut retry_after, mut date, mut region) = (None, None, None);
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
            } else if name.eq_ignore_ascii_case("x-amz-bucket-region") {
                region = Some(value);
            } else if name.eq_ignore_ascii_case("location") {
                // One byte more shows that it is too long.
                head.location = Some(clip(value, LOCATION_MAX_BYTES + 1).to_owned());
            } else if name.eq_ignore_ascii_case("content-encoding") {
                head.encodings.add(value);
            } else if name.eq_ignore_ascii_case("content-type") && !value.ends_with("-nix-narinfo")
            {
                head.content_type = Some(clip(value, CONTENT_TYPE_MAX_BYTES).into());
            }
        }

        if matches!(status, 301 | 400 | 403) {
            head.bucket = Some(Box::new(BucketFields {
                date: date.map(str::to_owned),
                region: region.map(str::to_owned),
            }));
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

/// `text` if it looks like what `target` names. Login pages of networks, object stores and web
/// applications answer everything with a page and status 200; what they say is no answer.
pub(super) fn check_text(
    target: RequestTarget,
    text: Vec<u8>,
    content_type: Option<Box<str>>,
) -> Result<Vec<u8>, HttpErrorKind> {
    let (expected, is_expected) = match target {
        RequestTarget::NarInfo(_) => ("a narinfo", has_line(&text, &NARINFO_FIELDS)),
        // An empty one says that the defaults hold.
        RequestTarget::CacheInfo => {
            let is_expected = text.is_empty() || has_line(&text, &CACHE_INFO_FIELDS);
            ("nix-cache-info", is_expected)
        }
    };
    if is_expected && !is_page(&text) {
        return Ok(text);
    }
    Err(HttpErrorKind::Unexpected {
        expected,
        content_type,
    })
}

/// Whether a line of `text` begins with one of `starts`.
fn has_line(text: &[u8], starts: &[&str]) -> bool {
    starts.iter().any(|start| find_line(text, start).is_some())
}

/// Whether `text` is HTML, XML or a JSON object.
fn is_page(text: &[u8]) -> bool {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    matches!(text.trim_ascii_start().first(), Some(b'<' | b'{'))
}

/// Where the first line of `text` that begins with `start` is.
fn find_line(text: &[u8], start: &str) -> Option<usize> {
    memmem::find_iter(text, start).find(|&at| at == 0 || text[at - 1] == b'\n')
}

/// Whether `narinfo` is plainly about another item than `item`: a sign that responses do not
/// match their requests. False where `StorePath` cannot be read.
pub(super) fn is_about_another(narinfo: &[u8], item: &HashPart) -> bool {
    let Some(start) = find_line(narinfo, "StorePath:") else {
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

/// Fields of which a narinfo, or `nix-cache-info`, has one at least.
const NARINFO_FIELDS: [&str; 2] = ["StorePath:", "NarHash:"];
const CACHE_INFO_FIELDS: [&str; 3] = ["StoreDir:", "WantMassQuery:", "Priority:"];

/// What is kept of a `Content-Type`.
const CONTENT_TYPE_MAX_BYTES: usize = 64;

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
        let body = b"StorePath: x".to_vec();
        meaning_of(LookupResponse {
            head,
            body,
            redirected_to: None,
        })
    }

    fn meaning_of(response: LookupResponse) -> String {
        let target = RequestTarget::NarInfo(HashPart::parse(&"0".repeat(32)).unwrap());
        match interpret(target, response, 1000) {
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
        assert_eq!(meaning(200, |_| {}), "found 12");
        assert_eq!(meaning(202, |_| {}), "preparing 202");
        assert_eq!(meaning(404, |_| {}), "missing 404");
        assert_eq!(meaning(410, |_| {}), "missing 410");
        assert_eq!(meaning(404, |head| head.preparing = true), "preparing 404");
        assert_eq!(
            meaning(302, |head| head.location = Some("/x".into())),
            "redirect /x"
        );
        for status in [204, 206, 302, 304, 500] {
            let expected = format!("the server answered with status {status}");
            assert_eq!(meaning(status, |_| {}), expected);
        }
        let expected = "the server answered with status 403: access is not allowed";
        assert_eq!(meaning(403, |_| {}), expected);
    }

    #[test]
    fn texts_that_are_not_what_was_requested_are_no_answer() {
        for (text, content_type, expected) in [
            (
                "<html>\nStorePath: /gnu/store/x",
                Some("text/html; charset=utf-8"),
                "the response is not a narinfo but `text/html; charset=utf-8`, perhaps from the \
                 login page of a network",
            ),
            ("{}", None, "the response is not a narinfo"),
            ("Welcome", None, "the response is not a narinfo"),
            ("", None, "the response is not a narinfo"),
            ("URL: x\r\nStorePath: y", None, "found 20"),
        ] {
            let head = ResponseHead {
                status: 200,
                max_age: Some(9),
                content_type: content_type.map(Into::into),
                ..ResponseHead::default()
            };
            let body = text.into();
            let redirected_to = None;
            let response = LookupResponse {
                head,
                body,
                redirected_to,
            };
            assert_eq!(meaning_of(response), expected);
        }

        for (text, is_info) in [
            ("StoreDir: /gnu/store\nWantMassQuery: 0\n", true),
            ("Priority: 1", true),
            ("", true),
            ("Welcome", false),
            ("<html>\nPriority: 1", false),
        ] {
            let checked = check_text(RequestTarget::CacheInfo, text.into(), None);
            assert_eq!(checked.is_ok(), is_info, "{text}");
        }
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
