//! The environment: the only place that reads it, and the names of the variables that are not in the
//! table of settings.
#![expect(clippy::disallowed_methods, reason = "this is the place")]

use std::ffi::OsString;
use std::path::PathBuf;

/// The store directory, such as `/gnu/store` (Guix's name for it).
pub(crate) const NIX_STORE_DIR: &str = "NIX_STORE_DIR";
/// Guix's state directory, `/var/guix` unless set.
pub(crate) const GUIX_STATE_DIRECTORY: &str = "GUIX_STATE_DIRECTORY";
/// Guix's directory of build logs, `/var/log/guix` unless set.
pub(crate) const GUIX_LOG_DIRECTORY: &str = "GUIX_LOG_DIRECTORY";
/// Guix's database directory, `STATE/db` unless set.
pub(crate) const GUIX_DATABASE_DIRECTORY: &str = "GUIX_DATABASE_DIRECTORY";
/// Guix's configuration directory, `/etc/guix` unless set.
pub(crate) const GUIX_CONFIGURATION_DIRECTORY: &str = "GUIX_CONFIGURATION_DIRECTORY";
/// `yes` switches signature checks off, as in the stock helper. For tests only.
pub(crate) const GUIX_ALLOW_UNAUTHENTICATED_SUBSTITUTES: &str =
    "GUIX_ALLOW_UNAUTHENTICATED_SUBSTITUTES";
/// Nix's configuration directory, `/etc/nix` unless set.
pub(crate) const NIX_CONF_DIR: &str = "NIX_CONF_DIR";
/// The file of trusted certificates, for Nix.
pub(crate) const NIX_SSL_CERT_FILE: &str = "NIX_SSL_CERT_FILE";
/// The file of trusted certificates, for all programs.
pub(crate) const SSL_CERT_FILE: &str = "SSL_CERT_FILE";
/// The directories of trusted certificates, for all programs.
pub(crate) const SSL_CERT_DIR: &str = "SSL_CERT_DIR";
/// Settings of Nix that override those of its files.
pub(crate) const NIX_CONFIG: &str = "NIX_CONFIG";
/// The user's files with settings of Nix, instead of those in the configuration directories.
pub(crate) const NIX_USER_CONF_FILES: &str = "NIX_USER_CONF_FILES";
/// Configuration directories of the system, `/etc/xdg` unless set.
pub(crate) const XDG_CONFIG_DIRS: &str = "XDG_CONFIG_DIRS";
/// What guix-daemon tells its helper.
pub(crate) const NIX_OPTIONS: &str = "_NIX_OPTIONS";

/// As `--config`.
pub(crate) const SUBST_CONFIG: &str = "SUBST_CONFIG";
/// Which diagnostics are written, as a filter of events.
pub(crate) const SUBST_LOG: &str = "SUBST_LOG";
/// The file that diagnostics are appended to.
pub(crate) const SUBST_LOG_FILE: &str = "SUBST_LOG_FILE";
/// The program behind the name `guix`, for everything but `substitute`.
pub(crate) const SUBST_REAL_GUIX: &str = "SUBST_REAL_GUIX";

/// The process that executed the real guix last, and how many did. Not a setting: this program sets
/// it, to notice when it is executed or started as the real guix itself.
pub(crate) const SUBST_DISPATCHED: &str = "SUBST_DISPATCHED";

/// The variables with our prefix that are not in the table of settings.
pub(crate) const OTHER_VARIABLES: [&str; 5] = [
    SUBST_CONFIG,
    SUBST_DISPATCHED,
    SUBST_LOG,
    SUBST_LOG_FILE,
    SUBST_REAL_GUIX,
];
/// What the names of variables begin with that only the tests of this program read.
pub(crate) const TEST_PREFIXES: [&str; 2] = ["SUBST_TEST_", "SUBST_PEERS_"];
/// What the names of our variables begin with.
pub(crate) const PREFIX: &str = "SUBST_";

