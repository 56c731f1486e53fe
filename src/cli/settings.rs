//! Settings: defaults < files < guix-daemon's options < environment < flags, checked, each
//! error with its origin.
//!
//! What comes out is what the work needs; nothing below this layer knows where a setting
//! came from or that there are flags at all.

mod duration;
mod file;
mod invocation;
mod layers;
mod stores;

use std::path::PathBuf;
use std::time::Duration;

use crate::daemon::options::DaemonOptions;
use crate::format::credentials::url_without_credentials;
use crate::format::server_url::{ServerUrl, percent_advice};
use crate::format::store_path::{Dialect, StoreDir};
use crate::http;
use crate::store::Layout;

use super::advice::{Advice, Invocation};
use super::args::{Global, ProgressMode};
use super::env::Environment;
use super::error::shown_path;
use super::file_trust::Choice;

pub(crate) use layers::Origin;
pub(crate) use stores::StoreKind;

use layers::{Partial, Setting};

/// Guix's official servers.
const GUIX_SERVERS: [&str; 2] = ["https://bordeaux.guix.gnu.org", "https://ci.guix.gnu.org"];
/// Nix's official server.
const NIX_SERVERS: [&str; 1] = ["https://cache.nixos.org"];
/// Items fetched at the same time, unless said otherwise.
const DEFAULT_JOBS: usize = 6;
/// More would only take memory and descriptors.
const JOBS_MAX: usize = 256;

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// A value is wrong.
    #[error("{origin}: {message}")]
    Value {
        /// Where it was set.
        origin: Origin,
        /// What is wrong with it.
        message: String,
    },
    /// A settings file cannot be read.
    #[error("reading settings from {}", shown_path(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A settings file is not TOML, or has unknown settings.
    #[error("{}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
}

/// How much is said on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Errors only.
    Quiet,
    /// Warnings and a summary too.
    Normal,
    /// Choices and retries too.
    Verbose,
}

/// All settings of a run.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where everything lies.
    pub(crate) layout: Layout,
    /// Whether the store is the system's or an embedded one.
    pub(crate) store_kind: StoreKind,
    /// The servers, in order of preference.
    pub(crate) servers: Vec<ServerUrl>,
    /// The directory of an embedded store, as an absolute path.
    pub(crate) root: Option<PathBuf>,
    /// The ACL to go by.
    pub(crate) acl: PathBuf,
    /// How the ACL was chosen.
    pub(crate) acl_choice: Choice,
    /// Keys for Nix signatures; `None`: those of nix.conf, or the official one.
    pub(crate) trusted_public_keys: Option<String>,
    /// Whether signatures are not checked at all.
    pub(crate) allow_unauthenticated: bool,
    /// Whether to ask even when the lookup cache knows.
    pub(crate) refresh: bool,
    /// Whether to connect to nobody.
    pub(crate) offline: bool,
    /// Items fetched at the same time.
    pub(crate) jobs: usize,
    /// How progress is shown.
    pub(crate) progress: ProgressMode,
    /// Whether data is printed as JSON.
    pub(crate) json: bool,
    /// How much is said.
    pub(crate) verbosity: Verbosity,
    /// How to reach servers.
    pub(crate) http: http::Options,
    /// Connections for lookups to a server that wants many, and for the parts of one large nar.
    pub(crate) connections: usize,
    /// Nars that the daemon's helper fetches ahead.
    pub(crate) read_ahead: usize,
    /// How long a server that has answered before is retried without progress.
    pub(crate) retry_time: Duration,
    /// Directories for the lookup cache, best first.
    pub(crate) cache_dirs: Vec<PathBuf>,
    /// What hints have to repeat.
    pub(crate) invocation: Invocation,
}

impl Settings {
    /// The settings that flags, environment, files, and the options of a daemon add up to.
    /// `warnings` gets what was ignored or is not safe, also when there is an error.
    ///
    /// # Errors
    /// A value or a file that cannot be used.
    pub(crate) fn load(
        flags: &Global,
        environment: &Environment,
        daemon: Option<&DaemonOptions>,
        warnings: &mut Vec<String>,
    ) -> Result<Self, SettingsError> {
        let from_flags = Partial::from_flags(flags);
        let mut from_environment = Partial::from_environment(environment)?;
        let from_daemon = daemon.map(Partial::from_daemon).unwrap_or_default();
        let mut from_files = file::load(flags.config.as_deref(), environment, warnings)?;
        if daemon.is_some() {
            from_environment.leave_store_to_daemon(warnings);
            from_files.leave_store_to_daemon(warnings);
            from_environment.store_dir = Partial::store_dir_of_guix(environment)?;
        }
        let chosen = from_flags
            .or(from_environment)
            .or(from_daemon)
            .or(from_files);
        Self::resolve(chosen, flags, environment)
    }

