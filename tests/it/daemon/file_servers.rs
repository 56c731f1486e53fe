//! A client of guix-daemon may name any directory as a server, and the helper reads it with the
//! rights of root: nothing of the files may be in messages.

use super::{Helper, UNKNOWN, log};
use crate::support::fixture::{base, only};
use crate::support::{Fixture, Kind, Sandbox, item};

/// Text that only root may read.
const SECRET: &str = "s3cret-7f";

/// The helper's messages about a server in a directory with this `nix-cache-info` and this
/// narinfo, and nothing else.
fn messages(narinfo: &str, cache_info: &str) -> String {
    let sandbox = Sandbox::new();
    let dir = sandbox.path("server");
    std::fs::create_dir(&dir).unwrap();
    if !cache_info.is_empty() {
        std::fs::write(dir.join("nix-cache-info"), cache_info).unwrap();
    }
    let hash_part = &base(UNKNOWN)[..32];
    std::fs::write(dir.join(format!("{hash_part}.narinfo")), narinfo).unwrap();
    let url = format!("file://{}", dir.display());

    let mut query = Helper::start(&sandbox, &url, "--query", "");
    assert!(query.info(UNKNOWN).is_none());
    query.end();
    let query_log = log(&sandbox);
    let mut helper = Helper::start(&sandbox, &url, "--substitute", "");
    let reply = helper.substitute(UNKNOWN, &sandbox.path("tree"));
    assert_eq!(reply, "not-found");
    helper.end();
    format!("{query_log}{}", log(&sandbox))
}

#[test]
fn the_text_of_a_file_that_is_not_a_narinfo_is_not_quoted() {
    let path = format!("StorePath: {UNKNOWN}\n");
    for narinfo in [
        format!("root:{SECRET}:20000::::::\n"),
        format!("StorePath: {SECRET}\n"),
        format!("{path}NarHash: {SECRET}\n"),
        format!("{path}NarSize: {SECRET}\n"),
        format!("{path}References: {SECRET}\n"),
        format!("StorePath: /gnu/store/{}-{SECRET}\n", "b".repeat(32)),
    ] {
        let messages = messages(&narinfo, "");
        assert!(messages.contains("cannot substitute"), "{messages}");
        assert!(!messages.contains(SECRET), "{messages}");
    }
}

#[test]
fn the_item_of_a_complete_narinfo_is_not_quoted() {
    let hash_part = base(&item("tools"))[..32].to_owned();
    let narinfo = Kind::Guix.directory().join(format!("{hash_part}.narinfo"));
    let text = std::fs::read_to_string(narinfo).unwrap();
    let messages = messages(&text.replace("-subst-tools-1.0", &format!("-{SECRET}")), "");
    assert!(messages.contains("cannot substitute"), "{messages}");
    assert!(!messages.contains(SECRET), "{messages}");
}

#[test]
fn the_text_of_a_file_in_the_place_of_nix_cache_info_is_not_quoted() {
    let messages = messages("", &format!("StoreDir: /{SECRET}\n"));
    assert!(messages.contains("is not used"), "{messages}");
    assert!(!messages.contains(SECRET), "{messages}");
}

#[test]
fn the_text_of_a_file_in_the_place_of_a_nar_is_not_quoted() {
    let sandbox = Sandbox::new();
    let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
    let notes = item("notes");
    fixture.edit(&notes, |text| only(text, "none"));
    // The beginning of a nar, with an entry of a name that is not allowed.
    let mut nar = Vec::new();
    for part in [
        "nix-archive-1",
        "(",
        "type",
        "directory",
        "entry",
        "(",
        "name",
        &format!("{SECRET}/"),
    ] {
        nar.extend((part.len() as u64).to_le_bytes());
        nar.extend(part.as_bytes());
        nar.resize(nar.len().next_multiple_of(8), 0);
    }
    std::fs::write(fixture.nar(&notes, "none"), nar).unwrap();

    let mut helper = Helper::start(&sandbox, &fixture.url(), "--substitute", "");
    let reply = helper.substitute(&notes, &sandbox.path("tree"));
    assert_eq!(reply, "not-found");
    helper.end();
    let log = log(&sandbox);
    assert!(log.contains("every download failed"), "{log}");
    assert!(!log.contains(SECRET), "{log}");
}

#[test]
fn reasons_of_other_servers_are_shown() {
    let sandbox = Sandbox::new();
    let mut helper = Helper::start(&sandbox, "http://127.0.0.1:1", "--substitute", "");
    let reply = helper.substitute(UNKNOWN, &sandbox.path("tree"));
    assert_eq!(reply, "not-found");
    helper.end();
    assert!(
        log(&sandbox).contains("127.0.0.1:1: no answer: "),
        "{}",
        log(&sandbox)
    );
}
