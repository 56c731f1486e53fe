//! Source files without what the structure checks do not read: comments, the contents of strings,
//! and code for tests.

use std::path::Path;
use std::sync::LazyLock;

use crate::support::{files_below, repository};

/// One file below `src/`, or a made-up one in the checks of the detectors.
#[derive(Debug, Clone)]
pub(crate) struct SourceFile {
    /// The path below `src/`, such as `store/lock.rs`.
    pub(crate) path: String,
    /// The text without its unit tests.
    pub(crate) text: String,
    /// `text` with comments and the contents of strings blanked; every line is where it was.
    pub(crate) code: String,
}

impl SourceFile {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (text, code) = without_test_items(text, &blanked(text));

        Self {
            path: path.to_owned(),
            text,
            code,
        }
    }

    /// The names of the modules that lead to this file: `store`, `lock`. Empty for `lib.rs`.
    pub(crate) fn module(&self) -> Vec<String> {
        if self.path == "lib.rs" || self.path == "main.rs" {
            return Vec::new();
        }
        let path = self.path.trim_end_matches(".rs");
        path.split('/').map(str::to_owned).collect()
    }

    /// The directory or file at the top of `src/` that this file belongs to: `store`.
    pub(crate) fn area(&self) -> &str {
        area_of(&self.path)
    }
}

/// The first part of a path below `src/`: `store` for `store.rs` and for `store/lock.rs`.
pub(crate) fn area_of(path: &str) -> &str {
    let first = path.split('/').next().unwrap_or_default();
    first.trim_end_matches(".rs")
}

/// All files below `src/` that are not for tests alone.
pub(crate) fn sources() -> &'static [SourceFile] {
    static SOURCES: LazyLock<Vec<SourceFile>> = LazyLock::new(read_sources);
    &SOURCES
}

fn read_sources() -> Vec<SourceFile> {
    let root = repository().join("src");
    files_below(&root, ".rs")
        .iter()
        .filter(|file| !is_for_tests(file.strip_prefix(&root).unwrap()))
        .map(|file| {
            let path = file.strip_prefix(&root).unwrap().to_str().unwrap();
            SourceFile::new(path, &std::fs::read_to_string(file).unwrap())
        })
        .collect()
}

fn is_for_tests(path: &Path) -> bool {
    path.iter()
        .any(|part| part == "tests" || part == "tests.rs" || part == "testing.rs")
}

/// `text` with blanks in the place of comments, strings and characters.
fn blanked(text: &str) -> String {
    let mut rest = text;
    let mut code = String::with_capacity(text.len());
    while let Some(first) = rest.chars().next() {
        let after_name = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let (length, is_code) = match token_to_blank(rest, after_name) {
            Some(length) => (length, false),
            None => (first.len_utf8(), true),
        };
        let (token, behind) = rest.split_at(length);
        if is_code {
            code.push_str(token);
        } else {
            code.extend(token.bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }));
        }
        rest = behind;
    }
    code
}

/// The length of the comment, string or character at the beginning of `text`, if there is one.
fn token_to_blank(text: &str, after_name: bool) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(text.find("*/").map_or(text.len(), |end| end + 2));
    }
    if text.starts_with('"') {
        return Some(string_length(text));
    }
    if text.starts_with('\'') {
        return character_length(text);
    }
    if after_name {
        return None;
    }

    // Raw strings and byte strings: `r"`, `r#"`, `b"`, `br#"`, `c"`.
    let prefix = text.find(|c| !matches!(c, 'b' | 'c' | 'r' | '#'))?;
    let raw = text[..prefix].contains('r');
    if prefix == 0 || !text[prefix..].starts_with('"') {
        return None;
    }
    if !raw {
        return Some(prefix + string_length(&text[prefix..]));
    }
    let end = format!("\"{}", "#".repeat(text[..prefix].matches('#').count()));
    let body = prefix + 1;
    Some(
        text[body..]
            .find(&end)
            .map_or(text.len(), |at| body + at + end.len()),
    )
}

/// The length of the string at the beginning of `text`, with both quotes.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of the character literal at the beginning of `text`; `None` for a lifetime.
fn character_length(text: &str) -> Option<usize> {
    let mut characters = text.char_indices().skip(1);
    let (_, first) = characters.next()?;
    if first == '\\' {
        let escaped = characters.next()?.0 + 1;
        return text[escaped..].find('\'').map(|at| escaped + at + 1);
    }
    let (at, second) = characters.next()?;
    (second == '\'').then_some(at + 1)
}

/// Both texts without the items behind `#[cfg(test)]`. Such an item ends at its closing brace, or
/// at a semicolon before any brace; a `use` declaration at its semicolon.
fn without_test_items(text: &str, code: &str) -> (String, String) {
    const ATTRIBUTE: &str = "#[cfg(test)]";
    let (mut kept_text, mut kept_code) = (String::new(), String::new());
    let mut from = 0;
    while let Some(at) = code[from..].find(ATTRIBUTE).map(|at| from + at) {
        kept_text.push_str(&text[from..at]);
        kept_code.push_str(&code[from..at]);
        let item = at + ATTRIBUTE.len();
        from = item + item_length(&code[item..]);
    }
    kept_text.push_str(&text[from..]);
    kept_code.push_str(&code[from..]);
    (kept_text, kept_code)
}

fn item_length(code: &str) -> usize {
    let brace = code.find('{').unwrap_or(code.len());
    let semicolon = code.find(';').unwrap_or(code.len());
    let is_use = code[..brace.min(semicolon)]
        .split_whitespace()
        .any(|word| word == "use");
    if is_use || semicolon < brace {
        return (semicolon + 1).min(code.len());
    }
    brace + block_length(&code[brace..])
}

/// The length of the block that begins with the brace at the beginning of `code`.
pub(crate) fn block_length(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

#[test]
fn comments_strings_and_tests_are_not_code() {
    let text = "fn a() { f(\"}\", '{', r#\"\"}\"#, 'a: b); } // }\n/* } */ fn b<'a>() {}\n\
        #[cfg(test)]\nuse x::{y};\n#[cfg(test)]\npub(crate) mod tests { use x; fn c() {} }\nfn d() {}\n";
    let file = SourceFile::new("store/lock.rs", text);
    assert_eq!(file.code.matches('}').count(), 3, "{}", file.code);
    assert!(!file.code.contains("fn c") && !file.code.contains("use x"));
    assert!(file.code.contains("fn d"), "{}", file.code);
    assert_eq!(file.module(), ["store", "lock"]);
    assert_eq!(file.area(), "store");
}
