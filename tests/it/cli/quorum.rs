//! `[trust]` and `--need-signatures`: items are used only if enough principals have signed the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::publisher::{self, Publisher, contents, file_nar, installed, name};
use crate::support::sandbox::{Run, run};
use crate::support::{Reply, Sandbox, Server, wait_until};

/// Three publishers, all of whose keys are authorized, each with a server of its own.
struct Publishers {
    sandbox: Sandbox,
    all: [Publisher; 3],
    servers: [Server; 3],
}

impl Publishers {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let all =
            [("a", 1), ("b", 2), ("c", 3)].map(|(name, seed)| Publisher::new(&sandbox, name, seed));
        Publisher::trust(&sandbox, &[&all[0], &all[1], &all[2]]);
        let servers = [0, 1, 2].map(|server: usize| Server::of(all[server].dir.clone()));
        Self {
            sandbox,
            all,
            servers,
        }
    }

    /// Has those of the publishers that have contents publish a file with them; the item.
    fn publish(&self, digit: char, contents: [Option<&str>; 3], references: &str) -> String {
        let published = self.all.iter().zip(contents);
        let items = published
            .filter_map(|(it, contents)| Some(it.publish_file(digit, contents?, references)));
        let items: Vec<String> = items.collect();
        items[0].clone()
    }

    /// The usual items: one that all agree about, one with a dissenter, one of a single publisher, and
    /// one of two.
    fn publish_usual(&self) -> [String; 4] {
        [
            self.publish('1', [Some("same"), Some("same"), Some("same")], ""),
            self.publish('2', [Some("same"), Some("same"), Some("changed")], ""),
            self.publish('3', [Some("alone"), None, None], ""),
            self.publish('4', [None, Some("two"), Some("two")], ""),
        ]
    }

    fn urls(&self) -> String {
        self.servers.each_ref().map(Server::url).join(" ")
    }

    fn run(&self, arguments: &[&str]) -> Run {
        run(publisher::command(&self.sandbox, &self.urls(), arguments))
    }

    /// The items of `query` as JSON.
    fn query(&self, arguments: &[&str], code: i32) -> Vec<Value> {
        let arguments = [&["query", "--json"][..], arguments].concat();
        let json = self.run(&arguments).exits(code).json();
        json["items"].as_array().unwrap().clone()
    }

    /// How many requests each server has received.
    fn requests(&self) -> [usize; 3] {
        self.servers
            .each_ref()
            .map(|server| server.requests_for(".narinfo"))
    }

    /// Has the answers of all servers cached.
    fn cache_answers(&self, items: &[&str]) {
        self.sandbox.write_safely("config.toml", "");
        let arguments = [&["query", "--need-signatures", "3"], items].concat();
        self.run(&arguments).exits(3);
    }

    fn keys(&self) -> [String; 3] {
        self.all.each_ref().map(Publisher::key_name)
    }

    /// Settings with a principal for each publisher.
    fn write_policy(&self, trust: &str, expires: &str) {
        let names = ["alice", "bob", "carol"].iter().zip(self.keys());
        let principals = names.map(|(name, key)| {
            format!("[[trust.principal]]\nname = \"{name}\"\nkeys = [\"guix:{key}\"]\n")
        });
        let principals: String = principals.collect();
        let text = format!("[trust]\n{trust}\n{principals}{expires}\n");
        self.sandbox.write_safely("config.toml", &text);
    }
}

fn statuses(items: &[Value]) -> Vec<&str> {
    let statuses = items.iter().map(|item| item["status"].as_str().unwrap());
    statuses.collect()
}

