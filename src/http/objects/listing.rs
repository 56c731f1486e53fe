//! Lists of objects, as `ListObjectsV2` answers. Pure.

use crate::http::s3::key_response::unix_time;
use crate::http::s3::xml::{element, elements};

/// An object of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedObject {
    /// Its key, without the prefix of the server.
    pub(crate) key: String,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// The version of its content.
    pub(crate) etag: Option<String>,
    /// When it was written by the clock of the object store, in seconds since 1970.
    pub(crate) modified: Option<u64>,
}

/// One page of a list.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ListPage {
    pub(super) objects: Vec<ListedObject>,
    /// What leads to the next page, if there is one.
    pub(super) next: Option<String>,
}

/// The longest key that S3 allows. No version is longer.
const KEY_BYTES_MAX: usize = 1024;

/// The page in the document `xml`, with the objects whose keys begin with `prefix`; `None` if it is no list.
pub(super) fn parse_page(xml: &str, prefix: &str) -> Option<ListPage> {
    if !xml.contains("<ListBucketResult") || !xml.trim_end().ends_with("</ListBucketResult>") {
        return None;
    }
    let mut page = ListPage::default();
    for content in elements(xml, "Contents") {
        let key = element(content, "Key").filter(|key| key.len() <= KEY_BYTES_MAX)?;
        let size = element(content, "Size")?.parse().ok()?;
        let Some(key) = key.strip_prefix(prefix) else {
            continue;
        };
        page.objects.push(ListedObject {
            key: key.to_owned(),
            size,
            etag: element(content, "ETag").filter(|etag| etag.len() <= KEY_BYTES_MAX),
            modified: element(content, "LastModified").and_then(|time| unix_time(&time)),
        });
    }
    if element(xml, "IsTruncated").as_deref() == Some("true") {
        page.next = Some(element(xml, "NextContinuationToken")?);
    }
    Some(page)
}

/// What is read of any text prints to a list that says the same.
#[cfg(fuzzing)]
pub(crate) fn check_list(text: &str) {
    use std::fmt::Write as _;

    let Some(page) = parse_page(text, "") else {
        return;
    };
    let escaped = |text: &str| {
        text.chars().fold(String::new(), |mut escaped, character| {
            let _ = write!(escaped, "&#x{:x};", u32::from(character));
            escaped
        })
    };
    let mut printed = "<ListBucketResult>".to_owned();
    for object in &page.objects {
        let (key, size) = (escaped(&object.key), object.size);
        let _ = write!(printed, "<Contents><Key>{key}</Key><Size>{size}</Size>");
        if let Some(etag) = &object.etag {
            let _ = write!(printed, "<ETag>{}</ETag>", escaped(etag));
        }
        printed.push_str("</Contents>");
    }
    if let Some(next) = &page.next {
        let (yes, next) = ("<IsTruncated>true</IsTruncated>", escaped(next));
        let _ = write!(
            printed,
            "{yes}<NextContinuationToken>{next}</NextContinuationToken>"
        );
    }
    printed.push_str("</ListBucketResult>");

    let again = parse_page(&printed, "").expect("a list");
    assert_eq!(again.next, page.next);
    let times = page.objects.into_iter().map(|object| ListedObject {
        modified: None,
        ..object
    });
    assert_eq!(again.objects, times.collect::<Vec<_>>());
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3\"><Name>b</Name>\
        <Contents><Key>p/nar/a&amp;b</Key><LastModified>2026-11-27T12:00:05.000Z</LastModified>\
        <ETag>&quot;x&quot;</ETag><Size>7</Size></Contents>\
        <Contents><Key>q</Key><Size>0</Size></Contents>";

    #[test]
    fn a_page_has_objects_and_leads_to_the_next_one() {
        let end =
            "<IsTruncated>true</IsTruncated><NextContinuationToken>a=</NextContinuationToken>";
        let page = parse_page(&format!("{PAGE}{end}</ListBucketResult>"), "p/").unwrap();
        let object = ListedObject {
            key: "nar/a&b".to_owned(),
            size: 7,
            etag: Some("\"x\"".to_owned()),
            modified: Some(1_795_780_805),
        };
        assert_eq!(page.objects, [object]);
        assert_eq!(page.next.as_deref(), Some("a="));
        let all = parse_page(&format!("{PAGE}</ListBucketResult>"), "").unwrap();
        assert_eq!((all.objects.len(), all.next), (2, None));
    }

    #[test]
    fn longer_keys_than_object_stores_have_are_refused_and_such_versions_not_kept() {
        let page = |key: usize, etag: usize| {
            let (key, etag) = ("k".repeat(key), "e".repeat(etag));
            let object = format!("<Key>{key}</Key><Size>1</Size><ETag>{etag}</ETag>");
            let contents = format!("<Contents>{object}</Contents>");
            parse_page(
                &format!("<ListBucketResult>{contents}</ListBucketResult>"),
                "",
            )
        };
        assert!(page(1024, 1024).unwrap().objects[0].etag.is_some());
        assert_eq!(page(1024, 1025).unwrap().objects[0].etag, None);
        assert_eq!(page(1025, 1), None);
    }

    #[test]
    fn what_is_not_a_list_is_refused() {
        for text in [
            "<html>Login</html>",
            PAGE,
            "<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
            "<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
            "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        ] {
            assert_eq!(parse_page(text, ""), None, "{text}");
        }
    }
}
