//! The settings of a run. Each comes from the first of these sources that has it: options,
//! environment, guix-daemon's options, settings files, the table's defaults.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::cli::advice::{Advice, Invocation};
use crate::cli::env::{self, Environment};
use crate::cli::file_trust::FileSelection;
use crate::cli::nix_conf::{self, NixConf, NixConfPlaces};
use crate::cli::output::Verbosity;
use crate::daemon::options::DaemonOptions;
use crate::format::server_list::{PerServer, ServerList};
use crate::format::server_url::ServerUrl;
use crate::format::store_path::{Dialect, StoreDir};
use crate::http;
use crate::http::RetryLimits;
use crate::store::{Layout, SyncMode};
use crate::substitute::chain;
use crate::trust::policy::PolicyTerms;

use super::error::SettingsError;
use super::findings::SettingsFindings;
use super::options::CommonOptions;
use super::origin::{Origin, Setting};
use super::stores::{self, StoreKind};
use super::table::SettingsLayer;
use super::value::{ProgressMode, SandboxMode};
use super::{credentials, file, invocation, network, retries, servers, sources};

/// All settings of a run.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where the store and its state are.
    pub(crate) layout: Layout,
    /// Whether the store is the system's or an embedded one.
    pub(crate) store_kind: StoreKind,
    /// The servers, in order of preference.
    pub(crate) servers: ServerList,
    /// The directory of an embedded store, as an absolute path.
    pub(crate) root: Option<PathBuf>,
    /// The file of authorized keys.
    pub(crate) acl: PathBuf,
    /// What is wrong with an option for keys of the other kind of store.
    pub(crate) other_keys: Option<String>,
    /// How the ACL was selected.
    pub(crate) acl_selection: FileSelection,
    /// Keys for Nix signatures; `None`: those of nix.conf, or the official one.
    pub(crate) trusted_public_keys: Option<String>,
    /// Where the keys for Nix signatures are, unless settings name some.
    pub(crate) nix_conf: NixConfPlaces,
    /// Who has to agree about an item before it is used.
    pub(crate) policy: PolicyTerms,
    /// Whether signatures are not checked at all.
    pub(crate) allow_unauthenticated: bool,
    /// Whether to send lookups that the lookup cache could answer.
    pub(crate) refresh: bool,
    /// Whether to use no network.
    pub(crate) offline: bool,
    /// Items fetched at the same time.
    pub(crate) jobs: usize,
    /// What waits for the disk.
    pub(crate) sync: SyncMode,
    /// How progress is shown.
    pub(crate) progress: ProgressMode,
    /// Whether the process is confined before it connects to servers.
    pub(crate) sandbox: SandboxMode,
    /// Whether data is printed as JSON.
    pub(crate) json: bool,
    /// How much is printed.
    pub(crate) verbosity: Verbosity,
    /// How to reach servers.
    pub(crate) http: http::Options,
    /// Connections for lookups to a server that allows many, and for the segments of a large nar.
    pub(crate) connections: usize,
    /// Nars that are downloaded from one server at the same time.
    pub(crate) nars_per_server: usize,
    /// Nars that are fetched ahead.
    pub(crate) read_ahead: usize,
    /// How often and how long each server that has answered before is retried without progress.
    pub(crate) retry_limits: PerServer<RetryLimits>,
    /// How long items are waited for that servers are preparing, by commands
    pub(crate) wait: Duration,
    /// and by the daemon's helper.
    pub(crate) helper_wait: Duration,
    /// What partial downloads may take on the disk; 0: none are kept.
    pub(crate) partial_max_size: u64,
    /// Directories for the lookup cache, best first.
    pub(crate) cache_dirs: Vec<PathBuf>,
    /// What hints have to repeat.
    pub(crate) invocation: Invocation,
}

impl Settings {
    /// The settings that all sources add up to. `None` if something cannot be used: then the findings
    /// have errors.
    pub(crate) fn load(
        options: &CommonOptions,
        environment: &Environment,
        daemon: Option<&DaemonOptions>,
        findings: &mut SettingsFindings,
    ) -> Option<Self> {
        let chosen = choose(options, environment, daemon, findings);
        Self::resolve(chosen, options, environment, findings)
    }

