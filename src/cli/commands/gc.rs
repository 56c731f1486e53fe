//! `subst gc`: deletes what no root needs from an embedded store, and unfinished downloads.
//!
//! Prints the names of the deleted items; with `--dry-run` a table of all items, and what keeps those
//! that stay.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::args::GcArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::{bytes, count};
use crate::cli::shell_command::again_with_flag;
use crate::cli::store_hint::store_hint;
use crate::store::{
    GcItem, GcMode, GcProgress, GcReport, GcRequest, Keeper, OpenMode, Store, reclaim_left_space,
};
use crate::substitute::download::spool::SpoolUsage;

use super::roots::shown_root;

const DAY_SECONDS: u64 = 24 * 3600;
/// The time between two messages about progress.
const PROGRESS_PERIOD: Duration = Duration::from_secs(5);

/// Collects as `args` say.
///
/// # Errors
/// It is the system's store, or the collection cannot begin. What was freed until then is printed.
pub(crate) fn run(context: &Context, args: &GcArgs) -> Result<Exit, CliError> {
    context.refuse_system_store("gc", ("guix gc", "nix store gc"))?;
    let age = args.keep_days.map(|days| days * DAY_SECONDS);
    let keep_since = age.map(|age| context.clock.unix_seconds().saturating_sub(age));
    let request = GcRequest {
        mode: match args.dry_run {
            true => GcMode::DryRun,
            false => GcMode::Delete,
        },
        keep_since,
        max_bytes: args.max_size,
    };

    context.cancel.begin_work();
    // What needs no database comes first, since a full disk may have no room for opening it.
    let partial = remove_partial_downloads(context, &request);
    let mut report = GcReport::default();
    let collected = collect(context, &request, &mut report);
    context.cancel.end_at_once();

    let has_freed = report.freed_bytes > 0 || partial.bytes > 0;
    if collected.is_ok() || (has_freed && !args.dry_run) {
        print(context, args, &report, partial)?;
        print_failures(context, &report);
    }
    collected?;
    Ok(match report {
        _ if report.is_interrupted => Exit::Interrupted,
        _ if !report.failures.is_empty() => Exit::Local,
        _ => Exit::Done,
    })
}

/// Collects what `request` says; `report` gets what was done, also if it fails.
fn collect(context: &Context, request: &GcRequest, report: &mut GcReport) -> Result<(), CliError> {
    let mut shown_at = Duration::ZERO;
    let open_mode = match request.mode {
        GcMode::DryRun => OpenMode::ReadOnly,
        GcMode::Delete => OpenMode::Existing(context.settings.sync),
    };
    let layout = &context.settings.layout;
    if request.mode == GcMode::Delete {
        *report = reclaim_left_space(layout, &context.store_observer(), &mut |progress| {
            show_progress(context, &mut shown_at, progress);
        })?;
        if report.is_interrupted {
            return Ok(());
        }
    }

    let store = Store::open(layout.clone(), open_mode, context.store_observer())?;
    report.add(store.collect_garbage(request, &mut |progress| {
        show_progress(context, &mut shown_at, progress);
    })?);
    Ok(())
}

fn print_failures(context: &Context, report: &GcReport) {
    let advice = context.settings.advice();
    for failure in &report.failures {
        let hint = store_hint(failure, &advice);
        context
            .output
            .item_error("cannot delete everything", failure, hint.as_deref());
    }
}

fn show_progress(context: &Context, shown_at: &mut Duration, progress: GcProgress) {
    let now = context.clock.elapsed();
    if now.saturating_sub(*shown_at) < PROGRESS_PERIOD {
        return;
    }
    *shown_at = now;
    let GcProgress {
        done,
        total,
        freed_bytes,
    } = progress;
    let text = format!(
        "deleting: {done} of {total} trees, {} freed",
        bytes(freed_bytes)
    );
    context.output.note(&text);
}

/// Removes the unfinished downloads that no process uses, or those older than what is kept; the ones
/// that are gone, or would be.
fn remove_partial_downloads(context: &Context, request: &GcRequest) -> SpoolUsage {
    let Some(spools) = context.existing_partial_downloads() else {
        return SpoolUsage::default();
    };
    let before = spools.usage();
    if request.mode == GcMode::DryRun {
        return before;
    }

    let files = match request.keep_since {
        Some(time) => spools.remove_before(time),
        None => spools.remove_all(),
    };
    SpoolUsage {
        files,
        bytes: before.bytes.saturating_sub(spools.usage().bytes),
    }
}

fn print(
    context: &Context,
    args: &GcArgs,
    report: &GcReport,
    partial: SpoolUsage,
) -> Result<(), CliError> {
    if context.settings.json {
        context
            .output
            .json(&as_json(context, args, report, partial))?;
    } else if args.dry_run {
        let deleted = report
            .deleted
            .iter()
            .map(|item| row(context, "delete", item, None));
        let kept = report.kept.iter();
        let kept = kept.map(|(item, keeper)| row(context, "keep", item, Some(keeper)));
        context.output.lines(deleted.chain(kept).map(Cow::Owned))?;
    } else {
        let names = report.deleted.iter().map(|item| full_name(context, item));
        context.output.lines(names.map(Cow::Owned))?;
    }

    let freed_bytes = report.freed_bytes.saturating_add(partial.bytes);
    let data = json!({
        "deleted": report.deleted.len(), "kept": report.kept.len(), "freed_bytes": freed_bytes,
    });
    let text = summary(args, report, partial, freed_bytes);
    context.output.summary(&text, &data);
    warn_of_size(context, args, report);
    Ok(())
}

