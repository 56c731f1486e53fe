//! `subst mirror verify`: what is missing, wrong or left over in a mirror, and its repair.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::mirror::{contents, mirror, published};
use crate::support::publisher::{Publisher, command, file_nar, name};
use crate::support::sandbox::{Run, run};
use crate::support::{Sandbox, Server};

fn verify_command(sandbox: &Sandbox, urls: &str, arguments: &[&str]) -> Command {
    let mut command = command(sandbox, urls, &["mirror", "verify"]);
    command.arg("--to").arg(sandbox.path("mirror"));
    command.args(arguments);
    command
}

fn verify(sandbox: &Sandbox, urls: &str, arguments: &[&str]) -> Run {
    run(verify_command(sandbox, urls, arguments))
}

/// The file, status and repair of each finding.
fn findings(json: &Value) -> Vec<(String, String, bool)> {
    let findings = json["findings"].as_array().unwrap();
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    let findings = findings.iter().map(|finding| {
        let repaired = finding["repaired"].as_bool().unwrap();
        (text(finding, "file"), text(finding, "status"), repaired)
    });
    findings.collect()
}

fn found(file: &str, status: &str, repaired: bool) -> (String, String, bool) {
    (file.to_owned(), status.to_owned(), repaired)
}

fn narinfo(digit: char) -> String {
    format!("{}.narinfo", &name(digit)[..32])
}

/// A mirror of a, which refers to b.
fn mirrored(sandbox: &Sandbox) -> (Publisher, String, PathBuf) {
    let (publisher, a) = published(sandbox);
    mirror(sandbox, &publisher.url(), &["--closure", &a]).exits(0);
    (publisher, a, sandbox.path("mirror"))
}

#[test]
fn a_whole_mirror_has_no_faults() {
    let sandbox = Sandbox::new();
    let (publisher, _, _) = mirrored(&sandbox);
    let output = verify(&sandbox, &publisher.url(), &["--deep"]);
    output
        .exits(0)
        .says("2 items and 2 nars verified")
        .says("no fault found");

    let output = run(command(&sandbox, "", &["mirror", "verify", "--to", "none"]));
    output.exits(2).says("there is no directory none");
}

#[test]
fn what_is_missing_or_wrong_is_found_and_fetched_again() {
    let sandbox = Sandbox::new();
    let (publisher, _, path) = mirrored(&sandbox);
    let url = publisher.url();
    let whole = contents(&path);
    let json = |arguments: &[&str], code| {
        let output = verify(&sandbox, &url, arguments).exits(code);
        findings(&output.json())
    };
    let b = narinfo('b');

    for (damage, file, status, is_deep) in [
        (None, "a.nar", "missing", false),
        (Some("short"), "b.nar", "damaged", false),
        (None, b.as_str(), "missing", false),
        (Some("no narinfo"), &b, "invalid", false),
        (None, "nix-cache-info", "missing", false),
        (Some(""), "b.nar", "damaged", true),
    ] {
        match damage {
            None => std::fs::remove_file(path.join(file)).unwrap(),
            Some("") => {
                let mut bytes = whole[file].clone();
                *bytes.last_mut().unwrap() ^= 1;
                std::fs::write(path.join(file), bytes).unwrap();
            }
            Some(text) => std::fs::write(path.join(file), text).unwrap(),
        }
        let deep: &[&str] = if is_deep { &["--deep"] } else { &[] };
        let arguments = [deep, &["--json"]].concat();
        assert_eq!(json(&arguments, 3), [found(file, status, false)], "{file}");
        let arguments = [deep, &["--json", "--repair"]].concat();
        assert_eq!(json(&arguments, 0), [found(file, status, true)], "{file}");
        assert_eq!(contents(&path), whole, "{file}");
    }
    assert_eq!(json(&["--deep", "--json"], 0), []);
}

