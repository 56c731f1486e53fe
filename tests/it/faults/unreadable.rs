//! Single files of a `file:` server that cannot be read: it is the server that fails, and not this
//! machine.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::{assert_complete, assert_nothing, only};
use crate::support::{Kind, item};

/// Makes reading `file` an error for root, too: its links form a circle.
fn make_unreadable(file: &Path) {
    std::fs::remove_file(file).unwrap();
    symlink(file.file_name().unwrap(), file).unwrap();
}

const CAUSE: &str = "Too many levels of symbolic links";

/// No wait helps.
const LONG: [&str; 2] = ["--retry-time", "1h"];

#[test]
fn another_server_is_used_for_a_nar_or_narinfo_that_cannot_be_read() {
    for is_nar in [true, false] {
        let (sandbox, fixture) = only("zstd");
        let notes = item("notes");
        make_unreadable(&match is_nar {
            true => fixture.nar(&notes, "zstd"),
            false => fixture.narinfo(&notes),
        });
        let urls = format!("{} {}", fixture.url(), Kind::Guix.url());
        let top = item("sample");
        let run = sandbox.subst(&urls, &[&["fetch", &top], &LONG[..]].concat());
        run.exits(0);
        assert_complete(&sandbox);

        let mirror = sandbox.path("mirror").display().to_string();
        let arguments = ["mirror", "--to", &mirror, "--closure", &top];
        sandbox
            .subst(&urls, &[&arguments[..], &LONG].concat())
            .exits(0);
    }
}

#[test]
fn without_another_server_the_file_and_the_cause_are_named() {
    for is_nar in [true, false] {
        let (sandbox, fixture) = only("zstd");
        let notes = item("notes");
        let file = match is_nar {
            true => fixture.nar(&notes, "zstd"),
            false => fixture.narinfo(&notes),
        };
        make_unreadable(&file);
        let run = sandbox.subst(&fixture.url(), &[&["fetch", &notes], &LONG[..]].concat());
        run.exits(4).says(&file.display().to_string()).says(CAUSE);
        assert_nothing(&sandbox);
    }
}

#[test]
fn a_nix_cache_info_that_cannot_be_read_is_named() {
    let (sandbox, fixture) = only("zstd");
    let file = fixture.dir.join("nix-cache-info");
    make_unreadable(&file);
    let report = sandbox.subst(&fixture.url(), &["servers"]).stdout;
    assert!(report.contains(&file.display().to_string()), "{report}");
}