    /// The settings that are `chosen` from all sources, as [`Settings::load`] returns them.
    pub(super) fn resolve(
        mut chosen: SettingsLayer,
        options: &CommonOptions,
        environment: &Environment,
        findings: &mut SettingsFindings,
    ) -> Option<Self> {
        // After an error, the search for more of them goes on with the usual store.
        let layout = findings.value(stores::layout(&chosen, environment));
        let (store_kind, layout) = layout.unwrap_or_else(|| stores::usual_layout(environment));
        let invocation = invocation::of(
            &chosen,
            options.config.clone(),
            environment,
            layout.store_dir(),
        );
        let nix_places = NixConfPlaces::new(layout.config(), environment);
        let dialect = layout.store_dir().dialect();
        let nix_conf = read_nix_conf(dialect, &nix_places, &chosen, &invocation, findings);
        let named = servers::named(&chosen, &layout, findings);
        let mut http = network::options(&chosen, environment, &nix_conf, dialect, findings);
        http.credentials =
            credentials::load(&chosen, &named, &layout, &nix_conf, environment, findings);
        let servers = Arc::new(servers::all(&chosen, &layout, named).into());

        // What was invalid is missing from here on.
        if !findings.errors.is_empty() {
            return None;
        }
        Some(Self {
            root: invocation.root.clone(),
            invocation,
            nars_per_server: nars_per_server(&chosen),
            retry_limits: retries::limits(&chosen, &servers),
            servers,
            acl_selection: acl_selection(&chosen),
            acl: acl(&chosen, &layout),
            other_keys: other_keys(&chosen, layout.store_dir()),
            cache_dirs: stores::cache_dirs(&layout, store_kind, environment),
            nix_conf: nix_places,
            policy: policy(&mut chosen),
            trusted_public_keys: chosen.trusted_public_keys.map(|setting| setting.value.0),
            allow_unauthenticated: environment.is_yes(env::GUIX_ALLOW_UNAUTHENTICATED_SUBSTITUTES),
            refresh: options.refresh,
            offline: options.offline,
            connections: http.mass_query_connections,
            jobs: with_default(chosen.jobs).0,
            sync: with_default(chosen.sync),
            progress: with_default(chosen.progress),
            sandbox: with_default(chosen.sandbox),
            json: options.json,
            verbosity: options.verbosity(),
            http,
            read_ahead: with_default(chosen.read_ahead).0,
            wait: with_default(chosen.wait),
            helper_wait: with_default(chosen.helper_wait),
            partial_max_size: with_default(chosen.partial_max_size).0,
            store_kind,
            layout,
        })
    }

    /// Adds the credentials for the bucket `server`, which `option` names. An error is among the findings.
    pub(crate) fn add_bucket(
        &mut self,
        server: &ServerUrl,
        option: &'static str,
        environment: &Environment,
        findings: &mut SettingsFindings,
    ) {
        let origin = Origin::Option(option);
        let all = &mut self.http.credentials;
        credentials::add_bucket(all, server, &origin, environment, findings);
    }

    /// The store directory.
    #[must_use]
    pub(crate) fn store_dir(&self) -> &StoreDir {
        self.layout.store_dir()
    }

    /// The certificates to use instead of the system's.
    pub(crate) fn certificate_paths(&self) -> impl Iterator<Item = &Path> {
        let paths = self.http.certificate_paths.iter();
        paths.map(|named| named.path.as_path())
    }

    /// What hints depend on.
    #[must_use]
    pub(crate) fn advice(&self) -> Advice {
        Advice {
            invocation: self.invocation.clone(),
            dialect: self.store_dir().dialect(),
            nix_conf: self.nix_conf.system.clone(),
            has_nix_keys: self.trusted_public_keys.is_some(),
            offline: self.offline,
            refresh: self.refresh,
        }
    }
}

