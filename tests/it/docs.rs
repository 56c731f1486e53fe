//! The documents say what the program does: settings, variables, exit codes, and commands
//! that work when they are typed as they stand.

mod blocks;
mod commands;
mod examples;
mod links;
mod settings;

use std::collections::HashMap;
use std::process::Command;

use crate::support::sandbox::run;
use crate::support::{Sandbox, files_below, item, repository};

fn text(file: &str) -> String {
    std::fs::read_to_string(repository().join(file)).unwrap()
}

#[track_caller]
fn assert_documented(document: &str, names: &[String]) {
    let text = text(document);
    assert!(names.len() > 3, "the names were not found: {names:?}");
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !text.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "{document} does not have {missing:?}");
}

#[test]
fn every_variable_is_documented() {
    let code = text("src/cli/env.rs");
    let mut names: Vec<String> = code
        .lines()
        .filter_map(|line| {
            Some(
                line.strip_prefix("pub(crate) const ")?
                    .split('"')
                    .nth(1)?
                    .to_owned(),
            )
        })
        .collect();
    // Other programs' variables stand where they are read.
    for file in files_below(&repository().join("src/cli"), ".rs") {
        let code = std::fs::read_to_string(file).unwrap();
        names.extend(code.split('"').skip(1).step_by(2).filter_map(|word| {
            let is_one = ["_proxy", "_PROXY", "_HOME", "_CERT_FILE", "_CERT_DIR"]
                .iter()
                .any(|end| word.ends_with(end) && !word.contains(' '));
            is_one.then(|| word.to_owned())
        }));
    }
    assert!(names.iter().any(|name| name == "no_proxy"), "{names:?}");
    assert_documented("docs/configuration.md", &names);
}

#[test]
fn every_setting_is_documented() {
    let code = text("src/cli/settings/table.rs");
    let names: Vec<String> = code
        .lines()
        .filter_map(|line| line.trim().strip_prefix("key: \"")?.strip_suffix("\","))
        .map(str::to_owned)
        .collect();
    assert_documented("docs/configuration.md", &names);
}

#[test]
fn every_common_option_is_documented() {
    let sandbox = Sandbox::new();
    // A command that uses all of them.
    let help = run(sandbox.bare(&["config", "-h"])).exits(0).stdout;
    let options = help.split_once("Store options:").unwrap().1;
    let options = options.split_once("\nExamples:").unwrap().0;
    let names: Vec<String> = options
        .lines()
        .filter_map(|line| Some(line.trim().split_once("--")?.1))
        .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter_map(|rest| {
            rest.split([' ', '.'])
                .next()
                .map(|name| format!("--{name}"))
        })
        .collect();
    assert_documented("docs/configuration.md", &names);
}

/// Of each command and subcommand: its name and its options, unless they are those of the page of
/// settings.
#[test]
fn every_command_is_documented() {
    let sandbox = Sandbox::new();
    let page = text("docs/reference/commands.md");
    let settings = text("docs/configuration.md");
    let mut open = vec![vec![]];
    let mut count = 0;
    while let Some(command) = open.pop() {
        let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = run(sandbox.bare(&arguments)).exits(0).stdout;
        open.extend(subcommands(&help).map(|name| [&command[..], &[name]].concat()));

        let name = format!("`subst {}", command.join(" "));
        assert!(page.contains(name.trim_end()), "{name}`");
        for option in options(&help) {
            let is_documented = page.contains(&option) || settings.contains(&option);
            assert!(is_documented, "{name}`: {option}");
            count += 1;
        }
    }
    assert!(count > 20, "only {count} options were found");
}

