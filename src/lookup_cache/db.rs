//! Reading and writing entries: plain SQL over one connection, knowing no files.

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use sha2::{Digest as _, Sha256};

use super::entry::{CacheEntry, CachedAnswer, TtlSource};
use super::server::{
    CacheInfoRecord, Downtime, Pipelining, ServerBehavior, ServerFact, ServerFacts, ServerRow,
};
use crate::format::store_path::HashPart;

/// Whether the key stored beside a text spares checking its signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CachedVerdicts {
    Used,
    Ignored,
}

/// Fails when the tables are not those that the statements here are for.
pub(super) fn check_tables(connection: &Connection) -> rusqlite::Result<()> {
    for sql in [SELECT_ENTRY, REPLACE_ENTRY, SELECT_FACTS] {
        connection.prepare_cached(sql)?;
    }
    Ok(())
}

pub(super) fn server_row(connection: &Connection, url: &str) -> rusqlite::Result<ServerRow> {
    let select = "SELECT id FROM servers WHERE url = ?1";
    let id = connection
        .query_row(select, [url], |row| row.get(0))
        .optional()?;
    if let Some(id) = id {
        return Ok(ServerRow(id));
    }
    connection.execute("INSERT OR IGNORE INTO servers (url) VALUES (?1)", [url])?;
    connection
        .query_row(select, [url], |row| row.get(0))
        .map(ServerRow)
}

/// Gives a server a number that was handed out earlier.
pub(super) fn insert_server(
    connection: &Connection,
    server: ServerRow,
    url: &str,
) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO servers (id, url) VALUES (?1, ?2)";
    connection.execute(sql, params![server.0, url]).map(|_| ())
}

/// The entries about `items` that count at `now`.
pub(super) fn find(
    connection: &mut Connection,
    server: ServerRow,
    items: &[HashPart],
    verdicts: CachedVerdicts,
    now: u64,
) -> rusqlite::Result<Vec<(HashPart, CacheEntry)>> {
    // In the order of the index, neighbors meet in one page.
    let mut ordered = items.to_vec();
    ordered.sort_unstable();

    let transaction = connection.transaction()?;
    let mut found = Vec::new();
    {
        let mut statement = transaction.prepare_cached(SELECT_ENTRY)?;
        for item in ordered {
            let mut rows = statement.query(params![server.0, item.as_str()])?;
            if let Some(row) = rows.next()? {
                let entry = read_entry(row, verdicts)?;
                if entry.is_fresh(now) {
                    found.push((item, entry));
                }
            }
        }
    }
    transaction.commit()?;
    Ok(found)
}

/// Inserts `batch` in one transaction.
pub(super) fn insert(
    connection: &mut Connection,
    batch: &[(ServerRow, HashPart, CacheEntry)],
) -> rusqlite::Result<()> {
    // The order in which they will be looked up.
    let mut ordered: Vec<_> = batch.iter().collect();
    ordered.sort_by_key(|(server, item, _)| (*server, *item));

    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    {
        let mut statement = transaction.prepare_cached(REPLACE_ENTRY)?;
        for (server, item, entry) in ordered {
            let stored = StoredAnswer::of(&entry.answer);
            statement.execute(params![
                server.0,
                item.as_str(),
                stored.kind,
                stored_time(entry.answered_at),
                stored_time(entry.expires_at),
                entry.ttl_source == TtlSource::Server,
                stored.status,
                stored.text,
                stored.key_id,
                stored.digest,
            ])?;
        }
    }
    transaction.commit()
}

pub(super) fn server_facts(
    connection: &Connection,
    server: ServerRow,
) -> rusqlite::Result<ServerFacts> {
    let facts = connection
        .prepare_cached(SELECT_FACTS)?
        .query_row([server.0], read_facts)
        .optional()?;
    Ok(facts.unwrap_or_default())
}

pub(super) fn update_server(
    connection: &mut Connection,
    server: ServerRow,
    facts: &[ServerFact],
) -> rusqlite::Result<()> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for fact in facts {
        match fact {
            ServerFact::CacheInfo(info) => transaction.execute(
                "UPDATE servers SET info_text = ?2, info_asked_at = ?3, info_expires_at = ?4
                 WHERE id = ?1",
                params![
                    server.0,
                    info.text,
                    stored_time(info.answered_at),
                    stored_time(info.expires_at)
                ],
            )?,
            ServerFact::Down(down) => transaction.execute(
                "UPDATE servers SET down_since = ?2, down_until = ?3, down_reason = ?4
                 WHERE id = ?1",
                params![
                    server.0,
                    stored_time(down.since),
                    stored_time(down.until),
                    down.reason
                ],
            )?,
            ServerFact::Up => transaction.execute(
                "UPDATE servers SET down_until = down_since WHERE id = ?1",
                [server.0],
            )?,
            ServerFact::Behavior(behavior) => transaction.execute(
                "UPDATE servers SET pipelining = coalesce(?2, pipelining),
                 requests_per_connection = coalesce(?3, requests_per_connection),
                 protocol = coalesce(?4, protocol) WHERE id = ?1",
                params![
                    server.0,
                    behavior
                        .pipelining
                        .map(|pipelining| pipelining == Pipelining::Works),
                    behavior.requests_per_connection,
                    behavior.protocol
                ],
            )?,
        };
    }
    transaction.commit()
}

/// The columns of an answer, with what does not apply left out.
struct StoredAnswer<'a> {
    kind: i64,
    status: Option<u16>,
    text: Option<&'a str>,
    key_id: Option<&'a str>,
    digest: Option<[u8; 32]>,
}

