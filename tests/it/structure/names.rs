//! The names that a file imports, and the paths that it uses.

use std::collections::BTreeMap;

/// A path such as `crate::store::lock`, segment by segment.
pub(super) type Segments = Vec<String>;

/// What the `use` declarations of a file bring into scope.
#[derive(Debug, Default)]
pub(super) struct Imports {
    /// The local name and the path that it stands for.
    pub(super) names: BTreeMap<String, Segments>,
    /// The paths of declarations that end in `*`.
    pub(super) globs: Vec<Segments>,
}

/// Reads all `use` declarations of `code`; the code without them is the second result.
pub(super) fn imports(code: &str) -> (Imports, String) {
    let mut imports = Imports::default();
    let mut remaining = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = next_use(rest) {
        remaining.push_str(&rest[..at]);
        let declaration = &rest[at + "use ".len()..];
        let end = declaration.find(';').unwrap_or(declaration.len());
        read_tree(&[], &declaration[..end], &mut imports);
        rest = &declaration[end..];
    }
    remaining.push_str(rest);
    (imports, remaining)
}

/// The place of the next `use` declaration: at the beginning of a line, or behind its visibility.
fn next_use(code: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = code[from..].find("use ").map(|at| from + at) {
        let line = code[..at].rsplit('\n').next().unwrap_or_default().trim();
        let is_visibility = line.starts_with("pub") && (line == "pub" || line.ends_with(')'));
        if line.is_empty() || is_visibility {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// Adds what the use tree `tree` below `prefix` imports.
fn read_tree(prefix: &[String], tree: &str, imports: &mut Imports) {
    let tree = tree.trim();
    let (path, group) = match tree.split_once('{') {
        Some((path, group)) => (path, group.strip_suffix('}')),
        None => (tree, None),
    };
    let (path, alias) = match path.split_once(" as ") {
        Some((path, alias)) => (path, Some(alias.trim())),
        None => (path, None),
    };
    let mut segments = prefix.to_vec();
    let parts = path
        .split("::")
        .map(str::trim)
        .filter(|part| !part.is_empty());
    segments.extend(parts.map(str::to_owned));

    if let Some(group) = group {
        for member in split_group(group) {
            read_tree(&segments, member, imports);
        }
        return;
    }
    if segments.last().is_some_and(|last| last == "*") {
        segments.pop();
        imports.globs.push(segments);
        return;
    }
    if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
        segments.pop();
    }
    if let Some(name) = alias
        .map(str::to_owned)
        .or_else(|| segments.last().cloned())
    {
        // `as _` binds no name, but the path is used all the same.
        let name = if name == "_" {
            segments.join("::")
        } else {
            name
        };
        imports.names.insert(name, segments);
    }
}

/// The members of a use group, which may have groups inside.
fn split_group(group: &str) -> Vec<&str> {
    let mut depth = 0;
    let parts = group.split(|c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.filter(|part| !part.trim().is_empty()).collect()
}

/// All paths of two or more segments in `code`, which has no `use` declarations.
pub(super) fn paths(code: &str) -> Vec<Segments> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find(is_name) {
        let is_continued = rest[..at].ends_with("::");
        rest = &rest[at..];
        let mut segments = Vec::new();
        loop {
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            segments.push(rest[..end].to_owned());
            rest = &rest[end..];
            match rest.strip_prefix("::") {
                Some(behind) if behind.starts_with(is_name) => rest = behind,
                _ => break,
            }
        }
        // `<Type as super::Trait>::name` begins anew behind the bracket.
        if segments.len() > 1 && !is_continued {
            found.push(segments);
        }
    }
    found
}

/// The modules that `code` declares as files of their own: `mod name;`.
pub(super) fn declared_modules(code: &str) -> Vec<String> {
    code.lines()
        .filter_map(|line| line.trim().strip_suffix(';'))
        .filter_map(|line| match line.split_once("mod ") {
            Some((visibility, name)) if visibility.is_empty() || visibility.starts_with("pub") => {
                Some(name.trim().to_owned())
            }
            _ => None,
        })
        .collect()
}

#[test]
fn use_declarations_are_read() {
    let (imports, rest) = imports(
        "use a::{self, b::{C, D as E}, f::*};\npub(crate) use super::g;\nfn h() {\n    use crate::i;\n}\n",
    );
    let names: Vec<String> = imports
        .names
        .iter()
        .map(|(name, path)| format!("{name}={}", path.join("::")))
        .collect();
    assert_eq!(
        names,
        ["C=a::b::C", "E=a::b::D", "a=a", "g=super::g", "i=crate::i"]
    );
    assert_eq!(imports.globs, [["a", "f"]]);
    assert!(
        rest.contains("fn h()") && !rest.contains("crate::i"),
        "{rest}"
    );
}

#[test]
fn paths_in_code_are_read() {
    let found = paths("let x: super::lock::Guard<crate::a::B> = c::d(<E as self::F>::g, h.i);");
    let found: Vec<String> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(
        found,
        ["super::lock::Guard", "crate::a::B", "c::d", "self::F"]
    );
    assert_eq!(
        declared_modules("mod a;\npub(super) mod b;\nmod c {\n"),
        ["a", "b"]
    );
}
