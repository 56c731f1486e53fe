//! `subst mirror --to s3://...`: what a bucket gets, in which order, and what goes wrong.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::bucket::{self, BUCKET, BucketRules, KEY_ID, SECRET_KEY};
use crate::support::bucket_writes::Conditions;
use crate::support::publisher::{Publisher, command, file_nar, installed};
use crate::support::sandbox::{Run, run};
use crate::support::{Reply, Sandbox, Server, files_below};

/// The files of `directory` by name, without what is the mirror's own.
pub(super) fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = files_below(directory, "").into_iter();
    let named = files.map(|file| {
        let name = file.strip_prefix(directory).unwrap().to_str().unwrap();
        (name.to_owned(), std::fs::read(&file).unwrap())
    });
    let named = named.filter(|(name, _)| name != "nix-cache-info" && !name.starts_with("subst/"));
    named.collect()
}

/// A publisher of c, which refers to b, which refers to a.
pub(super) fn published(sandbox: &Sandbox) -> (Publisher, String) {
    let publisher = Publisher::new(sandbox, "server", 1);
    Publisher::trust(sandbox, &[&publisher]);
    let (mut last, mut reference) = (String::new(), String::new());
    for digit in ['a', 'b', 'c'] {
        last = publisher.publish_file(digit, &digit.to_string(), &reference);
        reference = last["/gnu/store/".len()..].to_owned();
    }
    (publisher, last)
}

/// A bucket with these rules, in the directory `bucket` of `sandbox`.
pub(super) fn start(sandbox: &Sandbox, rules: BucketRules) -> Server {
    std::fs::create_dir_all(sandbox.path("bucket")).unwrap();
    bucket::start(&sandbox.path("bucket"), rules)
}

pub(super) fn url(server: &Server, place: &str) -> String {
    format!("s3://{place}?endpoint={}", server.url())
}

