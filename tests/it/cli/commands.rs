//! `subst cache`, `servers` and `authorize`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{NOTHING, UNREACHABLE};
use crate::support::sandbox::{run, run_with_input};
use crate::support::{Kind, Reply, Run, Sandbox, Server, item};

/// What the lookup cache counts as entries of this kind.
fn count(sandbox: &Sandbox, kind: &str) -> u64 {
    let info = sandbox
        .subst(UNREACHABLE, &["cache", "info", "--json"])
        .exits(0)
        .json();
    info[kind].as_u64().unwrap_or_else(|| panic!("{info:#}"))
}

#[test]
fn expired_entries_of_the_lookup_cache_are_removed_by_later_runs() {
    let sandbox = Sandbox::new();
    let (url, tools, notes) = (Kind::Guix.url(), item("tools"), item("notes"));
    sandbox.subst(&url, &["query", &tools, NOTHING]).exits(1);
    assert_eq!(count(&sandbox, "negative"), 1);

    let cache = sandbox.root().join("var/guix/subst/lookups-v1.sqlite");
    let connection = rusqlite::Connection::open(cache).unwrap();
    let expire = "UPDATE lookups SET expires_at = 1 WHERE status IS NOT NULL";
    assert_eq!(connection.execute(expire, []).unwrap(), 1);
    assert_eq!(count(&sandbox, "expired"), 1);

    // Once a day is enough,
    sandbox.subst(&url, &["query", &notes]).exits(0);
    assert_eq!(count(&sandbox, "expired"), 1);

    // and the last time was long ago.
    connection
        .execute("UPDATE sweeps SET swept_at = 1", [])
        .unwrap();
    sandbox.subst(&url, &["query", &notes]).exits(0);
    assert_eq!(count(&sandbox, "expired"), 0);
    assert_eq!(count(&sandbox, "negative"), 0);
    assert_eq!(count(&sandbox, "positive"), 2);
}

#[test]
fn the_lookup_cache_can_be_inspected_and_cleared() {
    let sandbox = Sandbox::new();
    let (url, tools, notes) = (Kind::Guix.url(), item("tools"), item("notes"));
    assert_eq!(count(&sandbox, "positive"), 0);
    sandbox
        .subst(&url, &["query", &tools, &notes, NOTHING])
        .exits(1);
    assert_eq!(
        (count(&sandbox, "positive"), count(&sandbox, "negative")),
        (2, 1)
    );
    let info = sandbox.subst(UNREACHABLE, &["cache", "info"]).exits(0);
    assert!(info.stdout.contains("positive   2") && info.stdout.contains("integrity  ok"));

    assert_lists_lookups(&sandbox, &url, &tools);
    assert_removes_entries(&sandbox, &tools);
}

/// `cache list` shows the two items that `url` has and the one that it does not have.
fn assert_lists_lookups(sandbox: &Sandbox, url: &str, tools: &str) {
    let list = sandbox
        .subst(UNREACHABLE, &["cache", "list"])
        .exits(0)
        .stdout;
    assert_eq!(list.lines().count(), 3, "{list}");
    assert!(list.contains(tools) && list.contains(url), "{list}");
    // 36 hours, or less from the second second on.
    assert!(
        list.contains("1 d 12 h left") || list.contains("1 d 11 h left"),
        "{list}"
    );
    let json = sandbox
        .subst(UNREACHABLE, &["cache", "list", "--json"])
        .exits(0)
        .json();
    let negative = json
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["answer"] == "negative");
    let negative = negative.unwrap();
    assert_eq!(
        (&negative["server"], &negative["reason"]),
        (&url.into(), &serde_json::Value::Null)
    );
    assert!(
        negative["expires_in"]
            .as_u64()
            .is_some_and(|left| left <= 120 && left > 100)
    );
}

/// `cache prune` and `cache flush` remove the entries that they are told to.
fn assert_removes_entries(sandbox: &Sandbox, tools: &str) {
    sandbox
        .subst(UNREACHABLE, &["cache", "prune"])
        .exits(0)
        .says("0 expired entries removed from ");
    let file = sandbox
        .subst(UNREACHABLE, &["cache", "info", "--json"])
        .exits(0)
        .json();
    sandbox
        .subst(UNREACHABLE, &["cache", "flush", tools])
        .exits(0)
        .says(&format!(
            "1 entry removed from {}",
            file["file"].as_str().unwrap()
        ));
    assert_eq!(count(sandbox, "positive"), 1);
    sandbox
        .subst(UNREACHABLE, &["cache", "flush", "--server", UNREACHABLE])
        .exits(0)
        .says("0 entries removed");
    assert_eq!(count(sandbox, "positive"), 1);
    sandbox
        .subst(UNREACHABLE, &["cache", "flush"])
        .exits(0)
        .says("2 entries removed");
    assert_eq!(
        (count(sandbox, "positive"), count(sandbox, "negative")),
        (0, 0)
    );
}