#[test]
fn what_is_repaired_keeps_its_compression_methods_and_the_rest_is_left_alone() {
    let sandbox = Sandbox::new();
    let publisher = Publisher::new(&sandbox, "server", 1);
    Publisher::trust(&sandbox, &[&publisher]);
    let publish = |digit: char, references: &str| {
        let nar = file_nar(digit.to_string().as_bytes());
        let compressed = zstd::encode_all(&nar[..], 3).unwrap();
        std::fs::write(publisher.dir.join(format!("{digit}.nar.zst")), compressed).unwrap();
        let other = format!("URL: {digit}.nar.zst\nCompression: zstd\n");
        let downloads = format!("{other}URL: {digit}.nar\nCompression: none\n");
        std::fs::write(publisher.nar(digit), &nar).unwrap();
        publisher.describe(digit, &nar, nar.len() as u64, references, &downloads)
    };
    publish('b', "");
    let (a, c) = (publish('a', &name('b')), publish('c', ""));
    for (item, method) in [(&a, "zstd"), (&c, "none")] {
        let words = ["--closure", item, "--compression", method];
        mirror(&sandbox, &publisher.url(), &words).exits(0);
    }
    let path = sandbox.path("mirror");
    let whole = contents(&path);

    for damaged in ["a.nar.zst", "c.nar"] {
        std::fs::write(path.join(damaged), "").unwrap();
        // The servers have b in another way now, but it needs no repair.
        let b = std::fs::read_to_string(publisher.narinfo('b')).unwrap();
        let b = b.replace("URL: b.nar.zst\nCompression: zstd\n", "");
        std::fs::write(publisher.narinfo('b'), b).unwrap();
        verify(&sandbox, &publisher.url(), &["--deep", "--repair"]).exits(0);
        assert!(contents(&path) == whole, "{damaged}");
    }
}

#[test]
fn the_faults_are_named_with_the_command_that_repairs_them() {
    let sandbox = Sandbox::new();
    let (publisher, _, path) = mirrored(&sandbox);
    std::fs::remove_file(path.join("b.nar")).unwrap();
    let output = verify(&sandbox, &publisher.url(), &[]).exits(3);
    let b = format!("/gnu/store/{}", name('b'));
    let line = format!("missing       {b}  b.nar: there is no such file\n");
    assert_eq!(output.stdout, line);
    let output = output.says("1 missing");
    assert!(output.stderr.contains("--repair"), "{}", output.stderr);
}

#[test]
fn what_no_server_has_stays_as_it_is() {
    let sandbox = Sandbox::new();
    let (publisher, _, path) = mirrored(&sandbox);
    std::fs::remove_file(path.join("b.nar")).unwrap();
    std::fs::remove_file(publisher.nar('b')).unwrap();
    let before = contents(&path);
    let output = verify(&sandbox, &publisher.url(), &["--repair", "--json"]).exits(3);
    assert_eq!(findings(&output.json()), [found("b.nar", "missing", false)]);
    output.says("was left as it is");
    assert_eq!(contents(&path), before);
}

#[test]
fn narinfos_that_are_not_authorized_are_told_apart() {
    let sandbox = Sandbox::new();
    let (publisher, _, path) = mirrored(&sandbox);
    let stranger = Publisher::new(&sandbox, "stranger", 9);
    stranger.publish_file('a', "other", "");
    std::fs::copy(stranger.narinfo('a'), path.join(narinfo('a'))).unwrap();
    std::fs::copy(stranger.nar('a'), path.join("a.nar")).unwrap();
    let found_now = |arguments: &[&str], code| {
        let output = verify(&sandbox, &publisher.url(), arguments).exits(code);
        findings(&output.json())
    };
    let key = "signed by the key ";
    let output = verify(&sandbox, &publisher.url(), &[]).exits(3);
    let (_, name) = output.stdout.split_once(key).unwrap();
    assert_eq!(name.find(','), Some(16), "{name}");
    let output = output.says("get its public key from its administrator");
    assert!(!output.stderr.contains("--repair"), "{}", output.stderr);
    let expected = found(&narinfo('a'), "unauthorized", false);
    assert_eq!(found_now(&["--deep", "--json"], 3), [expected]);
    let expected = found(&narinfo('a'), "unauthorized", true);
    assert_eq!(found_now(&["--json", "--repair"], 0), [expected]);
    assert_eq!(found_now(&["--deep", "--json"], 0), []);

    std::fs::copy(path.join(narinfo('a')), path.join(narinfo('d'))).unwrap();
    let expected = found(&narinfo('d'), "invalid", false);
    assert_eq!(found_now(&["--json"], 3), [expected]);
}