#[test]
fn only_what_enough_publishers_agree_about_is_used() {
    let publishers = Publishers::new();
    let items = publishers.publish_usual();
    let [same, changed, alone, two] = items.each_ref().map(String::as_str);

    publishers.cache_answers(&[changed, same, alone, two]);
    let need = ["--need-signatures", "2"];
    let arguments = [&need[..], &[same, changed, alone, two]].concat();
    let found = publishers.query(&arguments, 3);
    assert_eq!(
        statuses(&found),
        ["available", "refused", "refused", "available"]
    );

    let [a, b, c] = publishers.keys();
    let votes = |item: &Value, number: usize| item["votes"]["facts"][number]["voters"].clone();
    assert_eq!(found[0]["votes"]["need"], 2);
    assert_eq!(found[0]["votes"]["signers"], json!([a, b, c]));
    assert_eq!(found[1]["votes"]["objection"], "dissent");
    assert_eq!(votes(&found[1], 0), json!([a, b]));
    assert_eq!(votes(&found[1], 1), json!([c]));
    assert_eq!(found[2]["votes"]["objection"], "too-few-votes");
    assert_eq!(votes(&found[2], 0), json!([a]));
    assert_eq!(found[2]["answers"][0]["reason"], "too-few-votes");
    assert_eq!(found[3]["signed_by"], *b);

    let fetched = publishers.run(&[&["fetch"], &need[..], &[same, two]].concat());
    let fetched = fetched.exits(0).stdout;
    let mut fetched: Vec<&str> = fetched.lines().collect();
    fetched.sort_unstable();
    assert_eq!(fetched, [same, two]);
    assert_eq!(contents(&publishers.sandbox, two), "two");
    for (item, words) in [(changed, "its signers disagree"), (alone, "1 of 2 votes")] {
        publishers
            .run(&[&["fetch"], &need[..], &[item]].concat())
            .exits(3)
            .says(words);
        assert!(!installed(&publishers.sandbox, item).exists());
    }
}

/// The order of the references is no part of what they agree about, and the nar of each is used for the
/// others.
#[test]
fn publishers_may_list_references_in_any_order() {
    let publishers = Publishers::new();
    let [one, other] = ['1', '2'].map(|digit| {
        let item = publishers.publish(digit, [Some("same"); 3], "");
        item["/gnu/store/".len()..].to_owned()
    });
    let orders = [format!("{one} {other}"), format!("{other} {one}")];
    let [a, b, _] = &publishers.all;
    let item = a.publish_file('3', "both", &orders[0]);
    b.publish_file('3', "both", &orders[1]);
    std::fs::remove_file(a.nar('3')).unwrap();

    publishers
        .run(&["fetch", "--need-signatures", "2", &item])
        .exits(0);
    assert_eq!(contents(&publishers.sandbox, &item), "both");
}

/// A server without an authorized key may serve the bytes, whatever the order of its references.
#[test]
fn a_mirror_may_list_references_in_any_order() {
    let sandbox = Sandbox::new();
    let [signer, mirror] =
        [("signer", 1), ("mirror", 2)].map(|(name, seed)| Publisher::new(&sandbox, name, seed));
    Publisher::trust(&sandbox, &[&signer]);
    let [one, other] = ['1', '2'].map(|digit| {
        let item = signer.publish_file(digit, "same", "");
        item["/gnu/store/".len()..].to_owned()
    });
    let item = signer.publish_file('3', "both", &format!("{one} {other}"));
    mirror.publish_file('3', "both", &format!("{other} {one} {other}"));
    std::fs::remove_file(signer.nar('3')).unwrap();

    let urls = format!("{} {}", signer.url(), mirror.url());
    run(publisher::command(&sandbox, &urls, &["fetch", &item])).exits(0);
    assert_eq!(contents(&sandbox, &item), "both");
}

/// The lookup cache keeps narinfos and not what a policy decided about them.
#[test]
fn a_change_of_the_policy_takes_effect_without_requests() {
    let publishers = Publishers::new();
    let [same, changed, ..] = publishers.publish_usual();
    let items = [&*same, &*changed];
    publishers.cache_answers(&items);
    let requests = publishers.requests();

    // Before an item is refused, the answers are requested again.
    let two = ["--offline", "--need-signatures", "2"];
    let found = publishers.query(&[&two, &items[..]].concat(), 3);
    assert_eq!(statuses(&found), ["available", "refused"]);
    let found = publishers.query(&items, 0);
    assert_eq!(statuses(&found), ["available"; 2]);
    assert!(found.iter().all(|item| item.get("votes").is_none()));
    let three = ["--offline", "--need-signatures", "3"];
    let found = publishers.query(&[&three, &items[..]].concat(), 3);
    assert_eq!(statuses(&found), ["available", "refused"]);
    publishers.query(&["--need-signatures", "3", &same], 0);

    assert_eq!(publishers.requests(), requests);
}

