//! Plans a fetch, carries it out and reports what came of it.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::cli::args::FetchArgs;
use crate::cli::confinement::DiskChanges;
use crate::cli::context::{Context, Purpose};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::format::store_path::StorePath;
use crate::store::{Remedy, Store, StoreError};
use crate::substitute::closure::{
    ClosureFetch, FetchOutcome, FetchPlan, ItemsAhead, OnFailure, Planner, References, StoreView,
};
use crate::substitute::download::read_ahead::ReadAhead;
use crate::substitute::preparation::PreparationWait;

use super::gc_roots::RequestedRoots;
use super::report::FetchReport;
use super::{dry_run, output_tree};

/// Fetches what `args` name.
///
/// # Errors
/// What keeps it from even starting; items that fail are reported one by one.
pub(crate) fn run(context: &Context, args: &FetchArgs) -> Result<Exit, CliError> {
    let paths = context.paths(&args.paths)?;
    if let Some(destination) = &args.output {
        return output_tree::run(context, &paths, destination);
    }

    if args.dry_run {
        return dry_run::run(context, &paths, references(args), args.gc_root.as_ref());
    }

    let store = match context.store() {
        Err(CliError::Store(refused))
            if args.gc_root.is_none() && refused.remedy() == Some(Remedy::Privileges) =>
        {
            return report_valid(context, &paths, refused);
        }
        store => store?,
    };
    fetch_into_store(context, args, &paths, store)
}

/// Fetches `paths` into `store`, and makes roots of them if `args` say so.
fn fetch_into_store(
    context: &Context,
    args: &FetchArgs,
    paths: &[StorePath],
    store: Arc<Store>,
) -> Result<Exit, CliError> {
    let roots = args
        .gc_root
        .as_ref()
        .map(|name| RequestedRoots::prepare(&store, name));
    let roots = roots.transpose()?;
    let directories: Vec<&Path> = roots.iter().map(RequestedRoots::directory).collect();
    let changes = DiskChanges {
        directories: &directories,
        ..DiskChanges::STORE
    };
    let (planner, fetch) = setup(context, args, store, changes)?;
    let plan = planner.plan_and_read_ahead(paths, references(args), &fetch.items_ahead);
    if context.cancel.is_canceled() {
        context.output.note("interrupted");
        return Ok(Exit::Interrupted);
    }
    let plan = plan?;
    let mut report = FetchReport::new(&plan);

    let wanted: HashSet<&StorePath> = paths.iter().collect();
    let mut printed = Ok(());
    let wait = PreparationWait::new(context.settings.wait, context.cancel.clone());
    let outcome = fetch.run_with_waits(&planner, paths, plan, wait, &mut |path| {
        if wanted.contains(path) && printed.is_ok() && !context.settings.json {
            let name = context.settings.store_dir().full_name(path);
            printed = context.output.line(&name);
        }
    })?;

    // While the temp roots of this process still keep the items.
    let mut made = Vec::new();
    let rooted = roots.map_or(Ok(()), |roots| roots.make(paths, &outcome, &mut made));
    report.replanned(&outcome);
    report.kept_bytes = fetch.installer.kept_bytes();
    // Both databases wait for the disk when they are closed: not one after the other. The resolver
    // begins here and is waited for when `fetch` has let go of the store.
    fetch.resolver.finish();
    drop((planner, fetch));
    context.cancel.end_at_once();

    if context.settings.json {
        let mut json = report.as_json(context, &outcome);
        if args.gc_root.is_some() {
            json["roots"] = made.iter().map(|root| root.as_json(context)).collect();
        }
        printed = context.output.json(&json);
    }

    report.print(context, &outcome, paths);
    printed?;
    rooted?;
    Ok(outcome.class().map_or(Exit::Done, Exit::from))
}

/// What is done about what the items refer to.
fn references(args: &FetchArgs) -> References {
    if args.no_references {
        References::MustBeValid
    } else {
        References::Fetch
    }
}

/// Reports items that are all valid, with everything they refer to, in a store that may not be written
/// to, which was `refused`. No lock is taken.
fn report_valid(
    context: &Context,
    paths: &[StorePath],
    refused: StoreError,
) -> Result<Exit, CliError> {
    let Ok(Some(store)) = context.store_to_read() else {
        return Err(refused.into());
    };
    let closure = store.closure(paths)?;
    let is_valid = paths.iter().all(|path| closure.contains(path));
    if !is_valid || !store.missing_trees(closure.items())?.is_empty() {
        return Err(refused.into());
    }

    if context.settings.json {
        let valid = paths.to_vec();
        let report = FetchReport::new(&FetchPlan::default());
        let outcome = FetchOutcome {
            valid,
            ..FetchOutcome::default()
        };
        context.output.json(&report.as_json(context, &outcome))?;
        return Ok(Exit::Done);
    }
    for path in paths {
        context
            .output
            .line(&context.settings.store_dir().full_name(path))?;
    }
    Ok(Exit::Done)
}

fn is_valid(store: &Store, item: &StorePath) -> bool {
    let valid = store.valid_among(std::slice::from_ref(item));
    valid.is_ok_and(|valid| !valid.is_empty())
}

fn setup(
    context: &Context,
    args: &FetchArgs,
    store: Arc<Store>,
    changes: DiskChanges<'_>,
) -> Result<(Planner, ClosureFetch), CliError> {
    let (network, resolver) = context.resolver(Purpose::Fetch, changes)?;
    let settings = &context.settings;
    // The jobs themselves come first where the number is limited.
    let nars_ahead = settings.nars_per_server.saturating_sub(settings.jobs);
    let nars_ahead = nars_ahead.min(settings.read_ahead);
    let read_ahead = ReadAhead::new(Arc::clone(&network), context.cancel.clone(), nars_ahead);
    let read_ahead = Arc::new(read_ahead);

    let mut installer = context.installer(&network)?;
    installer.prefetcher = Some(Arc::<ReadAhead>::clone(&read_ahead));
    let installer = Arc::new(installer);
    let items_ahead = ItemsAhead::new(
        Arc::clone(&store),
        Arc::clone(&installer),
        read_ahead,
        settings.jobs,
    );
    if let Some(spools) = &installer.spools {
        spools.remove_valid(&|item| is_valid(&store, item));
    }

    let planner = Planner {
        store_view: StoreView::Kept(Arc::clone(&store)),
        missing_trees: context.missing_trees(),
        resolver: Arc::clone(&resolver),
        network,
    };
    let fetch = ClosureFetch {
        store,
        resolver,
        installer,
        items_ahead: Arc::new(items_ahead),
        progress: Arc::clone(&context.progress),
        clock: context.clock,
        jobs: context.settings.jobs,
        reported_failures: Mutex::default(),
        on_failure: if args.keep_going {
            OnFailure::KeepGoing
        } else {
            OnFailure::Stop
        },
    };
    Ok((planner, fetch))
}
