//! What a query found, as data for scripts. The shape is part of the command line's contract.

use std::collections::HashMap;

use serde::Serialize;

use crate::cli::context::Context;
use crate::substitute::download::choice;
use crate::substitute::lookup::{Resolution, ServerReport};
use crate::substitute::outcome::{
    AnswerOrigin, ItemLookup, ItemStatus, LookupOutcome, NOT_AWAITED, ServerAnswer,
};

use super::report::Report;

/// Everything.
#[derive(Serialize)]
pub(super) struct Query<'a> {
    servers: Vec<Server<'a>>,
    items: Vec<Item<'a>>,
    summary: Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<&'a Report>,
}

#[derive(Serialize)]
struct Server<'a> {
    url: &'a str,
    store_dir: Option<&'a str>,
    want_mass_query: Option<bool>,
    priority: Option<u32>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct Item<'a> {
    path: String,
    status: &'static str,
    server: Option<&'a str>,
    url: Option<String>,
    compression: Option<&'static str>,
    download_size: Option<u64>,
    nar_size: Option<u64>,
    references: Option<Vec<String>>,
    signed_by: Option<&'a str>,
    from_cache: bool,
    expires_in: Option<u64>,
    answers: Vec<AnswerRow<'a>>,
}

/// One server's answer.
#[derive(Serialize)]
pub(super) struct AnswerRow<'a> {
    server: &'a str,
    answer: &'static str,
    reason: Option<String>,
    from_cache: bool,
    expires_in: Option<u64>,
}

/// Totals.
#[derive(Debug, Default, Serialize)]
pub(super) struct Summary {
    pub(super) available: usize,
    pub(super) missing: usize,
    pub(super) preparing: usize,
    pub(super) refused: usize,
    pub(super) unknown: usize,
    pub(super) download_size: u64,
    pub(super) nar_size: u64,
    pub(super) cache_hits: u64,
    pub(super) cache_misses: u64,
    pub(super) requests: u64,
    pub(super) seconds: f64,
}

impl<'a> Query<'a> {
    pub(super) fn new(
        context: &'a Context,
        resolution: &'a Resolution,
        report: Option<&'a Report>,
    ) -> Self {
        Self {
            servers: resolution.servers.iter().map(server).collect(),
            items: resolution
                .items
                .iter()
                .map(|found| item(context, resolution, found))
                .collect(),
            summary: summary(context, resolution),
            report,
        }
    }
}

fn server(server: &ServerReport) -> Server<'_> {
    Server {
        url: &server.url,
        store_dir: server
            .info
            .as_ref()
            .and_then(|info| info.store_dir.as_deref()),
        want_mass_query: server.info.as_ref().map(|info| info.want_mass_query),
        priority: server.info.as_ref().and_then(|info| info.priority),
        state: server.state.name(),
        reason: server.state.reason(),
    }
}

fn item<'a>(context: &'a Context, resolution: &'a Resolution, found: &'a ItemLookup) -> Item<'a> {
    let store_dir = context.settings.store_dir();
    let now = context.clock.unix_seconds();
    let source = found.sources.first();
    let narinfo = found
        .authority
        .as_ref()
        .map(|authority| authority.narinfo());
    let download = source.and_then(|source| choice::smallest(&source.offer));
    let url = source.zip(download).and_then(|(source, download)| {
        let field = source.offer.download_url(download);
        context.settings.servers[source.server].nar_url(field).ok()
    });
    let answer = source.map(|source| &found.answers[source.server]);
    Item {
        path: store_dir.full_name(&found.path),
        status: found.status.name(),
        server: source.map(|source| resolution.servers[source.server].url.as_str()),
        url: url.map(|url| crate::format::server_url::redacted(&url)),
        compression: download
            .and_then(|download| download.compression.as_ref().ok())
            .map(|method| method.name()),
        download_size: download.and_then(|download| download.file_size),
        nar_size: narinfo.map(|narinfo| narinfo.nar_size()),
        references: narinfo.map(|narinfo| {
            narinfo
                .references()
                .map(|path| store_dir.full_name(path))
                .collect()
        }),
        signed_by: found
            .authority
            .as_ref()
            .map(|authority| authority.authorized().signed_by()),
        from_cache: answer
            .is_some_and(|answer| matches!(answer.origin, AnswerOrigin::Cache { .. })),
        expires_in: answer.and_then(|answer| expires_in(answer, now)),
        answers: found
            .answers
            .iter()
            .zip(&resolution.servers)
            .map(|(answer, server)| answer_row(answer, server, now))
            .collect(),
    }
}

fn answer_row<'a>(answer: &ServerAnswer, server: &'a ServerReport, now: u64) -> AnswerRow<'a> {
    let (word, reason) = words(&answer.outcome);
    AnswerRow {
        server: &server.url,
        answer: word,
        reason,
        from_cache: matches!(answer.origin, AnswerOrigin::Cache { .. }),
        expires_in: expires_in(answer, now),
    }
}

fn expires_in(answer: &ServerAnswer, now: u64) -> Option<u64> {
    answer.expires_at.map(|at| at.saturating_sub(now))
}

/// An answer as a word for scripts, and the reason when there is one.
pub(super) fn words(outcome: &LookupOutcome) -> (&'static str, Option<String>) {
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

pub(super) fn summary(context: &Context, resolution: &Resolution) -> Summary {
    let mut counts: HashMap<ItemStatus, usize> = HashMap::new();
    let mut summary = Summary {
        cache_hits: resolution.cache_hits,
        cache_misses: resolution.cache_misses,
        requests: resolution.requests,
        seconds: context.clock.elapsed().as_secs_f64(),
        ..Summary::default()
    };
    for found in &resolution.items {
        *counts.entry(found.status).or_default() += 1;
        if let Some(authority) = &found.authority {
            let nar_size = authority.narinfo().nar_size();
            summary.nar_size = summary.nar_size.saturating_add(nar_size);
        }
        let download = found
            .sources
            .first()
            .and_then(|source| choice::smallest(&source.offer));
        let file_size = download
            .and_then(|download| download.file_size)
            .unwrap_or(0);
        summary.download_size = summary.download_size.saturating_add(file_size);
    }
    let count = |status| counts.get(&status).copied().unwrap_or(0);
    summary.available = count(ItemStatus::Available);
    summary.missing = count(ItemStatus::Missing);
    summary.preparing = count(ItemStatus::Preparing);
    summary.refused = count(ItemStatus::Refused);
    summary.unknown = count(ItemStatus::Unknown);
    summary
}
