//! Where Nix looks for its settings: nix.conf of the system, those of the user, and `NIX_CONFIG`, in
//! this order. A later one overrides an earlier one.
//!
//! The user's files are `nix/nix.conf` below `$XDG_CONFIG_DIRS` and `$XDG_CONFIG_HOME`, or those that
//! `NIX_USER_CONF_FILES` names; the first one of a list is the last one that is read. For root none
//! is read: with `sudo`, the home may be that of another user.

use std::path::{Path, PathBuf};

use crate::cli::env::{self, Environment};

/// What Nix reads its settings from.
#[derive(Debug, Clone)]
pub(crate) struct NixConfPlaces {
    /// The system's nix.conf, or that of an embedded store.
    pub(crate) system: PathBuf,
    /// The user's files, in the order in which they are read.
    pub(crate) user: Vec<PathBuf>,
    /// The value of `NIX_CONFIG`.
    pub(crate) variable: Option<String>,
}

impl NixConfPlaces {
    /// The places for the store whose configuration directory is `config`.
    pub(crate) fn new(config: &Path, environment: &Environment) -> Self {
        let user = if rustix::process::geteuid().is_root() {
            Vec::new()
        } else {
            user_files(environment)
        };
        Self {
            system: config.join("nix.conf"),
            user,
            variable: environment.text(env::NIX_CONFIG).map(str::to_owned),
        }
    }
}

fn user_files(environment: &Environment) -> Vec<PathBuf> {
    let files: Vec<PathBuf> = if environment.has(env::NIX_USER_CONF_FILES) {
        environment.path_list(env::NIX_USER_CONF_FILES)
    } else {
        let home = environment
            .path("NIX_CONFIG_HOME")
            .or_else(|| Some(environment.config_home()?.join("nix")));
        let mut directories = environment.path_list(env::XDG_CONFIG_DIRS);
        if directories.is_empty() {
            directories.push("/etc/xdg".into());
        }
        let directories = directories.iter().map(|directory| directory.join("nix"));
        home.into_iter()
            .chain(directories)
            .map(|directory| directory.join("nix.conf"))
            .collect()
    };
    files.into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files<const N: usize>(variables: [(&str, &str); N]) -> Vec<String> {
        user_files(&Environment::with(variables))
            .iter()
            .map(|path| path.display().to_string())
            .collect()
    }

    #[test]
    fn the_first_file_of_a_list_is_read_last() {
        assert_eq!(
            files([("HOME", "/h")]),
            ["/etc/xdg/nix/nix.conf", "/h/.config/nix/nix.conf"]
        );
        assert_eq!(
            files([("XDG_CONFIG_HOME", "/c"), ("XDG_CONFIG_DIRS", "/a:/b")]),
            ["/b/nix/nix.conf", "/a/nix/nix.conf", "/c/nix/nix.conf"]
        );
        assert_eq!(
            files([("HOME", "/h"), ("NIX_CONFIG_HOME", "/n")]),
            ["/etc/xdg/nix/nix.conf", "/n/nix.conf"]
        );
        let named = ("NIX_USER_CONF_FILES", "/x:/y");
        assert_eq!(files([("HOME", "/h"), named]), ["/y", "/x"]);
        let none = ("NIX_USER_CONF_FILES", "");
        assert_eq!(files([("HOME", "/h"), none]), [""; 0]);
    }
}
