//! Servers without an authorized key that send large answers: what is kept of them is bounded, and the
//! good server after them is used soon.

use std::time::{Duration, Instant};

use crate::support::memory::run_with_little_memory;
use crate::support::publisher::{Publisher, command, contents, file_nar, name};
use crate::support::sandbox::{Running, run};
use crate::support::{Reply, Sandbox, Server, files_below, wait_until};

/// The largest narinfo that is read.
const NARINFO_BYTES: usize = 1 << 20;
const ITEMS: usize = 40;
/// Far more than needed: other tests run in parallel.
const SOON: Duration = Duration::from_secs(30);

fn item_name(number: usize) -> String {
    format!("{}{number:02}-item", "0".repeat(30))
}

/// Lines like `line` with numbers in the place of `#`, as many as fit into a narinfo.
fn repeated(line: &str) -> String {
    let lines = (0..).map(|number: usize| line.replace('#', &format!("{number:05}")));
    let mut text = String::new();
    for line in lines {
        if text.len() + line.len() > NARINFO_BYTES - 2000 {
            return text;
        }
        text.push_str(&line);
    }
    unreachable!("the numbers do not end")
}

/// A server without an authorized key, preferred to a good one; both have narinfos of all items.
struct TwoServers {
    sandbox: Sandbox,
    unauthorized: Publisher,
    good: Publisher,
    items: Vec<String>,
}

impl TwoServers {
    fn new(references: &str, downloads: &str) -> Self {
        let sandbox = Sandbox::new();
        let unauthorized = Publisher::new(&sandbox, "unauthorized", 1);
        let good = Publisher::new(&sandbox, "good", 2);
        Publisher::trust(&sandbox, &[&good]);
        let mut items = Vec::new();
        for number in 0..ITEMS {
            let (name, nar) = (item_name(number), file_nar(b"good"));
            let size = nar.len() as u64;
            unauthorized.describe_as(&name, &file_nar(b"bad"), size, references, downloads);
            let url = format!("URL: {name}\nCompression: none\n");
            items.push(good.describe_as(&name, &nar, size, "", &url));
            std::fs::write(good.dir.join(&name), nar).unwrap();
        }
        Self {
            sandbox,
            unauthorized,
            good,
            items,
        }
    }

    /// Every item is fetched from the good server, soon and with little memory, and the content of the
    /// unauthorized narinfos is not kept on disk.
    #[track_caller]
    fn assert_cheap(&self) {
        let servers = [&self.unauthorized, &self.good].map(|one| Server::of(one.dir.clone()));
        let urls = format!("{} {}", servers[0].url(), servers[1].url());
        for arguments in [&["fetch"][..], &["query", "--closure", "--json"]] {
            let mut command = command(&self.sandbox, &urls, arguments);
            command.args(&self.items);
            let began = Instant::now();
            run_with_little_memory(command).exits(0);
            assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        }
        assert_eq!(
            servers[0].requests_for("narinfo"),
            ITEMS,
            "refusals are in the lookup cache"
        );
        let kept = files_below(&self.sandbox.root().join("var/guix/subst"), "");
        let size: u64 = kept.iter().map(|file| file.metadata().unwrap().len()).sum();
        assert!(
            !kept.is_empty() && size < 5 << 20,
            "{size} bytes in {kept:?}"
        );
    }
}

#[test]
fn downloads_in_an_unauthorized_narinfo_are_bounded() {
    TwoServers::new("", &repeated("URL: #\nCompression: zstd\n")).assert_cheap();
    TwoServers::new("", &repeated(&format!("URL: {}#\n", "x".repeat(3000)))).assert_cheap();
}

#[test]
fn references_in_an_unauthorized_narinfo_are_not_looked_up() {
    let references = repeated(&format!("{}#-a ", "0".repeat(27)));
    TwoServers::new(references.trim_end(), "").assert_cheap();
}

#[test]
fn fields_of_an_unauthorized_narinfo_are_not_kept() {
    TwoServers::new("", &repeated("Sig: #\n")).assert_cheap();
    TwoServers::new("", &repeated("X-#: #\n")).assert_cheap();
    TwoServers::new(
        "",
        &format!("System: {}\n", "x".repeat(NARINFO_BYTES - 2000)),
    )
    .assert_cheap();
}

/// The signature is valid, and does not cover what a mirror wrote below it.
#[test]
fn lines_that_a_mirror_adds_below_the_signature_are_not_kept() {
    for line in ["URL: #\nCompression: lrzip\n", "Sig: #\n", "X: #\n"] {
        let crowd = TwoServers::new("", "");
        for file in files_below(&crowd.good.dir, ".narinfo") {
            let text = std::fs::read_to_string(&file).unwrap();
            let more = repeated(line);
            std::fs::write(file, text + &more).unwrap();
        }
        crowd.assert_cheap();
    }
}