#[test]
fn a_missing_signature_of_another_principal_is_told_apart() {
    let sandbox = Sandbox::new();
    let (publisher, a, _) = mirrored(&sandbox);
    let other = Publisher::new(&sandbox, "other", 2);
    Publisher::trust(&sandbox, &[&publisher, &other]);
    let verify = |arguments: &[&str]| {
        let mut command = verify_command(&sandbox, &other.url(), arguments);
        command.env("SUBST_NEED_SIGNATURES", "2");
        run(command)
    };
    let output = verify(&[]).exits(3);
    assert!(output.stdout.contains("too few votes"), "{}", output.stdout);
    let output = output.says("--repair` adds the signatures of more principals");
    assert!(!output.stderr.contains("fetches it again"));

    let b = other.publish_file('b', "b", "");
    other.publish_file('a', "a", &b["/gnu/store/".len()..]);
    let urls = format!("{} {}", publisher.url(), other.url());
    let mut command = verify_command(&sandbox, &urls, &["--repair"]);
    command.env("SUBST_NEED_SIGNATURES", "2");
    run(command).exits(0);
    verify(&[]).exits(0);
    assert!(a.ends_with(&name('a')));
}

#[test]
fn what_belongs_to_no_item_is_no_fault() {
    let sandbox = Sandbox::new();
    let (publisher, _, path) = mirrored(&sandbox);
    std::fs::create_dir_all(path.join("nar/lzip")).unwrap();
    let old = format!("nar/lzip/{}", name('d'));
    for file in [&*old, "nar/old", "index.html", ".hidden"] {
        std::fs::write(path.join(file), "text").unwrap();
    }
    std::os::unix::fs::symlink("/", path.join("link")).unwrap();
    let output = verify(&sandbox, &publisher.url(), &["--json"]).exits(0);
    let json = output.json();
    assert_eq!(json["orphans"], json!([old]));
    let foreign = json!([".hidden", "index.html", "link", "nar/old"]);
    assert_eq!(json["foreign"], foreign);
    output.says("1 nar belongs to no item (4 B)");
}

#[test]
fn a_narinfo_of_a_reference_that_cannot_be_read_is_a_finding_among_others() {
    for is_directory in [false, true] {
        let sandbox = Sandbox::new();
        let (publisher, _, path) = mirrored(&sandbox);
        std::fs::remove_file(path.join("a.nar")).unwrap();
        let b = path.join(narinfo('b'));
        let moved = sandbox.path("moved");
        std::fs::rename(&b, &moved).unwrap();
        match is_directory {
            true => std::fs::create_dir(&b).unwrap(),
            false => std::os::unix::fs::symlink(&moved, &b).unwrap(),
        }
        let output = verify(&sandbox, &publisher.url(), &["--json"]).exits(5);
        let expected = [
            found("a.nar", "missing", false),
            found(&narinfo('b'), "unreadable", false),
        ];
        assert_eq!(findings(&output.json()), expected);
    }
}

/// Nothing refers to a, so that nothing but its narinfo says its name.
#[test]
fn an_item_whose_name_is_not_known_is_to_be_copied_again() {
    let sandbox = Sandbox::new();
    let (publisher, a, path) = mirrored(&sandbox);
    let whole = contents(&path);
    std::fs::write(path.join(narinfo('a')), "damaged").unwrap();
    let mut gc = command(&sandbox, "", &["mirror", "gc"]);
    gc.arg("--to").arg(&path);
    run(gc).exits(5).says("copy the item again");
    for words in [&[][..], &["--repair"]] {
        let output = verify(&sandbox, &publisher.url(), words).exits(3);
        let output = output.says("copy the item again");
        let stderr = &output.stderr;
        assert!(!stderr.contains("--repair"), "{stderr}");
        assert!(!stderr.contains("--substitute-urls"), "{stderr}");
    }
    std::fs::remove_file(path.join("b.nar")).unwrap();
    let output = verify(&sandbox, &publisher.url(), &[]).exits(3);
    output.says("copy the item again").says("--repair");
    verify(&sandbox, &publisher.url(), &["--repair"]).exits(3);

    mirror(&sandbox, &publisher.url(), &["--closure", &a]).exits(0);
    assert_eq!(contents(&path), whole);
    verify(&sandbox, &publisher.url(), &["--deep"]).exits(0);
}

#[test]
fn verification_needs_no_lock_and_no_server_but_repair_does() {
    let sandbox = Sandbox::new();
    let (publisher, _, path) = mirrored(&sandbox);
    let server = Server::of(publisher.dir.clone());
    let lock = std::fs::File::open(path.join("subst/lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    verify(&sandbox, &server.url(), &["--deep"]).exits(0);
    assert_eq!(server.requests().len(), 0);
    let output = verify(&sandbox, &server.url(), &["--repair"]);
    output
        .exits(5)
        .says("another process is writing to the mirror");
}
