//! `subst servers`: the status of each server.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::json;

use crate::cli::confinement::DiskChanges;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::format::cache_info::CacheInfo;
use crate::format::server_url::ServerUrl;
use crate::http::{CacheInfoResponse, HttpError, HttpErrorKind};
use crate::lookup_cache::{CacheInfoRecord, Downtime, LookupCache};
use crate::substitute::chain;
use crate::substitute::network::Network;

/// What is shown of one server.
struct ServerStatus {
    url: String,
    cache_info: CacheInfoResult,
    down: Option<Downtime>,
}

/// The server's nix-cache-info, or why there is none.
enum CacheInfoResult {
    Response(CacheInfoResponse),
    Failure(Arc<HttpError>),
    /// No request was allowed; the record of the lookup cache, if it has one.
    Cached(Option<CacheInfoRecord>),
}

impl ServerStatus {
    fn is_working(&self, context: &Context) -> bool {
        match &self.cache_info {
            CacheInfoResult::Failure(_) => false,
            CacheInfoResult::Cached(_) => true,
            CacheInfoResult::Response(response) => state(context, response).0 != ERROR,
        }
    }

    /// Whether the request failed because this machine lacks something.
    fn is_shortage(&self) -> bool {
        matches!(&self.cache_info, CacheInfoResult::Failure(error) if error.is_shortage())
    }
}

/// Requests the nix-cache-info of all servers at the same time, and prints their status.
///
/// # Errors
/// No server is configured, or the output cannot be written.
pub(crate) fn run(context: &Context) -> Result<Exit, CliError> {
    context.need_servers()?;
    let mut cache = context.existing_lookup_cache_or_memory();
    let network = context.network(DiskChanges::NONE)?;
    let servers = request_all(context, &network, &mut cache);
    let now = context.clock.unix_seconds();

    let all = servers.iter();
    if context.settings.json {
        let objects: Vec<_> = all.map(|server| as_json(context, server, now)).collect();
        context.output.json(&objects)?;
    } else {
        let lines = all.flat_map(|server| as_lines(context, server, now));
        context.output.lines(lines.map(Cow::Owned))?;
    }

    Ok(match () {
        () if servers.iter().any(ServerStatus::is_shortage) => Exit::Local,
        () if servers.iter().all(|server| server.is_working(context)) => Exit::Done,
        () => Exit::Network,
    })
}

fn request_all(context: &Context, network: &Network, cache: &mut LookupCache) -> Vec<ServerStatus> {
    let servers = &context.settings.servers;
    let results: Vec<_> = std::thread::scope(|scope| {
        let started: Vec<_> = servers
            .iter()
            .map(|server| {
                // Without a spare thread the requests are sent one after the other.
                std::thread::Builder::new()
                    .spawn_scoped(scope, move || request(network, server))
                    .map_err(|_| request(network, server))
            })
            .collect();
        let results = started.into_iter();
        results
            .map(|started| match started {
                Ok(thread) => thread.join(),
                Err(result) => Ok(result),
            })
            .collect()
    });

    let all = servers.iter().zip(results).filter_map(|(server, result)| {
        let row = cache.server_row(server.as_str());
        let facts = cache.server_facts(row).unwrap_or_default();
        Some(ServerStatus {
            url: server.as_str().to_owned(),
            // A panic was already reported by the thread itself.
            cache_info: result
                .ok()?
                .unwrap_or(CacheInfoResult::Cached(facts.cache_info)),
            down: facts.down,
        })
    });
    all.collect()
}

/// Requests the nix-cache-info of `server`; `None` when no request is allowed.
fn request(network: &Network, server: &ServerUrl) -> Option<CacheInfoResult> {
    if !network.reaches(server.base()) {
        return None;
    }

    let response = network
        .client_for(server.base())
        .and_then(|client| client.cache_info(server).map_err(Arc::new));
    Some(response.map_or_else(CacheInfoResult::Failure, CacheInfoResult::Response))
}

/// The contents of the response; the defaults where it has none.
fn info(response: &CacheInfoResponse) -> CacheInfo {
    CacheInfo::parse(response.text.as_deref().unwrap_or_default())
}

