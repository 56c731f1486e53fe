//! The layers of `src/lib.rs`, kept: who may use whom, how long a file may be, and that each
//! file says what it is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::support::{files_below, repository};

/// A layer and the layers it may use, besides itself.
type Layer = (&'static str, &'static [&'static str]);

/// In the order of `src/lib.rs`.
const LAYERS: [Layer; 10] = [
    ("sync", &[]),
    ("format", &[]),
    ("trust", &["format"]),
    ("codec", &["sync", "format"]),
    ("http", &["sync", "format"]),
    ("lookup_cache", &["sync", "format"]),
    ("store", &["sync", "format", "trust"]),
    (
        "substitute",
        &[
            "sync",
            "format",
            "trust",
            "codec",
            "http",
            "lookup_cache",
            "store",
        ],
    ),
    (
        "daemon",
        &["sync", "format", "trust", "http", "store", "substitute"],
    ),
    (
        "cli",
        &[
            "sync",
            "format",
            "trust",
            "http",
            "lookup_cache",
            "store",
            "substitute",
            "daemon",
        ],
    ),
];

/// The longest that a file may be without its tests.
const LINES_MAX: usize = 470;

fn sources() -> Vec<PathBuf> {
    files_below(&repository().join("src"), ".rs")
}

fn text(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap()
}

/// The layer that a file below `src/` belongs to; `None` for `lib.rs` and `main.rs`.
fn layer_of(file: &Path) -> Option<&'static Layer> {
    let inside = file.strip_prefix(repository().join("src")).unwrap();
    let first = inside.iter().next().unwrap().to_str().unwrap();
    LAYERS
        .iter()
        .find(|(name, _)| *name == first.trim_end_matches(".rs"))
}

/// The names that stand behind `crate::` in code, and in groups behind it.
fn used(code: &str) -> BTreeSet<String> {
    let code: Vec<&str> = code
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect();
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.join("\n")
        .split("crate::")
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(group) => group
                .split('}')
                .next()
                .unwrap_or_default()
                .split(',')
                .collect(),
            None => vec![rest],
        })
        .filter_map(|name| name.trim().split(|c| !is_name(c)).next().map(str::to_owned))
        .collect()
}

/// The names that a file may not use, though it does. What unit tests share is not there for
/// anything else to use.
fn strangers((layer, allowed): &Layer, code: &str) -> Vec<String> {
    let is_allowed = |name: &str| name == *layer || name == "testing" || allowed.contains(&name);
    used(code)
        .into_iter()
        .filter(|name| !is_allowed(name))
        .collect()
}

#[test]
fn no_layer_uses_one_that_it_may_not() {
    let mut seen = BTreeSet::new();
    for file in sources() {
        let Some(layer) = layer_of(&file) else {
            continue;
        };
        seen.insert(layer.0);
        let strangers = strangers(layer, &text(&file));
        assert!(
            strangers.is_empty(),
            "{} uses {strangers:?}",
            file.display()
        );
    }
    assert_eq!(seen.len(), LAYERS.len(), "a layer has no files: {seen:?}");
}

#[test]
fn the_check_itself_sees_what_is_wrong() {
    let store = LAYERS.iter().find(|(name, _)| *name == "store").unwrap();
    assert_eq!(strangers(store, "use crate::http::Client;\n"), ["http"]);
    assert_eq!(
        strangers(
            store,
            "let x = crate::cli::run; use crate::{codec, format};"
        ),
        ["cli", "codec"]
    );
    assert!(strangers(store, "// crate::http\nuse crate::trust::acl;\n").is_empty());
}

#[test]
fn the_library_declares_its_layers_in_this_order() {
    let lib = text(&repository().join("src/lib.rs"));
    let declared: Vec<&str> = lib
        .lines()
        .map(|line| line.strip_prefix("pub ").unwrap_or(line))
        .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'))
        .filter(|module| *module != "testing")
        .collect();
    assert_eq!(declared, LAYERS.map(|(name, _)| name));
    let main = text(&repository().join("src/main.rs"));
    assert!(
        !main.contains("mod "),
        "the program is a caller of the library"
    );
}

#[test]
fn no_file_is_too_long() {
    let mut too_long = Vec::new();
    for file in sources() {
        let inside = file.strip_prefix(repository().join("src")).unwrap();
        if inside
            .iter()
            .any(|part| part == "tests" || part == "tests.rs")
        {
            continue;
        }
        let text = text(&file);
        let code = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        let lines = code.lines().count();
        if lines > LINES_MAX {
            too_long.push(format!("{}: {lines}", inside.display()));
        }
    }
    assert!(too_long.is_empty(), "{too_long:?}");
}

#[test]
fn every_file_says_what_it_is() {
    let tests = files_below(&repository().join("tests/it"), ".rs");
    let mut all = sources();
    all.extend(tests);
    all.retain(|file| !text(file).starts_with("//! "));
    assert!(all.is_empty(), "{all:?}");
}
