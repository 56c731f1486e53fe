//! Buckets of object stores as servers: `s3://` URLs, access keys, and what goes wrong with them.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::support::bucket::{self, BUCKET, BucketRules, ExpiringTokens, KEY_ID, SECRET_KEY};
use crate::support::fixture::base;
use crate::support::sandbox::run;
use crate::support::{Fixture, Kind, Reply, Run, Sandbox, Server, files_below, item};

/// A session token, which nothing may show.
const TOKEN: &str = "Papaya-0815-Token";

/// The URL of `bucket` at `server`.
fn url_of(server: &Server, bucket: &str) -> String {
    format!("s3://{bucket}?endpoint={}", server.url())
}

fn private_bucket(rules: BucketRules) -> Server {
    bucket::start(&Kind::Guix.directory(), rules)
}

/// The program, with an access key in its environment.
fn command(sandbox: &Sandbox, url: &str, arguments: &[&str]) -> Command {
    let mut command = sandbox.command(Kind::Guix, url, arguments);
    command
        .env("AWS_ACCESS_KEY_ID", KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    command
}

fn fetch(sandbox: &Sandbox, server: &Server) -> Run {
    let url = url_of(server, BUCKET);
    run(command(sandbox, &url, &["fetch", &item("tools")]))
}

/// Fails if what was written has a secret: to standard output, standard error, and below the root.
#[track_caller]
fn assert_no_secret(sandbox: &Sandbox, runs: &[Run]) {
    let mut written = String::new();
    for run in runs {
        written.push_str(&run.stdout);
        written.push_str(&run.stderr);
    }
    let files: Vec<PathBuf> = files_below(&sandbox.root(), "");
    for file in files.iter().filter(|file| file.is_file()) {
        written.push_str(&String::from_utf8_lossy(&std::fs::read(file).unwrap()));
    }
    for secret in [SECRET_KEY, TOKEN, "Signature="] {
        assert!(!written.contains(secret), "{secret} in: {written}");
    }
}

#[test]
fn a_closure_is_fetched_from_a_private_bucket() {
    for session_token in [None, Some(TOKEN)] {
        let server = private_bucket(BucketRules {
            session_token,
            ..BucketRules::default()
        });
        let (sandbox, url) = (Sandbox::new(), url_of(&server, BUCKET));
        let commands: [&[&str]; 5] = [
            &["query", "--json", "--closure", &item("tools")],
            &["fetch", "--progress", "json", &item("tools")],
            &["query", "--cache-miss-report", &item("tools")],
            &["servers", "--json"],
            &["cache", "list"],
        ];
        let runs = commands.map(|arguments| {
            let mut command = command(&sandbox, &url, arguments);
            command.env("SUBST_LOG", "trace");
            session_token.map(|token| command.env("AWS_SESSION_TOKEN", token));
            run(command).exits(0)
        });
        let requests = server.requests();
        assert!(requests.iter().any(|it| it.path.contains("/nar/")));
        assert!(
            requests
                .iter()
                .all(|it| it.field("authorization").is_some())
        );
        assert_no_secret(&sandbox, &runs);
    }
}

#[test]
fn what_an_object_store_refuses_has_its_own_message() {
    let default = BucketRules::default();
    let with_token = BucketRules {
        session_token: Some(TOKEN),
        ..default.clone()
    };
    let terse = BucketRules {
        is_terse: true,
        ..default.clone()
    };
    let wrong = "wrong-secret";
    for (rules, bucket, id, secret, expected) in [
        (&default, BUCKET, KEY_ID, wrong, "refuses the signature"),
        (
            &terse,
            BUCKET,
            KEY_ID,
            wrong,
            "access to the bucket is denied",
        ),
        (
            &default,
            BUCKET,
            "OTHER",
            wrong,
            "does not know the access key ID",
        ),
        (
            &with_token,
            BUCKET,
            KEY_ID,
            SECRET_KEY,
            "has expired or is invalid",
        ),
        (
            &default,
            "other",
            KEY_ID,
            SECRET_KEY,
            "there is no bucket `other`",
        ),
        (
            &default,
            BUCKET,
            "",
            "",
            "none were found (AWS_ACCESS_KEY_ID",
        ),
    ] {
        let (server, sandbox) = (private_bucket(rules.clone()), Sandbox::new());
        let url = url_of(&server, bucket);
        let mut command = command(&sandbox, &url, &["fetch", &item("tools")]);
        command
            .env("AWS_ACCESS_KEY_ID", id)
            .env("AWS_SECRET_ACCESS_KEY", secret);
        let ended = run(command).says(expected);
        assert!(!ended.stdout.contains("Unpacked"), "{}", ended.stdout);
        assert_no_secret(&sandbox, &[ended]);
    }
}

#[test]
fn region_and_clock_are_corrected() {
    let region = BucketRules {
        region: "garage",
        ..BucketRules::default()
    };
    let clock = BucketRules {
        ahead: Duration::from_secs(1200),
        ..BucketRules::default()
    };
    let busy = BucketRules {
        slow_downs: 2,
        ..BucketRules::default()
    };
    for rules in [region, clock, busy] {
        let (server, sandbox) = (private_bucket(rules.clone()), Sandbox::new());
        let ended = fetch(&sandbox, &server);
        assert_eq!(ended.code, Some(0), "{rules:?}: {}", ended.stderr);
    }
}

#[test]
fn a_public_bucket_needs_no_credentials() {
    let server = private_bucket(BucketRules {
        is_public: true,
        ..BucketRules::default()
    });
    let (sandbox, url) = (Sandbox::new(), url_of(&server, BUCKET));
    run(sandbox.command(Kind::Guix, &url, &["fetch", &item("tools")])).exits(0);
    let requests = server.requests();
    assert!(
        requests
            .iter()
            .all(|it| it.field("authorization").is_none())
    );

    // What nobody may list is missing, not refused.
    let missing = "/gnu/store/00000000000000000000000000000000-nothing";
    let ended = run(sandbox.command(Kind::Guix, &url, &["query", missing]));
    assert!(!ended.stderr.contains("denied"), "{}", ended.stderr);
}

#[test]
fn another_host_gets_no_signature() {
    let other = Arc::new(Server::of(Kind::Guix.directory()));
    let target = other.url();
    let server = Server::start(move |request| {
        let path = request.path.trim_start_matches("/cache");
        Reply::new("307 Temporary Redirect", "").header(&format!("Location: {target}{path}"))
    });
    let sandbox = Sandbox::new();
    fetch(&sandbox, &server).exits(0);
    let requests = other.requests();
    assert!(requests.iter().any(|it| it.path.contains("/nar/")));
    for request in requests {
        let mut names = request.fields.iter().map(|(name, _)| name);
        let secret = |name: &String| name == "authorization" || name.starts_with("x-amz");
        assert!(!names.any(secret), "{:?}", request.fields);
    }
}

#[test]
fn keys_come_from_a_profile() {
    let (server, sandbox) = (private_bucket(BucketRules::default()), Sandbox::new());
    let keys = format!("aws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET_KEY}\n");
    sandbox.write_safely("keys", &format!("[default]\nx=y\n[work]\n{keys}"));
    let url = url_of(&server, BUCKET);
    let with_profile = format!("{url}&profile=work");
    let with_wrong = format!("{url}&profile=none");
    for (url, profile, code) in [
        (&with_profile, "", Some(0)),
        (&url, "work", Some(0)),
        (&with_wrong, "", Some(2)),
    ] {
        let mut command = sandbox.command(Kind::Guix, url, &["query", &item("tools")]);
        command
            .env("AWS_SHARED_CREDENTIALS_FILE", sandbox.path("keys"))
            .env("AWS_PROFILE", profile);
        let ended = run(command);
        assert_eq!(ended.code, code, "{url} {profile}: {}", ended.stderr);
    }
}

/// A service that answers with the access key, and expects what a test says.
fn key_service(check: impl Fn(&str, &str) -> bool + Send + Sync + 'static) -> Server {
    Server::start(move |request| {
        let credentials = request.field("authorization").unwrap_or_default();
        let sent = format!("{} {credentials} {}", request.method, request.body);
        if request.path == "/latest/api/token" {
            return Reply::new("200 OK", "metadata-token");
        }
        if request.path == "/latest/meta-data/iam/security-credentials/" {
            return Reply::new("200 OK", "role");
        }
        if !check(&request.path, &sent) {
            return Reply::new("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>");
        }
        let body = if request.method == "POST" {
            format!(
                "<X><AccessKeyId>{KEY_ID}</AccessKeyId><SecretAccessKey>{SECRET_KEY}\
                 </SecretAccessKey><SessionToken>{TOKEN}</SessionToken></X>"
            )
        } else {
            format!(
                "{{\"AccessKeyId\":\"{KEY_ID}\",\"SecretAccessKey\":\"{SECRET_KEY}\",\
                 \"Token\":\"{TOKEN}\",\"Expiration\":\"2001-01-01T00:00:00Z\"}}"
            )
        };
        Reply::new("200 OK", body)
    })
}

#[test]
fn keys_come_from_services() {
    let rules = BucketRules {
        session_token: Some(TOKEN),
        ..BucketRules::default()
    };
    let (server, sandbox) = (private_bucket(rules), Sandbox::new());
    let url = url_of(&server, BUCKET);
    let token_file = sandbox.write_safely("token", "Papaya-web\n");
    let service = key_service(|path, sent| match path {
        "/" => sent.contains("WebIdentityToken=Papaya-web") && sent.contains("RoleArn=arn%3Ax"),
        "/container" => sent.contains("Papaya-web"),
        _ => path.ends_with("/role"),
    });
    let container = format!("{}/container", service.url());
    let token_file = token_file.to_str().unwrap();
    let of_services: [&[(&str, &str)]; 3] = [
        &[
            ("AWS_WEB_IDENTITY_TOKEN_FILE", token_file),
            ("AWS_ROLE_ARN", "arn:x"),
            ("AWS_ENDPOINT_URL_STS", &service.url()),
        ],
        &[
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &container),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token_file),
        ],
        &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &service.url())],
    ];
    for variables in of_services {
        let sandbox = Sandbox::new();
        let mut command = sandbox.command(Kind::Guix, &url, &["fetch", &item("tools")]);
        command
            .envs(variables.iter().copied())
            .env("SUBST_LOG", "trace");
        let ended = run(command);
        assert_eq!(ended.code, Some(0), "{variables:?}: {}", ended.stderr);
        assert_no_secret(&sandbox, &[ended]);
    }

    let broken = Server::start(|_| Reply::new("500 Internal Server Error", ""));
    let mut command = sandbox.command(Kind::Guix, &url, &["fetch", &item("tools")]);
    command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", broken.url());
    run(command).says("the service for containers does not provide access keys");
}

