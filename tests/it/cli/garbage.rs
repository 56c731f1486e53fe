//! `subst gc`, `subst roots` and `subst fetch --gc-root`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::{NOTHING, UNREACHABLE};
use crate::support::fixture::base;
use crate::support::listing::{items, rows, sorted_lines};
use crate::support::sandbox::run;
use crate::support::{Kind, Sandbox, Server, item};

/// The names in the store directory, without `.links`.
fn entries(sandbox: &Sandbox) -> BTreeSet<String> {
    let entries = sandbox.store().read_dir().unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != ".links").collect()
}

/// The base names of valid items.
fn valid(sandbox: &Sandbox) -> BTreeSet<String> {
    let database = sandbox.root().join("var/guix/db/db.sqlite");
    let connection = rusqlite::Connection::open(database).unwrap();
    let mut select = connection.prepare("SELECT path FROM ValidPaths").unwrap();
    let paths = select.query_map([], |row| row.get::<_, String>(0)).unwrap();
    paths.map(|path| base(&path.unwrap()).to_owned()).collect()
}

fn gc(sandbox: &Sandbox, options: &[&str]) -> crate::support::Run {
    sandbox.subst(UNREACHABLE, &[&["gc"], options].concat())
}

fn roots(sandbox: &Sandbox, options: &[&str]) -> crate::support::Run {
    sandbox.subst(UNREACHABLE, &[&["roots"], options].concat())
}

/// In a timer, a mistyped directory would succeed for ever, and delete nothing.
#[test]
fn a_store_that_is_not_there_is_an_error() {
    let sandbox = Sandbox::new();
    for command in [
        &["gc"][..],
        &["gc", "--dry-run"],
        &["roots"],
        &["roots", "--remove", "ci"],
        &["verify"],
        &["challenge", "--all-valid"],
    ] {
        let quiet = [command, &["--quiet"]].concat();
        sandbox
            .subst(UNREACHABLE, &quiet)
            .exits(5)
            .prints("")
            .says(&format!(
                "no store database in {}",
                sandbox.root().display()
            ))
            .says("--root selects another directory");
    }
    assert!(!sandbox.root().exists());

    // A store of the other kind is there.
    sandbox
        .subst(&Kind::Guix.url(), &["fetch", &item("tools")])
        .exits(0);
    let other = sandbox.command(Kind::NixXz, UNREACHABLE, &["gc"]);
    run(other)
        .exits(5)
        .says("--store-dir /gnu/store selects it");
    // An empty store has nothing to delete, and that is no error.
    gc(&sandbox, &[]).exits(0);
    gc(&sandbox, &["-q"]).exits(0).prints("");
}

#[test]
fn what_is_fetched_with_a_root_stays_and_the_rest_is_deleted() {
    let sandbox = Sandbox::new();
    let (url, tools, notes) = (Kind::Guix.url(), item("tools"), item("notes"));
    sandbox.subst(&url, &["fetch", &item("sample")]).exits(0);
    sandbox
        .subst(&url, &["fetch", "--gc-root", "ci", &tools, &notes])
        .exits(0);
    let link = sandbox.root().join("var/guix/gcroots/subst/ci");
    assert_eq!(link.read_link().unwrap(), Path::new(&tools));
    assert_eq!(
        link.with_file_name("ci:1").read_link().unwrap(),
        Path::new(&notes)
    );
    let profiles = sandbox.root().join("var/guix/gcroots/profiles");
    assert_eq!(profiles.read_link().unwrap(), Path::new("../profiles"));
    let listed = roots(&sandbox, &[]).exits(0).stdout;
    assert!(
        listed.starts_with("live ") && listed.contains(&format!("  ci  {tools}\n")),
        "{listed}"
    );

    let before = entries(&sandbox);
    let table = gc(&sandbox, &["--dry-run"])
        .exits(0)
        .says("would be deleted");
    assert_eq!(entries(&sandbox), before);
    let sample = format!("  {}\n", item("sample"));
    assert!(
        table.stdout.contains(&sample) && table.stdout.contains("(root ci)"),
        "{}",
        table.stdout
    );
    let deleted = gc(&sandbox, &[]).exits(0).says("deleted").stdout;
    assert!(
        deleted.starts_with(&item("sample")),
        "referrers come first: {deleted}"
    );
    let gone: BTreeSet<String> = deleted.lines().map(|path| base(path).to_owned()).collect();
    assert_eq!(&before - &gone, entries(&sandbox));
    assert_eq!(entries(&sandbox), valid(&sandbox));
    sandbox
        .subst(UNREACHABLE, &["fetch", &tools, &notes])
        .exits(0);

    assert_removes_roots(&sandbox);
    // What is gone is fetched again as it was.
    sandbox.subst(&url, &["fetch", &item("sample")]).exits(0);
    assert_is_whole(&sandbox);
}

