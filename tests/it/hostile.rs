//! Hostile servers: changed signatures, narinfos and nars. The run ends with the right exit code and
//! message, and neither the store nor its database changes; no lock, no temporary tree, no temp root
//! is left.
//!
//! Each case damages `tools` in a copy of the Guix fixtures; its only reference is valid already.

use std::path::PathBuf;

use data_encoding::BASE64;

use crate::support::listing::snapshot;
use crate::support::sandbox::run;
use crate::support::{Fixture, Kind, Sandbox, Server, item};

mod claims;
mod content_addressed;
mod exhaustion;
mod nars;
mod paused;
mod pointers;
mod signed;
mod slow;
mod unauthorized;
mod unverified;

/// A damaged server, and a store in which `notes` is valid.
pub(crate) struct Case {
    sandbox: Sandbox,
    fixture: Fixture,
    tools: String,
}

impl Case {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let fixture = Fixture::copy(Kind::Guix, sandbox.path("server"));
        sandbox
            .subst(&fixture.url(), &["fetch", &item("notes")])
            .exits(0);
        Self {
            sandbox,
            fixture,
            tools: item("tools"),
        }
    }

    /// With the narinfo of `tools` rewritten.
    fn edited(edit: impl FnOnce(&str) -> String) -> Self {
        let case = Self::new();
        case.fixture.edit(&case.tools, edit);
        case
    }

    /// A fetch of `tools` ends with `code` and prints `words`, from a directory and over HTTP, and changes
    /// nothing.
    #[track_caller]
    fn is_refused(&self, code: i32, words: &str) {
        let server = Server::of(self.fixture.dir.clone());
        for url in [self.fixture.url(), server.url()] {
            self.is_refused_from(&url, code, words);
        }
    }

    #[track_caller]
    fn is_refused_from(&self, url: &str, code: i32, words: &str) {
        let before = snapshot(&self.sandbox.root());
        let ended = self.sandbox.subst(url, &["fetch", &self.tools]);
        ended.exits(code).prints("").says(words);
        assert_eq!(snapshot(&self.sandbox.root()), before);
    }

    /// A fetch of `tools` succeeds as from a server that is not damaged.
    #[track_caller]
    fn is_accepted(&self) {
        let ended = self
            .sandbox
            .subst(&self.fixture.url(), &["fetch", &self.tools]);
        ended.exits(0).prints(&format!("{}\n", self.tools));
    }

    fn nar(&self, method: &str) -> PathBuf {
        self.fixture.nar(&self.tools, method)
    }
}

/// `text` with `from` replaced, which must be in it.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "`{from}` is not in {text}");
    text.replacen(from, to, 1)
}

/// `text` with the decoded signature rewritten.
fn with_edited_signature(text: &str, edit: impl FnOnce(String) -> String) -> String {
    let line = text
        .lines()
        .find(|line| line.starts_with("Signature: "))
        .unwrap();
    let (head, encoded) = line.rsplit_once(';').unwrap();
    let sexp = String::from_utf8(BASE64.decode(encoded.as_bytes()).unwrap()).unwrap();
    let changed = edit(sexp);
    text.replace(
        line,
        &format!("{head};{}", BASE64.encode(changed.as_bytes())),
    )
}

/// `sexp` with one digit changed in the number that follows `tag`.
fn one_digit_off(sexp: &str, tag: &str) -> String {
    let start = sexp.find(tag).unwrap() + tag.len();
    let digit = start + sexp[start..].find('#').unwrap() + 20;
    let other = if &sexp[digit..=digit] == "0" {
        "1"
    } else {
        "0"
    };
    format!("{}{other}{}", &sexp[..digit], &sexp[digit + 1..])
}

#[test]
fn an_undamaged_copy_is_accepted() {
    Case::new().is_accepted();
}

#[test]
fn changed_signed_fields_are_refused() {
    const OTHER_TEXT: &str =
        "its content does not match its signature: the narinfo was changed after signing";
    let base32 = |text: &str| replaced(text, "NarHash: sha256:0", "NarHash: sha256:1");
    Case::edited(base32).is_refused(3, OTHER_TEXT);
    Case::edited(|text| replaced(text, "NarSize: 3096", "NarSize: 3097")).is_refused(3, OTHER_TEXT);
    Case::edited(|text| replaced(text, "subst-notes", "subst-nodes")).is_refused(3, OTHER_TEXT);
    Case::edited(|text| replaced(text, "Deriver: m", "Deriver: n")).is_refused(3, OTHER_TEXT);
    Case::edited(|text| format!("System: x86_64-linux\n{text}")).is_refused(3, OTHER_TEXT);
    Case::edited(|text| replaced(text, "References: ", "References:  ")).is_refused(3, OTHER_TEXT);
}

#[test]
fn every_flipped_bit_above_the_signature_is_refused() {
    let case = Case::new();
    let narinfo = case.fixture.narinfo(&case.tools);
    let good = std::fs::read(&narinfo).unwrap();
    let signed = good
        .windows(11)
        .position(|bytes| bytes == b"\nSignature:")
        .unwrap()
        + 1;
    let before = snapshot(&case.sandbox.root());
    for position in (0..signed).step_by(7) {
        let mut damaged = good.clone();
        damaged[position] ^= 1 << (position % 7);
        std::fs::write(&narinfo, &damaged).unwrap();
        let ended = case
            .sandbox
            .subst(&case.fixture.url(), &["fetch", "--refresh", &case.tools]);
        ended.exits(3).prints("");
    }
    assert_eq!(snapshot(&case.sandbox.root()), before);
    std::fs::write(&narinfo, good).unwrap();
    case.sandbox
        .subst(&case.fixture.url(), &["fetch", "--refresh", &case.tools])
        .exits(0);
}

