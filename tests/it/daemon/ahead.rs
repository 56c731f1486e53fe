//! Read-ahead: the helpers of one client fetch every nar once, and what one has begun with
//! another one unpacks.

use std::collections::HashMap;

use crate::support::fixture::base;
use crate::support::{Kind, Sandbox, Server};

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
    let mut helpers: Vec<Helper> =
        (0..count).map(|_| Helper::start(sandbox, &url, "--substitute", "")).collect();
    let mut done: Vec<String> = Vec::new();
    while done.len() < references.len() {
        let is_ready = |path: &&String| {
            !done.contains(path) && references[*path].iter().all(|r| r == *path || done.contains(r))
        };
        let next = references.keys().filter(is_ready).min_by_key(|path| &base(path)[33..]);
        let path = next.unwrap().clone();
        let helper = &mut helpers[done.len() % count];
        assert_eq!(helper.substitute(&path, &sandbox.path(base(&path))), success(&path));
        done.push(path);
    }
    helpers.into_iter().for_each(Helper::end);
    query.end();
    server.asked_for("/nar/")
}

#[test]
fn every_nar_is_fetched_once_whoever_unpacks_it() {
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
fn nothing_is_fetched_ahead_for_questions_alone() {
    let sandbox = Sandbox::new();
    let server = Server::of(Kind::Guix.directory());
    let mut query = Helper::start(&sandbox, &server.url(), "--query", "");
    for path in every_item() {
        query.info(&path).unwrap();
    }
    query.end();
    assert_eq!(server.asked_for("/nar/"), 0);
}

#[test]
fn when_the_one_that_reads_ahead_dies_the_others_fetch_for_themselves() {
    let sandbox = Sandbox::new();
    let server = Server::of(Kind::Guix.directory());
    let mut query = Helper::start(&sandbox, &server.url(), "--query", "");
    for path in every_item() {
        query.info(&path).unwrap();
    }
    let mut helper = Helper::start(&sandbox, &server.url(), "--substitute", "");
    let mut query = Some(query);
    for path in every_item() {
        assert_eq!(helper.substitute(&path, &sandbox.path(base(&path))), success(&path));
        // Killed when the second item has been asked for.
        drop(query.take_if(|_| sandbox.path("state").exists()));
    }
    helper.end();
}
