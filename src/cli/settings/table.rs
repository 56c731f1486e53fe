//! The table of settings: the only place that has a setting's name, type, option, variable, name in
//! settings files, default and help. The options of the command line, the reading of every source
//! and the table in `docs/configuration.md` follow from it.
//!
//! The type checks the value. What depends on several settings is checked where they are put together.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use super::error::SettingsError;
use super::file_table::FileTable;
use super::findings::SettingsFindings;
use super::origin::{Origin, Setting};
use super::rate::{ByteRate, DayHours, MinimumByteRate};
use super::server_table::ServerTable;
use super::shown::ShownSetting;
use super::spec::SettingSpec;
use super::trust_table::{Need, TrustTable};
use super::value::{
    ByteSize, Count, OptionForm, ProgressMode, RetryCount, SandboxMode, SettingValue, Timeout,
    WordList,
};
use crate::store::SyncMode;

/// Declares the settings: a layer of them, and the rows of the table.
macro_rules! settings {
    ($($name:ident: $type:ty { $($attribute:ident: $value:expr,)* })*) => {
        /// The settings of one source; one that it does not have is `None`.
        #[derive(Debug, Clone, Default)]
        pub(super) struct SettingsLayer {
            $(pub(super) $name: Option<Setting<$type>>,)*
        }

        impl SettingsLayer {
            /// This layer's settings, and where it has none, those of `below`.
            pub(super) fn or(self, below: Self) -> Self {
                Self { $($name: self.$name.or(below.$name),)* }
            }

            /// The settings of a source that has a text for some rows of the table. One that is
            /// invalid is left out, and an error among the findings.
            pub(super) fn from_texts<'a>(
                text_of: &dyn Fn(&'static SettingSpec) -> Option<(&'a OsStr, Origin)>,
                findings: &mut SettingsFindings,
            ) -> Self {
                Self { $($name: findings.value(from_text(text_of(&rows::$name))).flatten(),)* }
            }

            /// The settings of a file. One that is invalid or unknown is left out, and an error
            /// among the findings.
            pub(super) fn from_file(mut file: FileTable, findings: &mut SettingsFindings) -> Self {
                let layer = Self {
                    $($name: findings.value(from_toml(&mut file, rows::$name.key)).flatten(),)*
                };
                let unknown = file.unknown_settings(&[$(rows::$name.key,)*]);
                unknown.into_iter().for_each(|error| findings.add_error(error));
                layer
            }

            /// Each row of the table with the value and the origin that this layer has for it.
            pub(super) fn shown(&self) -> Vec<(&'static SettingSpec, Option<ShownSetting>)> {
                vec![$((&rows::$name, self.$name.as_ref().map(ShownSetting::of)),)*]
            }
        }

        #[expect(non_upper_case_globals, reason = "each row has the name of its setting")]
        mod rows {
            use crate::cli::settings::option_group::OptionGroup;
            use crate::cli::settings::spec::SettingSpec;

            $(pub(super) static $name: SettingSpec =
                SettingSpec { $($attribute: $value,)* ..SettingSpec::EMPTY };)*
        }

        /// The rows, and how their options are written.
        pub(crate) static SETTINGS: &[(&SettingSpec, OptionForm)] =
            &[$((&rows::$name, <$type as SettingValue>::OPTION_FORM),)*];
    };
}