#[test]
fn names_with_special_characters_are_signed() {
    let sandbox = Sandbox::new();
    let fixture = Fixture::copy(Kind::Guix, sandbox.path("copy"));
    let tools = item("tools");
    let nar = "nar/a+b %=~é";
    let file = format!("nar/zstd/{}", base(&tools));
    std::fs::rename(fixture.dir.join(file), fixture.dir.join(nar)).unwrap();
    let server = bucket::start(&fixture.dir, BucketRules::default());
    for path in [nar.to_owned(), "nar/a%2Bb%20%25=%7E%C3%A9".to_owned()] {
        let copy = path.clone();
        fixture.edit(&tools, |text| {
            let (signed, _) = text.split_once("URL: ").unwrap();
            format!("{signed}URL: {copy}\nCompression: zstd\n")
        });
        let sandbox = Sandbox::new();
        fetch(&sandbox, &server).exits(0);
    }
    let requests = server.requests();
    let nars: Vec<_> = requests
        .iter()
        .filter(|it| it.path.contains("a%2Bb"))
        .collect();
    assert!(!nars.is_empty());
    for request in nars {
        assert_eq!(request.path, "/cache/nar/a%2Bb%20%25%3D~%C3%A9");
    }
}

#[test]
fn keys_that_expire_are_renewed_in_the_middle() {
    let tokens = Arc::new(ExpiringTokens::default());
    let server = private_bucket(BucketRules {
        tokens: Some(Arc::clone(&tokens)),
        ..BucketRules::default()
    });
    let service = Server::start(move |_| {
        let number = tokens.current();
        Reply::new(
            "200 OK",
            format!(
                "<X><AccessKeyId>{KEY_ID}</AccessKeyId><SecretAccessKey>{SECRET_KEY}\
                 </SecretAccessKey><SessionToken>{TOKEN}-{number}</SessionToken></X>"
            ),
        )
    });
    let (sandbox, url) = (Sandbox::new(), url_of(&server, BUCKET));
    let token_file = sandbox.write_safely("token", "web");
    let mut command = sandbox.command(Kind::Guix, &url, &["fetch", &item("tools")]);
    command
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", token_file)
        .env("AWS_ROLE_ARN", "arn:x")
        .env("AWS_ENDPOINT_URL_STS", service.url())
        .env("SUBST_LOG", "trace");
    let ended = run(command).exits(0);
    assert!(service.requests().len() > 1, "nothing was renewed");
    assert_no_secret(&sandbox, &[ended]);
}

