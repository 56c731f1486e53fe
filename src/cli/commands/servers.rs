//! `subst servers`: the status of each server.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::json;

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::{self, printable};
use crate::format::cache_info::CacheInfo;
use crate::format::server_url::ServerUrl;
use crate::http::{CacheInfoResponse, HttpError};
use crate::lookup_cache::{CacheInfoRecord, Downtime, LookupCache};
use crate::substitute::chain;
use crate::substitute::network::Network;

struct Row {
    url: String,
    heard: Heard,
    down: Option<Downtime>,
}

/// What is known of what a server says of itself.
enum Heard {
    /// It was asked, and answered.
    Answer(CacheInfoResponse),
    /// It was asked, and did not answer.
    Failure(Arc<HttpError>),
    /// No request was allowed; what the lookup cache has.
    Remembered(Option<CacheInfoRecord>),
}

/// Asks every server, side by side, and prints a row for each.
///
/// # Errors
/// No server is configured, or the output cannot be written.
pub(crate) fn run(context: &Context) -> Result<Exit, CliError> {
    context.need_servers()?;
    let mut cache = context.lookup_cache();
    let rows = ask(context, &context.network(), &mut cache);
    let now = context.clock.unix_seconds();
    if context.settings.json {
        let rows: Vec<_> = rows.iter().map(|row| as_json(context, row, now)).collect();
        context.output.json(&rows)?;
    } else {
        let lines: Vec<String> = rows
            .iter()
            .flat_map(|row| as_lines(context, row, now))
            .collect();
        context.output.lines(lines.into_iter().map(Cow::Owned))?;
    }

    let works = |row: &Row| match &row.heard {
        Heard::Failure(_) => false,
        Heard::Remembered(_) => true,
        Heard::Answer(said) => state(context, said).0 != ERROR,
    };
    let is_shortage =
        |row: &Row| matches!(&row.heard, Heard::Failure(error) if error.is_shortage());

    Ok(match () {
        () if rows.iter().any(is_shortage) => Exit::Local,
        () if rows.iter().all(works) => Exit::Done,
        () => Exit::Network,
    })
}

fn ask(context: &Context, network: &Network, cache: &mut LookupCache) -> Vec<Row> {
    let servers = &context.settings.servers;
    let answers: Vec<_> = std::thread::scope(|scope| {
        let ask = |server| {
            let thread = std::thread::Builder::new();
            // Without a thread to spare, one is asked after the other.
            thread
                .spawn_scoped(scope, move || ask_one(network, server))
                .map_err(|_| ask_one(network, server))
        };
        let asked: Vec<_> = servers.iter().map(ask).collect();
        let join = |asked| match asked {
            Ok(thread) => std::thread::ScopedJoinHandle::join(thread),
            Err(heard) => Ok(heard),
        };
        asked.into_iter().map(join).collect()
    });

    let rows = servers.iter().zip(answers).filter_map(|(server, said)| {
        let row = cache.server_row(server.as_str());
        let facts = cache.server_facts(row).unwrap_or_default();
        // A panic was already reported by the thread itself.
        let heard = said.ok()?.unwrap_or(Heard::Remembered(facts.cache_info));
        Some(Row {
            url: server.as_str().to_owned(),
            heard,
            down: facts.down,
        })
    });
    rows.collect()
}

/// What a server says of itself; the defaults where it says nothing.
fn info(said: &CacheInfoResponse) -> CacheInfo {
    CacheInfo::parse(said.text.as_deref().unwrap_or_default())
}

/// What the server says; `None` when it may not be asked.
fn ask_one(network: &Network, server: &ServerUrl) -> Option<Heard> {
    if !network.reaches(server.base()) {
        return None;
    }

    let said = network
        .client_for(server.base())
        .and_then(|client| client.cache_info(server).map_err(Arc::new));
    Some(said.map_or_else(Heard::Failure, Heard::Answer))
}

/// The state of a server for scripts, and the reason.
fn state(context: &Context, said: &CacheInfoResponse) -> (&'static str, Option<String>) {
    let store_dir = context.settings.store_dir().as_str();
    match &info(said).store_dir {
        Some(other) if other != store_dir => (
            "other-store",
            Some(format!("its items are for {other}, not for {store_dir}")),
        ),
        _ if said.text.is_some() => ("up", None),
        _ if said.status == 404 => (
            "up",
            Some("it has no nix-cache-info; the defaults hold".into()),
        ),
        _ => (
            ERROR,
            Some(format!(
                "it answers HTTP {} instead of its nix-cache-info",
                said.status
            )),
        ),
    }
}

/// The state of a server that is there and does not work.
const ERROR: &str = "error";

fn as_json(context: &Context, row: &Row, now: u64) -> serde_json::Value {
    let down_ago = row.down.as_ref().map(|down| now.saturating_sub(down.since));
    match &row.heard {
        Heard::Failure(error) => json!({
            "url": row.url, "state": "down", "reason": chain(error), "last_down_ago": down_ago,
        }),
        Heard::Remembered(fact) => {
            let info = fact.as_ref().map(remembered).unwrap_or_default();
            json!({
                "url": row.url, "state": "not-asked", "reason": "offline",
                "store_dir": info.store_dir, "want_mass_query": info.want_mass_query,
                "priority": info.priority, "last_down_ago": down_ago,
                "heard_ago": fact.as_ref().map(|fact| now.saturating_sub(fact.answered_at)),
            })
        }
        Heard::Answer(said) => {
            let info = info(said);
            let (state, reason) = state(context, said);
            json!({
                "url": row.url, "state": state, "reason": reason, "store_dir": info.store_dir,
                "want_mass_query": info.want_mass_query, "priority": info.priority,
                "latency": said.latency.as_secs_f64(), "protocol": said.protocol.name(),
                "last_down_ago": down_ago,
            })
        }
    }
}

fn as_lines(context: &Context, row: &Row, now: u64) -> Vec<String> {
    let mut lines = vec![printable(&row.url).into_owned()];
    match &row.heard {
        Heard::Failure(error) => {
            lines.push(format!(
                "  down: {}",
                printable(&error.without_url().to_string())
            ));
        }
        Heard::Remembered(None) => lines.push("  not asked: offline".to_owned()),
        Heard::Remembered(Some(fact)) => {
            let ago = output::duration(now.saturating_sub(fact.answered_at));
            lines.push(format!("  not asked: offline; what it said {ago} ago:"));
            lines.push(info_line(&remembered(fact)));
        }
        Heard::Answer(said) => {
            let info = info(said);
            let (state, reason) = state(context, said);
            let latency = said.latency.as_secs_f64() * 1000.0;
            lines.push(format!(
                "  {state}, answered in {latency:.0} ms, {}",
                said.protocol.name()
            ));
            lines.extend(reason.map(|reason| format!("  {}", printable(&reason))));
            lines.push(info_line(&info));
        }
    }
    if let Some(down) = &row.down {
        let ago = output::duration(now.saturating_sub(down.since));
        lines.push(format!(
            "  last down {ago} ago: {}",
            printable(&down.reason)
        ));
    }
    lines
}

fn remembered(fact: &CacheInfoRecord) -> CacheInfo {
    CacheInfo::parse(fact.text.as_deref().unwrap_or_default())
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
    let dir = printable(info.store_dir.as_deref().unwrap_or("not said")).into_owned();
    format!("  store {dir}, lookups {queries}, priority {priority}")
}