/// One set of values of all variables that matter.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    variables: Vec<(OsString, OsString)>,
}

impl Environment {
    /// The environment of this process.
    #[must_use]
    pub(crate) fn of_process() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
        }
    }

    /// An environment with these variables and no others.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn with<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let variables = variables.into_iter();
        Self {
            variables: variables
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        }
    }

    /// The value of `name`; a variable set to nothing counts as not set.
    #[must_use]
    pub(crate) fn os(&self, name: &str) -> Option<&OsString> {
        let found = self.variables.iter().find(|(key, _)| key == name);
        found
            .map(|(_, value)| value)
            .filter(|value| !value.is_empty())
    }

    /// The value of `name` as text; what is not UTF-8 counts as not set.
    #[must_use]
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.os(name)?.to_str()
    }

    /// The value of `name` as a path.
    #[must_use]
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.os(name).map(PathBuf::from)
    }

    /// The paths in the value of `name`, separated by colons.
    #[must_use]
    pub(crate) fn path_list(&self, name: &str) -> Vec<PathBuf> {
        let paths = self.os(name).map(std::env::split_paths);
        let paths = paths.into_iter().flatten();
        paths.filter(|path| !path.as_os_str().is_empty()).collect()
    }

    /// Whether `name` is set, even to nothing.
    #[must_use]
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names().any(|set| set == name)
    }

    /// Whether `name` is `yes`, in upper or lower case, as Guix compares it.
    #[must_use]
    pub(crate) fn is_yes(&self, name: &str) -> bool {
        self.text(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("yes"))
    }

    /// Whether the terminal, if there is one, can move its cursor: `$TERM` is set, and not `dumb`.
    #[must_use]
    pub(crate) fn has_movable_cursor(&self) -> bool {
        self.os("TERM").is_some_and(|name| name != "dumb")
    }

    /// Whether the terminal may show colors: `$NO_COLOR` is not set (<https://no-color.org>).
    #[must_use]
    pub(crate) fn allows_color(&self) -> bool {
        self.os("NO_COLOR").is_none()
    }

    /// Whether the terminal shows characters beyond ASCII: the locale is one with UTF-8.
    #[must_use]
    pub(crate) fn has_unicode(&self) -> bool {
        let locale = self.first_text(&["LC_ALL", "LC_CTYPE", "LANG"]);
        locale.is_some_and(|(_, name)| {
            let name = name.to_ascii_lowercase();
            name.contains("utf-8") || name.contains("utf8")
        })
    }

    /// Whether a service for continuous integration runs the program, which may give it a terminal that
    /// only a log file shows.
    #[must_use]
    pub(crate) fn is_continuous_integration(&self) -> bool {
        let is_ci = self
            .os("CI")
            .is_some_and(|value| value != "false" && value != "0");
        is_ci || self.os("TF_BUILD").is_some()
    }

    /// The first of `names` that is set, and its value: programs disagree on the case of proxy
    /// variables.
    #[must_use]
    pub(crate) fn first_text<'a>(&self, names: &[&'a str]) -> Option<(&'a str, &str)> {
        names
            .iter()
            .find_map(|name| Some((*name, self.text(name)?)))
    }

    /// The names of all variables.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().filter_map(|(name, _)| name.to_str())
    }

    /// `$XDG_CACHE_HOME`, or `~/.cache`; `None` without a home.
    #[must_use]
    pub(crate) fn cache_home(&self) -> Option<PathBuf> {
        self.path("XDG_CACHE_HOME")
            .or_else(|| Some(self.path("HOME")?.join(".cache")))
    }

    /// `$XDG_CONFIG_HOME`, or `~/.config`; `None` without a home.
    #[must_use]
    pub(crate) fn config_home(&self) -> Option<PathBuf> {
        self.path("XDG_CONFIG_HOME")
            .or_else(|| Some(self.path("HOME")?.join(".config")))
    }
}
