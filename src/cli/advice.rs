//! Commands that hints name: with the options of this run, so that obeying them concerns the same
//! store and the same ACL.

use std::path::{Path, PathBuf};

use crate::format::store_path::{Dialect, StoreDir};
use crate::store::Layout;

use super::output::shown_path;
use super::shell_command::{add, add_flag, add_path, quoted};

/// The options of this run that a later command has to repeat.
#[derive(Debug, Clone, Default)]
pub(crate) struct Invocation {
    /// The command line without the program's name and without credentials.
    pub(crate) words: Vec<String>,
    /// `--root`, as an absolute path.
    pub(crate) root: Option<PathBuf>,
    /// `--store-dir`, unless it is the default.
    pub(crate) store_dir: Option<String>,
    /// `--acl`, as an absolute path.
    pub(crate) acl: Option<PathBuf>,
    /// `--config`, as an absolute path.
    pub(crate) config: Option<PathBuf>,
    /// `--substitute-urls`, without credentials.
    pub(crate) substitute_urls: Option<String>,
    /// `--netrc-file`, as an absolute path.
    pub(crate) netrc_file: Option<PathBuf>,
    /// `--insecure-tls`.
    pub(crate) insecure_tls: bool,
    /// `--discover`.
    pub(crate) discover: bool,
}

/// What hints depend on.
#[derive(Debug, Clone)]
pub(crate) struct Advice {
    /// The options in use.
    pub(crate) invocation: Invocation,
    /// Guix's or Nix's ways.
    pub(crate) dialect: Dialect,
    /// Where nix.conf is.
    pub(crate) nix_conf: PathBuf,
    /// Whether settings name the keys of Nix, so that those of nix.conf do not count.
    pub(crate) has_nix_keys: bool,
    /// Whether `--offline` is in use.
    pub(crate) offline: bool,
    /// Whether `--refresh` is in use.
    pub(crate) refresh: bool,
}

impl Advice {
    /// What to do about an item that too few principals have signed.
    #[must_use]
    pub(crate) fn too_few_votes(&self) -> String {
        let command = self.fetch_with("--need-signatures", "1");
        format!(
            "build it, or name a server with the signature of another principal with \
             --substitute-urls; {command} does without what the policy protects you from"
        )
    }

    /// What to do about `server`, which has neither a `nix-cache-info` nor the item.
    #[must_use]
    pub(crate) fn check_address(&self, server: &str) -> String {
        let servers = self.servers();
        format!(
            "{server} has no nix-cache-info, so it may be no substitute server: correct its \
             address; `{servers}` shows how it answers"
        )
    }

    /// The command that shows how the servers of this run are doing.
    #[must_use]
    pub(crate) fn servers(&self) -> String {
        let mut command = self.with_store("subst servers");
        self.add_servers(&mut command);
        command
    }

    /// The command that removes the endorsement of `item` from `directory`.
    #[must_use]
    pub(crate) fn withdraw(&self, directory: &Path, item: &str) -> String {
        let (to, store_dir) = (Some(directory), self.invocation.store_dir.as_deref());
        let mut command = "subst endorse --withdraw".to_owned();
        add(&mut command, "--store-dir", store_dir);
        add_path(&mut command, "--to", to);
        format!("{command} {}", quoted(item))
    }

    /// The command that fetches `item` into the store of this run.
    #[must_use]
    pub(crate) fn fetch(&self, item: &str) -> String {
        let mut command = self.with_store("subst fetch");
        add_path(&mut command, "--acl", self.invocation.acl.as_deref());
        self.add_servers(&mut command);
        format!("{command} {}", quoted(item))
    }

    /// `command` with the options that select the store.
    fn with_store(&self, command: &str) -> String {
        let Invocation {
            root, store_dir, ..
        } = &self.invocation;
        let mut command = command.to_owned();
        add_path(&mut command, "--root", root.as_deref());
        add(&mut command, "--store-dir", store_dir.as_deref());
        command
    }