#[test]
fn a_bucket_may_be_named_by_the_host() {
    let server = private_bucket(BucketRules::default());
    let url = format!("s3://{BUCKET}?endpoint=http://store.example&addressing-style=virtual");
    let sandbox = Sandbox::new();
    let mut command = command(&sandbox, &url, &["fetch", &item("tools")]);
    command.env("http_proxy", server.url());
    run(command).exits(0);
    let requests = server.requests();
    assert!(requests.iter().any(|it| it.path.contains("/nar/")));
    for request in requests {
        let host = request.field("host").unwrap();
        assert_eq!(host, format!("{BUCKET}.store.example"));
    }
}

#[test]
fn a_nar_is_resumed_with_signatures() {
    let server = private_bucket(BucketRules {
        cut_nars: usize::MAX,
        ..BucketRules::default()
    });
    let sandbox = Sandbox::new();
    fetch(&sandbox, &server).exits(0);
    let requests = server.requests();
    let resumed = requests.iter().filter(|it| it.from.is_some());
    assert!(resumed.clone().count() > 0, "nothing was resumed");
    for request in resumed {
        assert!(request.field("authorization").is_some());
    }
}

/// An item that is not in the bucket.
const MISSING: &str = "/gnu/store/00000000000000000000000000000000-nothing";