/// Commands in the text, such as `subst fetch --root DIR`, have names and options that exist.
#[test]
fn commands_in_the_text_exist() {
    let sandbox = Sandbox::new();
    let mut helps: HashMap<String, String> = HashMap::new();
    let mut count = 0;
    for document in blocks::documents() {
        let text = links::without_blocks(&text(&document));
        for span in text.split('`').skip(1).step_by(2) {
            let mut words = span.split_whitespace();
            let is_command = words.next() == Some("subst");
            let Some(command) = words.next().filter(|word| is_command && is_name(word)) else {
                continue;
            };
            let help = helps
                .entry(command.to_owned())
                .or_insert_with(|| help_of(&sandbox, command));
            assert!(!help.is_empty(), "{document}: `{span}`: no such command");
            let options = words.filter(|word| word.starts_with("--"));
            for option in options.map(|word| word.split(['=', '.']).next().unwrap()) {
                // Options of a subcommand are in its own help.
                let is_known = help.contains(option) || help.contains("\nCommands:");
                assert!(is_known, "{document}: `{span}`: no option {option}");
            }
            count += 1;
        }
    }
    assert!(count > 40, "only {count} commands were found");
}

/// The help of a command; of `help` itself, that of the program.
fn help_of(sandbox: &Sandbox, command: &str) -> String {
    let arguments = match command {
        "help" => &["help"][..],
        _ => &[command, "--help"],
    };
    run(sandbox.bare(arguments)).stdout
}

/// Whether `word` is the name of a command, and no placeholder.
fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
}

/// The names below "Commands:" of a help.
fn subcommands(help: &str) -> impl Iterator<Item = String> {
    let list = help.split_once("Commands:\n").map_or("", |(_, list)| list);
    list.lines()
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty() && *name != "help")
        .map(str::to_owned)
}

/// The long options of a help.
fn options(help: &str) -> impl Iterator<Item = String> {
    help.lines()
        .filter_map(|line| {
            let line = line.trim_start();
            let line = line.split_once(", ").map_or(line, |(_, long)| long);
            line.strip_prefix("--")
        })
        .filter_map(|rest| rest.split([' ', '=', '.']).next())
        .filter(|name| !["help", "version"].contains(name))
        .map(|name| format!("`--{name}"))
}

/// The events of `--progress json`.
#[test]
fn every_event_is_documented() {
    let names: Vec<String> = files_below(&repository().join("src/cli"), ".rs")
        .iter()
        .flat_map(|file| {
            let code = std::fs::read_to_string(file).unwrap();
            let names = code
                .split("\"event\": \"")
                .skip(1)
                .chain(code.split("[\"event\"] = \"").skip(1))
                .filter_map(|rest| rest.split('"').next())
                .map(str::to_owned);
            names.collect::<Vec<_>>()
        })
        .collect();
    assert_documented("docs/reference/output.md", &names);
}

#[test]
fn every_exit_code_is_in_the_readme() {
    let code = text("src/cli/exit.rs");
    let codes = code
        .lines()
        .filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = "));
    let codes: Vec<_> = codes.map(|(_, code)| code.to_owned()).collect();
    assert_documented("README.md", &codes);
    assert_documented("docs/reference/output.md", &codes);
}

/// The commands of a document's first block of them that is marked so.
fn commands(document: &str) -> Vec<String> {
    let text = text(document);
    let block = text
        .split_once("```sh\n")
        .unwrap()
        .1
        .split_once("```")
        .unwrap()
        .0;
    block
        .replace("\\\n", "")
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_first_command_of_the_readme_does_the_main_job() {
    let commands = commands("README.md");
    let [command] = &commands[..] else {
        panic!("not one command: {commands:?}")
    };
    let (cargo, arguments) = command.split_once(" -- ").unwrap();
    assert_eq!(cargo, "cargo run --locked");
    assert!(arguments.contains(" --root demo "), "{arguments}");
    let sandbox = Sandbox::new();
    let root = format!(" --root {} ", sandbox.root().display());
    let program = env!("CARGO_BIN_EXE_subst");
    let script = format!("'{program}' {}", arguments.replace(" --root demo ", &root));
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &script])
        .current_dir(repository())
        .env("SUBST_CONFIG", sandbox.path("config.toml"));
    run(shell).exits(0).prints(&format!("{}\n", item("sample")));
    assert!(sandbox.root().join(&item("sample")[1..]).is_dir());
}