/// A mistyped server would leave its entries, and a script would not notice.
#[test]
fn a_server_that_the_lookup_cache_does_not_know_is_an_error() {
    let sandbox = Sandbox::new();
    let url = Kind::Guix.url();
    sandbox.subst(&url, &["query", &item("tools")]).exits(0);
    let mistyped = format!("{url}s");
    let flush = ["cache", "flush", "--server", &mistyped];
    sandbox
        .subst(UNREACHABLE, &flush)
        .exits(2)
        .says(&format!("no answer of {mistyped}; did you mean `{url}`?"));
    sandbox
        .subst(
            UNREACHABLE,
            &["cache", "flush", "--server", "http://a.example"],
        )
        .exits(2)
        .says(&format!("`subst cache list` shows those of {url}"));
    assert_eq!(count(&sandbox, "positive"), 1);
    let flush = ["cache", "flush", "--server", &url];
    sandbox.subst(UNREACHABLE, &flush).exits(0);
    assert_eq!(count(&sandbox, "positive"), 0);
}

#[test]
fn an_empty_lookup_cache_is_named() {
    let sandbox = Sandbox::new();
    for command in [
        &["cache", "list"][..],
        &["cache", "flush"],
        &["cache", "prune"],
    ] {
        sandbox
            .subst(UNREACHABLE, command)
            .exits(0)
            .prints("")
            .says("there is no lookup cache at ");
    }
    sandbox
        .subst(UNREACHABLE, &["cache", "info"])
        .exits(0)
        .prints("unfinished no downloads\n")
        .says("there is no lookup cache at ");
    assert!(!sandbox.root().exists());
}

/// As for users without a home.
#[test]
fn there_is_no_lookup_cache_where_none_can_be() {
    for home in ["XDG_CACHE_HOME", "HOME"] {
        for command in ["list", "info", "flush", "prune", "clear"] {
            let sandbox = Sandbox::new();
            let mut command = sandbox.bare(&["cache", command]);
            command
                .env(home, "/dev/null")
                .env("GUIX_STATE_DIRECTORY", sandbox.path("no-state"));
            run(command).exits(0);
        }
    }
}

#[test]
fn a_lookup_cache_that_cannot_be_opened_is_an_error_of_the_commands_about_it() {
    for in_the_way in ["var/guix/subst", "var/guix/subst/lookups-v1.sqlite"] {
        let sandbox = Sandbox::new();
        let path = sandbox.root().join(in_the_way);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if in_the_way.ends_with("subst") {
            std::fs::write(&path, "").unwrap();
        } else {
            std::fs::create_dir(&path).unwrap();
        }
        for command in ["list", "info", "flush", "prune", "clear"] {
            let run = sandbox.subst(UNREACHABLE, &["cache", command]).exits(5);
            let run = run.prints("").says("error: the lookup cache ");
            let run = run.says("lookups-v1.sqlite cannot be used");
            assert!(!run.stderr.contains("this run"), "{}", run.stderr);
        }
        // Those that only use it go on, and say what that means.
        sandbox
            .subst(&Kind::Guix.url(), &["query", &item("tools")])
            .exits(0)
            .says("answers are cached for this run only");
    }
}

#[test]
fn the_damaged_lookup_cache_that_was_set_aside_is_cleared_too() {
    let sandbox = Sandbox::new();
    sandbox
        .subst(&Kind::Guix.url(), &["query", &item("tools")])
        .exits(0);
    let cache = sandbox.root().join("var/guix/subst/lookups-v1.sqlite");
    std::fs::write(&cache, [b'x'; 5000]).unwrap();
    let damaged = cache.with_extension("damaged");
    sandbox
        .subst(UNREACHABLE, &["cache", "info"])
        .exits(0)
        .says("was damaged");
    assert!(damaged.exists());
    sandbox.subst(UNREACHABLE, &["cache", "clear"]).exits(0);
    assert!(!damaged.exists() && cache.exists());
}

