//! `subst endorse`: narinfos of our own for nars of another server.

use std::os::unix::fs::PermissionsExt;

use data_encoding::BASE64;
use ed25519_dalek::SigningKey as Ed25519Key;
use rusqlite::Connection;
use subst::trust::guix::signing::SigningKey;

use crate::support::publisher::{
    Publisher, add_build_log, command, contents, guix_secret, installed, mark_as_built, secret_file,
};
use crate::support::sandbox::{Run, run};
use crate::support::{Fixture, Kind, Sandbox, Server};

/// A pool with items a and b over http. This machine has both, and has built a.
struct Pool {
    sandbox: Sandbox,
    publisher: Publisher,
    server: Server,
    items: [String; 2],
}

impl Pool {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let publisher = Publisher::new(&sandbox, "pool", 1);
        Publisher::trust(&sandbox, &[&publisher]);
        let b = publisher.publish_file('b', "substituted", "");
        let a = publisher.publish_file('a', "built", &b["/gnu/store/".len()..]);
        run(command(&sandbox, &publisher.url(), &["fetch", &a])).exits(0);
        mark_as_built(&sandbox, &a);
        secret_file(&sandbox, "key.sec", &guix_secret(7));
        let server = Server::of(publisher.dir.clone());
        Self {
            sandbox,
            publisher,
            server,
            items: [a, b],
        }
    }

    fn endorse(&self, arguments: &[&str]) -> Run {
        let url = self.server.url();
        let fixed = ["endorse", "--key", "key.sec", "--nars", &url, "--to", "out"];
        run(command(
            &self.sandbox,
            "",
            &[&fixed[..], arguments].concat(),
        ))
    }

    /// The narinfo of an item in `out`, if there is one.
    fn narinfo(&self, item: &str) -> Option<String> {
        let hash = &item["/gnu/store/".len()..][..32];
        std::fs::read_to_string(self.sandbox.path(&format!("out/{hash}.narinfo"))).ok()
    }
}

#[test]
fn an_endorsed_item_is_fetched_with_the_key_of_the_endorser() {
    let pool = Pool::new();
    let [a, b] = &pool.items;
    pool.endorse(&[a]).exits(0).prints(&format!("{a}\n"));
    pool.endorse(&["--even-substituted", b]).exits(0);

    let text = pool.narinfo(a).unwrap();
    let url = format!("URL: {}", pool.server.url());
    let (signed, rest) = text.split_once("Signature: 1;").unwrap();
    assert!(rest.contains(&url), "{text}");
    assert!(
        signed.starts_with(&format!("StorePath: {a}\nNarHash: sha256:")),
        "{text}"
    );

    let client = Sandbox::new();
    let endorser = Server::of(pool.sandbox.path("out"));
    run(command(&client, &endorser.url(), &["fetch", a])).exits(3);
    let mut authorize = client.bare(&["authorize"]);
    authorize.arg(pool.sandbox.path("out/signing-key.pub"));
    run_with_acl(authorize, &client);
    let before = pool.server.requests_for(".nar");
    run(command(&client, &endorser.url(), &["fetch", a])).exits(0);
    assert_eq!(contents(&client, a), "built");
    assert_eq!(pool.server.requests_for(".nar"), before + 2);
}

/// Runs `command` for the ACL of `sandbox`.
fn run_with_acl(mut command: std::process::Command, sandbox: &Sandbox) {
    command.arg("--acl").arg(sandbox.path("acl"));
    run(command).exits(0);
}

#[test]
fn only_what_was_built_here_is_endorsed() {
    let pool = Pool::new();
    let [a, b] = &pool.items;
    let run = pool.endorse(&["--json", a, b]).exits(3);
    let json = run.json();
    assert_eq!(json["items"][0]["endorsed"], true);
    assert_eq!(json["items"][1]["endorsed"], false);
    assert!(pool.narinfo(a).is_some() && pool.narinfo(b).is_none());
    let not_built = "it is not known to have been built here";
    pool.endorse(&[b]).exits(3).says(not_built);

    // A build before it was substituted, and one that compared its result with it.
    for age in [3600, -3600] {
        let pool = Pool::new();
        let b = &pool.items[1];
        add_build_log(&pool.sandbox, b, age);
        pool.endorse(&[b]).exits(3).says(not_built);
        assert!(pool.narinfo(b).is_none());
    }
}

