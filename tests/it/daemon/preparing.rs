//! The helper waits for items that servers are preparing only if the settings say so.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::{Kind, Reply, Sandbox, Server, item};

use super::{Helper, log};

/// A server that prepares an item when it is first asked for one.
fn preparing() -> Server {
    let has_been_asked = AtomicBool::new(false);
    Server::start(move |request| {
        let is_narinfo = request.path.ends_with(".narinfo");
        if is_narinfo && !has_been_asked.swap(true, Ordering::Relaxed) {
            return Reply::not_found().header("X-Baking: 1");
        }
        Reply::file(&Kind::Guix.directory(), request)
    })
}

#[test]
fn queries_are_answered_when_items_are_ready_if_the_settings_say_so() {
    for (settings, is_found) in [("", false), ("helper-wait = \"1m\"\n", true)] {
        let sandbox = Sandbox::new();
        sandbox.write_config("config.toml", settings);
        let server = preparing();
        let mut helper = Helper::start(&sandbox, &server.url(), "--query", "");
        let found = helper.have(&[&item("notes")]);
        helper.end();
        assert_eq!(!found.is_empty(), is_found, "{}", log(&sandbox));
        let text = "1 item is being prepared by the server, waiting (0:00 of 1:00)";
        assert_eq!(log(&sandbox).contains(text), is_found, "{}", log(&sandbox));
    }
}

/// A server that has lost the nars of what was looked up, and prepares them anew: until narinfos have
/// been asked for `requests` times.
fn expired(requests: usize) -> Server {
    let asked = AtomicUsize::new(0);
    Server::start(move |request| {
        let is_narinfo = request.path.ends_with(".narinfo");
        let asked = asked.fetch_add(usize::from(is_narinfo), Ordering::Relaxed);
        match asked >= requests {
            false if is_narinfo && asked > 0 => Reply::not_found().header("X-Baking: 1"),
            false if request.path.contains("/nar/") => Reply::not_found(),
            _ => Reply::file(&Kind::Guix.directory(), request),
        }
    })
}

#[test]
fn a_nar_that_is_prepared_anew_is_waited_for_if_the_settings_say_so() {
    for (settings, is_found) in [("", false), ("helper-wait = \"1m\"\n", true)] {
        let sandbox = Sandbox::new();
        sandbox.write_config("config.toml", settings);
        let server = expired(3);
        let mut helper = Helper::start(&sandbox, &server.url(), "--query", "");
        assert_eq!(helper.have(&[&item("notes")]).len(), 1);
        helper.end();

        let mut helper = Helper::start(&sandbox, &server.url(), "--substitute", "");
        let destination = sandbox.path("destination");
        let reply = helper.substitute(&item("notes"), &destination);
        helper.end();
        assert_eq!(reply.starts_with("success"), is_found, "{}", log(&sandbox));
        assert_eq!(destination.exists(), is_found);
    }
}
