//! Runs the lookups and prints what was found in the form that the options select.

use std::sync::Arc;

use crate::cli::args::QueryArgs;
use crate::cli::confinement::DiskChanges;
use crate::cli::context::{Context, Purpose};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::format::server_url::ServerUrl;
use crate::substitute::item_lookup::ItemStatus;
use crate::substitute::lookup::{LookupScope, Resolution};
use crate::substitute::network::Network;
use crate::substitute::progress::SilentProgress;

use super::json::QueryJson;
use super::report::{CacheMissReport, report_lines};
use super::table;
use super::view::QuerySummary;

/// Looks up the items that `args` name and prints what was found.
///
/// # Errors
/// No server is configured, a key is invalid, or the output cannot be written.
pub(crate) fn run(context: &mut Context, args: &QueryArgs) -> Result<Exit, CliError> {
    if args.probe_nars && context.settings.offline {
        let text = "--probe-nars sends requests to the servers, which --offline forbids";
        return Err(CliError::Usage(text.to_owned()));
    }
    let paths = context.paths(&args.paths)?;
    context.need_servers()?;

    let (network, resolver) = context.resolver(Purpose::Report, DiskChanges::NONE)?;
    let scope = if args.closure {
        LookupScope::Closure(None)
    } else {
        LookupScope::ItemsOnly
    };
    let resolution = resolver.resolve(paths, scope);
    if context.cancel.is_canceled() {
        return Ok(Exit::Interrupted);
    }

    // Bars are cleared before anything is printed, and answers are stored before the program ends,
    // unless the user interrupts.
    context.cancel.end_at_once();
    drop(resolver);
    context.progress = Arc::new(SilentProgress);

    let report = args
        .cache_miss_report
        .then(|| make_report(context, &resolution, &network, args.probe_nars));
    print(context, &resolution, report.as_ref())?;
    Ok(exit(&resolution))
}

fn make_report(
    context: &Context,
    resolution: &Resolution,
    network: &Network,
    probe_nars: bool,
) -> CacheMissReport {
    let urls = context.settings.servers.iter().map(ServerUrl::base);
    let client = probe_nars.then(|| network.client_for_all(urls));
    CacheMissReport::make(context, resolution, client.and_then(Result::ok).as_deref())
}

fn print(
    context: &Context,
    resolution: &Resolution,
    report: Option<&CacheMissReport>,
) -> Result<(), CliError> {
    let summary = QuerySummary::of(context, resolution);
    let output = &context.output;
    if context.settings.json {
        output.json(&QueryJson::new(context, resolution, summary, report))?;
    } else if let Some(report) = report {
        let lines = report_lines(report, &summary);
        output.lines(lines.into_iter().map(Into::into))?;
    } else {
        let width = output.terminal_width();
        output.lines(table::lines(context, resolution, width).map(Into::into))?;
        output.summary(&table::note(&summary, width), &summary);
    }
    Ok(())
}

fn exit(resolution: &Resolution) -> Exit {
    let exits = resolution.items.iter().map(|found| match found.status {
        ItemStatus::Available => Exit::Done,
        ItemStatus::Preparing | ItemStatus::Missing => Exit::NotAvailable,
        ItemStatus::Refused => Exit::Refused,
        ItemStatus::Unknown if found.is_local_failure() => Exit::Local,
        ItemStatus::Unknown => Exit::Network,
    });
    exits.max().unwrap_or(Exit::Done)
}
