//! An object store with one bucket, which verifies signatures by itself: it shares no code with the
//! program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use ring::{digest, hmac};

use super::bucket_writes::{self, Conditions, PartFault};
use super::server::{Reply, Request, Server};

/// The access key that the bucket accepts.
pub(crate) const KEY_ID: &str = "AKIDSUBST4711";
/// Its secret, which nothing may show.
pub(crate) const SECRET_KEY: &str = "Sesame-4711/+Key";
/// The name of the bucket.
pub(crate) const BUCKET: &str = "cache";

/// What the bucket accepts.
#[derive(Debug, Clone)]
pub(crate) struct BucketRules {
    /// The session token that belongs to the access key.
    pub(crate) session_token: Option<&'static str>,
    /// The region to sign for.
    pub(crate) region: &'static str,
    /// How far the clock is ahead.
    pub(crate) ahead: Duration,
    /// Whether everybody may read what is there, though not see what is not.
    pub(crate) is_public: bool,
    /// Whether every refusal is `AccessDenied`.
    pub(crate) is_terse: bool,
    /// How many requests are refused with 503 first.
    pub(crate) slow_downs: usize,
    /// How many connections end in the middle of a nar that is requested from its beginning.
    pub(crate) cut_nars: usize,
    /// Whether nothing may be written.
    pub(crate) is_read_only: bool,
    /// What is done with conditions of requests that write.
    pub(crate) conditions: Conditions,
    /// The largest object for which there is space.
    pub(crate) quota: Option<usize>,
    /// The parts of uploads that are not taken, by number.
    pub(crate) part_faults: Arc<Mutex<BTreeMap<u32, PartFault>>>,
    /// The parts that are [`PartFault::Unanswered`] and have come whole.
    pub(crate) unanswered_parts: Arc<Mutex<BTreeSet<u32>>>,
    /// An earlier or later state, of which a list of all objects is made: it takes many requests, during which others write.
    pub(crate) listed: Option<PathBuf>,
    /// Session tokens that expire, instead of the one above.
    pub(crate) tokens: Option<Arc<ExpiringTokens>>,
}

/// Session tokens of which each is good for a few requests.
#[derive(Debug, Default)]
pub(crate) struct ExpiringTokens {
    allowed: AtomicUsize,
}

impl ExpiringTokens {
    /// Requests that one token is good for.
    const REQUESTS: usize = 4;

    /// The number of the current token.
    pub(crate) fn current(&self) -> usize {
        self.allowed.load(Ordering::Relaxed) / Self::REQUESTS
    }

    fn allows(&self, token: Option<&str>) -> bool {
        let number = token.and_then(|token| token.rsplit('-').next()?.parse().ok());
        let is_allowed = number.is_some_and(|number: usize| number >= self.current());
        if is_allowed {
            self.allowed.fetch_add(1, Ordering::Relaxed);
        }
        is_allowed
    }
}

impl Default for BucketRules {
    fn default() -> Self {
        Self {
            session_token: None,
            region: "us-east-1",
            ahead: Duration::ZERO,
            is_public: false,
            is_terse: false,
            slow_downs: 0,
            cut_nars: 0,
            is_read_only: false,
            conditions: Conditions::Honored,
            quota: None,
            part_faults: Arc::default(),
            unanswered_parts: Arc::default(),
            listed: None,
            tokens: None,
        }
    }
}

/// Serves `directory` as the bucket, to requests that keep to the `rules`.
pub(crate) fn start(directory: &Path, rules: BucketRules) -> Server {
    let directory = directory.to_owned();
    let slow_downs = AtomicUsize::new(rules.slow_downs);
    let cut_nars = AtomicUsize::new(rules.cut_nars);
    Server::start(move |request| {
        if takes_one(&slow_downs) {
            return refusal("503 Slow Down", "SlowDown");
        }
        // A proxy gets the whole URL.
        let mut request = request.clone();
        if let Some(rest) = request.path.strip_prefix("http://") {
            request.path = rest[rest.find('/').unwrap()..].to_owned();
        }
        match check(&request, &rules) {
            Err((status, code)) => {
                let code = if rules.is_terse { "AccessDenied" } else { code };
                let date = httpdate::fmt_http_date(now(&rules));
                refusal(status, code)
                    .header(&format!("Date: {date}"))
                    .header(&format!("x-amz-bucket-region: {}", rules.region))
            }
            Ok(()) => {
                let reply = object(&directory, &request, &rules);
                if reply.is_ok() && is_nar(&request) && takes_one(&cut_nars) {
                    let middle = reply.body.len() / 2;
                    return reply.cut_at(middle);
                }
                reply
            }
        }
    })
}

/// Whether one was left of `count`.
fn takes_one(count: &AtomicUsize) -> bool {
    let relaxed = Ordering::Relaxed;
    count
        .fetch_update(relaxed, relaxed, |left| left.checked_sub(1))
        .is_ok()
}

fn is_nar(request: &Request) -> bool {
    request.method == "GET" && (request.path.contains("/nar/") || request.path.ends_with(".nar"))
}