/// To `cache flush`, no item would mean all of them.
#[test]
fn standard_input_without_items_is_an_error() {
    let sandbox = Sandbox::new();
    let url = Kind::Guix.url();
    sandbox.subst(&url, &["query", &item("tools")]).exits(0);
    for command in [
        &["query", "-"][..],
        &["fetch", "-"],
        &["cache", "flush", "-"],
    ] {
        for input in ["", "\n \n"] {
            let command = sandbox.command(Kind::Guix, &url, command);
            run_with_input(command, input)
                .exits(2)
                .prints("")
                .says("standard input has no name of a store item");
        }
    }
    assert_eq!(count(&sandbox, "positive"), 1);
    let mixed = sandbox.command(Kind::Guix, &url, &["query", "-", &item("tools")]);
    run_with_input(mixed, "").exits(0);
}

#[test]
fn wrong_arguments_create_no_lookup_cache() {
    let sandbox = Sandbox::new();
    sandbox
        .subst(UNREACHABLE, &["cache", "flush", "--server", "foo"])
        .exits(2)
        .says("--server");
    sandbox
        .subst(UNREACHABLE, &["cache", "flush", "foo"])
        .exits(2);
    assert!(!sandbox.root().exists());
}

#[test]
fn a_broken_lookup_cache_is_created_again() {
    let sandbox = Sandbox::new();
    let url = Kind::Guix.url();
    sandbox.subst(&url, &["query", &item("tools")]).exits(0);
    let info = sandbox
        .subst(UNREACHABLE, &["cache", "info", "--json"])
        .exits(0)
        .json();
    std::fs::write(info["file"].as_str().unwrap(), "no database at all").unwrap();
    sandbox.subst(&url, &["query", &item("tools")]).exits(0);
    assert_eq!(count(&sandbox, "positive"), 1);
}

#[test]
fn a_server_that_answers_with_an_error_is_not_up() {
    let sandbox = Sandbox::new();
    let broken = Server::start(|_| Reply::new("500 Oh", ""));
    let text = sandbox.subst(&broken.url(), &["servers"]).exits(4).stdout;
    assert!(
        text.contains("  error, answered in") && text.contains("status 500"),
        "{text}"
    );
    assert!(!text.contains("no nix-cache-info"), "{text}");
    let json = sandbox
        .subst(&broken.url(), &["servers", "--json"])
        .exits(4)
        .json();
    assert_eq!(json[0]["state"], "error");
    let unknown = ["store_dir", "want_mass_query", "priority"];
    assert!(unknown.iter().all(|key| json[0][key].is_null()), "{json}");

    // The time is that of the answer, without further attempts.
    let busy = Server::start(|_| Reply::new("503 Busy", ""));
    let text = sandbox.subst(&busy.url(), &["servers"]).exits(4).stdout;
    assert!(text.contains("  error, answered in"), "{text}");
    assert_eq!(busy.requests_for("/nix-cache-info"), 1);

    let bare = Server::start(|_| Reply::not_found());
    let text = sandbox.subst(&bare.url(), &["servers"]).exits(0).stdout;
    assert!(
        text.contains("it has no nix-cache-info: its address may be wrong"),
        "{text}"
    );
}

#[test]
fn a_missing_server_directory_is_down() {
    let sandbox = Sandbox::new();
    let nowhere = format!("file://{}", sandbox.path("nowhere").display());
    let text = sandbox.subst(&nowhere, &["servers"]).exits(4).stdout;
    assert!(
        text.contains("  down: cannot open the directory: No such file"),
        "{text}"
    );
    let query = sandbox
        .subst(&nowhere, &["query", "--json", &item("tools")])
        .exits(4)
        .json();
    assert_eq!(query["items"][0]["status"], "unknown");
    assert_eq!(query["servers"][0]["state"], "down");
    // It may come back, as a file system that is mounted does.
    let both = format!("{nowhere} {}", Kind::Guix.url());
    sandbox.subst(&both, &["query", &item("tools")]).exits(0);
    sandbox
        .subst("file:relative", &["servers"])
        .exits(2)
        .says("file:///srv/substitutes");
}

#[test]
fn without_a_server_there_is_no_negative_answer() {
    let sandbox = Sandbox::new();
    for arguments in [&["query", NOTHING][..], &["servers"]] {
        let run = sandbox
            .subst("", arguments)
            .exits(2)
            .says("no substitute server is configured");
        run.says("hint: ").prints("");
    }
    // What is valid already needs no server; what is not can only be built.
    sandbox
        .subst("", &["fetch", NOTHING])
        .exits(1)
        .says("no server is configured");
}