/// Removes the root `ci`, which has two links, so that nothing is left after a collection.
fn assert_removes_roots(sandbox: &Sandbox) {
    let link = sandbox.root().join("var/guix/gcroots/subst/dead");
    // A root of an item that is gone is reported, and removed as any other.
    std::os::unix::fs::symlink(NOTHING, &link).unwrap();
    let listed = roots(sandbox, &[])
        .exits(0)
        .says("1 root keeps nothing")
        .stdout;
    assert!(
        listed.contains(&format!("dead          -  dead  {NOTHING}\n")),
        "{listed}"
    );
    roots(sandbox, &["--remove", "ci", "--remove", "dead"])
        .exits(0)
        .says("3 roots removed");
    roots(sandbox, &["--remove", "ci"])
        .exits(1)
        .says("there is no root ci");
    gc(sandbox, &[]).exits(0);
    assert_eq!(entries(sandbox), BTreeSet::new());
    assert_eq!(
        sandbox.store().join(".links").read_dir().unwrap().count(),
        0
    );
    assert_eq!(valid(sandbox), BTreeSet::new());
}

/// All items are as stock Guix makes them.
#[track_caller]
fn assert_is_whole(sandbox: &Sandbox) {
    let expected = Kind::Guix.expected();
    assert_eq!(
        items(&sandbox.store()),
        sorted_lines(&expected.join("expected.txt"))
    );
    let expected = std::fs::read_to_string(expected.join("expected-rows.txt")).unwrap();
    let database = sandbox.root().join("var/guix/db/db.sqlite");
    assert_eq!(rows(&database), expected.lines().collect::<Vec<_>>());
}

#[test]
fn only_a_store_below_a_root_is_collected() {
    let sandbox = Sandbox::new();
    run(sandbox.bare(&["gc"]))
        .exits(2)
        .says("`guix gc` does this");
    for root in ["/", "/usr/..", "/proc/self/root"] {
        run(sandbox.bare(&["gc", "--root", root]))
            .exits(2)
            .says("`guix gc` does this");
    }
    let nix = run(sandbox.bare(&["gc", "--dry-run", "--store-dir", "/nix/store"]));
    nix.exits(2).says("`nix store gc` does this");
    gc(&sandbox, &["--max-size", "lots"])
        .exits(2)
        .says("a number of bytes");
    for name in ["a/b", ".hidden", "", "a:1"] {
        let fetch = ["fetch", "--gc-root", name, NOTHING];
        sandbox
            .subst(UNREACHABLE, &fetch)
            .exits(2)
            .says("for '--gc-root <NAME>'");
    }
    assert!(!sandbox.root().exists());
}

#[test]
fn the_root_of_an_item_that_cannot_be_fetched_stays_as_it_is() {
    let sandbox = Sandbox::new();
    let (url, tools, notes) = (Kind::Guix.url(), item("tools"), item("notes"));
    sandbox
        .subst(&url, &["fetch", "--gc-root", "a", &notes])
        .exits(0);
    let arguments = ["fetch", "--keep-going", "--gc-root", "a", NOTHING, &tools];
    sandbox.subst(&url, &arguments).exits(1);
    let link = sandbox.root().join("var/guix/gcroots/subst/a");
    assert_eq!(link.read_link().unwrap(), Path::new(&notes));
    assert_eq!(
        link.with_file_name("a:1").read_link().unwrap(),
        Path::new(&tools)
    );
}