#[test]
fn what_differs_from_the_pool_is_not_endorsed() {
    let pool = Pool::new();
    let [a, b] = &pool.items;
    let base = &b["/gnu/store/".len()..];
    let original = std::fs::read_to_string(pool.publisher.narinfo('a')).unwrap();
    let size = original
        .lines()
        .find(|line| line.starts_with("NarSize"))
        .unwrap();
    for (edited, code, reason) in [
        (original.replace(size, "NarSize: 7"), 3, "another size"),
        (original.replace(base, ""), 3, "list of references"),
        (
            original.replace("Compression: none", "Compression: xyz"),
            3,
            "no download",
        ),
        (
            original.replace("URL: ", "URL: ftp://example.org/"),
            3,
            "no download",
        ),
        (original.replace("URL: ", "URL: file:///"), 3, "no download"),
        (
            original.replace("NarHash: ", "NarHesh: "),
            3,
            "not a narinfo",
        ),
    ] {
        assert_ne!(edited, original);
        std::fs::write(pool.publisher.narinfo('a'), edited).unwrap();
        pool.endorse(&[a]).exits(code).says(reason);
        assert_eq!(pool.narinfo(a), None, "{reason}");
    }
    pool.publisher.publish_file('a', "other", base);
    pool.endorse(&[a]).exits(3).says("another build");
    std::fs::remove_file(pool.publisher.narinfo('a')).unwrap();
    let missing = format!("{}: does not have it (HTTP 404)", pool.server.url());
    pool.endorse(&[a]).exits(1).says(&missing);

    pool.publisher.publish_file('a', "built", base);
    let tree = installed(&pool.sandbox, a);
    std::fs::set_permissions(&tree, PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::write(&tree, "Built").unwrap();
    pool.endorse(&[a]).exits(3).says("does not have the hash");
    std::fs::write(&tree, "built").unwrap();
    pool.endorse(&[a]).exits(0);
    let other = format!("/gnu/store/{}-odd", "c".repeat(32));
    pool.endorse(&[&other])
        .exits(1)
        .says("not valid in this store");
}

#[test]
fn the_secret_key_is_kept_from_others() {
    let pool = Pool::new();
    let [a, _] = &pool.items;
    let key = pool.sandbox.path("key.sec");
    for mode in [0o644, 0o640, 0o604, 0o660] {
        std::fs::set_permissions(&key, PermissionsExt::from_mode(mode)).unwrap();
        pool.endorse(&[a]).exits(3).says("is not secret");
        assert_eq!(pool.narinfo(a), None);
    }
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o400)).unwrap();
    pool.endorse(&[a]).exits(0);

    let public = SigningKey::from_bytes([7; 32]).public_key().to_string();
    std::fs::remove_file(&key).unwrap();
    for text in [public.as_str(), "", "secret words"] {
        secret_file(&pool.sandbox, "key.sec", text);
        let failed = pool.endorse(&[a]).exits(2);
        assert!(!failed.stderr.contains("secret words"), "{failed:?}");
    }
    std::fs::remove_file(&key).unwrap();
    pool.endorse(&[a]).exits(5);
}