#[test]
fn servers_shows_the_properties_of_each_server() {
    let sandbox = Sandbox::new();
    let url = Kind::Guix.url();
    let both = format!("{url} {UNREACHABLE}");
    let text = sandbox.subst(&both, &["servers"]).exits(4).stdout;
    assert!(
        text.contains("up, answered in") && text.contains("store /gnu/store"),
        "{text}"
    );
    assert!(text.contains("down: "), "{text}");
    let rows = sandbox.subst(&both, &["servers", "--json"]).exits(4).json();
    assert_eq!(
        (&rows[0]["state"], &rows[1]["state"]),
        (&"up".into(), &"down".into())
    );
    let other = sandbox
        .subst(&Kind::NixXz.url(), &["servers", "--json"])
        .exits(0)
        .json();
    assert_eq!(other[0]["state"], "other-store");
}

/// The program on a root of its own, with the ACL in it.
fn with_own_acl(sandbox: &Sandbox, arguments: &[&str], input: &str) -> Run {
    let mut command = sandbox.bare(arguments);
    command
        .arg("--root")
        .arg(sandbox.root())
        .args(["--substitute-urls", &Kind::Guix.url()]);
    run_with_input(command, input)
}

#[test]
fn authorize_makes_a_server_trusted() {
    let key = Kind::Guix.directory().join("signing-key.pub");
    let text = std::fs::read_to_string(&key).unwrap();
    let notes = item("notes");
    for (argument, input) in [(key.to_str(), ""), (None, &*text), (Some("-"), &*text)] {
        let sandbox = Sandbox::new();
        with_own_acl(&sandbox, &["fetch", &notes], "")
            .exits(3)
            .says("not authorized");
        let arguments: Vec<&str> = ["authorize"].into_iter().chain(argument).collect();
        with_own_acl(&sandbox, &arguments, input)
            .exits(0)
            .prints("")
            .says("authorized now");
        with_own_acl(&sandbox, &arguments, input)
            .exits(0)
            .says("already");
        with_own_acl(&sandbox, &["fetch", &notes], "")
            .exits(0)
            .prints(&format!("{notes}\n"));
    }
}

#[test]
fn authorize_rejects_an_invalid_key_and_keeps_the_acl() {
    let sandbox = Sandbox::new();
    let key = std::fs::read_to_string(Kind::Guix.directory().join("signing-key.pub")).unwrap();
    with_own_acl(&sandbox, &["authorize"], &key).exits(0);
    let acl = sandbox.root().join("etc/guix/acl");
    let before = std::fs::read(&acl).unwrap();
    for wrong in [
        "",
        "(public-key)",
        "garbage",
        &key.replace("Ed25519", "Ed25518"),
    ] {
        with_own_acl(&sandbox, &["authorize"], wrong)
            .exits(2)
            .says("has no key that can be authorized");
    }
    assert_eq!(std::fs::read(&acl).unwrap(), before);
    std::fs::write(&acl, "(acl").unwrap();
    with_own_acl(&sandbox, &["authorize"], &key)
        .exits(3)
        .says("is invalid");
    assert_eq!(std::fs::read(&acl).unwrap(), b"(acl");
    with_own_acl(&sandbox, &["fetch", &item("notes")], "").exits(3);
}

/// Anyone can sign for a key of small order, and for a short RSA key with some effort.
#[test]
fn a_weak_key_is_neither_authorized_nor_used() {
    let identity = format!("01{}", "00".repeat(31));
    let modulus = format!("C0{}", "FF".repeat(127));
    for (numbers, name, why) in [
        (
            format!("(ecc (curve Ed25519) (q #{identity}#))"),
            &identity[..16],
            "a point of small order",
        ),
        (
            format!("(rsa (n #{modulus}#) (e #010001#))"),
            "",
            "an RSA key of 1024 bits is not accepted",
        ),
    ] {
        let key = format!("(public-key {numbers})");
        let sandbox = Sandbox::new();
        with_own_acl(&sandbox, &["authorize"], &key)
            .exits(2)
            .says(why);

        let acl = format!("(acl (entry {key} (tag (guix import))))");
        std::fs::create_dir_all(sandbox.root().join("etc/guix")).unwrap();
        std::fs::write(sandbox.root().join("etc/guix/acl"), acl).unwrap();
        with_own_acl(&sandbox, &["fetch", &item("notes")], "")
            .exits(3)
            .says(&format!("the key {name}"))
            .says(why);
    }
}

