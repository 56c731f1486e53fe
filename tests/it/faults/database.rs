//! A damaged store database: every command says so and what to do, with exit code 5, and no file of the
//! database changes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use crate::daemon::{Helper, success};
use crate::support::{Kind, Sandbox, item};

fn url() -> String {
    format!("file://{}", Kind::Guix.directory().display())
}

/// The files in `directory`, without locks.
fn files(directory: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let entries = directory.read_dir().unwrap().map(Result::unwrap);
    entries
        .filter(|entry| !entry.file_name().to_string_lossy().ends_with("lock"))
        .map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

/// Whatever is done, it ends with exit code 5 and `words`, and the database stays as it is.
#[track_caller]
fn assert_refused(sandbox: &Sandbox, words: &[&str]) {
    let database = sandbox.root().join("var/guix/db");
    let before = files(&database);
    let (tools, sample) = (item("tools"), item("sample"));
    for command in [
        &["fetch", &sample][..],
        &["fetch", "--dry-run", &tools],
        &["fetch", "--keep-going", "--sync", "full", &tools],
    ] {
        let mut run = sandbox.subst(&url(), command).exits(5).prints("");
        for words in words {
            run = run.says(words);
        }
        assert!(files(&database) == before, "{command:?}: a file changed");
    }
}

fn cut_database(sandbox: &Sandbox) {
    let path = sandbox.root().join("var/guix/db/db.sqlite");
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len(5000).unwrap();
}

#[test]
fn a_damaged_database_is_left_alone_and_can_be_set_aside() {
    let sandbox = Sandbox::new();
    sandbox.subst(&url(), &["fetch", &item("sample")]).exits(0);
    cut_database(&sandbox);
    let database = sandbox.root().join("var/guix/db");
    let command = format!("mv {0} {0}.damaged", database.display());
    assert_refused(
        &sandbox,
        &[
            "db.sqlite is damaged; it was left as it is",
            &format!("hint: `{command}`"),
        ],
    );

    let moved = std::process::Command::new("sh")
        .args(["-c", &command])
        .status();
    assert!(moved.unwrap().success());
    let sample = item("sample");
    sandbox
        .subst(&url(), &["fetch", &sample])
        .exits(0)
        .prints(&format!("{sample}\n"));
    super::assert_complete(&sandbox);
}

#[test]
fn a_schema_file_without_a_number_can_be_restored() {
    let sandbox = Sandbox::new();
    sandbox.subst(&url(), &["fetch", &item("tools")]).exits(0);
    let schema = sandbox.root().join("var/guix/db/schema");
    for (number, hint) in [
        ("8", "use a newer subst".to_owned()),
        ("6", "start the store's own daemon once".to_owned()),
        ("", format!("`printf 7 > {}`", schema.display())),
        ("\0\0", format!("`printf 7 > {}`", schema.display())),
    ] {
        std::fs::write(&schema, number).unwrap();
        assert_refused(&sandbox, &["schema `", &hint]);
    }
}

#[test]
fn the_helper_of_guix_daemon_only_reads_a_damaged_database() {
    let sandbox = Sandbox::new();
    sandbox.subst(&url(), &["fetch", &item("tools")]).exits(0);
    cut_database(&sandbox);
    std::fs::create_dir_all(sandbox.path("state")).unwrap();
    let database = sandbox.path("state/db");
    std::fs::rename(sandbox.root().join("var/guix/db"), &database).unwrap();
    let before = files(&database);

    let mut helper = Helper::start(&sandbox, &url(), "--query", "");
    assert!(helper.info(&item("sample")).is_some());
    helper.end();
    let log = std::fs::read_to_string(sandbox.path("log")).unwrap();
    assert!(log.contains("db.sqlite is damaged"), "{log}");

    let mut helper = Helper::start(&sandbox, &url(), "--substitute", "");
    let reply = helper.substitute(&item("tools"), &sandbox.path("tree"));
    assert_eq!(reply, success(&item("tools")));
    helper.end();
    assert!(files(&database) == before);
}
