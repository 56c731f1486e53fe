//! Diagnostics: off by default, where they go, and what they never contain.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{NOTHING, UNREACHABLE};
use crate::support::Sandbox;
use crate::support::sandbox::{Run, run};
use crate::support::server::{Reply, Server};

/// Looks an item up at the server `url`, which refuses connections.
fn query(sandbox: &Sandbox, url: &str, options: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut command = sandbox.bare(&["query", "--substitute-urls", url, NOTHING]);
    command.arg("--root").arg(sandbox.root()).args(options);
    command.envs(variables.iter().copied());
    run(command)
}

fn has_events(text: &str) -> bool {
    text.contains("DEBUG subst::")
}

#[test]
fn events_are_written_only_on_request() {
    let sandbox = Sandbox::new();
    let silent = query(&sandbox, UNREACHABLE, &["-v"], &[]);
    assert!(!has_events(&silent.stderr), "{}", silent.stderr);

    let by_variable = query(&sandbox, UNREACHABLE, &[], &[("SUBST_LOG", "debug")]);
    assert!(has_events(&by_variable.stderr), "{}", by_variable.stderr);
    assert!(!has_events(&by_variable.stdout), "{}", by_variable.stdout);

    let by_option = query(&sandbox, UNREACHABLE, &["-vv"], &[]);
    assert!(has_events(&by_option.stderr), "{}", by_option.stderr);

    let elsewhere = query(
        &sandbox,
        UNREACHABLE,
        &[],
        &[("SUBST_LOG", "subst::none=trace")],
    );
    assert!(!has_events(&elsewhere.stderr), "{}", elsewhere.stderr);
}

#[test]
fn events_go_to_a_file_that_only_its_owner_reads() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("log");
    let variables = [
        ("SUBST_LOG", "debug"),
        ("SUBST_LOG_FILE", path.to_str().unwrap()),
    ];
    for _ in 0..2 {
        let ended = query(&sandbox, UNREACHABLE, &[], &variables);
        assert!(!has_events(&ended.stderr), "{}", ended.stderr);
    }

    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.matches("settings loaded").count(), 2, "{text}");
    let mode = path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
}

#[test]
fn an_invalid_filter_and_a_file_that_cannot_be_opened_are_errors() {
    let sandbox = Sandbox::new();
    let ended = query(&sandbox, UNREACHABLE, &[], &[("SUBST_LOG", "subst=loud")]);
    ended.exits(2).says("SUBST_LOG: `subst=loud`");

    let variables = [("SUBST_LOG", "debug"), ("SUBST_LOG_FILE", "none/log")];
    query(&sandbox, UNREACHABLE, &[], &variables)
        .exits(5)
        .says("none/log");
}

#[test]
fn scripts_that_read_events_get_diagnostics_as_events() {
    let sandbox = Sandbox::new();
    let options = ["--progress", "json"];
    let ended = query(&sandbox, UNREACHABLE, &options, &[("SUBST_LOG", "debug")]);
    let events: Vec<serde_json::Value> = ended
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        events.iter().any(|event| event["event"] == "log"),
        "{events:?}"
    );
}

#[test]
fn the_helper_writes_events_to_a_file_alone() {
    let sandbox = Sandbox::new();
    let (file, replies) = (sandbox.path("log"), sandbox.path("replies"));
    let program = env!("CARGO_BIN_EXE_subst");
    let script = format!("'{program}' substitute --query </dev/null 4>replies");
    for log_file in [None, Some(&file)] {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &script])
            .current_dir(sandbox.path("."))
            .env_clear()
            .env("HOME", sandbox.path("home"))
            .env("SUBST_CONFIG", sandbox.path("config.toml"))
            .env("SUBST_LOG", "trace")
            .envs(log_file.map(|file| ("SUBST_LOG_FILE", file)));
        let ended = run(shell);
        assert!(!has_events(&ended.stderr), "{}", ended.stderr);
        let is_warned = ended.stderr.contains("SUBST_LOG_FILE");
        assert_eq!(is_warned, log_file.is_none(), "{}", ended.stderr);
        let text = std::fs::read_to_string(&replies).unwrap();
        assert!(!has_events(&text), "{text}");
    }
    assert!(has_events(&std::fs::read_to_string(&file).unwrap()));
}

#[test]
fn no_event_has_the_password_of_a_url() {
    let sandbox = Sandbox::new();
    let url = "http://me:Sesame@127.0.0.1:1";
    for proxy in ["", url] {
        let variables = [("SUBST_LOG", "trace"), ("http_proxy", proxy)];
        let ended = query(&sandbox, url, &[], &variables);
        assert!(has_events(&ended.stderr), "{}", ended.stderr);
        // The second form is the content of an `Authorization` field.
        for secret in ["Sesame", "bWU6U2VzYW1l"] {
            assert!(!ended.stderr.contains(secret), "{}", ended.stderr);
        }
    }
}

#[test]
fn requests_and_what_becomes_of_them_are_traced() {
    let sandbox = Sandbox::new();
    let has_failed = AtomicBool::new(false);
    let server = Server::start(move |request| match request.path.as_str() {
        "/nix-cache-info" => Reply::new("200 OK", "StoreDir: /gnu/store\n"),
        _ if !has_failed.swap(true, Ordering::Relaxed) => Reply::new("500 Oops", ""),
        _ => Reply::not_found(),
    });
    let url = server.url().replace("://", "://me:Sesame@");
    let ended = query(&sandbox, &url, &[], &[("SUBST_LOG", "subst=trace")]);
    let text = &ended.stderr;

    let span = format!("server{{url=\"{}\"}}:connection{{number=1}}", server.url());
    for expected in [
        span.as_str(),
        "connection opened protocol=\"http/1.1\"",
        "request server=",
        "response server=",
        "status=500",
        "retry url=",
        "status=404",
    ] {
        assert!(text.contains(expected), "`{expected}` is missing: {text}");
    }
    assert!(!text.contains("Sesame"), "{text}");
}
