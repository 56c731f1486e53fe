//! Carries out `subst verify`.

use crate::cli::args::VerifyArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::format::store_path::StorePath;
use crate::store::verify::{StoreVerification, VerifyScope, VerifyTally, verify};
use crate::store::{Store, StoreError};
use crate::substitute::closure::TICK;
use crate::substitute::progress::{ProgressEvent, VerifyProgress, with_ticks};

use super::lines;
use super::view::VerifyView;

/// Verifies the items that `args` name, or the whole store.
///
/// # Errors
/// The store cannot be read, or the output cannot be written.
pub(crate) fn run(context: &Context, args: &VerifyArgs) -> Result<Exit, CliError> {
    let paths = context.paths(&args.paths)?;
    let Some(store) = context.store_to_read()? else {
        let database = context.settings.layout.database();
        return Err(StoreError::NoStore(database.to_owned()).into());
    };

    let tally = VerifyTally::default();
    let found = verify_with_progress(context, &store, &paths, &tally)?;
    let view = VerifyView::new(context, &found, &tally);
    if context.settings.json {
        context.output.json(&view)?;
    } else {
        lines::print_findings(context, &view)?;
    }
    lines::print_summary(context, &view);
    Ok(view.exit())
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
