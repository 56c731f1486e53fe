//! What a verification found, for people: one line for each fault, and a summary.

use std::borrow::Cow;

use crate::cli::context::Context;
use crate::cli::output::{self, Verbosity, count};
use crate::cli::shell_command::again_with_flag;
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
    let status = match finding.repaired {
        true => "repaired",
        false => finding.status.name(),
    };
    line(status, &finding.path, &reason)
}

fn line(status: &str, path: &str, reason: &str) -> String {
    format!("{status:<10}  {path}  {reason}")
}

/// Prints the summary and what can be done to standard error.
pub(super) fn print_summary(context: &Context, view: &VerifyView, is_repair: bool) {
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
    let is_repairable = faults.any(|finding| finding.status != FindingStatus::Database);
    if is_repairable && !is_repair {
        context.output.note(&repair_hint(context));
    }
}

/// How faults of items and of `.links` are repaired.
fn repair_hint(context: &Context) -> String {
    if context.is_system_store() {
        return daemon_repair(context).to_owned();
    }
    let command = again_with_flag(&context.settings.invocation.words, "--repair");
    let command = command.unwrap_or_else(|| "the same command with --repair".to_owned());
    format!("{command} repairs the store")
}

/// How the daemon of the system's store repairs it.
pub(super) fn daemon_repair(context: &Context) -> &'static str {
    match context.settings.store_dir().dialect() {
        Dialect::Guix => "as root, `guix gc --verify=contents,repair` repairs the system's store",
        Dialect::Nix => {
            "as root, `nix-store --verify --check-contents --repair` repairs the system's store"
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
    let mut found: Vec<String> = found
        .map(|(number, status)| match status {
            FindingStatus::Database => count(number as u64, "fault", "faults") + " of the database",
            FindingStatus::Attributes => format!("{number} with wrong attributes"),
            _ => format!("{number} {}", status.name()),
        })
        .collect();
    if !view.not_valid.is_empty() {
        found.push(format!("{} not valid", view.not_valid.len()));
    }
    if found.is_empty() {
        return "no fault found".to_owned();
    }
    let repaired = match view.summary.repaired {
        0 => String::new(),
        number => format!("; {number} repaired"),
    };
    format!("{}{repaired}", found.join(", "))
}