#[test]
fn the_directory_is_a_server_for_one_store() {
    let pool = Pool::new();
    let [a, _] = &pool.items;
    let out = pool.sandbox.make_directory("out");
    let info = out.join("nix-cache-info");
    std::fs::write(&info, "StoreDir: /nix/store\n").unwrap();
    pool.endorse(&[a]).exits(2).says("is not for /gnu/store");
    std::fs::remove_file(&info).unwrap();
    pool.endorse(&[a]).exits(0);
    let text = std::fs::read_to_string(&info).unwrap();
    assert!(text.starts_with("StoreDir: /gnu/store\n"), "{text}");
    std::fs::write(&info, "StoreDir: /gnu/store\nPriority: 7\n").unwrap();
    pool.endorse(&[a]).exits(0);
    assert!(
        std::fs::read_to_string(&info)
            .unwrap()
            .contains("Priority: 7")
    );
    // Nothing is left under a temporary name.
    assert_eq!(out.read_dir().unwrap().count(), 3);

    let files = [
        "endorse",
        "--key",
        "key.sec",
        "--nars",
        "file:///srv",
        "--to",
        "out",
    ];
    let files = [&files[..], &[a]].concat();
    run(command(&pool.sandbox, "", &files))
        .exits(2)
        .says("http");
}

#[test]
fn the_directory_of_another_key_stays_as_it_is() {
    let pool = Pool::new();
    let [a, _] = &pool.items;
    pool.endorse(&[a]).exits(0);
    let narinfo = pool.narinfo(a);
    let key = pool.sandbox.path("out/signing-key.pub");
    let public = std::fs::read_to_string(&key).unwrap();

    secret_file(&pool.sandbox, "key.sec", &guix_secret(8));
    pool.endorse(&[a]).exits(2).says("is another key");
    assert_eq!(std::fs::read_to_string(&key).unwrap(), public);
    std::fs::remove_file(&key).unwrap();
    pool.endorse(&[a]).exits(2).says("has narinfos");
    assert!(!key.exists());
    assert_eq!(pool.narinfo(a), narinfo);
}

#[test]
fn an_endorsed_item_of_nix_is_fetched() {
    let sandbox = Sandbox::new();
    let item = Kind::NixZstd.item("tools");
    let pool = Fixture::copy(Kind::NixZstd, sandbox.path("pool"));
    let server = Server::of(pool.dir.clone());
    run(sandbox.command(Kind::NixZstd, &pool.url(), &["fetch", &item])).exits(0);
    let database = sandbox.root().join("nix/var/nix/db/db.sqlite");
    let sql = "UPDATE ValidPaths SET ultimate = 1";
    Connection::open(database)
        .unwrap()
        .execute(sql, [])
        .unwrap();

    let key = Ed25519Key::from_bytes(&[9; 32]);
    let secret = BASE64.encode(&key.to_keypair_bytes());
    secret_file(&sandbox, "nix.sec", &format!("endorser-1:{secret}"));
    let url = server.url();
    let notes = Kind::NixZstd.item("notes");
    let endorse = [
        "endorse", "--key", "nix.sec", "--nars", &url, "--to", "out", &item, &notes,
    ];
    run(sandbox.command(Kind::NixZstd, "", &endorse)).exits(0);

    let client = Sandbox::new();
    let public = std::fs::read_to_string(sandbox.path("out/public-key")).unwrap();
    assert!(public.starts_with("endorser-1:"), "{public}");
    let mut fetch = client.bare(&["fetch", &item, "--store-dir", "/nix/store"]);
    let endorser = format!("file://{}", sandbox.path("out").display());
    fetch.args([
        "--substitute-urls",
        &endorser,
        "--trusted-public-keys",
        public.trim(),
    ]);
    fetch.arg("--root").arg(client.root());
    run(fetch).exits(0);
}

