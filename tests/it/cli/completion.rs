//! Completions: the words that are offered, and real shells that offer them.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use super::UNREACHABLE;
use crate::support::sandbox::run;
use crate::support::{Kind, Sandbox, item};

/// What is offered in place of the last of `words`, without what it means.
fn offered(sandbox: &Sandbox, words: &[&str]) -> Vec<String> {
    let mut command = sandbox.bare(&["complete-words", "--"]);
    command.args(words);
    let text = run(command).exits(0).stdout;
    let words = text.lines().filter_map(|line| line.split('\t').next());
    words.map(str::to_owned).collect()
}

#[test]
fn completions_contain_the_commands() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "fish", "zsh"] {
        let script = run(sandbox.bare(&["completions", shell])).exits(0).stdout;
        assert!(script.contains("complete-words"), "{shell}");
    }
    assert_eq!(offered(&sandbox, &["auth"]), ["words", "authorize"]);
    assert_eq!(
        offered(&sandbox, &["fetch", "--keep"]),
        ["words", "--keep-going"]
    );
    assert_eq!(offered(&sandbox, &["authorize", ""]), ["files"]);
    assert_eq!(offered(&sandbox, &["fetch", "--root", ""]), ["directories"]);
}

#[test]
fn servers_and_items_of_the_lookup_cache_are_offered() {
    let sandbox = Sandbox::new();
    let (url, tools, notes) = (Kind::Guix.url(), item("tools"), item("notes"));
    sandbox
        .subst(&url, &["query", &tools, &notes, super::NOTHING])
        .exits(1);
    let root = sandbox.root().display().to_string();

    let all = offered(&sandbox, &["fetch", "--root", &root, ""]);
    assert!(all.contains(&tools) && all.contains(&notes), "{all:?}");
    assert!(!all.contains(&super::NOTHING.to_owned()), "{all:?}");
    let prefix = &tools[.."/gnu/store/".len() + 8];
    assert_eq!(
        offered(&sandbox, &["query", "--root", &root, prefix]),
        ["words", &tools]
    );

    let option = format!("--root={root}");
    let urls = offered(&sandbox, &["cache", "flush", &option, "--server", "fil"]);
    assert_eq!(urls, ["words", &url]);
    let urls = offered(&sandbox, &["fetch", &option, "--substitute-urls=fil"]);
    assert_eq!(urls, ["words", &format!("--substitute-urls={url}")]);

    // An invalid setting only means that less is known.
    assert_eq!(
        offered(&sandbox, &["fetch", &option, "--jobs", "0", ""]),
        ["words"]
    );
}

#[test]
fn completion_creates_nothing_and_prints_no_control_characters() {
    let sandbox = Sandbox::new();
    let root = sandbox.root().display().to_string();
    offered(&sandbox, &["fetch", "--root", &root, ""]);
    assert!(!sandbox.root().exists());

    let url = Kind::Guix.url();
    sandbox.subst(&url, &["query", &item("tools")]).exits(0);
    let directory = sandbox.root().join("var/guix/subst");
    let cache = directory.join("lookups-v1.sqlite");
    let connection = rusqlite::Connection::open(&cache).unwrap();
    let change = "UPDATE lookups SET text = 'StorePath: /gnu/store/x' || char(27) || '[31m'";
    connection.execute(change, []).unwrap();
    let change = "INSERT INTO servers (url) VALUES ('http://a/' || char(27) || 'b')";
    connection.execute(change, []).unwrap();
    drop(connection);

    let files = || {
        let entries = std::fs::read_dir(&directory).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = files();
    assert_eq!(
        offered(&sandbox, &["fetch", "--root", &root, ""]),
        ["words"]
    );
    let urls = offered(
        &sandbox,
        &["servers", "--root", &root, "--substitute-urls", ""],
    );
    assert!(
        urls.contains(&url) && !urls.concat().contains('\u{1b}'),
        "{urls:?}"
    );
    assert_eq!(files(), before);

    std::fs::write(&cache, "no database at all").unwrap();
    assert_eq!(
        offered(&sandbox, &["fetch", "--root", &root, ""]),
        ["words"]
    );
}

/// Names come from servers, and shells insert them as they are.
/// Files that SQLite creates for the time of a query would change the directory, which may be another user's.
#[test]
fn completion_only_reads_the_lookup_cache_and_follows_no_link_to_it() {
    let sandbox = Sandbox::new();
    let root = sandbox.root().display().to_string();
    let url = Kind::Guix.url();
    sandbox.subst(&url, &["query", &item("tools")]).exits(0);
    let directory = sandbox.root().join("var/guix/subst");
    let cache = directory.join("lookups-v1.sqlite");

    let long_ago = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let assert_offers = |expected: &[String]| {
        let opened = File::open(&directory).unwrap();
        opened.set_modified(long_ago).unwrap();
        let items = offered(&sandbox, &["fetch", "--root", &root, "/gnu"]);
        assert_eq!(items[1..], *expected);
        let modified = directory.metadata().unwrap().modified().unwrap();
        assert_eq!(modified, long_ago, "a file was created in the directory");
    };
    assert_offers(&[item("tools")]);

    let moved = sandbox.path("moved.sqlite");
    std::fs::rename(&cache, &moved).unwrap();
    assert_offers(&[]);
    symlink(&moved, &cache).unwrap();
    assert_offers(&[]);
}

#[test]
fn no_offered_name_means_anything_to_a_shell() {
    let sandbox = Sandbox::new();
    let (url, tools) = (Kind::Guix.url(), item("tools"));
    sandbox.subst(&url, &["query", &tools]).exits(0);

    let cache = sandbox.root().join("var/guix/subst/lookups-v1.sqlite");
    let connection = rusqlite::Connection::open(cache).unwrap();
    for name in [
        "$(id)", "`id`", "a;id", "a&id", "a|id", "a>b", "a'b", "{a,b}", "*", "!x",
    ] {
        let change = "INSERT INTO servers (url) VALUES ('http://evil/' || ?1)";
        connection.execute(change, [name]).unwrap();
    }
    drop(connection);

    let root = format!("--root={}", sandbox.root().display());
    let urls = offered(
        &sandbox,
        &["servers", &root, "--substitute-urls", "http://evil"],
    );
    let is_harmless = |c: char| c.is_ascii_alphanumeric() || "/:.-_~+%@=,".contains(c);
    assert!(
        urls.iter().all(|url| url.chars().all(is_harmless)),
        "{urls:?}"
    );
}

#[test]
fn completion_does_not_wait_for_a_pipe_in_place_of_the_lookup_cache() {
    let sandbox = Sandbox::new();
    let directory = sandbox.root().join("var/guix/subst");
    std::fs::create_dir_all(&directory).unwrap();
    let cache = directory.join("lookups-v1.sqlite");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &cache, rustix::fs::FileType::Fifo, mode, 0).unwrap();

    let root = format!("--root={}", sandbox.root().display());
    assert_eq!(offered(&sandbox, &["fetch", &root, ""]), ["words"]);
}

