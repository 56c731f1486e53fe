//! What an HTTP answer says about the question. Pure.

use std::time::Duration;

use memchr::memmem;

use super::events::NarInfoAnswer;
use crate::format::store_path::{HASH_PART_LEN, HashPart};
use crate::http::error::HttpErrorKind;

/// One whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::http) struct Response {
    pub(in crate::http) head: Head,
    /// The body of a 200; empty for other statuses.
    pub(in crate::http) body: Vec<u8>,
}

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

/// What to make of an answer.
#[derive(Debug)]
pub(in crate::http) enum Verdict {
    Answer(NarInfoAnswer),
    /// The answer is at this address, which may be relative.
    Redirect(String),
    Failed(HttpErrorKind),
}

pub(in crate::http) fn judge(response: Response) -> Verdict {
    let Response { head, body } = response;
    let (status, max_age) = (head.status, head.max_age);
    match (status, head.location) {
        (200, _) => match head.encoding {
            Some(encoding) => Verdict::Failed(HttpErrorKind::ContentEncoding(encoding)),
            None => Verdict::Answer(NarInfoAnswer::Found {
                text: body,
                max_age,
            }),
        },
        (202, _) => Verdict::Answer(NarInfoAnswer::Preparing { status, max_age }),
        (404, _) if head.baking => Verdict::Answer(NarInfoAnswer::Preparing { status, max_age }),
        (404 | 410, _) => Verdict::Answer(NarInfoAnswer::Missing { status, max_age }),
        (301 | 302 | 303 | 307 | 308, Some(location)) => Verdict::Redirect(location),
        _ => Verdict::Failed(HttpErrorKind::Status {
            status,
            retry_after: head.retry_after,
        }),
    }
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
        head.retry_after =
            retry_after.and_then(|value| crate::http::retry::parse_retry_after(value, date));
        head
    }
}

pub(in crate::http) fn max_age(value: &str) -> Option<u64> {
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

/// Whether `narinfo` is plainly about another item than `item`: a sign that answers are out of
/// step with questions. What has no readable `StorePath` is not judged.
pub(in crate::http) fn is_about_another(narinfo: &[u8], item: &HashPart) -> bool {
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

/// The largest head.
pub(in crate::http) const HEAD_MAX_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, change: impl FnOnce(&mut Head)) -> String {
        let mut head = Head {
            status,
            max_age: Some(9),
            ..Head::default()
        };
        change(&mut head);
        match judge(Response {
            head,
            body: b"x".to_vec(),
        }) {
            Verdict::Answer(NarInfoAnswer::Found {
                text,
                max_age: Some(9),
            }) => {
                format!("found {}", text.len())
            }
            Verdict::Answer(NarInfoAnswer::Missing {
                status,
                max_age: Some(9),
            }) => {
                format!("missing {status}")
            }
            Verdict::Answer(NarInfoAnswer::Preparing {
                status,
                max_age: Some(9),
            }) => {
                format!("baking {status}")
            }
            Verdict::Redirect(location) => format!("redirect {location}"),
            Verdict::Failed(kind) => kind.to_string(),
            Verdict::Answer(other) => format!("{other:?}"),
        }
    }

    #[test]
    fn verdicts() {
        assert_eq!(verdict(200, |_| {}), "found 1");
        assert_eq!(verdict(202, |_| {}), "baking 202");
        assert_eq!(verdict(404, |_| {}), "missing 404");
        assert_eq!(verdict(410, |_| {}), "missing 410");
        assert_eq!(verdict(404, |head| head.baking = true), "baking 404");
        assert_eq!(
            verdict(302, |head| head.location = Some("/x".into())),
            "redirect /x"
        );
        for status in [204, 206, 302, 304, 403, 500] {
            let expected = format!("the server answered with status {status}");
            assert_eq!(verdict(status, |_| {}), expected);
        }
        let encoded = verdict(200, |head| head.encoding = Some("br".into()));
        assert_eq!(
            encoded,
            "the server used the content encoding `br`, which was not requested"
        );
    }

    #[test]
    fn another_item() {
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