/// A cached answer may be outdated: votes may have been added, and dissent withdrawn.
#[test]
fn no_item_is_refused_for_cached_answers() {
    let publishers = Publishers::new();
    let [_, changed, alone, _] = publishers.publish_usual();
    publishers.cache_answers(&[&changed, &alone]);
    let requests = publishers.requests();
    let need = ["--need-signatures", "2", &*changed, &alone];
    let found = publishers.query(&need, 3);
    assert_eq!(statuses(&found), ["refused"; 2]);
    let once = requests.map(|number| number + 2);
    assert_eq!(
        publishers.requests(),
        once,
        "one request for each item and server"
    );

    publishers.publish('2', [None, None, Some("same")], "");
    publishers.publish('3', [None, Some("alone"), None], "");
    let offline = [&["--offline"], &need[..]].concat();
    assert_eq!(statuses(&publishers.query(&offline, 3)), ["refused"; 2]);
    assert_eq!(publishers.requests(), once);
    let found = publishers.query(&need, 0);
    assert_eq!(statuses(&found), ["available"; 2]);
}

/// A server that fails takes nothing back.
#[test]
fn cached_dissent_counts_until_the_server_gives_another_answer() {
    let mut publishers = Publishers::new();
    let [_, changed, ..] = publishers.publish_usual();
    let is_failing = Arc::new(AtomicBool::new(false));
    let (directory, fails) = (publishers.all[2].dir.clone(), Arc::clone(&is_failing));
    publishers.servers[2] = Server::start(move |request| match fails.load(Ordering::Relaxed) {
        true => Reply::not_found(),
        false => Reply::file(&directory, request),
    });
    let need = ["--need-signatures", "2", &*changed];
    publishers.query(&need, 3);

    let dissenter = publishers.all[2].narinfo('2');
    let narinfo = std::fs::read(&dissenter).unwrap();
    std::fs::write(&dissenter, "<html>").unwrap();
    for _ in ["with the first cached answer", "with the same one"] {
        let found = publishers.query(&need, 3);
        assert_eq!(found[0]["votes"]["objection"], "dissent");
    }
    std::fs::write(&dissenter, narinfo).unwrap();
    publishers.query(&need, 3);

    is_failing.store(true, Ordering::Relaxed);
    publishers.query(&need, 0);
}

/// One that was down a short time ago is asked again if its vote is missing.
#[test]
fn a_server_that_comes_back_votes_at_once() {
    let publishers = Publishers::new();
    let items = ['1', '2'].map(|it| publishers.publish(it, [Some("x"), Some("x"), None], ""));
    let directory = publishers.all[1].dir.clone();
    let mut other = Server::restartable(move |request| Reply::file(&directory, request));
    let urls = format!("{} {}", publishers.all[0].url(), other.url());
    let query = ["query", "--need-signatures", "2", &items[0], &items[1]];

    other.kill();
    run(publisher::command(&publishers.sandbox, &urls, &query)).exits(3);
    other.restart();
    run(publisher::command(&publishers.sandbox, &urls, &query)).exits(0);
}

