//! The numbers of the code style, and their limits.
//! `cargo test --locked --test it style -- --nocapture` prints them.

use std::collections::BTreeMap;

use super::arrows::{arrows, planted};
use super::circles::circles;
use super::source::{SourceFile, block_length, sources};
use super::upward::upward;

const FUNCTION_LINES_MAX: usize = 60;
const FILE_LINES_MAX: usize = 400;

/// The areas whose `pub` items are for users of the library, or for the fuzz targets.
const PUBLIC_AREAS: [&str; 5] = ["format", "trust", "codec", "lib", "fuzzing"];

/// A number of the code style and the largest value that it may have. The limits are what has been
/// reached: a change may lower them.
struct StyleNumber {
    name: &'static str,
    value: usize,
    limit: usize,
}

/// A function of a file, with the lines from its `fn` to its closing brace.
struct Function<'a> {
    file: &'a str,
    name: &'a str,
    text: &'a str,
    body: &'a str,
}

fn style_numbers(files: &[SourceFile]) -> Vec<StyleNumber> {
    let functions: Vec<Function> = files.iter().flat_map(functions).collect();
    let arrows = arrows(files);
    let numbers = [
        (
            "functions of more than 60 lines",
            long_functions(&functions).len(),
            0,
        ),
        ("files of more than 400 lines", long_files(files).len(), 0),
        ("closures bound to a name", named_closures(files), 15),
        (
            "non-private type names in use more than once",
            shared_type_names(files).len(),
            0,
        ),
        (
            "pub items outside format, trust, codec, lib, fuzzing",
            public_items(files),
            // The stages of an item, which documentation tests name, and `cli::run`.
            18,
        ),
        (
            "files in import circles",
            circles(&arrows).iter().flatten().count(),
            0,
        ),
        ("imports from a root module above", upward(&arrows).len(), 0),
    ];
    numbers
        .into_iter()
        .map(|(name, value, limit)| StyleNumber { name, value, limit })
        .collect()
}

fn line_count(file: &SourceFile) -> usize {
    file.text.trim_end().lines().count()
}

fn long_files(files: &[SourceFile]) -> Vec<String> {
    let long = files
        .iter()
        .filter(|file| line_count(file) > FILE_LINES_MAX);
    long.map(|file| format!("{}: {} lines", file.path, line_count(file)))
        .collect()
}

/// All functions with a body, nested ones as well.
fn functions(file: &SourceFile) -> Vec<Function<'_>> {
    let mut found = Vec::new();
    for (at, _) in file.code.match_indices("fn ") {
        let is_word = !file.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let code = &file.code[at..];
        let Some(body) = body_start(code).filter(|_| is_word) else {
            continue;
        };
        let end = body + block_length(&code[body..]);
        found.push(Function {
            file: &file.path,
            name: code[3..].split(['(', '<']).next().unwrap_or_default(),
            text: &code[..end],
            body: &code[body..end],
        });
    }
    found
}

/// Where the body of the function at the beginning of `code` begins; `None` for a declaration
/// without a body and for a function pointer.
fn body_start(code: &str) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(at),
            ';' | '=' if depth == 0 => return None,
            _ => {}
        }
        if depth < 0 {
            return None;
        }
    }
    None
}

fn long_functions(functions: &[Function]) -> Vec<String> {
    let lines = |function: &Function| function.text.lines().count();
    let long = functions
        .iter()
        .filter(|function| lines(function) > FUNCTION_LINES_MAX);
    long.map(|function| format!("{}: fn {}", function.file, function.name))
        .collect()
}

/// Blank lines in function bodies, per thousand lines of them.
fn blank_line_permille(files: &[SourceFile]) -> usize {
    let (mut blank, mut all) = (0, 0);
    for function in files.iter().flat_map(functions) {
        all += function.body.lines().count();
        blank += function.body.lines().filter(|line| line.is_empty()).count();
    }
    blank * 1000 / all.max(1)
}

