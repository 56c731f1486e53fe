//! `subst cache`: inspects or clears the lookup cache and the partial downloads beside it.

use std::borrow::Cow;

use serde_json::json;

use crate::cli::args::{CacheCommand, FlushArgs};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::suggestion;
use crate::format::server_url::ServerUrl;
use crate::lookup_cache::{CacheError, CacheStats, CachedAnswer, ListedEntry, LookupCache};
use crate::substitute::download::spool::SpoolUsage;

/// An error names this many servers.
const SHOWN_SERVERS_MAX: usize = 5;

/// Carries the command out.
///
/// # Errors
/// The lookup cache cannot be opened, or failed.
pub(crate) fn run(context: &Context, command: &CacheCommand) -> Result<Exit, CliError> {
    match command {
        CacheCommand::Info => info(context, &mut existing(context)?),
        CacheCommand::List => list(context, &mut existing(context)?),
        CacheCommand::Flush(args) => flush(context, args),
        CacheCommand::Prune => prune(context),
        CacheCommand::Clear => clear(context),
    }
}

fn existing(context: &Context) -> Result<LookupCache, CliError> {
    context.existing_lookup_cache().map_err(failed)
}

fn failed(source: CacheError) -> CliError {
    CliError::LookupCache(source)
}

/// Reports how many entries were removed; `key` names the number in JSON, and `kind` says which entries.
fn report(
    context: &Context,
    cache: &LookupCache,
    key: &str,
    count: u64,
    kind: EntryKind,
) -> Result<Exit, CliError> {
    if context.settings.json {
        context.output.json(&json!({ key: count }))?;
        return Ok(Exit::Done);
    }

    let text = match cache.path() {
        None => no_cache(context),
        Some(path) => format!(
            "{} removed from {}",
            kind.counted(count),
            output::shown_path(path)
        ),
    };
    context.output.note(&text);
    Ok(Exit::Done)
}

/// Which entries were removed.
#[derive(Debug, Clone, Copy)]
enum EntryKind {
    All,
    Expired,
}

impl EntryKind {
    fn counted(self, count: u64) -> String {
        match self {
            Self::All => output::count(count, "entry", "entries"),
            Self::Expired => output::count(count, "expired entry", "expired entries"),
        }
    }
}

fn no_cache(context: &Context) -> String {
    format!("there is no lookup cache at {}", usual_place(context))
}

/// Where the lookup cache is created when it is needed.
fn usual_place(context: &Context) -> String {
    let directory = context.settings.cache_dirs.first();
    directory.map_or_else(String::new, |path| output::shown_path(path))
}

fn prune(context: &Context) -> Result<Exit, CliError> {
    let now = context.clock.unix_seconds();
    let mut cache = existing(context)?;
    let count = cache.remove_expired(now).map_err(failed)?;
    if let Some(spools) = context.existing_partial_downloads() {
        spools.remove_old(now);
    }
    report(context, &cache, "pruned", count, EntryKind::Expired)
}

/// Removes everything that no other process uses.
fn clear(context: &Context) -> Result<Exit, CliError> {
    let mut cache = existing(context)?;
    let entries = cache.remove(None, &[]).map_err(failed)?;
    context.remove_damaged_lookup_caches()?;
    let spools = context.existing_partial_downloads();
    let downloads = spools.map_or(0, |spools| spools.remove_all());
    if context.settings.json {
        let removed = json!({ "forgotten": entries, "partial_downloads": downloads });
        context.output.json(&removed)?;
    } else {
        let entries = output::count(entries, "entry", "entries");
        let downloads = output::count(downloads, "unfinished download", "unfinished downloads");
        let place = cache
            .path()
            .map_or_else(|| usual_place(context), output::shown_path);
        let text = format!("{entries} and {downloads} removed from {place}");
        context.output.note(&text);
    }
    Ok(Exit::Done)
}

fn info(context: &Context, cache: &mut LookupCache) -> Result<Exit, CliError> {
    let now = context.clock.unix_seconds();
    let stats = cache.stats(now).map_err(failed)?;
    let faults = cache.integrity_faults().map_err(failed)?;
    let bytes = cache.file_bytes();
    let path = cache.path().map(|path| path.display().to_string());
    let (directory, partial) = partial_downloads(context);

    if context.settings.json {
        let CacheStats {
            servers,
            positive,
            negative,
            preparing,
            transient,
            refused,
            expired,
            oldest_answered_at: oldest,
            ..
        } = stats;
        context.output.json(&json!({
            "file": path, "bytes": bytes, "servers": servers, "positive": positive,
            "refused": refused, "negative": negative, "baking": preparing, "transient": transient,
            "expired": expired, "oldest_age": oldest.map(|at| now.saturating_sub(at)),
            "sound": faults.is_empty(), "faults": faults,
            "partial_downloads": partial_json(directory, partial),
        }))?;
    } else {
        let mut lines = Vec::new();
        match path {
            Some(path) => {
                lines.push(format!("file       {path}"));
                lines.push(format!("size       {}", output::bytes(bytes)));
                lines.extend(stats_lines(&stats, now));
                lines.push(format!("integrity  {}", integrity(&faults)));
            }
            None => context.output.note(&no_cache(context)),
        }
        lines.push(format!("unfinished {}", partial_text(partial)));
        context.output.lines(lines.into_iter().map(Cow::Owned))?;
    }

    Ok(if faults.is_empty() {
        Exit::Done
    } else {
        Exit::Local
    })
}