/// No server answers before all have been asked, so a quorum takes no more round trips than one key.
#[test]
fn the_requests_for_an_item_go_out_together() {
    let publishers = Publishers::new();
    let item = publishers.publish('1', [Some("x"); 3], "");
    let asked = Arc::new(AtomicUsize::new(0));
    let servers = publishers.all.each_ref().map(|publisher| {
        let (directory, asked) = (publisher.dir.clone(), Arc::clone(&asked));
        Server::start(move |request| {
            if request.path.ends_with(".narinfo") {
                asked.fetch_add(1, Ordering::SeqCst);
                wait_until(|| asked.load(Ordering::SeqCst) == 3);
            }
            Reply::file(&directory, request)
        })
    });

    let urls = servers.each_ref().map(Server::url).join(" ");
    let query = ["query", "--need-signatures", "3", &*item];
    run(publisher::command(&publishers.sandbox, &urls, &query)).exits(0);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[test]
fn servers_are_queried_once_for_each_item() {
    let publishers = Publishers::new();
    let items: Vec<String> = ('0'..='9')
        .map(|digit| publishers.publish(digit, [Some("same"); 3], ""))
        .collect();
    let items: Vec<&str> = items.iter().map(String::as_str).collect();
    let found = publishers.query(&[&["--need-signatures", "3"], &items[..]].concat(), 0);
    assert_eq!(statuses(&found), ["available"; 10]);
    for server in &publishers.servers {
        assert_eq!(server.requests_for(".narinfo"), 10);
    }
}

/// The same signature from three servers is one vote.
#[test]
fn a_copy_adds_no_vote() {
    let publishers = Publishers::new();
    let item = publishers.publish('1', [Some("x"), None, None], "");
    let [original, ..] = &publishers.all;
    for copy in &publishers.all[1..] {
        std::fs::copy(original.narinfo('1'), copy.narinfo('1')).unwrap();
        std::fs::copy(original.nar('1'), copy.nar('1')).unwrap();
    }
    let found = publishers.query(&["--need-signatures", "2", &item], 3);
    assert_eq!(found[0]["votes"]["objection"], "too-few-votes");
}

/// A mirror may add the signatures of others to a narinfo.
#[test]
fn every_signature_of_a_narinfo_is_a_vote() {
    let publishers = Publishers::new();
    let item = publishers.publish('1', [Some("x"), None, None], "");
    let [one, other, _] = &publishers.all;
    let text = std::fs::read_to_string(one.narinfo('1')).unwrap();
    let signed = &text[..text.find("Signature: ").unwrap()];
    let text = format!("{text}{}", other.signature_line(signed));
    std::fs::write(one.narinfo('1'), text).unwrap();

    for _ in ["from the server", "from the lookup cache"] {
        let found = publishers.query(&["--need-signatures", "2", &item], 0);
        assert_eq!(found[0]["votes"]["signers"], json!(publishers.keys()[..2]));
    }
    publishers
        .run(&["fetch", "--need-signatures", "2", &item])
        .exits(0);
}

#[test]
fn the_nar_may_come_from_any_server_that_states_the_accepted_fact() {
    let publishers = Publishers::new();
    let item = publishers.publish('1', [Some("x"), Some("x"), Some("x")], "");
    let [first, second, mirror] = &publishers.all;
    for signer in [first, second] {
        std::fs::remove_file(signer.nar('1')).unwrap();
    }
    Publisher::trust(&publishers.sandbox, &[first, second]);
    assert!(mirror.nar('1').exists());
    publishers
        .run(&["fetch", "--need-signatures", "2", &item])
        .exits(0);
    assert_eq!(contents(&publishers.sandbox, &item), "x");
}

#[test]
fn a_query_shows_all_of_a_closure_that_the_policy_refuses() {
    let publishers = Publishers::new();
    let leaf = publishers.publish('1', [Some("leaf"), None, None], "");
    let middle = publishers.publish('2', [Some("b"), Some("b"), None], &name('1'));
    let top = publishers.publish('3', [Some("a"), None, None], &name('2'));
    let found = publishers.query(&["--closure", "--need-signatures", "2", &top], 3);
    let paths: Vec<&Value> = found.iter().map(|item| &item["path"]).collect();
    assert_eq!(paths, [&top, &middle, &leaf]);
    assert_eq!(statuses(&found), ["refused", "available", "refused"]);
    publishers
        .run(&["fetch", "--need-signatures", "2", &top])
        .exits(3)
        .says("1 of 2 votes");
}

#[test]
fn the_report_names_voters_and_dissenters() {
    let publishers = Publishers::new();
    let [_, changed, alone, _] = publishers.publish_usual();
    publishers.cache_answers(&[&changed, &alone]);
    publishers.write_policy("need = 2", "");
    let files = ["--html", "page.html", "--metrics", "metrics.prom"];
    let arguments = [
        &["query", "--cache-miss-report"],
        &files[..],
        &[&*changed, &alone],
    ]
    .concat();
    let report = publishers.run(&arguments).exits(3).stdout;
    let report = report.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "REFUSED, its signers disagree: 1",
        "alice and bob signed the nar ",
        ", but carol signed the nar ",
        "REFUSED, too few principals have signed it: 1",
        "too few votes: 1 of 2 votes, by alice",
        "--need-signatures 1",
        "to be built now: 2 items",
    ] {
        assert!(report.contains(words), "{words}: {report}");
    }

    let page = publisher::read(&publishers.sandbox.path("page.html"));
    assert!(page.contains("alice and bob signed the nar "));
    let metrics = publisher::read(&publishers.sandbox.path("metrics.prom"));
    for reason in ["dissent", "too-few-votes"] {
        let sample = format!("subst_query_items_by_reason{{reason=\"{reason}\"}} 1\n");
        assert!(metrics.contains(&sample), "{metrics}");
    }

    let arguments = ["query", "--cache-miss-report", "--json", &changed];
    let json = publishers.run(&arguments).exits(3).json();
    let item = &json["report"]["items"][0];
    assert_eq!(item["group"], "dissent");
    assert_eq!(item["votes"]["facts"][1]["voters"], json!(["carol"]));
}

