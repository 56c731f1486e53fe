//! `subst fetch --dry-run`: what would be fetched, how large it is, from where.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::cli::confinement::DiskChanges;
use crate::cli::context::{Context, Purpose};
use crate::cli::download_summary;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::item_failures;
use crate::cli::output::{self, count};
use crate::cli::text::widest;
use crate::format::narinfo::Download;
use crate::format::server_url::redacted;
use crate::format::store_path::StorePath;
use crate::store::RootName;
use crate::substitute::chain;
use crate::substitute::closure::{
    FetchPlan, ItemToDownload, PlannedItem, Planner, References, StoreView, plan_downloads,
};
use crate::substitute::download::plan::PlanLoad;
use crate::substitute::download::rates::MeasuredRates;
use crate::substitute::item_lookup::NarSource;
use crate::substitute::progress::DownloadSummary;

use super::gc_roots::{RootLink, root_links};

/// Changes nothing, so the right to read the store is enough.
pub(super) fn run(
    context: &Context,
    paths: &[StorePath],
    references: References,
    root: Option<&RootName>,
) -> Result<Exit, CliError> {
    let store_view = StoreView::Seen(context.store_to_read()?.map(Arc::new));
    let (network, resolver) = context.resolver(Purpose::Fetch, DiskChanges::NONE)?;
    let planner = Planner {
        store_view,
        missing_trees: context.missing_trees(),
        resolver,
        network: Arc::clone(&network),
    };
    let plan = planner.plan(paths, references);
    if context.cancel.is_canceled() {
        return Ok(Exit::Interrupted);
    }
    let plan = plan?;

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
    let items = plan.items.iter().map(|item| {
        let chosen = planned.download_of(item.into(), &network);
        let download = chosen.or_else(|| item.download());
        ItemToShow { item, download }
    });
    let valid = plan.valid.iter();
    let valid = valid
        .chain(plan.items.iter().map(|item| &item.path))
        .collect();
    let roots = root.map(|name| root_links(name, paths, &valid));
    let items: Vec<ItemToShow> = items.collect();
    print_plan(context, &plan, &items, &planned.summary, roots.as_deref())?;

    item_failures::print(context, "fetch", plan.failed.iter(), paths);
    let exits = plan.failed.iter().map(|(_, error)| error.class().into());
    Ok(exits.max().unwrap_or(Exit::Done))
}

/// An item that would be fetched, and how.
struct ItemToShow<'a> {
    item: &'a PlannedItem,
    /// What would be downloaded, and the server that it is of.
    download: Option<(&'a NarSource, &'a Download)>,
}

impl ItemToShow<'_> {
    /// Bytes to download, if the server says how many.
    fn download_size(&self) -> Option<u64> {
        self.download.and_then(|(_, download)| download.file_size)
    }
}

/// Bytes to download, as far as servers say.
fn download_size(items: &[ItemToShow<'_>]) -> u64 {
    let sizes = items.iter().filter_map(ItemToShow::download_size);
    sizes.fold(0, u64::saturating_add)
}

/// Prints what would be fetched.
fn print_plan(
    context: &Context,
    plan: &FetchPlan,
    items: &[ItemToShow<'_>],
    summary: &DownloadSummary,
    roots: Option<&[RootLink]>,
) -> Result<(), CliError> {
    if context.settings.json {
        let mut json = as_json(context, plan, items, summary);
        if let Some(roots) = roots {
            json["roots"] = roots.iter().map(|root| root.as_json(context)).collect();
        }
        context.output.json(&json)?;
        return Ok(());
    }

    context
        .output
        .lines(lines(context, items).into_iter().map(Into::into))?;
    context.output.note(&sentence(plan, items));
    if !items.is_empty() {
        let text = download_summary::text(summary);
        context.output.note(&format!("plan: {text}"));
    }
    Ok(())
}

/// Totals for people.
fn sentence(plan: &FetchPlan, items: &[ItemToShow<'_>]) -> String {
    let valid = match plan.valid.len() {
        0 => String::new(),
        valid => format!("{valid} valid already"),
    };
    if items.is_empty() {
        let valid = if valid.is_empty() {
            valid
        } else {
            format!(": {valid}")
        };
        return format!("nothing would be fetched{valid}");
    }

    let downloads = items.iter().filter_map(|item| item.download);
    let methods = downloads
        .clone()
        .filter_map(|(_, download)| download.method())
        .collect();
    let unsized_downloads = downloads.filter(|(_, download)| download.file_size.is_none());
    let valid = if valid.is_empty() {
        valid
    } else {
        format!(", {valid}")
    };
    format!(
        "{} would be fetched: {}, {} unpacked{valid}",
        count(items.len(), "item", "items"),
        output::to_download(download_size(items), unsized_downloads.count(), &methods),
        output::bytes(plan.nar_size()),
    )
}

/// One line for each item: name, bytes to download, bytes unpacked, server.
fn lines(context: &Context, items: &[ItemToShow<'_>]) -> Vec<String> {
    let store_dir = context.settings.store_dir();
    let names: Vec<String> = items
        .iter()
        .map(|shown| store_dir.full_name(&shown.item.path))
        .collect();
    let columns = widest(names.iter().map(String::as_str));

    let rows = items.iter().zip(&names);
    rows.map(|(shown, name)| {
        let size = shown.download_size();
        let size = size.map_or_else(|| "-".to_owned(), output::bytes);
        let nar_size = output::bytes(shown.item.nar_size());
        let servers = &context.settings.servers;
        let server = shown
            .download
            .map_or("-", |(source, _)| servers[source.server].as_str());
        format!("{name:<columns$} {size:>10} {nar_size:>10}  {server}")
    })
    .collect()
}

fn as_json(
    context: &Context,
    plan: &FetchPlan,
    items: &[ItemToShow<'_>],
    downloads: &DownloadSummary,
) -> Value {
    let store_dir = context.settings.store_dir();
    let valid = plan.valid.iter().map(|path| store_dir.full_name(path));
    let fetch = items.iter().map(|shown| item_json(context, shown));
    let failed = plan
        .failed
        .iter()
        .map(|(path, error)| json!({ "path": store_dir.full_name(path), "reason": chain(error) }));
    json!({
        "valid": valid.collect::<Vec<_>>(),
        "fetch": fetch.collect::<Vec<_>>(),
        "failed": failed.collect::<Vec<_>>(),
        "download_size": download_size(items), "nar_size": plan.nar_size(),
        "plan": download_summary::json(downloads),
    })
}

fn item_json(context: &Context, shown: &ItemToShow<'_>) -> Value {
    let server = shown
        .download
        .map(|(source, _)| &context.settings.servers[source.server]);
    let url = shown
        .download
        .zip(server)
        .and_then(|((source, download), server)| {
            server.nar_url(source.offer.download_url(download)).ok()
        });
    let method = shown
        .download
        .and_then(|(_, download)| download.compression.as_ref().ok());
    json!({
        "path": context.settings.store_dir().full_name(&shown.item.path),
        "server": server.map(|server| server.as_str()),
        "url": url.map(|url| redacted(&url)),
        "compression": method.map(|method| method.name()),
        "download_size": shown.download_size(),
        "nar_size": shown.item.nar_size(),
    })
}
