//! Words that people type by analogy with other programs, as in `subst roots list`, and the command
//! that does here what they mean.

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::shell_command::quoted;

/// What stands in place of a word.
#[derive(Clone, Copy)]
enum Replacement {
    /// These words; the rest of the command line stays.
    Words(&'static str),
    /// This command.
    Command(&'static str),
    /// No command, but this advice.
    Advice(&'static str),
}

use Replacement::{Advice, Command as Whole, Words};

/// Behind which subcommands which words are typed, and what is meant.
const GUESSES: &[(&str, &[&str], Replacement)] = &[
    (
        "",
        &["install", "download", "get", "pull", "realise", "realize"],
        Words("fetch"),
    ),
    (
        "",
        &["info", "path-info", "lookup", "weather"],
        Words("query"),
    ),
    (
        "",
        &["why", "explain", "missing", "report"],
        Words("query --cache-miss-report"),
    ),
    (
        "",
        &["search", "find"],
        Advice(
            "`guix search` and `nix search` find packages, and servers go by full names of items",
        ),
    ),
    (
        "",
        &["list", "ls", "show"],
        Advice(
            "`subst gc --dry-run --root DIR` lists the items of a store, `subst roots` roots, \
             `subst cache list` cached answers",
        ),
    ),
    (
        "",
        &["build"],
        Advice("`guix build` and `nix build` build; `subst fetch` fetches what servers have"),
    ),
    ("", &["exec", "shell"], Words("run")),
    ("", &["key", "keys", "acl"], Whole("subst authorize --list")),
    ("", &["trust", "authorise", "archive"], Words("authorize")),
    ("", &["clean", "collect", "collect-garbage"], Words("gc")),
    (
        "",
        &["pin", "root"],
        Whole("subst fetch --gc-root NAME PATH"),
    ),
    ("", &["push", "upload", "copy", "sync"], Words("mirror")),
    ("", &["flush"], Words("cache flush")),
    ("", &["clear"], Words("cache clear")),
    ("", &["settings", "configuration"], Words("config")),
    ("", &["status", "substituters"], Words("servers")),
    ("", &["sign"], Words("endorse")),
    ("", &["check"], Words("verify")),
    (
        "authorize",
        &["list", "ls", "show", "keys", "status"],
        Words("--list"),
    ),
    (
        "authorize",
        &["remove", "rm", "delete", "revoke"],
        Words("--remove"),
    ),
    ("authorize", &["add", "import", "trust"], Words("")),
    ("roots", &["list", "ls", "show"], Words("")),
    ("roots", &["remove", "rm", "delete"], Words("--remove")),
    (
        "roots",
        &["add", "create", "pin"],
        Whole("subst fetch --gc-root NAME PATH"),
    ),
    ("servers", &["list", "ls", "show", "status"], Words("")),
    ("servers", &["add"], Words("--substitute-urls")),
    ("gc", &["run", "start", "collect"], Words("")),
    ("gc", &["list", "ls", "show"], Words("--dry-run")),
    (
        "gc",
        &["root", "roots"],
        Advice("the command is `subst roots`, with the same --root"),
    ),
    ("verify", &["all"], Words("")),
    ("verify", &["repair", "fix"], Words("--repair")),
    ("challenge", &["all"], Words("--all-valid")),
    (
        "endorse",
        &["withdraw", "remove", "rm", "delete", "revoke"],
        Words("--withdraw"),
    ),
    ("cache", &["show", "status", "stats", "size"], Words("info")),
    ("cache", &["ls", "dump"], Words("list")),
    (
        "cache",
        &["remove", "rm", "delete", "invalidate"],
        Words("flush"),
    ),
    ("cache", &["clean", "gc"], Words("prune")),
    ("cache flush", &["all"], Words("")),
    (
        "config",
        &["list", "ls", "get", "print"],
        Whole("subst config show"),
    ),
    ("config", &["validate", "verify", "test"], Words("check")),
    (
        "config",
        &["set", "edit", "add"],
        Advice("settings are changed with an editor, in the file that `subst config show` names"),
    ),
    (
        "mirror",
        &["add", "copy", "create", "sync", "update"],
        Whole("subst mirror --to DIR --closure PATH"),
    ),
    ("mirror", &["check"], Words("verify")),
    ("mirror", &["repair"], Words("verify --repair")),
    ("mirror", &["prune", "clean", "remove"], Words("gc")),
];

/// A command line, divided.
struct Divided<'a> {
    /// The subcommand that its words select.
    command: &'a Command,
    /// Their names.
    path: String,
    /// The position of the first other word that is no option.
    first: Option<usize>,
}

/// What to type instead of the `words` of a command line, if the first word behind the subcommand in
/// `definition` is one that people guess, or the name of an option.
#[must_use]
pub(super) fn instead(definition: &Command, words: &[String]) -> Option<String> {
    let Divided {
        command,
        path,
        first,
    } = divide(definition, words);
    let first = first?;
    let word = &*words[first];

    let known = GUESSES
        .iter()
        .find(|(of, guesses, _)| *of == path && guesses.contains(&word));
    let replacement = match known {
        Some((_, _, Whole(command))) => return Some(format!("the command is `{command}`")),
        Some((_, _, Advice(advice))) => return Some((*advice).to_owned()),
        Some((_, _, Words(words))) => (*words).to_owned(),
        None if word == "help" || has_option(command, word) => format!("--{word}"),
        None => format!("{} {word}", option_before(&path, word)?),
    };

    let before = words[..first].iter().map(String::as_str);
    let behind = words[first + 1..].iter().map(String::as_str);
    let words = before.chain(replacement.split_whitespace()).chain(behind);
    let words: Vec<&str> = std::iter::once("subst").chain(words).collect();
    let missing = missing_behind(definition, &words);
    let words: Vec<String> = words.into_iter().map(quoted).chain(missing).collect();
    Some(format!("the command is `{}`", words.join(" ")))
}

/// What is required behind `words`, such as the value of the last option: as the help names it.
fn missing_behind(definition: &Command, words: &[&str]) -> Vec<String> {
    let mut missing: Vec<String> = Vec::new();
    // A value, and then all other arguments.
    for _ in 0..2 {
        let typed = words.iter().copied();
        let all = typed.chain(missing.iter().map(String::as_str));
        let Err(error) = definition.clone().try_get_matches_from(all) else {
            break;
        };
        match (error.kind(), error.get(ContextKind::InvalidArg)) {
            (ErrorKind::InvalidValue, Some(ContextValue::String(option))) => {
                let mut usage = first_alternative(option);
                if usage.next().as_deref() != words.last().copied() {
                    break;
                }
                missing.extend(usage);
            }
            (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(arguments))) => {
                missing.extend(arguments.iter().flat_map(|it| first_alternative(it)));
            }
            _ => break,
        }
    }
    missing
}

/// The words of the first alternative of `usage`, such as those of `--to DIR` for `--to <DIR|URL>`, and
/// of `--closure PATH` for `<--closure <PATH>...|--all>`.
fn first_alternative(usage: &str) -> impl Iterator<Item = String> {
    let end = usage.find('|').unwrap_or(usage.len());
    let words = usage[..end].split(' ');
    words.map(|word| word.trim_matches(['<', '>', '.']).to_owned())
}

/// The same, if that is the word `rejected`, which may also name a package: that of an option counts
/// only where more words follow.
#[must_use]
pub(super) fn instead_of(definition: &Command, words: &[String], rejected: &str) -> Option<String> {
    let Divided {
        command,
        path,
        first,
    } = divide(definition, words);
    let first = first.filter(|first| words[*first] == rejected)?;
    let is_option = has_option(command, rejected) && first + 1 < words.len();
    let is_guess = GUESSES
        .iter()
        .any(|(of, guesses, _)| *of == path && guesses.contains(&rejected));
    if !is_guess && !is_option && rejected != "help" {
        return None;
    }
    instead(definition, words)
}

/// The option of the command with the names `path` that a value like `word` belongs to.
fn option_before(path: &str, word: &str) -> Option<&'static str> {
    match path {
        "mirror" if word.contains("/store/") => Some("--closure"),
        "servers" if word.contains("://") => Some("--substitute-urls"),
        "gc" | "roots" if word.contains('/') => Some("--root"),
        "config show" | "config check" if word.contains('/') || word.ends_with(".toml") => {
            Some("--config")
        }
        _ => None,
    }
}

