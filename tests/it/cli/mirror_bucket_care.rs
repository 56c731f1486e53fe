//! `subst mirror verify` and `subst mirror gc` with a bucket: the same as with a directory, in requests.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::mirror_buckets::{contents, mirror, mirror_command, published, start, url};
use crate::support::bucket::{BUCKET, BucketRules, KEY_ID, SECRET_KEY, refusal};
use crate::support::publisher::{Publisher, command, name};
use crate::support::sandbox::{Run, run};
use crate::support::{Reply, Sandbox, Server, files_below};

/// Runs `subst mirror` with these words for the bucket.
fn care(sandbox: &Sandbox, urls: &str, words: &[&str], server: &Server) -> Run {
    let mut command = command(sandbox, urls, &["mirror", words[0]]);
    command
        .args(&words[1..])
        .args(["--to", &url(server, BUCKET)])
        .env("AWS_ACCESS_KEY_ID", KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    run(command)
}

/// A bucket with a mirror of c, which refers to b, which refers to a.
fn mirrored(sandbox: &Sandbox, rules: BucketRules) -> (Publisher, String, Server) {
    let (publisher, last) = published(sandbox);
    let server = start(sandbox, rules);
    let to = url(&server, BUCKET);
    mirror(sandbox, &publisher, &to, &["--closure", &last]).exits(0);
    (publisher, last, server)
}

fn list(sandbox: &Sandbox, digit: char) -> String {
    let file = sandbox.path("list");
    std::fs::write(&file, format!("/gnu/store/{}\n", name(digit))).unwrap();
    file.to_str().unwrap().to_owned()
}

fn names(sandbox: &Sandbox) -> Vec<String> {
    contents(&sandbox.path("bucket")).into_keys().collect()
}

/// The files whose removal was requested, in order.
fn removed(server: &Server) -> Vec<String> {
    let requests = server.requests().into_iter();
    let removals = requests.filter(|it| it.method == "DELETE" && !it.path.contains("/writers/"));
    let names = removals.map(|request| request.path.rsplit('/').next().unwrap().to_owned());
    names.collect()
}

fn tombstones(sandbox: &Sandbox) -> String {
    std::fs::read_to_string(sandbox.path("bucket/subst/tombstones")).unwrap_or_default()
}

#[test]
fn what_is_missing_or_wrong_in_a_bucket_is_found_and_fetched_again() {
    let sandbox = Sandbox::new();
    let (publisher, _, server) = mirrored(&sandbox, BucketRules::default());
    let whole = contents(&sandbox.path("bucket"));
    let writes = |server: &Server| {
        let requests = server.requests().into_iter();
        requests.filter(|it| it.method != "GET").count()
    };
    let before = writes(&server);
    care(&sandbox, "", &["verify", "--deep"], &server)
        .exits(0)
        .prints("");
    assert_eq!(writes(&server), before, "it only reads");

    let size = whole["b.nar"].len();
    std::fs::write(sandbox.path("bucket/b.nar"), vec![0; size]).unwrap();
    std::fs::remove_file(sandbox.path("bucket/a.nar")).unwrap();
    let found = care(&sandbox, "", &["verify"], &server).exits(3);
    assert!(found.stdout.contains("a.nar") && !found.stdout.contains("b.nar"));
    let found = care(&sandbox, "", &["verify", "--deep"], &server).exits(3);
    assert!(found.stdout.contains("b.nar"), "{}", found.stdout);

    let words = ["verify", "--deep", "--repair"];
    care(&sandbox, &publisher.url(), &words, &server).exits(0);
    assert_eq!(contents(&sandbox.path("bucket")), whole);
}

/// Runs these words for a bucket that others change while it is listed: `change` gets the directory of what is listed, and
/// that of the bucket.
fn care_during_change(words: &[&str], change: impl Fn(&Path, &Path)) -> Run {
    let sandbox = Sandbox::new();
    mirrored(&sandbox, BucketRules::default());
    let (bucket, listed) = (sandbox.path("bucket"), sandbox.path("listed"));
    for file in files_below(&bucket, "") {
        let copy = listed.join(file.strip_prefix(&bucket).unwrap());
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(&file, copy).unwrap();
    }
    change(&listed, &bucket);
    let rules = BucketRules {
        listed: Some(listed),
        ..BucketRules::default()
    };
    let server = start(&sandbox, rules);
    care(&sandbox, "", words, &server)
}

#[test]
fn what_others_write_or_remove_while_a_bucket_is_listed_is_no_fault() {
    let narinfo = |digit| format!("{}.narinfo", &name(digit)[..32]);
    let remove = |file: PathBuf| std::fs::remove_file(file).unwrap();
    let (is_collected, is_copied) = (
        |_: &Path, bucket: &Path| {
            remove(bucket.join(narinfo('c')));
            remove(bucket.join("c.nar"));
        },
        |listed: &Path, _: &Path| {
            remove(listed.join("nix-cache-info"));
            remove(listed.join("a.nar"));
            remove(listed.join(narinfo('b')));
            std::fs::write(listed.join("b.nar"), "another size").unwrap();
        },
    );
    for words in [&["verify"][..], &["verify", "--deep"]] {
        let collected = care_during_change(words, is_collected);
        collected.exits(0).says("2 items and 2 nars");
        care_during_change(words, is_copied).exits(0).prints("");
    }
    let words = ["gc", "--keep-days", "1", "--dry-run"];
    care_during_change(&words, is_collected).exits(0);

    let hole = care_during_change(&["verify", "--deep"], |listed, bucket| {
        remove(bucket.join("c.nar"));
        remove(bucket.join(narinfo('b')));
        remove(listed.join(narinfo('b')));
    });
    hole.exits(3).says("2 missing");
}

#[test]
fn all_items_of_a_bucket_are_copied() {
    let sandbox = Sandbox::new();
    let (_, _, server) = mirrored(&sandbox, BucketRules::default());
    std::fs::write(sandbox.path("bucket/other.narinfo"), "no narinfo").unwrap();
    let to = sandbox.path("copy");
    let from = url(&server, BUCKET);
    let mut command = command(&sandbox, &from, &["mirror", "--all"]);
    command
        .arg("--to")
        .arg(&to)
        .env("AWS_ACCESS_KEY_ID", KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    run(command).exits(0).says("3 items copied");
    let mut whole = contents(&sandbox.path("bucket"));
    whole.remove("other.narinfo");
    assert_eq!(contents(&to), whole);
}

#[test]
fn narinfos_go_before_those_of_their_references_and_nars_after_their_grace() {
    let sandbox = Sandbox::new();
    let (publisher, last, server) = mirrored(&sandbox, BucketRules::default());
    let keep = list(&sandbox, 'a');
    let dry = care(
        &sandbox,
        "",
        &["gc", "--keep-list", &keep, "--dry-run"],
        &server,
    );
    dry.exits(0).says("2 items and 0 nars would be removed");
    assert_eq!(removed(&server).len(), 0);

    care(&sandbox, "", &["gc", "--keep-list", &keep], &server)
        .exits(0)
        .says("2 nars stay for clients");
    let narinfo = |digit: char| format!("{}.narinfo", &name(digit)[..32]);
    assert_eq!(removed(&server), [narinfo('c'), narinfo('b')]);
    assert_eq!(names(&sandbox), ["a.nar", &narinfo('a'), "b.nar", "c.nar"]);
    assert_eq!(tombstones(&sandbox).lines().count(), 2);

    // A copy needs no nar, and cancels the tombstones.
    let to = url(&server, BUCKET);
    mirror(&sandbox, &publisher, &to, &["--closure", &last])
        .exits(0)
        .says("0 B of nars");
    assert_eq!(tombstones(&sandbox), "");

    let words = ["gc", "--keep-list", &keep, "--grace", "0"];
    care(&sandbox, "", &words, &server).exits(0);
    assert_eq!(names(&sandbox), ["a.nar", &narinfo('a')]);
    assert_eq!(tombstones(&sandbox), "");
}

#[test]
fn a_collection_that_may_not_remove_names_the_right() {
    let sandbox = Sandbox::new();
    let (_, _, server) = mirrored(&sandbox, BucketRules::default());
    drop(server);
    let read_only = BucketRules {
        is_read_only: true,
        ..BucketRules::default()
    };
    let server = start(&sandbox, read_only);
    let before = names(&sandbox);
    let keep = list(&sandbox, 'a');
    let refused = care(&sandbox, "", &["gc", "--keep-list", &keep], &server);
    assert_ne!(refused.code, Some(0));
    refused
        .says("lack the right s3:PutObject")
        .says("docs/guides/mirror.md");
    assert_eq!(names(&sandbox), before);
}

/// Nothing answers there, so the retries must not last: an hour would be longer than any run of the tests.
#[test]
fn an_object_store_that_never_answered_is_not_waited_for() {
    let sandbox = Sandbox::new();
    let file = list(&sandbox, 'a');
    let copy = &["--list", &*file][..];
    for (endpoint, words) in [
        ("http://127.0.0.1:1", &["verify"][..]),
        ("http://127.0.0.1:1", &["gc"]),
        ("http://127.0.0.1:1", copy),
        ("http://no-such-host.invalid", copy),
    ] {
        let to = format!("s3://bucket?endpoint={endpoint}&region=us-east-1");
        let words = [&["mirror"], words, &["--to", &to, "--retry-time", "1h"]].concat();
        let mut command = command(&sandbox, "http://127.0.0.1:1", &words);
        command
            .env("AWS_ACCESS_KEY_ID", KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        let output = run(command).exits(4).says("check `endpoint`");
        let is_copy = output.stderr.contains("copies only what is missing");
        assert_eq!(is_copy, words.contains(&"--list"), "{}", output.stderr);
    }
}

#[test]
fn retries_of_an_object_store_that_has_answered_are_shown() {
    let sandbox = Sandbox::new();
    let refused = AtomicUsize::new(0);
    let server = Server::start(move |_| match refused.fetch_add(1, Ordering::Relaxed) {
        0..3 => Reply::new("503 Slow Down", "").header("Retry-After: 1"),
        _ => Reply::not_found(),
    });
    let words = ["verify", "--retry-time", "60s"];
    let output = care(&sandbox, "http://127.0.0.1:1", &words, &server);
    output.says(" is too busy, retrying (");
    assert_eq!(server.requests().len(), 4);
}

/// The methods of the requests for claims of a run in which the requests are refused for which `is_refused` holds.
fn claim_methods(is_refused: fn(&str, &str) -> bool) -> Vec<String> {
    let sandbox = Sandbox::new();
    let (_, _, working) = mirrored(&sandbox, BucketRules::default());
    drop(working);
    let server = Server::start(move |request| match (&*request.method, &*request.path) {
        (method, path) if is_refused(method, path) => refusal("403 Forbidden", "AccessDenied"),
        ("GET", _) => Reply::not_found(),
        _ => Reply::new("200 OK", ""),
    });
    let words = ["--list", &list(&sandbox, 'a')];
    let mut command = command(&sandbox, "http://127.0.0.1:1", &["mirror"]);
    command
        .args(words)
        .args(["--to", &url(&server, BUCKET)])
        .env("AWS_ACCESS_KEY_ID", KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    assert_ne!(run(command).code, Some(0));

    let requests = server.requests().into_iter();
    let claims = requests.filter(|it| it.path.contains("/writers/"));
    claims.map(|it| it.method).collect()
}

#[test]
fn a_claim_is_withdrawn_if_those_of_others_cannot_be_listed() {
    let methods = claim_methods(|_, path| path.contains("list-type"));
    assert_eq!(methods, ["PUT", "DELETE"]);
}

#[test]
fn a_claim_that_was_refused_is_not_withdrawn() {
    assert_eq!(claim_methods(|method, _| method == "PUT"), ["PUT"]);
}

#[test]
fn what_cannot_be_stored_is_not_downloaded_to_the_end() {
    let sandbox = Sandbox::new();
    let publisher = Publisher::new(&sandbox, "server", 1);
    Publisher::trust(&sandbox, &[&publisher]);
    let large = publisher.publish_file('a', &"large".repeat(10_000), "");
    let slow = publisher.publish_file('b', &"slow".repeat(10_000), "");
    std::fs::write(sandbox.path("list"), format!("{large}\n{slow}\n")).unwrap();
    let directory = sandbox.path("server");
    let source = Server::start(move |request| {
        let mut reply = Reply::file(&directory, request);
        if request.path == "/b.nar" {
            reply.stall_at = Some(100);
        }
        reply
    });
    let rules = BucketRules {
        quota: Some(20_000),
        ..BucketRules::default()
    };
    let server = start(&sandbox, rules);
    let list = sandbox.path("list").display().to_string();
    let words = ["--list", &list, "--jobs", "2"];
    let to = url(&server, BUCKET);
    run(mirror_command(&sandbox, &source.url(), &to, &words))
        .exits(4)
        .says("raise the quota");
    assert_eq!(source.requests_for("/a.nar"), 1);
    // It stalled, but was not requested again.
    assert!(source.requests_for("/b.nar") <= 1, "{:?}", source.asked());
}

#[test]
fn a_list_without_end_is_refused() {
    let sandbox = Sandbox::new();
    published(&sandbox);
    let pages = AtomicUsize::new(0);
    let server = Server::start(move |_| {
        let token = pages.fetch_add(1, Ordering::Relaxed);
        let body = format!(
            "<ListBucketResult><IsTruncated>true</IsTruncated>\
             <NextContinuationToken>{token}</NextContinuationToken></ListBucketResult>"
        );
        Reply::new("200 OK", body)
    });
    let refused = care(&sandbox, "", &["verify"], &server);
    assert_ne!(refused.code, Some(0));
    refused.says("a list of objects");
    assert!(server.requests().len() < 1100);
}

/// After a kill, a nar may be there without its narinfo. It is read to be verified.
#[test]
fn a_nar_that_cannot_be_read_now_is_not_taken_for_another_one() {
    let sandbox = Sandbox::new();
    let (publisher, last, _) = mirrored(&sandbox, BucketRules::default());
    let complete = contents(&sandbox.path("bucket"));
    let name = format!("{}.narinfo", &last["/gnu/store/".len()..][..32]);

    for (cut_nars, retry_time, exit) in [(1, "60s", 0), (usize::MAX, "0s", 4)] {
        std::fs::remove_file(sandbox.path("bucket").join(&name)).unwrap();
        let rules = BucketRules {
            cut_nars,
            ..BucketRules::default()
        };
        let server = start(&sandbox, rules);
        let words = ["--closure", &last, "--retry-time", retry_time];
        let copied = mirror(&sandbox, &publisher, &url(&server, BUCKET), &words).exits(exit);
        let requests = server.requests();
        let has_range = requests.iter().any(|it| it.has("range", "bytes=60-"));
        match exit {
            0 => assert!(has_range),
            _ => drop(copied.says("cannot read c.nar in the bucket")),
        }

        let mut expected = complete.clone();
        if exit != 0 {
            expected.remove(&name);
        }
        assert_eq!(contents(&sandbox.path("bucket")), expected);
        let requests = server.requests().into_iter();
        let sent = requests.filter(|it| it.method == "PUT" && !it.path.contains("/subst/"));
        let sent: Vec<String> = sent.map(|it| it.path).collect();
        assert!(sent.iter().all(|path| path.ends_with("info")), "{sent:?}");
    }
}

#[test]
fn verification_does_not_call_damaged_what_it_cannot_read() {
    let sandbox = Sandbox::new();
    let (publisher, ..) = mirrored(&sandbox, BucketRules::default());
    let rules = BucketRules {
        cut_nars: usize::MAX,
        ..BucketRules::default()
    };
    let server = start(&sandbox, rules);
    let words = ["verify", "--deep", "--retry-time", "0s"];
    care(&sandbox, &publisher.url(), &words, &server)
        .exits(5)
        .says("3 unreadable");
}
