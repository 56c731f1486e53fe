//! What the user can do about an item that could not be had.

use std::path::Path;

use crate::store::Remedy;
use crate::substitute::install::{FailureClass, ItemError, UnavailableAt};
use crate::substitute::item_lookup::ItemStatus;
use crate::substitute::outcome::{LookupOutcome, OtherStore};
use crate::trust::verdict::Refusal;

use super::advice::Advice;
use super::output::shown_path;
use super::store_hint::store_hint;

/// What the user can do about an item that could not be had, and whose name is one that the user has
/// given or not.
#[must_use]
pub(crate) fn item_hint(error: &ItemError, advice: &Advice, is_requested: bool) -> Option<String> {
    if let (true, Some(hint)) = (is_requested, name_hint_of(error)) {
        return Some(hint);
    }
    let hint = match error {
        ItemError::Refused {
            first: Refusal::UnauthorizedKey { key },
            ..
        } => advice.trust_signer(std::iter::once(key.as_str())),
        ItemError::NotAvailable { .. } if advice.offline => advice.newer_answer().to_owned(),
        ItemError::NotAvailable {
            status: ItemStatus::Preparing,
            ..
        } => {
            let command = advice.again_with("--wait", "10m");
            format!("{command} waits until it is ready")
        }
        ItemError::NotAvailable {
            status: ItemStatus::Missing,
            answers,
        } => missing_hint(answers, advice, is_requested),
        ItemError::NotAvailable {
            status: ItemStatus::Unknown,
            answers,
        } => unknown_hint(answers, advice),
        ItemError::Refused {
            first: Refusal::TooFewVotes(_),
            ..
        } => advice.too_few_votes(),
        ItemError::Refused {
            first: Refusal::Dissent(_),
            ..
        } => DISSENT_HINT.to_owned(),
        ItemError::OtherContents(_) => {
            "a server with the registered build may have it: --substitute-urls".to_owned()
        }
        ItemError::Refused { .. } => "another server may have it: --substitute-urls".to_owned(),
        ItemError::InvalidReference(_) => {
            "without --no-references, what it refers to is fetched as well".to_owned()
        }
        ItemError::Offline(_) => "leave out --offline to download it".to_owned(),
        ItemError::NoSpace { .. } | ItemError::NoEntries { .. } => {
            format!("{}, or fetch less at a time", advice.space())
        }
        ItemError::MissingTree(path) => advice.repair(path),
        ItemError::Store(error) => return store_hint(error, advice),
        _ if error.class() == FailureClass::Transient => {
            "try again, or with other --substitute-urls".to_owned()
        }
        ItemError::AllFailed(_) if error.class() == FailureClass::Refused => {
            SERVER_FAULT_HINT.to_owned()
        }
        _ => return None,
    };
    Some(hint)
}

/// What the user can do about an item that could not be unpacked in `directory`, which `--output` names; `None` if
/// that has nothing to do with the directory.
#[must_use]
pub(crate) fn output_hint(error: &ItemError, directory: &Path) -> Option<String> {
    let remedy = match error {
        ItemError::NoSpace { .. } | ItemError::NoEntries { .. } => Remedy::Space,
        ItemError::Store(error) => error.remedy()?,
        _ => return None,
    };
    let directory = shown_path(directory);
    let hint = match remedy {
        Remedy::Privileges => format!("{directory} has to be writable for you"),
        Remedy::Space => format!("free some space for {directory}"),
        _ => return None,
    };
    Some(format!("{hint}; --output selects another place"))
}

/// What the user can do about an item that no server has, by their `answers`.
fn missing_hint(answers: &[UnavailableAt], advice: &Advice, is_requested: bool) -> String {
    let hint = match answers {
        [first, ..] if answers.iter().all(|answer| answer.lacks_cache_info) => {
            advice.check_address(&first.server)
        }
        _ => {
            let mistyped = if is_requested {
                " unless its name is mistyped,"
            } else {
                ""
            };
            format!(
                "it has to be built,{mistyped} or another server may have it: --substitute-urls"
            )
        }
    };
    if answers.iter().any(|answer| answer.is_cached) {
        return format!(
            "{hint}; this was answered before: {}",
            advice.newer_answer()
        );
    }
    hint
}

/// What the user can do about an item whose hash a server has under another name, by `outcomes`.
#[must_use]
pub(crate) fn name_hint(outcomes: &[&LookupOutcome]) -> Option<String> {
    let name = outcomes.iter().find_map(|outcome| outcome.other_name())?;
    Some(format!(
        "its name may be mistyped: the server has this hash under the name {name}"
    ))
}

fn name_hint_of(error: &ItemError) -> Option<String> {
    let (ItemError::NotAvailable { answers, .. }
    | ItemError::Refused {
        first: Refusal::WrongItem { .. },
        answers,
    }) = error
    else {
        return None;
    };
    let outcomes = answers.iter().map(|answer| &answer.outcome);
    name_hint(&outcomes.collect::<Vec<_>>())
}

/// What the user can do about an item that servers may have, by their `answers`.
fn unknown_hint(answers: &[UnavailableAt], advice: &Advice) -> String {
    if answers
        .iter()
        .any(|answer| answer.outcome.is_login_required())
    {
        return LOGIN_HINT.to_owned();
    }
    let mut others = answers
        .iter()
        .filter(|answer| !matches!(answer.outcome, LookupOutcome::Missing(_)));
    if others
        .clone()
        .all(|answer| answer.outcome.is_passing_error())
    {
        return SERVER_ERRORS_HINT.to_owned();
    }
    if others.all(|answer| answer.outcome.is_forbidden()) {
        return SERVER_FAULT_HINT.to_owned();
    }
    let other_store = answers.iter().map(|answer| match &answer.outcome {
        LookupOutcome::OtherStore(other) => Some(other),
        _ => None,
    });
    let other_store: Option<Vec<_>> = other_store.collect();
    match other_store.as_deref() {
        Some([OtherStore { ours, .. }, ..]) => {
            format!("name a server for {ours} with --substitute-urls")
        }
        _ => {
            let (servers, newer) = (advice.servers(), advice.newer_answer());
            format!("`{servers}` shows which servers respond; {newer}")
        }
    }
}

/// What the user can do about a server that wants a password or token.
pub(crate) const LOGIN_HINT: &str = "a line `machine HOST login USER password PASSWORD` in ~/.netrc gives it a password; \
     `token-file` in a `[[server]]` table of the settings gives it a token";

/// What the user can do about servers that are overloaded or out of order.
const SERVER_ERRORS_HINT: &str =
    "try again in a few minutes, or name another server with --substitute-urls";

/// What the user can do about a server that works otherwise.
pub(crate) const SERVER_FAULT_HINT: &str =
    "another server may have it: --substitute-urls; tell the administrator of this one";

/// What the user can do about an item whose signers disagree.
pub(crate) const DISSENT_HINT: &str =
    "build it: its build is not reproducible, or one of the signers is wrong";
