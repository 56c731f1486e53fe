//! One layer of settings: what a file, the environment or the flags say, each with its origin.

use std::fmt;
use std::path::PathBuf;

use crate::cli::args::{Global, ProgressMode};
use crate::cli::env::{self, Environment};
use crate::daemon::options::DaemonOptions;
use crate::format::credentials::without_credentials;
use crate::format::server_url::ServerUrl;

use super::SettingsError;
use super::file::ServerTable;

/// Where a setting was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A flag.
    Flag(&'static str),
    /// An environment variable.
    Environment(&'static str),
    /// An option of guix-daemon or of its client.
    Daemon(&'static str),
    /// A settings file.
    File(PathBuf, &'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => f.write_str(name),
            Self::Environment(name) => f.write_str(name),
            Self::Daemon(name) => write!(f, "guix-daemon: {name}"),
            Self::File(path, name) => write!(f, "{}: {name}", path.display()),
        }
    }
}

/// A value and where it was set.
#[derive(Debug, Clone)]
pub(super) struct Setting<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
}

/// Declares the settings once: their fields, and how two layers are laid over each other.
macro_rules! settings {
    ($($name:ident: $type:ty,)*) => {
        /// What one layer says; a setting that it says nothing of is `None`.
        #[derive(Debug, Clone, Default)]
        pub(super) struct Partial {
            $(pub(super) $name: Option<Setting<$type>>,)*
        }

        impl Partial {
            /// This layer's settings, and where it has none, those of `below`.
            pub(super) fn or(self, below: Self) -> Self {
                Self { $($name: self.$name.or(below.$name),)* }
            }
        }
    };
}

settings! {
    root: PathBuf,
    store_dir: String,
    substitute_urls: String,
    acl: PathBuf,
    trusted_public_keys: String,
    jobs: usize,
    progress: ProgressMode,
    insecure_tls: bool,
    discover: bool,
    connect_timeout: f64,
    stall_timeout: f64,
    connections: usize,
    read_ahead: usize,
    retry_time: String,
    server: Vec<ServerTable>,
}

impl Partial {
    pub(super) fn from_flags(flags: &Global) -> Self {
        fn set<T>(value: Option<T>, flag: &'static str) -> Option<Setting<T>> {
            value.map(|value| Setting {
                value,
                origin: Origin::Flag(flag),
            })
        }
        let list = |words: &[String]| (!words.is_empty()).then(|| words.join(" "));
        Self {
            root: set(flags.root.clone(), "--root"),
            store_dir: set(flags.store_dir.clone(), "--store-dir"),
            substitute_urls: set(list(&flags.substitute_urls), "--substitute-urls"),
            acl: set(flags.acl.clone(), "--acl"),
            trusted_public_keys: set(list(&flags.trusted_public_keys), "--trusted-public-keys"),
            jobs: set(flags.jobs, "--jobs"),
            progress: set(flags.progress, "--progress"),
            insecure_tls: set(flags.insecure_tls.then_some(true), "--insecure-tls"),
            discover: set(flags.discover.then_some(true), "--discover"),
            connect_timeout: set(flags.connect_timeout, "--connect-timeout"),
            stall_timeout: set(flags.stall_timeout, "--stall-timeout"),
            connections: set(flags.connections, "--connections"),
            read_ahead: None,
            retry_time: set(flags.retry_time.clone(), "--retry-time"),
            server: None,
        }
    }

    pub(super) fn from_environment(environment: &Environment) -> Result<Self, SettingsError> {
        let read = Reader { environment };
        Ok(Self {
            root: read.path(env::SUBST_ROOT),
            store_dir: match read.text(env::SUBST_STORE_DIR)? {
                None => Self::store_dir_of_guix(environment)?,
                own => own,
            },
            substitute_urls: read.text(env::SUBST_SUBSTITUTE_URLS)?,
            acl: read.path(env::SUBST_ACL),
            trusted_public_keys: read.text(env::SUBST_TRUSTED_PUBLIC_KEYS)?,
            jobs: read.parsed(env::SUBST_JOBS, "a number of items")?,
            progress: read.progress()?,
            insecure_tls: read.yes(env::SUBST_INSECURE_TLS)?,
            discover: read.yes(env::SUBST_DISCOVER)?,
            connect_timeout: read.parsed(env::SUBST_CONNECT_TIMEOUT, "a number of seconds")?,
            stall_timeout: read.parsed(env::SUBST_STALL_TIMEOUT, "a number of seconds")?,
            connections: read.parsed(env::SUBST_CONNECTIONS, "a number of connections")?,
            read_ahead: read.parsed(env::SUBST_READ_AHEAD, "a number of nars")?,
            retry_time: read.text(env::SUBST_RETRY_TIME)?,
            server: None,
        })
    }
}