fn object(directory: &Path, request: &Request, rules: &BucketRules) -> Reply {
    let mut request = request.clone();
    let path = request.path.split('?').next().unwrap_or_default();
    let host = request.field("host").unwrap_or_default();
    let before = match host.starts_with(&format!("{BUCKET}.")) {
        true => "/".to_owned(),
        false => format!("/{BUCKET}/"),
    };
    let Some(key) = path.strip_prefix(&before) else {
        return refusal("404 Not Found", "NoSuchBucket");
    };
    let key: Vec<u8> = percent_encoding::percent_decode_str(key).collect();
    let key = String::from_utf8(key).unwrap();
    if let Some(reply) = bucket_writes::answer(directory, &request, &key, rules) {
        return reply;
    }
    request.path = format!("/{key}");

    let content = std::fs::read(directory.join(&key)).unwrap_or_default();
    let etag = bucket_writes::etag(&content);
    let reply = Reply::version_or_range(directory, &request, &etag);
    if reply.is_found() {
        reply
    } else if rules.is_public {
        refusal("403 Forbidden", "AccessDenied")
    } else {
        refusal("404 Not Found", "NoSuchKey")
    }
}

pub(crate) fn refusal(status: &'static str, code: &str) -> Reply {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    Reply::new(status, body).header("Content-Type: application/xml")
}

#[expect(clippy::disallowed_methods, reason = "the clock of the object store")]
fn now(rules: &BucketRules) -> SystemTime {
    SystemTime::now() + rules.ahead
}

type Refusal = (&'static str, &'static str);

/// Verifies the signature of a request.
fn check(request: &Request, rules: &BucketRules) -> Result<(), Refusal> {
    let field = |name: &str| request.field(name);
    let Some(authorization) = field("authorization") else {
        let denied = ("403 Forbidden", "AccessDenied");
        return if rules.is_public { Ok(()) } else { Err(denied) };
    };
    let part = |name: &str| {
        let (_, rest) = authorization.split_once(name).unwrap();
        rest.split(',').next().unwrap()
    };
    let (credential, signed, signature) = (
        part("Credential="),
        part("SignedHeaders="),
        part("Signature="),
    );
    let mut scope = credential.splitn(2, '/');
    let (id, scope) = (scope.next().unwrap(), scope.next().unwrap());
    let date = field("x-amz-date").unwrap();
    assert_eq!(scope.split('/').next().unwrap(), &date[..8]);

    if id != KEY_ID {
        return Err(("403 Forbidden", "InvalidAccessKeyId"));
    }
    let token = field("x-amz-security-token");
    let is_valid = match &rules.tokens {
        Some(tokens) => tokens.allows(token),
        None => token == rules.session_token,
    };
    if !is_valid {
        return Err(("400 Bad Request", "ExpiredToken"));
    }
    if scope.split('/').nth(1) != Some(rules.region) {
        return Err(("400 Bad Request", "AuthorizationHeaderMalformed"));
    }
    let minutes_15 = Duration::from_secs(900);
    let (earliest, latest) = (now(rules) - minutes_15, now(rules) + minutes_15);
    if *date < *compact(earliest) || *date > *compact(latest) {
        return Err(("403 Forbidden", "RequestTimeTooSkewed"));
    }

    let names: Vec<&str> = signed.split(';').collect();
    assert!(names.contains(&"host") && names.contains(&"x-amz-date"));
    // As Ceph requires.
    if field("content-type").is_some() && !names.contains(&"content-type") {
        return Err(("403 Forbidden", "AccessDenied"));
    }
    let all = request.fields.iter().map(|(name, _)| name.as_str());
    let mut amz = all.filter(|name| name.starts_with("x-amz-"));
    assert!(
        amz.all(|name| names.contains(&name)),
        "a field is not signed"
    );
    if signature == expected_signature(request, scope, &names, date) {
        Ok(())
    } else {
        Err(("403 Forbidden", "SignatureDoesNotMatch"))
    }
}

fn expected_signature(request: &Request, scope: &str, names: &[&str], date: &str) -> String {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let fields: String = names
        .iter()
        .map(|name| format!("{name}:{}\n", request.field(name).unwrap_or_default()))
        .collect();
    let body = request.field("x-amz-content-sha256").unwrap();
    let method = &request.method;
    let canonical = format!(
        "{method}\n{path}\n{query}\n{fields}\n{}\n{body}",
        names.join(";")
    );

    let hash = HEXLOWER.encode(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hash}");
    let mut key = format!("AWS4{SECRET_KEY}").into_bytes();
    for part in scope.split('/').chain([text.as_str()]) {
        let signing = hmac::Key::new(hmac::HMAC_SHA256, &key);
        key = hmac::sign(&signing, part.as_bytes()).as_ref().to_vec();
    }
    HEXLOWER.encode(&key)
}

/// A time such as `20130524T000000Z`.
pub(super) fn compact(time: SystemTime) -> String {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let text = httpdate::fmt_http_date(time);
    let words: Vec<&str> = text.split(' ').collect();
    let month = MONTHS.find(words[2]).unwrap() / 3 + 1;
    let clock = words[4].replace(':', "");
    format!("{}{month:02}{}T{clock}Z", words[3], words[1])
}
