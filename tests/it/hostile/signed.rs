//! Invalid content with the signature of an authorized key: it is refused.

use std::time::Duration;

use subst::format::nar::{EntryName, NarWriter, SymlinkTarget};

use crate::support::publisher::{Publisher, command, file_nar};
use crate::support::sandbox::run;
use crate::support::{Reply, Run, Sandbox, Server, files_below};

/// A publisher with the only trusted key.
struct OwnServer {
    sandbox: Sandbox,
    publisher: Publisher,
}

impl OwnServer {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let publisher = Publisher::new(&sandbox, "server", 7);
        Publisher::trust(&sandbox, &[&publisher]);
        Self { sandbox, publisher }
    }

    fn publish(&self, digit: char, nar: &[u8], size: u64, references: &str) -> String {
        self.publisher.publish(digit, nar, size, references)
    }

    fn fetch(&self, arguments: &[&str]) -> Run {
        let mut command = command(&self.sandbox, &self.publisher.url(), &["fetch"]);
        command.args(arguments);
        run(command)
    }

    /// Nothing lies in the store but its own directory of links.
    #[track_caller]
    fn store_is_empty(&self) {
        let left = files_below(&self.sandbox.store(), "");
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_valid_item_of_the_test_publisher_is_accepted() {
    let own = OwnServer::new();
    let nar = file_nar(b"good");
    let path = own.publish('1', &nar, nar.len() as u64, "");
    own.fetch(&[&path]).exits(0).prints(&format!("{path}\n"));
    assert_eq!(
        std::fs::read(own.sandbox.root().join(&path[1..])).unwrap(),
        b"good"
    );
}

#[test]
fn sizes_beyond_the_disk_are_refused_before_anything_is_written() {
    let own = OwnServer::new();
    let nar = file_nar(b"small");
    for size in [u64::MAX, 1 << 62, u64::MAX / 2] {
        let one = own.publish('1', &nar, size, "");
        let two = own.publish('2', &nar, size, "");
        let ended = own.fetch(&["--refresh", &one, &two]);
        assert!(matches!(ended.code, Some(3 | 5)), "{size}: {ended:?}");
        assert_eq!(ended.stdout, "");
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        own.store_is_empty();
    }
}

#[test]
fn a_wrong_nar_size_is_refused() {
    let own = OwnServer::new();
    let nar = file_nar(b"of this size");
    let right = nar.len() as u64;
    for size in [0, 1, right - 1, right + 1, right + 8, 10 * right] {
        let path = own.publish('1', &nar, size, "");
        own.fetch(&["--refresh", &path]).exits(3).prints("");
        own.store_is_empty();
    }
}

#[test]
fn invalid_nars_are_refused() {
    let own = OwnServer::new();
    let mut huge = file_nar(b"x");
    let length = huge.iter().rposition(|byte| *byte == b'x').unwrap() - 8;
    huge[length..length + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    for nar in [
        b"".to_vec(),
        b"no nar".to_vec(),
        vec![0; 64],
        vec![0xff; 64],
        huge,
    ] {
        let path = own.publish('1', &nar, nar.len() as u64, "");
        own.fetch(&["--refresh", &path]).exits(3).prints("");
        own.store_is_empty();
    }
}

/// A name that would leave the tree; the writer refuses to make one, so it is patched in.
#[test]
fn entry_names_outside_the_tree_are_refused() {
    for name in ["../up", "a/b/c", "..", ".", "\u{0}\u{0}up"] {
        let own = OwnServer::new();
        let stand_in = "n".repeat(name.len());
        let mut nar = NarWriter::new(Vec::new());
        nar.directory(None).unwrap();
        let entry = EntryName::new(stand_in.as_bytes()).unwrap();
        nar.file(Some(&entry), false, 1, &b"x"[..]).unwrap();
        nar.end_directory().unwrap();
        let mut nar = nar.finish().unwrap();
        let framed = [
            &[u8::try_from(name.len()).unwrap(), 0, 0, 0, 0, 0, 0, 0],
            stand_in.as_bytes(),
        ]
        .concat();
        let at = nar
            .windows(framed.len())
            .position(|bytes| bytes == framed)
            .unwrap()
            + 8;
        nar[at..at + name.len()].copy_from_slice(name.as_bytes());
        let path = own.publish('1', &nar, nar.len() as u64, "");
        own.fetch(&[&path]).exits(3).prints("");
        own.store_is_empty();
        assert!(!own.sandbox.root().join("gnu/up").exists());
    }
}

/// A symlink, then an entry of the same name as a directory, to write through the link.
#[test]
fn symlinks_are_not_followed() {
    let own = OwnServer::new();
    let outside = own.sandbox.path("outside");
    std::fs::create_dir(&outside).unwrap();
    let mut nar = NarWriter::new(Vec::new());
    let target = SymlinkTarget::new(outside.to_str().unwrap().as_bytes()).unwrap();
    let entry = |name: &str| EntryName::new(name.as_bytes()).unwrap();
    nar.directory(None).unwrap();
    nar.symlink(Some(&entry("aa")), &target).unwrap();
    nar.directory(Some(&entry("ab"))).unwrap();
    nar.file(Some(&entry("file")), false, 1, &b"x"[..]).unwrap();
    nar.end_directory().unwrap();
    nar.end_directory().unwrap();
    let mut nar = nar.finish().unwrap();
    let at = nar.windows(3).rposition(|bytes| bytes == b"ab\0").unwrap();
    nar[at + 1] = b'a';
    let path = own.publish('1', &nar, nar.len() as u64, "");
    own.fetch(&[&path]).exits(3).prints("");
    own.store_is_empty();
    assert!(files_below(&outside, "").is_empty());
}

/// Two items that refer to each other: no build makes that, and it must not hang.
#[test]
fn a_cycle_of_references_ends() {
    let own = OwnServer::new();
    let nar = file_nar(b"circle");
    let size = nar.len() as u64;
    let two = format!("{}-odd", "2".repeat(32));
    let one = own.publish('1', &nar, size, &two);
    own.publish('2', &nar, size, one.trim_start_matches("/gnu/store/"));
    let ended = own.fetch(&[&one]);
    assert!(ended.code.is_some_and(|code| code != 0), "{ended:?}");
    own.store_is_empty();
}

#[test]
fn a_chain_of_references_is_followed_to_its_end() {
    let own = OwnServer::new();
    let digits: Vec<char> = "0123456789abcdfghijklmnpqrsvwxyz".chars().collect();
    let nar = file_nar(b"deep");
    let mut reference = String::new();
    for digit in &digits {
        let path = own.publish(*digit, &nar, nar.len() as u64, &reference);
        path.trim_start_matches("/gnu/store/")
            .clone_into(&mut reference);
    }
    let top = format!("/gnu/store/{reference}");
    let ended = own.fetch(&[&top]).exits(0);
    ended.says(&format!("{} items fetched", digits.len()));
}

/// A derivation that cannot be read fails with what refers to it. Whatever else is registered along with it
/// becomes valid.
#[test]
fn an_item_that_cannot_be_registered_fails_alone() {
    let own = OwnServer::new();
    let base = |path: &str| path.trim_start_matches("/gnu/store/").to_owned();
    let last = own.publisher.publish_file('1', "last", "");
    let good = own.publisher.publish_file('2', "good", &base(&last));
    let nar = file_nar(b"no derivation");
    std::fs::write(own.publisher.nar('3'), &nar).unwrap();
    let bad = own.publisher.describe_as(
        &format!("{}-bad.drv", "3".repeat(32)),
        &nar,
        nar.len() as u64,
        &base(&last),
        "URL: 3.nar\nCompression: none\n",
    );
    let referrer = own.publisher.publish_file('4', "referrer", &base(&bad));

    // All others wait for this one.
    let directory = own.publisher.dir.clone();
    let server = Server::start(move |request| {
        let mut reply = Reply::file(&directory, request);
        if request.path.ends_with("1.nar") {
            reply.drip = Some((reply.body.len() / 10, Duration::from_millis(200)));
        }
        reply
    });
    let arguments = ["fetch", "--keep-going", &good, &referrer];
    run(command(&own.sandbox, &server.url(), &arguments))
        .exits(5)
        .prints(&format!("{good}\n"))
        .says("is not a derivation that can be read");
    let fetched = [&last, &good].map(|path| own.sandbox.root().join(&path[1..]));
    assert_eq!(files_below(&own.sandbox.store(), "-odd"), fetched);
    assert_eq!(files_below(&own.sandbox.store(), ".drv").len(), 0);
}
