//! The command line: what is printed where, and how a run ends.

use std::io::Read as _;
use std::process::Stdio;

use crate::support::sandbox::{run, run_with_input};
use crate::support::{Fixture, Kind, Reply, Sandbox, Server, item};

mod authorize;
mod buckets;
mod challenge;
mod closed_output;
mod commands;
mod completion;
mod config;
mod confinement;
mod credentials;
mod diagnostics;
mod endorse;
mod fetch;
mod followed_hints;
mod garbage;
mod help;
mod hints;
mod interrupt;
mod mirror;
mod mirror_bucket_care;
mod mirror_buckets;
mod mirror_gc;
mod mirror_names;
mod mirror_parts;
mod mirror_places;
mod mirror_servers;
mod mirror_verify;
mod missing_trees;
mod nix_conf;
mod offline;
mod private_servers;
mod progress;
mod query;
mod quorum;
mod report;
mod run;
mod terminal;
mod trusted_files;
mod verify;
mod written_files;

/// No such item anywhere.
pub(crate) const NOTHING: &str = "/gnu/store/00000000000000000000000000000000-nothing";
/// On a slow line the smallest download is the best one, however many cores there are.
const SLOW_LINE: &str = "--limit-rate=100k";
/// No server listens on this address.
const UNREACHABLE: &str = "http://127.0.0.1:1";

#[test]
fn help_and_version_go_to_standard_output() {
    let sandbox = Sandbox::new();
    let help = run(sandbox.bare(&["--help"])).exits(0);
    assert!(
        help.stdout.contains("\nUsage: subst [OPTIONS] <COMMAND>\n"),
        "{}",
        help.stdout
    );
    assert_eq!(help.stderr, "");
    let short = run(sandbox.bare(&["-h"])).exits(0);
    assert_ne!(short.stdout, help.stdout);
    for command in [
        "fetch",
        "query",
        "run",
        "substitute",
        "cache",
        "servers",
        "authorize",
        "completions",
    ] {
        assert!(
            help.stdout.contains(&format!("\n  {command} ")),
            "{command} is not listed"
        );
        run(sandbox.bare(&[command, "--help"])).exits(0);
    }
    let version = concat!("subst ", env!("CARGO_PKG_VERSION"), "\n");
    run(sandbox.bare(&["--version"])).exits(0).prints(version);
    assert!(!sandbox.root().exists());
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    let sandbox = Sandbox::new();
    let tools = item("tools");
    let cases: &[&[&str]] = &[
        &[],
        &["fetch"],
        &["fetch", "--no-such-option", &tools],
        &["no-such-command"],
        &["fetch", "--offline", "--refresh", &tools],
        &["fetch", "--jobs", "many", &tools],
        &["fetch", "/gnu/store/short"],
        &[
            "fetch",
            "/nix/store/00000000000000000000000000000000-for-another-store",
        ],
        &["fetch", "--store-dir", "not/absolute", &tools],
        &["fetch", "--substitute-urls", "ftp://example.org", &tools],
        &["fetch", "--stall-timeout", "0", &tools],
        &["fetch", "--output", "somewhere", &tools, &item("notes")],
        &[
            "query",
            "--store-dir",
            "/nix/store",
            "--trusted-public-keys",
            "no key",
            "/nix/store/00000000000000000000000000000000-a",
        ],
    ];
    for arguments in cases {
        let mut command = sandbox.bare(arguments);
        command.arg("--root").arg(sandbox.root());
        let ended = run(command).exits(2).prints("");
        assert!(
            ended.stderr.contains("error:") || arguments.is_empty(),
            "{}",
            ended.stderr
        );
    }
    assert!(!sandbox.store().exists(), "nothing was made");
}

#[test]
fn settings_come_from_flags_then_environment_then_file() {
    let sandbox = Sandbox::new();
    let config = |text: &str| std::fs::write(sandbox.path("config.toml"), text).unwrap();
    let tools = item("tools");
    let url = Kind::Guix.url();
    let query = |flags: &[&str], environment: &[(&str, &str)]| {
        let mut command = sandbox.bare(&["query", &tools]);
        command
            .arg("--root")
            .arg(sandbox.root())
            .args(flags)
            .envs(environment.iter().copied());
        command.arg("--acl").arg(Kind::Guix.directory().join("acl"));
        run(command)
    };
    let dead = format!("substitute-urls = \"{UNREACHABLE}\"");
    config(&dead);
    query(&[], &[]).exits(4);
    query(&[], &[("SUBST_SUBSTITUTE_URLS", &url)]).exits(0);
    query(
        &["--substitute-urls", &url],
        &[("SUBST_SUBSTITUTE_URLS", UNREACHABLE)],
    )
    .exits(0);
    config(&format!("substitute-urls = [\"{url}\"]"));
    query(&[], &[]).exits(0);

    config("substitut-urls = \"a misspelled setting\"");
    query(&[], &[])
        .exits(2)
        .says("substitut-urls")
        .says("config.toml");
    config("");
    query(&[], &[("SUBST_JOBS", "x")])
        .exits(2)
        .says("SUBST_JOBS")
        .says("`x`");
    query(&[], &[("SUBST_DISCOVER", "maybe")])
        .exits(2)
        .says("SUBST_DISCOVER")
        .says("`maybe`");
    query(&["--config", "missing.toml"], &[])
        .exits(5)
        .says("missing.toml");
}

