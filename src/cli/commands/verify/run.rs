//! Carries out `subst verify`.

use crate::cli::args::VerifyArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::item_failures;
use crate::format::store_path::StorePath;
use crate::store::verify::{StoreVerification, VerifyScope, VerifyTally, verify};
use crate::store::{Store, StoreError};
use crate::substitute::closure::TICK;
use crate::substitute::install::{FailureClass, ItemError};
use crate::substitute::progress::{ProgressEvent, VerifyProgress, with_ticks};

use super::lines;
use super::repair::{Repairs, repair};
use super::view::VerifyView;

/// Verifies the items that `args` name, or the whole store, and repairs it if that is wanted.
///
/// # Errors
/// The store cannot be read, or not be repaired by this program; or the output cannot be written.
pub(crate) fn run(context: &Context, args: &VerifyArgs) -> Result<Exit, CliError> {
    let paths = context.paths(&args.paths)?;
    if args.repair && context.is_system_store() {
        let text = format!(
            "--repair is for stores below --root; {}",
            lines::daemon_repair(context)
        );
        return Err(CliError::Usage(text));
    }
    let store = context.existing_store()?;

    let tally = VerifyTally::default();
    let (found, repairs) = if args.repair {
        drop(store);
        let store = context.store()?;
        let found = verify_with_progress(context, &store, &paths, &tally)?;
        let repairs = repair(context, &store, &found)?;
        context.cancel.end_at_once();
        (found, repairs)
    } else {
        let found = verify_with_progress(context, &store, &paths, &tally)?;
        (found, Repairs::default())
    };

    let view = VerifyView::new(context, &found, &repairs, &tally);
    if context.settings.json {
        context.output.json(&view)?;
    } else {
        lines::print_findings(context, &view)?;
    }
    print_failures(context, &repairs);
    lines::print_summary(context, &view, args.repair);

    let failure = repairs.class().map_or(Exit::Done, Exit::from);
    Ok(view.exit().max(failure))
}

/// Prints why faults could not be repaired.
fn print_failures(context: &Context, repairs: &Repairs) {
    let failed = repairs.failed_items.iter();
    let failed = failed.filter(|(_, error)| !matches!(error, ItemError::Interrupted));
    item_failures::print(context, "repair", failed, &[]);

    for error in &repairs.failed_entries {
        context.output.error(error, None);
    }
    if repairs.class() == Some(FailureClass::Interrupted) {
        context.output.note("interrupted");
    }
}

fn verify_with_progress(
    context: &Context,
    store: &Store,
    paths: &[StorePath],
    tally: &VerifyTally,
) -> Result<StoreVerification, StoreError> {
    let scope = match paths {
        [] => VerifyScope::All,
        _ => VerifyScope::Items(paths),
    };
    let found = with_ticks(
        TICK,
        || report_progress(context, tally),
        || verify(store, scope, context.cores, tally),
    );
    context.progress.event(ProgressEvent::Finished);
    found
}

fn report_progress(context: &Context, tally: &VerifyTally) {
    let (expected_items, expected_bytes) = tally.expected();
    context
        .progress
        .event(ProgressEvent::Verifying(VerifyProgress {
            items: tally.items(),
            expected_items,
            bytes: tally.bytes(),
            expected_bytes,
        }));
}
