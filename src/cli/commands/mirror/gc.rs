//! `subst mirror gc`: removes items that are not kept from a mirror, and later their nars.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::cli::args::MirrorGcArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::{bytes, count, duration};
use crate::format::store_path::StorePath;
use crate::substitute::mirror::{
    MirrorCollection, MirrorCollector, MirrorFailure, MirrorRetention,
};

use super::target::{self, MirrorAccess};
use super::{items, report};

const DAY_SECONDS: u64 = 24 * 3600;

/// Collects the garbage of the mirror that `args` name.
///
/// # Errors
/// The arguments do not allow it, there is no mirror, or the output cannot be written.
pub(crate) fn run(context: &Context, args: &MirrorGcArgs) -> Result<Exit, CliError> {
    let listed = match &args.keep_list {
        Some(file) => Some(items::of_file(context, file)?),
        None => None,
    };
    let retention = retention(context, args, listed.as_deref());
    let access = match args.dry_run {
        true => MirrorAccess::Read,
        false => MirrorAccess::Change,
    };
    let target = match target::open(context, &args.to, access)? {
        Ok((Some(target), _)) => target,
        Ok((None, _)) => return Err(target::no_mirror(&args.to)),
        Err(failure) => return Ok(print_failure(context, args, &failure)),
    };
    if let Err(failure) = target::check(context, &args.to, &target)? {
        return Ok(print_failure(context, args, &failure));
    }

    context.cancel.begin_work();
    let collector = MirrorCollector {
        target: &target,
        store_dir: context.settings.store_dir(),
        retention: &retention,
        grace: args.grace.map(|grace| grace.as_secs()),
        is_dry_run: args.dry_run,
        clock: &context.clock,
        cancel: &context.cancel,
    };
    let collection = match collector.run() {
        Ok(collection) => collection,
        Err(failure) => return Ok(print_failure(context, args, &failure)),
    };
    if collection.keeps_nothing {
        let text = "--keep-list: the mirror has none of these items; to remove everything, remove the mirror itself";
        return Err(CliError::Usage(text.to_owned()));
    }
    print(context, args, &collection)?;
    warn_about_absent(context, &listed.unwrap_or_default(), &collection);
    Ok(match collection.is_interrupted {
        true => Exit::Interrupted,
        false => Exit::Done,
    })
}

fn print_failure(context: &Context, args: &MirrorGcArgs, failure: &MirrorFailure) -> Exit {
    report::print_failure_to(context, "collect garbage in", &args.to, failure)
}

fn retention(
    context: &Context,
    args: &MirrorGcArgs,
    listed: Option<&[StorePath]>,
) -> MirrorRetention {
    let now = context.clock.unix_seconds();
    let age = args.keep_days.map(|days| days * DAY_SECONDS);
    MirrorRetention {
        items: listed.map(|items| items.iter().map(|item| item.hash_part()).collect()),
        since: age.map(|age| now.saturating_sub(age)),
        max_bytes: args.max_size,
    }
}

/// Says how many of the `listed` items the mirror does not have: their names may be mistyped or outdated.
fn warn_about_absent(context: &Context, listed: &[StorePath], collection: &MirrorCollection) {
    let absent = &collection.absent;
    if let Some(first) = listed
        .iter()
        .find(|item| absent.contains(&item.hash_part()))
    {
        let items = count(absent.len() as u64, "item", "items");
        let first = context.settings.store_dir().full_name(first);
        let text = format!("--keep-list: the mirror does not have {items} of it, such as {first}");
        context.output.warn(&text);
    }
}

fn print(
    context: &Context,
    args: &MirrorGcArgs,
    collection: &MirrorCollection,
) -> Result<(), CliError> {
    let data = as_json(context, args, collection);
    if context.settings.json {
        context.output.json(&data)?;
    } else {
        let names = collection.removed.iter();
        let names = names.map(|(path, _)| context.settings.store_dir().full_name(path));
        context.output.lines(names.map(Cow::Owned))?;
    }
    context
        .output
        .summary(&summary(context, args, collection), &data["summary"]);
    if let Some(max) = args.max_size.filter(|max| collection.kept_bytes > *max) {
        context.output.warn(&format!(
            "the items take {}, more than {}: the rest is kept by --keep-list or --keep-days",
            bytes(collection.kept_bytes),
            bytes(max)
        ));
    }
    Ok(())
}

/// Such as `12 items removed, 30.1 MiB freed; 7 nars (80.0 MiB) stay for clients, the first of them for 3 d 0 h`.
fn summary(context: &Context, args: &MirrorGcArgs, collection: &MirrorCollection) -> String {
    let items = count(collection.removed.len() as u64, "item", "items");
    let nars = count(collection.removed_nars.len() as u64, "nar", "nars");
    let freed = bytes(collection.freed_bytes);
    let mut text = match args.dry_run {
        true => format!("{items} and {nars} would be removed, {freed} freed"),
        false => format!("{items} and {nars} removed, {freed} freed"),
    };
    if let Some(end) = collection.next_end {
        let waiting = count(collection.waiting_nars as u64, "nar stays", "nars stay");
        let size = bytes(collection.waiting_bytes);
        let left = duration(end.saturating_sub(context.clock.unix_seconds()));
        text.push_str(&format!(
            "; {waiting} for clients that have their narinfos ({size}), the first for {left}"
        ));
    }
    match collection.is_interrupted {
        true => format!("interrupted: {text}"),
        false => text,
    }
}

fn as_json(context: &Context, args: &MirrorGcArgs, collection: &MirrorCollection) -> Value {
    let store_dir = context.settings.store_dir();
    let removed = collection.removed.iter();
    let removed =
        removed.map(|(path, size)| json!({ "path": store_dir.full_name(path), "bytes": size }));
    json!({
        "dry_run": args.dry_run, "interrupted": collection.is_interrupted,
        "removed": removed.collect::<Vec<_>>(), "removed_nars": collection.removed_nars,
        "summary": {
            "kept": collection.kept, "kept_bytes": collection.kept_bytes,
            "removed": collection.removed.len(), "removed_nars": collection.removed_nars.len(),
            "freed_bytes": collection.freed_bytes,
            "waiting_nars": collection.waiting_nars, "waiting_bytes": collection.waiting_bytes,
            "grace_seconds": collection.grace, "seconds": context.clock.elapsed().as_secs_f64(),
        },
    })
}