impl<'a> StoredAnswer<'a> {
    fn of(answer: &'a CachedAnswer) -> Self {
        let nothing = Self {
            kind: 0,
            status: None,
            text: None,
            key_id: None,
            digest: None,
        };
        match answer {
            CachedAnswer::Positive { text, key_id } => Self {
                kind: POSITIVE,
                text: Some(text),
                key_id: key_id.as_deref(),
                digest: key_id.as_deref().map(|key| key_digest(text, key)),
                ..nothing
            },
            CachedAnswer::Refused { facts } => Self {
                kind: REFUSED,
                text: Some(facts),
                ..nothing
            },
            CachedAnswer::Negative { status } => Self {
                kind: NEGATIVE,
                status: Some(*status),
                ..nothing
            },
            CachedAnswer::Preparing { status } => Self {
                kind: PREPARING,
                status: Some(*status),
                ..nothing
            },
            CachedAnswer::Transient { reason } => Self {
                kind: TRANSIENT,
                text: Some(reason),
                ..nothing
            },
        }
    }
}

/// Reads the columns `kind` to `digest`, in the order of [`ENTRY_COLUMNS`].
pub(super) fn read_entry(row: &Row<'_>, verdicts: CachedVerdicts) -> rusqlite::Result<CacheEntry> {
    let answer = match row.get::<_, i64>(0)? {
        POSITIVE => {
            let text: Box<str> = row.get(5)?;
            let key_id = match verdicts {
                CachedVerdicts::Used => read_key_id(row, &text)?,
                CachedVerdicts::Ignored => None,
            };
            CachedAnswer::Positive { text, key_id }
        }
        NEGATIVE => CachedAnswer::Negative {
            status: row.get(4)?,
        },
        PREPARING => CachedAnswer::Preparing {
            status: row.get(4)?,
        },
        TRANSIENT => CachedAnswer::Transient {
            reason: row.get(5)?,
        },
        REFUSED => CachedAnswer::Refused { facts: row.get(5)? },
        other => return Err(rusqlite::Error::IntegralValueOutOfRange(0, other)),
    };
    Ok(CacheEntry {
        answer,
        answered_at: optional_time(row, 1)?.unwrap_or_default(),
        expires_at: optional_time(row, 2)?.unwrap_or_default(),
        ttl_source: if row.get(3)? {
            TtlSource::Server
        } else {
            TtlSource::Default
        },
    })
}

/// The verdict beside `text`, unless either of them is not as it was written: SQLite does not
/// notice a flipped bit inside a text, and no signature is going to be checked again.
fn read_key_id(row: &Row<'_>, text: &str) -> rusqlite::Result<Option<Box<str>>> {
    let key_id: Option<Box<str>> = row.get(6)?;
    let digest: Option<[u8; 32]> = row.get(7)?;
    Ok(key_id.filter(|key| digest == Some(key_digest(text, key))))
}

fn key_digest(text: &str, key: &str) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(key.as_bytes());
    digest.update([0]);
    digest.update(text.as_bytes());
    digest.finalize().into()
}

fn read_facts(row: &Row<'_>) -> rusqlite::Result<ServerFacts> {
    let cache_info = match (optional_time(row, 1)?, optional_time(row, 2)?) {
        (Some(answered_at), Some(expires_at)) => Some(CacheInfoRecord {
            text: row.get(0)?,
            answered_at,
            expires_at,
        }),
        _ => None,
    };
    let down = match (optional_time(row, 3)?, optional_time(row, 4)?) {
        (Some(since), Some(until)) => {
            let reason = row.get::<_, Option<Box<str>>>(5)?.unwrap_or_default();
            Some(Downtime {
                since,
                until,
                reason,
            })
        }
        _ => None,
    };

    let pipelining = row.get::<_, Option<bool>>(6)?;
    let behavior = ServerBehavior {
        pipelining: pipelining.map(|works| {
            if works {
                Pipelining::Works
            } else {
                Pipelining::Broken
            }
        }),
        requests_per_connection: row.get(7)?,
        protocol: row.get(8)?,
    };
    Ok(ServerFacts {
        cache_info,
        down,
        behavior,
    })
}

/// Times beyond what the database holds are as good as never.
pub(super) fn stored_time(secs: u64) -> i64 {
    i64::try_from(secs).unwrap_or(i64::MAX)
}

fn optional_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    let secs: Option<i64> = row.get(column)?;
    secs.map(|secs| {
        u64::try_from(secs).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, secs))
    })
    .transpose()
}

pub(super) const POSITIVE: i64 = 1;
pub(super) const NEGATIVE: i64 = 2;
pub(super) const PREPARING: i64 = 3;
pub(super) const TRANSIENT: i64 = 4;
pub(super) const REFUSED: i64 = 5;

const SELECT_ENTRY: &str =
    "SELECT kind, asked_at, expires_at, server_said, status, text, vouched_by, digest
    FROM lookups WHERE server = ?1 AND item = ?2";
/// A failure (kind 4) replaces no other answer that still counts then.
const REPLACE_ENTRY: &str = "INSERT INTO lookups
    (server, item, kind, asked_at, expires_at, server_said, status, text, vouched_by, digest)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
    ON CONFLICT (server, item) DO UPDATE SET kind = excluded.kind, asked_at = excluded.asked_at,
    expires_at = excluded.expires_at, server_said = excluded.server_said,
    status = excluded.status, text = excluded.text, vouched_by = excluded.vouched_by,
    digest = excluded.digest
    WHERE excluded.kind <> 4 OR lookups.kind = 4
    OR excluded.asked_at NOT BETWEEN lookups.asked_at AND lookups.expires_at - 1";
const SELECT_FACTS: &str = "SELECT info_text, info_asked_at, info_expires_at, down_since,
    down_until, down_reason, pipelining, requests_per_connection, protocol
    FROM servers WHERE id = ?1";
