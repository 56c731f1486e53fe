//! Read-ahead: the helpers of one client fetch every nar once, and what one has begun with
//! another one unpacks.

use std::collections::HashMap;
use std::time::Duration;

use crate::support::fixture::base;
use crate::support::{Kind, Reply, Sandbox, Server, item, wait_until};

use super::{Helper, every_item, success};

/// Asks about everything, then substitutes everything, references first, by turns with `count`
/// helpers; how often nars were asked for.
fn substitute_all(sandbox: &Sandbox, server: &Server, count: usize) -> usize {
    let url = server.url();
    let mut query = Helper::start(sandbox, &url, "--query", "");
    let mut references = HashMap::new();
    for path in every_item() {
        let found = query.info(&path).unwrap();
        references.insert(path, found);
    }
    let mut helpers: Vec<Helper> = (0..count)
        .map(|_| Helper::start(sandbox, &url, "--substitute", ""))
        .collect();
    let mut done: Vec<String> = Vec::new();
    while done.len() < references.len() {
        let is_ready = |path: &&String| {
            !done.contains(path)
                && references[*path]
                    .iter()
                    .all(|r| r == *path || done.contains(r))
        };
        let next = references
            .keys()
            .filter(is_ready)
            .min_by_key(|path| &base(path)[33..]);
        let path = next.unwrap().clone();
        let helper = &mut helpers[done.len() % count];
        assert_eq!(
            helper.substitute(&path, &sandbox.path(base(&path))),
            success(&path)
        );
        done.push(path);
    }
    helpers.into_iter().for_each(Helper::end);
    query.end();
    server.requests_for("/nar/")
}

/// A helper that was asked about every item.
fn asked_about_everything(sandbox: &Sandbox, server: &Server) -> Helper {
    let mut query = Helper::start(sandbox, &server.url(), "--query", "");
    for path in every_item() {
        query.info(&path).unwrap();
    }
    query
}

#[test]
fn every_nar_is_downloaded_once_by_several_helpers() {
    for count in [1, 3] {
        let sandbox = Sandbox::new();
        let server = Server::of(Kind::Guix.directory());
        assert_eq!(substitute_all(&sandbox, &server, count), every_item().len());
        let left: Vec<_> = std::fs::read_dir(sandbox.path("state/subst"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("ahead"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn queries_alone_start_no_read_ahead() {
    let sandbox = Sandbox::new();
    let server = Server::of(Kind::Guix.directory());
    let query = asked_about_everything(&sandbox, &server);
    query.end();
    assert_eq!(server.requests_for("/nar/"), 0);
}

#[test]
fn when_the_helper_that_reads_ahead_is_killed_the_others_download() {
    let sandbox = Sandbox::new();
    let server = Server::of(Kind::Guix.directory());
    let query = asked_about_everything(&sandbox, &server);
    let mut helper = Helper::start(&sandbox, &server.url(), "--substitute", "");
    let mut query = Some(query);
    for path in every_item() {
        assert_eq!(
            helper.substitute(&path, &sandbox.path(base(&path))),
            success(&path)
        );
        // Killed when the second item has been asked for.
        drop(query.take_if(|_| sandbox.path("state").exists()));
    }
    helper.end();
}

#[test]
fn a_substitution_starts_the_read_ahead_of_its_referrers() {
    let sandbox = Sandbox::new();
    let server = Server::of(Kind::Guix.directory());
    let query = asked_about_everything(&sandbox, &server);
    let mut helper = Helper::start(&sandbox, &server.url(), "--substitute", "");
    let first = item("notes");
    assert_eq!(
        helper.substitute(&first, &sandbox.path(base(&first))),
        success(&first)
    );
    let all = every_item().len();
    assert!(
        wait_until(|| server.requests_for("/nar/") == all),
        "{:?}",
        server.asked()
    );
    helper.end();
    query.end();
}

#[test]
fn referrers_of_an_item_that_was_not_requested_are_not_read_ahead() {
    let sandbox = Sandbox::new();
    let server = Server::of(Kind::Guix.directory());
    // A store in which only this item is valid.
    assert_eq!(
        sandbox
            .subst(&server.url(), &["fetch", &item("notes")])
            .code,
        Some(0)
    );
    let asked_before = server.requests_for("/nar/");

    let root = sandbox.root();
    let in_root = |mode| {
        let arguments = [mode, "--root", root.to_str().unwrap()];
        Helper::start_with(&sandbox, &server.url(), &arguments, "")
    };
    let mut query = in_root("--query");
    for name in ["link", "tree", "copy"] {
        query.info(&item(name)).unwrap();
    }
    let mut helper = in_root("--substitute");
    let fetched = || server.requests_for("/nar/") - asked_before;
    let mut substitute = |name| {
        let path = item(name);
        assert_eq!(
            helper.substitute(&path, &sandbox.path(base(&path))),
            success(&path)
        );
    };
    substitute("copy");
    // Long enough for what should not happen; it is right at any length.
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(fetched(), 1, "{:?}", server.asked());
    substitute("tools");
    assert!(wait_until(|| fetched() == 4), "{:?}", server.asked());
    helper.end();
    query.end();
}

#[test]
fn a_broken_read_ahead_is_resumed_by_the_helper_that_unpacks() {
    let sandbox = Sandbox::new();
    let directory = Kind::Guix.directory();
    let server = Server::start(move |request| {
        let reply = Reply::file_or_range(&directory, request);
        let is_cut = request.path.contains("subst-tools") && request.from.is_none();
        if is_cut { reply.cut_at(100) } else { reply }
    });
    let mut query = Helper::start(&sandbox, &server.url(), "--query", "");
    for name in ["notes", "tools"] {
        query.info(&item(name)).unwrap();
    }
    let mut helper = Helper::start(&sandbox, &server.url(), "--substitute", "");
    for name in ["notes", "tools"] {
        let path = item(name);
        assert_eq!(
            helper.substitute(&path, &sandbox.path(base(&path))),
            success(&path)
        );
    }
    assert_eq!(server.ranges_of("subst-tools"), [None, Some(100)]);
    helper.end();
    query.end();
}