/// What a query, which lacks the items, says of the one that is missing and of one that is there.
fn statuses_of_both(mut command: Command) -> [String; 2] {
    command.args([MISSING, &item("tools"), "--json"]);
    let ended = run(command);
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    [0, 1].map(|at| report["items"][at]["status"].as_str().unwrap().to_owned())
}

#[test]
fn what_is_denied_before_anything_was_allowed_may_be_missing() {
    // nix-cache-info, which is requested first, is requested again after the others.
    let server = private_bucket(BucketRules {
        is_public: true,
        slow_downs: 1,
        ..BucketRules::default()
    });
    let (sandbox, url) = (Sandbox::new(), url_of(&server, BUCKET));
    let statuses = statuses_of_both(sandbox.command(Kind::Guix, &url, &["query"]));
    assert_eq!(statuses, ["missing", "available"]);
    let sandbox = Sandbox::new();
    let statuses = statuses_of_both(command(&sandbox, &url, &["query"]));
    assert_eq!(statuses, ["missing", "available"]);
}

#[test]
fn a_missing_nar_is_not_a_wrong_key() {
    let sandbox = Sandbox::new();
    let fixture = Fixture::copy(Kind::Guix, sandbox.path("copy"));
    let server = bucket::start(
        &fixture.dir,
        BucketRules {
            is_public: true,
            ..BucketRules::default()
        },
    );
    let url = url_of(&server, BUCKET);
    run(command(
        &sandbox,
        &url,
        &["query", "--closure", &item("tools")],
    ))
    .exits(0);
    std::fs::remove_dir_all(fixture.dir.join("nar")).unwrap();

    let ended = run(command(&sandbox, &url, &["fetch", &item("tools")]));
    assert_ne!(ended.code, Some(0));
    assert!(!ended.stderr.contains("denied"), "{}", ended.stderr);
}

#[test]
fn another_host_does_not_answer_for_the_bucket() {
    let code = "<Error><Code>SignatureDoesNotMatch</Code></Error>";
    let other = Arc::new(Server::start(move |_| Reply::new("403 Forbidden", code)));
    let target = format!("{}/elsewhere", other.url());
    let server = Server::start(move |request| {
        let mut request = request.clone();
        request.path = request.path.trim_start_matches("/cache").to_owned();
        if request.path.contains("0000000000") {
            return Reply::new("302 Found", "").header(&format!("Location: {target}"));
        }
        Reply::file(&Kind::Guix.directory(), &request)
    });
    let (sandbox, url) = (Sandbox::new(), url_of(&server, BUCKET));
    let statuses = statuses_of_both(command(&sandbox, &url, &["query"]));
    assert!(!other.requests().is_empty());
    assert_eq!(statuses, ["unknown", "available"]);
}
