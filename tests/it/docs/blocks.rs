//! Code blocks of the documents. The first words after the fence say how a block is checked:
//!
//! | block | checked by |
//! |---|---|
//! | `console` | [`super::commands`]: runs the commands, compares the output where it is shown |
//! | `console guix`, `console nix` | `tests/peers/checks/90-documents.sh`: runs them with real Guix or Nix |
//! | `console user`, `console root` | the same, without Guix: as a user without privileges, as root |
//! | `console tls` | the same, with a server that has a certificate of its own |
//! | `console manual` | for developers: starts a script of the repository, which must exist |
//! | `sh` | the first two blocks of README.md, which `.ci/run` runs |
//! | `toml` | [`super::settings`]: the program reads it as a settings file |
//! | `json` | is JSON |
//! | `yaml` | runs only commands that a `console` block of the same page has |
//! | `scheme` | is read by real Guix in the same peers check |
//! | `rust` | is a file of `examples/`, or part of one |
//! | `text` | nothing: it shows files and output, and has no commands |

use std::path::PathBuf;

use crate::support::{files_below, repository};

const KINDS: [&str; 14] = [
    "console",
    "console guix",
    "console nix",
    "console user",
    "console root",
    "console tls",
    "console manual",
    "sh",
    "toml",
    "json",
    "yaml",
    "scheme",
    "rust",
    "text",
];

/// One block, without its fences.
pub(super) struct CodeBlock {
    /// The document, relative to the repository.
    pub(super) file: String,
    /// The line of its opening fence.
    pub(super) line: usize,
    pub(super) kind: String,
    pub(super) text: String,
}

impl CodeBlock {
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }

    /// The commands of a `console` block with the output that is shown below each, and the number
    /// of its line. A command that ends with `\` goes on in the next line, one that ends with
    /// `<<'END'` up to the line `END`.
    pub(super) fn commands(&self) -> Vec<ShownCommand> {
        let mut commands: Vec<ShownCommand> = Vec::new();
        let (mut is_continued, mut is_document) = (false, false);
        for (number, line) in self.text.lines().enumerate() {
            if is_continued || is_document {
                let command = commands.last_mut().unwrap();
                command.text.push('\n');
                command.text.push_str(line);
                is_document &= line != "END";
            } else if let Some(text) = line.strip_prefix("$ ") {
                commands.push(ShownCommand {
                    line: self.line + 1 + number,
                    text: text.to_owned(),
                    output: Vec::new(),
                });
                is_document = text.ends_with("<<'END'");
            } else {
                let command = commands.last_mut().unwrap_or_else(|| {
                    panic!("{}: output before the first command", self.place());
                });
                command.output.push(line.to_owned());
                continue;
            }
            is_continued = line.ends_with('\\');
        }
        commands
    }
}

/// A command of a `console` block.
pub(super) struct ShownCommand {
    pub(super) line: usize,
    pub(super) text: String,
    /// Empty: the document does not show the output.
    pub(super) output: Vec<String>,
}

/// All documents, relative to the repository.
pub(super) fn documents() -> Vec<String> {
    let mut files: Vec<PathBuf> = files_below(&repository().join("docs"), ".md");
    let others = [
        "README.md",
        "fixtures/README.md",
        "fixtures/nar/README.md",
        "tests/peers/README.md",
    ];
    files.extend(others.map(|name| repository().join(name)));
    let names = files
        .iter()
        .map(|file| file.strip_prefix(repository()).unwrap().to_str().unwrap());
    names.map(str::to_owned).collect()
}

/// All code blocks of all documents.
pub(super) fn all_blocks() -> Vec<CodeBlock> {
    blocks_and_faults().0
}

/// All code blocks of all documents, and what is wrong with some.
fn blocks_and_faults() -> (Vec<CodeBlock>, Vec<String>) {
    let (mut blocks, mut faults) = (Vec::new(), Vec::new());
    for file in documents() {
        let text = std::fs::read_to_string(repository().join(&file)).unwrap();
        let (found, wrong) = blocks_of(&file, &text);
        blocks.extend(found);
        faults.extend(wrong);
    }
    (blocks, faults)
}

/// The blocks of the document `text`, and what is wrong with others.
fn blocks_of(file: &str, text: &str) -> (Vec<CodeBlock>, Vec<String>) {
    let (mut blocks, mut faults) = (Vec::new(), Vec::new());
    let mut open: Option<CodeBlock> = None;
    let mut is_after_blank = true;
    for (number, line) in text.lines().enumerate() {
        let place = format!("{file}:{}", number + 1);
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (Some(_), Some(_)) => {
                let block = open.take().unwrap();
                faults.extend(fault(&block));
                blocks.push(block);
            }
            (None, Some(kind)) => {
                open = Some(CodeBlock {
                    file: file.to_owned(),
                    line: number + 1,
                    kind: kind.to_owned(),
                    text: String::new(),
                });
            }
            (None, None) if is_after_blank && line.starts_with("    ") => {
                faults.push(format!("{place}: an indented block, which has no kind"));
            }
            (None, None) => {}
        }
        is_after_blank = line.trim().is_empty();
    }
    faults.extend(open.map(|block| format!("{}: it is not closed", block.place())));
    (blocks, faults)
}