settings! {
    root: PathBuf {
        key: "root",
        option: Some("--root"),
        value_name: "DIR",
        variable: Some("SUBST_ROOT"),
        default_note: "the system's store",
        group: OptionGroup::Store,
        help: "Use an embedded store below DIR, created on first use; needs no privileges",
    }
    store_dir: String {
        key: "store-dir",
        option: Some("--store-dir"),
        value_name: "DIR",
        variable: Some("SUBST_STORE_DIR"),
        other_variable: Some("NIX_STORE_DIR"),
        default: Some("/gnu/store"),
        group: OptionGroup::Store,
        help: "Use the store directory DIR; /nix/store selects Nix's layout and signatures",
    }
    substitute_urls: WordList {
        key: "substitute-urls",
        option: Some("--substitute-urls"),
        value_name: "URLS",
        variable: Some("SUBST_SUBSTITUTE_URLS"),
        default_note: "bordeaux.guix.gnu.org and ci.guix.gnu.org by https; for `/nix/store` cache.nixos.org",
        group: OptionGroup::Servers,
        help: "Use these substitute servers, in order of preference, separated by blanks (repeatable)",
        details: "URLs are http, https, s3, or file with the absolute path of a directory.",
    }
    acl: PathBuf {
        key: "acl",
        option: Some("--acl"),
        value_name: "FILE",
        variable: Some("SUBST_ACL"),
        default_note: "`acl` in the configuration directory",
        group: OptionGroup::Trust,
        help: "Read the authorized keys from FILE, in the format of Guix's ACL",
    }
    trusted_public_keys: WordList {
        key: "trusted-public-keys",
        option: Some("--trusted-public-keys"),
        value_name: "KEYS",
        variable: Some("SUBST_TRUSTED_PUBLIC_KEYS"),
        default_note: "the keys of nix.conf, else the official one",
        group: OptionGroup::Trust,
        help: "Trust these keys for /nix/store: NAME:KEY, separated by blanks (repeatable)",
    }
    need_signatures: Need {
        key: "need-signatures",
        option: Some("--need-signatures"),
        value_name: "N",
        variable: Some("SUBST_NEED_SIGNATURES"),
        default_note: "`need` in `[trust]`, else `1`",
        group: OptionGroup::Trust,
        help: "Use an item only if N principals have signed the same contents",
        details: "It replaces `need` and the rules in `[trust]`, which names principals; without any, each \
            authorized key is one.",
    }
    trust: TrustTable {
        key: "trust",
        default_note: "any one authorized key",
        help: "Say who has to agree about an item before it is used, see below",
    }
    jobs: Count<1, 256> {
        key: "jobs",
        option: Some("--jobs"),
        short: Some('j'),
        value_name: "N",
        variable: Some("SUBST_JOBS"),
        default: Some("6"),
        group: OptionGroup::Downloads,
        help: "Fetch up to N items at the same time, at most 256",
    }
    progress: ProgressMode {
        key: "progress",
        option: Some("--progress"),
        value_name: "HOW",
        variable: Some("SUBST_PROGRESS"),
        default: Some("auto"),
        default_note: "`auto`: bars on a terminal, else `plain`",
        group: OptionGroup::Progress,
        help: "Show progress as bars, lines or JSON events",
        details: "HOW is `auto`, `plain`, `json` or `none`.",
    }
    sandbox: SandboxMode {
        key: "sandbox",
        option: Some("--sandbox"),
        value_name: "WHEN",
        variable: Some("SUBST_SANDBOX"),
        default: Some("auto"),
        default_note: "`auto`: as far as the kernel supports it",
        group: OptionGroup::Servers,
        help: "Restrict the process to the files it needs before it connects to servers",
        details: "WHEN is `auto`, `require` or `off`.",
    }
    sync: SyncMode {
        key: "sync",
        option: Some("--sync"),
        value_name: "WHAT",
        variable: Some("SUBST_SYNC"),
        default: Some("none"),
        group: OptionGroup::Downloads,
        help: "Wait for the disk, so that a power cut leaves no incomplete items",
        details: "WHAT is `none`, `items` (an item becomes valid when all of it is on the disk) or \
            `full` (what was reported as fetched stays valid as well).",
    }
    insecure_tls: bool {
        key: "insecure-tls",
        option: Some("--insecure-tls"),
        variable: Some("SUBST_INSECURE_TLS"),
        default: Some("no"),
        group: OptionGroup::Servers,
        help: "Do not verify TLS certificates; signatures are still verified",
    }
    discover: bool {
        key: "discover",
        option: Some("--discover"),
        variable: Some("SUBST_DISCOVER"),
        default: Some("no"),
        group: OptionGroup::Servers,
        help: "Also use the servers that guix-daemon discovered in the local network",
        details: "They come before the others.",
    }
    connect_timeout: Timeout {
        key: "connect-timeout",
        option: Some("--connect-timeout"),
        value_name: "DURATION",
        variable: Some("SUBST_CONNECT_TIMEOUT"),
        default: Some("5s"),
        group: OptionGroup::Servers,
        help: "Wait up to DURATION for a connection to one address",
    }
    stall_timeout: Timeout {
        key: "stall-timeout",
        option: Some("--stall-timeout"),
        value_name: "DURATION",
        variable: Some("SUBST_STALL_TIMEOUT"),
        default: Some("15s"),
        group: OptionGroup::Servers,
        help: "Treat a server as down after DURATION without data",
    }
    minimum_rate: MinimumByteRate {
        key: "minimum-rate",
        option: Some("--minimum-rate"),
        value_name: "SIZE",
        variable: Some("SUBST_MINIMUM_RATE"),
        default: Some("1K"),
        group: OptionGroup::Downloads,
        help: "Give up a download that brings less than SIZE per second for 30 s; 0 for no minimum",
        details: "A bare number is KiB. Where another server has the item, 3 s are enough, and 64 KiB/s of all downloads \
            together are the minimum.",
    }
    limit_rate: ByteRate {
        key: "limit-rate",
        option: Some("--limit-rate"),
        value_name: "SIZE",
        variable: Some("SUBST_LIMIT_RATE"),
        default: Some("0"),
        default_note: "`0`: no limit",
        group: OptionGroup::Downloads,
        help: "Download at most SIZE per second, such as 500K or 5M, all nars together",
        details: "Units are binary; lookups do not count. Each process of the helper of guix-daemon has \
            its own limit.",
    }
    limit_rate_hours: DayHours {
        key: "limit-rate-hours",
        variable: Some("SUBST_LIMIT_RATE_HOURS"),
        default_note: "all day",
        help: "Limit the rate only in these hours, local time, such as `08:00-18:00`",
        details: "A rate given as an option always applies.",
    }
    retries: RetryCount {
        key: "retries",
        option: Some("--retries"),
        value_name: "N",
        variable: Some("SUBST_RETRIES"),
        default_note: "as many as `retry-time` allows",
        group: OptionGroup::Downloads,
        help: "Retry a download up to N times in a row without progress",
    }
    retry_time: Duration {
        key: "retry-time",
        option: Some("--retry-time"),
        value_name: "DURATION",
        variable: Some("SUBST_RETRY_TIME"),
        default: Some("60s"),
        group: OptionGroup::Downloads,
        help: "Retry a server that stops answering for up to DURATION; 0 fails at once",
        details: "Only a server that has answered before is retried; progress restarts the time. \
            The helper of guix-daemon retries for at most 20 s.",
    }
    wait: Duration {
        key: "wait",
        option: Some("--wait"),
        value_name: "DURATION",
        variable: Some("SUBST_WAIT"),
        default: Some("0s"),
        group: OptionGroup::Downloads,
        help: "Wait up to DURATION for items that servers are still preparing",
        details: "Everything else is fetched meanwhile; when some are ready, the time starts over.",
    }
    helper_wait: Duration {
        key: "helper-wait",
        variable: Some("SUBST_HELPER_WAIT"),
        default: Some("0s"),
        help: "Let the helper of guix-daemon wait this long for items that servers are preparing",
        details: "Its queries are answered when the items are ready.",
    }
    connections: Count<1, 1024> {
        key: "connections",
        option: Some("--connections"),
        value_name: "N",
        variable: Some("SUBST_CONNECTIONS"),
        default: Some("4"),
        group: OptionGroup::Servers,
        help: "Use up to N connections to one server",
        details: "They serve lookups, if the server has `WantMassQuery: 1`, and the segments of one \
            large nar on a slow network (1: no segments). If N is set, it also limits how many nars \
            are downloaded from one server at a time, which is the sum of `jobs` and `read-ahead` otherwise.",
    }
    server: Vec<ServerTable> {
        key: "server",
        default_note: "none",
        help: "Set timeouts and credentials of one server, see below",
    }
    netrc_file: PathBuf {
        key: "netrc-file",
        option: Some("--netrc-file"),
        value_name: "FILE",
        variable: Some("SUBST_NETRC_FILE"),
        default_note: "`~/.netrc`; for `/nix/store` before it that of nix.conf, else `netrc` in the \
            configuration directory",
        group: OptionGroup::Servers,
        help: "Read passwords of servers from FILE, which is in the format of curl's netrc",
    }
    read_ahead: Count<0, 4096> {
        key: "read-ahead",
        variable: Some("SUBST_READ_AHEAD"),
        default: Some("16"),
        help: "Fetch up to this many nars ahead, also in the helper of guix-daemon; 0 disables it",
        details: "While items are unpacked, nars of the next ones are fetched.",
    }
    partial_max_size: ByteSize {
        key: "partial-max-size",
        variable: Some("SUBST_PARTIAL_MAX_SIZE"),
        default: Some("2G"),
        help: "Keep up to this many bytes of unfinished downloads for the next run; 0 disables it",
        details: "Downloads that take longer than 5 s are kept beside the lookup cache, for a week.",
    }
}