#[test]
fn an_endorsement_is_withdrawn() {
    let pool = Pool::new();
    let [a, b] = &pool.items;
    pool.endorse(&["--even-substituted", a, b]).exits(0);
    let withdraw = |directory: &str, items: &[&str]| {
        let fixed = ["endorse", "--withdraw", "--to", directory];
        run(command(&pool.sandbox, "", &[&fixed[..], items].concat()))
    };
    let other_name = format!("{a}x");
    withdraw("out", &[&other_name])
        .exits(3)
        .says("another item");
    withdraw("out", &[a]).exits(0).prints(&format!("{a}\n"));
    assert!(pool.narinfo(a).is_none() && pool.narinfo(b).is_some());
    withdraw("out", &[a]).exits(1).says("not endorsed there");
    let json = withdraw("out", &["--json", a, b]).exits(1).json();
    assert_eq!(json["items"][0]["withdrawn"], false);
    assert_eq!(json["items"][1]["withdrawn"], true);

    // What endorse has not written: a server with its nars, and a link.
    let endorsed = pool.publisher.narinfo('a');
    withdraw("pool", &[a]).exits(3).says("not written by");
    assert!(endorsed.exists());
    let link = pool.sandbox.path("out").join(endorsed.file_name().unwrap());
    std::os::unix::fs::symlink(&endorsed, &link).unwrap();
    withdraw("out", &[a]).exits(5).says("symbolic link");
    assert!(link.is_symlink() && endorsed.exists());

    withdraw("nowhere", &[a]).exits(5).says("cannot remove ");

    let with_key = ["--key", "key.sec", a];
    withdraw("out", &with_key)
        .exits(2)
        .says("cannot be used with");
}

/// The command in the hint of a run which finds out that an endorsement of an earlier one is wrong by now.
#[test]
fn an_endorsement_that_is_wrong_by_now_is_named() {
    let pool = Pool::new();
    let [a, b] = &pool.items;
    let endorsed = pool.endorse(&[a]).exits(0);
    assert!(!endorsed.stderr.contains("withdraw"));
    let base = &b["/gnu/store/".len()..];
    let hash = &a["/gnu/store/".len()..][..32];
    let narinfo = format!("out/{hash}.narinfo");

    pool.publisher.publish_file('a', "other", base);
    let refused = pool.endorse(&[a]).exits(3).says("another build");
    let command_line = format!("subst endorse --withdraw --to out {a}");
    let hint = format!("hint: {narinfo} still endorses it, from an earlier run; `{command_line}`");
    assert!(refused.stderr.contains(&hint), "{}", refused.stderr);
    let json = pool.endorse(&["--json", a, b]).exits(3).json();
    assert_eq!(json["items"][0]["outdated"], narinfo.as_str());
    assert!(json["items"][1]["outdated"].is_null());

    std::fs::remove_file(pool.publisher.narinfo('a')).unwrap();
    pool.endorse(&[a]).exits(1).says("still endorses it");
    // Without its tree here, it is not known to be wrong.
    let tree = installed(&pool.sandbox, a);
    std::fs::set_permissions(&tree, PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::write(&tree, "Built").unwrap();
    let damaged = pool.endorse(&[a]).exits(3);
    assert!(!damaged.stderr.contains("withdraw"), "{}", damaged.stderr);

    let words: Vec<&str> = command_line.split(' ').skip(1).collect();
    run(command(&pool.sandbox, "", &words)).exits(0);
    assert_eq!(pool.narinfo(a), None);
}

/// A killed run may leave a file under a temporary name. Those of a process that still runs, which has the
/// directory locked, stay; and so does what has another kind of name.
#[test]
fn what_a_killed_run_has_left_is_removed() {
    use rustix::fs::{FlockOperation, flock};

    let pool = Pool::new();
    let [a, _] = &pool.items;
    pool.endorse(&[a]).exits(0);
    let out = pool.sandbox.path("out");
    let digits = "0123456789abcdef";
    let left = ["x.narinfo", "nix-cache-info", "signing-key.pub"];
    let left = left.map(|name| out.join(format!("{name}.{digits}")));
    let others = [
        "x.narinfo.0123",
        "notes.0123456789abcdef",
        "x.narinfo.0123456789abcdeX",
    ];
    let others = others.map(|name| out.join(name));
    for file in left.iter().chain(&others) {
        std::fs::write(file, "").unwrap();
    }

    let writer = std::fs::File::open(&out).unwrap();
    flock(&writer, FlockOperation::LockShared).unwrap();
    pool.endorse(&[a]).exits(0);
    assert!(left.iter().all(|file| file.exists()));
    drop(writer);
    pool.endorse(&[a]).exits(0);
    assert!(left.iter().all(|file| !file.exists()));
    assert!(others.iter().all(|file| file.exists()));
}
