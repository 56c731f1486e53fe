//! Looking into the cache as a whole, and clearing it: what `subst cache` shows and does.

use rusqlite::{Connection, params};

use super::db::{self, CachedVerdicts, NEGATIVE, POSITIVE, PREPARING, REFUSED, TRANSIENT};
use super::entry::CacheEntry;
use super::expiry;
use super::line_rate;
use crate::format::store_path::HashPart;

/// An entry together with what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedEntry {
    /// The server's URL.
    pub(crate) server: String,
    /// The item.
    pub(crate) item: HashPart,
    /// The answer.
    pub(crate) entry: CacheEntry,
}

/// How much is in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct CacheStats {
    /// Narinfos.
    pub(crate) positive: u64,
    /// Narinfos that were refused.
    pub(crate) refused: u64,
    /// Items that a server does not have.
    pub(crate) negative: u64,
    /// Items being prepared.
    pub(crate) preparing: u64,
    /// Failures.
    pub(crate) transient: u64,
    /// How many of all these do not count any more.
    pub(crate) expired: u64,
    /// How many servers are known.
    pub(crate) servers: u64,
    /// When the oldest entry was answered, in Unix seconds.
    pub(crate) oldest_answered_at: Option<u64>,
    /// When expired entries were last removed, in Unix seconds.
    pub(crate) swept_at: Option<u64>,
}

pub(super) fn list(
    connection: &Connection,
    server: Option<&str>,
    verdicts: CachedVerdicts,
    visit: &mut dyn FnMut(ListedEntry),
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "SELECT kind, asked_at, expires_at, server_said, status, text, vouched_by, digest,
         url, item FROM lookups JOIN servers ON server = id
         WHERE ?1 IS NULL OR url = ?1 ORDER BY server, item",
    )?;
    let mut rows = statement.query([server])?;
    while let Some(row) = rows.next()? {
        let item: String = row.get(9)?;
        let item = HashPart::parse(&item).map_err(|error| {
            let text = rusqlite::types::Type::Text;
            rusqlite::Error::FromSqlConversionFailure(9, text, Box::new(error))
        })?;
        visit(ListedEntry {
            server: row.get(8)?,
            item,
            entry: db::read_entry(row, verdicts)?,
        });
    }
    Ok(())
}

/// The URLs of all servers, also of those without entries.
pub(super) fn server_urls(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT url FROM servers ORDER BY id")?;
    let urls = statement.query_map([], |row| row.get(0))?;
    urls.collect()
}

pub(super) fn stats(connection: &Connection, now: u64) -> rusqlite::Result<CacheStats> {
    let mut stats = CacheStats::default();
    let mut statement = connection.prepare("SELECT kind, count(*) FROM lookups GROUP BY kind")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let count = row.get::<_, i64>(1)?.unsigned_abs();
        match row.get::<_, i64>(0)? {
            POSITIVE => stats.positive = count,
            REFUSED => stats.refused = count,
            NEGATIVE => stats.negative = count,
            PREPARING => stats.preparing = count,
            TRANSIENT => stats.transient = count,
            other => return Err(rusqlite::Error::IntegralValueOutOfRange(0, other)),
        }
    }

    let now = db::stored_time(now);
    stats.expired = connection.query_row(
        "SELECT count(*) FROM lookups WHERE expires_at <= ?1",
        [now],
        unsigned,
    )?;
    stats.servers = connection.query_row("SELECT count(*) FROM servers", [], unsigned)?;
    stats.oldest_answered_at = connection
        .query_row("SELECT min(asked_at) FROM lookups", [], |row| {
            row.get::<_, Option<i64>>(0)
        })?
        .map(i64::unsigned_abs);
    stats.swept_at = expiry::swept_at(connection)?;
    Ok(stats)
}

/// What `PRAGMA integrity_check` finds; nothing when all is sound.
pub(super) fn integrity_faults(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("PRAGMA integrity_check")?;
    let lines: Vec<String> = statement
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(if lines == ["ok"] { Vec::new() } else { lines })
}

/// Removes entries about `items`, or about all when there are none named, of one server or of
/// all. Without items, what is known of the servers themselves goes too.
pub(super) fn remove(
    connection: &mut Connection,
    server: Option<&str>,
    items: &[HashPart],
) -> rusqlite::Result<u64> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let of_server = "(?1 IS NULL OR server IN (SELECT id FROM servers WHERE url = ?1))";
    let mut removed = 0;

    if items.is_empty() {
        let sql = format!("DELETE FROM lookups WHERE {of_server}");
        removed = transaction.execute(&sql, [server])?;
        transaction.execute(
            "UPDATE servers SET info_text = NULL, info_asked_at = NULL, info_expires_at = NULL,
             down_since = NULL, down_until = NULL, down_reason = NULL, pipelining = NULL,
             requests_per_connection = NULL, protocol = NULL WHERE ?1 IS NULL OR url = ?1",
            [server],
        )?;
        line_rate::remove(&transaction, server)?;
    } else {
        let all = "SELECT id FROM servers WHERE ?1 IS NULL OR url = ?1";
        let sql = format!("DELETE FROM lookups WHERE server IN ({all}) AND item = ?2");
        let mut statement = transaction.prepare(&sql)?;
        for item in items {
            removed += statement.execute(params![server, item.as_str()])?;
        }
    }
    transaction.commit()?;

    if items.is_empty() {
        expiry::return_free_pages(connection)?;
    }
    Ok(removed as u64)
}

fn unsigned(row: &rusqlite::Row<'_>) -> rusqlite::Result<u64> {
    row.get::<_, i64>(0).map(i64::unsigned_abs)
}
