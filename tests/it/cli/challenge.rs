//! `subst challenge`: this machine's builds and those of several servers.

use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::publisher::{Publisher, command, file_nar, installed, mark_as_built, name};
use crate::support::sandbox::{Run, run};
use crate::support::{Fixture, Kind, Reply, Sandbox, Server};

/// A server that answers nothing.
const DOWN: &str = "http://127.0.0.1:1";

fn challenge(sandbox: &Sandbox, urls: &str, arguments: &[&str]) -> Run {
    let arguments = [&["challenge"], arguments].concat();
    run(command(sandbox, urls, &arguments))
}

/// The path and the result of each item.
fn results(run: &Run) -> Vec<(String, String)> {
    let json = run.json();
    let items = json["items"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    items
        .map(|item| (text(&item["path"]), text(&item["result"])))
        .collect()
}

/// Three servers with items a to d. Bob has built another a, and has neither c nor d; Carol's key
/// is not authorized, and she has neither; nobody has d. This machine has all of Alice, and has
/// built a and b.
struct Builders {
    sandbox: Sandbox,
    alice: Publisher,
    bob: Publisher,
    urls: String,
    items: [String; 4],
}

impl Builders {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let [alice, bob, carol] = [("alice", 1), ("bob", 2), ("carol", 3)]
            .map(|(name, seed)| Publisher::new(&sandbox, name, seed));
        Publisher::trust(&sandbox, &[&alice, &bob]);
        let a = alice.publish_file('a', "built at 12:00", "");
        carol.publish_file('a', "built at 12:00", "");
        bob.publish_file('a', "built at 12:30", "");
        let mut b = String::new();
        for publisher in [&alice, &bob, &carol] {
            b = publisher.publish_file('b', "always the same", "");
        }
        let c = alice.publish_file('c', "of one server", "");
        let d = format!("/gnu/store/{}", name('d'));

        run(command(&sandbox, &alice.url(), &["fetch", &a, &b, &c])).exits(0);
        mark_as_built(&sandbox, &a);
        mark_as_built(&sandbox, &b);
        let urls = [&alice, &bob, &carol].map(Publisher::url).join(" ");
        Self {
            sandbox,
            alice,
            bob,
            urls,
            items: [a, b, c, d],
        }
    }

    fn challenge(&self, arguments: &[&str]) -> Run {
        challenge(&self.sandbox, &self.urls, arguments)
    }
}

#[test]
fn builds_are_compared_as_guix_challenge_does() {
    let builders = Builders::new();
    let [a, b, c, d] = &builders.items;
    let all = builders.challenge(&["--json", a, b, c, d]).exits(3);
    let expected = [
        (a, "differ"),
        (b, "match"),
        (c, "inconclusive"),
        (d, "inconclusive"),
    ];
    assert_eq!(
        results(&all),
        expected.map(|(path, result)| (path.clone(), result.to_owned()))
    );
    assert_eq!(
        all.json()["summary"],
        json!({"items": 4, "match": 1, "differ": 1, "inconclusive": 2})
    );
    builders.challenge(&[b]).exits(0).prints("");
    builders.challenge(&[b, c]).exits(1).says("1 match");
    let verbose = builders.challenge(&["--verbose", b]).exits(0);
    assert!(verbose.stdout.starts_with(&format!("{b}: match\n")));

    let counted = builders.challenge(&["--json", "--even-substituted", c]);
    assert_eq!(results(&counted.exits(0))[0].1, "match");

    // Without the item, the servers are compared with each other.
    let elsewhere = Sandbox::new();
    let compared = challenge(&elsewhere, &builders.urls, &["--json", a, b, c]).exits(3);
    let compared: Vec<String> = results(&compared).into_iter().map(|it| it.1).collect();
    assert_eq!(compared, ["differ", "match", "inconclusive"]);
}

