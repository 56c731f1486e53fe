//! What a verification found, for people: one line for each fault, and a summary.

use std::borrow::Cow;

use crate::cli::context::Context;
use crate::cli::output::{self, Verbosity, count};
use crate::cli::settings::StoreKind;
use crate::format::store_path::Dialect;
use crate::http::whole_bytes;

use super::view::{FindingStatus, FindingView, VerifySummary, VerifyView};

/// Files of one item that are named in its line.
const FILES_MAX: usize = 3;

/// Prints the faults to standard output.
///
/// # Errors
/// It cannot be written to.
pub(super) fn print_findings(context: &Context, view: &VerifyView) -> std::io::Result<()> {
    let faults = view.findings.iter().map(fault_line);
    let not_valid = view
        .not_valid
        .iter()
        .map(|path| line("not-valid", path, "it is not valid in this store"));
    let lines = faults.chain(not_valid);
    context.output.lines(lines.map(Cow::Owned))
}

fn fault_line(finding: &FindingView) -> String {
    let mut reason = String::new();
    let named = &finding.files[..finding.files.len().min(FILES_MAX)];
    if !named.is_empty() {
        let others = match finding.files.len() - named.len() {
            0 => String::new(),
            others => format!(" and {others} more"),
        };
        reason = format!("{}{others}: ", named.join(", "));
    }
    reason.push_str(&finding.reason);
    line(finding.status.name(), &finding.path, &reason)
}

fn line(status: &str, path: &str, reason: &str) -> String {
    format!("{status:<10}  {path}  {reason}")
}

/// Prints the summary and what can be done to standard error.
pub(super) fn print_summary(context: &Context, view: &VerifyView) {
    if !view.unregistered.is_empty() {
        let items = count(view.unregistered.len(), "item is", "items are");
        let text = format!(
            "{items} in the store directory without being valid; the collector removes such items"
        );
        context.output.note(&text);
        if context.settings.verbosity >= Verbosity::Verbose {
            view.unregistered
                .iter()
                .for_each(|name| context.output.note(name));
        }
    }

    context.output.summary(&summary_text(view), &view.summary);
    let mut faults = view.findings.iter();
    if faults.any(|finding| finding.status != FindingStatus::Database) {
        context.output.note(repair_hint(context));
    }
}

/// How faults of items and of `.links` are repaired.
fn repair_hint(context: &Context) -> &'static str {
    match (
        context.settings.store_kind,
        context.settings.store_dir().dialect(),
    ) {
        (StoreKind::Embedded, _) => "`subst fetch` replaces missing items",
        (StoreKind::System, Dialect::Guix) => {
            "as root, `guix gc --verify=contents,repair` repairs the store"
        }
        (StoreKind::System, Dialect::Nix) => {
            "as root, `nix-store --verify --check-contents --repair` repairs the store"
        }
    }
}

/// Such as `196 items and 2300 files of .links verified in 2.1 s (1.2 GiB, 585.1 MiB/s): 2 damaged`.
fn summary_text(view: &VerifyView) -> String {
    let VerifySummary {
        items,
        entries,
        bytes,
        seconds,
        ..
    } = &view.summary;
    let items = count(*items, "item", "items");
    let entries = count(*entries, "entry", "entries");
    let rate = whole_bytes(*bytes as f64 / seconds.max(1e-3));
    let (bytes, rate) = (output::bytes(*bytes), output::bytes(rate));
    format!(
        "{items} and {entries} of .links verified in {seconds:.1} s ({bytes}, {rate}/s): {}",
        faults_text(view)
    )
}

fn faults_text(view: &VerifyView) -> String {
    let counts = FindingStatus::ALL.map(|status| (view.count(status), status));
    let found = counts.into_iter().filter(|(number, _)| *number > 0);
    let found: Vec<String> = found
        .map(|(number, status)| match status {
            FindingStatus::Database => count(number as u64, "fault", "faults") + " of the database",
            FindingStatus::Attributes => format!("{number} with wrong attributes"),
            _ => format!("{number} {}", status.name()),
        })
        .collect();
    if found.is_empty() {
        return "no fault found".to_owned();
    }
    found.join(", ")
}
