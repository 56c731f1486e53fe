//! The cache-miss report: what was missed, where, why, and what to do about it.
//!
//! Items are grouped by what it means for the user, gravest first. Every answer is shown with
//! who gave it, how old it is, and for how long it counts.

mod group;
mod text;

use serde::Serialize;

use crate::cli::context::Context;
use crate::http::Client;
use crate::substitute::answer::{Answer, Found, Origin, Said};
use crate::substitute::choose;
use crate::substitute::lookup::Resolution;

use super::data;
use group::Group;

/// Everything that the report tells.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    items: Vec<ReportItem>,
    servers: Vec<ServerTotals>,
}

/// One item.
#[derive(Debug, Serialize)]
struct ReportItem {
    path: String,
    status: &'static str,
    group: &'static str,
    must_be_built: bool,
    hint: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    nar: Option<NarProbe>,
    answers: Vec<ReportAnswer>,
    #[serde(skip)]
    kind: Group,
}

/// Whether a proxy in front of the server has the nar itself.
#[derive(Debug, Serialize)]
struct NarProbe {
    url: String,
    status: Option<u16>,
    proxy_cache: Option<String>,
    age: Option<u64>,
    error: Option<String>,
}

/// What one server said of one item.
#[derive(Debug, Serialize)]
struct ReportAnswer {
    server: usize,
    url: String,
    answer: &'static str,
    reason: Option<String>,
    from_cache: bool,
    /// Seconds since the server was asked.
    age: Option<u64>,
    /// Seconds for which the answer counts.
    expires_in: Option<u64>,
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
            let nar = client.and_then(|client| probe(context, client, found));
            if let (Some(source), Some(nar)) = (found.sources.first(), &nar) {
                servers[source.server].count_nar(nar);
            }
            items.push(report_item(context, resolution, found, nar));
        }
        Self { items, servers }
    }

    /// The report for people.
    pub(super) fn lines(&self, context: &Context, resolution: &Resolution) -> Vec<String> {
        let mut lines = text::groups(&self.items);
        lines.extend(text::totals(&self.servers));
        lines.push(super::table::summary(context, resolution));
        lines
    }
}

fn report_item(
    context: &Context,
    resolution: &Resolution,
    found: &Found,
    nar: Option<NarProbe>,
) -> ReportItem {
    let now = context.clock.unix_seconds();
    let kind = Group::of(found);
    let answers = found.answers.iter().enumerate().map(|(server, answer)| {
        let (word, reason) = data::words(&answer.said);
        let (from_cache, age) = match answer.origin {
            Origin::Cache { asked_at, .. } => (true, Some(now.saturating_sub(asked_at))),
            Origin::Network if was_given(&answer.said) => (false, Some(0)),
            Origin::Network => (false, None),
        };
        ReportAnswer {
            server,
            url: resolution.servers[server].url.clone(),
            answer: word,
            reason,
            from_cache,
            age,
            expires_in: answer.expires_at.map(|at| at.saturating_sub(now)),
        }
    });
    ReportItem {
        path: context.settings.store_dir().full_name(&found.path),
        status: found.status.name(),
        group: kind.name(),
        must_be_built: kind.must_be_built(),
        hint: kind.hint(),
        nar,
        answers: answers.collect(),
        kind,
    }
}

/// Whether a server said this, as opposed to our not having an answer.
fn was_given(said: &Said) -> bool {
    !matches!(said, Said::NotAsked | Said::Skipped(_) | Said::Offline)
}

fn probe(context: &Context, client: &Client, found: &Found) -> Option<NarProbe> {
    let source = found.sources.first()?;
    let download = choose::smallest(&source.narinfo)?;
    let field = source.narinfo.download_url(download);
    let url = context.settings.servers[source.server].nar_url(field).ok()?;
    let shown = crate::format::server_url::redacted(&url);
    Some(match client.probe(&url) {
        Ok(probe) => NarProbe {
            url: shown,
            status: Some(probe.status),
            proxy_cache: probe.proxy_cache,
            age: probe.age,
            error: None,
        },
        Err(error) => NarProbe {
            url: shown,
            status: error.status(),
            proxy_cache: None,
            age: None,
            error: Some(crate::substitute::chain(&error)),
        },
    })
}

impl ServerTotals {
    fn count(&mut self, answer: &Answer) {
        if !was_given(&answer.said) {
            return;
        }
        match answer.origin {
            Origin::Cache { .. } => self.from_cache += 1,
            Origin::Network => self.asked += 1,
        }
        match answer.said {
            Said::Authorized | Said::Equivalent(_) => self.available += 1,
            Said::Missing(_) => self.missing += 1,
            Said::Baking(_) => self.preparing += 1,
            Said::Refused(_) | Said::Unusable | Said::Unreadable(_) => self.refused += 1,
            Said::Failed(_) => self.failed += 1,
            Said::NotAsked | Said::Skipped(_) | Said::Offline => {}
        }
    }

    fn count_nar(&mut self, nar: &NarProbe) {
        let word = nar.proxy_cache.as_deref().unwrap_or_default().to_ascii_lowercase();
        if word.contains("hit") || nar.age.is_some_and(|age| age > 0) {
            self.nar_cache_hits += 1;
        } else if word.contains("miss") {
            self.nar_cache_misses += 1;
        }
    }
}
