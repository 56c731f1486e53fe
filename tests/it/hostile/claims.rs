//! Servers with large and false claims, for `subst challenge` and `subst endorse`, which compare what
//! no authorized key has signed.

use std::time::{Duration, Instant};

use crate::support::memory::{PEAK_MAX_KIB, run_with_little_memory};
use crate::support::publisher::{Publisher, command, guix_secret, mark_as_built, secret_file};
use crate::support::sandbox::run;
use crate::support::{Reply, Sandbox, Server};

/// The largest narinfo that is read.
const NARINFO_BYTES: usize = 1 << 20;
/// Their narinfos take more memory than a run may.
const ITEMS: usize = 98;
const _: () = assert!(ITEMS as u64 * 1024 > PEAK_MAX_KIB);
/// More than any nar has.
const FALSE_SIZE: u64 = 1 << 62;
/// Far more than needed: other tests run in parallel.
const SOON: Duration = Duration::from_secs(60);

/// The names of so many items, whose narinfos have the largest size.
fn items(count: usize) -> Vec<String> {
    let numbers = 0..count;
    numbers
        .map(|number| format!("/gnu/store/{}{number:03}-item", "0".repeat(29)))
        .collect()
}

/// A server that has every item, with these references and downloads.
fn server(references: String, downloads: String) -> Server {
    Server::start(move |request| {
        let Some(hash) = request.path.strip_suffix(".narinfo") else {
            return Reply::not_found();
        };
        let path = format!("/gnu/store/{}-item", hash.trim_start_matches('/'));
        let nar_hash = "0".repeat(52);
        Reply::new(
            "200 OK",
            format!(
                "StorePath: {path}\nNarHash: sha256:{nar_hash}\nNarSize: 7\nReferences: {references}\n{downloads}"
            ),
        )
    })
}

/// `piece` with numbers in the place of `#`, as often as it fits into a narinfo.
fn repeated(piece: &str) -> String {
    let count = (NARINFO_BYTES - 2000) / (piece.len() + 4);
    let pieces = 0..count;
    pieces
        .map(|number| piece.replace('#', &format!("{number:05}")))
        .collect()
}

#[test]
fn claims_with_many_downloads_are_compared_with_little_memory() {
    let downloads = repeated("URL: #\nCompression: zstd\n");
    compare_with_little_memory(&server(String::new(), downloads));
}

#[test]
fn claims_with_many_references_are_compared_with_little_memory() {
    let references = repeated(&format!("{}#-a ", "0".repeat(27)));
    let references = references.trim_end().to_owned();
    compare_with_little_memory(&server(references, String::new()));
}

/// Challenges and endorses many items of `server`.
fn compare_with_little_memory(server: &Server) {
    let sandbox = Sandbox::new();
    secret_file(&sandbox, "key.sec", &guix_secret(7));
    let items = items(ITEMS);
    let mut challenge = command(&sandbox, &server.url(), &["challenge"]);
    challenge.args(&items);
    run_with_little_memory(challenge)
        .exits(1)
        .says("inconclusive");
    assert_eq!(server.requests_for("narinfo"), ITEMS);

    let url = server.url();
    let endorse = ["endorse", "--key", "key.sec", "--nars", &url, "--to", "out"];
    let mut endorse = command(&sandbox, "", &endorse);
    endorse.args(&items);
    run_with_little_memory(endorse).exits(1).says("0 endorsed");
}

/// An item that this machine has built, and others on a server that does not have them either.
fn built(sandbox: &Sandbox) -> (Publisher, String) {
    let honest = Publisher::new(sandbox, "honest", 1);
    Publisher::trust(sandbox, &[&honest]);
    let item = honest.publish_file('a', "contents", "");
    run(command(sandbox, &honest.url(), &["fetch", &item])).exits(0);
    mark_as_built(sandbox, &item);
    (honest, item)
}

/// A server that claims another nar of [`FALSE_SIZE`], which would never end.
fn endless_server(sandbox: &Sandbox, directory: &str, hash_digit: char) -> Server {
    let publisher = Publisher::new(sandbox, directory, 2);
    publisher.publish_file('a', "other", "");
    let file = publisher.narinfo('a');
    let text = std::fs::read_to_string(&file).unwrap();
    let lines = text.lines().map(|line| match line.split_once(": ") {
        Some(("NarSize", _)) => format!("NarSize: {FALSE_SIZE}\n"),
        Some(("NarHash", _)) => format!("NarHash: sha256:{}\n", hash_digit.to_string().repeat(52)),
        _ => format!("{line}\n"),
    });
    std::fs::write(&file, lines.collect::<String>()).unwrap();
    let directory = publisher.dir.clone();
    Server::start(move |request| match request.path.ends_with(".nar") {
        true => Reply::new("200 OK", vec![0; 1 << 16]).endless(),
        false => Reply::file(&directory, request),
    })
}

#[test]
fn a_nar_of_a_false_size_is_not_downloaded() {
    let sandbox = Sandbox::new();
    let (honest, item) = built(&sandbox);
    let [first, second] = [("first", '0'), ("second", '1')]
        .map(|(name, digit)| endless_server(&sandbox, name, digit));
    let elsewhere = Sandbox::new();
    let began = Instant::now();
    for (sandbox, urls) in [
        // The tree of this machine, another server's nar, and a size that two servers agree on.
        (&sandbox, first.url()),
        (&elsewhere, format!("{} {}", honest.url(), first.url())),
        (&elsewhere, format!("{} {}", first.url(), honest.url())),
        (&elsewhere, format!("{} {}", first.url(), second.url())),
    ] {
        let found = run(command(sandbox, &urls, &["challenge", "--diff", &item])).exits(3);
        let reason = "its narinfo claims 4194304.0 TiB";
        assert!(found.stdout.contains(reason), "{urls}: {}", found.stdout);
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!(first.requests_for("/a.nar"), 0);
}
