//! What the bucket of the tests answers to lists, and to requests that change it.

use std::fmt::Write as _;
use std::path::Path;

use data_encoding::HEXLOWER;
use ring::digest;

use super::bucket::{BUCKET, BucketRules, compact, refusal};
use super::files_below;
use super::server::{Reply, Request};

/// Objects on one page of a list.
const PAGE: usize = 3;

/// The answer to `request`, which is allowed, for the object `key`; `None`: it reads an object.
pub(super) fn answer(
    directory: &Path,
    request: &Request,
    key: &str,
    rules: &BucketRules,
) -> Option<Reply> {
    let query = request.path.split_once('?').map_or("", |(_, query)| query);
    let file = directory.join(key);
    let writes = matches!(request.method.as_str(), "PUT" | "POST");
    if writes && request.field("content-length").is_none() {
        return Some(refusal("411 Length Required", "MissingContentLength"));
    }
    if query.contains("uploads=") || query.contains("uploadId=") {
        return Some(multipart(directory, &file, request, query, rules));
    }
    match request.method.as_str() {
        "GET" if query.contains("list-type=2") => {
            let all = parameter(query, "prefix").is_some_and(|prefix| prefix.is_empty());
            let listed = rules.listed.as_deref().filter(|_| all);
            Some(list(listed.unwrap_or(directory), query))
        }
        "PUT" | "DELETE" if rules.is_read_only => Some(refusal("403 Forbidden", "AccessDenied")),
        "PUT" => Some(put(&file, request, rules)),
        "DELETE" => {
            let _ = std::fs::remove_file(&file);
            Some(Reply::new("204 No Content", ""))
        }
        _ => None,
    }
}

fn put(file: &Path, request: &Request, rules: &BucketRules) -> Reply {
    let hash = HEXLOWER.encode(digest::digest(&digest::SHA256, &request.content).as_ref());
    if !request.has("x-amz-content-sha256", &hash) {
        return refusal("400 Bad Request", "XAmzContentSHA256Mismatch");
    }
    if rules
        .quota
        .is_some_and(|quota| request.content.len() > quota)
    {
        return refusal("403 Forbidden", "QuotaExceeded");
    }
    let before = std::fs::read(file).ok().map(|content| etag(&content));
    let is_absent = request.field("if-none-match") != Some("*") || before.is_none();
    let is_version = request
        .field("if-match")
        .is_none_or(|etag| before.as_deref() == Some(etag));
    match rules.conditions {
        Conditions::Unsupported
            if request
                .fields
                .iter()
                .any(|(name, _)| name.starts_with("if-")) =>
        {
            return refusal("501 Not Implemented", "NotImplemented");
        }
        Conditions::Honored if !(is_absent && is_version) => {
            return refusal("412 Precondition Failed", "PreconditionFailed");
        }
        _ => {}
    }

    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let temporary = file.with_extension(format!("{}-part", fastrand::u64(..)));
    std::fs::write(&temporary, &request.content).unwrap();
    std::fs::rename(&temporary, file).unwrap();
    Reply::new("200 OK", "").header(&format!("ETag: {}", etag(&request.content)))
}

/// Uploads are directories beside the bucket, with a file for each part.
fn multipart(
    directory: &Path,
    file: &Path,
    request: &Request,
    query: &str,
    rules: &BucketRules,
) -> Reply {
    let uploads = directory.with_extension("uploads");
    let Some(id) = parameter(query, "uploadId") else {
        let id = format!("{:x}", fastrand::u64(..));
        std::fs::create_dir_all(uploads.join(&id)).unwrap();
        let xml = format!(
            "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
        );
        return Reply::new("200 OK", xml);
    };
    let upload = uploads.join(&id);
    if !upload.exists() {
        return refusal("404 Not Found", "NoSuchUpload");
    }
    let mut parts: Vec<_> = files_below(&upload, "");
    parts.sort();
    match request.method.as_str() {
        "PUT" => put_part(&upload, request, query, rules),
        "GET" => {
            let mut xml = "<ListPartsResult><IsTruncated>false</IsTruncated>".to_owned();
            for part in parts {
                let name = part.file_name().unwrap().to_str().unwrap().to_owned();
                let content = std::fs::read(&part).unwrap();
                write!(
                    xml,
                    "<Part><PartNumber>{}</PartNumber><ETag>{}</ETag><Size>{}</Size></Part>",
                    name.trim_start_matches('0'),
                    etag(&content).replace('"', "&quot;"),
                    content.len()
                )
                .unwrap();
            }
            Reply::new("200 OK", format!("{xml}</ListPartsResult>"))
        }
        "POST" => {
            let contents = parts.iter().map(|part| std::fs::read(part).unwrap());
            let contents: Vec<Vec<u8>> = contents.collect();
            let named = contents
                .iter()
                .filter(|content| request.body.contains(&etag(content)));
            assert_eq!(named.count(), contents.len());
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, contents.concat()).unwrap();
            std::fs::remove_dir_all(&upload).unwrap();
            let xml = "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>";
            Reply::new("200 OK", xml)
        }
        _ => {
            // A part that is put at the same time must not appear in what is being removed.
            let removed = uploads.with_extension(format!("removed-{id}"));
            std::fs::rename(&upload, &removed).unwrap();
            std::fs::remove_dir_all(&removed).unwrap();
            Reply::new("204 No Content", "")
        }
    }
}

