//! Valid items whose trees are gone: half a backup was restored, or they were deleted by hand.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::fixture::base;
use crate::support::listing::{items, rows, sorted_lines};
use crate::support::sandbox::run;
use crate::support::{Fixture, Kind, Sandbox, Server, files_below, item};

/// Deletes what is in the store of `sandbox` for the item `path`.
fn lose(sandbox: &Sandbox, path: &str) {
    remove(&sandbox.store().join(base(path)));
}

fn remove(tree: &Path) {
    // Not the files: they may be links to those of other items.
    let directories = ["-type", "d", "-exec", "chmod", "u+w", "{}", "+"];
    assert!(
        Command::new("find")
            .arg(tree)
            .args(directories)
            .status()
            .unwrap()
            .success()
    );
    assert!(
        Command::new("rm")
            .arg("-rf")
            .arg(tree)
            .status()
            .unwrap()
            .success()
    );
}

/// A sandbox with all items of the fixtures.
fn filled(server: &Server) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox
        .subst(&server.url(), &["fetch", &item("sample")])
        .exits(0);
    sandbox
}

/// Everything is there again, as stock Guix makes it.
#[track_caller]
fn assert_whole(sandbox: &Sandbox) {
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
fn a_tree_of_which_an_empty_directory_or_file_is_left_is_fetched_again() {
    let server = Server::of(Kind::Guix.directory());
    let sandbox = filled(&server);
    let tree = sandbox.store().join(base(&item("sample")));
    let leftovers: [fn(&Path) -> std::io::Result<()>; 2] = [
        |tree| std::fs::create_dir(tree),
        |tree| std::fs::write(tree, ""),
    ];
    for leave in leftovers {
        remove(&tree);
        leave(&tree).unwrap();
        sandbox
            .subst(&server.url(), &["fetch", &item("sample")])
            .exits(0)
            .says("1 item fetched");
        assert_whole(&sandbox);
    }
}

#[test]
fn a_missing_tree_anywhere_in_the_closure_is_fetched_again() {
    let server = Server::of(Kind::Guix.directory());
    let (sample, url) = (item("sample"), server.url());
    // The item itself, a direct reference, and one that only references refer to.
    for lost in [
        &["sample"][..],
        &["copy"],
        &["notes"],
        &["sample", "notes", "tree"],
    ] {
        let sandbox = filled(&server);
        let nars = server.requests_for("/nar/");
        lost.iter().for_each(|name| lose(&sandbox, &item(name)));
        let done = sandbox.subst(&url, &["fetch", &sample]).exits(0);
        done.prints(&format!("{sample}\n"));
        assert_whole(&sandbox);
        assert_eq!(
            server.requests_for("/nar/") - nars,
            lost.len(),
            "{lost:?}: only what is missing"
        );
    }
}

#[test]
fn a_new_item_is_valid_only_after_its_whole_closure() {
    let server = Server::of(Kind::Guix.directory());
    let sandbox = Sandbox::new();
    let (url, tools, link) = (server.url(), item("tools"), item("link"));
    sandbox.subst(&url, &["fetch", &tools]).exits(0);
    lose(&sandbox, &item("notes"));
    let arguments = ["fetch", "--keep-going", &link];
    // The nar of the lost item cannot be had now.
    let broken = Fixture::copy(Kind::Guix, sandbox.path("broken"));
    for nar in files_below(&broken.dir.join("nar"), "")
        .iter()
        .filter(|nar| nar.ends_with(base(&item("notes"))))
    {
        std::fs::remove_file(nar).unwrap();
    }
    let failed = sandbox.subst(&broken.url(), &arguments);
    assert_ne!(failed.code, Some(0), "{failed:?}");
    failed.prints("");
    sandbox
        .subst(&url, &arguments)
        .exits(0)
        .prints(&format!("{link}\n"));
    assert!(sandbox.store().join(base(&item("notes"))).exists());
}

#[test]
fn a_missing_tree_that_no_server_has_is_an_error() {
    let server = Server::of(Kind::Guix.directory());
    let sandbox = filled(&server);
    let (sample, notes) = (item("sample"), item("notes"));
    lose(&sandbox, &notes);
    let empty = Server::of(sandbox.path("home"));
    let missing = sandbox.subst(&empty.url(), &["fetch", &sample]).exits(1);
    missing
        .says(&format!("cannot fetch {notes}"))
        .says("1 item was not fetched because of that")
        .prints("");
    let offline = sandbox.subst(&server.url(), &["fetch", "--offline", &sample]);
    assert_eq!(offline.code, Some(4), "{offline:?}");
    offline.prints("");
    let alone = sandbox
        .subst(&server.url(), &["fetch", "--no-references", &sample])
        .exits(1);
    alone.says(base(&notes)).prints("");
    let json = sandbox
        .subst(&empty.url(), &["fetch", "--json", &sample])
        .exits(1)
        .json();
    let statuses: Vec<_> = json["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| &i["status"])
        .collect();
    assert_eq!(statuses, ["failed", "failed"], "{json:#}");
    // Its row is there as before, and still leads to a complete store later.
    sandbox.subst(&server.url(), &["fetch", &sample]).exits(0);
    assert_whole(&sandbox);
}

#[test]
fn references_that_must_be_valid_must_have_trees() {
    let server = Server::of(Kind::Guix.directory());
    let sandbox = Sandbox::new();
    let (url, tools, link) = (server.url(), item("tools"), item("link"));
    sandbox.subst(&url, &["fetch", &tools]).exits(0);
    lose(&sandbox, &tools);
    let alone = |path: &str| sandbox.subst(&url, &["fetch", "--no-references", path]);
    alone(&link).exits(1).says(base(&tools)).prints("");
    alone(&tools).exits(0).prints(&format!("{tools}\n"));
    alone(&link).exits(0);
}

#[test]
fn dry_run_lists_the_trees_that_would_be_fetched_again() {
    let server = Server::of(Kind::Guix.directory());
    let sandbox = filled(&server);
    let (sample, notes) = (item("sample"), item("notes"));
    lose(&sandbox, &notes);
    let dry_run = || sandbox.subst(&server.url(), &["fetch", "--dry-run", "--json", &sample]);
    let json = dry_run().exits(0).json();
    assert_eq!(
        (&json["fetch"][0]["path"], &json["valid"]),
        (&notes.into(), &serde_json::json!([]))
    );
    assert!(!sandbox.store().join(base(&item("notes"))).exists());
    // The database alone was restored.
    remove(&sandbox.store());
    assert_eq!(
        dry_run().exits(0).json()["fetch"].as_array().unwrap().len(),
        7
    );
    sandbox.subst(&server.url(), &["fetch", &sample]).exits(0);
    assert_whole(&sandbox);
}

#[test]
fn two_processes_restore_the_same_tree() {
    let server = Server::of(Kind::Guix.directory());
    let sandbox = filled(&server);
    let sample = item("sample");
    ["notes", "tree", "sample"]
        .iter()
        .for_each(|name| lose(&sandbox, &item(name)));
    let fetch = || sandbox.subst(&server.url(), &["fetch", &sample]).exits(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(fetch);
        }
    });
    assert_whole(&sandbox);
}