fn stats_lines(stats: &CacheStats, now: u64) -> Vec<String> {
    let age = stats.oldest_answered_at.map_or("none".to_owned(), |at| {
        output::duration(now.saturating_sub(at))
    });
    let mut lines: Vec<String> = [
        ("servers", stats.servers),
        ("positive", stats.positive),
        ("refused", stats.refused),
        ("negative", stats.negative),
        ("preparing", stats.preparing),
        ("transient", stats.transient),
        ("expired", stats.expired),
    ]
    .iter()
    .map(|(name, number)| format!("{name:<9}  {number}"))
    .collect();
    lines.push(format!("oldest     {age}"));
    lines
}

fn integrity(faults: &[String]) -> String {
    match faults {
        [] => "ok".to_owned(),
        _ => faults.join("; "),
    }
}

/// The directory of partial downloads, and how many there are.
fn partial_downloads(context: &Context) -> (Option<String>, SpoolUsage) {
    let Some(spools) = context.existing_partial_downloads() else {
        return (None, SpoolUsage::default());
    };
    (Some(spools.path().display().to_string()), spools.usage())
}

fn partial_json(directory: Option<String>, usage: SpoolUsage) -> serde_json::Value {
    json!({ "directory": directory, "files": usage.files, "bytes": usage.bytes })
}

fn partial_text(SpoolUsage { files, bytes }: SpoolUsage) -> String {
    match files {
        0 => "no downloads".to_owned(),
        _ => {
            let downloads = output::count(files, "download", "downloads");
            format!("{downloads}, {}", output::bytes(bytes))
        }
    }
}

fn list(context: &Context, cache: &mut LookupCache) -> Result<Exit, CliError> {
    let now = context.clock.unix_seconds();
    let mut entries = Vec::new();
    cache
        .list(None, &mut |entry| entries.push(entry))
        .map_err(failed)?;

    if context.settings.json {
        let objects: Vec<_> = entries.iter().map(|entry| as_json(entry, now)).collect();
        context.output.json(&objects)?;
    } else if entries.is_empty() {
        let text = match cache.path() {
            None => no_cache(context),
            Some(path) => format!("the lookup cache {} is empty", output::shown_path(path)),
        };
        context.output.note(&text);
    } else {
        let lines = entries.iter().map(|listed| {
            let age = output::duration(listed.entry.age_secs(now));
            let left = time_left(listed.entry.expires_in_secs(now));
            let (kind, item) = (kind(&listed.entry.answer), item(listed));
            Cow::Owned(format!(
                "{kind:<9} {age:>10} old {left:>15}  {item}  {}",
                listed.server
            ))
        });
        context.output.lines(lines)?;
    }
    Ok(Exit::Done)
}

/// How long an answer is used.
fn time_left(seconds: u64) -> String {
    match seconds {
        0 => "expired".to_owned(),
        _ => format!("{} left", output::duration(seconds)),
    }
}

fn as_json(listed: &ListedEntry, now: u64) -> serde_json::Value {
    let reason = match &listed.entry.answer {
        CachedAnswer::Transient { reason } => Some(reason),
        _ => None,
    };
    json!({
        "server": listed.server, "item": item(listed), "answer": kind(&listed.entry.answer),
        "reason": reason, "age": listed.entry.age_secs(now),
        "expires_in": listed.entry.expires_in_secs(now),
    })
}

fn kind(answer: &CachedAnswer) -> &'static str {
    match answer {
        CachedAnswer::Positive { .. } => "positive",
        CachedAnswer::Refused { .. } => "refused",
        CachedAnswer::Negative { .. } => "negative",
        CachedAnswer::Preparing { .. } => "preparing",
        CachedAnswer::Transient { .. } => "transient",
    }
}

/// The item's full name where the answer has it, else its hash part.
fn item(listed: &ListedEntry) -> String {
    if let CachedAnswer::Positive { text, .. } | CachedAnswer::Refused { facts: text } =
        &listed.entry.answer
        && let Some(name) = text
            .lines()
            .find_map(|line| line.strip_prefix("StorePath: "))
    {
        return name.trim().to_owned();
    }
    listed.item.to_string()
}

fn flush(context: &Context, args: &FlushArgs) -> Result<Exit, CliError> {
    let items: Vec<_> = context
        .paths(&args.paths)?
        .iter()
        .map(|path| path.hash_part())
        .collect();
    let mut cache = existing(context)?;
    let server = args
        .server
        .as_deref()
        .map(|url| known_server(context, &mut cache, url))
        .transpose()?;

    let count = cache.remove(server.as_deref(), &items).map_err(failed)?;
    report(context, &cache, "forgotten", count, EntryKind::All)
}

/// The server at `url`, which has answers in the cache, or could have some.
///
/// # Errors
/// It is not a URL; or no server of that URL is known, so that it is probably mistyped.
fn known_server(context: &Context, cache: &mut LookupCache, url: &str) -> Result<String, CliError> {
    let server =
        ServerUrl::parse(url).map_err(|error| CliError::Usage(format!("--server: {error}")))?;
    let server = server.as_str();
    let cached = cache.server_urls().map_err(failed)?;
    let mut configured = context.settings.servers.iter().map(ServerUrl::as_str);
    if cached.iter().any(|known| known == server) || configured.any(|known| known == server) {
        return Ok(server.to_owned());
    }

    let advice = match suggestion::closest(server, "", cached.iter().map(String::as_str)) {
        Some(intended) => format!("did you mean `{intended}`?"),
        None if cached.is_empty() => "the lookup cache is empty".to_owned(),
        None => {
            let shown = cached.iter().take(SHOWN_SERVERS_MAX).cloned();
            format!(
                "`subst cache list` shows those of {}",
                shown.collect::<Vec<_>>().join(", ")
            )
        }
    };
    Err(CliError::Usage(format!(
        "--server: the lookup cache has no answer of {server}; {advice}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_answer_has_no_time_left() {
        assert_eq!(time_left(0), "expired");
        assert_eq!(time_left(59), "59 s left");
    }
}
