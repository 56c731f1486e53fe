//! `subst fetch`: brings items and everything they refer to into the store.

mod output_tree;

use std::sync::Arc;

use serde_json::json;

use crate::cli::args::FetchArgs;
use crate::cli::context::{Context, Purpose};
use crate::cli::error::{CliError, item_hint};
use crate::cli::exit::Exit;
use crate::cli::output::{self, count, shown};
use crate::cli::settings::Verbosity;
use crate::format::store_path::StorePath;
use crate::store::Store;
use crate::substitute::fetch::{Fetch, OnFailure, Outcome, Plan, References};
use crate::substitute::install::ItemError;

/// Fetches what `args` name.
///
/// # Errors
/// What keeps it from even starting; items that fail are reported one by one.
pub fn run(context: &Context, args: &FetchArgs) -> Result<Exit, CliError> {
    let paths = context.paths(&args.paths)?;
    if let Some(destination) = &args.output {
        return output_tree::run(context, &paths, destination);
    }
    let fetch = setup(context, args)?;
    let references = if args.no_references { References::MustBeValid } else { References::Fetch };
    let plan = fetch.plan(&paths, references)?;
    if context.cancel.is_cancelled() {
        return Ok(Exit::Interrupted);
    }
    if args.dry_run {
        return dry_run(context, &plan);
    }
    let (items, nar_size) = (plan.items.len(), plan.nar_size());
    let store = Arc::clone(&fetch.store);
    let wanted: std::collections::HashSet<&StorePath> = paths.iter().collect();
    let mut printed = Ok(());
    let outcome = fetch.run(plan, &mut |path| {
        if wanted.contains(path) && printed.is_ok() {
            let name = store.layout().store_dir().full_name(path);
            context.progress.aside(&mut || printed = context.output.line(&name));
        }
    });
    drop(fetch);
    report_failures(context, &store, &outcome);
    if items > 0 {
        summary(context, &outcome, items, nar_size);
    }
    printed?;
    Ok(outcome.class().map_or(Exit::Done, Exit::from))
}

fn setup(context: &Context, args: &FetchArgs) -> Result<Fetch, CliError> {
    let store = context.store()?;
    let network = context.network();
    let resolver = context.resolver(Purpose::Fetch, &network)?;
    let installer = Arc::new(context.installer(&network)?);
    Ok(Fetch {
        store,
        resolver,
        installer,
        progress: Arc::clone(&context.progress),
        clock: context.clock,
        jobs: context.settings.jobs,
        on_failure: if args.keep_going { OnFailure::KeepGoing } else { OnFailure::Stop },
    })
}

/// Each failure with its cause; what merely depends on another is counted, not listed.
fn report_failures(context: &Context, store: &Store, outcome: &Outcome) {
    let dialect = store.layout().store_dir().dialect();
    let mut consequences = 0;
    for (path, error) in &outcome.failed {
        match error {
            ItemError::Reference(_) | ItemError::NotTried
                if context.settings.verbosity < Verbosity::Verbose && outcome.failed.len() > 1 =>
            {
                consequences += 1;
            }
            _ => {
                let what = format!("cannot fetch {}", store.layout().store_dir().full_name(path));
                context.output.item_error(&what, error, item_hint(error, dialect).as_deref());
            }
        }
    }
    if consequences > 0 {
        let items = count(consequences, "item was", "items were");
        context.output.note(&format!("{items} not fetched because of that"));
    }
}

fn summary(context: &Context, outcome: &Outcome, items: usize, nar_size: u64) {
    let seconds = context.clock.elapsed().as_secs_f64();
    let registered = outcome.registered.len();
    let text = if registered == items {
        let (items, size) = (count(items, "item", "items"), output::bytes(nar_size));
        format!("{items} fetched, {size} unpacked, in {seconds:.1} s")
    } else {
        format!("{registered} of {items} items fetched in {seconds:.1} s")
    };
    let data = json!({ "fetched": registered, "items": items, "seconds": seconds });
    context.output.summary(&text, &data);
}

fn dry_run(context: &Context, plan: &Plan) -> Result<Exit, CliError> {
    let store_dir = context.settings.store_dir().clone();
    let name = |path: &StorePath| store_dir.full_name(path);
    if context.settings.json {
        let items: Vec<_> = plan
            .items
            .iter()
            .map(|item| {
                let server = item.sources.first().map(|source| source.server);
                json!({
                    "path": name(&item.path),
                    "server": server.map(|server| context.settings.servers[server].as_str()),
                    "nar_size": item.authorized.narinfo().nar_size(),
                })
            })
            .collect();
        let failed: Vec<_> = plan
            .failed
            .iter()
            .map(|(path, error)| json!({"path": name(path), "reason": error.to_string()}))
            .collect();
        let valid: Vec<_> = plan.valid.iter().map(name).collect();
        let value = json!({
            "valid": valid, "fetch": items, "failed": failed,
            "download_size": plan.download_size(), "nar_size": plan.nar_size(),
        });
        context.output.json(&value)?;
    } else {
        for item in &plan.items {
            let size = output::bytes(item.authorized.narinfo().nar_size());
            let server = item
                .sources
                .first()
                .map_or("", |source| context.settings.servers[source.server].as_str());
            let line = format!("{}  {size}  {}", name(&item.path), shown(server));
            context.output.line(&line)?;
        }
        let (download, unpacked) = (plan.download_size(), plan.nar_size());
        context.output.note(&format!(
            "{} would be fetched: {} to download, {} unpacked",
            count(plan.items.len(), "item", "items"),
            output::bytes(download),
            output::bytes(unpacked),
        ));
    }
    let mut exit = Exit::Done;
    let dialect = store_dir.dialect();
    for (path, error) in &plan.failed {
        let what = format!("cannot fetch {}", name(path));
        context.output.item_error(&what, error, item_hint(error, dialect).as_deref());
        exit = exit.max(error.class().into());
    }
    Ok(exit)
}