#[test]
fn a_policy_that_only_warns_says_what_it_accepts() {
    let publishers = Publishers::new();
    let items = publishers.publish_usual();
    let [_, changed, alone, _] = items.each_ref().map(String::as_str);
    publishers.cache_answers(&[changed, alone]);
    publishers.write_policy("need = 2\non-too-few = \"warn\"\non-dissent = \"warn\"", "");
    let fetched = publishers.run(&["fetch", changed, alone]).exits(0);
    let fetched = fetched.says("2 items are used, such as ");
    fetched.says(", since [trust] says to warn only: ");
    assert_eq!(contents(&publishers.sandbox, changed), "same");

    // Both contents have a vote of the single principal that is required.
    publishers.sandbox.remove_root();
    publishers.cache_answers(&[changed, alone]);
    publishers.write_policy("need = 1\non-dissent = \"warn\"", "");
    publishers
        .run(&["fetch", changed])
        .exits(3)
        .says("its signers disagree");
    publishers.run(&["fetch", alone]).exits(0);
}

#[test]
fn keys_beside_the_principals_and_expired_principals_do_not_vote() {
    let publishers = Publishers::new();
    let items = publishers.publish_usual();
    let [same, _, _, two] = items.each_ref().map(String::as_str);
    publishers.write_policy("need = 2", "expires = 2026-01-31");
    let queried = publishers.run(&["query", same, two]).exits(3);
    assert!(
        queried.stdout.contains("1 of 2 votes, by bob"),
        "{queried:?}"
    );
    queried.says("the principal `carol` does not vote: it expired after 2026-01-31");
    let check = publishers.run(&["config", "check"]).exits(2);
    check.says("[trust]: the principal `carol` does not vote");

    // The item has no vote if none of the keys that have signed it belongs to a principal.
    let foreign =
        "[trust]\n[[trust.principal]]\nname = \"dave\"\nkeys = [\"guix:0123456789ABCDEF\"]\n";
    publishers.sandbox.write_safely("config.toml", foreign);
    let check = publishers.run(&["config", "check"]).exits(2);
    check.says("the key `guix:0123456789ABCDEF` of the principal `dave` is not authorized");
    publishers
        .run(&["fetch", same])
        .exits(3)
        .says("0 of 1 votes");
    publishers
        .run(&["fetch", "--need-signatures", "1", same])
        .exits(3);
}