    fn resolve(
        chosen: Partial,
        flags: &Global,
        environment: &Environment,
    ) -> Result<Self, SettingsError> {
        let (store_kind, layout) = stores::layout(&chosen, environment)?;
        let invocation = invocation::of(&chosen, flags, environment, layout.store_dir());
        let mut servers = servers(&chosen, layout.store_dir())?;
        if chosen
            .discover
            .as_ref()
            .is_some_and(|setting| setting.value)
        {
            servers = with_discovered(&layout, servers);
        }
        let http = http_options(&chosen, environment)?;
        let jobs = chosen
            .jobs
            .as_ref()
            .map_or(DEFAULT_JOBS, |setting| setting.value);
        let retry_time = retry_time(&chosen)?;
        let read_ahead = chosen
            .read_ahead
            .as_ref()
            .map_or(DEFAULT_READ_AHEAD, |s| s.value);
        Ok(Self {
            root: invocation.root.clone(),
            invocation,
            acl_choice: match chosen.acl.as_ref().map(|setting| &setting.origin) {
                Some(Origin::Flag(_) | Origin::Environment(_)) => Choice::Explicit,
                Some(Origin::File(..) | Origin::Daemon(_)) | None => Choice::Implicit,
            },
            acl: chosen
                .acl
                .map_or_else(|| layout.acl(), |setting| setting.value),
            cache_dirs: stores::cache_dirs(&layout, store_kind, environment),
            trusted_public_keys: chosen.trusted_public_keys.map(|setting| setting.value),
            allow_unauthenticated: environment
                .is_yes(super::env::GUIX_ALLOW_UNAUTHENTICATED_SUBSTITUTES),
            refresh: flags.refresh,
            offline: flags.offline,
            jobs: jobs.clamp(1, JOBS_MAX),
            connections: http.mass_query_connections,
            progress: chosen
                .progress
                .map_or(ProgressMode::Auto, |setting| setting.value),
            json: flags.json,
            verbosity: verbosity(flags),
            http,
            read_ahead,
            retry_time,
            servers,
            store_kind,
            layout,
        })
    }

    /// The store directory.
    #[must_use]
    pub(crate) fn store_dir(&self) -> &StoreDir {
        self.layout.store_dir()
    }

    /// Where the keys for Nix signatures are, unless settings name some.
    #[must_use]
    pub(crate) fn nix_conf(&self) -> PathBuf {
        self.layout.config().join("nix.conf")
    }

    /// What hints depend on.
    #[must_use]
    pub(crate) fn advice(&self) -> Advice {
        Advice {
            invocation: self.invocation.clone(),
            dialect: self.store_dir().dialect(),
            nix_conf: self.nix_conf(),
            offline: self.offline,
            refresh: self.refresh,
        }
    }
}

/// Nars fetched ahead by the daemon's helper, unless said otherwise.
const DEFAULT_READ_AHEAD: usize = 16;

/// How long servers are retried, unless said otherwise.
const DEFAULT_RETRY_TIME: Duration = Duration::from_secs(60);

fn retry_time(chosen: &Partial) -> Result<Duration, SettingsError> {
    let Some(Setting { value, origin }) = &chosen.retry_time else {
        return Ok(DEFAULT_RETRY_TIME);
    };
    duration::parse(value).map_err(|message| SettingsError::Value {
        origin: origin.clone(),
        message,
    })
}

fn verbosity(flags: &Global) -> Verbosity {
    match (flags.quiet, flags.verbose) {
        (true, _) => Verbosity::Quiet,
        (false, 0) => Verbosity::Normal,
        (false, _) => Verbosity::Verbose,
    }
}

fn servers(chosen: &Partial, store_dir: &StoreDir) -> Result<Vec<ServerUrl>, SettingsError> {
    let Some(setting) = &chosen.substitute_urls else {
        let official: &[&str] = match store_dir.dialect() {
            Dialect::Guix => &GUIX_SERVERS,
            Dialect::Nix => &NIX_SERVERS,
        };
        let parse = |url: &&str| ServerUrl::parse(url).expect("official addresses are URLs");
        return Ok(official.iter().map(parse).collect());
    };
    parse_servers(&setting.value).map_err(|message| SettingsError::Value {
        origin: setting.origin.clone(),
        message,
    })
}

