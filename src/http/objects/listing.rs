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

/// The page in the document `xml`, with the objects whose keys begin with `prefix`; `None` if it is no list.
pub(super) fn parse_page(xml: &str, prefix: &str) -> Option<ListPage> {
    if !xml.contains("<ListBucketResult") || !xml.trim_end().ends_with("</ListBucketResult>") {
        return None;
    }
    let mut page = ListPage::default();
    for content in elements(xml, "Contents") {
        let key = element(content, "Key")?;
        let size = element(content, "Size")?.parse().ok()?;
        let Some(key) = key.strip_prefix(prefix) else {
            continue;
        };
        page.objects.push(ListedObject {
            key: key.to_owned(),
            size,
            etag: element(content, "ETag"),
            modified: element(content, "LastModified").and_then(|time| unix_time(&time)),
        });
    }
    if element(xml, "IsTruncated").as_deref() == Some("true") {
        page.next = Some(element(xml, "NextContinuationToken")?);
    }
    Some(page)
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
