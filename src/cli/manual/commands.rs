//! The pages of the commands.

use clap::{Arg, ArgAction, Command};
use roff::{Inline, bold, italic, roman};

use crate::cli::command_help::{COMMANDS, CommandHelp};
use crate::cli::command_line;

use super::page::ManualPage;

/// The files that the page of the program lists.
const FILES: [(&str, &str); 5] = [
    ("/etc/subst/config.toml", "The settings of the system."),
    (
        "$XDG_CONFIG_HOME/subst/config.toml",
        "The settings of the user, in `~/.config` if the variable is not set.",
    ),
    (
        "/etc/guix/acl",
        "The authorized keys of the system's store; in a store below `--root DIR`, `DIR/etc/guix/acl`.",
    ),
    (
        "/var/guix/subst/",
        "The lookup cache and unfinished downloads, if this user may write there.",
    ),
    (
        "$XDG_CACHE_HOME/subst/",
        "The same for other users, in `~/.cache` if the variable is not set.",
    ),
];

/// The variables that the page of the program lists.
const VARIABLES: [(&str, &str); 5] = [
    (
        "SUBST_CONFIG",
        "The settings file to read instead of the usual ones.",
    ),
    (
        "SUBST_LOG",
        "Which diagnostics are written: a level such as `debug`, or levels for parts of the program.",
    ),
    (
        "SUBST_LOG_FILE",
        "The file that diagnostics are appended to, instead of standard error.",
    ),
    (
        "SUBST_REAL_GUIX",
        "The program to run for all commands but `guix substitute`, when subst is installed as `guix`.",
    ),
    (
        "http_proxy, https_proxy, all_proxy, no_proxy",
        "Proxies, and hosts without one.",
    ),
];

/// One page for each command that help shows.
pub(super) fn pages() -> Vec<ManualPage> {
    let mut command = command_line::command();
    command.build();
    let pages = COMMANDS.iter();
    pages
        .filter_map(|help| Some(page(at_path(&command, help.path)?, help)))
        .collect()
}

fn at_path<'a>(command: &'a Command, path: &[&str]) -> Option<&'a Command> {
    path.iter()
        .try_fold(command, |command, name| command.find_subcommand(name))
}

fn page(command: &Command, help: &CommandHelp) -> ManualPage {
    let name = page_name(help);
    let about = command.get_about().map(ToString::to_string);
    let about = about.unwrap_or_default();
    let mut page = ManualPage::new(&name, "1", &lower_first(&about));
    add_synopsis(&mut page, command);

    page.section("DESCRIPTION");
    page.text(&format!("{about}."));
    for paragraph in help.notes.split("\n\n").filter(|text| !text.is_empty()) {
        page.paragraph();
        page.text(paragraph);
    }

    add_arguments(&mut page, command);
    add_subcommands(&mut page, command, help);
    add_examples(&mut page, help);
    if help.path.is_empty() {
        add_terms(&mut page, "ENVIRONMENT", &VARIABLES);
        add_terms(&mut page, "FILES", &FILES);
    }
    add_exit_status(&mut page, help);
    page.see_also(&related(help));
    page
}

