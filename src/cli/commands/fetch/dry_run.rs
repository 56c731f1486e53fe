//! `subst fetch --dry-run`: what would be fetched, how large it is, from where.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::cli::confinement::DiskChanges;
use crate::cli::context::{Context, Purpose};
use crate::cli::download_summary;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::{self, count};
use crate::cli::text::widest;
use crate::format::server_url::redacted;
use crate::format::store_path::StorePath;
use crate::substitute::chain;
use crate::substitute::closure::{
    FetchPlan, ItemToDownload, PlannedItem, Planner, References, StoreView, plan_downloads,
};
use crate::substitute::download::plan::PlanLoad;
use crate::substitute::download::rates::MeasuredRates;
use crate::substitute::progress::DownloadSummary;

use super::failures;

/// Changes nothing, so the right to read the store is enough.
pub(super) fn run(
    context: &Context,
    paths: &[StorePath],
    references: References,
) -> Result<Exit, CliError> {
    let store_view = StoreView::Seen(context.store_to_read()?.map(Arc::new));
    let (network, resolver) = context.resolver(Purpose::Fetch, DiskChanges::NONE)?;
    let planner = Planner {
        store_view,
        missing_trees: context.missing_trees(),
        resolver,
        network: Arc::clone(&network),
    };
    let plan = planner.plan(paths, references)?;
    if context.cancel.is_canceled() {
        return Ok(Exit::Interrupted);
    }

    // Answers are stored before the program ends, unless the user interrupts.
    context.cancel.end_at_once();
    drop(planner);

    let rates = MeasuredRates::default().with_lines(network.expected_line_rates());
    let nothing = PlanLoad::new(context.cores as f64);
    let planned = plan_downloads(
        plan.items.iter().map(ItemToDownload::from),
        &network,
        &rates,
        &nothing,
    );
    print_plan(context, &plan, &planned.summary)?;

    failures::print(context, plan.failed.iter());
    let exits = plan.failed.iter().map(|(_, error)| error.class().into());
    Ok(exits.max().unwrap_or(Exit::Done))
}

/// Prints what would be fetched.
fn print_plan(
    context: &Context,
    plan: &FetchPlan,
    summary: &DownloadSummary,
) -> Result<(), CliError> {
    if context.settings.json {
        context.output.json(&as_json(context, plan, summary))?;
        return Ok(());
    }

    context
        .output
        .lines(lines(context, plan).into_iter().map(Into::into))?;
    let downloads = plan.items.iter().filter_map(PlannedItem::download);
    let methods = downloads
        .filter_map(|(_, download)| download.method())
        .collect();
    context.output.note(&format!(
        "{} would be fetched: {}, {} unpacked",
        count(plan.items.len(), "item", "items"),
        output::to_download(plan.download_size(), &methods),
        output::bytes(plan.nar_size()),
    ));

    if !plan.items.is_empty() {
        let text = download_summary::text(summary);
        context.output.note(&format!("plan: {text}"));
    }
    Ok(())
}

/// One line for each item: name, bytes to download, bytes unpacked, server.
fn lines(context: &Context, plan: &FetchPlan) -> Vec<String> {
    let store_dir = context.settings.store_dir();
    let names: Vec<String> = plan
        .items
        .iter()
        .map(|item| store_dir.full_name(&item.path))
        .collect();
    let columns = widest(names.iter().map(String::as_str));

    let rows = plan.items.iter().zip(&names);
    rows.map(|(item, name)| {
        let download = item.download();
        let size = download.and_then(|(_, download)| download.file_size);
        let size = size.map_or_else(|| "-".to_owned(), output::bytes);
        let nar_size = output::bytes(item.authorized.narinfo().nar_size());
        let servers = &context.settings.servers;
        let server = download.map_or("-", |(source, _)| servers[source.server].as_str());
        format!("{name:<columns$} {size:>10} {nar_size:>10}  {server}")
    })
    .collect()
}

fn as_json(context: &Context, plan: &FetchPlan, downloads: &DownloadSummary) -> Value {
    let store_dir = context.settings.store_dir();
    let valid = plan.valid.iter().map(|path| store_dir.full_name(path));
    let fetch = plan.items.iter().map(|item| item_json(context, item));
    let failed = plan
        .failed
        .iter()
        .map(|(path, error)| json!({ "path": store_dir.full_name(path), "reason": chain(error) }));
    json!({
        "valid": valid.collect::<Vec<_>>(),
        "fetch": fetch.collect::<Vec<_>>(),
        "failed": failed.collect::<Vec<_>>(),
        "download_size": plan.download_size(), "nar_size": plan.nar_size(),
        "plan": download_summary::json(downloads),
    })
}

fn item_json(context: &Context, item: &PlannedItem) -> Value {
    let download = item.download();
    let server = download.map(|(source, _)| &context.settings.servers[source.server]);
    let url = download
        .zip(server)
        .and_then(|((source, download), server)| {
            server.nar_url(source.offer.download_url(download)).ok()
        });
    let method = download.and_then(|(_, download)| download.compression.as_ref().ok());
    json!({
        "path": context.settings.store_dir().full_name(&item.path),
        "server": server.map(|server| server.as_str()),
        "url": url.map(|url| redacted(&url)),
        "compression": method.map(|method| method.name()),
        "download_size": download.and_then(|(_, download)| download.file_size),
        "nar_size": item.authorized.narinfo().nar_size(),
    })
}