/// The names of the roots that `subst fetch` has made, and their items.
fn links(sandbox: &Sandbox) -> Vec<(String, String)> {
    let json = roots(sandbox, &["--json"]).exits(0).json();
    let roots = json["roots"].as_array().unwrap().iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    roots
        .map(|root| (text(&root["name"]), text(&root["item"])))
        .collect()
}

#[test]
fn a_root_of_several_items_has_links_of_its_own() {
    let sandbox = Sandbox::new();
    let (url, tools, notes, copy) = (Kind::Guix.url(), item("tools"), item("notes"), item("copy"));
    let fetch = |arguments: &[&str]| {
        let run = sandbox.subst(
            &url,
            &[&["fetch", "--json", "--gc-root"], arguments].concat(),
        );
        run.exits(0).json()["roots"].clone()
    };
    // Such as an earlier version has made for the second item of `job`.
    fetch(&["job-1", &notes]);
    let planned = fetch(&["job", "--dry-run", &tools, &copy, &notes]);
    assert_eq!(links(&sandbox).len(), 1);
    let made = fetch(&["job", &tools, &copy, &notes]);
    assert_eq!(made, planned);
    assert_eq!(made[1], serde_json::json!({"name": "job:1", "item": copy}));
    fetch(&["job2", &tools, &notes]);

    // A shorter list leaves no link of the longer one.
    fetch(&["job", &copy, &tools]);
    let expected = [
        ("job", &copy),
        ("job-1", &notes),
        ("job2", &tools),
        ("job2:1", &notes),
        ("job:1", &tools),
    ];
    let expected = expected.map(|(name, item)| (name.to_owned(), item.clone()));
    assert_eq!(links(&sandbox), expected);

    let removed = roots(
        &sandbox,
        &["--json", "--remove", "job", "--remove", "job-1"],
    );
    let removed = removed.exits(0).json();
    assert_eq!(
        removed["removed"],
        serde_json::json!(["job", "job:1", "job-1"])
    );
    assert_eq!(links(&sandbox), expected[2..4]);
    roots(&sandbox, &["--remove", "job2:1"])
        .exits(2)
        .says("part of the root NAME");
}

#[test]
fn roots_that_cannot_be_read_are_named_and_stop_a_collection() {
    let sandbox = Sandbox::new();
    let url = Kind::Guix.url();
    sandbox
        .subst(&url, &["fetch", "--gc-root", "ci", &item("notes")])
        .exits(0);
    let gcroots = sandbox.root().join("var/guix/gcroots");
    std::os::unix::fs::symlink("loop", gcroots.join("loop")).unwrap();
    for name in ["one", "two"] {
        std::os::unix::fs::symlink("loop/result", gcroots.join(name)).unwrap();
    }
    let listed = roots(&sandbox, &[])
        .exits(5)
        .says("/gcroots/one")
        .says("/gcroots/two");
    assert!(listed.stdout.starts_with("live "), "{}", listed.stdout);
    let json = roots(&sandbox, &["--json"]).exits(5).json();
    assert_eq!(json["roots"].as_array().unwrap().len(), 1);
    assert_eq!(json["unreadable"].as_array().unwrap().len(), 2);
    gc(&sandbox, &[])
        .exits(5)
        .prints("")
        .says("/gcroots/one")
        .says("/gcroots/two")
        .says("hint: make what it leads to readable");
    assert!(valid(&sandbox).contains(base(&item("notes"))));
}

/// The names of all that is in `directory`, but what the lookup cache keeps.
fn all_names(directory: &Path, names: &mut BTreeSet<std::path::PathBuf>) {
    for entry in directory.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if !path.is_symlink() && path.is_dir() && !path.ends_with("var/guix/subst") {
            all_names(&path, names);
        }
        names.insert(path);
    }
}

#[test]
fn commands_that_only_read_create_nothing() {
    let sandbox = Sandbox::new();
    let (url, notes) = (Kind::Guix.url(), item("notes"));
    sandbox.subst(&url, &["fetch", &notes]).exits(0);
    // Where guix-daemon has made the store and never collected it.
    std::fs::remove_file(sandbox.root().join("var/guix/gc.lock")).unwrap();
    std::fs::remove_file(sandbox.root().join("var/guix/db/big-lock")).unwrap();
    let all = || {
        let mut names = BTreeSet::new();
        all_names(&sandbox.root(), &mut names);
        names
    };
    let before = all();
    let commands: [&[&str]; 8] = [
        &["gc", "--dry-run"],
        &["gc", "--dry-run", "--max-size", "0"],
        &["roots"],
        &["verify"],
        &["query", "--closure", &notes],
        &["fetch", "--dry-run", "--gc-root", "ci", &notes],
        &["servers"],
        &["config", "show"],
    ];
    for command in commands {
        sandbox.subst(&url, command).exits(0);
        assert_eq!(all(), before, "{command:?}");
    }
}

