//! The JSON of every command has the shape that its schema in `docs/schema/` describes. The schemas
//! allow no other keys, so a new key without a description fails here.

use std::collections::BTreeSet;

use crate::support::json_schema::violations;
use crate::support::publisher::{guix_secret, secret_file};
use crate::support::sandbox::run;
use crate::support::{Kind, Sandbox, files_below, item, repository};

/// An endorsement by a server that is down.
const ENDORSE: [&str; 8] = [
    "endorse",
    "--key",
    "key.sec",
    "--nars",
    "http://127.0.0.1:1",
    "--to",
    "endorsed",
    super::cli::NOTHING,
];

/// The endorsements of an item that has none are withdrawn.
const WITHDRAW: [&str; 5] = [
    "endorse",
    "--withdraw",
    "--to",
    "endorsed",
    super::cli::NOTHING,
];

/// Roots are removed, of which there are none.
const REMOVE: [&str; 5] = ["roots", "--remove", "ci", "--remove", "x"];

/// A dry run of a mirror that would get nothing.
const MIRROR_DRY_RUN: [&str; 5] = ["mirror", "--to=m", "-n", "--closure", super::cli::NOTHING];

/// A mirror is verified.
const MIRROR_VERIFY: [&str; 4] = ["mirror", "verify", "--to=m", "--deep"];

/// A mirror loses everything.
const MIRROR_GC: [&str; 5] = ["mirror", "gc", "--to=m", "--keep-days=0", "--grace=0"];

/// Compared with events by `cli::progress`.
const OF_EVENTS: &str = "progress-event";

fn schema(name: &str) -> serde_json::Value {
    let path = repository().join(format!("docs/schema/{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_json_of_every_command_is_as_its_schema_says() {
    let sandbox = Sandbox::new();
    sandbox.write_safely("config.toml", "jobs = 3\n");
    let guix = Kind::Guix.url();
    let mixed = format!("{guix} http://127.0.0.1:1 {}", Kind::NixXz.url());
    let (tools, nothing) = (item("tools"), super::cli::NOTHING);
    let report = [
        "query",
        "--cache-miss-report",
        "--probe-nars",
        &tools,
        nothing,
    ];
    let dry_run = ["fetch", "--dry-run", &tools, nothing];
    secret_file(&sandbox, "key.sec", &guix_secret(1));
    let runs: [(&str, &str, &[&str]); 31] = [
        ("query", &mixed, &["query", "--closure", &tools, nothing]),
        ("query", &mixed, &report),
        ("fetch-dry-run", &mixed, &dry_run),
        ("fetch", &guix, &["fetch", "--keep-going", &tools, nothing]),
        ("fetch", &guix, &["fetch", "--gc-root", "ci", &tools]),
        ("fetch", &guix, &["fetch", "--output", "out", &tools]),
        ("query", &guix, &["query", &tools]),
        ("challenge", &mixed, &["challenge", &tools, nothing]),
        ("endorse", &guix, &ENDORSE),
        ("endorse-withdraw", &guix, &WITHDRAW),
        ("mirror", &guix, &MIRROR_DRY_RUN),
        ("mirror", &mixed, &["mirror", "--to=m", "--closure", &tools]),
        ("mirror-verify", &guix, &MIRROR_VERIFY),
        ("mirror-gc", &guix, &MIRROR_GC),
        ("servers", &mixed, &["servers"]),
        ("servers", &mixed, &["servers", "--offline"]),
        ("verify", &guix, &["verify"]),
        ("verify", &guix, &["verify", &tools, nothing]),
        ("verify", &guix, &["verify", "--repair"]),
        ("roots", &guix, &["roots"]),
        ("gc", &guix, &["gc", "--dry-run"]),
        ("roots-remove", &guix, &REMOVE),
        ("gc", &guix, &["gc", "--max-size", "1"]),
        ("cache-info", &guix, &["cache", "info"]),
        ("cache-list", &guix, &["cache", "list"]),
        ("cache-flush", &guix, &["cache", "flush"]),
        ("cache-prune", &guix, &["cache", "prune"]),
        ("cache-clear", &guix, &["cache", "clear"]),
        ("authorize-list", &guix, &["authorize", "--list"]),
        ("config-show", &guix, &["config", "show"]),
        ("config-check", &guix, &["config", "check"]),
    ];

    let mut used = BTreeSet::from([OF_EVENTS.to_owned()]);
    for (name, servers, arguments) in runs {
        let mut command = sandbox.command(Kind::Guix, servers, arguments);
        command
            .arg("--json")
            .env("https_proxy", "http://127.0.0.1:1");
        let (schema, json) = (schema(name), run(command).json());
        let found = violations(&schema, &schema, &json);
        assert!(found.is_empty(), "{arguments:?}: {found:#?}");
        used.insert(name.to_owned());
    }

    assert_every_schema_is_used(&used);
}

/// No schema is left without an output that is compared with it.
fn assert_every_schema_is_used(used: &BTreeSet<String>) {
    let files = files_below(&repository().join("docs/schema"), ".json");
    let names = files.iter().filter_map(|file| file.file_stem()?.to_str());
    let names: BTreeSet<String> = names.map(str::to_owned).collect();
    assert_eq!(&names, used, "a schema that no output is compared with");
}
