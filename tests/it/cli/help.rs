//! Help and manual pages.

use std::process::{Command, Stdio};

use crate::support::Sandbox;
use crate::support::sandbox::run;

#[test]
fn help_of_a_command_ends_with_examples_and_exit_status() {
    let sandbox = Sandbox::new();
    for (arguments, usage) in [
        (&["help"][..], "Usage: subst [OPTIONS] <COMMAND>\n"),
        (
            &["help", "fetch"],
            "Usage: subst fetch [OPTIONS] <PATH>...\n",
        ),
        (
            &["help", "cache", "flush"],
            "Usage: subst cache flush [OPTIONS] [PATH]...\n",
        ),
        (
            &["authorize", "-h"],
            "Usage: subst authorize [OPTIONS] [FILE|URL]\n",
        ),
    ] {
        let help = run(sandbox.bare(arguments)).exits(0).stdout;
        assert!(help.contains(usage), "{help}");
        let end = help.split_once("\nExamples:\n").map(|(_, end)| end);
        let status = end.and_then(|end| end.split_once("\nExit status:\n  0    done\n"));
        assert!(status.is_some(), "{help}");
    }
    run(sandbox.bare(&["help", "fetsh"])).exits(2).says("fetsh");
}

#[test]
fn a_command_shows_only_the_shared_options_that_it_uses() {
    let sandbox = Sandbox::new();
    for (command, shown, hidden) in [
        (
            "fetch",
            &["--root", "--jobs", "--offline"][..],
            &["--closure"][..],
        ),
        (
            "query",
            &["--root", "--offline", "--json"],
            &["--jobs", "--sync"],
        ),
        (
            "servers",
            &["--connect-timeout"],
            &["--jobs", "--acl", "--offline"],
        ),
        (
            "cache",
            &["--root", "--json"],
            &["--substitute-urls", "--jobs"],
        ),
        (
            "authorize",
            &["--root", "--acl", "--json", "--list"],
            &["--jobs", "--offline"],
        ),
        ("completions", &["--help"], &["--root", "--json", "--jobs"]),
    ] {
        let help = run(sandbox.bare(&[command, "--help"])).exits(0).stdout;
        for option in shown {
            assert!(help.contains(option), "{command} {option}: {help}");
        }
        for option in hidden {
            assert!(!help.contains(option), "{command} {option}: {help}");
        }
    }
    // All of them are accepted all the same.
    run(sandbox.bare(&["--jobs", "3", "completions", "bash", "--json"])).exits(0);
    run(sandbox.bare(&["completions", "bash", "--jobs", "0"])).exits(0);
}

#[test]
fn manual_pages_are_written_without_faults() {
    let sandbox = Sandbox::new();
    run(sandbox.bare(&["man", "pages"])).exits(0).prints("");
    let mut pages: Vec<_> = std::fs::read_dir(sandbox.path("pages"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    pages.sort();
    assert!(pages.len() > 10, "{pages:?}");
    if Command::new("groff").arg("--version").output().is_err() {
        println!("skipped: groff is not installed; the peers suite installs it");
        return;
    }

    for page in &pages {
        for columns in ["40", "80"] {
            let mut groff = Command::new("groff");
            groff.args(["-man", "-Tutf8", "-ww", "-P-cbou"]);
            let text = without_faults(groff.arg(format!("-rLL={columns}n")).arg(page));
            assert!(
                text.contains("DESCRIPTION") && text.contains("EXAMPLES"),
                "{text}"
            );
        }
    }
    if Command::new("mandoc").output().is_ok() {
        let printed = without_faults(Command::new("mandoc").args(["-T", "lint"]).args(&pages));
        assert_eq!(printed, "");
    }
}

/// Runs a formatter of manual pages, which must not complain, and returns what it printed.
fn without_faults(formatter: &mut Command) -> String {
    let shown = formatter.stdin(Stdio::null()).output().unwrap();
    let faults = String::from_utf8_lossy(&shown.stderr);
    assert!(
        shown.status.success() && faults.is_empty(),
        "{formatter:?}: {faults}"
    );
    String::from_utf8_lossy(&shown.stdout).into_owned()
}