/// A store whose items lie where their names say, as a system's do, with all items of the fixtures.
struct SystemStore {
    sandbox: Sandbox,
    url: String,
    dir: PathBuf,
}

impl SystemStore {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let dir = sandbox.path("system/store");
        let server = Fixture::copy(Kind::Guix, sandbox.path("server"));
        for file in files_below(&server.dir, "") {
            let Ok(text) = std::fs::read_to_string(&file) else {
                continue;
            };
            let name = file.file_name().unwrap().to_str().unwrap();
            if name.ends_with(".narinfo") || name == "nix-cache-info" {
                let text = text.replace("/gnu/store", dir.to_str().unwrap());
                std::fs::write(&file, text).unwrap();
            }
        }
        let store = Self {
            url: server.url(),
            sandbox,
            dir,
        };
        let root = store.sandbox.root();
        let mut made = store.subst("fetch", "sample");
        run({
            made.arg("--root")
                .arg(&root)
                .arg("--store-dir")
                .arg(&store.dir);
            made
        })
        .exits(0);
        let made = root.join(store.dir.strip_prefix("/").unwrap());
        std::fs::create_dir_all(store.dir.parent().unwrap()).unwrap();
        std::fs::rename(made, &store.dir).unwrap();
        store
    }

    fn item(&self, name: &str) -> PathBuf {
        self.dir.join(base(&item(name)))
    }

    /// `command` for the item `name` on this store.
    fn subst(&self, command: &str, name: &str) -> Command {
        let mut subst = self
            .sandbox
            .bare(&[command, "--substitute-urls", &self.url]);
        // The names are not those that were signed.
        subst.env("GUIX_ALLOW_UNAUTHENTICATED_SUBSTITUTES", "yes");
        subst.env("NIX_STORE_DIR", &self.dir);
        subst.env("GUIX_STATE_DIRECTORY", self.sandbox.root().join("var/guix"));
        subst.env(
            "GUIX_CONFIGURATION_DIRECTORY",
            self.sandbox.root().join("etc/guix"),
        );
        subst.arg(self.item(name));
        subst
    }
}

#[test]
fn in_the_system_s_store_a_missing_tree_is_reported_with_the_command_that_repairs_it() {
    let store = SystemStore::new();
    run(store.subst("fetch", "sample")).exits(0);
    for lost in ["notes", "sample"] {
        remove(&store.item(lost));
        let path = store.item(lost).display().to_string();
        let failed = run(store.subst("fetch", "sample")).exits(5);
        let failed = failed.says(&format!("guix build --repair {path}"));
        failed.says("nothing at").prints("");
        let mut dry_run = store.subst("fetch", "sample");
        dry_run.arg("--dry-run");
        run(dry_run).exits(5).says(&path).prints("");
        assert!(!store.item(lost).exists());
    }
}
