//! What an HTTP answer says about the question. Pure.

use memchr::memmem;

use super::error::HttpErrorKind;
use super::events::NarInfoAnswer;
use super::wire::Response;
use crate::format::store_path::{HASH_PART_LEN, HashPart};

/// What to make of an answer.
#[derive(Debug)]
pub(super) enum Verdict {
    Answer(NarInfoAnswer),
    /// The answer is at this address, which may be relative.
    Redirect(String),
    Failed(HttpErrorKind),
}

pub(super) fn judge(response: Response) -> Verdict {
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
        (202, _) => Verdict::Answer(NarInfoAnswer::Baking { status, max_age }),
        (404, _) if head.baking => Verdict::Answer(NarInfoAnswer::Baking { status, max_age }),
        (404 | 410, _) => Verdict::Answer(NarInfoAnswer::Missing { status, max_age }),
        (301 | 302 | 303 | 307 | 308, Some(location)) => Verdict::Redirect(location),
        _ => Verdict::Failed(HttpErrorKind::Status {
            status,
            retry_after: head.retry_after,
        }),
    }
}

/// Whether `narinfo` is plainly about another item than `item`: a sign that answers are out of
/// step with questions. What has no readable `StorePath` is not judged.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::Head;

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
            Verdict::Answer(NarInfoAnswer::Baking {
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
        assert_eq!(encoded, "the server used the content encoding `br` unasked");
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
