//! The cache-miss report: what was missed, where, why, and what to do about it.
//!
//! Items are grouped by what it means for the user, gravest first. Every answer is shown with
//! who gave it, how old it is, and for how long it counts.

mod group;
mod hint;
mod probes;
mod text;

use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::output::without_url;
use crate::http::Client;
use crate::substitute::download::choice;
use crate::substitute::lookup::Resolution;
use crate::substitute::outcome::{
    AnswerOrigin, ItemLookup, LookupOutcome, NOT_AWAITED, ServerAnswer,
};
use crate::trust::verdict::Refusal;

use super::data;
use super::wrap::wrapped;
use group::Group;
use probes::{NarProbe, Probes};

/// Everything that the report tells.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    items: Vec<ReportItem>,
    servers: Vec<ServerTotals>,
    to_build: usize,
}

/// One item.
#[derive(Debug, Serialize)]
struct ReportItem {
    path: String,
    status: &'static str,
    group: &'static str,
    must_be_built: bool,
    hint: String,
    download_size: Option<u64>,
    nar_size: Option<u64>,
    answers: Vec<ReportAnswer>,
    #[serde(skip)]
    kind: Group,
}

/// What one server said of one item.
#[derive(Debug, Serialize)]
struct ReportAnswer {
    server: String,
    answer: &'static str,
    reason: Option<String>,
    from_cache: bool,
    /// Seconds since the server was asked.
    age: Option<u64>,
    /// Seconds for which the answer counts.
    expires_in: Option<u64>,
    /// What is known of the nar that it offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    nar: Option<NarProbe>,
    #[serde(skip)]
    position: usize,
    /// The answer in words.
    detail: String,
}

/// What one server said altogether.
#[derive(Debug, Default, Serialize)]
struct ServerTotals {
    url: String,
    state: &'static str,
    reason: Option<String>,
    asked: usize,
    from_cache: usize,
    available: usize,
    missing: usize,
    preparing: usize,
    refused: usize,
    failed: usize,
    nar_cache_hits: usize,
    nar_cache_misses: usize,
}

impl Report {
    /// Makes the report; asks for the nars' headers when there is a `client` for that.
    pub(super) fn make(
        context: &Context,
        resolution: &Resolution,
        client: Option<&Client>,
    ) -> Self {
        let mut probes = client.map_or_else(Probes::none, |client| {
            Probes::ask(&context.settings.servers, resolution, client)
        });
        let mut servers: Vec<ServerTotals> = resolution
            .servers
            .iter()
            .map(|server| ServerTotals {
                url: server.url.clone(),
                state: server.state.name(),
                reason: server.state.reason().map(str::to_owned),
                ..ServerTotals::default()
            })
            .collect();
        let mut items = Vec::new();
        for found in &resolution.items {
            for (totals, answer) in servers.iter_mut().zip(&found.answers) {
                totals.count(answer);
            }
            let item = report_item(context, resolution, found, &mut probes);
            for (totals, answer) in servers.iter_mut().zip(&item.answers) {
                totals.count_nar(answer.nar.as_ref());
            }
            items.push(item);
        }
        let to_build = items.iter().filter(|item| item.must_be_built).count();
        Self {
            items,
            servers,
            to_build,
        }
    }

    /// The report for people.
    pub(super) fn lines(&self, context: &Context, resolution: &Resolution) -> Vec<String> {
        let mut lines = text::groups(&self.items, &self.servers);
        lines.extend(text::totals(&self.servers));
        lines.push(String::new());
        lines.extend(text::conclusion(&self.items));
        lines.extend(wrapped(
            &super::table::summary(context, resolution),
            "",
            "  ",
        ));
        lines
    }
}

