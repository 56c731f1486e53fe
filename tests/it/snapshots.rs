//! What the program says, message by message: each file in `tests/snapshots/` has commands, the exit
//! code of the last one, and what it printed.
//!
//! `SUBST_TEST_SNAPSHOTS=write cargo test --locked --test it snapshots` writes the files again; the
//! difference is then to be read as a user would read it.

mod case;
mod servers;
mod shown;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::support::{files_below, repository};
use case::Case;

/// The directory of the snapshots.
fn directory() -> PathBuf {
    repository().join("tests/snapshots")
}

fn read_cases() -> Vec<Case> {
    let files = files_below(&directory(), ".txt");
    files.iter().map(|file| Case::read(file)).collect()
}

/// Whether the snapshots are to be written instead of compared.
#[expect(
    clippy::disallowed_methods,
    reason = "a developer's setting for these tests only"
)]
fn is_writing() -> bool {
    std::env::var_os("SUBST_TEST_SNAPSHOTS").is_some_and(|value| value == "write")
}

/// The outcomes of all `cases`, run on as many threads as the tests are made for.
fn run_all(cases: &[Case]) -> Vec<(&Case, String)> {
    const THREADS: usize = 2;
    let left = Mutex::new(cases.iter());
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let Some(case) = left.lock().unwrap().next() else {
                        break;
                    };
                    let outcome = case.run();
                    outcomes.lock().unwrap().push((case, outcome));
                }
            });
        }
    });
    outcomes.into_inner().unwrap()
}

#[test]
fn messages_are_as_recorded() {
    // Hints repeat `--config`, so the runs have no settings file; the system's would be read.
    if Path::new("/etc/subst/config.toml").exists() {
        eprintln!("skipped: /etc/subst/config.toml exists");
        return;
    }

    let cases = read_cases();
    let mut differences = Vec::new();
    for (case, outcome) in run_all(&cases) {
        if is_writing() {
            case.write(&outcome);
        } else if !case.expects(&outcome) {
            let (name, expected) = (case.name(), &case.expected);
            differences.push(format!(
                "=== {name}: expected\n{expected}\n=== {name}: found\n{outcome}"
            ));
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {} messages differ:\n{}\nSUBST_TEST_SNAPSHOTS=write accepts what was found",
        differences.len(),
        cases.len(),
        differences.join("\n")
    );
}

/// What no message may have in it: see the rules for messages in `docs/contributing.md`.
const FORBIDDEN: [&str; 8] = [
    "os error", "Some(", "None", "Err(", "colour", "authoris", "recognis", "cancell",
];

#[test]
fn recorded_messages_keep_the_rules() {
    let cases = read_cases();
    assert!(cases.len() >= 60, "only {} messages", cases.len());
    for case in &cases {
        let (name, expected) = (case.name(), &case.expected);
        for words in FORBIDDEN {
            assert!(!expected.contains(words), "{name}: `{words}`");
        }
        assert!(
            !expected.is_empty() && case.title().ends_with('.'),
            "{name} has no outcome, or no sentence that says what it shows"
        );
        let codes = ["0", "1", "2", "3", "4", "5", "130"];
        let is_documented = codes
            .iter()
            .any(|code| expected.starts_with(&format!("[exit {code}]")));
        assert!(is_documented, "{name} ends with an unusual exit code");
    }
}

/// The subcommands and the names of options in `command`, which begins with the program's name.
fn signature(command: &str) -> BTreeSet<&str> {
    let words = command.split_whitespace().skip(1);
    let is_name = |word: &&str| word.bytes().all(|it| it.is_ascii_lowercase() || it == b'-');
    words.filter(is_name).collect()
}

#[test]
fn no_hint_names_the_command_that_was_run() {
    let mut hinted = 0;
    for case in read_cases() {
        let (_, command) = case.commands();
        let parts: Vec<&str> = case.expected.split('`').collect();
        for pair in parts.chunks_exact(2) {
            let [before, hint] = pair else { continue };
            let is_command = hint.starts_with("subst ") && !hint.contains("...");
            // A guessed command is corrected: words are left out.
            let is_correction = before.ends_with("the command is ");
            if !is_command || is_correction || !command.starts_with("subst ") {
                continue;
            }
            hinted += 1;
            let (run, hint) = (signature(&command), signature(hint));
            if run.contains("--store-dir") && !hint.contains("--store-dir") {
                // It is about another store.
                continue;
            }
            assert!(!hint.is_subset(&run), "{}: {hint:?}", case.name());
        }
    }
    assert!(hinted >= 15, "only {hinted} commands in hints");
}