fn page_name(help: &CommandHelp) -> String {
    let names: Vec<&str> = ["subst"].iter().chain(help.path).copied().collect();
    names.join("-")
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

fn add_synopsis(page: &mut ManualPage, command: &Command) {
    page.section("SYNOPSIS");
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let name = command.get_bin_name().unwrap_or_default();
    let rest = usage.strip_prefix(name).unwrap_or_default();
    page.line(vec![bold(name), roman(rest)]);
}

fn add_arguments(page: &mut ManualPage, command: &Command) {
    let shown = command.get_arguments().filter(|it| !it.is_hide_set());
    let shown: Vec<&Arg> = shown.collect();
    let (positional, options): (Vec<&Arg>, Vec<&Arg>) =
        shown.into_iter().partition(|it| it.is_positional());
    if !positional.is_empty() {
        page.section("ARGUMENTS");
        positional.iter().for_each(|it| add_argument(page, it));
    }

    let mut headings: Vec<Option<&str>> = Vec::new();
    for option in &options {
        if !headings.contains(&option.get_help_heading()) {
            headings.push(option.get_help_heading());
        }
    }
    for heading in headings {
        page.section(heading.unwrap_or("OPTIONS"));
        let options = options.iter().filter(|it| it.get_help_heading() == heading);
        options.for_each(|it| add_argument(page, it));
    }
}

fn add_argument(page: &mut ManualPage, argument: &Arg) {
    page.term(argument_term(argument));
    let help = argument.get_long_help().or_else(|| argument.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let paragraphs: Vec<String> = help.split("\n\n").map(ended).collect();
    page.text(&paragraphs.join(" "));

    let values = argument.get_possible_values();
    let values = values
        .iter()
        .filter_map(|it| Some((it.get_name(), it.get_help()?)));
    let values: Vec<String> = values
        .map(|(name, help)| format!("`{name}`: {help}"))
        .collect();
    if takes_value(argument) && !values.is_empty() {
        page.text(&format!("Values: {}.", values.join("; ")));
    }
}

/// A paragraph of help as a sentence; brackets need no period.
fn ended(paragraph: &str) -> String {
    match paragraph.ends_with(['.', ']']) {
        true => paragraph.to_owned(),
        false => format!("{paragraph}."),
    }
}

fn takes_value(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::Set | ArgAction::Append)
}

fn argument_term(argument: &Arg) -> Vec<Inline> {
    let names = argument.get_value_names().unwrap_or_default();
    let value = names.first().map_or("", |name| name.as_str());
    let mut term = Vec::new();
    if let Some(short) = argument.get_short() {
        term.extend([bold(format!("-{short}")), roman(", ")]);
    }
    if let Some(long) = argument.get_long() {
        term.push(bold(format!("--{long}")));
    } else {
        term.push(italic(value));
        return term;
    }
    if takes_value(argument) {
        term.extend([roman(" "), italic(value)]);
    }
    term
}

fn add_subcommands(page: &mut ManualPage, command: &Command, help: &CommandHelp) {
    let shown = command.get_subcommands();
    let shown: Vec<&Command> = shown
        .filter(|it| !it.is_hide_set() && it.get_name() != "help")
        .collect();
    if shown.is_empty() {
        return;
    }

    page.section("COMMANDS");
    for subcommand in shown {
        let name = format!("{}-{}", page_name(help), subcommand.get_name());
        page.term(vec![bold(name), roman("(1)")]);
        let about = subcommand.get_about().map(ToString::to_string);
        page.text(&format!("{}.", about.unwrap_or_default()));
    }
}

fn add_examples(page: &mut ManualPage, help: &CommandHelp) {
    page.section("EXAMPLES");
    for (index, example) in help.examples.iter().enumerate() {
        if index > 0 {
            page.paragraph();
        }
        page.text(&format!("{}:", example.purpose));
        page.code(example.command);
    }
}

fn add_terms(page: &mut ManualPage, heading: &str, terms: &[(&str, &str)]) {
    page.section(heading);
    for (term, text) in terms {
        page.term(vec![bold(*term)]);
        page.text(text);
    }
}

fn add_exit_status(page: &mut ManualPage, help: &CommandHelp) {
    page.section("EXIT STATUS");
    for exit in help.exits {
        page.term(vec![bold((*exit as u8).to_string())]);
        page.text(&format!("{}.", exit.meaning()));
    }
}

/// The pages of the command above, of those below, and of settings files.
fn related(help: &CommandHelp) -> Vec<String> {
    let below = COMMANDS.iter().filter(|other| {
        other.path.len() == help.path.len() + 1 && other.path.starts_with(help.path)
    });
    let above = COMMANDS
        .iter()
        .filter(|other| other.path.len() < help.path.len() && help.path.starts_with(other.path));
    let related = above.chain(below);
    let pages = related.map(|other| format!("{}.1", page_name(other)));
    pages.chain(["subst.toml.5".to_owned()]).collect()
}