impl Partial {
    /// The store directory, as Guix's own programs take it.
    pub(super) fn store_dir_of_guix(
        environment: &Environment,
    ) -> Result<Option<Setting<String>>, SettingsError> {
        Reader { environment }.text(env::NIX_STORE_DIR)
    }

    /// Drops what would lead guix-daemon's helper to another store than the daemon's.
    pub(super) fn leave_store_to_daemon(&mut self, warnings: &mut Vec<String>) {
        let own_store_dir = self
            .store_dir
            .take_if(|setting| setting.origin != Origin::Environment(env::NIX_STORE_DIR));
        let origins = [
            self.root.take().map(|setting| setting.origin),
            own_store_dir.map(|setting| setting.origin),
        ];
        for origin in origins.into_iter().flatten() {
            warnings.push(format!(
                "{origin} is ignored: as the helper of guix-daemon, subst serves the daemon's store"
            ));
        }
    }

    /// What guix-daemon tells its helper. Servers that cannot be used are left out: one of
    /// them must not keep the others from being asked.
    pub(super) fn from_daemon(options: &DaemonOptions) -> Self {
        fn set<T>(value: T, name: &'static str) -> Option<Setting<T>> {
            Some(Setting {
                value,
                origin: Origin::Daemon(name),
            })
        }
        let is_usable = |word: &&String| ServerUrl::parse(word).is_ok();
        let usable = |words: &Vec<String>| {
            words
                .iter()
                .filter(is_usable)
                .cloned()
                .collect::<Vec<_>>()
                .join(" ")
        };
        Self {
            substitute_urls: options
                .substitute_urls
                .as_ref()
                .and_then(|words| set(usable(words), "substitute-urls")),
            discover: options
                .discover
                .then_some(true)
                .and_then(|yes| set(yes, "discover")),
            ..Self::default()
        }
    }
}

struct Reader<'a> {
    environment: &'a Environment,
}

impl Reader<'_> {
    fn text(&self, name: &'static str) -> Result<Option<Setting<String>>, SettingsError> {
        let origin = Origin::Environment(name);
        match self.environment.os(name).map(|value| value.to_str()) {
            None => Ok(None),
            Some(Some(value)) => Ok(Some(Setting {
                value: value.to_owned(),
                origin,
            })),
            Some(None) => Err(SettingsError::Value {
                origin,
                message: "it is not UTF-8".to_owned(),
            }),
        }
    }

    fn path(&self, name: &'static str) -> Option<Setting<PathBuf>> {
        let value = self.environment.path(name)?;
        Some(Setting {
            value,
            origin: Origin::Environment(name),
        })
    }

    fn yes(&self, name: &'static str) -> Result<Option<Setting<bool>>, SettingsError> {
        let Some(Setting {
            value: text,
            origin,
        }) = self.text(name)?
        else {
            return Ok(None);
        };
        let value = match &*text {
            "yes" | "true" | "1" => true,
            "no" | "false" | "0" => false,
            _ => {
                let shown = without_credentials(&text);
                let message = format!("`{shown}` is neither `yes` nor `no`");
                return Err(SettingsError::Value { origin, message });
            }
        };
        Ok(Some(Setting { value, origin }))
    }

    fn parsed<T: std::str::FromStr>(
        &self,
        name: &'static str,
        what: &str,
    ) -> Result<Option<Setting<T>>, SettingsError> {
        let Some(Setting {
            value: text,
            origin,
        }) = self.text(name)?
        else {
            return Ok(None);
        };
        match text.parse() {
            Ok(value) => Ok(Some(Setting { value, origin })),
            Err(_) => {
                let message = format!("`{}` is not {what}", without_credentials(&text));
                Err(SettingsError::Value { origin, message })
            }
        }
    }

    fn progress(&self) -> Result<Option<Setting<ProgressMode>>, SettingsError> {
        let Some(Setting {
            value: text,
            origin,
        }) = self.text(env::SUBST_PROGRESS)?
        else {
            return Ok(None);
        };
        match <ProgressMode as clap::ValueEnum>::from_str(&text, false) {
            Ok(value) => Ok(Some(Setting { value, origin })),
            Err(message) => {
                let message = without_credentials(&message).into_owned();
                Err(SettingsError::Value { origin, message })
            }
        }
    }
}