fn fault(block: &CodeBlock) -> Option<String> {
    let place = block.place();
    if !KINDS.contains(&block.kind.as_str()) {
        return Some(format!("{place}: `{}` is not checked", block.kind));
    }
    let is_for_developers = [
        "docs/development/",
        "docs/explanation/benchmarks.md",
        "tests/",
    ]
    .iter()
    .any(|name| block.file.starts_with(name));
    if block.kind == "console manual" && !is_for_developers {
        return Some(format!("{place}: nothing runs these commands of users"));
    }

    let programs = ["$ ", "subst ", "sudo ", "guix ", "nix ", "cargo "];
    let has_commands = block
        .text
        .lines()
        .any(|line| programs.iter().any(|program| line.starts_with(program)));
    (block.kind == "text" && has_commands).then(|| format!("{place}: commands that are not run"))
}

#[test]
fn every_code_block_is_checked() {
    let (blocks, faults) = blocks_and_faults();
    assert!(
        faults.is_empty(),
        "docs/development/contributing.md lists the kinds of blocks: {faults:#?}"
    );
    for kind in KINDS {
        let count = blocks.iter().filter(|block| block.kind == kind).count();
        eprintln!("{kind}: {count}");
    }
    let shell: Vec<_> = blocks.iter().filter(|block| block.kind == "sh").collect();
    assert!(
        shell.len() == 2 && shell.iter().all(|block| block.file == "README.md"),
        "`.ci/run` runs two `sh` blocks, those of the README"
    );
}

#[test]
fn blocks_that_are_not_checked_are_reported() {
    let text = "```\na\n```\n\n    indented\n\n```text\nsubst fetch\n```\n\n```console manual\n$ a\n```\n\n```json\n";
    let (_, faults) = blocks_of("docs/x.md", text);
    assert_eq!(
        faults,
        [
            "docs/x.md:1: `` is not checked",
            "docs/x.md:5: an indented block, which has no kind",
            "docs/x.md:7: commands that are not run",
            "docs/x.md:11: nothing runs these commands of users",
            "docs/x.md:15: it is not closed",
        ]
    );
}

#[test]
fn commands_are_found_with_their_output() {
    let text = "```console\n$ a \\\n  b\nout\n$ c\n```\n";
    let (blocks, _) = blocks_of("docs/x.md", text);
    let commands = blocks[0].commands();
    let found: Vec<_> = commands
        .iter()
        .map(|command| (command.line, command.text.as_str(), command.output.len()))
        .collect();
    assert_eq!(found, [(2, "a \\\n  b", 1), (5, "c", 0)]);
}

#[test]
fn scripts_that_developers_start_exist() {
    let blocks = all_blocks();
    let commands = blocks
        .iter()
        .filter(|block| block.kind == "console manual")
        .flat_map(CodeBlock::commands);
    for command in commands {
        // Variables of the command come first.
        let mut words = command.text.split_whitespace();
        let program = words.find(|word| !word.contains('=')).unwrap();
        let exists = ["cargo", "bash"].contains(&program) || repository().join(program).is_file();
        assert!(exists, "{program}");
    }
}

/// A mark that the check with real Guix and Nix does not know would leave commands unrun.
#[test]
fn marked_commands_are_run_by_the_peers_check() {
    let check = repository().join("tests/peers/checks/90-documents.sh");
    let check = std::fs::read_to_string(check).unwrap();
    for block in all_blocks() {
        let Some(mark) = block.kind.strip_prefix("console ") else {
            continue;
        };
        let call = match mark {
            "manual" => continue,
            "guix" | "nix" => format!(" with_{mark} {} ", block.file),
            _ => format!(" documented {} {mark} ", block.file),
        };
        assert!(check.contains(&call), "{}: no `{call}`", block.place());
    }
}

#[test]
fn json_blocks_are_json() {
    for block in all_blocks().iter().filter(|block| block.kind == "json") {
        // One value, or one value on each line.
        let lines = || block.text.lines().filter(|line| !line.is_empty());
        let is_json = serde_json::from_str::<serde_json::Value>(&block.text).is_ok()
            || lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
        assert!(is_json, "{}", block.place());
    }
}

#[test]
fn rust_blocks_are_parts_of_examples() {
    let examples: String = files_below(&repository().join("examples"), ".rs")
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    for block in all_blocks().iter().filter(|block| block.kind == "rust") {
        assert!(examples.contains(&block.text), "{}", block.place());
    }
}

/// The commands of a workflow: those of `run:`, as on GitHub, or the list below `script:`, as on GitLab.
fn commands_of_workflow(text: &str) -> Vec<&str> {
    let mut commands = Vec::new();
    let mut is_script = false;
    for line in text.lines().map(str::trim) {
        let entry = line.strip_prefix("- ");
        is_script = line == "script:" || is_script && entry.is_some();
        let run = entry.unwrap_or(line).strip_prefix("run: ");
        commands.extend(run.or(entry.filter(|_| is_script)));
    }
    commands
}

#[test]
fn workflows_run_commands_of_their_page() {
    let blocks = all_blocks();
    for workflow in blocks.iter().filter(|block| block.kind == "yaml") {
        let known: Vec<String> = blocks
            .iter()
            .filter(|block| block.file == workflow.file && block.kind.starts_with("console"))
            .flat_map(CodeBlock::commands)
            .map(|command| command.text)
            .collect();
        let mut count = 0;
        for command in commands_of_workflow(&workflow.text) {
            assert!(
                known.iter().any(|known| known == command),
                "{}: {command}",
                workflow.place()
            );
            count += 1;
        }
        assert!(count > 0, "{}: no command was found", workflow.place());
    }
}