#[test]
fn unsigned_fields_are_not_trusted() {
    let unsigned = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with("Signature:"));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    Case::edited(unsigned).is_refused(3, "it is not signed");
    // The references moved below the signature: any mirror may write there.
    let moved = |text: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with("References:"))
            .unwrap();
        let rest = text.replace(&format!("{line}\n"), "");
        rest.replacen("\nURL: ", &format!("\n{line}\nURL: "), 1)
    };
    Case::edited(moved).is_refused(3, "cannot fetch");
}

#[test]
fn a_signature_with_one_wrong_digit_is_refused() {
    let with = |tag: &'static str| {
        Case::edited(move |text| with_edited_signature(text, |sexp| one_digit_off(&sexp, tag)))
    };
    with("(hash sha256 ").is_refused(
        3,
        "its content does not match its signature: the narinfo was changed after signing",
    );
    with("(r ").is_refused(3, "its signature is invalid");
    with("(s ").is_refused(3, "its signature is invalid");
    with("(q ").is_refused(3, "not authorized");
    let shape = |sexp: String| replaced(&sexp, "sig-val", "sig-vat");
    Case::edited(|text| with_edited_signature(text, shape))
        .is_refused(3, "its signature is corrupt");
    Case::edited(|text| replaced(text, "Signature: 1;", "Signature: 2;")).is_refused(3, "corrupt");
    Case::edited(|text| replaced(text, ";KHNp", ";!HNp")).is_refused(3, "corrupt");
}

#[test]
fn a_narinfo_of_another_item_is_refused() {
    let case = Case::new();
    let copy = case.fixture.narinfo(&item("copy"));
    std::fs::copy(copy, case.fixture.narinfo(&case.tools)).unwrap();
    case.is_refused(3, "refused: it answered for");
}

#[test]
fn invalid_narinfos_are_rejected() {
    let path = "StorePath: /gnu/store/x";
    for text in [path, "\nStorePath:\n", "URL: x\nStorePath: y\n"] {
        let case = Case::new();
        std::fs::write(case.fixture.narinfo(&case.tools), text).unwrap();
        case.is_refused(3, "no server has a narinfo that can be used");
    }
    let case = Case::new();
    let bytes = [b"StorePath:", &[0xff; 5000][..]].concat();
    std::fs::write(case.fixture.narinfo(&case.tools), bytes).unwrap();
    case.is_refused(3, "not UTF-8");
}

#[test]
fn what_is_not_a_narinfo_is_no_answer() {
    let texts = ["", "\n", "garbage", "StorePath", "\u{0}\u{0}"].map(|text| text.into());
    for text in texts.into_iter().chain([vec![0xff; 5000]]) {
        let case = Case::new();
        std::fs::write(case.fixture.narinfo(&case.tools), text).unwrap();
        case.is_refused(4, "the response is not a narinfo");
    }
}

#[test]
fn unauthorized_keys_are_refused() {
    let case = Case::new();
    let before = snapshot(&case.sandbox.root());
    let fetch = |acl: PathBuf, environment: &[(&str, &str)]| {
        let mut command = case.sandbox.bare(&[
            "fetch",
            &case.tools,
            "--substitute-urls",
            &case.fixture.url(),
        ]);
        command
            .arg("--root")
            .arg(case.sandbox.root())
            .arg("--acl")
            .arg(acl);
        run({
            command.envs(environment.iter().copied());
            command
        })
    };
    fetch(case.sandbox.root().join("etc/guix/acl"), &[])
        .exits(3)
        .says("not authorized");
    fetch(case.sandbox.path("no-such-file"), &[])
        .exits(3)
        .says("no key is authorized");
    let empty = case.sandbox.path("empty");
    std::fs::write(&empty, "(acl)").unwrap();
    fetch(empty.clone(), &[]).exits(3).says("not authorized");
    std::fs::write(&empty, "").unwrap();
    fetch(empty.clone(), &[]).exits(3).says("is invalid");
    // A key that is authorized for other things than archives.
    let key = std::fs::read_to_string(Kind::Guix.directory().join("signing-key.pub")).unwrap();
    std::fs::write(&empty, format!("(acl (entry {key} (tag (guix sign))))")).unwrap();
    fetch(empty, &[]).exits(3).says("not authorized");
    assert_eq!(snapshot(&case.sandbox.root()), before);
}

#[test]
fn a_server_for_another_store_is_not_used() {
    let case = Case::new();
    std::fs::write(
        case.fixture.dir.join("nix-cache-info"),
        "StoreDir: /other/store\n",
    )
    .unwrap();
    std::fs::remove_dir_all(case.sandbox.root().join("var/guix/subst")).unwrap();
    case.is_refused_from(&case.fixture.url(), 4, "its items are for /other/store");
}

#[test]
fn a_bad_server_does_not_hide_a_good_one() {
    let case = Case::edited(|text| replaced(text, "NarSize: 3096", "NarSize: 3097"));
    let both = format!("{} {}", case.fixture.url(), Kind::Guix.url());
    case.sandbox
        .subst(&both, &["fetch", &case.tools])
        .exits(0)
        .prints(&format!("{}\n", case.tools));
}
