//! `subst mirror`: the names that nars get, whatever the servers call them.

use super::mirror::{contents, mirror};
use crate::support::publisher::{Publisher, command, file_nar, installed, name};
use crate::support::sandbox::run;
use crate::support::{Reply, Sandbox, Server};

/// A server of the item `digit` that calls its nar `url`: the narinfo is genuine, and no signature covers the URL.
fn server_with_url(sandbox: &Sandbox, digit: char, url: &str) -> (Server, String) {
    let _ = std::fs::remove_dir_all(sandbox.path("server"));
    let publisher = Publisher::new(sandbox, "server", 1);
    Publisher::trust(sandbox, &[&publisher]);
    let nar = file_nar(digit.to_string().as_bytes());
    let downloads = format!("URL: {url}\nCompression: none\n");
    let item = publisher.describe(digit, &nar, nar.len() as u64, "", &downloads);
    let server = Server::start(move |request| {
        let file = Reply::file(&publisher.dir, request);
        match file.is_found() {
            true => file,
            false => Reply::new("200 OK", nar.clone()),
        }
    });
    (server, item)
}

/// The URL in the mirror's narinfo of `digit`.
fn copied_url(sandbox: &Sandbox, digit: char) -> String {
    let file = sandbox.path(&format!("mirror/{}.narinfo", &name(digit)[..32]));
    let text = std::fs::read_to_string(file).unwrap();
    let url = text.lines().find_map(|line| line.strip_prefix("URL: "));
    url.unwrap().to_owned()
}

#[test]
fn what_is_no_file_and_has_the_name_of_a_nar_stops_no_copy() {
    let in_directory = format!("nar/zstd/{}", name('a'));
    for (url, taken) in [
        ("a.nar", "a.nar/it"),
        ("nar/a.nar.xz", "nar/a.nar.xz/it"),
        (&in_directory, "nar/zstd"),
        ("nar", "nar/zstd/it"),
        ("nar/zstd", "nar/zstd/it"),
    ] {
        let sandbox = Sandbox::new();
        let there = sandbox.path("mirror").join(taken);
        std::fs::create_dir_all(there.parent().unwrap()).unwrap();
        std::fs::write(&there, "precious").unwrap();
        let (server, a) = server_with_url(&sandbox, 'a', url);
        mirror(&sandbox, &server.url(), &["--closure", &a]).exits(0);
        assert!(copied_url(&sandbox, 'a').starts_with("nar/sha256-"));
        assert_eq!(std::fs::read(&there).unwrap(), b"precious", "{url}");
        let url = format!("file://{}", sandbox.path("mirror").display());
        run(command(&sandbox, &url, &["fetch", &a])).exits(0);
        assert!(installed(&sandbox, &a).exists());
    }
}

#[test]
fn no_name_of_a_nar_stops_later_copies() {
    let sandbox = Sandbox::new();
    for (digit, url) in [
        ('a', "nar"),
        ('b', "nar/zstd"),
        ('c', &*format!("nar/zstd/{}", name('c'))),
        ('d', "nar/d.nar/x"),
        ('f', "nar/d.nar"),
    ] {
        let (server, item) = server_with_url(&sandbox, digit, url);
        mirror(&sandbox, &server.url(), &["--closure", &item]).exits(0);
        let is_kept = matches!(digit, 'c' | 'f');
        assert_eq!(copied_url(&sandbox, digit) == url, is_kept, "{url}");
    }
}

#[test]
fn a_server_chooses_no_file_of_the_mirror() {
    let sandbox = Sandbox::new();
    let (own, other) = (name('a'), name('b'));
    let by_hash = format!("nar/sha256-{}", "0".repeat(64));
    for url in [
        "index.html",
        "robots.txt",
        "x.nar.html",
        ".nar",
        "nar/index.html",
        "nar/index",
        "nar/x.php",
        "nar/other/x.nar",
        "releases/x.nar",
        &format!("nar/{other}"),
        &format!("nar/deep/{own}"),
        &own,
        &by_hash,
        &format!("{by_hash}/x"),
    ] {
        let (server, a) = server_with_url(&sandbox, 'a', url);
        mirror(&sandbox, &server.url(), &["--closure", &a]).exits(0);
        let files = contents(&sandbox.path("mirror"));
        let nars = files.keys().filter(|name| !name.contains("info"));
        let nars: Vec<&String> = nars.collect();
        assert_eq!(nars, [&copied_url(&sandbox, 'a')], "{url}");
        assert!(nars[0].starts_with("nar/sha256-") && *nars[0] != by_hash);
        std::fs::remove_dir_all(sandbox.path("mirror")).unwrap();
    }

    for url in [
        &format!("nar/{own}"),
        &format!("nar/lzip/{own}"),
        "nar/0abc.nar.xz",
        "nar/0abc.nar",
        "0abc.nar.zst",
    ] {
        let (server, a) = server_with_url(&sandbox, 'a', url);
        mirror(&sandbox, &server.url(), &["--closure", &a]).exits(0);
        assert_eq!(copied_url(&sandbox, 'a'), url);
        std::fs::remove_dir_all(sandbox.path("mirror")).unwrap();
    }
}
