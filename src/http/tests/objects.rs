//! Requests that write to a bucket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::format::secret::Secret;
use crate::format::server_url::ServerUrl;
use crate::http::credentials::ServerCredentials;
use crate::http::error::HttpErrorKind;
use crate::http::s3::key_source::{AccessKey, AccessKeySource};
use crate::http::s3::keys::AccessKeys;
use crate::http::testing::*;
use crate::http::*;

/// The bucket `b` of the object store at `url`.
fn bucket(url: &str) -> Bucket {
    let server = ServerUrl::parse(&format!("s3://b?endpoint={url}")).unwrap();
    let keys = AccessKeys::new(AccessKeySource::Fixed(AccessKey {
        id: "ID".into(),
        secret: Secret::new("secret"),
        session_token: None,
        expires: None,
    }));
    let location = server.bucket().unwrap().clone();
    let clock = || Duration::from_secs(1_795_780_805);
    let signer = BucketSigner::new(server.clone(), location, Arc::new(keys), clock);
    let mut credentials = ServerCredentials::new(server.clone());
    credentials.set_signer(signer);
    let mut options = quick();
    options.credentials.add(credentials);

    let client = Client::new(options).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    client
        .bucket(&server, Duration::from_secs(60), stop)
        .unwrap()
}

#[test]
fn requests_with_a_gate_of_their_own_do_not_wait_for_others() {
    let server = TestServer::start(|mut peer| {
        while let Some(path) = peer.request() {
            // Without an answer, as if the request was still being sent.
            if path.contains("large") || !peer.send(&response("200 OK", "", "")) {
                std::thread::park();
            }
        }
    });
    let bucket = Arc::new(bucket(&server.url()));
    let busy = Arc::clone(&bucket);
    std::thread::spawn(move || {
        let puts: Vec<_> = (0..40)
            .map(|number| put(&format!("large{number}")))
            .collect();
        busy.put_all(&puts)
    });
    while server.requests().len() < 16 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let written = bucket.with_own_gate().put_all(&[put("claim")]).unwrap();
    assert_eq!(written, [PutOutcome::Written(None)]);
    assert_eq!(server.requests().len(), 17, "the others still wait");
}

fn put(key: &str) -> ObjectPut {
    ObjectPut::bytes(key, Vec::new(), "text/plain")
}

#[test]
fn a_removal_is_not_sent_again_without_permission() {
    let server = TestServer::answering(|_| response("503 Slow Down", "", ""));
    let attempts = AtomicUsize::new(0);
    let permit = SendPermit::new(move || attempts.fetch_add(1, Ordering::Relaxed) < 2);
    let keys = ["a".to_owned()];
    let refused = bucket(&server.url()).remove_permitted(&keys, &permit);
    assert!(matches!(
        refused.unwrap_err().kind(),
        HttpErrorKind::Canceled
    ));
    assert_eq!(server.requests().len(), 2);
}
