//! `subst fetch --output DEST`: one item, unpacked to DEST, without a store.
//!
//! DEST appears complete and verified or not at all, and nothing that is there is replaced: see
//! [`output_staging`].

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use crate::cli::confinement::DiskChanges;
use crate::cli::context::{Context, Purpose};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::kept_text;
use crate::cli::settings::absolute;
use crate::format::nar::EntryName;
use crate::format::store_path::StorePath;
use crate::store::output_staging::{self, OutputStaging};
use crate::store::unpack::{Destination, open_directory};
use crate::substitute::chain;
use crate::substitute::closure::TICK;
use crate::substitute::install::item::AllowedBuilds;
use crate::substitute::install::{AvailableItem, Installer, ItemError};
use crate::substitute::lookup::Resolver;
use crate::substitute::preparation::PreparationWait;
use crate::substitute::progress::{ProgressEvent, with_ticks};

use super::report::FetchReportItem;

pub(super) fn run(
    context: &Context,
    paths: &[StorePath],
    destination: &Path,
) -> Result<Exit, CliError> {
    let [path] = paths else {
        return Err(CliError::Usage(
            "--output takes exactly one item".to_owned(),
        ));
    };

    let shown = destination.display().to_string();
    let destination = open_destination(destination)?;
    if let Err(error) = output_staging::remove_leftovers(&destination) {
        context.output.warn(&chain(&error));
    }

    let mut report_item = FetchReportItem::of(path);
    let (fetched, kept_bytes) = fetch(context, &destination, &mut report_item)?;
    context.cancel.end_at_once();
    if context.settings.json {
        let status = if fetched.is_ok() { "fetched" } else { "failed" };
        let item = report_item.as_json(context, status, fetched.as_ref().err());
        context.output.json(&json!({ "items": [item] }))?;
    } else if fetched.is_ok() {
        context.output.line(&shown)?;
    }

    match fetched {
        Ok(()) => Ok(Exit::Done),
        Err(ItemError::Interrupted) => {
            let kept = kept_text(kept_bytes);
            context.output.note(&format!("interrupted{kept}"));
            Ok(Exit::Interrupted)
        }
        Err(source) => {
            let name = context.settings.store_dir().full_name(path);
            Err(CliError::Item {
                what: format!("cannot fetch {name}"),
                directory: absolute(destination.parent_path()),
                source,
            })
        }
    }
}

/// Unpacks the item that `report_item` is about, after a while if servers are still preparing it, and
/// notes its sizes there. The second result is how many bytes are kept for the next run.
fn fetch(
    context: &Context,
    destination: &Destination,
    report_item: &mut FetchReportItem,
) -> Result<(Result<(), ItemError>, u64), CliError> {
    let changes = DiskChanges {
        store: false,
        directories: &[destination.parent_path()],
    };
    let (network, resolver) = context.resolver(Purpose::Fetch, changes)?;
    let installer = context.installer(&network)?;
    let mut wait = PreparationWait::new(context.settings.wait, context.cancel.clone());
    loop {
        let waits = wait.has_time();
        let unpacked = unpack(context, &resolver, &installer, destination, report_item);
        if let Err(error) = &unpacked {
            if error.is_preparing() && waits {
                wait.wait(1, &*context.progress);
                resolver.discard(report_item.path.clone());
                continue;
            }
            context.progress.event(ProgressEvent::Failed {
                item: &report_item.path,
                reason: format_args!("{}", chain(error)),
            });
        }
        context.progress.event(ProgressEvent::Finished);
        return Ok((unpacked, installer.kept_bytes()));
    }
}

fn unpack(
    context: &Context,
    resolver: &Arc<Resolver>,
    installer: &Installer,
    destination: &Destination,
    report_item: &mut FetchReportItem,
) -> Result<(), ItemError> {
    let item = AvailableItem::find(installer, resolver, &report_item.path)?;
    report_item.download_size = item.download_size();
    report_item.nar_size = Some(item.nar_size());

    let staging = OutputStaging::begin(destination)?;
    let temporary = staging.temporary().clone();
    context.progress.event(ProgressEvent::Planned {
        items: 1,
        download_size: report_item.download_size.unwrap_or_default(),
    });
    with_ticks(
        TICK,
        || installer.report_progress(),
        || {
            let builds = AllowedBuilds::Any;
            let sync = context.settings.sync;
            let checked = item.unpack(installer, resolver, &temporary, None, builds, sync)?;
            temporary.sync_items(sync)?;
            staging.publish(checked, sync)?;
            installer.item_is_complete(&report_item.path);
            Ok(())
        },
    )
}

/// The place for the tree: nothing may be there yet.
fn open_destination(destination: &Path) -> Result<Destination, CliError> {
    let name = destination
        .file_name()
        .and_then(|name| EntryName::new(name.as_encoded_bytes()));
    let Some(name) = name else {
        let text = format!("--output: {} does not name a file", destination.display());
        return Err(CliError::Usage(text));
    };

    if destination.symlink_metadata().is_ok() {
        let text = format!("--output: {} already exists", destination.display());
        return Err(CliError::Usage(text));
    }

    let parent = match destination.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };

    let directory = open_directory(parent).map_err(CliError::output_file("open", parent))?;
    Ok(Destination::new(directory, parent.to_owned(), name))
}
