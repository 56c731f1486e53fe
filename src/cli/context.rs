//! What every command works with: settings, output, store, lookup cache, network.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::format::store_path::{Dialect, StorePath};
use crate::http::RateLimit;
use crate::lookup_cache::TtlPolicy;
use crate::no_follow;
use crate::sandbox;
use crate::store::unpack::WriterPool;
use crate::store::{Layout, OpenMode, Store, StoreObserver, make_store_writable};
use crate::substitute::cancel::Cancel;
use crate::substitute::chain;
use crate::substitute::clock::Clock;
use crate::substitute::closure::MissingTrees;
use crate::substitute::download::checked_copy::NarCopier;
use crate::substitute::download::retries::RetryContext;
use crate::substitute::download::transfer::{DecoderMemory, TransferBudget};
use crate::substitute::install::{InFlightTransfers, Installer};
use crate::substitute::lookup::{
    Freshness, LookupOptions, Resolver, ResolverSetup, SignatureChecks,
};
use crate::substitute::network::{Network, NetworkReach};
use crate::substitute::progress::Progress;
use crate::trust::acl::Acl;

use super::confinement::{self, DiskChanges};
use super::error::CliError;
use super::item_argument;
use super::output::Output;
use super::progress::RunProgress;
use super::settings::{SandboxMode, Settings, StoreKind};
use super::store_observer::ShownStoreReports;

/// The memory for decoded bytes that are not written yet, of all transfers together.
const BUFFER_BYTES: usize = 8 << 20;
/// What decoders may take: six of those for the windows that `guix publish` makes; and while a
/// single nar is decoded, enough to have another frame of 16 MiB, or another block of `xz -6`,
/// decoded beside the one that is read.
const DECODER_MEMORY: DecoderMemory = DecoderMemory {
    streams_bytes: 28 << 20,
    all_bytes: 56 << 20,
};
/// How long a server may be silent while another one has answered everything.
const LAG: Duration = Duration::from_millis(600);
/// For how long later runs skip a server that is down.
const DOWN_SECONDS: u64 = 60;
/// How old a negative answer may be that an explicit fetch uses without a request.
const FETCH_NEGATIVE_MAX_AGE: u64 = 60;

/// What every command has.
pub(crate) struct Context {
    /// The settings.
    pub(crate) settings: Settings,
    /// The time.
    pub(crate) clock: Clock,
    /// Where messages and data go.
    pub(crate) output: Output,
    /// Receives the events of the run.
    pub(crate) progress: Arc<dyn Progress>,
    /// Counts and shows them, unless the command replaces it.
    pub(crate) run_progress: Arc<RunProgress>,
    /// Whether the user interrupts the run.
    pub(crate) cancel: Cancel,
    /// Threads worth having for work that keeps a core busy.
    pub(crate) cores: usize,
}

/// What lookups are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A report.
    Report,
    /// A change of a store that the user requested.
    Fetch,
    /// The daemon's helper.
    Helper,
}

impl Context {
    /// Checks that there is a server.
    ///
    /// # Errors
    /// The list of servers is empty.
    pub(crate) fn need_servers(&self) -> Result<(), CliError> {
        if self.settings.servers.is_empty() {
            Err(CliError::NoServers)
        } else {
            Ok(())
        }
    }

    /// The store, to change it.
    ///
    /// # Errors
    /// It cannot be opened or made.
    pub(crate) fn store(&self) -> Result<Arc<Store>, CliError> {
        let layout = &self.settings.layout;
        let mode = match self.settings.store_kind {
            StoreKind::Embedded => OpenMode::Create(self.settings.sync),
            StoreKind::System => {
                make_store_writable(layout.store())?;
                OpenMode::Existing(self.settings.sync)
            }
        };
        let store = Store::open(layout.clone(), mode, self.store_observer())?;

        if self.settings.store_kind == StoreKind::Embedded {
            write_first_acl(layout)?;
        }
        Ok(Arc::new(store))
    }

    /// Whether the store is the system's, of which its daemon takes care; with `--root /` in any spelling
    /// too. A link at the place of the system's store may lead to one below `--root`.
    #[must_use]
    pub(crate) fn is_system_store(&self) -> bool {
        let layout = &self.settings.layout;
        let place = Path::new(layout.store_dir().as_str());
        let root = self.settings.root.as_deref();
        self.settings.store_kind == StoreKind::System
            || resolves_to(layout.store(), place)
            || root.is_some_and(|root| resolves_to(root, Path::new("/")))
    }