/// Everything below `directory`, without the lookup cache.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in directory.read_dir().into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(entries(&path));
        }
        if !name.starts_with("lookups-v1.") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn commands_that_only_read_create_nothing() {
    let sandbox = Sandbox::new();
    let (url, tools) = (Kind::Guix.url(), item("tools"));
    let not_recording: [&[&str]; 7] = [
        &["servers"],
        &["servers", "--offline"],
        &["cache", "info"],
        &["cache", "list"],
        &["cache", "flush"],
        &["cache", "prune"],
        &["cache", "clear"],
    ];
    let recording: [&[&str]; 4] = [
        &["query", &tools],
        &["query", "--closure", "--cache-miss-report", &tools],
        &["fetch", "--dry-run", &tools],
        &["query", "--offline", &tools],
    ];

    for arguments in not_recording {
        sandbox.subst(&url, arguments).exits(0);
        assert!(!sandbox.root().exists(), "{arguments:?}");
    }

    // Lookups are recorded, in a directory that has nothing else.
    let lookup_cache = sandbox.root().join("var/guix/subst");
    for arguments in recording {
        sandbox.subst(&url, arguments).exits(0);
        let parents = lookup_cache.ancestors();
        let mut expected: Vec<PathBuf> = parents.take(3).map(Path::to_owned).collect();
        expected.sort();
        assert_eq!(entries(&sandbox.root()), expected, "{arguments:?}");
    }

    sandbox.subst(&url, &["fetch", &item("notes")]).exits(0);
    let before = entries(&sandbox.root());
    for arguments in not_recording[..4].iter().chain(&recording) {
        sandbox.subst(&url, arguments).exits(0);
        assert_eq!(entries(&sandbox.root()), before, "{arguments:?}");
    }
}

#[test]
fn where_no_guix_is_installed_its_state_directory_is_not_created() {
    let sandbox = Sandbox::new();
    let (url, state) = (Kind::Guix.url(), sandbox.path("no-guix/var/guix"));
    let tools = item("tools");
    let commands: [&[&str]; 4] = [
        &["query", &tools],
        &["fetch", "--dry-run", &tools],
        &["servers"],
        &["cache", "info"],
    ];
    for arguments in commands {
        let mut command = sandbox.bare(arguments);
        command
            .env("GUIX_STATE_DIRECTORY", &state)
            .env("GUIX_CONFIGURATION_DIRECTORY", Kind::Guix.directory())
            .args(["--substitute-urls", &url]);
        let ended = run(command).exits(0);
        assert!(
            !ended.stderr.contains("warning: cannot"),
            "{}",
            ended.stderr
        );
        assert!(!sandbox.path("no-guix").exists(), "{arguments:?}");
    }
    assert!(
        sandbox
            .path("home/.cache/subst/lookups-v1.sqlite")
            .is_file()
    );
}

#[test]
fn without_an_acl_the_keys_of_a_store_of_ones_own_are_named() {
    let (sandbox, tools) = (Sandbox::new(), item("tools"));
    let system = |configuration: &Path, arguments: &[&str]| {
        let mut command = sandbox.bare(arguments);
        command
            .env("GUIX_STATE_DIRECTORY", sandbox.path("state"))
            .env("GUIX_CONFIGURATION_DIRECTORY", configuration)
            .args(["--substitute-urls", &Kind::Guix.url()]);
        run(command)
    };
    let named = "8D156F295D24B0D9 of ci.guix.gnu.org and 7D602902D3A2DBB8 of bordeaux.guix.gnu.org";
    system(&sandbox.path("none"), &["query", &tools])
        .exits(3)
        .says("there is no ACL at ")
        .says("`subst fetch --root DIR`")
        .says(named);

    // An ACL that this user may not read; root reads everything.
    if !rustix::process::geteuid().is_root() {
        let acl = sandbox.write_config("etc/acl", "(acl)");
        std::fs::set_permissions(&acl, std::fs::Permissions::from_mode(0o000)).unwrap();
        system(&sandbox.path("etc"), &["query", &tools])
            .exits(3)
            .says("may not read the ACL ")
            .says(named);
    }
}