pub(super) fn mirror_command(sandbox: &Sandbox, source: &str, to: &str, words: &[&str]) -> Command {
    let mut command = command(sandbox, source, &["mirror", "--to", to]);
    command
        .args(words)
        .env("AWS_ACCESS_KEY_ID", KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    command
}

pub(super) fn mirror(sandbox: &Sandbox, publisher: &Publisher, to: &str, words: &[&str]) -> Run {
    run(mirror_command(sandbox, &publisher.url(), to, words))
}

/// The keys that were written, in order.
fn written(server: &Server) -> Vec<String> {
    let requests = server.requests().into_iter();
    let puts = requests.filter(|it| it.method == "PUT" && !it.path.contains("/subst/writers/"));
    let keys = puts.map(|request| request.path.rsplit('/').next().unwrap().to_owned());
    keys.collect()
}

#[test]
fn a_closure_is_copied_byte_for_byte_and_others_fetch_it() {
    let default = BucketRules::default();
    for (conditions, prefix) in [
        (Conditions::Honored, ""),
        (Conditions::Honored, "/guix/mirror %+"),
        (Conditions::Ignored, ""),
        (Conditions::Unsupported, ""),
    ] {
        let sandbox = Sandbox::new();
        let (publisher, last) = published(&sandbox);
        let rules = BucketRules {
            conditions,
            ..default.clone()
        };
        let (server, place) = (start(&sandbox, rules), prefix.replace('%', "%25"));
        let to = url(&server, &format!("{BUCKET}{}", place.replace(' ', "%20")));
        mirror(&sandbox, &publisher, &to, &["--closure", &last])
            .exits(0)
            .says("3 items copied");
        let below = sandbox.path(&format!("bucket{prefix}"));
        assert_eq!(contents(&below), contents(&publisher.dir), "{prefix}");
        let spool = files_below(&sandbox.root(), "").into_iter();
        let left = spool.filter(|file| file.to_string_lossy().contains("/incoming/"));
        assert_eq!(left.count(), 0);

        let count = written(&server).len();
        let before = server.requests_for("list-type");
        let again = mirror(&sandbox, &publisher, &to, &["--closure", &last, "--json"]).exits(0);
        let summary = &again.json()["summary"];
        assert_eq!(summary["present"], 3);
        assert_eq!(written(&server).len(), count);
        // Seven objects, three on a page; and the writers.
        assert!(server.requests_for("list-type") - before <= 7);

        let mut fetch = command(&sandbox, &to, &["fetch", &last]);
        fetch
            .env("AWS_ACCESS_KEY_ID", KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        run(fetch).exits(0);
        assert!(installed(&sandbox, &last).exists());
    }
}

#[test]
fn nars_come_before_narinfos_and_references_before_referrers() {
    let sandbox = Sandbox::new();
    let (publisher, last) = published(&sandbox);
    let server = start(&sandbox, BucketRules::default());
    let to = url(&server, BUCKET);
    mirror(&sandbox, &publisher, &to, &["--closure", &last]).exits(0);

    let written = written(&server);
    let place = |key: &str| written.iter().position(|it| it == key).unwrap();
    let narinfo = |digit: &str| place(&format!("{}.narinfo", digit.repeat(32)));
    assert_eq!(place("nix-cache-info"), 0);
    for digit in ["a", "b", "c"] {
        assert!(place(&format!("{digit}.nar")) < narinfo(digit));
    }
    assert!(narinfo("a") < narinfo("b") && narinfo("b") < narinfo("c"));
}

#[test]
fn objects_are_described_for_caches_and_clients() {
    let sandbox = Sandbox::new();
    let (publisher, last) = published(&sandbox);
    let server = start(&sandbox, BucketRules::default());
    let to = url(&server, BUCKET);
    mirror(&sandbox, &publisher, &to, &["--closure", &last]).exits(0);

    let requests = server.requests();
    let put = |end: &str| {
        let mut all = requests.iter().filter(|request| request.method == "PUT");
        all.find(|request| request.path.ends_with(end)).unwrap()
    };
    let immutable = "public, max-age=31536000, immutable";
    assert!(put("c.nar").has("cache-control", immutable));
    assert!(put("c.nar").has("content-type", "application/x-nix-nar"));
    assert!(put("c.narinfo").has("cache-control", "max-age=3600"));
    assert!(put("c.narinfo").has("content-type", "text/x-nix-narinfo"));
    assert!(put("c.narinfo").has("if-none-match", "*"));
    assert!(put("nix-cache-info").has("content-type", "text/x-nix-cache-info"));
}

#[test]
fn a_dry_run_writes_nothing() {
    let sandbox = Sandbox::new();
    let (publisher, last) = published(&sandbox);
    let server = start(&sandbox, BucketRules::default());
    let to = url(&server, BUCKET);
    mirror(
        &sandbox,
        &publisher,
        &to,
        &["--closure", &last, "--dry-run"],
    )
    .exits(0)
    .says("3 items to copy");
    let requests = server.requests();
    assert!(requests.iter().all(|request| request.method == "GET"));
    assert!(
        !sandbox
            .root()
            .join("var/guix/substitute-cache/mirror")
            .exists()
    );
}

#[test]
fn what_passes_is_waited_for_and_what_can_be_corrected_is() {
    let default = BucketRules::default();
    for rules in [
        BucketRules {
            slow_downs: 3,
            ..default.clone()
        },
        BucketRules {
            ahead: Duration::from_secs(20 * 60),
            ..default.clone()
        },
        BucketRules {
            region: "garage",
            ..default.clone()
        },
    ] {
        let sandbox = Sandbox::new();
        let (publisher, last) = published(&sandbox);
        let server = start(&sandbox, rules);
        let (to, words) = (
            url(&server, BUCKET),
            ["--retry-time", "60s", "--closure", &last],
        );
        mirror(&sandbox, &publisher, &to, &words).exits(0);
        let copied = contents(&sandbox.path("bucket"));
        assert_eq!(copied, contents(&publisher.dir));
    }
}

/// A run with these access keys to `place`, which fails with this message and hint.
#[track_caller]
fn assert_refused(rules: &BucketRules, place: &str, key: (&str, &str), message: &str, hint: &str) {
    let sandbox = Sandbox::new();
    let (publisher, last) = published(&sandbox);
    let server = start(&sandbox, rules.clone());
    let to = url(&server, place);
    let words = ["--retry-time", "2s", "--closure", &last];
    let mut command = mirror_command(&sandbox, &publisher.url(), &to, &words);
    command
        .env("AWS_ACCESS_KEY_ID", key.0)
        .env("AWS_SECRET_ACCESS_KEY", key.1);
    let ended = run(command).says(message).says(hint);
    assert_ne!(ended.code, Some(0));
    assert!(!ended.stderr.contains(SECRET_KEY));
    assert!(contents(&sandbox.path("bucket")).is_empty());
}

#[test]
fn wrong_credentials_have_their_own_messages() {
    let default = BucketRules::default();
    let with_token = BucketRules {
        session_token: Some("token"),
        ..default.clone()
    };
    let terse = BucketRules {
        is_terse: true,
        ..default.clone()
    };
    let (own, wrong) = ((KEY_ID, SECRET_KEY), (KEY_ID, "wrong-secret"));
    let message = "refuses the signature";
    assert_refused(&default, BUCKET, wrong, message, "");
    let message = "credentials are wrong, or lack the right s3:PutObject";
    assert_refused(&terse, BUCKET, wrong, message, "docs/guides/mirror.md");
    let message = "does not know the access key ID";
    assert_refused(&default, BUCKET, ("OTHER", "wrong-secret"), message, "");
    let message = "has expired or is invalid";
    assert_refused(&with_token, BUCKET, own, message, "");
    assert_refused(&default, BUCKET, ("", ""), "none were found", "");
}

#[test]
fn what_an_object_store_refuses_has_its_own_message_and_hint() {
    let default = BucketRules::default();
    let read_only = BucketRules {
        is_read_only: true,
        ..default.clone()
    };
    let full = BucketRules {
        quota: Some(1),
        ..default.clone()
    };
    let overloaded = BucketRules {
        slow_downs: usize::MAX,
        ..default.clone()
    };
    let own = (KEY_ID, SECRET_KEY);
    let (message, hint) = ("there is no bucket `other`", "aws s3 mb s3://other");
    assert_refused(&default, "other", own, message, hint);
    let message = "lack the right s3:PutObject";
    assert_refused(&read_only, BUCKET, own, message, "docs/guides/mirror.md");
    let message = "the bucket is full";
    assert_refused(&full, BUCKET, own, message, "raise the quota");
    let hint = "overloaded: run it again later";
    assert_refused(&overloaded, BUCKET, own, "503", hint);
}

#[test]
fn what_another_program_writes_meanwhile_is_not_replaced() {
    let sandbox = Sandbox::new();
    let (publisher, last) = published(&sandbox);
    let server = start(&sandbox, BucketRules::default());
    let to = url(&server, BUCKET);
    mirror(&sandbox, &publisher, &to, &["--closure", &last]).exits(0);
    // Without the narinfo, the run finds no nar that it knows of, and the object is of another program.
    let narinfo = publisher.narinfo('c').file_name().unwrap().to_owned();
    std::fs::remove_file(sandbox.path("bucket").join(narinfo)).unwrap();
    std::fs::write(sandbox.path("bucket/c.nar"), "other").unwrap();
    let again = mirror(&sandbox, &publisher, &to, &["--closure", &last]).exits(0);
    assert!(again.stderr.contains("1 item copied"), "{}", again.stderr);
    let other = std::fs::read(sandbox.path("bucket/c.nar")).unwrap();
    assert_eq!(other, b"other");
}

/// A claim of another writer, `age` old.
fn claim(sandbox: &Sandbox, name: &str, age: Duration) {
    let file = sandbox.path(&format!("bucket/subst/writers/{name}"));
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "another").unwrap();
    let now = std::fs::metadata(&file).unwrap().modified().unwrap();
    let opened = std::fs::File::options().write(true).open(&file).unwrap();
    opened.set_modified(now - age).unwrap();
}

fn claims(sandbox: &Sandbox) -> Vec<String> {
    let files = files_below(&sandbox.path("bucket/subst/writers"), "");
    let names = files.iter().map(|file| file.file_name().unwrap());
    names
        .map(|name| name.to_str().unwrap().to_owned())
        .collect()
}

#[test]
fn one_writer_at_a_time_whatever_machine_it_runs_on() {
    let sandbox = Sandbox::new();
    let (publisher, last) = published(&sandbox);
    // Conditional writes are not needed for this.
    let rules = BucketRules {
        conditions: Conditions::Ignored,
        ..BucketRules::default()
    };
    let server = start(&sandbox, rules);
    let (to, words) = (url(&server, BUCKET), ["--closure", &last]);
    claim(&sandbox, "other", Duration::from_secs(60));
    let refused = mirror(&sandbox, &publisher, &to, &words).exits(5);
    refused
        .says("another process is writing to the mirror s3://cache")
        .says("ignored after 3 minutes");
    assert_eq!(claims(&sandbox), ["other"]);
    assert!(contents(&sandbox.path("bucket")).is_empty());

    claim(&sandbox, "other", Duration::from_secs(200));
    mirror(&sandbox, &publisher, &to, &words).exits(0);
    assert!(claims(&sandbox).is_empty());
}

#[test]
fn after_a_kill_the_same_machine_goes_on_at_once() {
    let sandbox = Sandbox::new();
    let (publisher, last) = published(&sandbox);
    let server = start(&sandbox, BucketRules::default());
    let (to, words) = (url(&server, BUCKET), ["--closure", &last]);
    mirror(&sandbox, &publisher, &to, &words).exits(0);
    let requests = server.requests();
    let put = requests
        .iter()
        .find(|it| it.path.contains("/subst/writers/"));
    let own = put.unwrap().path.rsplit('/').next().unwrap().to_owned();
    claim(&sandbox, &own, Duration::ZERO);
    mirror(&sandbox, &publisher, &to, &words).exits(0);
    assert!(claims(&sandbox).is_empty());
}

#[test]
fn a_nar_that_several_items_name_is_copied_once() {
    let sandbox = Sandbox::new();
    let publisher = Publisher::new(&sandbox, "server", 1);
    Publisher::trust(&sandbox, &[&publisher]);
    let nar = file_nar(b"the same");
    let mut items = vec![publisher.publish('a', &nar, nar.len() as u64, "")];
    for digit in ['b', 'c'] {
        let downloads = "URL: a.nar\nCompression: none\n";
        items.push(publisher.describe(digit, &nar, nar.len() as u64, "", downloads));
    }
    let directory = publisher.dir.clone();
    let source = Server::start(move |request| {
        let mut reply = Reply::file(&directory, request);
        if request.path.ends_with(".nar") {
            reply.drip = Some((20, Duration::from_millis(20)));
        }
        reply
    });
    let server = start(&sandbox, BucketRules::default());

    let to = url(&server, BUCKET);
    let words: Vec<&str> = items.iter().flat_map(|item| ["--closure", item]).collect();
    run(mirror_command(&sandbox, &source.url(), &to, &words)).exits(0);
    assert_eq!(source.requests_for("/a.nar"), 1);
    let written = written(&server);
    assert_eq!(
        written.iter().filter(|key| key.ends_with(".nar")).count(),
        1
    );
    assert!(contents(&sandbox.path("bucket")) == contents(&publisher.dir));
}