    /// Refuses `command` for the system's store, which `daemon_command` of Guix or of Nix takes care of.
    ///
    /// # Errors
    /// It is that store.
    pub(crate) fn refuse_system_store(
        &self,
        command: &str,
        daemon_command: (&str, &str),
    ) -> Result<(), CliError> {
        if !self.is_system_store() {
            return Ok(());
        }
        let daemon_command = match self.settings.layout.store_dir().dialect() {
            Dialect::Guix => daemon_command.0,
            Dialect::Nix => daemon_command.1,
        };
        Err(CliError::Usage(format!(
            "`subst {command}` is for stores below --root; `{daemon_command}` does this for the \
             system's store"
        )))
    }

    pub(crate) fn store_observer(&self) -> Arc<dyn StoreObserver> {
        Arc::new(ShownStoreReports {
            progress: Arc::clone(&self.progress),
            cancel: self.cancel.clone(),
        })
    }

    /// What is done about valid items whose trees are missing: a system store is repaired by its
    /// daemon, an embedded store by this program.
    #[must_use]
    pub(crate) fn missing_trees(&self) -> MissingTrees {
        match self.settings.store_kind {
            StoreKind::Embedded => MissingTrees::FetchAgain,
            StoreKind::System => MissingTrees::Report,
        }
    }

    /// How to reach servers. The process is confined before: from then on it changes nothing but the
    /// lookup cache and what `changes` names, and opens only what that needs. So files and directories
    /// that do not exist yet are created earlier, and threads started later.
    ///
    /// # Errors
    /// The sandbox is required and not supported.
    pub(crate) fn network(&self, changes: DiskChanges<'_>) -> Result<Arc<Network>, CliError> {
        self.enter_sandbox(changes)?;
        let reach = if self.settings.offline {
            NetworkReach::FilesOnly
        } else {
            NetworkReach::AllServers
        };
        Ok(Arc::new(Network::new(
            self.settings.http.clone(),
            reach,
            self.settings.servers.clone(),
        )))
    }

    /// Confines the process to what `changes` need, for a command that connects to nothing.
    ///
    /// # Errors
    /// The sandbox is required and not supported.
    pub(crate) fn enter_sandbox(&self, changes: DiskChanges<'_>) -> Result<(), CliError> {
        let mode = self.settings.sandbox;
        if mode == SandboxMode::Off {
            return Ok(());
        }
        match sandbox::enter(&confinement::rules(&self.settings, changes)) {
            Ok(()) => Ok(()),
            Err(error) if mode == SandboxMode::Auto => {
                let reason = chain(&error);
                self.output
                    .detail(&format!("running without a complete sandbox: {reason}"));
                Ok(())
            }
            Err(error) => Err(CliError::Sandbox(error)),
        }
    }

    /// How to reach servers, as [`Context::network`] says, and what looks items up there. From now on
    /// an interrupt is work to stop in order; until then nothing would be left behind.
    ///
    /// # Errors
    /// A key is invalid, the sandbox is required and not supported, or no thread can be started.
    pub(crate) fn resolver(
        &self,
        purpose: Purpose,
        changes: DiskChanges<'_>,
    ) -> Result<(Arc<Network>, Arc<Resolver>), CliError> {
        let freshness = match (self.settings.refresh, self.settings.offline) {
            (true, _) => Freshness::Refresh,
            (_, true) => Freshness::Offline,
            _ => Freshness::Cached,
        };

        let keys = self.keys().or_else(|error| self.no_keys(error, purpose))?;
        let (policy, faults) = self.policy(&keys);
        for fault in faults {
            self.output.warn(&fault.to_string());
        }
        let cache = self.lookup_cache();
        let network = self.network(changes)?;

        self.cancel.begin_work();
        let is_fetch = purpose == Purpose::Fetch;
        let setup = ResolverSetup {
            store_dir: self.settings.store_dir().clone(),
            keys: Arc::new(keys),
            policy: Arc::new(policy),
            cache,
            network: Arc::clone(&network),
            progress: Arc::clone(&self.progress),
            clock: self.clock,
            cancel: self.cancel.clone(),
            options: LookupOptions {
                freshness,
                signature_checks: if purpose == Purpose::Report {
                    SignatureChecks::ReuseRecorded
                } else {
                    SignatureChecks::Always
                },
                ttl: TtlPolicy::default(),
                negative_max_age: is_fetch.then_some(FETCH_NEGATIVE_MAX_AGE),
                retry_down: is_fetch,
                renews_expired: purpose == Purpose::Helper,
                lag: LAG,
                vote_wait: self.settings.http.stall_timeout,
                down_seconds: DOWN_SECONDS,
                retry_limits: is_fetch.then(|| self.settings.retry_limits.clone()),
                verifiers: self.cores,
            },
        };

        let resolver = Resolver::new(setup).map_err(CliError::Threads)?;
        Ok((network, Arc::new(resolver)))
    }

