//! `subst query`: which items are available, and where.

mod data;
mod report;
mod table;
mod wrap;

use std::sync::Arc;

use crate::cli::args::QueryArgs;
use crate::cli::context::{Context, Purpose};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::format::server_url::ServerUrl;
use crate::substitute::lookup::{LookupScope, Resolution};
use crate::substitute::outcome::ItemStatus;

/// Looks up what `args` name and tells what was found.
///
/// # Errors
/// There is no server to ask, keys that cannot be used, or nobody reads the output.
pub(crate) fn run(context: &mut Context, args: &QueryArgs) -> Result<Exit, CliError> {
    if args.probe_nars && context.settings.offline {
        let text = "--probe-nars asks the servers, which --offline forbids";
        return Err(CliError::Usage(text.to_owned()));
    }
    let paths = context.paths(&args.paths)?;
    context.need_servers()?;
    let network = context.network();
    let resolver = context.resolver(Purpose::Report, &network)?;
    let walk = if args.closure {
        LookupScope::Closure(None)
    } else {
        LookupScope::ItemsOnly
    };
    let resolution = resolver.resolve(paths, walk);
    if context.cancel.is_canceled() {
        return Ok(Exit::Interrupted);
    }
    // Bars are cleared before anything is printed, and answers remembered before we end.
    drop(resolver);
    context.progress = Arc::new(crate::substitute::progress::SilentProgress);
    context.cancel.end_at_once();
    let report = args.cache_miss_report.then(|| {
        let urls = context.settings.servers.iter().map(ServerUrl::base);
        let client = args.probe_nars.then(|| network.client_for_all(urls));
        report::Report::make(context, &resolution, client.and_then(Result::ok).as_deref())
    });
    if context.settings.json {
        let value = data::Query::new(context, &resolution, report.as_ref());
        context.output.json(&value)?;
    } else if let Some(report) = report {
        let lines = report.lines(context, &resolution);
        context.output.lines(lines.into_iter().map(Into::into))?;
    } else {
        let width = context.output.terminal_width();
        context
            .output
            .lines(table::lines(context, &resolution, width).map(Into::into))?;
        let data = data::summary(context, &resolution);
        context
            .output
            .summary(&table::note(context, &resolution, width), &data);
    }
    Ok(exit(&resolution))
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
