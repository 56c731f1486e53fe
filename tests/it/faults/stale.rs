//! Narinfos that were looked up before the nar at their URL was replaced.

use crate::support::fixture::flip;
use crate::support::publisher::{Publisher, command, contents};
use crate::support::sandbox::run;
use crate::support::{Sandbox, Server};

/// A server with an item that has been looked up.
fn looked_up(sandbox: &Sandbox) -> (Publisher, Server, String) {
    let publisher = Publisher::new(sandbox, "server", 1);
    Publisher::trust(sandbox, &[&publisher]);
    let item = publisher.publish_file('1', "the first build", "");
    let server = Server::of(publisher.dir.clone());
    run(command(sandbox, &server.url(), &["query", &item])).exits(0);
    (publisher, server, item)
}

#[test]
fn a_narinfo_is_requested_again_when_its_nar_was_replaced_by_another_build() {
    let sandbox = Sandbox::new();
    let (publisher, server, item) = looked_up(&sandbox);
    publisher.publish_file('1', "the other build", "");
    run(command(&sandbox, &server.url(), &["fetch", &item])).exits(0);
    assert_eq!(contents(&sandbox, &item), "the other build");
    assert_eq!(server.requests_for(".narinfo"), 2, "{:?}", server.asked());
}

#[test]
fn a_damaged_nar_is_downloaded_once_and_its_narinfo_removed_from_the_cache() {
    let sandbox = Sandbox::new();
    let (publisher, server, item) = looked_up(&sandbox);
    flip(&publisher.nar('1'), 99);
    run(command(&sandbox, &server.url(), &["fetch", &item])).exits(3);
    assert_eq!(server.requests_for("/1.nar"), 1, "{:?}", server.asked());
    assert_eq!(server.requests_for(".narinfo"), 2, "{:?}", server.asked());
    run(command(&sandbox, &server.url(), &["cache", "list"]))
        .exits(0)
        .prints("");
}
