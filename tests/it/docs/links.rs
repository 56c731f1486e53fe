//! Links between documents, their anchors, and the list of pages of the book.

use std::collections::HashSet;
use std::path::Path;

use super::blocks::documents;
use crate::support::{files_below, repository};

/// The text without its code blocks.
pub(super) fn without_blocks(text: &str) -> String {
    let mut prose = String::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose
}

/// The text without its code, in which nothing is a link or a heading.
fn prose(text: &str) -> String {
    let prose = without_blocks(text);
    // Every second part is between backquotes.
    prose.split('`').step_by(2).collect()
}

/// The anchors that GitHub, Forgejo and mdBook make of the headings.
fn anchors(text: &str) -> HashSet<String> {
    let mut is_code = false;
    let mut anchors = HashSet::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        let Some(heading) = line.strip_prefix('#').filter(|_| !is_code) else {
            continue;
        };
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let anchor = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
            .map(|c| if c == ' ' { '-' } else { c });
        anchors.insert(anchor.collect());
    }
    anchors
}

fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let links = prose.split("](").skip(1);
    links
        .filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()))
        .filter(|link| !link.contains("://"))
        .collect()
}

/// What is wrong with `link` in the document at `file`.
fn broken(file: &Path, link: &str) -> Option<String> {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() {
        file.to_owned()
    } else {
        file.parent().unwrap().join(path)
    };
    let Ok(target) = target.canonicalize() else {
        return Some(format!("{}: {link}: no such file", file.display()));
    };
    let book = repository().join("docs").canonicalize().unwrap();
    if file.starts_with(&book) && !target.starts_with(&book) {
        return Some(format!("{}: {link}: not in the book", file.display()));
    }
    let is_there = anchor.is_empty()
        || anchors(&std::fs::read_to_string(&target).unwrap_or_default()).contains(anchor);
    (!is_there).then(|| format!("{}: {link}: no such heading", file.display()))
}

#[test]
fn links_have_targets() {
    let mut count = 0;
    let mut faults = Vec::new();
    for name in documents() {
        let file = repository().join(&name).canonicalize().unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let links = links(&text);
        count += links.len();
        faults.extend(links.iter().filter_map(|link| broken(&file, link)));
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(count > 50, "only {count} links were found");
}

#[test]
fn broken_links_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.md");
    let text = "# Its `x`, and more\n[a](#its-x-and-more) [b](#its) [c](b.md) `[d](e.md)`\n";
    std::fs::write(&file, text).unwrap();
    let faults: Vec<_> = links(text)
        .iter()
        .filter_map(|link| broken(&file, link))
        .collect();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].ends_with("#its: no such heading"), "{faults:?}");
    assert!(faults[1].ends_with("b.md: no such file"), "{faults:?}");
}

/// Documents that code, scripts and other documents name without a link.
#[test]
fn documents_that_are_named_exist() {
    let mut files = files_below(&repository().join("src"), ".rs");
    files.extend(files_below(&repository().join("tests/peers"), ""));
    files.extend(files_below(&repository().join(".ci"), ""));
    files.extend(files_below(&repository().join("packaging"), ""));
    files.extend(documents().iter().map(|name| repository().join(name)));
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        for rest in text.split("docs/").skip(1) {
            let is_name = |c: char| c.is_ascii_alphanumeric() || "/-._".contains(c);
            let name = rest.split(|c| !is_name(c)).next().unwrap_or_default();
            let name = name.trim_end_matches('.');
            if name.ends_with(".md") {
                let exists = repository().join("docs").join(name).exists();
                assert!(exists, "{}: docs/{name}", file.display());
            }
        }
    }
}

#[test]
fn the_book_has_every_page() {
    let docs = repository().join("docs");
    let summary = std::fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let listed: HashSet<String> = links(&summary).into_iter().collect();
    for page in files_below(&docs, ".md") {
        let name = page.strip_prefix(&docs).unwrap().to_str().unwrap();
        assert!(name == "SUMMARY.md" || listed.contains(name), "{name}");
    }
}

/// Pages begin with a heading and with what the reader can do after it.
#[test]
fn pages_begin_with_a_heading_and_a_purpose() {
    for name in documents()
        .iter()
        .filter(|name| !name.ends_with("SUMMARY.md"))
    {
        let text = std::fs::read_to_string(repository().join(name)).unwrap();
        let mut lines = text.lines();
        assert!(lines.next().unwrap().starts_with("# "), "{name}");
        assert_eq!(lines.next(), Some(""), "{name}");
        let first = lines.next().unwrap();
        let is_sentence = first.starts_with(|c: char| c.is_alphabetic() || c == '`');
        assert!(is_sentence, "{name}: {first}");
    }
}
