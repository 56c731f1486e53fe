//! `subst substitute`: serves guix-daemon as its substituter helper.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::cli::args::SubstituteArgs;
use crate::cli::confinement::DiskChanges;
use crate::cli::context::{Context, Purpose};
use crate::cli::env::{self, Environment};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::settings::parse_servers;
use crate::daemon::client_items::named_items;
use crate::daemon::item_sync::ItemSync;
use crate::daemon::log::ClientLog;
use crate::daemon::options::DaemonOptions;
use crate::daemon::prefetch::client::PrefetchClient;
use crate::daemon::prefetch::prefetcher::Prefetcher;
use crate::daemon::prefetch::server::PrefetchServer;
use crate::daemon::prefetch::socket::PrefetchSocket;
use crate::daemon::progress::ClientProgress;
use crate::daemon::query::QueryHelper;
use crate::daemon::reply::ReplyPort;
use crate::daemon::request::SubstituteRequest;
use crate::daemon::serve::{RequestHandler, serve};
use crate::daemon::substitute::{SubstituteHandler, SubstituteHelper};
use crate::store::Links;
use crate::substitute::chain;
use crate::substitute::lookup::SkipFilter;

/// What the daemon hands over when it starts the helper.
pub(crate) struct Inherited {
    /// What it and its client want.
    pub(crate) options: DaemonOptions,
    port: ReplyPort,
}

impl Inherited {
    /// Takes it over. To be called before anything is opened.
    ///
    /// # Errors
    /// There is nothing to write replies to.
    pub(crate) fn take(environment: &Environment) -> Result<Self, CliError> {
        let port = ReplyPort::take()?;
        let options = environment
            .os(env::NIX_OPTIONS)
            .map(|text| text.to_string_lossy());
        Ok(Self {
            options: DaemonOptions::parse(&options.unwrap_or_default()),
            port,
        })
    }
}

/// Serves requests until there are no more.
///
/// # Errors
/// What keeps it from even starting, or from going on.
pub(crate) fn run(
    context: &mut Context,
    args: &SubstituteArgs,
    inherited: Inherited,
) -> Result<Exit, CliError> {
    // A daemon that has ended releases the item's lock, so another process may own the item.
    // Without the signal the helper would go on until it fails to write a reply.
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
    let Inherited { options, mut port } = inherited;
    // There is no signal from one that ended before.
    if port.is_closed() {
        return Ok(Exit::Done);
    }

    let log = Arc::new(ClientLog::stderr());
    for word in options.substitute_urls().into_iter().flatten() {
        if let Err(error) = parse_servers(word) {
            log.warn(&format!("{error}; it is not used"));
        }
    }

    let servers = context
        .settings
        .servers
        .iter()
        .map(|url| url.as_str().to_owned())
        .collect();
    let progress = Arc::new(ClientProgress::new(
        Arc::clone(&log),
        options.progress_style,
        servers,
    ));
    context.progress = Arc::clone(&progress) as _;

    let mut helper: Box<dyn RequestHandler> = if args.query {
        Box::new(query_helper(context, progress, log)?)
    } else {
        let store_dir = context.settings.store_dir().clone();
        let handler_log = Arc::clone(&log);
        let prepare = Box::new(move |request: &SubstituteRequest| {
            let progress = Arc::clone(&progress);
            substitute_helper(context, &options, request, progress, &log).map_err(Into::into)
        });
        Box::new(SubstituteHandler::new(store_dir, handler_log, prepare))
    };

    serve(std::io::stdin().lock(), &mut *helper, &mut port)?;
    Ok(Exit::Done)
}

fn query_helper(
    context: &Context,
    progress: Arc<ClientProgress>,
    log: Arc<ClientLog>,
) -> Result<QueryHelper, CliError> {
    // What reads facts about other processes comes before the sandbox.
    let client_items = named_items(context.settings.store_dir());
    let socket = prefetch_socket(context).filter(|socket| socket.remove_abandoned().is_ok());
    let skip = valid_items(context, &log);

    let (network, resolver) = context.resolver(Purpose::Helper, DiskChanges::NONE)?;
    let read_ahead = context.settings.read_ahead;
    Ok(QueryHelper {
        store_dir: context.settings.store_dir().clone(),
        resolver,
        client_items,
        prefetch: socket.and_then(|socket| {
            let prefetcher = Prefetcher::new(network, skip.clone(), read_ahead);
            start_prefetching(socket, prefetcher)
        }),
        skip,
        wait: context.settings.helper_wait,
        cancel: context.cancel.clone(),
        progress,
        log,
        trust_key: context.settings.advice().trust_key(),
        reported_keys: BTreeSet::new(),
        is_policy_reported: false,
    })
}

/// Prefetches nars for the other helpers of the client. It only saves time, so a failure is not
/// reported.
fn start_prefetching(
    socket: PrefetchSocket,
    prefetcher: Prefetcher,
) -> Option<(Arc<Prefetcher>, PrefetchServer)> {
    let prefetcher = Arc::new(prefetcher);
    let server = PrefetchServer::start(socket, Arc::clone(&prefetcher)).ok()?;
    Some((prefetcher, server))
}

/// The socket of the helpers of this client; `None` when nothing is prefetched.
fn prefetch_socket(context: &Context) -> Option<PrefetchSocket> {
    let dir = (context.settings.read_ahead > 0).then(|| context.socket_dir())??;
    PrefetchSocket::of_siblings(&dir)
}

/// Finds the items that are valid already, if the database can be read. Without it, more items are
/// looked up early than the daemon will query.
fn valid_items(context: &Context, log: &Arc<ClientLog>) -> Option<SkipFilter> {
    let store = match context.store_to_read() {
        Ok(store) => store?,
        Err(error) => {
            log.warn(&format!(
                "valid items are looked up as well: {}",
                chain(&error)
            ));
            return None;
        }
    };
    Some(Arc::new(move |paths| {
        store.valid_among(paths).unwrap_or_default()
    }))
}

/// The daemon waits for the answer, and builds the item when there is none.
const RETRY_TIME_MAX: Duration = Duration::from_secs(20);

/// What carries out requests, for a daemon whose first one is `request`: all destinations of a daemon
/// are in the same directory, the store.
fn substitute_helper(
    context: &Context,
    options: &DaemonOptions,
    request: &SubstituteRequest,
    progress: Arc<ClientProgress>,
    log: &Arc<ClientLog>,
) -> Result<SubstituteHelper, CliError> {
    let links = match Links::open(context.settings.layout.store()) {
        _ if !options.deduplicate => None,
        Ok(links) => Some(Arc::new(links)),
        Err(error) => {
            log.warn(&format!("files are not deduplicated: {}", chain(&error)));
            None
        }
    };

    let socket = prefetch_socket(context);
    let changes = DiskChanges {
        store: links.is_some(),
        directories: &[request.parent()],
    };
    let (network, resolver) = context.resolver(Purpose::Helper, changes)?;
    let mut installer = context.installer(&network)?;
    for limits in installer.retry_limits.iter_mut() {
        limits.time = limits.time.min(RETRY_TIME_MAX);
    }
    if let Some(socket) = socket {
        installer.prefetcher = Some(Arc::new(PrefetchClient::new(socket)));
    }

    Ok(SubstituteHelper {
        store_dir: context.settings.store_dir().clone(),
        resolver,
        installer,
        wait: context.settings.helper_wait,
        links,
        sync: ItemSync::new(context.settings.sync, Arc::clone(log)),
        progress,
    })
}
