//! `subst fetch --output DEST`: one item, unpacked to DEST, without a store.

use std::path::Path;
use std::sync::Arc;

use crate::cli::context::{Context, Purpose};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::format::nar::EntryName;
use crate::format::store_path::StorePath;
use crate::store::unpack::{Checked, Destination, open_directory};
use crate::substitute::answer::{Authority, Found};
use crate::substitute::fetch::{TICK, refusal};
use crate::substitute::install::{Installer, ItemError, Order};
use crate::substitute::lookup::Walk;
use crate::substitute::progress::{Event, with_ticks};
use crate::substitute::{chain, choose, renew};

pub(super) fn run(
    context: &Context,
    paths: &[StorePath],
    destination: &Path,
) -> Result<Exit, CliError> {
    let [path] = paths else {
        return Err(CliError::Usage("--output takes exactly one item".to_owned()));
    };
    let shown = destination.display().to_string();
    let destination = open_destination(destination)?;
    let network = context.network();
    let resolver = context.resolver(Purpose::Fetch, &network)?;
    let resolution = resolver.resolve(vec![path.clone()], Walk::JustThese);
    let name = context.settings.store_dir().full_name(path);
    let failed = |source| CliError::Item { what: format!("cannot fetch {name}"), source };
    if context.cancel.is_cancelled() {
        return Ok(Exit::Interrupted);
    }
    let Some(found) = resolution.items.first() else { return Err(failed(ItemError::NotTried)) };
    let installer = context.installer(&network)?;
    let Found { authority, sources, .. } = found;
    let authority = authority.as_ref().and_then(Authority::checked);
    let authorized =
        Arc::clone(authority.ok_or_else(|| failed(refusal(found, &resolution.servers)))?);
    let order = Order {
        item: path,
        authorized: &authorized,
        sources,
        destination: &destination,
        links: None,
    };
    let unpacked =
        with_progress(context, &installer, &order, || renew::unpack(&installer, &resolver, &order));
    let checked = unpacked.map_err(failed)?;
    checked.keep();
    context.output.line(&shown)?;
    Ok(Exit::Done)
}

/// Tells how far `work` is, which carries `order` out.
fn with_progress(
    context: &Context,
    installer: &Installer,
    order: &Order<'_>,
    work: impl FnOnce() -> Result<Checked, ItemError>,
) -> Result<Checked, ItemError> {
    let progress = &context.progress;
    let download = order.sources.first().and_then(|source| choose::smallest(&source.narinfo));
    let download_size = download.and_then(|download| download.file_size).unwrap_or_default();
    progress.event(Event::Planned { items: 1, download_size });
    let unpacked = with_ticks(TICK, || installer.report_progress(), work);
    if let Err(error) = &unpacked {
        progress.event(Event::Failed { item: order.item, reason: &chain(error) });
    }
    progress.event(Event::Finished);
    unpacked
}

/// The place for the tree: nothing may be there yet.
fn open_destination(destination: &Path) -> Result<Destination, CliError> {
    let name = destination.file_name().and_then(|name| EntryName::new(name.as_encoded_bytes()));
    let Some(name) = name else {
        let text = format!("--output: {} does not name a file", destination.display());
        return Err(CliError::Usage(text));
    };
    if destination.symlink_metadata().is_ok() {
        let text = format!("--output: {} exists already", destination.display());
        return Err(CliError::Usage(text));
    }
    let parent = match destination.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = open_directory(parent).map_err(|source| CliError::File {
        action: "opening",
        path: parent.to_owned(),
        source,
    })?;
    Ok(Destination::new(directory, parent.to_owned(), name))
}
