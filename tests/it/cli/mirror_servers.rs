//! `subst mirror` of several servers that do not have the same.

use std::sync::atomic::{AtomicBool, Ordering};

use super::mirror::{contents, mirror, published};
use crate::support::publisher::{Publisher, name};
use crate::support::server::Reply;
use crate::support::{Sandbox, Server};

/// Two publishers, both trusted, and their URLs.
fn two(sandbox: &Sandbox) -> (Publisher, Publisher, String) {
    let publishers = [("one", 1), ("two", 2)];
    let [one, two] = publishers.map(|(name, seed)| Publisher::new(sandbox, name, seed));
    Publisher::trust(sandbox, &[&one, &two]);
    let urls = format!("{} {}", one.url(), two.url());
    (one, two, urls)
}

fn narinfo(sandbox: &Sandbox, digit: char) -> String {
    let file = sandbox.path(&format!("mirror/{}.narinfo", &name(digit)[..32]));
    std::fs::read_to_string(file).unwrap()
}

#[test]
fn a_narinfo_that_leads_to_a_missing_item_is_left_out() {
    let sandbox = Sandbox::new();
    let (one, two, urls) = two(&sandbox);
    let a = one.publish_file('a', "a", &name('b'));
    two.publish_file('a', "a", "");
    // What refers to it needs nothing else.
    one.publish_file('c', "c", &name('a'));
    let c = format!("/gnu/store/{}", name('c'));
    let output = mirror(&sandbox, &urls, &["--closure", &c]);
    output
        .exits(1)
        .says("2 items copied")
        .says(&format!("{} is skipped", name('b')));
    assert!(narinfo(&sandbox, 'a').contains("References: \n"));
    assert!(narinfo(&sandbox, 'c').contains(&a["/gnu/store/".len()..]));
}

#[test]
fn nothing_is_downloaded_for_items_whose_references_are_missing() {
    let sandbox = Sandbox::new();
    let (publisher, a) = published(&sandbox);
    let c = publisher.publish_file('c', "c", &a["/gnu/store/".len()..]);
    std::fs::remove_file(publisher.narinfo('b')).unwrap();
    let server = Server::of(publisher.dir.clone());
    let output = mirror(&sandbox, &server.url(), &["--closure", &c]);
    output
        .exits(1)
        .says(&format!("{} is skipped", name('c')))
        .says(&format!("it refers to {}", name('a')))
        .says("0 items copied");
    let nars = server.requests();
    let nars = nars.iter().filter(|request| request.path.ends_with(".nar"));
    assert_eq!(nars.count(), 0);

    let dry_run = mirror(&sandbox, &server.url(), &["--closure", &c, "--dry-run"]);
    dry_run.exits(1).says("3 skipped");
}

#[test]
fn what_only_one_server_could_give_is_not_copied_again() {
    let sandbox = Sandbox::new();
    let (one, two, _) = two(&sandbox);
    let a = one.publish_file('a', "one's", "");
    two.publish_file('a', "two's", "");
    std::fs::write(one.nar('a'), "damaged").unwrap();
    let (one, two) = (Server::of(one.dir.clone()), Server::of(two.dir.clone()));
    let urls = format!("{} {}", one.url(), two.url());
    mirror(&sandbox, &urls, &["--closure", &a])
        .exits(0)
        .says("1 item copied");
    let requests = || one.requests().len() + two.requests().len();
    let (before, text) = (requests(), narinfo(&sandbox, 'a'));

    mirror(&sandbox, &urls, &["--closure", &a])
        .exits(0)
        .says("0 items copied (0 B of nars), 1 there already");
    // A nix-cache-info and a narinfo of each.
    assert!(requests() - before <= 4);
    assert_eq!(narinfo(&sandbox, 'a'), text);
}

#[test]
fn the_server_that_has_the_wanted_compression_comes_first() {
    let sandbox = Sandbox::new();
    let (one, two, urls) = two(&sandbox);
    let nar = crate::support::publisher::file_nar(b"a");
    let a = one.publish_file('a', "a", "");
    let compressed = zstd::encode_all(&nar[..], 3).unwrap();
    std::fs::write(two.dir.join("a.nar.zst"), &compressed).unwrap();
    two.describe(
        'a',
        &nar,
        nar.len() as u64,
        "",
        "URL: a.nar.zst\nCompression: zstd\n",
    );
    for summary in ["1 item copied", "1 there already"] {
        let arguments = ["--closure", &a, "--compression", "zstd"];
        mirror(&sandbox, &urls, &arguments).exits(0).says(summary);
        assert!(contents(&sandbox.path("mirror")).contains_key("a.nar.zst"));
    }
}

#[test]
fn items_that_a_server_prepares_are_waited_for() {
    let sandbox = Sandbox::new();
    let (publisher, a) = published(&sandbox);
    let c = publisher.publish_file('c', "c", "");
    let (dir, narinfo) = (publisher.dir.clone(), publisher.narinfo('b'));
    let is_ready = AtomicBool::new(false);
    let server = Server::start(move |request| {
        let is_of_b = request
            .path
            .ends_with(narinfo.file_name().unwrap().to_str().unwrap());
        match is_of_b && !is_ready.swap(true, Ordering::Relaxed) {
            true => Reply::new("202 Accepted", ""),
            false => Reply::file(&dir, request),
        }
    });
    let arguments = ["--closure", &a, &c, "--wait", "1m"];
    mirror(&sandbox, &server.url(), &arguments)
        .exits(0)
        .says("3 items copied")
        .says("0 there already, 0 skipped");
}