#[test]
fn several_keys_of_a_principal_are_one_vote() {
    let publishers = Publishers::new();
    let [same, ..] = publishers.publish_usual();
    let [a, b, c] = publishers.keys();
    let text = format!(
        "[trust]\nneed = 2\n[[trust.principal]]\nname = \"farm\"\nkeys = [\"{a}\", \"{b}\"]\n\
         [[trust.principal]]\nname = \"carol\"\nkeys = [\"{c}\"]\n"
    );
    publishers.sandbox.write_safely("config.toml", &text);
    let found = publishers.query(&[&same], 0);
    assert_eq!(
        found[0]["votes"]["facts"][0]["voters"],
        json!(["farm", "carol"])
    );
    publishers.run(&["config", "check"]).exits(0);
    let refused = publishers
        .run(&["fetch", "--need-signatures", "3", &same])
        .exits(3);
    refused.says("3 principals have to agree, and only 2 can vote here");
}

#[test]
fn the_first_rule_with_the_name_of_the_item_decides() {
    let publishers = Publishers::new();
    let [_, _, alone, two] = publishers.publish_usual();
    let base = &alone["/gnu/store/".len()..];
    let rules = format!(
        "[[trust.rule]]\nmatch = \"{base}\"\nneed = 1\n[[trust.rule]]\nmatch = \"odd\"\nneed = 3\n"
    );
    publishers.write_policy("need = 2", "");
    let config = publisher::read(&publishers.sandbox.path("config.toml"));
    publishers
        .sandbox
        .write_safely("config.toml", &format!("{config}{rules}"));
    let found = publishers.query(&[&alone, &two], 3);
    assert_eq!(statuses(&found), ["available", "refused"]);
    let found = publishers.query(&["--need-signatures", "2", &alone, &two], 3);
    assert_eq!(statuses(&found), ["refused", "available"]);
}

#[test]
fn a_server_that_is_down_does_not_prevent_a_quorum() {
    let publishers = Publishers::new();
    let item = publishers.publish('1', [Some("x"), Some("x"), None], "");
    let urls = format!("http://127.0.0.1:1 {}", publishers.urls());
    let arguments = ["fetch", "--need-signatures", "2", &item];
    let command = publisher::command(&publishers.sandbox, &urls, &arguments);
    run(command).exits(0);
    assert_eq!(contents(&publishers.sandbox, &item), "x");
}

/// Whether dissent is seen must not depend on which server is the fastest.
#[test]
fn a_dissenter_that_is_slow_is_awaited() {
    let publishers = Publishers::new();
    let [_, changed, ..] = publishers.publish_usual();
    let [one, other, dissenter] = &publishers.all;
    let directory = dissenter.dir.clone();
    let slow = Server::start(move |request| {
        // Several times as long as a server may be silent where its answer is not needed.
        std::thread::sleep(std::time::Duration::from_secs(3));
        Reply::file(&directory, request)
    });
    let urls = format!("{} {} {}", one.url(), other.url(), slow.url());
    let arguments = ["fetch", "--need-signatures", "2", &changed];
    let command = publisher::command(&publishers.sandbox, &urls, &arguments);
    run(command).exits(3).says("its signers disagree");
    assert!(!installed(&publishers.sandbox, &changed).exists());
}

#[test]
fn no_policy_that_is_wrong_is_ignored() {
    let publishers = Publishers::new();
    let [_, _, alone, _] = publishers.publish_usual();
    for (text, words) in [
        (
            "[trust]\nneeds = 2\n",
            "unknown name `needs`; did you mean `need`?",
        ),
        ("[trust]\nneed = 0\n", "trust: need: `0` is out of range"),
        ("[[trust]]\nneed = 2\n", "it is not a table"),
        ("need-signatures = \"many\"\n", "need-signatures: "),
    ] {
        publishers.sandbox.write_safely("config.toml", text);
        let failed = publishers.run(&["fetch", &alone]).exits(2);
        failed.says(words);
        publishers.run(&["config", "check"]).exits(2).says(words);
    }

    // Where it is not named explicitly, a file that others may change is ignored otherwise.
    let config = publishers
        .sandbox
        .write_config("home/.config/subst/config.toml", "[trust]\nneed = 2\n");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&config, mode).unwrap();
    let mut command =
        publisher::command(&publishers.sandbox, &publishers.urls(), &["fetch", &alone]);
    command.env_remove("SUBST_CONFIG");
    run(command)
        .exits(2)
        .says("its policy of trust cannot be relied on");
    assert!(!installed(&publishers.sandbox, &alone).exists());
}