#[test]
fn a_store_of_nix_is_collected_too() {
    let sandbox = Sandbox::new();
    let kind = Kind::NixXz;
    let top = kind.item("sample");
    let store = sandbox.root().join("nix/store");
    let subst = |arguments: &[&str]| run(sandbox.command(kind, &kind.url(), arguments));
    subst(&["fetch", "--gc-root", "ci", &*top]).exits(0);
    let link = sandbox.root().join("nix/var/nix/gcroots/subst/ci");
    assert_eq!(link.read_link().unwrap(), Path::new(&*top));
    subst(&["gc"]).exits(0).prints("");
    assert!(store.join(base(&top)).exists());
    subst(&["roots", "--remove", "ci"]).exits(0);
    subst(&["gc"]).exits(0).says("deleted");
    assert_eq!(store.read_dir().unwrap().count(), 1, "only .links");
}

#[test]
fn collections_do_not_disturb_a_fetch() {
    let server = Server::of(Kind::Guix.directory());
    for round in 0..3 {
        let sandbox = Sandbox::new();
        sandbox
            .subst(&server.url(), &["fetch", &item("notes")])
            .exits(0);
        let arguments = ["fetch", "--gc-root", "ci", &item("sample")];
        let mut fetch = sandbox
            .command(Kind::Guix, &server.url(), &arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while fetch.try_wait().unwrap().is_none() {
            gc(&sandbox, &[]).exits(0);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(fetch.wait().unwrap().success(), "round {round}");
        gc(&sandbox, &[]).exits(0).prints("");
        assert_is_whole(&sandbox);
    }
}

#[test]
fn a_collection_that_is_killed_leaves_a_sound_store() {
    let url = Kind::Guix.url();
    for round in 0..6 {
        let sandbox = Sandbox::new();
        sandbox.subst(&url, &["fetch", &item("sample")]).exits(0);
        sandbox
            .subst(&url, &["fetch", "--gc-root", "ci", &item("notes")])
            .exits(0);
        let mut killed = sandbox
            .command(Kind::Guix, UNREACHABLE, &["gc"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It may have ended by then, or not have begun: any instant will do.
        std::thread::sleep(Duration::from_millis(round * 7));
        killed.kill().unwrap();
        killed.wait().unwrap();

        let missing = &valid(&sandbox) - &entries(&sandbox);
        assert_eq!(missing, BTreeSet::new(), "rows without trees");
        gc(&sandbox, &[]).exits(0);
        assert_eq!(entries(&sandbox), valid(&sandbox));
        assert!(valid(&sandbox).contains(base(&item("notes"))));
        sandbox.subst(&url, &["fetch", &item("sample")]).exits(0);
        assert_is_whole(&sandbox);
    }
}

#[test]
fn a_dry_run_leaves_what_a_killed_process_left() {
    let sandbox = Sandbox::new();
    sandbox
        .subst(&Kind::Guix.url(), &["fetch", &item("tools")])
        .exits(0);
    // No process has this number.
    let announced = sandbox.root().join("var/guix/temproots/4294967");
    std::fs::write(&announced, format!("{NOTHING}\0{NOTHING}.tmp\0")).unwrap();
    let left = format!("{}.tmp", base(NOTHING));
    std::fs::create_dir(sandbox.store().join(&left)).unwrap();
    let temp_roots = || announced.parent().unwrap().read_dir().unwrap().count();
    let before = (entries(&sandbox), temp_roots());
    gc(&sandbox, &["--dry-run"]).exits(0);
    assert_eq!((entries(&sandbox), temp_roots()), before);

    gc(&sandbox, &[]).exits(0);
    assert!(!announced.exists() && !entries(&sandbox).contains(&left));
}
