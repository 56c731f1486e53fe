//! The layers of `src/lib.rs`: which module may use which, how long a file may be, and that each
//! file begins with its description. Import circles and style numbers are in `structure.rs`.

use std::collections::BTreeSet;

use crate::structure::source::{SourceFile, area_of, sources};
use crate::support::{files_below, repository};

/// What every layer may use.
const SHARED: [&str; 3] = ["sync", "no_follow", "sqlite"];

/// A layer and the layers it may use, besides itself and [`SHARED`].
type Layer = (&'static str, &'static [&'static str]);

/// In the order of `src/lib.rs`.
const LAYERS: [Layer; 14] = [
    ("no_follow", &[]),
    ("sqlite", &[]),
    ("sync", &[]),
    ("format", &[]),
    ("codec", &["format"]),
    ("trust", &["format"]),
    ("http", &["format", "codec"]),
    ("lookup_cache", &["format"]),
    ("namespace", &[]),
    ("sandbox", &[]),
    ("store", &["format", "trust"]),
    (
        "substitute",
        &["format", "trust", "codec", "http", "lookup_cache", "store"],
    ),
    (
        "daemon",
        &["format", "trust", "http", "store", "substitute"],
    ),
    (
        "cli",
        &[
            "format",
            "trust",
            "http",
            "lookup_cache",
            "namespace",
            "sandbox",
            "store",
            "substitute",
            "daemon",
        ],
    ),
];

/// The longest that a file may be without its tests.
const LINES_MAX: usize = 400;

fn layer_of(area: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|(name, _)| *name == area)
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

/// The modules that a file of `layer` uses though it may not. Unit tests share `testing`.
fn forbidden((layer, allowed): &Layer, code: &str) -> Vec<String> {
    let is_allowed = |name: &str| {
        [layer, "testing"].contains(&name) || SHARED.contains(&name) || allowed.contains(&name)
    };
    used(code)
        .into_iter()
        .filter(|name| !is_allowed(name))
        .collect()
}

#[test]
fn every_layer_uses_only_what_it_may() {
    let root = repository().join("src");
    let mut seen = BTreeSet::new();
    for file in files_below(&root, ".rs") {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap();
        let Some(layer) = layer_of(area_of(path)) else {
            continue;
        };
        seen.insert(layer.0);
        let forbidden = forbidden(layer, &text(&format!("src/{path}")));
        assert!(forbidden.is_empty(), "{path} uses {forbidden:?}");
    }
    let declared = declared_layers().len();
    assert_eq!(seen.len(), declared, "a layer has no files: {seen:?}");
}

#[test]
fn a_planted_use_of_a_forbidden_layer_is_found() {
    let store = layer_of("store").unwrap();
    assert_eq!(forbidden(store, "use crate::http::Client;\n"), ["http"]);
    assert_eq!(
        forbidden(
            store,
            "let x = crate::cli::run; use crate::{codec, format};"
        ),
        ["cli", "codec"]
    );
    assert!(forbidden(store, "// crate::http\nuse crate::trust::acl;\n").is_empty());
}

/// The layers that `src/lib.rs` declares, in its order.
fn declared_layers() -> Vec<String> {
    let lib = text("src/lib.rs");
    lib.lines()
        .map(|line| line.strip_prefix("pub ").unwrap_or(line))
        .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'))
        .filter(|module| !["fuzzing", "testing"].contains(module))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_library_declares_its_layers_in_this_order() {
    let declared = declared_layers();
    let expected = LAYERS.map(|(name, _)| name);
    assert_eq!(declared, expected);
    assert!(
        !text("src/main.rs").contains("mod "),
        "the program only calls the library"
    );
}

#[test]
fn no_file_is_too_long() {
    let lines = |file: &SourceFile| file.text.trim_end().lines().count();
    let too_long: Vec<String> = sources()
        .iter()
        .filter(|file| lines(file) > LINES_MAX)
        .map(|file| format!("{}: {}", file.path, lines(file)))
        .collect();
    assert!(too_long.is_empty(), "{too_long:?}");
}

#[test]
fn every_file_begins_with_its_description() {
    let mut files = files_below(&repository().join("tests/it"), ".rs");
    files.extend(files_below(&repository().join("src"), ".rs"));
    files.retain(|file| !std::fs::read_to_string(file).unwrap().starts_with("//! "));
    assert!(files.is_empty(), "{files:?}");
}

fn text(file: &str) -> String {
    std::fs::read_to_string(repository().join(file)).unwrap()
}