#[test]
fn without_authentication_no_key_votes() {
    let publishers = Publishers::new();
    let [same, ..] = publishers.publish_usual();
    let arguments = ["fetch", "--need-signatures", "2", &same];
    let mut command = publisher::command(&publishers.sandbox, &publishers.urls(), &arguments);
    command.env("GUIX_ALLOW_UNAUTHENTICATED_SUBSTITUTES", "yes");
    run(command)
        .exits(3)
        .says("signatures are not verified, so no key can vote");
}

/// Facts differ in the references as well, in whatever order these are.
#[test]
fn other_references_are_dissent_and_another_order_is_not() {
    let publishers = Publishers::new();
    let nar = file_nar(b"x");
    let (one, other) = (name('1'), name('2'));
    let size = nar.len() as u64;
    let [a, b, c] = &publishers.all;
    let item = a.publish('3', &nar, size, &format!("{one} {other}"));
    b.publish('3', &nar, size, &format!("{other} {one}"));
    let found = publishers.query(&["--need-signatures", "2", &item], 0);
    assert_eq!(statuses(&found), ["available"]);
    c.publish('3', &nar, size, &one);
    let found = publishers.query(&["--refresh", "--need-signatures", "3", &item], 3);
    assert_eq!(found[0]["votes"]["objection"], "dissent");
}

/// A download that breaks has the servers searched that were not asked before.
#[test]
fn dissent_that_a_retried_download_finds_refuses_the_item() {
    let publishers = Publishers::new();
    let item = publishers.publish('1', [Some("same"), None, Some("changed")], "");
    let [signer, cosigner, dissenter] = &publishers.all;
    let text = std::fs::read_to_string(signer.narinfo('1')).unwrap();
    let signed = &text[..text.find("Signature: ").unwrap()];
    let text = format!("{text}{}", cosigner.signature_line(signed));
    std::fs::write(signer.narinfo('1'), text).unwrap();

    let is_found = Arc::new(AtomicBool::new(false));
    let (directory, found) = (dissenter.dir.clone(), Arc::clone(&is_found));
    let mut skipped = Server::restartable(move |request| {
        found.fetch_or(request.path.ends_with(".narinfo"), Ordering::SeqCst);
        Reply::file(&directory, request)
    });
    let (directory, found) = (signer.dir.clone(), Arc::clone(&is_found));
    let breaking = Server::start(move |request| {
        let reply = Reply::file(&directory, request);
        match request.path.ends_with(".nar") && !found.load(Ordering::SeqCst) {
            true => reply.cut_at(0),
            false => reply,
        }
    });
    let urls = format!("{} {}", breaking.url(), skipped.url());
    let run_on_both = |arguments: &[&str]| {
        let arguments = [arguments, &["--need-signatures", "2", &item]].concat();
        run(publisher::command(&publishers.sandbox, &urls, &arguments))
    };

    skipped.kill();
    run_on_both(&["query"]).exits(0);
    skipped.restart();
    run_on_both(&["fetch"])
        .exits(3)
        .says("its signers disagree");
    assert!(is_found.load(Ordering::SeqCst));
    assert!(!installed(&publishers.sandbox, &item).exists());
}

/// Narinfos are requested again when a nar is missing, and may be others then.
#[test]
fn dissent_that_appears_during_a_fetch_refuses_the_item() {
    let publishers = Publishers::new();
    let item = publishers.publish('1', [Some("same"), Some("same"), Some("same")], "");
    publishers.query(&["--need-signatures", "3", &item], 0);
    for publisher in &publishers.all {
        std::fs::remove_file(publisher.nar('1')).unwrap();
    }
    publishers.publish('1', [None, None, Some("changed")], "");

    publishers
        .run(&["fetch", "--need-signatures", "2", &item])
        .exits(3)
        .says("its signers disagree");
    assert!(!installed(&publishers.sandbox, &item).exists());
}