    /// Adds the options that select the servers and how they are reached, with the settings file.
    pub(super) fn add_servers(&self, command: &mut String) {
        let Invocation {
            config,
            substitute_urls,
            netrc_file,
            insecure_tls,
            discover,
            ..
        } = &self.invocation;
        add_path(command, "--config", config.as_deref());
        add(command, "--substitute-urls", substitute_urls.as_deref());
        add_path(command, "--netrc-file", netrc_file.as_deref());
        add_flag(command, "--insecure-tls", *insecure_tls);
        add_flag(command, "--discover", *discover);
    }

    /// The command of this run with `option` set to `value`, between backquotes; a description of it
    /// if it is long.
    #[must_use]
    pub(crate) fn again_with(&self, option: &str, value: &str) -> String {
        self.again_as(None, option, value)
    }

    /// The command that fetches what this one was about, with `option` set to `value`.
    #[must_use]
    pub(crate) fn fetch_with(&self, option: &str, value: &str) -> String {
        self.again_as(Some("fetch"), option, value)
    }

    fn again_as(&self, subcommand: Option<&str>, option: &str, value: &str) -> String {
        let words = without_option(&self.invocation.words, option);
        let is_command = |word: &&String| ITEM_COMMANDS.contains(&word.as_str());
        let command = words.iter().find(is_command).cloned();
        let (Some(command), Some(position)) = (
            &command,
            words.iter().position(|word| Some(word) == command.as_ref()),
        ) else {
            return format!("the same command with {option} {value}");
        };

        let mut again = vec!["subst".to_owned()];
        again.extend(words[..position].iter().cloned());
        let subcommand = subcommand.unwrap_or(command);
        again.extend([subcommand, option, value].map(str::to_owned));
        let rest = &words[position + 1..];
        if subcommand == command {
            again.extend_from_slice(rest);
        } else {
            again.extend(without_query_options(rest));
        }
        let again: Vec<String> = again.iter().map(|word| quoted(word)).collect();
        match again.join(" ") {
            line if line.len() <= COMMAND_BYTES_MAX => format!("`{line}`"),
            _ => format!("`subst {subcommand}` with the same arguments and {option} {value}"),
        }
    }

    /// What to do about the derivation `path`, which servers do not have.
    #[must_use]
    pub(crate) fn derivation(&self, path: &str) -> String {
        let path = quoted(path);
        let command = match self.dialect {
            Dialect::Guix => format!("guix build --no-grafts --dry-run {path}"),
            Dialect::Nix => format!("nix-store --query --outputs {path}"),
        };
        format!("it is a derivation; `{command}` prints the items that it builds")
    }

    /// Where the full name of the package `word` comes from, if that is what it is.
    #[must_use]
    pub(crate) fn name_of(&self, word: &str) -> String {
        let is_package =
            !word.is_empty() && word.len() < 100 && word.chars().all(is_in_package_name);
        let word = if is_package { word } else { "hello" };
        match self.dialect {
            Dialect::Guix => format!(
                "give its full name, such as /gnu/store/...-hello-2.12.2; \
                 `guix build --no-grafts --dry-run {}` prints it",
                quoted(word)
            ),
            Dialect::Nix => {
                let installable = if word.contains('#') {
                    word.to_owned()
                } else {
                    format!("nixpkgs#{word}")
                };
                format!(
                    "give its full name, such as /nix/store/...-hello-2.12.2; \
                     `nix eval --raw {}` prints it",
                    quoted(&installable)
                )
            }
        }
    }