/// Narinfos beyond the limit: with a length, and endless.
#[test]
fn oversized_narinfos_are_not_read() {
    let crowd = TwoServers::new("", "");
    let long: Vec<u8> = b"X: y\n".repeat(16 << 18);
    let good = Server::of(crowd.good.dir.clone());
    for is_endless in [false, true] {
        let long = long.clone();
        let server = Server::start(move |request| match request.path.ends_with(".narinfo") {
            true if is_endless => Reply::new("200 OK", "X: y\n").endless(),
            true => Reply::new("200 OK", long.clone()),
            false => Reply::not_found(),
        });
        let urls = format!("{} {}", server.url(), good.url());
        let mut command = command(&crowd.sandbox, &urls, &["fetch"]);
        command.args(&crowd.items);
        let began = Instant::now();
        run_with_little_memory(command).exits(0);
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        // The second time as the first.
        crowd.sandbox.remove_root();
    }
}

/// Two trusted publishers with different builds of one item.
fn two_builds() -> (Sandbox, Publisher, Publisher) {
    let sandbox = Sandbox::new();
    let hostile = Publisher::new(&sandbox, "hostile", 1);
    let good = Publisher::new(&sandbox, "good", 2);
    Publisher::trust(&sandbox, &[&hostile, &good]);
    good.publish_file('1', "good", "");
    hostile.publish_file('1', "other", "");
    (sandbox, hostile, good)
}

fn item() -> String {
    format!("/gnu/store/{}", name('1'))
}

#[test]
fn the_number_of_tried_urls_is_limited() {
    let (sandbox, hostile, good) = two_builds();
    let nar = file_nar(b"other");
    let downloads = repeated("URL: nar-#\nCompression: zstd\n");
    hostile.describe('1', &nar, nar.len() as u64, "", &downloads);
    let servers = [&hostile, &good].map(|one| Server::of(one.dir.clone()));
    let urls = format!("{} {}", servers[0].url(), servers[1].url());
    run(command(&sandbox, &urls, &["fetch", &item()])).exits(0);
    assert_eq!(contents(&sandbox, &item()), "good");
    assert_eq!(servers[0].requests_for("/nar-"), 3);
}

/// Compressed input that decompresses to no bytes.
fn empty_pieces() -> Vec<(&'static str, Vec<u8>)> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let skippable = [&b"\x50\x2a\x4d\x18\x00\x01\0\0"[..], &[7; 256]].concat();
    vec![
        ("zstd", zstd::encode_all(&b""[..], 1).unwrap()),
        ("zstd", skippable),
        ("gzip", gzip.finish().unwrap()),
        ("xz", EMPTY_XZ.to_vec()),
        ("none", vec![0]),
    ]
}

/// What `xz </dev/null` writes.
const EMPTY_XZ: [u8; 32] = [
    0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4, 0x46, 0x00, 0x00, 0x00, 0x00,
    0x1c, 0xdf, 0x44, 0x21, 0x1f, 0xb6, 0xf3, 0x7d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x04, 0x59, 0x5a,
];

fn endless(piece: Vec<u8>, dir: std::path::PathBuf) -> Server {
    Server::start(move |request| match request.path.as_str() {
        "/endless" => Reply::new("200 OK", piece.clone()).endless(),
        _ => Reply::file(&dir, request),
    })
}

#[test]
fn compressed_input_without_output_ends() {
    for (method, piece) in empty_pieces() {
        let (sandbox, hostile, good) = two_builds();
        let nar = file_nar(b"other");
        let downloads = format!("URL: endless\nCompression: {method}\n");
        hostile.describe('1', &nar, nar.len() as u64, "", &downloads);
        // A directory has files with an end.
        std::fs::write(
            hostile.dir.join("endless"),
            piece.repeat((3 << 20) / piece.len()),
        )
        .unwrap();
        let server = endless(piece, hostile.dir.clone());
        for url in [server.url(), hostile.url()] {
            let began = Instant::now();
            let urls = format!("{url} {}", good.url());
            let tree = format!("tree-{}", url.len());
            let arguments = ["fetch", "--output", &tree, &item()];
            run_with_little_memory(command(&sandbox, &urls, &arguments)).exits(0);
            assert_eq!(std::fs::read(sandbox.path(&tree)).unwrap(), b"good");
            assert!(began.elapsed() < SOON, "{method}: {:?}", began.elapsed());
        }
    }
}

#[test]
fn an_interrupt_ends_compressed_input_without_output() {
    for (method, piece) in empty_pieces() {
        let (sandbox, hostile, _) = two_builds();
        let downloads = format!("URL: endless\nCompression: {method}\n");
        hostile.describe('1', &file_nar(b"other"), 1 << 30, "", &downloads);
        let server = endless(piece, hostile.dir.clone());
        let arguments = ["fetch", "--output", "tree", &item()];
        let running = Running::start(command(&sandbox, &server.url(), &arguments), "");
        assert!(wait_until(|| server.requests_for("/endless") > 0));
        std::thread::sleep(Duration::from_millis(100));
        running.interrupt();
        let ended = running.end();
        // Invalid nars may have been noticed before.
        assert!(matches!(ended.code, Some(130 | 3)), "{method}: {ended:?}");
        assert!(
            ended.code == Some(130) || method == "none",
            "{method}: {ended:?}"
        );
    }
}
