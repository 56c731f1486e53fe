//! User names and passwords of URLs are in no message, whether the URL can be parsed or not.

use std::process::Command;

use super::{NOTHING, UNREACHABLE};
use crate::support::Sandbox;
use crate::support::sandbox::run;

/// Runs `command`, which has a URL with a password that is `Sesame` in part.
#[track_caller]
fn assert_secret(command: Command) {
    let said = format!("{command:?}");
    let ended = run(command);
    let text = format!("{}{}", ended.stdout, ended.stderr);
    assert!(
        !text.contains("Sesame") && !text.contains("me:"),
        "{said}: {text}"
    );
    assert!(!text.is_empty(), "{said}: nothing was said");
}

/// URLs that are none, or not of a server.
const WRONG: [&str; 7] = [
    "http://me:Sesame#1@127.0.0.1:1",
    "http://me:Sesame/1@127.0.0.1:1",
    "http://me:Sesame?@127.0.0.1:1",
    "http://me:1 Sesame@127.0.0.1:1",
    "http://me:Sesame",
    "ftp://me:Sesame@127.0.0.1/",
    "http:/me:Sesame#@127.0.0.1/",
];

#[test]
fn an_invalid_url_is_shown_without_its_password() {
    let sandbox = Sandbox::new();
    for url in WRONG {
        assert_secret(sandbox.bare(&["query", "--substitute-urls", url, NOTHING]));
        assert_secret(sandbox.bare(&["cache", "flush", "--server", url]));
        for variable in ["http_proxy", "https_proxy", "all_proxy"] {
            let mut command = sandbox.bare(&["query", "--substitute-urls", UNREACHABLE, NOTHING]);
            command.arg("--root").arg(sandbox.root()).env(variable, url);
            assert_secret(command);
        }
        let mut from_environment = sandbox.bare(&["query", NOTHING]);
        from_environment.env("SUBST_SUBSTITUTE_URLS", url);
        assert_secret(from_environment);
        let tables = [
            format!("substitute-urls = \"{url}\""),
            format!("substitute-urls = [\"{url}\"]"),
            format!("substitute-urls = \"{url}"),
            format!("[[server]]\nurl = \"{url}\""),
            format!("progress = \"{url}\""),
            format!("jobs = \"{url}\""),
        ];
        for text in tables {
            std::fs::write(sandbox.path("wrong.toml"), text).unwrap();
            assert_secret(sandbox.bare(&["query", "--config", "wrong.toml", NOTHING]));
        }
    }
}

#[test]
fn a_url_in_the_wrong_place_is_shown_without_its_password() {
    let sandbox = Sandbox::new();
    let url = "http://me:Sesame@127.0.0.1:1/x";
    for arguments in [
        &["fetch", url][..],
        &["query", url],
        &["cache", url],
        &["cache", "flush", url],
        &["--jobs", url, "servers"],
        &["--progress", url, "servers"],
        &["servers", url],
        &["authorize", url],
        &["--config", url, "servers"],
        &["--store-dir", url, "servers"],
        &[
            "--acl",
            url,
            "query",
            "--substitute-urls",
            UNREACHABLE,
            NOTHING,
        ],
    ] {
        assert_secret(sandbox.bare(arguments));
    }
    for variable in [
        "SUBST_JOBS",
        "SUBST_PROGRESS",
        "SUBST_DISCOVER",
        "SUBST_STORE_DIR",
    ] {
        let mut command = sandbox.bare(&["servers"]);
        command.env(variable, url);
        assert_secret(command);
    }
}