#[test]
fn all_valid_items_can_be_compared() {
    let builders = Builders::new();
    let all = builders.challenge(&["--all-valid", "--json"]).exits(3);
    // Three items and two derivations.
    assert_eq!(all.json()["summary"]["items"], 5);
    builders.challenge(&["--all-valid", "-"]).exits(2);
    builders.challenge(&[]).exits(2);
}

#[test]
fn differing_files_are_named_with_the_first_differing_byte() {
    let builders = Builders::new();
    let [a, b, ..] = &builders.items;
    let found = builders.challenge(&["--diff", a, b]).exits(3);
    let bob = builders.bob.url();
    let expected = format!("  local and {bob} differ in:\n    /: contents, from byte 12\n");
    assert!(found.stdout.ends_with(&expected), "{}", found.stdout);

    let found = builders.challenge(&["--diff", "--json", a]).exits(3).json();
    let differences = &found["items"][0]["differences"];
    let files = json!([{"path": "/", "kind": "contents", "offset": 12}]);
    assert_eq!(differences.as_array().unwrap().len(), 1, "{differences}");
    assert_eq!(differences[0]["files"], files);
}

#[test]
fn progress_is_reported_as_by_other_commands() {
    let builders = Builders::new();
    let [a, b, c, d] = &builders.items;
    let run = builders.challenge(&["--progress", "json", "--diff", a, b, c, d]);
    let events = run.exits(3).stderr;
    let events: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut comparing = events.iter().filter(|event| event["event"] == "comparing");
    let last = comparing.next_back().unwrap();
    assert_eq!(
        (&last["items_done"], &last["items"]),
        (&json!(4), &json!(4))
    );
    let answers = (&last["answers_done"], &last["answers"]);
    assert_eq!(answers, (&json!(12), &json!(12)));
    // The trees of a and b, and the nar of another a.
    let trees = [
        &b"built at 12:00"[..],
        b"always the same",
        b"built at 12:30",
    ];
    let bytes: usize = trees.iter().map(|contents| file_nar(contents).len()).sum();
    assert_eq!(last["bytes_done"], bytes);
    assert!(events.iter().any(|event| event["event"] == "finished"));
}

#[test]
fn servers_are_asked_whatever_the_lookup_cache_has() {
    let builders = Builders::new();
    let [_, b, ..] = &builders.items;
    run(command(&builders.sandbox, &builders.urls, &["query", b])).exits(0);
    builders.challenge(&[b]).exits(0);
    builders.bob.publish_file('b', "changed since", "");
    builders.challenge(&[b]).exits(3);
}

#[test]
fn a_changed_tree_differs_and_is_reported_as_damaged() {
    let builders = Builders::new();
    let [_, b, ..] = &builders.items;
    let tree = installed(&builders.sandbox, b);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&tree, mode).unwrap();
    std::fs::write(&tree, "always the sane").unwrap();
    let found = builders.challenge(&["--diff", b]).exits(3);
    let found = found.says("is damaged: its tree does not have the hash");
    assert!(found.stdout.contains("contents, from byte 13"), "{found:?}");

    std::fs::remove_file(&tree).unwrap();
    let gone = builders.challenge(&["--json", b]).exits(5).json();
    assert_eq!(gone["items"][0]["local"], "unreadable");
}

