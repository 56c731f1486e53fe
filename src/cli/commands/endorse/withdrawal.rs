//! Removes narinfos that earlier runs have signed, and says which (`docs/schema/endorse-withdraw.json`).

use std::path::Path;

use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output_file::OutputFile;
use crate::format::store_path::StorePath;

use super::destination::narinfo_of;

/// More than any narinfo has that this command writes.
const NARINFO_BYTES_MAX: u64 = 1 << 21;

/// Why no narinfo of an item was removed.
#[derive(Debug, thiserror::Error)]
enum NotWithdrawn {
    /// There is none.
    #[error("it is not endorsed there")]
    NotEndorsed,
    /// Its file is that of another item, with the same hash.
    #[error("the narinfo is that of another item")]
    OtherItem,
    /// It belongs to a server that has its nars in the same place.
    #[error("the narinfo was not written by `subst endorse`: its nars are in the same directory")]
    WithNars,
}

#[derive(Serialize)]
struct WithdrawalJson {
    items: Vec<WithdrawnJson>,
    summary: WithdrawalSummary,
}

#[derive(Serialize)]
struct WithdrawnJson {
    path: String,
    withdrawn: bool,
    reason: Option<String>,
}

/// How many narinfos were removed and how many were not.
#[derive(Serialize)]
struct WithdrawalSummary {
    withdrawn: usize,
    refused: usize,
}

/// Removes the narinfos of `items` from `directory`, and prints the names of those items.
///
/// # Errors
/// A narinfo cannot be read or removed.
pub(super) fn run(
    context: &Context,
    directory: &Path,
    items: &[StorePath],
) -> Result<Exit, CliError> {
    let mut results = Vec::with_capacity(items.len());
    for item in items {
        let path = context.settings.store_dir().full_name(item);
        let file = OutputFile::open_to("remove", &narinfo_of(directory, item))?;
        let text = file.read(NARINFO_BYTES_MAX)?;
        let checked = check(text.as_deref(), &path);
        if checked.is_ok() {
            file.remove()?;
        }
        results.push((path, checked));
    }
    print(context, &results)
}

/// Checks that the narinfo `text` is an endorsement of the item `path`.
fn check(text: Option<&str>, path: &str) -> Result<(), NotWithdrawn> {
    let text = text.ok_or(NotWithdrawn::NotEndorsed)?;
    let mut lines = text.lines().filter_map(|line| line.split_once(": "));
    if !lines.clone().any(|line| line == ("StorePath", path)) {
        return Err(NotWithdrawn::OtherItem);
    }
    if lines.any(|(field, value)| field == "URL" && !value.contains("://")) {
        return Err(NotWithdrawn::WithNars);
    }
    Ok(())
}

fn print(
    context: &Context,
    results: &[(String, Result<(), NotWithdrawn>)],
) -> Result<Exit, CliError> {
    let withdrawn = results.iter().filter(|(_, result)| result.is_ok()).count();
    let summary = WithdrawalSummary {
        withdrawn,
        refused: results.len() - withdrawn,
    };
    if context.settings.json {
        let items = results.iter().map(|(path, result)| WithdrawnJson {
            path: path.clone(),
            withdrawn: result.is_ok(),
            reason: result.as_ref().err().map(ToString::to_string),
        });
        let items = items.collect();
        context.output.json(&WithdrawalJson { items, summary })?;
    } else {
        for (path, result) in results {
            match result {
                Ok(()) => context.output.line(path)?,
                Err(error) => {
                    let what = format!("{path} is not withdrawn");
                    context.output.item_error(&what, error, None);
                }
            }
        }
        let text = format!("{withdrawn} withdrawn, {} not withdrawn", summary.refused);
        context.output.summary(&text, &summary);
    }
    Ok(results
        .iter()
        .map(|(_, result)| exit(result))
        .max()
        .unwrap_or(Exit::Done))
}

fn exit(result: &Result<(), NotWithdrawn>) -> Exit {
    match result {
        Ok(()) => Exit::Done,
        Err(NotWithdrawn::NotEndorsed) => Exit::NotAvailable,
        Err(NotWithdrawn::OtherItem | NotWithdrawn::WithNars) => Exit::Refused,
    }
}