    /// How to get a newer answer than the one at hand.
    #[must_use]
    pub(crate) fn newer_answer(&self) -> &'static str {
        match (self.offline, self.refresh) {
            (true, _) => "leave out --offline to send requests to the servers",
            (false, true) => "try again later",
            (false, false) => "--refresh sends the requests again",
        }
    }

    /// Whether `path` belongs to the store: to its root, or to its configuration.
    #[must_use]
    pub(crate) fn is_of_store(&self, path: &Path) -> bool {
        let directories = [self.nix_conf.parent(), self.invocation.root.as_deref()];
        directories
            .iter()
            .flatten()
            .any(|directory| path.starts_with(directory))
    }

    /// How to get the right to write to the store.
    #[must_use]
    pub(crate) fn privileges(&self) -> String {
        match &self.invocation.root {
            None => "run as root, or use --root DIR for a store of your own".to_owned(),
            Some(root) => format!(
                "{} has to be writable for you with all that is in it; --root selects another \
                 directory",
                root.display()
            ),
        }
    }

    /// What to do where there is no store.
    #[must_use]
    pub(crate) fn other_store(&self) -> String {
        let Some(root) = &self.invocation.root else {
            return "use --root DIR for a store of your own, or install Guix first".to_owned();
        };
        let other = match self.dialect {
            Dialect::Guix => StoreDir::NIX,
            Dialect::Nix => StoreDir::GUIX,
        };
        let layout = StoreDir::parse(other).map(|other| Layout::embedded(root, other));
        let root = shown_path(root);
        match layout {
            Ok(layout) if layout.schema_file().exists() => {
                format!("{root} has a store of the other kind: --store-dir {other} selects it")
            }
            _ => format!("`subst fetch` makes a store in {root}; --root selects another directory"),
        }
    }

    /// How to get more space.
    #[must_use]
    pub(crate) fn space(&self) -> String {
        let command = match (&self.invocation.root, self.dialect) {
            (Some(root), _) => return format!("free some space for {}", root.display()),
            (None, Dialect::Guix) => "guix gc",
            (None, Dialect::Nix) => "nix-collect-garbage",
        };
        format!("free some disk space, for example with `{command}`")
    }

    /// How the daemon's own commands fetch an item again whose tree, at `path`, is missing: as
    /// root, since they replace what is in the store.
    #[must_use]
    pub(crate) fn repair(&self, path: &Path) -> String {
        let path = path.display();
        match self.dialect {
            Dialect::Guix => format!(
                "as root, `guix build --repair {path}` fetches it again; \
                 `guix gc --verify=repair` checks all items"
            ),
            Dialect::Nix => format!(
                "as root, `nix-store --repair-path {path}` fetches it again; \
                 `nix-store --verify --repair` checks all items"
            ),
        }
    }

    /// How to have a sound store database in the place of a damaged one, `file`. Nothing that is
    /// registered in it may get lost, unless it can be fetched again. `.dump` comes first, since not every
    /// build of sqlite3 can `.recover`; a database without the table is not moved into place.
    #[must_use]
    pub(crate) fn repair_database(&self, file: &Path) -> String {
        let directory = file.parent().unwrap_or(file);
        let aside = directory.with_extension("damaged");
        let [directory_word, aside_word, file_word] =
            [directory, &aside, file].map(|path| quoted(&shown_path(path)));
        if self.invocation.root.is_some() {
            return format!(
                "`mv {directory_word} {aside_word}` sets it aside; fetch again what is needed: \
                 what is not registered any more is replaced"
            );
        }

        let (daemon, check) = match self.dialect {
            Dialect::Guix => ("guix-daemon", "guix gc --verify=contents"),
            Dialect::Nix => ("nix-daemon", "nix-store --verify --check-contents"),
        };
        format!(
            "stop {daemon}, then run as root `cp -a {directory_word} {aside_word} && \
             sqlite3 {aside_word}/db.sqlite .dump | sqlite3 {file_word}.new && \
             sqlite3 {file_word}.new 'SELECT count(*) FROM ValidPaths' && \
             mv {file_word}.new {file_word} && rm -f {file_word}-wal {file_word}-shm` (with `.recover` for \
             `.dump` if that finds no rows); start {daemon} again and run `{check}`"
        )
    }

    /// How the file that has the number of the store's schema is made again.
    #[must_use]
    pub(crate) fn restore_schema(&self, file: &Path, number: u32) -> String {
        let file_word = quoted(&shown_path(file));
        format!("`printf {number} > {file_word}` restores the file, if the database is not damaged")
    }
}

/// The commands that take items.
const ITEM_COMMANDS: [&str; 2] = ["fetch", "query"];
/// The options of `query` alone that have no value.
const QUERY_FLAGS: [&str; 4] = ["--closure", "--cache-miss-report", "--probe-nars", "--json"];
/// Those that have one.
const QUERY_VALUE_OPTIONS: [&str; 2] = ["--html", "--metrics"];
/// A longer command is not repeated: it has many items.
const COMMAND_BYTES_MAX: usize = 300;

