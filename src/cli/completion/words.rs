//! The words that may stand next in a command line, from its definition.

use clap::{Arg, ArgAction, Command};

/// What may stand at the place of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WordKind {
    /// Only the words that are listed.
    Listed,
    /// A file.
    File,
    /// A directory.
    Directory,
    /// The URL of a server.
    Url,
    /// The name of an item.
    Item,
}

/// A word that may stand next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) word: String,
    /// What it means.
    pub(super) help: String,
}

/// All that may stand next.
#[derive(Debug)]
pub(super) struct Completion {
    /// What else there may be besides the candidates.
    pub(super) kind: WordKind,
    /// What comes before a value in the same word, such as `--root=`.
    pub(super) before_value: String,
    /// Words that begin like the current one.
    pub(super) candidates: Vec<Candidate>,
}

impl Completion {
    fn listed(candidates: Vec<Candidate>) -> Self {
        Self {
            kind: WordKind::Listed,
            before_value: String::new(),
            candidates,
        }
    }
}

/// What may stand in place of `current`, the beginning of a word, after the words in `before`.
pub(super) fn complete(command: &Command, before: &[String], current: &str) -> Completion {
    let place = Place::after(command, before);
    if let Some(option) = place.open_option {
        return values(option, "", current);
    }

    if !place.only_positional && current.starts_with('-') {
        if let Some((name, value)) = current.split_once('=') {
            let option = find_option(place.command, name).filter(|it| takes_value(it));
            return option.map_or_else(
                || Completion::listed(Vec::new()),
                |option| values(option, &format!("{name}="), value),
            );
        }
        return Completion::listed(options(place.command, current));
    }

    let mut completion = match place.positional() {
        Some(argument) => values(argument, "", current),
        None => Completion::listed(Vec::new()),
    };
    if place.positional_count == 0 && !place.only_positional {
        completion
            .candidates
            .extend(subcommands(place.command, current));
    }
    completion
}

/// Where in a command line a word stands.
struct Place<'a> {
    command: &'a Command,
    /// The option before it that still needs its value.
    open_option: Option<&'a Arg>,
    /// After `--`.
    only_positional: bool,
    positional_count: usize,
}

impl<'a> Place<'a> {
    fn after(command: &'a Command, words: &[String]) -> Self {
        let mut place = Self {
            command,
            open_option: None,
            only_positional: false,
            positional_count: 0,
        };
        words.iter().for_each(|word| place.pass(word));
        place
    }

    fn pass(&mut self, word: &str) {
        if self.open_option.take().is_some() {
            return;
        }

        if self.only_positional || !word.starts_with('-') || word == "-" {
            let is_first = self.positional_count == 0 && !self.only_positional;
            match self.command.find_subcommand(word).filter(|_| is_first) {
                Some(subcommand) => self.command = subcommand,
                None => self.positional_count += 1,
            }
        } else if word == "--" {
            self.only_positional = true;
        } else if !word.contains('=') {
            self.open_option = find_option(self.command, word).filter(|it| takes_value(it));
        }
    }

    /// The positional argument that comes next; the last one may be repeated.
    fn positional(&self) -> Option<&'a Arg> {
        let mut positionals = self.command.get_positionals();
        let last = self.command.get_positionals().last();
        let repeated = last.filter(|it| matches!(it.get_action(), ArgAction::Append));
        positionals.nth(self.positional_count).or(repeated)
    }
}

/// The option `--name`, or the last one of short options such as `-vj`.
fn find_option<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let mut options = command.get_opts();
    match word.strip_prefix("--") {
        Some(name) => options.find(|it| it.get_long() == Some(name)),
        None => options.find(|it| it.get_short().is_some_and(|short| word.ends_with(short))),
    }
}

fn takes_value(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::Set | ArgAction::Append)
}

