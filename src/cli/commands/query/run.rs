//! Runs the lookups and prints what was found in the form that the options select.

use std::path::PathBuf;
use std::sync::Arc;

use crate::cli::args::QueryArgs;
use crate::cli::confinement::DiskChanges;
use crate::cli::context::{Context, Purpose};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::text::report_width;
use crate::format::server_url::ServerUrl;
use crate::substitute::item_lookup::{ItemLookup, ItemStatus};
use crate::substitute::network::Network;
use crate::substitute::progress::SilentProgress;

use super::files::QueryFiles;
use super::findings::{QueryFindings, QueryStatus, StoreAndServers, warn_about_store};
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

    let store = context.store_to_read().unwrap_or_else(|error| {
        warn_about_store(context, &error);
        None
    });
    let files = QueryFiles::open(args)?;
    let directories = files.directories();
    let changes = DiskChanges {
        store: false,
        directories: &directories.iter().map(PathBuf::as_path).collect::<Vec<_>>(),
    };
    let (network, resolver) = context.resolver(Purpose::Report, changes)?;
    let lookups = StoreAndServers::look_up(context, &resolver, store.as_ref(), paths, args.closure);
    if context.cancel.is_canceled() {
        return Ok(Exit::Interrupted);
    }
    let lookups = lookups?;

    // Bars are cleared before anything is printed, and answers are stored before the program ends,
    // unless the user interrupts.
    context.cancel.end_at_once();
    drop((resolver, store));
    context.progress = Arc::new(SilentProgress);

    let findings = QueryFindings::new(context, lookups, Arc::clone(&network));
    let summary = QuerySummary::of(context, &findings);
    let is_report_needed = args.cache_miss_report || !files.is_empty();
    let report =
        is_report_needed.then(|| make_report(context, &findings, &network, args.probe_nars));

    // First of all: the result is not lost when a file cannot be written, nor the files when the
    // output cannot be written.
    let shown_report = report.as_ref().filter(|_| args.cache_miss_report);
    let printed = print(context, &findings, &summary, shown_report);
    if let Some(report) = &report {
        files.write(context, report, &summary)?;
    }
    printed?;

    Ok(exit(&findings))
}

fn make_report(
    context: &Context,
    findings: &QueryFindings,
    network: &Network,
    probe_nars: bool,
) -> CacheMissReport {
    let urls = context.settings.servers.iter().map(ServerUrl::base);
    let client = probe_nars.then(|| network.client_for_all(urls));
    CacheMissReport::make(context, findings, client.and_then(Result::ok).as_deref())
}

fn print(
    context: &Context,
    findings: &QueryFindings,
    summary: &QuerySummary,
    report: Option<&CacheMissReport>,
) -> Result<(), CliError> {
    let output = &context.output;
    if context.settings.json {
        output.json(&QueryJson::new(context, findings, summary.clone(), report))?;
    } else if let Some(report) = report {
        let columns = report_width(output.terminal_width());
        let lines = report_lines(report, summary, columns);
        output.lines(lines.into_iter().map(Into::into))?;
    } else {
        let width = output.terminal_width();
        output.lines(table::lines(context, findings, width).map(Into::into))?;
        output.summary(&table::note(summary, width), summary);
    }
    Ok(())
}

fn exit(findings: &QueryFindings) -> Exit {
    let items = findings.resolution.items.iter();
    let exits = items.map(|found| match findings.status(found) {
        QueryStatus::Valid => Exit::Done,
        QueryStatus::Lookup(status) => exit_of_lookup(found, status),
    });
    exits.max().unwrap_or(Exit::Done)
}

fn exit_of_lookup(found: &ItemLookup, status: ItemStatus) -> Exit {
    match status {
        ItemStatus::Available => Exit::Done,
        ItemStatus::Preparing | ItemStatus::Missing => Exit::NotAvailable,
        ItemStatus::Refused => Exit::Refused,
        ItemStatus::Unknown if found.is_local_failure() => Exit::Local,
        ItemStatus::Unknown => Exit::Network,
    }
}