fn report_item(
    context: &Context,
    resolution: &Resolution,
    found: &ItemLookup,
    probes: &mut Probes,
) -> ReportItem {
    let now = context.clock.unix_seconds();
    let kind = Group::of(found);
    let answers = found.answers.iter().enumerate().map(|(position, answer)| {
        let (word, reason) = data::words(&answer.outcome);
        let (from_cache, age) = match answer.origin {
            AnswerOrigin::Cache { asked_at, .. } => (true, Some(now.saturating_sub(asked_at))),
            AnswerOrigin::Network if was_given(&answer.outcome) => (false, Some(0)),
            AnswerOrigin::Network => (false, None),
        };
        ReportAnswer {
            server: resolution.servers[position].url.clone(),
            answer: word,
            reason,
            from_cache,
            age,
            expires_in: answer.expires_at.map(|at| at.saturating_sub(now)),
            nar: probes.take(&found.path, position),
            position,
            detail: in_words(answer),
        }
    });
    let download = found
        .sources
        .first()
        .and_then(|source| choice::smallest(&source.offer));
    ReportItem {
        path: context.settings.store_dir().full_name(&found.path),
        status: found.status.name(),
        group: kind.name(),
        must_be_built: kind.must_be_built(),
        hint: hint::of(found, kind, &context.settings.advice()),
        download_size: download.and_then(|download| download.file_size),
        nar_size: found
            .authority
            .as_ref()
            .map(|authority| authority.narinfo().nar_size()),
        answers: answers.collect(),
        kind,
    }
}

/// An answer for people.
fn in_words(answer: &ServerAnswer) -> String {
    match &answer.outcome {
        LookupOutcome::NotNeeded => "not asked".to_owned(),
        LookupOutcome::Authorized => "has it".to_owned(),
        LookupOutcome::Equivalent(refusal) => {
            format!(
                "has the same, vouched for by another server; alone {}",
                objection(refusal)
            )
        }
        LookupOutcome::Refused(refusal) => format!("refused: {}", objection(refusal)),
        LookupOutcome::Unusable(why) => {
            format!("refused: it has no download that can be used: {why}")
        }
        LookupOutcome::Unreadable(why) => format!("refused: no narinfo: {why}"),
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

/// Why a narinfo is not believed, in a report that names the item anyway.
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

/// As many as other places show of a key.
const KEY_DIGITS: usize = 16;

/// Whether a server said this, as opposed to our not having an answer.
fn was_given(outcome: &LookupOutcome) -> bool {
    !matches!(
        outcome,
        LookupOutcome::NotNeeded
            | LookupOutcome::Failed(_)
            | LookupOutcome::LocalFailure(_)
            | LookupOutcome::NotAwaited
            | LookupOutcome::Skipped(_)
            | LookupOutcome::OtherStore(_)
            | LookupOutcome::Offline
    )
}

impl ServerTotals {
    fn count(&mut self, answer: &ServerAnswer) {
        match answer.outcome {
            LookupOutcome::NotNeeded
            | LookupOutcome::Skipped(_)
            | LookupOutcome::OtherStore(_)
            | LookupOutcome::Offline => return,
            LookupOutcome::Authorized | LookupOutcome::Equivalent(_) => self.available += 1,
            LookupOutcome::Missing(_) => self.missing += 1,
            LookupOutcome::Preparing(_) => self.preparing += 1,
            LookupOutcome::Refused(_)
            | LookupOutcome::Unusable(_)
            | LookupOutcome::Unreadable(_) => self.refused += 1,
            LookupOutcome::Failed(_)
            | LookupOutcome::LocalFailure(_)
            | LookupOutcome::NotAwaited => self.failed += 1,
        }
        match answer.origin {
            AnswerOrigin::Cache { .. } => self.from_cache += 1,
            AnswerOrigin::Network => self.asked += 1,
        }
    }

    fn count_nar(&mut self, nar: Option<&NarProbe>) {
        match nar.and_then(NarProbe::is_hit) {
            Some(true) => self.nar_cache_hits += 1,
            Some(false) => self.nar_cache_misses += 1,
            None => {}
        }
    }
}