/// Offers of bash for a command line with the cursor at its end.
fn offered_by_bash(sandbox: &Sandbox, line: &str) -> Vec<String> {
    let script = run(sandbox.bare(&["completions", "bash"])).exits(0).stdout;
    sandbox.write_safely("subst.bash", &script);
    // As readline does: it splits at blanks, ':' and '='.
    let driver = r#"
        set -u
        source ./subst.bash
        COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDS=()
        rest=$1
        while [[ -n $rest ]]; do
            if [[ $rest =~ ^[[:blank:]]+ ]]; then
                rest=${rest:${#BASH_REMATCH[0]}}
                [[ -n $rest ]] || COMP_WORDS+=("")
            elif [[ $rest =~ ^[:=]+ || $rest =~ ^[^[:blank:]:=]+ ]]; then
                COMP_WORDS+=("${BASH_REMATCH[0]}")
                rest=${rest:${#BASH_REMATCH[0]}}
            fi
        done
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _subst
        printf '%s\n' "${COMPREPLY[@]+"${COMPREPLY[@]}"}"
    "#;
    let mut bash = Command::new("bash");
    let program = env!("CARGO_BIN_EXE_subst");
    bash.args(["--norc", "-c", driver, "bash", &format!("{program} {line}")])
        .env_clear()
        .env("HOME", sandbox.path("home"))
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("SUBST_CONFIG", sandbox.path("config.toml"))
        .current_dir(sandbox.path(""));
    let offered = run(bash).exits(0);
    assert_eq!(offered.stderr, "");
    let mut words: Vec<_> = offered.stdout.lines().map(str::to_owned).collect();
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn bash_completes_commands_options_files_servers_and_items() {
    if Command::new("bash").arg("--version").output().is_err() {
        println!("skipped: bash is not installed");
        return;
    }
    let sandbox = Sandbox::new();
    let (url, tools) = (Kind::Guix.url(), item("tools"));
    sandbox.subst(&url, &["query", &tools]).exits(0);
    sandbox.subst(UNREACHABLE, &["query", &tools]);
    std::fs::create_dir(sandbox.path("rooms")).unwrap();

    assert_eq!(offered_by_bash(&sandbox, "auth"), ["authorize"]);
    assert_eq!(offered_by_bash(&sandbox, "fetch --keep"), ["--keep-going"]);
    assert_eq!(offered_by_bash(&sandbox, "fetch --progress p"), ["plain"]);
    assert_eq!(offered_by_bash(&sandbox, "fetch --progress=p"), ["plain"]);
    assert_eq!(offered_by_bash(&sandbox, "authorize con"), ["config.toml"]);
    let mut directories = offered_by_bash(&sandbox, "query --root ro");
    directories.sort();
    assert_eq!(directories, ["rooms", "root"]);
    assert_eq!(offered_by_bash(&sandbox, "query --root=roo").len(), 2);

    // Only what follows the last ':' is replaced.
    assert_eq!(
        offered_by_bash(&sandbox, "query --root root /gnu/st"),
        [&*tools]
    );
    let servers = offered_by_bash(&sandbox, "cache flush --root root --server http://127");
    assert_eq!(servers, ["//127.0.0.1:1"]);
    let servers = offered_by_bash(&sandbox, "cache flush --root root --server http:");
    assert_eq!(servers, ["//127.0.0.1:1"]);
}
