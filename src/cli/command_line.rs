//! The definition of the command line: the commands of [`Cli`] with the shared options that each one
//! uses, its examples and its exit status. Help, manual pages and completions are made from it.

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, CommandFactory as _, Error, FromArgMatches as _};

use super::args::Cli;
use super::command_help::{COMMANDS, CommandHelp};
use super::guessed_words::instead;
use super::settings::{OptionGroup, option_group};

/// The definition of the command line.
pub(crate) fn command() -> Command {
    let mut command = Cli::command();
    let shared: Vec<(OptionGroup, Arg)> = command
        .get_arguments()
        .filter_map(|option| Some((option_group(option.get_id().as_str())?, option.clone())))
        .collect();

    // A command inherits a hidden option, unless it has one of the same name.
    command = command.mut_args(|option| match option_group(option.get_id().as_str()) {
        None | Some(OptionGroup::General) => option,
        Some(_) => option.hide(true),
    });
    for help in COMMANDS {
        command = at_path(command, help.path, &|command| {
            with_help(command, help, &shared)
        });
    }
    command
}

/// What `arguments` say, of which the first one is the name of the program.
///
/// # Errors
/// They are wrong, or ask for help.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Cli, Error> {
    let mut command = command();
    let matches = command
        .try_get_matches_from_mut(arguments)
        .map_err(|error| with_tip(error, &command, arguments))?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Adds a tip to `error` if it is about a word that is no subcommand, no argument or in place of one,
/// but known to be typed there.
fn with_tip(mut error: Error, command: &Command, arguments: &[OsString]) -> Error {
    let is_about_words = matches!(
        error.kind(),
        ErrorKind::UnknownArgument
            | ErrorKind::InvalidSubcommand
            | ErrorKind::MissingRequiredArgument
    );
    if !is_about_words {
        return error;
    }
    let words = arguments.iter().skip(1).map(|word| word.to_string_lossy());
    let words: Vec<String> = words.map(|word| word.into_owned()).collect();
    if let Some(tip) = instead(command, &words) {
        let tips = ContextValue::StyledStrs(vec![StyledStr::from(tip)]);
        error.insert(ContextKind::Suggested, tips);
        // A similar name, which has a line of its own.
        error.remove(ContextKind::SuggestedSubcommand);
    } else if !words.iter().any(|word| word == "run") {
        // That `--` may precede the word. Only the arguments of a program may begin like options.
        error.remove(ContextKind::Suggested);
    }
    error
}

/// Changes the subcommand of `command` that the names in `path` lead to.
fn at_path(command: Command, path: &[&str], change: &dyn Fn(Command) -> Command) -> Command {
    match path {
        [] => change(command),
        [name, rest @ ..] => {
            command.mut_subcommand(*name, |subcommand| at_path(subcommand, rest, change))
        }
    }
}

fn with_help(command: Command, help: &CommandHelp, shared: &[(OptionGroup, Arg)]) -> Command {
    let used = shared
        .iter()
        .filter(|(group, _)| help.groups.contains(group));
    let used: Vec<Arg> = used.map(|(_, option)| option.clone()).collect();
    let end = examples_and_exit_status(help);
    let notes = if help.notes.is_empty() { "" } else { "\n\n" };
    let long_end = format!("{end}{notes}{}", help.notes);
    command.args(used).after_help(end).after_long_help(long_end)
}

/// What stands at the end of the help of a command.
fn examples_and_exit_status(help: &CommandHelp) -> String {
    let mut text = String::new();
    if !help.examples.is_empty() {
        text.push_str("Examples:\n");
        for example in help.examples {
            // Writing to a text does not fail.
            let _ = writeln!(text, "  {}\n      {}", example.command, example.purpose);
        }
        text.push('\n');
    }

    text.push_str("Exit status:\n");
    for exit in help.exits {
        let _ = writeln!(text, "  {:<3}  {}", *exit as u8, exit.meaning());
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }

    fn paths_below(command: &Command, path: &[&str], found: &mut Vec<String>) {
        for subcommand in command.get_subcommands().filter(|it| !it.is_hide_set()) {
            let path = [path, &[subcommand.get_name()]].concat();
            found.push(path.join(" "));
            paths_below(subcommand, &path, found);
        }
    }

    #[test]
    fn every_command_has_help_and_every_example_is_valid() {
        let mut paths = vec![String::new()];
        paths_below(&Cli::command(), &[], &mut paths);
        let documented: Vec<String> = COMMANDS.iter().map(|help| help.path.join(" ")).collect();
        let missing = paths.iter().filter(|path| !documented.contains(path));
        assert_eq!(missing.collect::<Vec<_>>(), [""; 0]);
        let unknown = documented.iter().filter(|path| !paths.contains(path));
        assert_eq!(unknown.collect::<Vec<_>>(), [""; 0]);

        for example in COMMANDS.iter().flat_map(|help| help.examples) {
            let words = example
                .command
                .split('|')
                .next_back()
                .unwrap()
                .split_whitespace();
            let words: Vec<&str> = words.map(|word| word.trim_matches(['"', '\''])).collect();
            let words = words.iter().skip_while(|word| **word != "subst");
            let words = words.take_while(|word| **word != "<" && **word != ">");
            if let Err(error) = command().try_get_matches_from(words) {
                assert!(!error.use_stderr(), "{}: {error}", example.command);
            }
        }
    }

    #[test]
    fn a_command_shows_the_shared_options_that_it_uses_and_accepts_all() {
        let command = command();
        let shown = |name: &str, option: &str| {
            let subcommand = command.find_subcommand(name).unwrap();
            let mut options = subcommand.get_arguments();
            options.any(|it| it.get_id() == option && !it.is_hide_set())
        };
        assert!(shown("fetch", "jobs") && shown("query", "refresh"));
        assert!(!shown("query", "jobs") && !shown("completions", "root"));
        let accepted = command
            .clone()
            .try_get_matches_from(["subst", "servers", "--jobs", "3"]);
        assert!(accepted.is_ok());
    }
}
