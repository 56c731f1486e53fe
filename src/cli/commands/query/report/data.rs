//! The report as data: items with the answers of all servers, and totals per server.
//!
//! Items are grouped by what the answers mean for the user, gravest first. Every answer has the server
//! that gave it, its age, and how long it is used.

use serde::Serialize;

use crate::cli::commands::query::findings::{QueryFindings, QueryStatus};
use crate::cli::commands::query::view::{AnswerView, ItemView, VotesView};
use crate::cli::context::Context;
use crate::http::Client;
use crate::substitute::item_lookup::ItemLookup;
use crate::substitute::outcome::{AnswerOrigin, LookupOutcome, ServerAnswer};

use super::group::MissGroup;
use super::hint;
use super::probes::{NarProbe, NarProbes};
use super::totals::ServerTotals;

/// Everything that the report shows.
#[derive(Debug, Serialize)]
pub(in crate::cli::commands::query) struct CacheMissReport {
    pub(super) items: Vec<ReportItem>,
    pub(super) servers: Vec<ServerTotals>,
    /// Items that no server has, may send, or is trusted for.
    pub(super) to_build: usize,
    /// Items about which there is no definite answer.
    pub(super) unknown: usize,
}

/// One item.
#[derive(Debug, Serialize)]
pub(super) struct ReportItem {
    pub(super) path: String,
    status: &'static str,
    #[serde(rename = "group")]
    group_name: &'static str,
    must_be_built: bool,
    pub(super) hint: String,
    pub(super) download_size: Option<u64>,
    pub(super) nar_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    votes: Option<VotesView>,
    pub(super) answers: Vec<ReportAnswer>,
    #[serde(skip)]
    pub(super) group: MissGroup,
    /// Whether the user has named it.
    #[serde(skip)]
    pub(super) is_requested: bool,
}

/// What one server answered about one item.
#[derive(Debug, Serialize)]
pub(super) struct ReportAnswer {
    server: String,
    #[serde(flatten)]
    pub(super) view: AnswerView,
    /// Seconds since the server answered.
    pub(super) age: Option<u64>,
    /// What is known of the nar that the server offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) nar: Option<NarProbe>,
    /// Whether the server's answer was not needed.
    #[serde(skip)]
    pub(super) is_needless: bool,
    /// The answer for people.
    pub(super) detail: String,
}

impl CacheMissReport {
    /// Makes the report; requests the headers of the nars when there is a `client` for that.
    pub(in crate::cli::commands::query) fn make(
        context: &Context,
        findings: &QueryFindings,
        client: Option<&Client>,
    ) -> Self {
        let resolution = &findings.resolution;
        let mut probes = client.map_or_else(NarProbes::none, |client| {
            NarProbes::request(&context.settings.servers, resolution, client)
        });

        let mut servers: Vec<ServerTotals> =
            resolution.servers.iter().map(ServerTotals::new).collect();
        let mut items = Vec::new();
        for found in &resolution.items {
            let item = report_item(context, findings, found, &mut probes);
            let answers = found.answers.iter().zip(&item.answers);
            for (totals, (answer, shown)) in servers.iter_mut().zip(answers) {
                totals.count(answer);
                totals.count_nar(shown.nar.as_ref());
            }
            items.push(item);
        }

        let mut report = Self {
            items,
            servers,
            to_build: 0,
            unknown: 0,
        };
        report.to_build = report.count(MissGroup::must_be_built);
        report.unknown = report.count(MissGroup::is_unknown);
        report
    }

    /// How many items are in groups that `is_counted`.
    pub(in crate::cli::commands::query) fn count(
        &self,
        is_counted: impl Fn(MissGroup) -> bool,
    ) -> usize {
        let groups = self.items.iter().map(|item| item.group);
        groups.filter(|group| is_counted(*group)).count()
    }
}

fn report_item(
    context: &Context,
    findings: &QueryFindings,
    found: &ItemLookup,
    probes: &mut NarProbes,
) -> ReportItem {
    let now = context.clock.unix_seconds();
    let group = match findings.status(found) {
        QueryStatus::Valid => MissGroup::Valid,
        QueryStatus::Lookup(_) => MissGroup::of(found),
    };
    let answers = found
        .answers
        .enumerated()
        .map(|(server_index, answer)| ReportAnswer {
            server: findings.resolution.servers[server_index].url.clone(),
            view: AnswerView::of(answer, now),
            age: age(answer, now),
            nar: probes.take(&found.path, server_index),
            is_needless: matches!(answer.outcome, LookupOutcome::NotNeeded),
            detail: answer.outcome.to_string(),
        });
    let answers = answers.collect();

    let view = ItemView::of(context, findings, found);
    ReportItem {
        is_requested: findings.is_requested(found),
        status: view.status.name(),
        group_name: group.name(),
        must_be_built: group.must_be_built(),
        hint: hint::of(found, findings, group, context),
        download_size: view.download_size(),
        nar_size: view.nar_size,
        votes: VotesView::of(found),
        answers,
        group,
        path: view.path,
    }
}

/// How many seconds ago the server answered; `None` when it did not.
fn age(answer: &ServerAnswer, now: u64) -> Option<u64> {
    match answer.origin {
        AnswerOrigin::Cache { asked_at, .. } => Some(now.saturating_sub(asked_at)),
        AnswerOrigin::Network => answer.outcome.is_from_server().then_some(0),
    }
}
