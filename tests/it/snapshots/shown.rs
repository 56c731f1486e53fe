//! Output as snapshots have it: without what differs from run to run.

use super::servers::Servers;
use crate::support::{Sandbox, repository};

/// `text` with fixed names for the test's directories and servers, and `N` for measured times and rates.
pub(super) fn shown(text: &str, sandbox: &Sandbox, servers: &Servers) -> String {
    let work = sandbox.path("work").display().to_string();
    let text = servers
        .with_names(&without_lookup_progress(text))
        .replace(&work, "/sandbox")
        .replace(&sandbox.path("").display().to_string(), "/test/")
        .replace(&repository().display().to_string(), "/src/subst");

    let mut shown: String = text
        .lines()
        .map(|line| format!("{}\n", without_measurements(line.trim_end())))
        .collect();
    if !text.is_empty() && !text.ends_with('\n') {
        shown.push_str("(no line break)\n");
    }
    shown
}

/// `text` without the lines about lookups that the helper of guix-daemon writes over each other.
fn without_lookup_progress(text: &str) -> String {
    const ERASE_LINE: &str = "\r\u{1b}[K";
    let parts = text
        .split_inclusive('\n')
        .flat_map(|line| line.split(ERASE_LINE));
    parts
        .filter(|part| !part.starts_with("looking for substitutes"))
        .collect()
}

/// `line` with `N` for each number before a unit of time or of a rate.
fn without_measurements(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let mut shown = Vec::new();
    for (position, word) in words.iter().enumerate() {
        let unit = words.get(position + 1).copied().unwrap_or_default();
        let unit = unit.trim_end_matches([',', ')', ';', ':', '.']);
        let is_measured = matches!(unit, "ms" | "s" | "min" | "h" | "d") || unit.ends_with("/s");
        // What a store takes depends on the blocks of the disk.
        let is_measured = is_measured || position > 0 && words[position - 1] == "takes";
        let number = word.trim_start_matches('(');
        if is_measured && number.starts_with(|c: char| c.is_ascii_digit()) {
            shown.push(word.replace(number, "N"));
        } else {
            shown.push((*word).to_owned());
        }
    }
    // `2 h 5 min` is one time, and so is `5 min`.
    let units = [" ms", " min", " h", " d"];
    let line = shown.join(" ").replace("N h N min", "N s");
    let line = line.replace("N d N h", "N s");
    units
        .iter()
        .fold(line, |line, unit| line.replace(&format!("N{unit}"), "N s"))
}

/// Whether two outputs have the same words. Line breaks and columns depend on the lengths of names
/// that are replaced; other tests check them.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    one.split_whitespace().eq(other.split_whitespace())
}

#[test]
fn measured_times_are_left_out() {
    let shown = without_measurements("7 items, in 0.3 s (2 requests, 12 ms), 1.5 MiB at 3 KiB/s");
    assert_eq!(
        shown,
        "7 items, in N s (2 requests, N s), 1.5 MiB at N KiB/s"
    );
    assert_eq!(without_measurements("for 1 h 5 min"), "for N s");
    assert_eq!(without_measurements("it takes 52.0 KiB"), "it takes N KiB");
}

#[test]
fn only_words_are_compared() {
    assert!(is_same("a  b\nc", "a b c\n"));
    assert!(!is_same("a b", "a bc"));
}
