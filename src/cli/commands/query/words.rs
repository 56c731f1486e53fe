//! The words for what servers answered, for scripts and for people.

use crate::cli::output::without_url;
use crate::substitute::outcome::{LookupOutcome, NOT_AWAITED, ServerAnswer};
use crate::trust::verdict::Refusal;

/// As much of a key as other places show.
const KEY_DIGITS: usize = 16;

/// An answer as a word for scripts, and the reason when there is one.
pub(super) fn word_and_reason(outcome: &LookupOutcome) -> (&'static str, Option<String>) {
    match outcome {
        LookupOutcome::NotNeeded => ("not-asked", None),
        LookupOutcome::Authorized => ("available", None),
        LookupOutcome::Equivalent(refusal) => ("equivalent", Some(refusal.reason().to_owned())),
        LookupOutcome::Refused(refusal) => ("refused", Some(refusal.reason().to_owned())),
        LookupOutcome::Unusable(why) => ("refused", Some(format!("no-usable-url: {why}"))),
        LookupOutcome::Unreadable(why) => ("refused", Some(format!("unreadable: {why}"))),
        LookupOutcome::Missing(status) => ("missing", Some(format!("HTTP {status}"))),
        LookupOutcome::Preparing(_) => ("preparing", None),
        LookupOutcome::Failed(why) | LookupOutcome::LocalFailure(why) => {
            ("failed", Some(why.clone()))
        }
        LookupOutcome::NotAwaited => ("late", Some(NOT_AWAITED.to_owned())),
        LookupOutcome::Skipped(why) => ("skipped", Some(why.clone())),
        LookupOutcome::OtherStore(why) => ("other-store", Some(why.clone())),
        LookupOutcome::Offline => ("offline", None),
    }
}

/// An answer for people, in a report that names the server and the item.
pub(super) fn sentence(answer: &ServerAnswer) -> String {
    match &answer.outcome {
        LookupOutcome::NotNeeded => "not asked".to_owned(),
        LookupOutcome::Authorized => "has it".to_owned(),
        LookupOutcome::Equivalent(refusal) => format!(
            "has the same content as an authorized server; its own narinfo: {}",
            objection(refusal)
        ),
        LookupOutcome::Refused(refusal) => format!("refused: {}", objection(refusal)),
        LookupOutcome::Unusable(why) => format!("refused: no usable download: {why}"),
        LookupOutcome::Unreadable(why) => format!("refused: not a narinfo: {why}"),
        LookupOutcome::Missing(status) => format!("does not have it (HTTP {status})"),
        LookupOutcome::Preparing(status) => format!("is preparing it (HTTP {status})"),
        LookupOutcome::Failed(why) if answer.is_about_item() => {
            format!("failed: {}", without_url(why))
        }
        LookupOutcome::Failed(why) => format!("no answer: {}", without_url(why)),
        LookupOutcome::LocalFailure(why) => {
            format!("this machine could not ask: {}", without_url(why))
        }
        LookupOutcome::Skipped(why) => format!("not asked, it was down: {}", without_url(why)),
        LookupOutcome::NotAwaited => format!("asked, but not waited for: {NOT_AWAITED}"),
        LookupOutcome::OtherStore(why) => format!("not asked: {why}"),
        LookupOutcome::Offline => "not asked: offline".to_owned(),
    }
}

/// Why the item is not available from this server, in a line that names both; `None` for answers
/// that the item's status says already.
pub(super) fn reason_of_miss(outcome: &LookupOutcome) -> Option<String> {
    match outcome {
        LookupOutcome::Refused(refusal) => Some(refusal.to_string()),
        LookupOutcome::Unreadable(why)
        | LookupOutcome::Failed(why)
        | LookupOutcome::LocalFailure(why)
        | LookupOutcome::Skipped(why)
        | LookupOutcome::OtherStore(why) => Some(why.clone()),
        LookupOutcome::NotAwaited => Some(NOT_AWAITED.to_owned()),
        LookupOutcome::Unusable(why) => Some(format!("no usable download: {why}")),
        LookupOutcome::Offline => Some("not in the lookup cache".to_owned()),
        LookupOutcome::NotNeeded
        | LookupOutcome::Authorized
        | LookupOutcome::Equivalent(_)
        | LookupOutcome::Missing(_)
        | LookupOutcome::Preparing(_) => None,
    }
}

/// Why a narinfo is refused, in a report that names the item anyway.
fn objection(refusal: &Refusal) -> String {
    match refusal {
        Refusal::WrongItem { answered, .. } => format!("it answered for {}", answered.base()),
        Refusal::UnauthorizedKey { key } => {
            // Guix's keys have digits, of which the first suffice; Nix's have names.
            let name = match key.split_once(':') {
                Some((_, digits)) => digits.get(..KEY_DIGITS).unwrap_or(digits),
                None => key,
            };
            format!("signed by the key {name}, which is not authorized")
        }
        other => other.to_string(),
    }
}
