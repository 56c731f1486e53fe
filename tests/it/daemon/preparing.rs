//! The helper waits for items that servers are preparing only if the settings say so.

use std::sync::atomic::{AtomicBool, Ordering};

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
