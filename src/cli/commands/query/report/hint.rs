//! What the user can do about an item. It depends on the kind of miss; for an item that only another
//! server than the first has, on the answer of the first.

use crate::cli::advice::Advice;
use crate::cli::commands::query::findings::QueryFindings;
use crate::cli::context::Context;
use crate::cli::item_hint::{DISSENT_HINT, LOGIN_HINT, SERVER_FAULT_HINT, name_hint};
use crate::substitute::item_lookup::ItemLookup;
use crate::substitute::outcome::{LookupOutcome, ServerAnswer};
use crate::trust::verdict::Refusal;

use super::group::MissGroup;

/// What to do about `found`, which is one of `kind`.
pub(super) fn of(
    found: &ItemLookup,
    findings: &QueryFindings,
    kind: MissGroup,
    context: &Context,
) -> String {
    let advice = &context.settings.advice();
    match (kind, found.answers.first()) {
        (MissGroup::WrongItem, _) => {
            of_name(found, findings).unwrap_or_else(|| of_group(kind, advice))
        }
        (MissGroup::Missing | MissGroup::MissingCached, _) => {
            of_missing(found, findings, kind, context)
        }
        (MissGroup::ServerError, _)
            if found
                .answers
                .iter()
                .any(|answer| answer.outcome.is_login_required()) =>
        {
            LOGIN_HINT.to_owned()
        }
        (MissGroup::ServerError, _) if found.answers.iter().all(is_missing_or_forbidden) => {
            SERVER_FAULT_HINT.to_owned()
        }
        (MissGroup::Elsewhere, Some(first)) => of_first(first, advice),
        (MissGroup::UnauthorizedKey, _) => of_key(found.answers.iter(), advice),
        _ => of_group(kind, advice),
    }
}

/// What to do about `found` if its name was typed and a server has its hash under another one.
fn of_name(found: &ItemLookup, findings: &QueryFindings) -> Option<String> {
    let outcomes = found.answers.iter().map(|answer| &answer.outcome);
    let hint = name_hint(&outcomes.collect::<Vec<_>>())?;
    findings.is_requested(found).then_some(hint)
}

/// Whether asking again is of no use.
fn is_missing_or_forbidden(answer: &ServerAnswer) -> bool {
    matches!(answer.outcome, LookupOutcome::Missing(_)) || answer.outcome.is_forbidden()
}

/// What to do about `found`, which no server has.
fn of_missing(
    found: &ItemLookup,
    findings: &QueryFindings,
    kind: MissGroup,
    context: &Context,
) -> String {
    if let Some(hint) = of_name(found, findings) {
        return hint;
    }
    let advice = context.settings.advice();
    let servers = &findings.resolution.servers;
    let hint = if servers.iter().all(|server| server.lacks_cache_info) {
        advice.check_address(servers.first().map_or("", |server| &server.url))
    } else if found.path.is_derivation() {
        advice.derivation(&context.settings.store_dir().full_name(&found.path))
    } else {
        let check = if findings.is_requested(found) {
            "check its name; "
        } else {
            ""
        };
        format!("{check}build it, or name a server that has it with --substitute-urls")
    };
    if kind == MissGroup::MissingCached || advice.offline {
        return format!("{hint}; {}", advice.newer_answer());
    }
    hint
}

fn of_group(kind: MissGroup, advice: &Advice) -> String {
    let hint = match kind {
        MissGroup::BadSignature => {
            "the narinfo was changed or damaged after signing, at the server or on the way; \
             it is not used; tell the server's administrator"
        }
        MissGroup::WrongItem => {
            "the server mixes up its items, or a proxy its answers, which are not used; \
             tell the server's administrator"
        }
        MissGroup::Unusable => "this is not a narinfo with a usable URL; tell its administrator",
        MissGroup::Dissent => DISSENT_HINT,
        MissGroup::TooFewVotes => return advice.too_few_votes(),
        MissGroup::Unsigned => "the server does not sign; its administrator has to set up a key",
        MissGroup::UnauthorizedKey => return of_key(std::iter::empty(), advice),
        MissGroup::Missing | MissGroup::MissingCached => advice.newer_answer(),
        MissGroup::Preparing if advice.offline => advice.newer_answer(),
        MissGroup::Preparing => {
            let command = advice.fetch_with("--wait", "5m");
            return format!("{command} waits until it is ready; built here it may be sooner");
        }
        MissGroup::ServerDown | MissGroup::ServerSkipped => {
            let (servers, newer) = (advice.servers(), advice.newer_answer());
            return format!("`{servers}` shows which servers respond; {newer}");
        }
        MissGroup::ServerError => {
            "try again later, or name another server with \
             --substitute-urls; tell the server's administrator if it stays so"
        }
        MissGroup::OtherStore => {
            "name a server for this store with --substitute-urls, or the store that these are \
             for with --store-dir"
        }
        MissGroup::Offline => "leave out --offline to send requests to the servers",
        MissGroup::Elsewhere | MissGroup::AskedFirst | MissGroup::Cached => NOTHING,
        MissGroup::Valid => "nothing to do: it is in the store",
    };
    hint.to_owned()
}

/// What to do about narinfos that are signed by a key which is not authorized, such as those among
/// `answers`.
fn of_key<'a>(answers: impl Iterator<Item = &'a ServerAnswer>, advice: &Advice) -> String {
    let keys = answers.filter_map(|answer| match &answer.outcome {
        LookupOutcome::Refused(Refusal::UnauthorizedKey { key }) => Some(key.as_str()),
        _ => None,
    });
    advice.trust_signer(keys)
}

/// What to do when the first server gave the answer `first`, and another one has the item.
fn of_first(first: &ServerAnswer, advice: &Advice) -> String {
    let hint = match &first.outcome {
        LookupOutcome::Refused(_) | LookupOutcome::Unusable(_) | LookupOutcome::Unreadable(_) => {
            return match MissGroup::of_refused(first) {
                Some(MissGroup::UnauthorizedKey) => of_key(std::iter::once(first), advice),
                kind => of_group(kind.unwrap_or(MissGroup::Unusable), advice),
            };
        }
        outcome if outcome.is_login_required() => LOGIN_HINT,
        LookupOutcome::Failed(_) => {
            "the first server answers with an error: tell its administrator"
        }
        LookupOutcome::NoResponse(_) => {
            let servers = advice.servers();
            return format!("the first server is down: `{servers}` shows when it is up again");
        }
        LookupOutcome::Skipped(_) => {
            let (servers, newer) = (advice.servers(), advice.newer_answer());
            return format!(
                "the first server was down a moment ago: `{servers}` shows whether it is up \
                 again; {newer}"
            );
        }
        LookupOutcome::NotAwaited => {
            "the first server is slow; if it stays so, name another one before it in \
             --substitute-urls"
        }
        LookupOutcome::OtherStore(_) => {
            "the first server is for another store: remove it from --substitute-urls"
        }
        LookupOutcome::Offline => "leave out --offline to send the request to the first server",
        LookupOutcome::LocalFailure(_) => "raise this machine's limits (`ulimit -a` shows them)",
        LookupOutcome::NotNeeded
        | LookupOutcome::Authorized
        | LookupOutcome::Equivalent(_)
        | LookupOutcome::Missing(_)
        | LookupOutcome::Preparing(_) => NOTHING,
    };
    hint.to_owned()
}

const NOTHING: &str =
    "nothing to do; the order of --substitute-urls decides which server is preferred";
