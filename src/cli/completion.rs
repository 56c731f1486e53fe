//! Completions: scripts for shells, and the words that they offer. The scripts send the words of the
//! command line to `subst complete-words`, so that all shells offer the same, also names that are known
//! only at run time. That command must be quick, changes nothing and never prints an error.

pub(super) mod shell;
mod words;

use clap::FromArgMatches as _;

use crate::format::escape::is_printable;
use crate::format::server_url::ServerUrl;
use crate::lookup_cache::{known_items, known_servers};

use super::command_line;
use super::env::Environment;
use super::settings::{CommonOptions, Settings, SettingsFindings};

use words::{Candidate, Completion, WordKind};

/// The answer for a script, in lines: first `words`, `files` or `directories`, for what else fits at the place of the
/// last word, then each word that fits, with a tab and its meaning.
#[must_use]
pub(crate) fn completion_text(words: &[String], environment: &Environment) -> String {
    let Some((current, before)) = words.split_last() else {
        return String::new();
    };
    let mut command = command_line::command();
    command.build();

    let mut completion = words::complete(&command, before, current);
    if matches!(completion.kind, WordKind::Url | WordKind::Item) {
        let known = known_names(before, current, &completion, environment);
        completion.candidates.extend(known);
    }

    let kind = match completion.kind {
        WordKind::Listed | WordKind::Url | WordKind::Item => "words",
        WordKind::File => "files",
        WordKind::Directory => "directories",
    };
    let mut text = format!("{kind}\n");
    for Candidate { word, help } in completion.candidates {
        // What is shown while somebody types cannot be escaped.
        if !word.chars().all(is_printable) {
            continue;
        }
        text.push_str(&word);
        if let Some(line) = help.lines().next() {
            text.push_str(&format!("\t{line}"));
        }
        text.push('\n');
    }
    text
}

/// The servers or items that the settings and the lookup cache know, for a command line that begins with
/// `before`.
fn known_names(
    before: &[String],
    current: &str,
    completion: &Completion,
    environment: &Environment,
) -> Vec<Candidate> {
    let Some(settings) = settings(before, environment) else {
        return Vec::new();
    };

    let prefix = current.strip_prefix(&*completion.before_value);
    let prefix = prefix.unwrap_or_default();
    let mut names: Vec<String> = match completion.kind {
        WordKind::Url => server_urls(&settings),
        _ => item_names(&settings, prefix),
    };
    names.retain(|name| name.starts_with(prefix) && name.chars().all(is_harmless_in_shell));
    names.sort_unstable();
    names.dedup();

    let before_value = &completion.before_value;
    let names = names.into_iter();
    names
        .map(|name| Candidate {
            word: format!("{before_value}{name}"),
            help: String::new(),
        })
        .collect()
}

/// Whether no shell gives `c` a meaning inside a word. Servers choose the names in the lookup cache, and
/// shells insert them into command lines as they are.
fn is_harmless_in_shell(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/:.-_~+%@=,".contains(c)
}

/// The settings for the options among `words`, which may be incomplete; `None` if they are invalid.
fn settings(words: &[String], environment: &Environment) -> Option<Settings> {
    let arguments = std::iter::once("subst").chain(words.iter().map(String::as_str));
    let command = command_line::command().ignore_errors(true);
    let matches = command.try_get_matches_from(arguments).ok()?;
    let options = CommonOptions::from_arg_matches(&matches).ok()?;
    Settings::load(
        &options,
        environment,
        None,
        &mut SettingsFindings::default(),
    )
}

/// The URLs in the settings and in the lookup cache, without user names and passwords.
fn server_urls(settings: &Settings) -> Vec<String> {
    let cached = settings
        .cache_dirs
        .iter()
        .flat_map(|dir| known_servers(dir));
    let cached = cached.filter_map(|url| Some(ServerUrl::parse(&url).ok()?.as_str().to_owned()));
    let configured = settings.servers.iter().map(|url| url.as_str().to_owned());
    configured.chain(cached).collect()
}

fn item_names(settings: &Settings, prefix: &str) -> Vec<String> {
    let store_dir = settings.store_dir();
    let cached = settings.cache_dirs.iter();
    let cached = cached.flat_map(|dir| known_items(dir, prefix));
    cached
        .filter(|name| store_dir.parse_path(name).is_ok())
        .collect()
}
