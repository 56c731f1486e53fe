//! What was copied and what was not, as lines or as JSON (`docs/schema/mirror.json`).

use serde::Serialize;

use crate::cli::args::MirrorArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::mirror_place::MirrorPlace;
use crate::cli::output::{bytes, count, kept_text};
use crate::format::error_text::chain;
use crate::substitute::install::FailureClass;
use crate::substitute::mirror::{MirrorFailure, MirrorReport, MirrorStatus, MirroredItem};

use super::hint::{COPIES_THE_REST, hint};

#[derive(Serialize)]
struct MirrorJson {
    items: Vec<MirroredJson>,
    summary: MirrorSummary,
}

#[derive(Serialize)]
struct MirroredJson {
    path: String,
    status: &'static str,
    reason: Option<String>,
}

/// How many items were copied, were there, and were skipped.
#[derive(Serialize)]
struct MirrorSummary {
    copied: usize,
    planned: usize,
    present: usize,
    skipped: usize,
    nars: u64,
    nar_bytes: u64,
    sent_bytes: u64,
}

/// Prints the names of the items that were copied, or would be, and why others were skipped.
///
/// # Errors
/// The output cannot be written.
pub(super) fn print(
    context: &Context,
    args: &MirrorArgs,
    report: &MirrorReport,
) -> Result<Exit, CliError> {
    let summary = MirrorSummary {
        copied: count_of(report, MirrorStatus::Copied),
        planned: count_of(report, MirrorStatus::Planned),
        present: count_of(report, MirrorStatus::Present),
        skipped: report
            .items
            .iter()
            .filter(|item| item.result.is_err())
            .count(),
        nars: report.nars,
        nar_bytes: report.nar_bytes,
        sent_bytes: report.sent_bytes,
    };

    if context.settings.json {
        let items = report
            .items
            .iter()
            .map(|item| MirroredJson::new(context, item));
        let items = items.collect();
        context.output.json(&MirrorJson { items, summary })?;
    } else {
        print_lines(context, args, report)?;
        context
            .output
            .summary(&summary.text(args.dry_run), &summary);
    }
    Ok(exit(report))
}

/// How a run ends.
pub(super) fn exit(report: &MirrorReport) -> Exit {
    let items = report.items.iter();
    let failures = items.filter_map(|item| item.result.as_ref().err());
    let exits = failures.map(|failure| failure.class().into());
    exits.max().unwrap_or(Exit::Done)
}

/// Prints why nothing more can be copied, and that the next run will not copy `kept` bytes of nars again.
pub(super) fn print_failure(
    context: &Context,
    args: &MirrorArgs,
    failure: &MirrorFailure,
    kept: u64,
) -> Exit {
    if failure.class() == FailureClass::Interrupted {
        let text = format!("interrupted{}", kept_text(kept));
        context.output.note(&text);
        return Exit::Interrupted;
    }
    print_failure_to(context, COPY, &args.to, failure)
}

/// What fails if a copy does.
const COPY: &str = "copy to";

/// Prints why what was to be done, such as `verify`, failed for the mirror `to`.
pub(super) fn print_failure_to(
    context: &Context,
    action: &str,
    to: &MirrorPlace,
    failure: &MirrorFailure,
) -> Exit {
    if failure.class() == FailureClass::Interrupted {
        context.output.note("interrupted");
        return Exit::Interrupted;
    }

    let advice = context.settings.advice();
    let hint = match action == COPY {
        true => hint(failure, to, &advice),
        // Nothing is copied.
        false => hint(failure, to, &advice).map(|hint| hint.replace(COPIES_THE_REST, "")),
    };
    let what = format!("cannot {action} {to}");
    context.output.item_error(&what, failure, hint.as_deref());
    failure.class().into()
}

fn count_of(report: &MirrorReport, status: MirrorStatus) -> usize {
    let statuses = report
        .items
        .iter()
        .filter_map(|item| item.result.as_ref().ok());
    statuses.filter(|found| **found == status).count()
}

fn print_lines(
    context: &Context,
    args: &MirrorArgs,
    report: &MirrorReport,
) -> Result<(), CliError> {
    for item in &report.items {
        let path = context.settings.store_dir().full_name(&item.path);
        match &item.result {
            Ok(MirrorStatus::Present) => {}
            Ok(MirrorStatus::Copied | MirrorStatus::Planned) => context.output.line(&path)?,
            Err(_) => {}
        }
    }
    print_skipped(context, &args.to, report);
    Ok(())
}

/// Prints why items of the mirror `to` were skipped.
pub(super) fn print_skipped(context: &Context, to: &MirrorPlace, report: &MirrorReport) {
    for item in &report.items {
        if let Err(failure) = &item.result {
            let path = context.settings.store_dir().full_name(&item.path);
            let hint = hint(failure, to, &context.settings.advice());
            let what = format!("{path} is skipped");
            context.output.item_error(&what, failure, hint.as_deref());
        }
    }
}

impl MirrorSummary {
    fn text(&self, is_dry_run: bool) -> String {
        let (done, items) = match is_dry_run {
            false => ("copied", self.copied),
            true => ("to copy", self.planned),
        };
        let size = bytes(self.nar_bytes);
        let sent = match self.sent_bytes {
            0 => String::new(),
            sent => format!(", {} sent", bytes(sent)),
        };
        format!(
            "{} {done} ({size} of nars{sent}), {} there already, {} skipped",
            count(items, "item", "items"),
            self.present,
            self.skipped
        )
    }
}

impl MirroredJson {
    fn new(context: &Context, item: &MirroredItem) -> Self {
        let status = match &item.result {
            Ok(MirrorStatus::Present) => "present",
            Ok(MirrorStatus::Copied) => "copied",
            Ok(MirrorStatus::Planned) => "planned",
            Err(_) => "skipped",
        };
        Self {
            path: context.settings.store_dir().full_name(&item.path),
            status,
            reason: item.result.as_ref().err().map(|failure| chain(failure)),
        }
    }
}