#[test]
fn fetch_prints_only_the_requested_items() {
    let sandbox = Sandbox::new();
    let (tools, notes) = (item("tools"), item("notes"));
    let url = Kind::Guix.url();
    let both = [format!("{notes}\n{tools}\n"), format!("{tools}\n{notes}\n")];
    let first = sandbox
        .subst(&url, &["fetch", &tools, &notes])
        .exits(0)
        .says("2 items fetched");
    assert!(both.contains(&first.stdout), "{}", first.stdout);
    // Valid items are printed at once, in the order of the arguments.
    let again = sandbox
        .subst(UNREACHABLE, &["fetch", &tools, &notes])
        .exits(0)
        .prints(&both[1]);
    assert_eq!(again.stderr, "");
    let quiet = sandbox
        .subst(&url, &["fetch", "-q", &item("link")])
        .exits(0);
    assert_eq!(quiet.stderr, "");
}

#[test]
fn names_are_read_from_standard_input_too() {
    let sandbox = Sandbox::new();
    let (notes, tools) = (item("notes"), item("tools"));
    let command = sandbox.command(Kind::Guix, &Kind::Guix.url(), &["fetch", "-"]);
    let ended = run_with_input(command, &format!("{notes}\n\n  {tools}/\n{notes}\n")).exits(0);
    assert_eq!(ended.stdout.lines().count(), 2, "{}", ended.stdout);
}

#[test]
fn fetch_of_a_missing_item_fails() {
    let sandbox = Sandbox::new();
    let url = Kind::Guix.url();
    let none = sandbox.subst(&url, &["fetch", NOTHING]).exits(1).prints("");
    none.says(&format!("subst: error: cannot fetch {NOTHING}"))
        .says("no server has it")
        .says("hint: ");
    let notes = item("notes");
    // Without --keep-going, nothing is fetched when something cannot be had.
    sandbox
        .subst(&url, &["fetch", NOTHING, &notes])
        .exits(1)
        .prints("");
    let some = sandbox
        .subst(&url, &["fetch", "--keep-going", NOTHING, &notes])
        .exits(1);
    some.prints(&format!("{notes}\n"));
}

#[test]
fn fetch_and_query_agree_on_answers() {
    let sandbox = Sandbox::new();
    let (refused, notes) = (Kind::Guix.url(), item("notes"));
    let preparing = Server::start(|_| Reply::new("202 Accepted", ""));
    let missing = Server::start(|_| Reply::not_found());
    // The only keys are those of the official servers.
    let subst = |command: &str, other: &Server| {
        let urls = format!("{refused} {}", other.url());
        let mut command = sandbox.bare(&[command, &notes, "--substitute-urls", &urls]);
        command.arg("--root").arg(sandbox.root());
        run(command)
    };
    let query = subst("query", &preparing).exits(1);
    assert!(query.stdout.starts_with("preparing"), "{}", query.stdout);
    let fetch = subst("fetch", &preparing)
        .exits(1)
        .says("a server is preparing it");
    fetch
        .says(&format!("{}: is preparing it (HTTP ", preparing.url()))
        .says("--wait 10m");
    let fetch = subst("fetch", &missing)
        .exits(3)
        .says("no server's narinfo can be trusted\n");
    let fetch = fetch.says(&format!(
        "\n    {}: does not have it (HTTP 404)\n",
        missing.url()
    ));
    fetch
        .says(&format!("\n    {refused}: "))
        .says("not authorized")
        .says("subst authorize");
}

#[test]
fn an_unreachable_server_is_no_negative_answer() {
    let sandbox = Sandbox::new();
    sandbox
        .subst(UNREACHABLE, &["fetch", &item("notes")])
        .exits(4)
        .prints("")
        .says(UNREACHABLE);
    sandbox
        .subst(UNREACHABLE, &["fetch", "--offline", &item("notes")])
        .exits(4)
        .prints("");
}