#[test]
fn a_server_that_does_not_answer_leaves_an_item_undecided() {
    let builders = Builders::new();
    let [_, b, c, d] = &builders.items;
    let urls = format!("{} {DOWN}", builders.alice.url());
    let found = challenge(&builders.sandbox, &urls, &[b]);
    found.exits(0).says(DOWN);
    let found = challenge(&builders.sandbox, &urls, &[c]).exits(4);
    let expected = "it was not built here, and only one server that answered has it";
    assert_eq!(found.stdout, format!("{c}: inconclusive: {expected}\n"));
    let found = challenge(&builders.sandbox, &urls, &[d]).exits(4);
    let expected = "no server that answered has it";
    assert_eq!(found.stdout, format!("{d}: inconclusive: {expected}\n"));
    let found = challenge(&builders.sandbox, DOWN, &[d]).exits(4);
    let expected = "no server answered";
    assert_eq!(found.stdout, format!("{d}: inconclusive: {expected}\n"));
    let found = challenge(&builders.sandbox, &builders.alice.url(), &[d]).exits(1);
    let expected = "no server has it";
    assert_eq!(found.stdout, format!("{d}: inconclusive: {expected}\n"));
    let offline = challenge(&builders.sandbox, &urls, &["--offline", "--json", b]);
    let offline = offline.exits(0).json();
    assert_eq!(offline["items"][0]["claims"][1]["answer"], "offline");
}

#[test]
fn a_server_whose_address_may_be_wrong_is_named() {
    let builders = Builders::new();
    let [_, b, c, _] = &builders.items;
    let other = Server::start(|_| Reply::not_found());
    let urls = format!("{} {}", builders.alice.url(), other.url());
    let doubt = format!(
        "{} has no nix-cache-info and none of the items: is its address right?",
        other.url()
    );
    let found = challenge(&builders.sandbox, &urls, &[b, c]).says(&doubt);
    assert_eq!(found.stderr.matches("nix-cache-info").count(), 1);
    std::fs::remove_file(builders.alice.dir.join("nix-cache-info")).unwrap();
    let found = challenge(&builders.sandbox, &builders.alice.url(), &[b]);
    assert!(!found.stderr.contains("nix-cache-info"));

    let arguments = ["mirror", "--to", "mirror", "--closure", b];
    let copied = run(command(&builders.sandbox, &other.url(), &arguments));
    copied.exits(1).says(&doubt);
}

#[test]
fn a_nar_that_is_not_the_claimed_one_is_reported() {
    let builders = Builders::new();
    let [a, ..] = &builders.items;
    let claimed = std::fs::read(builders.bob.nar('a')).unwrap();
    let longer = [&claimed[..], &vec![0; 1 << 20]].concat();
    let other = file_nar(b"built at 12:99");
    for (served, reason) in [
        (other, "sends a nar with the hash sha256:"),
        (claimed[..60].to_vec(), "the nar ends early"),
        (longer, "longer than the 128 bytes"),
        (vec![7; 128], "not a nar"),
        (Vec::new(), "the nar ends early"),
    ] {
        std::fs::write(builders.bob.nar('a'), served).unwrap();
        let found = builders.challenge(&["--diff", "--json", a]).exits(3).json();
        let error = found["items"][0]["differences"][0]["error"].as_str();
        let error = error.unwrap_or_default();
        assert!(error.contains(reason), "{reason}: {found:#}");
    }

    // Nothing says that this is the end of the file.
    let other = zstd::encode_all(&file_nar(b"built at 12:99")[..], 1).unwrap();
    let directory = builders.bob.dir.clone();
    let server = Server::start(move |request| {
        let mut reply = Reply::file(&directory, request);
        if request.path == "/a.nar" {
            reply = Reply::new("200 OK", other.clone());
            reply.has_no_length = true;
        } else if let Ok(text) = String::from_utf8(reply.body.clone()) {
            reply.body = text
                .replace("Compression: none", "Compression: zstd")
                .into();
        }
        reply
    });
    let found = challenge(&builders.sandbox, &server.url(), &["--diff", a]).exits(3);
    let reason = "sends a nar with the hash sha256:";
    assert!(found.stdout.contains(reason), "{found:?}");

    std::fs::remove_file(builders.bob.nar('a')).unwrap();
    let found = builders.challenge(&["--diff", a]).exits(3);
    assert!(
        found.stdout.contains("cannot be compared: downloading"),
        "{found:?}"
    );
}