/// Writes a part of an upload, unless it has a fault.
fn put_part(upload: &Path, request: &Request, query: &str, rules: &BucketRules) -> Reply {
    let number: u32 = parameter(query, "partNumber").unwrap().parse().unwrap();
    let mut faults = rules.part_faults.lock().unwrap();
    let fault = faults.get(&number).copied();
    if fault == Some(PartFault::SlowDownOnce) {
        faults.remove(&number);
    }
    drop(faults);
    match fault {
        Some(PartFault::Unanswered) => {
            rules.unanswered_parts.lock().unwrap().insert(number);
            let mut silent = Reply::new("200 OK", "");
            silent.is_silent = true;
            return silent;
        }
        Some(PartFault::Refused) => return refusal("403 Forbidden", "QuotaExceeded"),
        Some(PartFault::SlowDownOnce) => return refusal("503 Slow Down", "SlowDown"),
        None => {}
    }
    let hash = HEXLOWER.encode(digest::digest(&digest::SHA256, &request.content).as_ref());
    assert!(request.has("x-amz-content-sha256", &hash));
    let uploads = upload.parent().unwrap();
    let temporary = uploads.with_extension(format!("part-{}", fastrand::u64(..)));
    std::fs::write(&temporary, &request.content).unwrap();
    if std::fs::rename(&temporary, upload.join(format!("{number:05}"))).is_err() {
        // Aborted meanwhile.
        std::fs::remove_file(&temporary).unwrap();
        return refusal("404 Not Found", "NoSuchUpload");
    }
    Reply::new("200 OK", "").header(&format!("ETag: {}", etag(&request.content)))
}

/// What the bucket does with a part of an upload that it does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartFault {
    /// The connection hangs.
    Unanswered,
    /// There is no space.
    Refused,
    /// The store is overloaded, once.
    SlowDownOnce,
}

/// What the bucket does with `If-Match` and `If-None-Match`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conditions {
    /// As AWS and Ceph.
    Honored,
    /// As Garage.
    Ignored,
    /// With an error.
    Unsupported,
}

pub(super) fn etag(content: &[u8]) -> String {
    let hash = HEXLOWER.encode(digest::digest(&digest::SHA256, content).as_ref());
    format!("\"{}\"", &hash[..32])
}

/// When `file` was written, such as `2026-11-27T12:00:05.000Z`.
fn iso_time(file: &Path) -> String {
    let modified = std::fs::metadata(file).unwrap().modified().unwrap();
    let time = compact(modified);
    let [day, clock] = [&time[..8], &time[9..15]];
    let (date, hour) = (
        [&day[..4], &day[4..6], &day[6..]],
        [&clock[..2], &clock[2..4], &clock[4..]],
    );
    format!("{}T{}.000Z", date.join("-"), hour.join(":"))
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let value = query
        .split('&')
        .find_map(|field| field.strip_prefix(&format!("{name}=")))?;
    let value = percent_encoding::percent_decode_str(value)
        .decode_utf8()
        .unwrap();
    Some(value.into_owned())
}

fn list(directory: &Path, query: &str) -> Reply {
    let prefix = parameter(query, "prefix").unwrap_or_default();
    let after = parameter(query, "continuation-token").unwrap_or_default();
    let names = files_below(directory, "").into_iter().map(|file| {
        let name = file
            .strip_prefix(directory)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        (name, file)
    });
    let mut names: Vec<_> = names
        .filter(|(name, _)| name.starts_with(&prefix) && *name > after && !name.ends_with("-part"))
        .collect();
    names.sort();
    let is_truncated = names.len() > PAGE;
    names.truncate(PAGE);

    let mut xml = format!(
        "<?xml version=\"1.0\"?><ListBucketResult><Name>{BUCKET}</Name>\
         <IsTruncated>{is_truncated}</IsTruncated>"
    );
    if let Some((last, _)) = names.last().filter(|_| is_truncated) {
        let last = last.replace('&', "&amp;");
        write!(xml, "<NextContinuationToken>{last}</NextContinuationToken>").unwrap();
    }
    for (name, file) in names {
        let (name, content) = (name.replace('&', "&amp;"), std::fs::read(&file).unwrap());
        write!(
            xml,
            "<Contents><Key>{name}</Key><LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
            iso_time(&file),
            etag(&content).replace('"', "&quot;"),
            content.len()
        )
        .unwrap();
    }
    Reply::new("200 OK", format!("{xml}</ListBucketResult>"))
}