/// The state of a server for scripts, and the reason.
fn state(context: &Context, response: &CacheInfoResponse) -> (&'static str, Option<String>) {
    let store_dir = context.settings.store_dir().as_str();
    match &info(response).store_dir {
        Some(other) if other != store_dir => (
            "other-store",
            Some(format!("its items are for {other}, not for {store_dir}")),
        ),
        _ if response.text.is_some() => ("up", None),
        _ if response.status == 404 => (
            "up",
            Some(
                "it has no nix-cache-info: its address may be wrong; otherwise the defaults hold"
                    .into(),
            ),
        ),
        _ => {
            let error = HttpErrorKind::Status {
                status: response.status,
                retry_after: None,
            };
            (ERROR, Some(error.to_string()))
        }
    }
}

/// The state of a server that responds and does not work.
const ERROR: &str = "error";

fn as_json(context: &Context, server: &ServerStatus, now: u64) -> serde_json::Value {
    let down_ago = server
        .down
        .as_ref()
        .map(|down| now.saturating_sub(down.since));
    let (state, reason) = match &server.cache_info {
        CacheInfoResult::Failure(error) => ("down", Some(chain(error))),
        CacheInfoResult::Cached(_) => ("not-asked", Some("offline".to_owned())),
        CacheInfoResult::Response(response) => state(context, response),
    };
    let (response, record) = match &server.cache_info {
        CacheInfoResult::Failure(_) => (None, None),
        CacheInfoResult::Cached(record) => (None, record.as_ref()),
        CacheInfoResult::Response(response) => (Some(response), None),
    };
    // An error says nothing about the store, not even that the defaults hold.
    let informing = response.filter(|_| state != ERROR);
    let info = informing.map(info).or_else(|| record.map(cached_info));
    json!({
        "url": server.url, "state": state, "reason": reason,
        "store_dir": info.as_ref().and_then(|info| info.store_dir.as_deref()),
        "want_mass_query": info.as_ref().map(|info| info.want_mass_query),
        "priority": info.as_ref().and_then(|info| info.priority),
        "latency": response.map(|response| response.latency.as_secs_f64()),
        "protocol": response.map(|response| response.protocol.name()),
        "last_down_ago": down_ago,
        "heard_ago": record.map(|record| now.saturating_sub(record.answered_at)),
    })
}

fn as_lines(context: &Context, server: &ServerStatus, now: u64) -> Vec<String> {
    let mut lines = vec![server.url.clone()];
    match &server.cache_info {
        CacheInfoResult::Failure(error) => {
            lines.push(format!("  down: {}", error.without_url()));
        }
        CacheInfoResult::Cached(None) => lines.push("  no request sent: offline".to_owned()),
        CacheInfoResult::Cached(Some(record)) => {
            let ago = output::duration(now.saturating_sub(record.answered_at));
            lines.push(format!("  no request sent: offline; its status {ago} ago:"));
            lines.push(info_line(&cached_info(record)));
        }
        CacheInfoResult::Response(response) => {
            let info = info(response);
            let (state, reason) = state(context, response);
            let latency = response.latency.as_secs_f64() * 1000.0;
            lines.push(format!(
                "  {}, answered in {latency:.0} ms, {}",
                state.replace('-', " "),
                response.protocol.name()
            ));
            lines.extend(reason.map(|reason| format!("  {reason}")));
            lines.extend((state != ERROR).then(|| info_line(&info)));
        }
    }

    // Why it is down now is not said twice.
    if let Some(down) = &server.down
        && !lines[lines.len() - 1].ends_with(&*down.reason)
    {
        let ago = output::duration(now.saturating_sub(down.since));
        lines.push(format!("  last down {ago} ago: {}", down.reason));
    }
    lines
}

fn cached_info(record: &CacheInfoRecord) -> CacheInfo {
    CacheInfo::parse(record.text.as_deref().unwrap_or_default())
}

fn info_line(info: &CacheInfo) -> String {
    let queries = if info.want_mass_query {
        "many"
    } else {
        "one connection"
    };
    let priority = info
        .priority
        .map_or("none".to_owned(), |priority| priority.to_string());

    let dir = info.store_dir.as_deref().unwrap_or("not stated");
    format!("  store {dir}, lookups {queries}, priority {priority}")
}