fn named_closures(files: &[SourceFile]) -> usize {
    let is_named_closure = |line: &&str| {
        let value = line
            .trim()
            .strip_prefix("let ")
            .and_then(|rest| rest.split_once(" = "));
        value.is_some_and(|(_, value)| value.starts_with('|') || value.starts_with("move |"))
    };
    files
        .iter()
        .flat_map(|file| file.code.lines())
        .filter(is_named_closure)
        .count()
}

/// The names of types with any `pub` that several files declare, and where.
fn shared_type_names(files: &[SourceFile]) -> Vec<String> {
    let mut declared: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for file in files {
        for line in file
            .code
            .lines()
            .filter(|line| line.trim().starts_with("pub"))
        {
            let mut words = line.split_whitespace();
            let is_type =
                words.any(|word| ["struct", "enum", "trait", "type", "union"].contains(&word));
            let name = words
                .next()
                .and_then(|name| name.split(['<', '(', ';', '{', ':']).next());
            if let Some(name) = name.filter(|_| is_type) {
                declared.entry(name).or_default().push(&file.path);
            }
        }
    }
    declared.retain(|_, files| files.len() > 1);
    declared
        .iter()
        .map(|(name, files)| format!("{name}: {}", files.join(", ")))
        .collect()
}

fn public_items(files: &[SourceFile]) -> usize {
    let private = files
        .iter()
        .filter(|file| !PUBLIC_AREAS.contains(&file.area()));
    let items = private.flat_map(|file| file.code.lines()).filter(|line| {
        // The program calls `cli::run`.
        let line = line.trim();
        let item = line
            .strip_prefix("pub ")
            .and_then(|rest| rest.split(' ').next());
        item.is_some_and(|item| {
            [
                "fn", "struct", "enum", "trait", "const", "type", "static", "mod", "use",
            ]
            .contains(&item)
        }) && !line.starts_with("pub fn run(")
    });
    items.count()
}

#[test]
fn style_numbers_are_within_their_limits() {
    let files = sources();
    let numbers = style_numbers(files);
    let blank = blank_line_permille(files);
    eprintln!("| number | value | limit |\n|---|---|---|");
    eprintln!(
        "| blank lines in function bodies, % | {}.{} | 3 to 8 |",
        blank / 10,
        blank % 10
    );
    let lines: usize = files.iter().map(line_count).sum();
    eprintln!("| lines without tests | {lines} | |");
    for number in &numbers {
        eprintln!("| {} | {} | {} |", number.name, number.value, number.limit);
    }

    let functions: Vec<Function> = files.iter().flat_map(functions).collect();
    let details = [
        long_functions(&functions),
        long_files(files),
        shared_type_names(files),
    ];
    for line in details.iter().flatten() {
        eprintln!("{line}");
    }
    let beyond: Vec<&str> = numbers
        .iter()
        .filter(|number| number.value > number.limit)
        .map(|number| number.name)
        .collect();
    assert!(beyond.is_empty(), "beyond their limits: {beyond:?}");
}

#[test]
fn planted_style_faults_are_counted() {
    let long = format!("fn long() {{\n{}}}\n", "    a();\n".repeat(60));
    let files = planted(&[
        ("store.rs", &long),
        (
            "store/a.rs",
            "pub fn a() {}\npub(crate) struct Same;\nfn b(f: fn (u8)) {\n    let c = |d| d;\n\n    c(1)\n}\n",
        ),
        (
            "store/b.rs",
            "pub(super) enum Same {}\ntrait T {\n    fn d();\n}\n",
        ),
        ("format.rs", "pub fn public() {}\n"),
        ("http.rs", &"// A line.\n".repeat(401)),
    ]);
    let functions: Vec<Function> = files.iter().flat_map(functions).collect();
    let names: Vec<&str> = functions.iter().map(|function| function.name).collect();
    assert_eq!(names, ["long", "a", "b", "public"]);
    assert_eq!(long_functions(&functions), ["store.rs: fn long"]);
    assert_eq!(long_files(&files), ["http.rs: 401 lines"]);
    assert_eq!(named_closures(&files), 1);
    assert_eq!(shared_type_names(&files), ["Same: store/a.rs, store/b.rs"]);
    assert_eq!(public_items(&files), 1);
    assert_eq!(blank_line_permille(&files[1..2]), 1000 / 6);
}