/// The rest of a nar is requested when the connection breaks, as by other commands.
#[test]
fn a_nar_that_breaks_off_is_resumed() {
    let builders = Builders::new();
    let [a, ..] = &builders.items;
    let directory = builders.bob.nar('a').parent().unwrap().to_owned();
    let is_first = AtomicBool::new(true);
    let server = Server::start(move |request| {
        let reply = Reply::file_or_range(&directory, request);
        if request.path.ends_with(".nar") && is_first.swap(false, Ordering::Relaxed) {
            return reply.cut_at(100);
        }
        reply
    });
    let found = challenge(&builders.sandbox, &server.url(), &["--diff", a]).exits(3);
    assert!(
        found.stdout.contains("/: contents, from byte 12"),
        "{found:?}"
    );
    assert_eq!(server.requests_for("/a.nar"), 2);
}

#[test]
fn answers_for_other_items_and_stores_are_no_claims() {
    let builders = Builders::new();
    let [_, b, c, _] = &builders.items;
    let bob = &builders.bob;
    std::fs::copy(bob.narinfo('a'), bob.narinfo('c')).unwrap();
    let nix = Kind::NixXz.url();
    let urls = format!("{} {nix}", builders.urls);
    let found = challenge(&builders.sandbox, &urls, &["--json", b, c]).exits(1);
    let json = found.json();
    assert_eq!(json["items"][1]["claims"][1]["reason"], "wrong-item");
    let answers = [0, 1].map(|item| json["items"][item]["claims"][3]["answer"].clone());
    assert_eq!(answers, ["other-store", "other-store"]);
}

#[test]
fn stores_of_nix_are_compared_too() {
    let sandbox = Sandbox::new();
    let item = Kind::NixXz.item("tools");
    let changed = Fixture::copy(Kind::NixZstd, sandbox.path("changed"));
    changed.edit(&item, |text| {
        let hash = text
            .lines()
            .find(|line| line.starts_with("NarHash"))
            .unwrap();
        text.replace(hash, &format!("NarHash: sha256:{}", "0".repeat(52)))
    });
    let same = Kind::NixXz.url();
    let fetched = sandbox.command(Kind::NixXz, &same, &["fetch", &item]);
    run(fetched).exits(0);
    let one = ["challenge", item.as_str()];
    run(sandbox.command(Kind::NixXz, &same, &one)).exits(1);

    let database = sandbox.root().join("nix/var/nix/db/db.sqlite");
    let database = Connection::open(database).unwrap();
    let sql = "UPDATE ValidPaths SET ultimate = 1";
    assert!(database.execute(sql, []).unwrap() > 0);
    run(sandbox.command(Kind::NixXz, &same, &one)).exits(0);
    let both = format!("{same} {}", changed.url());
    run(sandbox.command(Kind::NixXz, &both, &one)).exits(3);
}

#[test]
fn compressed_nars_of_http_servers_are_compared() {
    let sandbox = Sandbox::new();
    let item = Kind::Guix.item("tree");
    run(sandbox.command(Kind::Guix, &Kind::Guix.url(), &["fetch", &item])).exits(0);
    let hash = format!("sha256:{}", "0".repeat(52));
    for method in ["zstd", "lzip", "gzip", "xz", "none"] {
        let copy = Fixture::copy(Kind::Guix, sandbox.path(method));
        copy.only(method);
        copy.edit(&item, |text| {
            let line = text
                .lines()
                .find(|line| line.starts_with("NarHash"))
                .unwrap();
            text.replace(line, &format!("NarHash: {hash}"))
        });
        let server = Server::of(sandbox.path(method));
        let arguments = ["challenge", "--diff", "--even-substituted", item.as_str()];
        let found = run(sandbox.command(Kind::Guix, &server.url(), &arguments)).exits(3);
        // The trees are the same; only the narinfo says something else.
        let says = format!("and its narinfo says {hash}");
        assert!(found.stdout.contains(&says), "{method}: {}", found.stdout);
    }
}