#[test]
fn references_must_be_valid_when_they_are_not_fetched() {
    let sandbox = Sandbox::new();
    let url = Kind::Guix.url();
    let (tools, notes) = (item("tools"), item("notes"));
    let refused = sandbox
        .subst(&url, &["fetch", "--no-references", &tools])
        .exits(1);
    let words = "subst-notes-1.0, which is not valid, and references are not to be fetched";
    refused
        .prints("")
        .says("it refers to")
        .says(words)
        .says("hint: without --no-references");
    // What follows from another failure is counted; these two do not.
    let link = item("link");
    let both = sandbox
        .subst(&url, &["fetch", "--no-references", &tools, &link])
        .exits(1);
    both.says(&format!("cannot fetch {tools}\n"))
        .says(words)
        .says("1 item was not fetched");
    let (copy, program) = (item("copy"), item("program"));
    let both = sandbox
        .subst(&url, &["fetch", "--no-references", &copy, &program])
        .exits(1);
    both.says(&format!("cannot fetch {copy}\n"))
        .says(&format!("cannot fetch {program}\n"));
    sandbox
        .subst(&url, &["fetch", "--no-references", &notes])
        .exits(0);
    sandbox
        .subst(&url, &["fetch", "--no-references", &tools])
        .exits(0);
}

#[test]
fn output_unpacks_without_a_store() {
    let sandbox = Sandbox::new();
    let url = Kind::Guix.url();
    let (tools, notes) = (item("tools"), item("notes"));
    let output = |destination: &str, path: &str| {
        sandbox.subst(&url, &["fetch", "--output", destination, path])
    };
    output("tree", &tools).exits(0).prints("tree\n");
    assert!(sandbox.path("tree/bin/show").is_file());
    assert!(!sandbox.store().exists());
    output("file", &notes).exits(0).prints("file\n");
    assert_eq!(std::fs::read(sandbox.path("file")).unwrap().len(), 12_892);
    output("tree", &notes).exits(2).says("already exists");
    output("no/such/directory", &notes).exits(5);
    output("missing", NOTHING).exits(1);
    assert!(!sandbox.path("missing").exists());
}

#[test]
fn a_closed_output_pipe_is_no_failure() {
    let sandbox = Sandbox::new();
    for arguments in [&["query", "--json", &item("tools")] as &[&str], &["--help"]] {
        let mut command = sandbox.command(Kind::Guix, &Kind::Guix.url(), arguments);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        command
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        assert_eq!(
            (child.wait().unwrap().code(), &*stderr),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
}

#[test]
fn text_from_servers_is_escaped() {
    let sandbox = Sandbox::new();
    let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
    let tools = item("tools");
    fixture.edit(&tools, |text| format!("\u{1b}[31m{text}"));
    let ended = sandbox.subst(&fixture.url(), &["fetch", &tools]).exits(3);
    assert!(!ended.stderr.contains('\u{1b}'), "{}", ended.stderr);
    let table = sandbox.subst(&fixture.url(), &["query", &tools]).exits(3);
    assert!(!table.stdout.contains('\u{1b}'), "{}", table.stdout);
}

/// Characters that a terminal interprets, or that reorder or hide text: C1 controls, bidirectional
/// controls, invisible ones.
const CONTROLS: &str =
    "\u{9b}31m\u{85}\u{7f}\u{202e}\u{2066}\u{61c}\u{200b}\u{2028}\u{feff}\u{e0041}";

#[test]
fn control_characters_of_servers_are_escaped_in_data_and_messages() {
    let sandbox = Sandbox::new();
    let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
    let (tools, url) = (item("tools"), fixture.url());
    fixture.edit(&tools, |text| format!("{CONTROLS}{text}"));
    let cache_info = format!("StoreDir: /x{CONTROLS}\n");
    let commands: [&[&str]; 9] = [
        &["query", &tools],
        &["query", "--json", &tools],
        &["query", "--json", "--cache-miss-report", &tools],
        &["query", "--cache-miss-report", &tools],
        &["query", "--offline", "--json", &tools],
        &["fetch", "--json", "--progress", "json", &tools],
        &["fetch", "--dry-run", "--json", &tools],
        &["servers", "--json"],
        &["servers"],
    ];
    for is_other_store in [false, true] {
        if is_other_store {
            std::fs::write(fixture.dir.join("nix-cache-info"), &cache_info).unwrap();
            sandbox.remove_root();
        }
        for arguments in commands {
            let ended = sandbox.subst(&url, arguments);
            let text = format!("{}{}", ended.stdout, ended.stderr);
            let raw = text
                .chars()
                .filter(|c| CONTROLS.contains(*c) && !c.is_ascii_graphic());
            assert_eq!(raw.collect::<String>(), "", "{arguments:?}: {text}");
        }
    }

    let unknown = format!("--{CONTROLS}");
    let usage = sandbox.subst(&url, &["query", &unknown]).exits(2).stderr;
    assert!(
        usage.contains("\\u{9b}") && !usage.contains('\u{9b}'),
        "{usage}"
    );

    // Escaped, not removed: the data is the same.
    let servers = sandbox.subst(&url, &["servers", "--json"]).json();
    assert_eq!(servers[0]["store_dir"], format!("/x{CONTROLS}"));
}
