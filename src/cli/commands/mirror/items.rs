//! The items to copy: those of the arguments, of a file, or of all servers.

use std::collections::BTreeSet;
use std::path::Path;

use crate::cli::args::MirrorArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::item_argument;
use crate::cli::output::shown_path;
use crate::format::server_url::ServerUrl;
use crate::format::store_path::StorePath;
use crate::substitute::mirror::{MirrorFailure, list_all, list_bucket};
use crate::substitute::network::Network;

use super::target::open_network_bucket;

/// The items that `args` name, without those of [`of_buckets`].
///
/// # Errors
/// A name is not that of an item, or a file or directory cannot be read, or a server has no list.
pub(super) fn named(context: &Context, args: &MirrorArgs) -> Result<Vec<StorePath>, CliError> {
    if args.all {
        return of_directories(context);
    }
    match &args.list {
        Some(file) => of_file(context, file),
        None => context.paths(&args.closure),
    }
}

/// The items that the lines of `file` name.
///
/// # Errors
/// The file cannot be read, it is empty, or a line names no item.
pub(super) fn of_file(context: &Context, file: &Path) -> Result<Vec<StorePath>, CliError> {
    if file == Path::new("-") {
        return context.paths(&["-".to_owned()]);
    }
    let text = std::fs::read_to_string(file).map_err(CliError::file("read", file))?;
    let store_dir = context.settings.store_dir();
    let items: Result<BTreeSet<StorePath>, _> = item_argument::names_in(&text)
        .map(|name| item_argument::parse(name, store_dir))
        .collect();
    match items? {
        items if items.is_empty() => Err(CliError::NoItems(shown_path(file))),
        items => Ok(items.into_iter().collect()),
    }
}

/// All items of the servers that are buckets.
///
/// # Errors
/// A bucket cannot be read; it is named.
pub(super) fn of_buckets(
    context: &Context,
    network: &Network,
) -> Result<Vec<StorePath>, (ServerUrl, MirrorFailure)> {
    let mut items = Vec::new();
    for server in context.settings.servers.iter() {
        if server.bucket().is_none() {
            continue;
        }
        let listed = open_network_bucket(context, network, server, None)
            .and_then(|bucket| list_bucket(&bucket, context.settings.store_dir()));
        items.extend(listed.map_err(|failure| (server.clone(), failure))?);
    }
    Ok(items)
}

fn of_directories(context: &Context) -> Result<Vec<StorePath>, CliError> {
    let mut items = BTreeSet::new();
    for server in context.settings.servers.iter() {
        if server.bucket().is_some() {
            continue;
        }
        let directory = server.is_file().then(|| server.base().to_file_path());
        let Some(Ok(directory)) = directory else {
            return Err(CliError::Usage(format!(
                "--all: {} has no list of its items; name them with --closure or --list",
                server.as_str()
            )));
        };
        let found = list_all(&directory, context.settings.store_dir());
        items.extend(found.map_err(CliError::file("read", &directory))?);
    }
    Ok(items.into_iter().collect())
}