    /// Unpacks items.
    ///
    /// # Errors
    /// No threads.
    pub(crate) fn installer(&self, network: &Arc<Network>) -> Result<Installer, CliError> {
        // A stream that waits for our own limit is not faster over several connections.
        let limit = self.settings.http.rate_limit;
        let segment_connections = match limit.filter(RateLimit::applies_at_start) {
            Some(_) => 1,
            None => self.settings.connections,
        };
        Ok(Installer {
            network: Arc::clone(network),
            writers: WriterPool::new(self.cores).map_err(CliError::Threads)?,
            budget: TransferBudget::new(
                BUFFER_BYTES,
                self.settings.jobs,
                DECODER_MEMORY,
                self.cores,
                segment_connections,
                self.settings.nars_per_server,
            ),
            prefetcher: None,
            rates: Mutex::default(),
            planned_methods: Mutex::default(),
            cores: self.cores,
            progress: Arc::clone(&self.progress),
            cancel: self.cancel.clone(),
            levels: self.levels(),
            retry_limits: self.settings.retry_limits.clone(),
            spools: self.spools(),
            reported_failures: Mutex::default(),
            in_flight: InFlightTransfers::default(),
        })
    }

    /// Copies nars that are not unpacked.
    pub(crate) fn nar_copier(&self, network: &Arc<Network>) -> NarCopier {
        let (nars_per_server, retries) = (self.settings.nars_per_server, self.retries(network));
        NarCopier::new(DECODER_MEMORY, self.cores, nars_per_server, retries)
    }

    /// How downloads that break are retried.
    pub(crate) fn retries(&self, network: &Arc<Network>) -> RetryContext {
        RetryContext {
            network: Arc::clone(network),
            limits: self.settings.retry_limits.clone(),
            progress: Arc::clone(&self.progress),
            cancel: self.cancel.clone(),
        }
    }

    /// Whose limit of levels holds for trees. Nix works on the system's store, and could not verify what
    /// has more than its own; an embedded store takes what every file system can hold.
    fn levels(&self) -> Dialect {
        match self.settings.store_kind {
            StoreKind::System => self.settings.store_dir().dialect(),
            StoreKind::Embedded => Dialect::Guix,
        }
    }

    /// The items that `words` name; `-` stands for the lines of standard input.
    ///
    /// # Errors
    /// A word names no item, or standard input cannot be read, or has no items where there are no others: the
    /// command before the pipe has probably failed, and to some commands no item means all of them.
    pub(crate) fn paths(&self, words: &[String]) -> Result<Vec<StorePath>, CliError> {
        let store_dir = self.settings.store_dir();
        let mut paths = Vec::new();
        for word in words {
            if word != "-" {
                paths.push(item_argument::parse(word, store_dir)?);
                continue;
            }

            self.output.announce_input("names of items");
            let text = std::io::read_to_string(std::io::stdin())
                .map_err(CliError::file("read", "standard input"))?;
            for name in item_argument::names_in(&text) {
                paths.push(item_argument::parse(name, store_dir)?);
            }
        }

        if paths.is_empty() && !words.is_empty() {
            return Err(CliError::NoItems("standard input".to_owned()));
        }

        let mut seen = std::collections::HashSet::new();
        paths.retain(|path| seen.insert(path.clone()));
        Ok(paths)
    }
}

/// Writes the ACL of a new embedded store: it trusts the official servers, as a new Guix does.
fn write_first_acl(layout: &Layout) -> Result<(), CliError> {
    let path = layout.acl();
    if layout.store_dir().dialect() == Dialect::Nix || path.exists() {
        return Ok(());
    }
    let text = Acl::official_guix_servers().to_string();

    let config = layout.config();
    let name = path.file_name().unwrap_or_default();
    let written = no_follow::open_directory(layout.base_of(config), config)
        .and_then(|config| no_follow::create_file(config.as_fd(), name, text.as_bytes()));
    match written {
        // Another process has just made it.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(CliError::file("write", &path)),
    }
}

/// Whether `path` is `wanted`, or another name of it.
fn resolves_to(path: &Path, wanted: &Path) -> bool {
    path == wanted || path.canonicalize().is_ok_and(|path| path == wanted)
}