fn divide<'a>(definition: &'a Command, words: &[String]) -> Divided<'a> {
    let mut command = definition;
    let mut path = Vec::new();
    let mut first = None;
    let mut is_value = false;
    for (position, word) in words.iter().enumerate() {
        if is_value {
            is_value = false;
        } else if word.starts_with('-') && word.len() > 1 {
            is_value = has_value(definition, word) || has_value(command, word);
        } else if let Some(subcommand) = command.find_subcommand(word) {
            command = subcommand;
            path.push(subcommand.get_name());
        } else {
            first = Some(position);
            break;
        }
    }
    Divided {
        command,
        path: path.join(" "),
        first,
    }
}

/// Whether the word behind `option` is its value.
fn has_value(command: &Command, option: &str) -> bool {
    let mut options = command.get_arguments();
    options.any(|it| {
        let is_it = match option.strip_prefix("--") {
            Some(name) => it.get_long() == Some(name),
            None => it
                .get_short()
                .is_some_and(|name| option == format!("-{name}")),
        };
        is_it && it.get_action().takes_values()
    })
}

fn has_option(command: &Command, name: &str) -> bool {
    let mut options = command.get_arguments();
    options.any(|option| option.get_long() == Some(name) && !option.is_hide_set())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::args::Cli;

    fn typed(line: &str) -> Option<String> {
        let words: Vec<String> = line.split(' ').skip(1).map(str::to_owned).collect();
        instead(&Cli::command(), &words)
    }

    #[test]
    fn the_rest_of_the_command_line_stays() {
        for (line, command) in [
            ("subst --root r roots list", "subst --root r roots"),
            (
                "subst authorize --root list rm --acl=a KEY",
                "subst authorize --root list --remove --acl=a KEY",
            ),
            ("subst cache ls --json", "subst cache list --json"),
            ("subst install -j 3 a b", "subst fetch -j 3 a b"),
            ("subst verify help", "subst verify --help"),
            (
                "subst roots add ci /gnu/store/x",
                "subst fetch --gc-root NAME PATH",
            ),
            ("subst gc demo/", "subst gc --root demo/"),
            (
                "subst mirror --to m /gnu/store/x",
                "subst mirror --to m --closure /gnu/store/x",
            ),
            (
                "subst servers add http://a",
                "subst servers --substitute-urls http://a",
            ),
            (
                "subst config check a.toml",
                "subst config check --config a.toml",
            ),
        ] {
            let expected = format!("the command is `{command}`");
            assert_eq!(typed(line), Some(expected), "{line}");
        }
    }

    #[test]
    fn what_is_still_required_is_added() {
        for (line, command) in [
            ("subst mirror list", "subst mirror --list FILE --to DIR"),
            ("subst push", "subst mirror --to DIR --closure PATH"),
            (
                "subst endorse withdraw /gnu/store/x",
                "subst endorse --withdraw /gnu/store/x --to DIR",
            ),
            (
                "subst endorse rm --to d",
                "subst endorse --withdraw --to d PATH",
            ),
            ("subst why", "subst query --cache-miss-report PATH"),
            ("subst roots rm", "subst roots --remove NAME"),
            ("subst mirror check", "subst mirror verify --to DIR"),
            ("subst gc keep-days", "subst gc --keep-days N"),
        ] {
            let expected = format!("the command is `{command}`");
            assert_eq!(typed(line), Some(expected), "{line}");
        }
    }

    #[test]
    fn the_name_of_a_package_is_no_option() {
        let of = |line: &str| {
            let words: Vec<String> = line.split(' ').skip(1).map(str::to_owned).collect();
            instead_of(&Cli::command(), &words, "closure")
        };
        assert_eq!(of("subst query closure"), None);
        assert_eq!(of("subst query x closure"), None);
        let expected = "the command is `subst query --closure x`";
        assert_eq!(of("subst query closure x").as_deref(), Some(expected));
    }

    #[test]
    fn other_words_are_left_alone() {
        for line in [
            "subst",
            "subst roots",
            "subst roots --root list",
            "subst roots ci",
            "subst fetch list",
            "subst run coreutils list",
            "subst cache install",
        ] {
            assert_eq!(typed(line), None, "{line}");
        }
    }

    #[test]
    fn every_guess_is_about_a_command_and_leads_to_one() {
        let definition = crate::cli::command_line::command();
        for (path, guesses, replacement) in GUESSES {
            let parts: Vec<&str> = path.split_whitespace().collect();
            for guess in *guesses {
                let words: Vec<String> = parts
                    .iter()
                    .chain([guess])
                    .map(|it| (*it).to_owned())
                    .collect();
                let divided = divide(&definition, &words);
                assert_eq!(
                    (&*divided.path, divided.first),
                    (*path, Some(parts.len())),
                    "{words:?}"
                );
            }
            let line = match replacement {
                Words(words) => format!("subst {path} {words}"),
                Whole(command) => (*command).to_owned(),
                Advice(_) => continue,
            };
            let parsed = definition
                .clone()
                .try_get_matches_from(line.split_whitespace());
            if let Err(error) = parsed {
                use clap::error::ErrorKind;
                let is_known = matches!(
                    error.kind(),
                    // What is missing is the rest of what was typed.
                    ErrorKind::MissingRequiredArgument
                        | ErrorKind::InvalidValue
                        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                );
                assert!(is_known, "{line}: {error}");
            }
        }
    }
}