fn options(command: &Command, current: &str) -> Vec<Candidate> {
    let shown = command.get_arguments().filter(|it| !it.is_hide_set());
    let named = shown.filter_map(|it| Some((format!("--{}", it.get_long()?), it)));
    named
        .filter(|(name, _)| name.starts_with(current))
        .map(|(word, option)| Candidate {
            word,
            help: option
                .get_help()
                .map(ToString::to_string)
                .unwrap_or_default(),
        })
        .collect()
}

fn subcommands(command: &Command, current: &str) -> Vec<Candidate> {
    let shown = command.get_subcommands().filter(|it| !it.is_hide_set());
    let fitting = shown.filter(|it| it.get_name().starts_with(current));
    fitting
        .map(|subcommand| Candidate {
            word: subcommand.get_name().to_owned(),
            help: subcommand
                .get_about()
                .map(ToString::to_string)
                .unwrap_or_default(),
        })
        .collect()
}

/// The values of `argument` that begin with `current`; `before_value` is part of the same word.
fn values(argument: &Arg, before_value: &str, current: &str) -> Completion {
    let possible = argument.get_possible_values();
    let fitting = possible
        .iter()
        .filter(|it| it.get_name().starts_with(current));
    let candidates = fitting.map(|value| Candidate {
        word: format!("{before_value}{}", value.get_name()),
        help: value
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default(),
    });
    Completion {
        kind: kind(argument),
        before_value: before_value.to_owned(),
        candidates: candidates.collect(),
    }
}

/// The names that stand for values say what they are.
fn kind(argument: &Arg) -> WordKind {
    let names = argument.get_value_names().unwrap_or_default();
    match names.first().map_or("", |name| name.as_str()) {
        "DIR" | "DIR|URL" => WordKind::Directory,
        "FILE" | "FILE|URL" | "DEST" | "ARG" => WordKind::File,
        "URL" | "URLS" => WordKind::Url,
        "PATH" | "ITEM" => WordKind::Item,
        _ => WordKind::Listed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command_line;

    /// What completes the last of `words`.
    fn completed(words: &[&str]) -> (WordKind, Vec<String>) {
        let mut command = command_line::command();
        command.build();
        let (current, before) = words.split_last().unwrap();
        let before: Vec<String> = before.iter().map(|word| (*word).to_owned()).collect();
        let completion = complete(&command, &before, current);
        let words = completion.candidates.into_iter().map(|it| it.word);
        (completion.kind, words.collect())
    }

    #[test]
    fn completes_commands_options_and_values() {
        let listed = |words: &[&str]| {
            let words = words.iter().map(|word| (*word).to_owned());
            (WordKind::Listed, words.collect())
        };
        assert_eq!(completed(&["qu"]), listed(&["query"]));
        assert_eq!(
            completed(&["--config", "x", "cache", "fl"]),
            listed(&["flush"])
        );
        assert_eq!(completed(&["fetch", "--keep"]), listed(&["--keep-going"]));
        assert_eq!(completed(&["query", "--keep"]), listed(&[]));
        assert_eq!(completed(&["fetch", "--progress", "p"]), listed(&["plain"]));
        assert_eq!(completed(&["fetch", "--sync=fu"]), listed(&["--sync=full"]));
        assert_eq!(completed(&["completions", "z"]), listed(&["zsh"]));
        assert_eq!(completed(&["ma"]), listed(&[]));
    }

    #[test]
    fn knows_what_kind_of_value_is_expected() {
        for (words, kind) in [
            (&["fetch", ""][..], WordKind::Item),
            (&["fetch", "/gnu/store/x", ""], WordKind::Item),
            (&["fetch", "--", "-"], WordKind::Item),
            (&["fetch", "--root", ""], WordKind::Directory),
            (&["fetch", "--root="], WordKind::Directory),
            (&["fetch", "-j", ""], WordKind::Listed),
            (&["query", "--substitute-urls", "h"], WordKind::Url),
            (&["cache", "flush", "--server", ""], WordKind::Url),
            (&["authorize", ""], WordKind::File),
            (&["authorize", "key", ""], WordKind::Listed),
        ] {
            assert_eq!(completed(words).0, kind, "{words:?}");
        }
    }
}
