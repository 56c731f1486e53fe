//! What a query found, as data for scripts. The shape is part of the command line's contract.

use serde::Serialize;

use crate::cli::context::Context;
use crate::format::server_url::redacted;
use crate::substitute::item_lookup::{Authority, ItemLookup};
use crate::substitute::lookup::ServerReport;

use super::findings::QueryFindings;
use super::report::CacheMissReport;
use super::view::{AnswerView, ItemView, QuerySummary, VotesView};

/// Everything.
#[derive(Serialize)]
pub(super) struct QueryJson<'a> {
    servers: Vec<ServerJson<'a>>,
    items: Vec<ItemJson<'a>>,
    summary: QuerySummary,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<&'a CacheMissReport>,
}

#[derive(Serialize)]
struct ServerJson<'a> {
    url: &'a str,
    store_dir: Option<&'a str>,
    want_mass_query: Option<bool>,
    priority: Option<u32>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct ItemJson<'a> {
    path: String,
    status: &'static str,
    server: Option<&'a str>,
    url: Option<String>,
    compression: Option<&'static str>,
    download_size: Option<u64>,
    nar_size: Option<u64>,
    references: Option<Vec<String>>,
    signed_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    votes: Option<VotesView>,
    from_cache: bool,
    expires_in: Option<u64>,
    answers: Vec<AnswerJson<'a>>,
}

/// One server's answer.
#[derive(Serialize)]
struct AnswerJson<'a> {
    server: &'a str,
    #[serde(flatten)]
    view: AnswerView,
}

impl<'a> QueryJson<'a> {
    pub(super) fn new(
        context: &'a Context,
        findings: &'a QueryFindings,
        summary: QuerySummary,
        report: Option<&'a CacheMissReport>,
    ) -> Self {
        let resolution = &findings.resolution;
        let items = resolution.items.iter();
        Self {
            servers: resolution.servers.iter().map(server).collect(),
            items: items.map(|found| item(context, findings, found)).collect(),
            summary,
            report,
        }
    }
}

fn server(server: &ServerReport) -> ServerJson<'_> {
    let info = server.info.as_ref();
    ServerJson {
        url: &server.url,
        store_dir: info.and_then(|info| info.store_dir.as_deref()),
        want_mass_query: info.map(|info| info.want_mass_query),
        priority: info.and_then(|info| info.priority),
        state: server.state.name(),
        reason: server.state.reason(),
    }
}

fn item<'a>(
    context: &'a Context,
    findings: &'a QueryFindings,
    found: &'a ItemLookup,
) -> ItemJson<'a> {
    let store_dir = context.settings.store_dir();
    let now = context.clock.unix_seconds();
    let resolution = &findings.resolution;
    let view = ItemView::of(context, findings, found);
    let authority = found.authority.as_ref();
    let narinfo = authority.map(|authority| authority.narinfo());

    let url = view
        .source
        .zip(view.download)
        .and_then(|(source, download)| {
            let field = source.offer.download_url(download);
            context.settings.servers[source.server].nar_url(field).ok()
        });
    let method = view
        .download
        .and_then(|download| download.compression.as_ref().ok());

    let answers = found.answers.iter().zip(&resolution.servers);
    let answer = view
        .source
        .map(|source| AnswerView::of(&found.answers[source.server], now));

    ItemJson {
        status: view.status.name(),
        server: view
            .source
            .map(|source| resolution.servers[source.server].url.as_str()),
        url: url.map(|url| redacted(&url)),
        compression: method.map(|method| method.name()),
        download_size: view.download_size(),
        nar_size: view.nar_size,
        references: narinfo.map(|narinfo| {
            let references = narinfo.references();
            references.map(|path| store_dir.full_name(path)).collect()
        }),
        signed_by: authority.map(Authority::signed_by),
        votes: VotesView::of(found),
        from_cache: answer.as_ref().is_some_and(|answer| answer.from_cache),
        expires_in: answer.and_then(|answer| answer.expires_in),
        answers: answers
            .map(|(answer, server)| AnswerJson {
                server: &server.url,
                view: AnswerView::of(answer, now),
            })
            .collect(),
        path: view.path,
    }
}