/// The servers in a blank-separated list, each once.
pub(in crate::cli) fn parse_servers(text: &str) -> Result<Vec<ServerUrl>, String> {
    let mut servers: Vec<ServerUrl> = Vec::new();
    for word in text.split_whitespace() {
        let server = ServerUrl::parse(word).map_err(|error| error.to_string())?;
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    Ok(servers)
}

/// The servers that guix-daemon discovered in the local network, in front of `servers`.
pub(super) fn with_discovered(layout: &Layout, servers: Vec<ServerUrl>) -> Vec<ServerUrl> {
    // Discovery is a convenience: without the file, or with a broken one, there is nothing
    // discovered.
    let text = std::fs::read_to_string(layout.discovered_servers()).unwrap_or_default();
    let mut all: Vec<ServerUrl> = text
        .lines()
        .filter_map(|line| ServerUrl::parse(line.trim()).ok())
        .filter(|server| !server.is_file())
        .take(DISCOVERED_MAX)
        .collect();
    for server in servers {
        if !all.contains(&server) {
            all.push(server);
        }
    }
    all
}

/// As many as the stock client takes.
const DISCOVERED_MAX: usize = 50;

fn http_options(
    chosen: &Partial,
    environment: &Environment,
) -> Result<http::Options, SettingsError> {
    let mut options = http::Options {
        proxies: proxies(environment)?,
        ca_file: environment.path("SSL_CERT_FILE"),
        ca_dir: environment.path("SSL_CERT_DIR"),
        ..http::Options::default()
    };
    if chosen
        .insecure_tls
        .as_ref()
        .is_some_and(|setting| setting.value)
    {
        options.verify_tls = http::TlsVerification::Insecure;
    }
    if let Some(setting) = &chosen.connect_timeout {
        options.connect_timeout = seconds(setting.value, &setting.origin)?;
    }
    if let Some(setting) = &chosen.stall_timeout {
        options.stall_timeout = seconds(setting.value, &setting.origin)?;
    }
    options.server_timeouts = server_timeouts(chosen, &options)?;
    if let Some(setting) = &chosen.connections {
        options.mass_query_connections = setting.value.max(1);
    }
    Ok(options)
}

/// The timeouts of single servers. A flag counts for all of them.
fn server_timeouts(
    chosen: &Partial,
    options: &http::Options,
) -> Result<Vec<(ServerUrl, http::Timeouts)>, SettingsError> {
    let Some(Setting {
        value: tables,
        origin,
    }) = &chosen.server
    else {
        return Ok(Vec::new());
    };
    let is_flag = |setting: &Option<Setting<f64>>| {
        setting
            .as_ref()
            .is_some_and(|setting| matches!(setting.origin, Origin::Flag(_)))
    };
    let choose = |own: Option<f64>, flag: &Option<Setting<f64>>, general| match own {
        Some(value) if !is_flag(flag) => seconds(value, origin),
        _ => Ok(general),
    };
    let timeouts = tables.iter().map(|table| {
        let url = ServerUrl::parse(&table.url).map_err(|error| SettingsError::Value {
            origin: origin.clone(),
            message: error.to_string(),
        })?;
        let connect = choose(
            table.connect_timeout,
            &chosen.connect_timeout,
            options.connect_timeout,
        )?;
        let stall = choose(
            table.stall_timeout,
            &chosen.stall_timeout,
            options.stall_timeout,
        )?;
        Ok((url, http::Timeouts { connect, stall }))
    });
    timeouts.collect()
}

fn seconds(value: f64, origin: &Origin) -> Result<Duration, SettingsError> {
    Duration::try_from_secs_f64(value)
        .ok()
        .filter(|time| !time.is_zero())
        .ok_or_else(|| {
            let message = format!("{value} is not a number of seconds to wait");
            SettingsError::Value {
                origin: origin.clone(),
                message,
            }
        })
}

fn proxies(environment: &Environment) -> Result<http::Proxies, SettingsError> {
    let proxy = |names: &[&'static str]| {
        let Some(name) = names.iter().find(|name| environment.text(name).is_some()) else {
            return Ok(None);
        };
        let text = environment.text(name).unwrap_or_default();
        let with_scheme = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        url::Url::parse(&with_scheme).map(Some).map_err(|_| {
            let shown = url_without_credentials(text);
            let advice = percent_advice(&shown);
            let message = format!("`{shown}` is not the URL of a proxy{advice}");
            SettingsError::Value {
                origin: Origin::Environment(name),
                message,
            }
        })
    };
    let everything = ["all_proxy", "ALL_PROXY"];
    let http = proxy(&["http_proxy"])?;
    let https = proxy(&["https_proxy", "HTTPS_PROXY"])?;
    let fallback = proxy(&everything)?;
    let no_proxy = environment
        .first_text(&["no_proxy", "NO_PROXY"])
        .unwrap_or_default();
    Ok(http::Proxies {
        http: http.or_else(|| fallback.clone()),
        https: https.or(fallback),
        no_proxy: http::NoProxy::parse(no_proxy),
    })
}