/// The first setting of each name that a source has.
pub(super) fn choose(
    options: &CommonOptions,
    environment: &Environment,
    daemon: Option<&DaemonOptions>,
    findings: &mut SettingsFindings,
) -> SettingsLayer {
    for unknown in sources::unknown_variables(environment) {
        match daemon {
            // A helper that does not start takes the whole build down with it.
            Some(_) => findings.warnings.push(unknown),
            None => findings.add_error(SettingsError::UnknownVariable(unknown)),
        }
    }
    let from_options = sources::of_options(&options.settings, findings);
    let mut from_environment = sources::of_environment(environment, findings);
    let from_daemon = daemon.map(sources::of_daemon).unwrap_or_default();
    let mut from_files = file::load(options.config.as_deref(), environment, findings);

    if daemon.is_some() {
        let ignored = sources::leave_store_to_daemon(&mut from_environment);
        let ignored = ignored.chain(sources::leave_store_to_daemon(&mut from_files));
        findings.left_to_daemon.extend(ignored);
        let store_dir = sources::store_dir_of_guix(environment);
        from_environment.store_dir = findings.value(store_dir).flatten();
    }

    from_options
        .or(from_environment)
        .or(from_daemon)
        .or(from_files)
        .or(sources::of_defaults(findings))
}

/// As many as connections, if the user limits these; else one for each job, and those fetched ahead.
fn nars_per_server(chosen: &SettingsLayer) -> usize {
    let connections = chosen.connections.as_ref();
    let set = connections.filter(|setting| !matches!(setting.origin, Origin::Default(_)));
    if let Some(connections) = set {
        return connections.value.0;
    }
    let jobs = chosen.jobs.as_ref().map_or(1, |setting| setting.value.0);
    let read_ahead = chosen.read_ahead.as_ref();
    jobs + read_ahead.map_or(0, |setting| setting.value.0)
}

/// What nix.conf says of the network; nothing for Guix's store. If it cannot be read, the search for keys fails later, unless
/// settings name some.
fn read_nix_conf(
    dialect: Dialect,
    places: &NixConfPlaces,
    chosen: &SettingsLayer,
    invocation: &Invocation,
    findings: &mut SettingsFindings,
) -> NixConf {
    if dialect == Dialect::Guix {
        return NixConf::default();
    }
    nix_conf::read(places, invocation.root.as_deref()).unwrap_or_else(|error| {
        if chosen.trusted_public_keys.is_some() {
            findings.warnings.push(format!(
                "the settings of Nix are ignored: {}",
                chain(&error)
            ));
        }
        NixConf::default()
    })
}

/// Who has to agree about an item.
fn policy(chosen: &mut SettingsLayer) -> PolicyTerms {
    let trust = chosen.trust.take();
    let terms = trust.map(|setting| setting.value.terms).unwrap_or_default();
    match &chosen.need_signatures {
        None => terms,
        // It may be in the file of another user than `[trust]`, and must not take anything away from it.
        Some(Setting {
            value,
            origin: Origin::File { .. },
        }) => PolicyTerms {
            need: value.0.max(terms.need),
            ..terms
        },
        Some(need) => PolicyTerms {
            need: need.value.0,
            rules: Vec::new(),
            ..terms
        },
    }
}

/// What is wrong with an option for keys that do not count for a store in `store_dir`: whoever gives it wants to
/// decide whom to trust. A variable or a file may be for stores of both kinds.
fn other_keys(chosen: &SettingsLayer, store_dir: &StoreDir) -> Option<String> {
    let (origin, owner) = match store_dir.dialect() {
        Dialect::Guix => (&chosen.trusted_public_keys.as_ref()?.origin, "Nix"),
        Dialect::Nix => (&chosen.acl.as_ref()?.origin, "Guix"),
    };
    let store_dir = store_dir.as_str();
    matches!(origin, Origin::Option(_))
        .then(|| format!("{origin} is for keys of {owner}, which do not count for {store_dir}"))
}

/// The file of authorized keys.
fn acl(chosen: &SettingsLayer, layout: &Layout) -> PathBuf {
    let chosen = chosen.acl.as_ref().map(|setting| setting.value.clone());
    chosen.unwrap_or_else(|| layout.acl())
}

/// How the ACL was selected.
fn acl_selection(chosen: &SettingsLayer) -> FileSelection {
    match chosen.acl.as_ref().map(|setting| &setting.origin) {
        Some(Origin::Option(_) | Origin::Environment(_)) => FileSelection::Explicit,
        _ => FileSelection::Implicit,
    }
}

/// The value of a setting that has a default in the table.
fn with_default<T>(setting: Option<Setting<T>>) -> T {
    setting
        .expect("the table has a default for this setting")
        .value
}
