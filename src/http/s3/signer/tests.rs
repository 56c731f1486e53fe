//! What is signed, and what follows from responses.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::format::secret::Secret;
use crate::http::s3::key_source::AccessKeySource;

fn clock() -> Duration {
    Duration::from_secs(1_369_353_600)
}

fn signer(url: &str) -> BucketSigner {
    signer_until(url, None)
}

/// The same with a key that expires then.
fn signer_until(url: &str, expires: Option<u64>) -> BucketSigner {
    let server = ServerUrl::parse(url).unwrap();
    let location = server.bucket().unwrap().clone();
    let keys = AccessKeys::new(AccessKeySource::Fixed(AccessKey {
        id: "AKIAIOSFODNN7EXAMPLE".into(),
        secret: Secret::new("Sesame"),
        session_token: Some(Secret::new("Sesame-token")),
        expires,
    }));
    BucketSigner::new(server, location, Arc::new(keys), clock)
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn authorization(signer: &BucketSigner, text: &str) -> String {
    let signed = signer.fields("GET", &url(text));
    signed.fields[AUTHORIZATION].to_str().unwrap().to_owned()
}

fn judge(signer: &BucketSigner, status: u16, code: &str, date: Option<&str>) -> String {
    let body = format!("<Error><Code>{code}</Code><Region>eu-west-1</Region></Error>");
    let response = BucketResponse {
        status,
        date,
        region: None,
        body: body.as_bytes(),
    };
    let key = signer.keys.current();
    match signer.judge(signer.server.base(), key.as_ref(), response) {
        BucketVerdict::Ordinary => "ordinary".into(),
        BucketVerdict::Missing => "missing".into(),
        BucketVerdict::SignAgain(_) => "sign again".into(),
        BucketVerdict::Moved(url) => url.to_string(),
        BucketVerdict::Denied(kind) => format!("denied: {kind}"),
        BucketVerdict::Failed(kind) => format!("failed: {kind}"),
    }
}

#[test]
fn only_the_bucket_is_signed() {
    let signer = signer("s3://b/p?endpoint=http://h:1");
    for (text, is_covered) in [
        ("http://h:1/b/p/x.narinfo", true),
        ("http://h:1/b/p/nar/x", true),
        ("http://h:1/b/pq", false),
        ("http://h:1/c/p/x", false),
        ("http://h:2/b/p/x", false),
        ("https://h:1/b/p/x", false),
        ("http://i:1/b/p/x", false),
        ("http://h:1/b/p/nar/x?versionId=1", true),
        ("http://h:1/b/p/nar/x?X-Amz-Date=1&X-Amz-Signature=2", false),
        ("http://h:1/b/p/nar/x?AWSAccessKeyId=1&Signature=2", false),
    ] {
        assert_eq!(signer.covers(&url(text)), is_covered, "{text}");
    }
}

#[test]
fn a_bucket_at_amazon_is_signed_in_every_region() {
    let signer = signer("s3://b/p?region=us-east-1");
    for (text, is_covered) in [
        ("https://b.s3.us-east-1.amazonaws.com/p/x", true),
        ("https://b.s3.eu-west-1.amazonaws.com/p/x", true),
        ("https://c.s3.eu-west-1.amazonaws.com/p/x", false),
        ("https://b.s3.a.b.amazonaws.com/p/x", false),
        (
            "https://b.s3.eu-west-1.amazonaws.com.evil.example/p/x",
            false,
        ),
        ("https://b.s3.eu-west-1.amazonaws.com:444/p/x", false),
        ("http://b.s3.eu-west-1.amazonaws.com/p/x", false),
        ("https://b.s3.eu-west-1.amazonaws.com/q/x", false),
    ] {
        assert_eq!(signer.covers(&url(text)), is_covered, "{text}");
    }

    let moved = judge(&signer, 301, "PermanentRedirect", None);
    assert_eq!(moved, "https://b.s3.eu-west-1.amazonaws.com/p/");
    let there = authorization(&signer, "https://b.s3.eu-west-1.amazonaws.com/p/x");
    assert!(there.contains("/20130524/eu-west-1/s3/"), "{there}");
    let here = authorization(&signer, "https://b.s3.us-east-1.amazonaws.com/p/x");
    assert!(here.contains("/20130524/us-east-1/s3/"), "{here}");
}

#[test]
fn a_region_is_corrected_a_few_times() {
    let signer = signer("s3://b?endpoint=http://h");
    let again = judge(&signer, 400, "AuthorizationHeaderMalformed", None);
    assert_eq!(again, "sign again");
    let signed = authorization(&signer, "http://h/b/x");
    assert!(signed.contains("/20130524/eu-west-1/s3/"), "{signed}");

    for region in ["a", "b", "c", "d"] {
        signer.correct_region(region);
    }
    let failed = judge(&signer, 400, "AuthorizationHeaderMalformed", None);
    assert_eq!(
        failed,
        "failed: the bucket is not in the region of its URL: add `region=eu-west-1` to it"
    );
}

#[test]
fn a_clock_is_corrected() {
    let signer = signer("s3://b?endpoint=http://h");
    let date = Some("Fri, 24 May 2013 00:20:00 GMT");
    let before = signer.fields("GET", &url("http://h/b/x")).fields;
    assert_eq!(before[&DATE], "20130524T000000Z");
    assert_eq!(
        judge(&signer, 403, "RequestTimeTooSkewed", date),
        "sign again"
    );
    // Access keys are renewed by that clock too.
    assert_eq!(signer.now(), clock().as_secs() + 1200);
    let after = signer.fields("GET", &url("http://h/b/x")).fields;
    assert_eq!(after[&DATE], "20130524T002000Z");
    let without_date = judge(&signer, 403, "RequestTimeTooSkewed", None);
    assert!(without_date.contains("set the clock"), "{without_date}");
}

#[test]
fn denied_means_missing_only_after_a_request_was_allowed() {
    let signer = signer("s3://b?endpoint=http://h");
    let denied = judge(&signer, 403, "AccessDenied", None);
    // The key of these tests has a session token.
    let expected =
        "denied: access to the bucket is denied: the session token of the access key may";
    assert!(denied.starts_with(expected), "{denied}");
    assert_eq!(judge(&signer, 200, "", None), "ordinary");
    assert_eq!(judge(&signer, 403, "AccessDenied", None), "missing");
    let wrong = judge(&signer, 403, "SignatureDoesNotMatch", None);
    assert!(wrong.contains("refuses the signature"), "{wrong}");
}

/// It may have ended since then, which Ceph does not say.
#[test]
fn denied_means_missing_only_shortly_after_a_session_without_an_end_was_allowed() {
    static NOW: AtomicU64 = AtomicU64::new(1_369_353_600);
    let signer = BucketSigner {
        clock: || Duration::from_secs(NOW.load(Ordering::Relaxed)),
        ..signer("s3://b?endpoint=http://h")
    };
    for (status, code, later, expected) in [
        (200, "", 4, "missing"),
        (404, "NoSuchKey", 4, "missing"),
        (200, "", 5, "denied: "),
        (404, "", 5, "denied: "),
    ] {
        assert_eq!(judge(&signer, status, code, None), "ordinary");
        NOW.fetch_add(later, Ordering::Relaxed);
        let denied = judge(&signer, 403, "AccessDenied", None);
        assert!(denied.starts_with(expected), "{denied}");
    }
}

#[test]
fn denied_means_expired_after_the_end_of_a_session() {
    let now = clock().as_secs();
    for (expires, expected) in [(now, "failed: the session token"), (now + 1, "missing")] {
        let signer = signer_until("s3://b?endpoint=http://h", Some(expires));
        assert_eq!(judge(&signer, 200, "", None), "ordinary");
        let verdict = judge(&signer, 403, "AccessDenied", None);
        assert!(verdict.starts_with(expected), "{verdict}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let signer = signer("s3://b?endpoint=http://h");
    let fields = signer.fields("GET", &url("http://h/b/x")).fields;
    assert_eq!(fields[&SECURITY_TOKEN], "Sesame-token");
    let shown = format!("{signer:?}{fields:?}{:?}", signer.keys);
    assert!(!shown.contains("Sesame"), "{shown}");
}

#[test]
fn an_expired_token_is_that_of_the_request_and_not_the_current_one() {
    let bucket = ServerUrl::parse("s3://b?endpoint=http://h").unwrap();
    let location = bucket.bucket().unwrap().clone();
    let endpoint = url("http://metadata");
    let keys = Arc::new(AccessKeys::new(AccessKeySource::InstanceMetadata {
        endpoint,
    }));
    let signer = BucketSigner::new(bucket, location, Arc::clone(&keys), clock);
    let object = url("http://h/b/x");
    let expired = BucketResponse {
        status: 400,
        body: b"<Error><Code>ExpiredToken</Code></Error>",
        ..BucketResponse::default()
    };
    let sign_with = |id: &str| {
        let key = AccessKey {
            id: id.to_owned(),
            secret: Secret::new("Sesame"),
            session_token: None,
            expires: None,
        };
        keys.set(Ok(Some(key)), 0).unwrap();
        signer.fields("GET", &object).key.unwrap()
    };
    let (first, second) = (sign_with("one"), sign_with("two"));

    for (key, is_ready) in [(&first, true), (&second, false)] {
        let verdict = signer.judge(&object, Some(key), expired);
        assert!(
            matches!(verdict, BucketVerdict::SignAgain(_)),
            "{verdict:?}"
        );
        assert_eq!(keys.is_ready(0).unwrap(), is_ready, "{}", key.id);
    }
    let unsigned = signer.judge(&object, None, expired);
    assert!(matches!(unsigned, BucketVerdict::Failed(_)), "{unsigned:?}");
}
