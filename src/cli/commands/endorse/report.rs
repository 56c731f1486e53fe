//! What was endorsed and what was not, as lines or as JSON (`docs/schema/endorse.json`).

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::shown_path;
use crate::format::error_text::chain;
use crate::format::store_path::StorePath;
use crate::substitute::endorse::NotEndorsed;
use crate::substitute::outcome::LookupOutcome;

/// One item, and why it was not endorsed.
pub(super) struct EndorsedItem {
    pub(super) item: StorePath,
    pub(super) result: Result<(), NotEndorsed>,
    /// The narinfo of an earlier run that still endorses what the item or the pool is no longer.
    pub(super) outdated: Option<PathBuf>,
}

#[derive(Serialize)]
struct EndorseJson {
    items: Vec<EndorsedJson>,
    summary: EndorseSummary,
}

#[derive(Serialize)]
struct EndorsedJson {
    path: String,
    endorsed: bool,
    reason: Option<String>,
    outdated: Option<PathBuf>,
}

/// How many items were endorsed and how many were not.
#[derive(Serialize)]
struct EndorseSummary {
    endorsed: usize,
    refused: usize,
}

/// Prints the names of the items that were endorsed, and why others were not; `directory` has the narinfos.
///
/// # Errors
/// The output cannot be written.
pub(super) fn print(
    context: &Context,
    directory: &Path,
    items: &[EndorsedItem],
) -> Result<Exit, CliError> {
    let endorsed = items.iter().filter(|item| item.result.is_ok()).count();
    let summary = EndorseSummary {
        endorsed,
        refused: items.len() - endorsed,
    };
    let text = format!("{endorsed} endorsed, {} not endorsed", summary.refused);

    if context.settings.json {
        let items = items.iter().map(|item| EndorsedJson::new(context, item));
        let items = items.collect();
        context.output.json(&EndorseJson { items, summary })?;
    } else {
        print_lines(context, directory, items)?;
        context.output.summary(&text, &summary);
    }
    Ok(items.iter().map(exit).max().unwrap_or(Exit::Done))
}

fn print_lines(
    context: &Context,
    directory: &Path,
    items: &[EndorsedItem],
) -> Result<(), CliError> {
    let store_dir = context.settings.store_dir();
    for item in items {
        let path = store_dir.full_name(&item.item);
        match &item.result {
            Ok(()) => context.output.line(&path)?,
            Err(error) => {
                let what = format!("{path} is not endorsed");
                let outdated = item.outdated.as_deref().map(|narinfo| {
                    let command = context.settings.advice().withdraw(directory, &path);
                    let narinfo = shown_path(narinfo);
                    format!(
                        "{narinfo} still endorses it, from an earlier run; `{command}` removes that"
                    )
                });
                let hint = outdated.or_else(|| hint(error).map(str::to_owned));
                context.output.item_error(&what, error, hint.as_deref());
            }
        }
    }
    Ok(())
}

impl EndorsedJson {
    fn new(context: &Context, item: &EndorsedItem) -> Self {
        Self {
            path: context.settings.store_dir().full_name(&item.item),
            endorsed: item.result.is_ok(),
            reason: item.result.as_ref().err().map(|error| chain(error)),
            outdated: item.outdated.clone(),
        }
    }
}

fn hint(error: &NotEndorsed) -> Option<&'static str> {
    match error {
        NotEndorsed::NotBuilt => Some(
            "build it where it is not valid yet, with `--no-substitutes`; --even-substituted signs what \
             a server has said",
        ),
        NotEndorsed::OtherContent { .. } => {
            Some("`subst challenge --diff` shows in which files the builds differ")
        }
        _ => None,
    }
}

fn exit(item: &EndorsedItem) -> Exit {
    match &item.result {
        Ok(()) => Exit::Done,
        Err(NotEndorsed::NotValid) => Exit::NotAvailable,
        Err(NotEndorsed::Unreadable(_)) => Exit::Local,
        Err(NotEndorsed::NotInPool { outcome, .. }) => match outcome {
            _ if outcome.is_undecided() => Exit::Network,
            LookupOutcome::Missing(_)
            | LookupOutcome::Preparing(_)
            | LookupOutcome::OtherStore(_) => Exit::NotAvailable,
            _ => Exit::Refused,
        },
        Err(_) => Exit::Refused,
    }
}
