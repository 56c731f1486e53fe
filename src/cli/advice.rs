//! Commands that hints name: with the options of this run, so that obeying them concerns the same
//! store and the same ACL.

use std::path::{Path, PathBuf};

use crate::format::store_path::Dialect;

use super::output::shown_path;

/// The options of this run that a later command has to repeat.
#[derive(Debug, Clone, Default)]
pub(crate) struct Invocation {
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
    /// Whether `--offline` is in use.
    pub(crate) offline: bool,
    /// Whether `--refresh` is in use.
    pub(crate) refresh: bool,
}

impl Advice {
    /// The command that makes the key in `file` an authorized one, where this run looks for it.
    #[must_use]
    pub(crate) fn authorize(&self, file: &str) -> String {
        let Invocation {
            root,
            store_dir,
            acl,
            config,
            ..
        } = &self.invocation;

        let mut command = "subst authorize".to_owned();
        add_path(&mut command, "--root", root.as_deref());
        add(&mut command, "--store-dir", store_dir.as_deref());
        add_path(&mut command, "--acl", acl.as_deref());
        add_path(&mut command, "--config", config.as_deref());
        format!("{command} {file}")
    }

    /// How the owner of a key becomes trusted.
    #[must_use]
    pub(crate) fn trust_key(&self) -> String {
        match self.dialect {
            Dialect::Guix => format!("run `{}`", self.authorize("KEYFILE")),
            Dialect::Nix => {
                let conf = self.nix_conf.display();
                format!("name its key with --trusted-public-keys, or in {conf}")
            }
        }
    }

    /// The command that shows how the servers of this run are doing.
    #[must_use]
    pub(crate) fn servers(&self) -> String {
        let Invocation {
            root,
            store_dir,
            config,
            substitute_urls,
            ..
        } = &self.invocation;

        let mut command = "subst servers".to_owned();
        add_path(&mut command, "--root", root.as_deref());
        add(&mut command, "--store-dir", store_dir.as_deref());
        add_path(&mut command, "--config", config.as_deref());
        add(
            &mut command,
            "--substitute-urls",
            substitute_urls.as_deref(),
        );
        command
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

fn add_path(command: &mut String, option: &str, path: Option<&Path>) {
    add(command, option, path.map(shown_path).as_deref());
}

fn add(command: &mut String, option: &str, value: Option<&str>) {
    if let Some(value) = value {
        command.push_str(&format!(" {option} {}", quoted(value)));
    }
}

/// `word` as a shell reads it as one word.
#[must_use]
pub(crate) fn quoted(word: &str) -> String {
    if !word.is_empty() && word.chars().all(is_plain_in_shell) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn is_plain_in_shell(c: char) -> bool {
    c.is_alphanumeric() || "_@%+=:,./-".contains(c)
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
        };
        let expected =
            r"subst authorize --root '/it'\''s here' --store-dir /x --acl /a --config /c KEYFILE";
        assert_eq!(advice.authorize("KEYFILE"), expected);
        let expected = r"subst servers --root '/it'\''s here' --store-dir /x --config /c --substitute-urls 'http://a http://b'";
        assert_eq!(advice.servers(), expected);
        let expected = "`mv '/a b/db' '/a b/db.damaged'` sets it aside";
        let hint = advice.repair_database(Path::new("/a b/db/db.sqlite"));
        assert!(hint.starts_with(expected), "{hint}");
        assert!(!advice.privileges().contains("as root") && !advice.space().contains("guix gc"));
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        for (word, expected) in [
            ("a/b.c", "a/b.c"),
            ("", "''"),
            ("a b", "'a b'"),
            ("$(x)", "'$(x)'"),
            ("`", "'`'"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