/// `words` without what only `query` accepts.
fn without_query_options(words: &[String]) -> Vec<String> {
    let mut left = words.to_vec();
    left.retain(|word| !QUERY_FLAGS.contains(&word.as_str()));
    for option in QUERY_VALUE_OPTIONS {
        left = without_option(&left, option);
    }
    left
}

/// `words` without `option` and its value.
fn without_option(words: &[String], option: &str) -> Vec<String> {
    let mut left = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.strip_prefix(option) {
            Some("") => drop(words.next()),
            Some(rest) if rest.starts_with('=') => {}
            _ => left.push(word.clone()),
        }
    }
    left
}

/// Whether names of packages have such characters, those with an output and those of Nix included.
fn is_in_package_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_@:+.#-".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_repeat_the_options_in_use() {
        let mut advice = Advice {
            invocation: Invocation::default(),
            dialect: Dialect::Guix,
            nix_conf: "/etc/nix/nix.conf".into(),
            has_nix_keys: false,
            offline: false,
            refresh: false,
        };
        assert_eq!(advice.authorize("KEYFILE"), "subst authorize KEYFILE");
        assert_eq!(advice.servers(), "subst servers");
        advice.invocation = Invocation {
            root: Some("/it's here".into()),
            store_dir: Some("/x".to_owned()),
            acl: Some("/a".into()),
            config: Some("/c".into()),
            substitute_urls: Some("http://a http://b".to_owned()),
            insecure_tls: true,
            ..Invocation::default()
        };
        let expected =
            r"subst authorize --root '/it'\''s here' --store-dir /x --acl /a --config /c KEYFILE";
        assert_eq!(advice.authorize("KEYFILE"), expected);
        let expected = r"subst servers --root '/it'\''s here' --store-dir /x --config /c --substitute-urls 'http://a http://b' --insecure-tls";
        assert_eq!(advice.servers(), expected);
        let expected = r"subst fetch --root '/it'\''s here' --store-dir /x --acl /a --config /c --substitute-urls 'http://a http://b' --insecure-tls /x/i";
        assert_eq!(advice.fetch("/x/i"), expected);
        let expected = "subst endorse --withdraw --store-dir /x --to '/a b' /x/i";
        assert_eq!(advice.withdraw(Path::new("/a b"), "/x/i"), expected);
        let expected = "`mv '/a b/db' '/a b/db.damaged'` sets it aside";
        let hint = advice.repair_database(Path::new("/a b/db/db.sqlite"));
        assert!(hint.starts_with(expected), "{hint}");
        assert!(!advice.privileges().contains("as root") && !advice.space().contains("guix gc"));
    }

    fn advice_for(words: &[&str]) -> Advice {
        let words = words.iter().map(|word| (*word).to_owned());
        Advice {
            invocation: Invocation {
                words: words.collect(),
                ..Invocation::default()
            },
            dialect: Dialect::Guix,
            nix_conf: "/etc/nix/nix.conf".into(),
            has_nix_keys: false,
            offline: false,
            refresh: false,
        }
    }

    #[test]
    fn a_fetch_instead_of_a_query_has_no_option_of_query_alone() {
        let words = [
            "--root",
            "r",
            "query",
            "--cache-miss-report",
            "--html",
            "F",
            "--metrics=G",
            "--metrics",
            "G",
            "--html=F",
            "--wait=1",
            "x",
        ];
        let advice = advice_for(&words);
        assert_eq!(
            advice.fetch_with("--wait", "5m"),
            "`subst --root r fetch --wait 5m x`"
        );
    }

    #[test]
    fn every_option_of_query_alone_is_known() {
        let command = crate::cli::command_line::command();
        let options_of = |name: &str| {
            let command = command.find_subcommand(name).unwrap();
            let options = command.get_arguments().filter_map(clap::Arg::get_long);
            options.map(|name| format!("--{name}")).collect::<Vec<_>>()
        };
        let known = [&QUERY_FLAGS[..], &QUERY_VALUE_OPTIONS].concat();
        let of_fetch = options_of("fetch");
        for option in options_of("query") {
            let is_known = of_fetch.contains(&option) || known.contains(&option.as_str());
            assert!(is_known, "{option}");
        }
    }
}