fn summary(args: &GcArgs, report: &GcReport, partial: SpoolUsage, freed_bytes: u64) -> String {
    let items = count(report.deleted.len() as u64, "item", "items");
    let all = report.deleted.len() + report.kept.len();
    let freed = bytes(freed_bytes);
    let mut text = match args.dry_run {
        true => format!(
            "{} of {all} items would be deleted, {freed} freed",
            report.deleted.len()
        ),
        false => format!("{items} deleted, {freed} freed"),
    };

    // Every process leaves a file of temporary roots: those that are removed are not worth a word.
    let others = [
        (
            report.leftovers.len() as u64,
            "incomplete item",
            "incomplete items",
        ),
        (
            report.stale_roots.len() as u64,
            "root that led nowhere",
            "roots that led nowhere",
        ),
        (report.unused_links, "unused link", "unused links"),
        (partial.files, "unfinished download", "unfinished downloads"),
    ];
    let others = others.into_iter().filter(|(number, ..)| *number > 0);
    let others: Vec<String> = others
        .map(|(number, one, many)| count(number, one, many))
        .collect();
    if !others.is_empty() {
        text.push_str(&format!("; also {}", others.join(", ")));
    }
    if report.is_interrupted {
        text = format!("interrupted: {text}");
    }
    text
}

/// Warns if the store is larger than it should be.
fn warn_of_size(context: &Context, args: &GcArgs, report: &GcReport) {
    let (Some(store_bytes), Some(max_bytes)) = (report.store_bytes, args.max_size) else {
        return;
    };
    if store_bytes > max_bytes {
        let (store, max) = (bytes(store_bytes), bytes(max_bytes));
        let keepers = keepers_advice(context, args);
        context.output.warn(&format!(
            "the store takes {store}, more than {max}: everything in it is kept by roots, \
             processes or --keep-days{keepers}"
        ));
    }
}

/// Where to see what keeps each item: in what was just printed, or in a dry run with the same options.
fn keepers_advice(context: &Context, args: &GcArgs) -> String {
    if args.dry_run || context.settings.json {
        return ", as listed for each item".to_owned();
    }
    match again_with_flag(&context.settings.invocation.words, "--dry-run") {
        Some(command) => format!("; {command} shows by which"),
        None => "; the same command with --dry-run shows by which".to_owned(),
    }
}

fn full_name(context: &Context, item: &GcItem) -> String {
    context.settings.store_dir().full_name(&item.path)
}

/// A row of the table.
fn row(context: &Context, action: &str, item: &GcItem, keeper: Option<&Keeper>) -> String {
    let size = bytes(item.nar_size);
    let name = full_name(context, item);
    let keeper = keeper.map(|keeper| format!("  ({})", keeper_text(context, keeper)));
    format!(
        "{action:<6} {size:>10}  {name}{}",
        keeper.unwrap_or_default()
    )
}

fn keeper_text(context: &Context, keeper: &Keeper) -> String {
    match keeper {
        Keeper::Root(link) => format!("root {}", shown_root(context, link)),
        Keeper::TempRoot(process) => format!("temporary root of process {process}"),
        Keeper::Process(process) => format!("in use by process {process}"),
        Keeper::Locked => "locked by another process".to_owned(),
        Keeper::Referrer => "an item that was just registered refers to it".to_owned(),
        Keeper::Age => "younger than --keep-days".to_owned(),
        Keeper::Size => "within --max-size".to_owned(),
    }
}

fn as_json(context: &Context, args: &GcArgs, report: &GcReport, partial: SpoolUsage) -> Value {
    let deleted = report.deleted.iter().map(|item| item_json(context, item));
    let kept = report.kept.iter().map(|(item, keeper)| {
        let mut row = item_json(context, item);
        row["kept_by"] = keeper_json(context, keeper);
        row
    });
    json!({
        "dry_run": args.dry_run, "interrupted": report.is_interrupted,
        "deleted": deleted.collect::<Vec<_>>(), "kept": kept.collect::<Vec<_>>(),
        "leftovers": report.leftovers,
        "stale_roots": report.stale_roots.iter().map(|link| link.to_string_lossy()).collect::<Vec<_>>(),
        "stale_temp_roots": report.stale_temp_roots, "unused_links": report.unused_links,
        "partial_downloads": partial.files,
        "freed_bytes": report.freed_bytes.saturating_add(partial.bytes),
        "store_bytes": report.store_bytes,
    })
}

fn item_json(context: &Context, item: &GcItem) -> Value {
    json!({
        "path": full_name(context, item), "nar_size": item.nar_size,
        "registered_at": item.registered_at,
    })
}

fn keeper_json(context: &Context, keeper: &Keeper) -> Value {
    let (kind, name) = match keeper {
        Keeper::Root(link) => ("root", Some(shown_root(context, link))),
        Keeper::TempRoot(process) => ("temporary-root", Some(process.clone())),
        Keeper::Process(process) => ("process", Some(process.to_string())),
        Keeper::Locked => ("lock", None),
        Keeper::Referrer => ("referrer", None),
        Keeper::Age => ("keep-days", None),
        Keeper::Size => ("max-size", None),
    };
    json!({ "kind": kind, "name": name })
}