/// The setting that an option or a variable has as text.
pub(super) fn from_text<T: SettingValue>(
    text: Option<(&OsStr, Origin)>,
) -> Result<Option<Setting<T>>, SettingsError> {
    let setting = text.map(|(text, origin)| {
        let is_allowed = T::MAY_BE_EMPTY || !is_blank(&text.to_string_lossy());
        checked(is_allowed, || T::from_os_text(text), origin)
    });
    setting.transpose()
}

fn from_toml<T: SettingValue>(
    file: &mut FileTable,
    key: &'static str,
) -> Result<Option<Setting<T>>, SettingsError> {
    let taken = file.take(key);
    let setting = taken.map(|(value, origin)| {
        let is_allowed = T::MAY_BE_EMPTY || !value.as_str().is_some_and(is_blank);
        checked(
            is_allowed,
            || T::from_toml(value).map(|value| value.resolved(file)),
            origin,
        )
    });
    setting.transpose()
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// The setting with the value that `read` gives, unless it is empty and `is_allowed` does not let it be: an
/// empty value is the mistake of a script, and as a path it would be another place than the one that was meant.
fn checked<T>(
    is_allowed: bool,
    read: impl FnOnce() -> Result<T, String>,
    origin: Origin,
) -> Result<Setting<T>, SettingsError> {
    let value = match is_allowed {
        true => read(),
        false => Err("the value is empty".to_owned()),
    };
    match value {
        Ok(value) => Ok(Setting { value, origin }),
        Err(message) => Err(SettingsError::Value { origin, message }),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use super::*;

    /// The table as `docs/configuration.md` has it.
    fn documentation() -> String {
        let mut text =
            String::from("| option | variable | in a file | default |\n|---|---|---|---|\n");
        for (row, _) in SETTINGS {
            let option = match (row.option, row.value_name) {
                (None, _) => "(none)".to_owned(),
                (Some(option), "") => format!("`{option}`"),
                (Some(option), value_name) => format!("`{option}` {value_name}"),
            };
            let details = match row.details {
                "" => String::new(),
                details => format!(". {}", details.trim_end_matches('.')),
            };
            let variable = match (row.variable, row.other_variable) {
                (None, _) => "(none)".to_owned(),
                (Some(variable), None) => format!("`{variable}`"),
                (Some(variable), Some(other)) => format!("`{variable}`, else `{other}`"),
            };
            let default = match (row.default, row.default_note) {
                (Some(default), "") => format!("`{default}`"),
                (_, note) => note.to_owned(),
            };
            let (help, key) = (row.help, row.key);
            writeln!(
                text,
                "| {option}: {help}{details} | {variable} | `{key}` | {default} |"
            )
            .unwrap();
        }
        text
    }

    #[test]
    fn the_documentation_has_this_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
        let document = std::fs::read_to_string(&path).unwrap();
        let expected = documentation();
        assert!(
            document.contains(&expected),
            "the table of settings in {} has to be:\n\n{expected}",
            path.display()
        );
    }

    #[test]
    fn every_row_is_complete_and_no_name_occurs_twice() {
        let mut names = std::collections::HashSet::new();
        for (row, form) in SETTINGS {
            assert!(!row.help.is_empty() && !row.key.is_empty(), "{row:?}");
            assert!(
                row.default.is_some() || !row.default_note.is_empty(),
                "{row:?}"
            );
            let is_flag = *form == OptionForm::Flag || row.option.is_none();
            assert_eq!(row.value_name.is_empty(), is_flag, "{row:?}");
            for name in [Some(row.key), row.option, row.variable, row.other_variable] {
                assert!(name.is_none_or(|name| names.insert(name)), "{row:?}");
            }
        }
    }
}
