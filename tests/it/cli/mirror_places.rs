//! `subst mirror`: what `--to` and the lists of items may be, and what is no mirror.

use std::os::unix::fs::symlink;

use super::mirror::{contents, mirror, published};
use crate::support::publisher::{Publisher, command};
use crate::support::sandbox::{Run, run};
use crate::support::{Sandbox, files_below};

/// `subst mirror WORDS --to TO` of the publisher.
fn with_place(sandbox: &Sandbox, publisher: &Publisher, words: &[&str], to: &str) -> Run {
    let mut command = command(sandbox, &publisher.url(), &["mirror"]);
    command.args(words).args(["--to", to]);
    run(command)
}

/// A mirror of a, which refers to b, and its directory.
fn mirrored(sandbox: &Sandbox) -> (Publisher, String, String) {
    let (publisher, a) = published(sandbox);
    mirror(sandbox, &publisher.url(), &["--closure", &a]).exits(0);
    let to = sandbox.path("mirror").to_str().unwrap().to_owned();
    (publisher, a, to)
}

#[test]
fn an_empty_place_and_an_empty_list_are_refused() {
    let sandbox = Sandbox::new();
    let (publisher, a) = published(&sandbox);
    for words in [&["--closure", &a][..], &["gc"], &["verify"]] {
        let output = with_place(&sandbox, &publisher, words, "");
        output.exits(2).says("it is empty: name a directory");
    }

    let list = sandbox.path("list");
    std::fs::write(&list, "# nothing\n\n").unwrap();
    let list = list.to_str().unwrap();
    let output = mirror(&sandbox, &publisher.url(), &["--list", list]);
    output
        .exits(2)
        .says(&format!("{list} has no name of a store item"));
    assert!(!sandbox.path("mirror").exists());
}

#[test]
fn only_a_mirror_is_verified_and_collected() {
    let sandbox = Sandbox::new();
    let (publisher, _) = published(&sandbox);
    let other = sandbox.path("mirror");
    std::fs::create_dir_all(other.join("nar")).unwrap();
    let to = other.to_str().unwrap();
    let is_refused = |words: &[&str]| {
        let output = with_place(&sandbox, &publisher, words, to);
        output.exits(2).says("is not a mirror");
    };
    is_refused(&["verify"]);
    std::fs::write(other.join("nar/report"), "precious").unwrap();
    std::fs::write(other.join("old.nar.xz"), "precious").unwrap();
    is_refused(&["gc", "--grace", "0"]);
    is_refused(&["gc", "--dry-run"]);
    is_refused(&["verify", "--repair"]);
    assert_eq!(files_below(&other, "").len(), 2);
    assert!(!other.join("subst").exists());

    let file = sandbox.path("file");
    std::fs::write(&file, "").unwrap();
    let words = ["verify"];
    let output = with_place(&sandbox, &publisher, &words, file.to_str().unwrap());
    output
        .exits(5)
        .says("cannot open this directory")
        .says("Not a directory");
}

#[test]
fn a_cache_info_that_names_no_store_is_completed() {
    let sandbox = Sandbox::new();
    let (publisher, a, to) = mirrored(&sandbox);
    let file = sandbox.path("mirror/nix-cache-info");
    let whole = std::fs::read(&file).unwrap();
    for damaged in ["", "StoreDir:\n", "\u{1}"] {
        std::fs::write(&file, damaged).unwrap();
        let found = with_place(&sandbox, &publisher, &["verify"], &to);
        let found = found.exits(3).stdout;
        assert!(
            found.contains("nix-cache-info  it names no store"),
            "{found}"
        );
        with_place(&sandbox, &publisher, &["verify", "--repair"], &to).exits(0);
        assert_eq!(std::fs::read(&file).unwrap(), whole);

        std::fs::write(&file, damaged).unwrap();
        mirror(&sandbox, &publisher.url(), &["--closure", &a]).exits(0);
        assert_eq!(std::fs::read(&file).unwrap(), whole);
    }

    let changed = "Priority: 10\nStoreDir: /gnu/store\n";
    for text in [
        changed,
        "Priority: 10\n",
        "Priority: 10",
        "StoreDir:\nPriority: 10\n",
    ] {
        std::fs::write(&file, text).unwrap();
        mirror(&sandbox, &publisher.url(), &["--closure", &a]).exits(0);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), changed);
    }
}

#[test]
fn no_link_in_a_mirror_is_followed_to_nars() {
    let sandbox = Sandbox::new();
    let publisher = Publisher::new(&sandbox, "server", 1);
    Publisher::trust(&sandbox, &[&publisher]);
    let nar = crate::support::publisher::file_nar(b"a");
    std::fs::create_dir(publisher.dir.join("nar")).unwrap();
    std::fs::write(publisher.dir.join("nar/a"), &nar).unwrap();
    let downloads = "URL: nar/a\nCompression: none\n";
    let a = publisher.describe('a', &nar, nar.len() as u64, "", downloads);
    mirror(&sandbox, &publisher.url(), &["--closure", &a]).exits(0);
    let (nars, moved) = (sandbox.path("mirror/nar"), sandbox.path("moved"));
    std::fs::rename(&nars, &moved).unwrap();
    symlink(&moved, &nars).unwrap();
    let output = mirror(&sandbox, &publisher.url(), &["--closure", &a]);
    output
        .exits(5)
        .says("there is a symbolic link in its name")
        .says("mount it there");
}

#[test]
fn shared_options_come_before_or_after_the_command() {
    let sandbox = Sandbox::new();
    let (publisher, a, to) = mirrored(&sandbox);
    let url = publisher.url();
    let words = ["mirror", "--substitute-urls", &url, "verify", "--to", &to];
    let mut verify = sandbox.bare(&words);
    verify.arg("--acl").arg(sandbox.path("acl"));
    run(verify).exits(0).says("no fault found");

    let words = ["mirror", "--to", &to, "--all", "verify", "--to", &to];
    let output = run(command(&sandbox, &url, &words));
    output.exits(2).says("their own options");
    let words = ["mirror", "--to", &to, "verify"];
    run(command(&sandbox, &url, &words)).exits(2).says("--to");
    let words = ["mirror", "--to", &to, "--closure", &a];
    run(command(&sandbox, &url, &words)).exits(0);
}

#[test]
fn a_mirror_of_a_later_version_is_left_as_it_is() {
    let sandbox = Sandbox::new();
    let (publisher, _, _) = mirrored(&sandbox);
    let b = publisher.publish_file('c', "c", "");
    std::fs::write(sandbox.path("mirror/subst/mirror.json"), r#"{"format":2}"#).unwrap();
    let before = contents(&sandbox.path("mirror"));
    let output = mirror(&sandbox, &publisher.url(), &["--closure", &b]);
    output.exits(5).says("that of a later version of subst");
    assert_eq!(contents(&sandbox.path("mirror")), before);
}
